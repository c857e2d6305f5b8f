//! Checksums of pages: the form of a page in the file of a view.
//!
//! ```text
//!  byte 0                                                    4088      4096
//!   │ what SQLite keeps in the page                           │ digest │
//! ```
//!
//! The digest covers the number of the page and everything before the digest, so a page in the place of another one is
//! found as well. Of the first page it does not cover the header's fields about the file itself. A page of zeros has no
//! valid digest: every page that SQLite reads was written before.
//!
//! In the WAL beside the file, pages are in frames and are sealed in the same way. A frame also has a checksum of
//! SQLite, which continues from that of the frame before it, and which SQLite checks only when it opens a WAL that a
//! process left. SQLite makes it before the page is sealed, so it is made again here. So every program that reads or
//! moves pages through SQLite reads and moves sealed pages.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use twox_hash::XxHash3_64;

use crate::files::no_more_files;

/// The size of a page in bytes. Every view is made with pages of this size.
pub(crate) const PAGE_BYTES: usize = 4_096;
/// The bytes at the end of a page that SQLite leaves to this module.
pub(super) const RESERVED_BYTES: usize = 8;
/// The place of that number in the header of a file.
const RESERVED_AT: usize = 20;
/// The parts of the header about the file and not about its contents: its format, its number of changes, its size, the
/// number of changes of its tables, and the version of SQLite. The digest does not cover them, since a copy that SQLite
/// makes of a file has other values. Wrong values lead to errors or to more work, never to another answer.
const OF_FILE: &[Range<usize>] = &[18..20, 24..32, 40..44, 92..100];
/// The number of changes in the header of a file, and its second place, which shows that the size in the header is right.
/// SQLite needs it only without a WAL. So it can be a stamp: the file gets another one whenever all pages of a WAL were
/// moved into it.
const CHANGES: [Range<usize>; 2] = [24..28, 92..96];
/// The beginning of the header of a file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of the header of a file.
pub(super) const HEADER_BYTES: usize = 100;

/// Bytes of the header of a WAL.
pub(super) const WAL_HEADER_BYTES: u64 = 32;
/// Bytes of the header of a frame in it.
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Bytes of a frame.
pub(super) const FRAME_BYTES: u64 = (FRAME_HEADER_BYTES + PAGE_BYTES) as u64;

/// The page at `PENDING_BYTE` of a file holds locks and is never written.
const LOCKS_PAGE: u64 = 0x4000_0000 / PAGE_BYTES as u64 + 1;

/// Returns true if the page, counted from 1, holds nothing.
pub(super) fn holds_nothing(page: u64) -> bool {
    page == LOCKS_PAGE
}

/// Writes the digest into a page.
pub(super) fn seal(page: u64, bytes: &mut [u8; PAGE_BYTES]) {
    let (content, end) = bytes.split_at_mut(PAGE_BYTES - RESERVED_BYTES);
    end.copy_from_slice(&digest(page, content));
}

/// Returns true if a page is what was written at its place.
pub(super) fn is_sound(page: u64, bytes: &[u8]) -> bool {
    let (content, end) = bytes.split_at(PAGE_BYTES - RESERVED_BYTES);
    bytes.len() == PAGE_BYTES && end == digest(page, content)
}

fn digest(page: u64, content: &[u8]) -> [u8; RESERVED_BYTES] {
    if page != 1 {
        return XxHash3_64::oneshot_with_seed(page, content).to_le_bytes();
    }
    let mut first = [0; PAGE_BYTES - RESERVED_BYTES];
    first.copy_from_slice(content);
    OF_FILE.iter().for_each(|of_file| first[of_file.clone()].fill(0));
    XxHash3_64::oneshot_with_seed(page, &first).to_le_bytes()
}

/// Writes a stamp into the header of a file.
pub(super) fn stamp(header: &mut [u8], stamp: u32) {
    CHANGES.iter().for_each(|at| header[at.clone()].copy_from_slice(&stamp.to_be_bytes()));
}

