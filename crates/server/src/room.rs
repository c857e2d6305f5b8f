//! The connections, and the rule which one leaves when there is no room.
//!
//! ```text
//!   a connection comes ─┬─ there is room ──────────────────────────▶ it is in
//!                       ├─ somebody has no request under way ─▶ the one that rests longest leaves, it is in
//!                       ├─ all have one ─▶ it is in the reserve, which answers probes only
//!                       └─ the reserve is full of requests ─▶ it is let go of
//! ```
//!
//! So connections without a request never keep out one with a request, and probes are answered whatever the others
//! do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All connections.
#[derive(Debug)]
pub(crate) struct Room {
    connections_max: usize,
    reserve_max: usize,
    guests: Mutex<HashMap<u64, Arc<Guest>>>,
    /// Counts arrivals and rests, which shows their order.
    moments: AtomicU64,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Guest {
    /// True if it is in the reserve.
    pub reserve: bool,
    /// Notified when it shall make room.
    pub leave: Notify,
    under_way: AtomicUsize,
    asked: AtomicU64,
    resting_since: AtomicU64,
}

impl Guest {
    /// Returns true if it has ever sent a request.
    pub fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    fn rests(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
}

/// The place of a connection in the room, until it is dropped.
pub(crate) struct Seat {
    room: Arc<Room>,
    number: u64,
    pub guest: Arc<Guest>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.guests().remove(&self.number);
    }
}

impl Seat {
    /// Begins a request. It is under way until the returned value is dropped.
    pub fn asks(&self) -> UnderWay {
        self.guest.asked.fetch_add(1, Ordering::Relaxed);
        self.guest.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay { room: Arc::clone(&self.room), guest: Arc::clone(&self.guest) }
    }
}

/// A request, until its answer is handed over.
pub(crate) struct UnderWay {
    room: Arc<Room>,
    guest: Arc<Guest>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.guest.resting_since.store(self.room.moment(), Ordering::Relaxed);
        self.guest.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Room {
    pub fn new(connections_max: usize, reserve_max: usize) -> Arc<Self> {
        let (guests, moments) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { connections_max, reserve_max, guests, moments })
    }

    /// Returns a place for a new connection; `None` if even the reserve has none.
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        self.enter_as(false).or_else(|| self.enter_reserve())
    }

    /// Returns a place in the reserve.
    pub fn enter_reserve(self: &Arc<Self>) -> Option<Seat> {
        self.enter_as(true)
    }

    fn enter_as(self: &Arc<Self>, reserve: bool) -> Option<Seat> {
        let mut guests = self.guests();
        let max = if reserve { self.reserve_max } else { self.connections_max };
        let is_like = |guest: &Guest| guest.reserve == reserve;
        if guests.values().filter(|guest| is_like(guest)).count() >= max && !send_off(&mut guests, is_like) {
            return None;
        }
        let number = self.moment();
        let guest = Arc::new(Guest {
            reserve,
            leave: Notify::new(),
            under_way: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            resting_since: AtomicU64::new(number),
        });
        guests.insert(number, Arc::clone(&guest));
        Some(Seat { room: Arc::clone(self), number, guest })
    }

    /// Closes the connection that has rested longest, so that the system gets its file back. Returns true if there
    /// was one.
    pub fn make_room(&self) -> bool {
        send_off(&mut self.guests(), |_| true)
    }

    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.guests().len()
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<u64, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection that has rested longest, of those that `among` allows. Its place is free at once.
fn send_off(guests: &mut HashMap<u64, Arc<Guest>>, among: impl Fn(&Guest) -> bool) -> bool {
    let resting = guests.iter().filter(|(_, guest)| among(guest) && guest.rests());
    let longest = resting.min_by_key(|(_, guest)| guest.resting_since.load(Ordering::Relaxed));
    let Some(number) = longest.map(|(number, _)| *number) else { return false };
    if let Some(guest) = guests.remove(&number) {
        guest.leave.notify_one();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_rests_longest_makes_room_and_requests_do_not() {
        let room = Room::new(2, 1);
        let (first, second) = (room.enter().unwrap(), room.enter().unwrap());
        drop(first.asks());
        // The second one rests longer now.
        let third = room.enter().unwrap();
        assert!(!third.guest.reserve && room.len() == 2);
        assert!(room.guests().contains_key(&first.number) && !room.guests().contains_key(&second.number));
        let (_one, _other) = (first.asks(), third.asks());
        let probe = room.enter().unwrap();
        assert!(probe.guest.reserve);
        let asked = probe.asks();
        assert!(room.enter().is_none());
        drop(asked);
        let next = room.enter().unwrap();
        assert!(next.guest.reserve && !room.guests().contains_key(&probe.number));
        drop(next);
        assert!(!room.make_room(), "requests under way are not cut off");
        drop(third);
        assert!(!room.enter().unwrap().guest.reserve);
    }
}
