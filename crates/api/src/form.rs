//! Basic forms of which others are made: raw JSON, times, ids and names.

use std::fmt;
use std::num::{NonZeroU32, ParseIntError};
use std::str::FromStr;

use dacapo_model::{EventId, InvalidName, ProjectionName, StreamName, Timestamp, VersionId};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::error::{ApiError, Problem};

/// JSON kept byte for byte, as events carry it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Returns the JSON value in `text`. Only surrounding space is dropped.
    ///
    /// # Errors
    /// If `text` is not JSON.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// Returns the JSON value in the bytes of a recorded payload.
    ///
    /// # Errors
    /// If the bytes are not JSON.
    pub fn from_payload(payload: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self(serde_json::from_slice(payload)?))
    }

    /// Returns the bytes as they are sent.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Returns the bytes, to be recorded as a payload.
    pub fn into_payload(self) -> Vec<u8> {
        Box::<str>::from(self.0).into_string().into_bytes()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns a time in RFC 3339, in UTC, with the precision that it has. A time outside the years −9999 to 9999, which
/// the form cannot express, becomes the nearest that it can.
pub fn format_time(time: Timestamp) -> String {
    let nearest = if time.micros() < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_microsecond(time.micros()).unwrap_or(nearest).to_string()
}

/// Returns the time in a text of RFC 3339, with any offset from UTC; cut to microseconds.
///
/// # Errors
/// [`ApiError::Invalid`] with the code `invalid_time`.
pub fn parse_time(text: &str) -> Result<Timestamp, ApiError> {
    let invalid = |found: &dyn fmt::Display| {
        let message = format!("{text:?} is not a time in RFC 3339, such as 2026-03-01T12:00:00Z: {found}");
        Problem::new("invalid_time", message).field("time", text).invalid()
    };
    is_rfc_3339(text).map_err(|found| invalid(&found))?;
    let time: jiff::Timestamp = text.parse().map_err(|error| match jiff::fmt::temporal::Pieces::parse(text) {
        Ok(_) => {
            let message = format!("{text:?} is out of range: the last time is {}", jiff::Timestamp::MAX);
            Problem::new("invalid_time", message).field("time", text).invalid()
        }
        Err(_) => invalid(&error),
    })?;
    Ok(Timestamp::from_micros(time.as_microsecond()))
}

/// Checks whether the text has the form of a `date-time`. The parser accepts much more, such as a time without
/// seconds, or with the name of a zone, which other readers of the same text would not accept.
fn is_rfc_3339(text: &str) -> Result<(), &'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let like = |text: &str, form: &str| {
        text.len() == form.len()
            && text
                .bytes()
                .zip(form.bytes())
                .all(|(byte, form)| if form == b'0' { byte.is_ascii_digit() } else { byte.eq_ignore_ascii_case(&form) })
    };
    const SECONDS: &str = "0000-00-00T00:00:00";
    let (seconds, rest) = text.split_at_checked(SECONDS.len()).ok_or("it is too short")?;
    if !like(seconds, SECONDS) {
        return Err("it does not begin like 2026-03-01T12:00:00");
    }
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            let (fraction, zone) = fraction.split_at(end);
            if !digits(fraction) {
                return Err("digits must follow the point");
            }
            zone
        }
        None => rest,
    };
    match zone {
        "Z" | "z" => Ok(()),
        "" => Err("it says no offset from UTC: end it with Z, or with one like +01:00"),
        zone if like(zone, "+00:00") || like(zone, "-00:00") => match &zone[1..3] <= "23" && &zone[4..] <= "59" {
            true => Ok(()),
            false => Err("the hours of its offset from UTC are at most 23, and the minutes at most 59"),
        },
        _ => Err("it must end with Z, or with an offset like +01:00"),
    }
}

/// Returns the number in a text. The only accepted form is digits, without a sign and without leading zeros.
///
/// # Errors
/// The fault, in words.
pub fn parse_number<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !is_plain || text.is_empty() {
        return Err(format!(
            "{text:?} is not written like a whole number, such as 10: with digits alone, and no zeros before it"
        ));
    }
    text.parse().map_err(|_| {
        let is_one = |number: &u64| number.to_string().parse::<T>().is_ok();
        let least = [0, 1].into_iter().find(is_one).unwrap_or_default();
        let most = [u64::MAX, u32::MAX.into(), u16::MAX.into(), u8::MAX.into()].into_iter().find(is_one);
        format!("{text} is not between {least} and {}", most.unwrap_or_default())
    })
}

/// Reads the most entries of an answer; a request without a limit has none.
pub(crate) fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    deserializer.deserialize_option(Most)
}

struct Most;