/// Returns the stamp in the header of a file.
pub(super) fn stamp_of(header: &[u8; HEADER_BYTES]) -> u32 {
    let [at, _] = CHANGES;
    header[at].iter().fold(0, |stamp, byte| stamp << 8 | u32::from(*byte))
}

/// Returns true if a file has no digests, according to its header. Earlier builds and other programs make such files.
pub(super) fn is_bare(header: &[u8]) -> bool {
    header.starts_with(MAGIC) && header.get(RESERVED_AT) == Some(&0)
}

/// The byte order of the words in the checksums of a WAL, according to the first four bytes of its header.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// Returns the order in the magic number of a WAL.
    pub(super) fn of(magic: [u8; 4]) -> Self {
        if magic[3] & 1 == 1 { Self::Big } else { Self::Little }
    }
}

/// The size of the salts of a WAL in bytes. A WAL gets new ones each time it is begun again.
pub(super) const SALT_BYTES: usize = 8;
/// The beginning of a WAL, except for the last bit, which is the order.
const WAL_MAGIC: u32 = 0x377f_0682;
/// The only version of its form.
const WAL_VERSION: u32 = 3_007_000;

/// The contents of the header of a WAL, which hold for all frames until it is begun again.
pub(super) struct Round {
    pub(super) salts: [u8; SALT_BYTES],
    /// The checksum of the header, from which that of the first frame continues.
    pub(super) sum: [u8; 8],
    order: Order,
}

impl Round {
    /// Returns the contents of a header, if SQLite would accept it as sound.
    pub(super) fn of(header: &[u8; WAL_HEADER_BYTES as usize]) -> Option<Self> {
        let (words, _) = header.as_chunks::<4>();
        let [magic, version, page_bytes, _, _, _, _, _] = *words else { return None };
        let (said, sum) = header.split_at(header.len() - 8);
        let order = Order::of(magic);
        let is_known = u32::from_be_bytes(magic) & !1 == WAL_MAGIC
            && u32::from_be_bytes(version) == WAL_VERSION
            && u32::from_be_bytes(page_bytes) as usize == PAGE_BYTES;
        let is_sound = sum == bytes_of(frame_sum((0, 0), said, order));
        let round = Self { salts: *said.last_chunk()?, sum: *sum.first_chunk()?, order };
        (is_known && is_sound).then_some(round)
    }

    /// Returns the checksum of a frame, if it is sound after a frame with the checksum `before`.
    pub(super) fn sum_of(&self, before: [u8; 8], frame: &[u8; FRAME_BYTES as usize]) -> Option<[u8; 8]> {
        let header = frame.first_chunk::<FRAME_HEADER_BYTES>()?;
        let mut right = *header;
        sum_up(before, self.order, &mut right, frame.last_chunk()?);
        let is_sound = right == *header && header[8..16] == self.salts && header[..4] != [0; 4];
        if is_sound { header.last_chunk().copied() } else { None }
    }
}

fn bytes_of((one, two): (u32, u32)) -> [u8; 8] {
    (u64::from(one) << 32 | u64::from(two)).to_be_bytes()
}

/// Writes the checksum of a frame into its header. `before` is the checksum of the frame before it, or of the WAL's
/// header: it continues from there.
pub(super) fn sum_up(before: [u8; 8], order: Order, header: &mut [u8; FRAME_HEADER_BYTES], page: &[u8; PAGE_BYTES]) {
    let [a, b, c, d, e, f, g, h] = before;
    let begin = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    let sum = bytes_of(frame_sum(frame_sum(begin, &header[..8], order), page, order));
    header[16..].copy_from_slice(&sum);
}

/// SQLite's checksum of a WAL (<https://sqlite.org/fileformat2.html#checksum_algorithm>).
fn frame_sum(begin: (u32, u32), bytes: &[u8], order: Order) -> (u32, u32) {
    match order {
        Order::Little => frame_sum_of(begin, bytes, u32::from_le_bytes),
        Order::Big => frame_sum_of(begin, bytes, u32::from_be_bytes),
    }
}

