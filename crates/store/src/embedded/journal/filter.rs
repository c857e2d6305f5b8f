//! Filters that show which chunks cannot have a stream or an id, so that most lookups read no index.
//!
//! This is a split block Bloom filter: a key belongs to one block of eight words (one cache line) and sets one bit in
//! each word. With 16 bits for each key, about one of 1,000 absent keys seems present.

const BLOCK_WORDS: usize = 8;
const BITS_A_KEY: usize = 16;

/// Odd numbers that spread one hash over the eight words. They are part of the form of index files.
const SALTS: [u32; BLOCK_WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// A set of hashes. It may report a hash that it does not have, but never misses one that it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    blocks: Vec<[u64; BLOCK_WORDS]>,
}

impl Filter {
    pub fn for_keys(keys: usize) -> Self {
        let blocks = (keys * BITS_A_KEY).div_ceil(BLOCK_WORDS * 64).max(1);
        Self { blocks: vec![[0; BLOCK_WORDS]; blocks] }
    }

    pub fn insert(&mut self, hash: u64) {
        let block = self.block_of(hash);
        for (word, bit) in self.blocks[block].iter_mut().zip(bits(hash)) {
            *word |= bit;
        }
    }

    pub fn may_have(&self, hash: u64) -> bool {
        self.blocks[self.block_of(hash)].iter().zip(bits(hash)).all(|(word, bit)| word & bit != 0)
    }

    fn block_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }

    /// Writes the stored form: the number of blocks, then the words.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.blocks.len() as u64).to_le_bytes());
        out.extend(self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()));
    }

    /// Reads the stored form from the beginning of `bytes`.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let (words, rest) = rest.split_at_checked(count.checked_mul(BLOCK_WORDS * 8)?)?;
        let block = |bytes: &[u8]| {
            let mut words = [0; BLOCK_WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            words
        };
        *bytes = rest;
        (count > 0).then(|| Self { blocks: words.chunks_exact(BLOCK_WORDS * 8).map(block).collect() })
    }
}

fn bits(hash: u64) -> [u64; BLOCK_WORDS] {
    let low = hash as u32;
    SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 26))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::stream_hash;

    #[test]
    fn nothing_that_is_there_is_missed_and_little_else_is_claimed() {
        let mut filter = Filter::for_keys(10_000);
        (0..10_000).for_each(|n| filter.insert(stream_hash(&format!("account-{n}"))));
        let mut bytes = Vec::new();
        filter.encode(&mut bytes);
        let read = Filter::decode(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, filter);
        assert!((0..10_000).all(|n| read.may_have(stream_hash(&format!("account-{n}")))));
        let wrong = (10_000..110_000).filter(|n| read.may_have(stream_hash(&format!("account-{n}")))).count();
        assert!(wrong < 300, "{wrong} of 100,000");
    }
}
