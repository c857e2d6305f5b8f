//! Events as types: an enum whose variants are types of events, with their stored names.

use std::error::Error;

use dacapo_model::{NewEvent, limits};
use dacapo_store::EventRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A set of events that belong together, such as those of one aggregate. Derive it:
///
/// ```
/// use dacapo::Event;
///
/// #[derive(Debug, PartialEq, Event)]
/// enum AccountEvent {
///     #[event(name = "account-opened")]
///     Opened { owner: String },
///     #[event(upcast(from = "deposited-v1", with = from_whole_euros))]
///     MoneyDeposited { cents: i64 },
///     Closed,
/// }
///
/// /// What a deposit was stored as in the first year.
/// #[derive(serde::Deserialize)]
/// struct WholeEuros {
///     euros: i64,
/// }
///
/// fn from_whole_euros(old: WholeEuros) -> AccountEvent {
///     AccountEvent::MoneyDeposited { cents: old.euros * 100 }
/// }
///
/// let event = AccountEvent::MoneyDeposited { cents: 500 };
/// assert_eq!(event.event_type(), "money-deposited");
/// assert_eq!(event.encode()?, br#"{"cents":500}"#);
/// assert_eq!(AccountEvent::decode("deposited-v1", br#"{"euros":5}"#)?, Some(event));
/// assert_eq!(AccountEvent::decode("account-renamed", b"{}")?, None);
/// # Ok::<(), dacapo::journal::EventError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of events",
    label = "`Event` is missing",
    note = "add `#[derive(Event)]` to the enum of its events"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// Every stored name of events of the set, including older names.
    const TYPES: &'static [&'static str];

    /// Returns the name under which this event is stored.
    fn event_type(&self) -> &'static str;

    /// Returns the payload, as JSON.
    ///
    /// # Errors
    /// [`EventError`] if serde cannot write it, such as a map whose keys are not text.
    fn encode(&self) -> Result<Vec<u8>, EventError>;

    /// Returns the event of this type and payload; `None` if the type is not of this set. If it returns `None` for one
    /// of [`TYPES`](Self::TYPES), the event is refused, not skipped.
    ///
    /// # Errors
    /// [`EventError`] if the payload does not fit the type.
    fn decode(event_type: &str, payload: &[u8]) -> Result<Option<Self>, EventError>;
}

/// A payload that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} the payload of an event of type {event_type}: {source}")]
pub struct EventError {
    /// The type of the event.
    pub event_type: String,
    /// `read`, `write` or `append`.
    pub act: &'static str,
    /// The error of serde, with the place in the payload.
    pub source: serde_json::Error,
}

/// Writes a payload.
#[doc(hidden)]
pub fn encode(event_type: &str, payload: &impl Serialize) -> Result<Vec<u8>, EventError> {
    serde_json::to_vec(payload).map_err(|source| EventError { event_type: event_type.into(), act: "write", source })
}

/// Reads a payload.
#[doc(hidden)]
pub fn decode<T: DeserializeOwned>(event_type: &str, payload: &[u8]) -> Result<T, EventError> {
    serde_json::from_slice(payload).map_err(|source| EventError { event_type: event_type.into(), act: "read", source })
}

/// Returns an event as one of a set. An event whose type is in the set but which the set does not read is an error,
/// never skipped silently (I-11).
pub(crate) fn read<E: Event>(place: &EventRef<'_>) -> Result<Option<E>, Box<dyn Error + Send + Sync>> {
    let data = E::decode(place.event_type, place.payload)?;
    if data.is_none() && E::TYPES.contains(&place.event_type) {
        let event_type = place.event_type;
        let why = format!("events of type {event_type:?} are named in `Event::TYPES`, and `Event::decode` knows none");
        return Err(why.into());
    }
    Ok(data)
}

/// Checks the property that every reader of an event relies on: its payload is one JSON value, for every way in which
/// it was appended.
pub(crate) fn check_payload(event: &mut NewEvent) -> Result<(), EventError> {
    let no_json = |source| EventError { event_type: event.event_type.to_string(), act: "append", source };
    let value: &RawValue = serde_json::from_slice(&event.payload).map_err(no_json)?;
    if value.get().len() < event.payload.len() {
        event.payload = value.get().into();
    }
    Ok(())
}

const _: () = assert!(limits::EVENT_TYPE_BYTES_MAX == 255, "the derive refuses longer names by this number");
