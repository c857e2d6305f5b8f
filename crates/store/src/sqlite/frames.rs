//! Frames of the WAL: the change of a frame when its page is sealed.
//!
//! SQLite makes the checksum of a frame from the checksum of the frame before it and from every byte of the frame
//! itself. It knows nothing of digests. So in the file two things differ from what SQLite used: the checksum before,
//! and the end of the page. The checksum only adds (<https://sqlite.org/fileformat2.html#checksum_algorithm>), so the
//! right one follows from SQLite's own and from these two differences. The page is not read a second time.

use crate::sqlite::pages::{self, FRAME_BYTES, FRAME_HEADER_BYTES, Order, PAGE_BYTES};

/// Bytes of the checksum at the end of a header.
pub(super) const SUM_BYTES: usize = 8;
/// The bytes of a frame from which the checksum is made: the beginning of the header, and the page.
const SUMMED_BYTES: usize = 8 + PAGE_BYTES;

pub(super) type Header = [u8; FRAME_HEADER_BYTES];
pub(super) type Frame = [u8; FRAME_BYTES as usize];
pub(super) type Sum = [u8; SUM_BYTES];

/// The checksum of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// As SQLite made it.
    pub(super) made: Sum,
    /// As it stands in the file.
    pub(super) written: Sum,
}

/// The state from which the checksum of a frame continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) order: Order,
    /// As it stands in the file.
    pub(super) written: Sum,
    /// The checksum from which SQLite continued, if it is known.
    pub(super) made: Option<Sum>,
}

/// Returns the page in a frame.
pub(super) fn page_of(header: &Header) -> u64 {
    let [a, b, c, d, ..] = *header;
    u32::from_be_bytes([a, b, c, d]).into()
}

/// Returns the checksum in a header. There is none while a page of the transaction was written again, since SQLite
/// makes it at the commit.
pub(super) fn sum_of(header: &Header) -> Option<Sum> {
    let has_sum = header[8..].iter().any(|byte| *byte != 0);
    has_sum.then(|| header.last_chunk().copied()).flatten()
}

/// Seals the page of a frame, and replaces SQLite's checksum by the right one. Returns `None` if SQLite made none.
pub(super) fn seal(frame: &mut Frame, before: Option<Before>) -> Option<Sums> {
    let (header, page) = frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>()?;
    let page: &mut [u8; PAGE_BYTES] = page.try_into().ok()?;
    let end = *page.last_chunk()?;
    pages::seal(page_of(header), page);
    let (before, made) = (before?, sum_of(header)?);
    // Reads the whole page, which costs as much as SQLite's own checksum.
    let over_all = |mut header: Header| {
        pages::sum_up(before.written, before.order, &mut header, page);
        header.last_chunk().copied()
    };
    let written = match before.made {
        Some(before_made) => {
            let by = Differences {
                before: minus(pair(before.written, Order::Big), pair(before_made, Order::Big)),
                end: minus(pair(*page.last_chunk()?, before.order), pair(end, before.order)),
            };
            let written = sum_bytes(by.added_to(pair(made, Order::Big)));
            debug_assert_eq!(Some(written), over_all(*header), "SQLite went on from another checksum");
            written
        }
        None => over_all(*header)?,
    };
    header[FRAME_HEADER_BYTES - SUM_BYTES..].copy_from_slice(&written);
    Some(Sums { made, written })
}

/// The differences between a frame in the file and the frame from which SQLite made its checksum.
struct Differences {
    /// The checksum before it.
    before: (u32, u32),
    /// The last two words of its page.
    end: (u32, u32),
}

impl Differences {
    fn added_to(&self, (one, two): (u32, u32)) -> (u32, u32) {
        let before = |of_one: u32, of_two: u32| {
            self.before.0.wrapping_mul(of_one).wrapping_add(self.before.1.wrapping_mul(of_two))
        };
        let one = one.wrapping_add(before(OF_ONE.0, OF_TWO.0)).wrapping_add(self.end.0);
        // The last word but one enters the first sum when that is added to the second.
        let two = two.wrapping_add(before(OF_ONE.1, OF_TWO.1)).wrapping_add(self.end.0).wrapping_add(self.end.1);
        (one, two)
    }
}

/// The effect of 1 in either sum of the checksum before, after one frame.
const OF_ONE: (u32, u32) = over_zeros((1, 0));
const OF_TWO: (u32, u32) = over_zeros((0, 1));

const fn over_zeros((mut one, mut two): (u32, u32)) -> (u32, u32) {
    let mut done = 0;
    while done < SUMMED_BYTES {
        one = one.wrapping_add(two);
        two = two.wrapping_add(one);
        done += 8;
    }
    (one, two)
}

/// Returns a checksum in the form that a header has.
pub(super) fn sum_bytes((one, two): (u32, u32)) -> Sum {
    (u64::from(one) << 32 | u64::from(two)).to_be_bytes()
}

fn minus(left: (u32, u32), right: (u32, u32)) -> (u32, u32) {
    (left.0.wrapping_sub(right.0), left.1.wrapping_sub(right.1))
}

fn pair([a, b, c, d, e, f, g, h]: [u8; 8], order: Order) -> (u32, u32) {
    let of = match order {
        Order::Little => u32::from_le_bytes,
        Order::Big => u32::from_be_bytes,
    };
    (of([a, b, c, d]), of([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a frame of which SQLite made the checksum after `before`.
    fn made(before: Sum, order: Order, bytes: &[u8]) -> Frame {
        let mut frame = [0; FRAME_BYTES as usize];
        frame.copy_from_slice(bytes);
        let (header, page) = frame.split_first_chunk_mut().unwrap();
        pages::sum_up(before, order, header, (&*page).try_into().unwrap());
        frame
    }

    proptest! {
        #[test]
        fn a_checksum_that_is_taken_along_is_the_one_that_is_made_of_all(
            before_made: Sum,
            written: Sum,
            is_big: bool,
            bytes in prop::collection::vec(any::<u8>(), FRAME_BYTES as usize),
        ) {
            let order = if is_big { Order::Big } else { Order::Little };
            let made = made(before_made, order, &bytes);
            let (mut quick, mut whole) = (made, made);
            let sums = seal(&mut quick, Some(Before { order, written, made: Some(before_made) }));
            prop_assert_eq!(sums, seal(&mut whole, Some(Before { order, written, made: None })));
            prop_assert_eq!(sums.map(|sums| sums.made), made[..FRAME_HEADER_BYTES].last_chunk().copied());
            prop_assert!(quick == whole && quick != made);
        }
    }
}
