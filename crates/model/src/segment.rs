//! Segments: a fixed share of the streams of a processor.
//!
//! The hash that puts a stream into a segment is a form: it is written into every token table and
//! never changes. The test vectors below hold it in place.

use std::fmt;

use crate::limits;

/// The number of segments of a version, 1 to [`limits::SEGMENTS_MAX`]. It is fixed for the life of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentCount(u16);

/// One segment of a version, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(u16);

/// A number that is not a valid segment or number of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRange {
    /// The number as given.
    pub number: u16,
    /// The least that is allowed.
    pub from: u16,
    /// The most that is allowed.
    pub through: u16,
}

impl fmt::Display for SegmentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is out of range: {} through {} segments are possible", self.number, self.from, self.through)
    }
}

impl std::error::Error for SegmentRange {}

impl SegmentCount {
    /// One segment: all events in one order.
    pub const ONE: Self = Self(1);

    /// Returns the count `number`.
    ///
    /// # Errors
    /// [`SegmentRange`] outside 1 through [`limits::SEGMENTS_MAX`].
    pub const fn new(number: u16) -> Result<Self, SegmentRange> {
        if number == 0 || number > limits::SEGMENTS_MAX {
            return Err(SegmentRange { number, from: 1, through: limits::SEGMENTS_MAX });
        }
        Ok(Self(number))
    }

    /// Returns the count as a number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns every segment, in order.
    pub fn segments(self) -> impl DoubleEndedIterator<Item = Segment> + ExactSizeIterator {
        (0..self.0).map(Segment)
    }

    /// Returns the segment `number`, if this many segments have one.
    ///
    /// # Errors
    /// [`SegmentRange`] if `number` is not below the count.
    pub const fn segment(self, number: u16) -> Result<Segment, SegmentRange> {
        if number >= self.0 {
            return Err(SegmentRange { number, from: 0, through: self.0 - 1 });
        }
        Ok(Segment(number))
    }

    /// Returns the segment of a stream: the high part of `hash × count`, so that equal hashes stay together and each
    /// of `n` segments is the union of two of `2n`.
    #[expect(clippy::expect_used, reason = "the high part is below the count")]
    pub fn segment_of(self, stream: &str) -> Segment {
        if self.0 == 1 {
            return Segment(0);
        }
        let scaled = (u128::from(stream_hash(stream)) * u128::from(self.0)) >> 64;
        Segment(u16::try_from(scaled).expect("the high part is below the count"))
    }
}

impl Segment {
    /// Its number, from 0.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SegmentCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns the hash of a stream's name: XXH3, 64 bits, seed 0, over its UTF-8 bytes.
pub fn stream_hash(stream: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(stream.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written once. A change here would put streams into other segments than those whose tokens are stored.
    const VECTORS: [(&str, u64, u16, u16, u16); 5] = [
        ("a", 16_629_034_431_890_738_719, 3, 6, 923),
        ("account-1", 6_925_527_013_811_150_362, 1, 2, 384),
        ("account-17", 14_106_172_204_654_979_663, 3, 5, 783),
        ("application-173688", 18_018_931_084_392_993_982, 3, 6, 1000),
        ("straße-ñ", 1_261_418_760_278_991_722, 0, 0, 70),
    ];

    #[test]
    fn the_hash_is_fixed_for_good() {
        let actual = VECTORS.map(|(stream, ..)| {
            let of = |count| SegmentCount::new(count).unwrap().segment_of(stream).get();
            (stream, stream_hash(stream), of(4), of(7), of(1024))
        });
        assert_eq!(actual, VECTORS);
    }

    #[test]
    fn counts_and_segments_are_bounded() {
        assert!(SegmentCount::new(0).is_err());
        assert!(SegmentCount::new(limits::SEGMENTS_MAX + 1).is_err());
        assert!(SegmentCount::ONE.segment(1).is_err());
    }

    proptest! {
        #[test]
        fn every_stream_has_one_segment_below_the_count(stream in ".{1,40}", count in 1..=limits::SEGMENTS_MAX) {
            prop_assert!(SegmentCount::new(count).unwrap().segment_of(&stream).get() < count);
        }

        #[test]
        fn doubling_splits_each_segment_in_two(stream in ".{1,40}", count in 1..=limits::SEGMENTS_MAX / 2) {
            let one = SegmentCount::new(count).unwrap().segment_of(&stream).get();
            let two = SegmentCount::new(count * 2).unwrap().segment_of(&stream).get();
            prop_assert_eq!(two / 2, one);
        }
    }

    #[test]
    fn segments_are_balanced() {
        let count = SegmentCount::new(16).unwrap();
        let mut sizes = [0_u32; 16];
        for account in 0..100_000 {
            sizes[usize::from(count.segment_of(&format!("account-{account}")).get())] += 1;
        }
        assert!(sizes.iter().all(|size| (5_700..6_800).contains(size)), "{sizes:?}");
    }
}
