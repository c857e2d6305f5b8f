//! The form of one recorded event: in memory, between threads and on disk alike.
//!
//! ```text
//!    0  u32  length of the whole record, a multiple of 8
//!    4  u32  CRC-32C of everything after this field
//!    8  u32  length of the payload          12  u32  length of metadata and tags
//!   16  u16  length of the stream's name    18  u8   length of the type    19  u8  flags
//!   20  u16  mark 0xDACA                    22  u16  zero
//!   24  u64  position                       32  u64  revision
//!   40  i64  recorded, microseconds since 1970
//!   48       id, 16 bytes
//!   64       stream, type, metadata and tags, payload; zeroes up to a multiple of 8
//!            with the flag [`CHAINED`]: u64 digest of the history before this record
//! ```
//!
//! All numbers are little-endian. The flags show how records belong together. [`LAST_OF_APPEND`] is set on the last
//! record of an append, which is there as a whole or not at all (I-2). [`FIRST_OF_GROUP`] is set on the first record
//! of each write, so its presence proves that everything before it was durable. A journal that keeps [digests](link)
//! of its history in records sets [`CHAINED`] there, too.

use bytes::Bytes;
use dacapo_model::{EventId, Metadata, NewEvent, Position, Revision, Timestamp, category_of};

use crate::error::StoreError;
use crate::extra;

/// Bytes before the stream's name.
pub const HEADER_BYTES: usize = 64;
/// Records begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// Set on the last record of an append.
pub const LAST_OF_APPEND: u8 = 1;
/// Set on the first record of a group that was made durable by one flush.
pub const FIRST_OF_GROUP: u8 = 2;
/// Set on a record that ends with the digest of the history before it.
pub const CHAINED: u8 = 4;
const DIGEST_BYTES: usize = 8;
const MARK: u16 = 0xDACA;

/// A recorded event, borrowed from the bytes in which it was read.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Its place in the journal.
    pub position: Position,
    /// Its place in its stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// The time at which it was appended, by the clock of the node that did it. It never decreases along the journal.
    pub recorded: Timestamp,
    /// Its stream.
    pub stream: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// Its payload, byte for byte as appended.
    pub payload: &'a [u8],
    extra: &'a [u8],
    flags: u8,
}

impl<'a> EventRef<'a> {
    /// Returns the category of its stream.
    pub fn category(&self) -> &'a str {
        category_of(self.stream)
    }

    /// Returns its metadata and tags, decoded.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they were not written by dacapo.
    pub fn extra(&self) -> Result<(Metadata, Vec<String>), StoreError> {
        extra::decode(self.extra)
            .map_err(|error| StoreError::corrupt(format!("the metadata of event {}", self.position), error.to_string()))
    }

    /// Returns true if it is the last event of its append.
    pub fn is_last_of_append(&self) -> bool {
        self.flags & LAST_OF_APPEND != 0
    }

    /// Returns true if it is the first event of a group that one flush made durable.
    pub fn is_first_of_group(&self) -> bool {
        self.flags & FIRST_OF_GROUP != 0
    }
}

/// Returns the length of the record that begins with `bytes`, without reading its content; `None` if no record can
/// begin so.
pub fn record_len(bytes: &[u8]) -> Option<usize> {
    let len = u32_at(bytes, 0)? as usize;
    (len >= HEADER_BYTES && len.is_multiple_of(ALIGNMENT) && u16_at(bytes, 20)? == MARK).then_some(len)
}