/// Compiled once for each order, since it runs over every byte that is written.
fn frame_sum_of((mut one, mut two): (u32, u32), bytes: &[u8], order: impl Fn([u8; 4]) -> u32) -> (u32, u32) {
    for &[a, b, c, d, e, f, g, h] in bytes.as_chunks::<8>().0 {
        one = one.wrapping_add(order([a, b, c, d])).wrapping_add(two);
        two = two.wrapping_add(order([e, f, g, h])).wrapping_add(one);
    }
    (one, two)
}

/// A page that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The file.
    pub(crate) file: String,
    /// The place in it at which the page begins.
    pub(crate) at: u64,
    /// True if the file says in its header that its pages have no digests.
    pub(crate) is_bare: bool,
}

impl Damage {
    /// Returns true if it is damage of the view whose file is at `path`, or of the WAL beside it.
    pub(crate) fn is_of(&self, path: &str) -> bool {
        is_of(&self.file, path)
    }
}

/// Returns true if `file` is that of the view at `path`, or the WAL beside it. SQLite may know the folder by another
/// path, so only the name of the folder and that of the file are compared.
pub(super) fn is_of(file: &str, path: &str) -> bool {
    let tail = |path: &str| path.rsplit('/').take(2).map(str::to_owned).collect::<Vec<_>>();
    tail(file.strip_suffix("-wal").unwrap_or(file)) == tail(path)
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the page at byte {} is not what was written there", self.at)
    }
}

/// Bytes of a file that the disk could not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// The file.
    pub(crate) file: PathBuf,
    /// The place in it at which they begin.
    pub(crate) at: u64,
    /// Their number.
    pub(crate) length: usize,
}

thread_local! {
    /// The bytes that the disk could not read, in the call into SQLite that is under way on this thread.
    static UNREAD: RefCell<Option<Unread>> = const { RefCell::new(None) };
    /// The damage that the call into SQLite under way on this thread has found, and that SQLite's own error cannot
    /// express.
    static FOUND: RefCell<Option<Damage>> = const { RefCell::new(None) };
    /// The advice about a file that could not be opened because no more files can be. SQLite does not say why.
    static UNOPENED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes that a file could not be opened, with the error of the operating system.
pub(super) fn unopened(error: &io::Error) {
    UNOPENED.set(no_more_files(error));
}

/// Returns the advice about the last file that could not be opened on this thread, if no more files could be.
pub(super) fn take_unopened() -> Option<String> {
    UNOPENED.take()
}

pub(super) fn found(damage: Damage) {
    FOUND.set(Some(damage));
}

/// Returns the damage that ended the last call into SQLite on this thread, if there was any.
pub(super) fn take_found() -> Option<Damage> {
    FOUND.take()
}

pub(super) fn unread(unread: Unread) {
    UNREAD.set(Some(unread));
}

/// Returns the bytes that the disk could not read, if that ended the last call into SQLite on this thread.
pub(super) fn take_unread() -> Option<Unread> {
    UNREAD.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_other_place_is_found() {
        let mut page = [7; PAGE_BYTES];
        seal(3, &mut page);
        assert!(is_sound(3, &page) && !is_sound(4, &page) && !is_sound(3, &[0; PAGE_BYTES]));
        for bit in 0..PAGE_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_sound(3, &page), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(is_sound(3, &page));
    }

    /// Views of earlier builds are read by this one. The other crate is the one that they were written with.
    #[test]
    fn the_form_of_a_digest_is_fixed() {
        let mut page = [0; PAGE_BYTES];
        (0_u8..=255).cycle().zip(&mut page).for_each(|(byte, at)| *at = byte);
        let content = &page[..PAGE_BYTES - RESERVED_BYTES];
        let digests = [2, 3, u64::from(u32::MAX)].map(|number| u64::from_le_bytes(digest(number, content)));
        assert_eq!(digests, [2_560_761_681_843_432_870, 16_263_067_488_289_118_412, 10_982_851_490_218_576_306]);
        let other = |number| xxhash_rust::xxh3::xxh3_64_with_seed(content, number);
        assert_eq!(digests, [2, 3, u64::from(u32::MAX)].map(other));
    }
}
