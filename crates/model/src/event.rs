//! The contents of an event before it has a place in the journal.

use std::collections::BTreeMap;
use std::fmt;

use crate::name::EventType;

/// The identity of an event, a UUID (version 7 unless the caller chose it). An append that is retried
/// with the same ids is recognised and not written twice (I-2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; 16]);

impl EventId {
    /// Returns the id with these bytes, in the order of RFC 9562.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, in the order of RFC 9562.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Metadata of an event, beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The conversation this event belongs to: the same for everything that follows from one request.
    pub correlation: Option<EventId>,
    /// The event or command that this event follows from.
    pub causation: Option<EventId>,
    /// The person or program that requested it.
    pub actor: Option<String>,
    /// Free fields of the writer.
    pub fields: BTreeMap<String, String>,
}

impl Metadata {
    /// Returns true if there is no metadata at all.
    pub fn is_empty(&self) -> bool {
        self.correlation.is_none() && self.causation.is_none() && self.actor.is_none() && self.fields.is_empty()
    }
}

/// An event that has no place in the journal yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its identity.
    pub id: EventId,
    /// Its stable type name.
    pub event_type: EventType,
    /// The payload as JSON, kept byte for byte.
    pub payload: Vec<u8>,
    /// Its metadata.
    pub metadata: Metadata,
    /// A few indexed labels, such as `course:17`.
    pub tags: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_a_uuid() {
        let id = EventId::from_bytes(*b"\x01\x91\x9c\x4e\xa7\x30\x7a\xbc\x80\x01\x02\x03\x04\x05\x06\x07");
        assert_eq!(id.to_string(), "01919c4e-a730-7abc-8001-020304050607");
    }
}