/// Returns the record at the beginning of `bytes`, and its length. Its checksum is verified.
///
/// # Errors
/// The fault of the record, for a message.
pub fn verify(bytes: &[u8]) -> Result<(EventRef<'_>, usize), &'static str> {
    let len = record_len(bytes).ok_or("no record begins here")?;
    let record = bytes.get(..len).ok_or("the record is cut off")?;
    let crc = u32_at(record, 4).ok_or("no record begins here")?;
    if crc32c::crc32c(&record[8..]) != crc {
        return Err("the checksum does not match");
    }
    parse(record).ok_or("the lengths in the record contradict each other").map(|event| (event, len))
}

/// Returns the digest of a history that ends with `record`, where `before` is the digest of the history before it. It
/// is chained over the lengths and checksums of all records, so it costs next to nothing.
pub fn link(before: u64, record: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(record.get(..8).unwrap_or(record), before)
}

/// Returns the digest of the history before `record`, if the record carries it. [`verify`] must have accepted the
/// record.
pub fn history_before(record: &[u8]) -> Option<u64> {
    let chained = record.get(19)? & CHAINED != 0;
    let at = record_len(record)?.checked_sub(DIGEST_BYTES)?;
    if chained { u64_at(record, at) } else { None }
}

/// Returns the event in `record`, whose checksum was verified before.
fn parse(record: &[u8]) -> Option<EventRef<'_>> {
    let (header, body) = record.split_first_chunk::<HEADER_BYTES>()?;
    let stream_len = usize::from(u16_at(header, 16)?);
    // One check for both names: most of the cost for such short texts is the start of the check.
    let (names, body) = body.split_at_checked(stream_len + usize::from(header[18]))?;
    let (stream, event_type) = std::str::from_utf8(names).ok()?.split_at_checked(stream_len)?;
    let (extra, body) = body.split_at_checked(u32_at(header, 12)? as usize)?;
    let (payload, rest) = body.split_at_checked(u32_at(header, 8)? as usize)?;
    if header[19] & CHAINED != 0 && rest.len() < DIGEST_BYTES {
        return None;
    }
    Some(EventRef {
        position: Position::new(u64_at(header, 24)?),
        revision: Revision::new(u64_at(header, 32)?),
        recorded: Timestamp::from_micros(u64_at(header, 40)?.cast_signed()),
        id: EventId::from_bytes(header[48..64].try_into().ok()?),
        stream,
        event_type,
        payload,
        extra,
        flags: header[19],
    })
}

/// The place that an event gets when it is appended.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its place in the journal.
    pub position: Position,
    /// Its place in its stream.
    pub revision: Revision,
    /// The time at which it is appended.
    pub recorded: Timestamp,
    /// [`LAST_OF_APPEND`] and [`FIRST_OF_GROUP`], if they apply.
    pub flags: u8,
}

/// Returns the bytes that the record of `event` in `stream` takes.
pub fn encoded_len(stream: &str, event: &NewEvent) -> usize {
    let extra = extra::encode(&event.metadata, &event.tags).len();
    let content = stream.len() + event.event_type.as_str().len() + extra + event.payload.len();
    (HEADER_BYTES + content).next_multiple_of(ALIGNMENT)
}

/// Writes the record of `event` at the end of `out`.
///
/// # Panics
/// If a part exceeds its limit in [`dacapo_model::limits`], which an append checks first.
pub fn encode(out: &mut Vec<u8>, place: Place<'_>, event: &NewEvent) {
    let extra = extra::encode(&event.metadata, &event.tags);
    let content =
        Content { id: event.id, event_type: event.event_type.as_str(), extra: &extra, payload: &event.payload };
    encode_content(out, place, content);
}

/// Writes as [`encode`] does, for a journal that keeps digests: the record carries `before`, the digest of the
/// history before it.
///
/// # Panics
/// If a part exceeds its limit in [`dacapo_model::limits`], which an append checks first.
pub fn encode_chained(out: &mut Vec<u8>, place: Place<'_>, event: &NewEvent, before: u64) {
    let extra = extra::encode(&event.metadata, &event.tags);
    let content =
        Content { id: event.id, event_type: event.event_type.as_str(), extra: &extra, payload: &event.payload };
    encode_with(out, Place { flags: place.flags | CHAINED, ..place }, content, Some(before));
}

/// An event that was recorded before, in the parts that stores keep.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Its identity.
    pub id: EventId,
    /// Its type.
    pub event_type: &'a str,
    /// Its metadata and tags, in the form of [`encode_extra`].
    pub extra: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// Returns the stored form of an event's metadata and tags; empty if it has none.
pub fn encode_extra(event: &NewEvent) -> Vec<u8> {
    extra::encode(&event.metadata, &event.tags)
}

/// Writes the record of an event at the end of `out`.
///
/// # Panics
/// If a part exceeds its limit in [`dacapo_model::limits`].
pub fn encode_content(out: &mut Vec<u8>, place: Place<'_>, event: Content<'_>) {
    encode_with(out, place, event, None);
}

