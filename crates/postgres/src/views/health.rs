//! How a view is, as far as what was done with it told.
//!
//! What fails is tried again by anyone who asks where the view is, since readers may be kept away for just that reason and
//! would never show that it works again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dacapo_store::{StoreError, ViewHealth};
use tokio::time::Instant;

use crate::limits;

/// What is known of one view.
#[derive(Debug, Default)]
pub(super) struct Health {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Where something was found, and what was said.
    damaged: Option<(String, String)>,
    /// Tables that cannot be read: what was said, by the statement that tells whether they can be again.
    failing: BTreeMap<String, String>,
    tried: Option<Instant>,
}

impl Health {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> ViewHealth {
        let known = self.known();
        ViewHealth {
            damaged: known.damaged.clone().map(|(_, told)| told),
            failing: known.failing.values().next().cloned(),
        }
    }

    /// Remembers damage, of which the first that was found is told.
    pub(super) fn heed(&self, error: &StoreError) {
        if let StoreError::Corrupt { place, .. } = error {
            self.known().damaged.get_or_insert_with(|| (place.clone(), error.to_string()));
        }
    }

    /// All of this place was read, and is as it should be: somebody has put it right.
    pub(super) fn is_sound(&self, place: &str) {
        self.known().damaged.take_if(|(damaged, _)| damaged == place);
    }

    /// What came of a read of a table.
    pub(super) fn read(&self, probe: &str, error: Option<&StoreError>) {
        match error {
            None => drop(self.known().failing.remove(probe)),
            Some(error @ StoreError::Unavailable { .. }) => {
                self.known().failing.insert(probe.to_owned(), error.to_string());
            }
            Some(_) => {}
        }
    }

    /// What is to be tried again now.
    pub(super) fn due(&self) -> Vec<String> {
        let mut known = self.known();
        if known.failing.is_empty() || known.tried.is_some_and(|tried| tried.elapsed() < limits::FAILED_READ_LOOK) {
            return vec![];
        }
        known.tried = Some(Instant::now());
        known.failing.keys().cloned().collect()
    }
}

/// A read of a table that is under way.
pub(super) struct Reading<'a> {
    health: &'a Health,
    /// What is read, and the statement that tells whether it can be.
    what: (String, String),
    since: Instant,
    done: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(health: &'a Health, tried: String, probe: String) -> Self {
        Self { health, what: (tried, probe), since: Instant::now(), done: false }
    }

    pub(super) fn done<T>(mut self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        self.done = true;
        self.health.read(&self.what.1, read.as_ref().err());
        read
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let time = self.since.elapsed();
        if !self.done && time >= limits::READ_TIME_LONG {
            let found = format!("no answer within {} s, and nobody waited any longer", time.as_secs());
            self.health.read(&self.what.1, Some(&StoreError::unavailable(&self.what.0, found)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_right_is_no_damage_any_more_and_nothing_else_is() {
        let health = Health::default();
        health.heed(&StoreError::corrupt("tokens", "one is missing"));
        health.is_sound("rows");
        assert!(health.told().damaged.is_some_and(|error| error.contains("one is missing")));
        health.is_sound("tokens");
        assert_eq!(health.told(), ViewHealth::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_late_fails_until_it_was_read_again() {
        let health = Health::default();
        let reading = || Reading::new(&health, "read the table a".into(), "SELECT a".into());
        drop(reading());
        assert_eq!(health.told(), ViewHealth::default(), "the caller need not wait");
        let long = reading();
        tokio::time::sleep(limits::READ_TIME_LONG).await;
        drop(long);
        assert!(health.told().failing.is_some_and(|error| error.contains("no answer within 2 s")));
        assert_eq!((health.due(), health.due()), (vec!["SELECT a".to_owned()], vec![]));
        reading().done(Ok(())).unwrap();
        assert_eq!(health.told(), ViewHealth::default());
    }
}