impl<'de> Visitor<'de> for Most {
    type Value = Option<NonZeroU32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number between 1 and {}", u32::MAX)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_u32(self)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let most = u32::try_from(number).ok().and_then(NonZeroU32::new);
        most.map(Some).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

/// Returns the event id in a text: a UUID of any version.
///
/// # Errors
/// [`ApiError::Invalid`] with the code `invalid_id`.
pub fn parse_event_id(text: &str) -> Result<EventId, ApiError> {
    let id = uuid::Uuid::try_parse(text).map_err(|error| {
        let message = format!("{text:?} is not an event id, which is a UUID: {error}");
        Problem::new("invalid_id", message).field("id", text).invalid()
    })?;
    Ok(EventId::from_bytes(id.into_bytes()))
}

/// Returns the projection named in a path or a query.
///
/// # Errors
/// [`ApiError::Invalid`] with the code `invalid_name`.
pub fn parse_projection(name: &str) -> Result<ProjectionName, ApiError> {
    Ok(ProjectionName::new(name)?)
}

/// Checks whether this can be the name of a category: the part of a stream's name before the first hyphen.
///
/// # Errors
/// [`ApiError::Invalid`] with the code `invalid_name`.
pub fn check_category(name: &str) -> Result<(), ApiError> {
    let invalid = |rule| InvalidName { kind: "category", name: name.to_owned(), rule };
    let stream = StreamName::new(name).map_err(|found| invalid(found.rule))?;
    if stream.category() != name {
        return Err(invalid("a category ends before the first hyphen of a stream's name".to_owned()).into());
    }
    Ok(())
}

/// Returns the version named in a path or a form, such as `v2.1`.
///
/// # Errors
/// [`ApiError::Invalid`] with the code `invalid_version`.
pub fn parse_version(version: &str) -> Result<VersionId, ApiError> {
    Ok(version.parse::<VersionId>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn raw_json_travels_byte_for_byte() {
        let text = r#"{"b" : 1.50,"a":"\u00e9",  "b":2}"#;
        let json = Json::parse(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        assert_eq!(json.clone().into_payload(), text.as_bytes());
        assert_eq!(Json::from_payload(text.as_bytes()).unwrap(), json);
        assert!(Json::parse("{").is_err());
        assert!(Json::from_payload(b"\"\xff\"").is_err());
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(format_time(Timestamp::from_micros(1_700_000_000_123_456)), "2023-11-14T22:13:20.123456Z");
        assert_eq!(format_time(Timestamp::from_micros(0)), "1970-01-01T00:00:00Z");
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00").unwrap(), Timestamp::from_micros(0));
        for good in [
            "2026-03-01T12:00:00.5Z",
            "2026-03-01t12:00:00z",
            "2026-03-01T12:00:00.123456789-08:30",
            "2026-03-01T12:00:00+23:59",
        ] {
            assert!(parse_time(good).is_ok(), "{good}");
        }
        for bad in [
            "2026-03-01T12:00:00",
            "2026-03-01 12:00:00Z",
            "2026-03-01T12:00Z",
            "2026-03-01T12Z",
            "20260301T120000Z",
            "2026-03-01T12:00:00+01",
            "2026-03-01T12:00:00+0100",
            "2026-03-01T12:00:00+24:00",
            "2026-03-01T12:00:00-25:00",
            "2026-03-01T12:00:00+01:60",
            "2026-03-01T12:00:00.Z",
            "2026-03-01T12:00:00,5Z",
            "2026-03-01T12:00:00Z[UTC]",
            "2026-03-01T12:00:00+01:00[Europe/Paris]",
            "+002026-03-01T12:00:00Z",
            "2026-02-30T12:00:00Z",
            "2026-03-01T12:00:00Zé",
            "",
        ] {
            let error = parse_time(bad).unwrap_err();
            assert_eq!(error.problem().code, "invalid_time", "{bad}");
        }
        for beyond in ["9999-12-31T23:59:59Z", "9999-12-30T23:00:00+00:30"] {
            let message = parse_time(beyond).unwrap_err().problem().message.clone();
            let found = format!("{beyond:?} is out of range: the last time is 9999-12-30T22:00:00.999999999Z");
            assert_eq!(message, found);
        }
        assert!(parse_time("9999-12-30T22:00:00Z").is_ok() && parse_time("0000-01-01T00:00:00Z").is_ok());
        let error = parse_time("yesterday").unwrap_err();
        assert_eq!((error.http_status(), error.problem().code.as_str()), (422, "invalid_time"));
        assert_eq!(format_time(Timestamp::from_micros(i64::MAX)), "9999-12-30T22:00:00.999999999Z");
    }

    #[test]
    fn a_number_beyond_its_range_is_refused_with_the_range() {
        assert_eq!(parse_number::<NonZeroU32>("0").unwrap_err(), "0 is not between 1 and 4294967295");
        assert_eq!(parse_number::<u32>("4294967296").unwrap_err(), "4294967296 is not between 0 and 4294967295");
        let beyond = "18446744073709551616";
        let message = format!("{beyond} is not between 0 and {}", u64::MAX);
        assert_eq!(parse_number::<u64>(beyond).unwrap_err(), message);
        assert_eq!(parse_number::<u64>("18446744073709551615"), Ok(u64::MAX));
    }

    proptest! {
        #[test]
        fn ids_read_back_what_was_written(bytes in any::<[u8; 16]>()) {
            let id = EventId::from_bytes(bytes);
            prop_assert_eq!(parse_event_id(&id.to_string()).unwrap(), id);
        }

        #[test]
        fn times_read_back_what_was_written(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(parse_time(&format_time(time)).unwrap(), time);
        }
    }
}