#[expect(clippy::expect_used, reason = "limits were checked")]
fn encode_with(out: &mut Vec<u8>, place: Place<'_>, event: Content<'_>, before: Option<u64>) {
    let start = out.len();
    let Content { id, event_type, extra, payload } = event;
    let content = place.stream.len() + event_type.len() + extra.len() + payload.len();
    let digest_bytes = before.map_or(0, |_| DIGEST_BYTES);
    let len = (HEADER_BYTES + content).next_multiple_of(ALIGNMENT) + digest_bytes;
    out.reserve(len);
    let u32_of = |len: usize| u32::try_from(len).expect("limits were checked").to_le_bytes();
    out.extend(u32_of(len));
    out.extend([0; 4]);
    out.extend(u32_of(payload.len()));
    out.extend(u32_of(extra.len()));
    out.extend(u16::try_from(place.stream.len()).expect("limits were checked").to_le_bytes());
    out.extend([u8::try_from(event_type.len()).expect("limits were checked"), place.flags]);
    out.extend(MARK.to_le_bytes());
    out.extend([0; 2]);
    out.extend(place.position.get().to_le_bytes());
    out.extend(place.revision.get().to_le_bytes());
    out.extend(place.recorded.micros().to_le_bytes());
    out.extend(id.bytes());
    out.extend_from_slice(place.stream.as_bytes());
    out.extend_from_slice(event_type.as_bytes());
    out.extend_from_slice(extra);
    out.extend_from_slice(payload);
    out.resize(start + len - digest_bytes, 0);
    out.extend(before.into_iter().flat_map(u64::to_le_bytes));
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Events read from a journal, in order, as one block of bytes.
#[derive(Clone, Debug)]
pub struct EventBatch {
    block: Bytes,
    offsets: Vec<u32>,
    /// The position through which the journal was searched: events that the filter left out are not in the batch but
    /// are covered.
    pub through: Position,
}

impl EventBatch {
    /// Returns a batch without events that covers `through`.
    pub fn empty(through: Position) -> Self {
        Self { block: Bytes::new(), offsets: Vec::new(), through }
    }

    /// Returns a batch of the records that begin at `offsets` in `block`. [`verify`] must have accepted each.
    pub fn new(block: Bytes, offsets: Vec<u32>, through: Position) -> Self {
        Self { block, offsets, through }
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Returns true if there are no events. The batch may cover positions even so.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Returns the batch with only the events that are `wanted`. It covers the same positions, and shares its block.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&EventRef<'_>) -> bool) -> Self {
        let offsets = self.iter().zip(&self.offsets).filter(|(event, _)| wanted(event)).map(|(_, offset)| *offset);
        Self { block: self.block.clone(), offsets: offsets.collect(), through: self.through }
    }

    /// Returns the bytes of the block that holds the records.
    pub fn bytes(&self) -> usize {
        self.block.len()
    }

    /// Returns the event at `index`, counted from 0.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    #[expect(clippy::expect_used, reason = "records are verified when a batch is made")]
    pub fn get(&self, index: usize) -> EventRef<'_> {
        let record = &self.block[self.offsets[index] as usize..];
        let len = record_len(record).expect("records are verified when a batch is made");
        parse(&record[..len]).expect("records are verified when a batch is made")
    }

    /// Returns the events in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = EventRef<'_>> + ExactSizeIterator {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// A builder of batches for stores that keep events in another form than records.
#[derive(Debug, Default)]
pub struct EventBatchBuilder {
    block: Vec<u8>,
    offsets: Vec<u32>,
}

impl EventBatchBuilder {
    /// Adds an event after the others.
    pub fn push(&mut self, place: Place<'_>, event: &NewEvent) {
        self.begin();
        encode(&mut self.block, place, event);
    }

    /// Adds an event in the parts that stores keep. Returns the bytes of its record.
    ///
    /// # Panics
    /// If a part exceeds its limit in [`dacapo_model::limits`].
    pub fn push_content(&mut self, place: Place<'_>, event: Content<'_>) -> usize {
        let before = self.block.len();
        self.begin();
        encode_content(&mut self.block, place, event);
        self.block.len() - before
    }

    /// Adds all events of another builder after those here.
    #[expect(clippy::expect_used, reason = "a batch is below 4 GiB")]
    pub fn append(&mut self, other: &Self) {
        let shift = self.block.len() as u32;
        self.block.extend_from_slice(&other.block);
        u32::try_from(self.block.len()).expect("a batch is below 4 GiB");
        self.offsets.extend(other.offsets.iter().map(|offset| shift + offset));
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Returns true if there are no events.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    #[expect(clippy::expect_used, reason = "a batch is below 4 GiB")]
    fn begin(&mut self) {
        self.offsets.push(u32::try_from(self.block.len()).expect("a batch is below 4 GiB"));
    }

    /// Returns the batch, which covers `through`.
    pub fn finish(self, through: Position) -> EventBatch {
        EventBatch::new(self.block.into(), self.offsets, through)
    }
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dacapo_model::EventType;
    use proptest::prelude::*;

    fn event(payload: &[u8], actor: Option<&str>, tags: &[String]) -> NewEvent {
        NewEvent {
            id: EventId::from_bytes([7; 16]),
            event_type: EventType::new("deposited").unwrap(),
            payload: payload.to_vec(),
            metadata: Metadata { actor: actor.map(str::to_owned), ..Metadata::default() },
            tags: tags.to_vec(),
        }
    }

    fn place(stream: &str) -> Place<'_> {
        let (position, revision) = (Position::new(9), Revision::new(4));
        Place { stream, position, revision, recorded: Timestamp::from_micros(-5), flags: LAST_OF_APPEND }
    }

    /// The form is on disks: a change here needs a new journal format.
    #[test]
    fn the_form_of_a_record_is_fixed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, place("account-1"), &event(br#"{"amount":5}"#, None, &[]));
        assert_eq!(bytes.len(), encoded_len("account-1", &event(br#"{"amount":5}"#, None, &[])));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, HEX, "{hex}");
    }

    const HEX: &str = "60000000f8d170d80c0000000000000009000901cada00000900000000000000\
        0400000000000000fbffffffffffffff07070707070707070707070707070707\
        6163636f756e742d316465706f73697465647b22616d6f756e74223a357d0000";

    proptest! {
        #[test]
        fn a_record_reads_back_what_was_written(
            stream in "[a-z]{1,9}-[0-9]{1,5}", payload in prop::collection::vec(any::<u8>(), 0..300),
            actor in prop::option::of(".{0,20}"), tags in prop::collection::vec(".{0,20}", 0..3),
        ) {
            let written = event(&payload, actor.as_deref(), &tags);
            let mut bytes = Vec::new();
            encode(&mut bytes, place(&stream), &written);
            let (read, len) = verify(&bytes).unwrap();
            prop_assert_eq!(len, bytes.len());
            prop_assert_eq!(len, encoded_len(&stream, &written));
            prop_assert_eq!((read.stream, read.event_type, read.payload), (&*stream, "deposited", &*payload));
            prop_assert_eq!((read.position, read.revision), (Position::new(9), Revision::new(4)));
            prop_assert_eq!((read.recorded.micros(), read.id), (-5, written.id));
            prop_assert_eq!(read.extra().unwrap(), (written.metadata, written.tags));
            prop_assert!(read.is_last_of_append() && !read.is_first_of_group());
        }

        #[test]
        fn a_chained_record_carries_the_digest_before_it(
            payload in prop::collection::vec(any::<u8>(), 0..60), before in any::<u64>(),
        ) {
            let (mut plain, mut bytes) = (Vec::new(), Vec::new());
            encode(&mut plain, place("account-1"), &event(&payload, None, &[]));
            encode_chained(&mut bytes, place("account-1"), &event(&payload, None, &[]), before);
            let (read, len) = verify(&bytes).unwrap();
            prop_assert_eq!((len, len, read.payload), (bytes.len(), plain.len() + 8, &*payload));
            prop_assert_eq!((history_before(&bytes), history_before(&plain)), (Some(before), None));
            prop_assert_ne!(link(before, &bytes), link(before.wrapping_add(1), &bytes));
            prop_assert_ne!(link(before, &bytes), link(before, &plain));
        }

        #[test]
        fn one_changed_bit_is_seen(at in 0..100_usize, bit in 0..8_u32) {
            let mut bytes = Vec::new();
            encode(&mut bytes, place("account-1"), &event(br#"{"amount":5}"#, Some("me"), &[]));
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(verify(&bytes).is_err());
        }
    }
}
