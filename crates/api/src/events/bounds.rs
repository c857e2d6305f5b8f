//! Lists and objects whose reading stops at their limits.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use dacapo_model::limits;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// Reads `null` as absent, since other systems write it so.
pub(super) fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

/// Returns a list whose reading stops at its limit: a list that is much too long costs no more than one that is a
/// little too long.
pub(super) fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    read_up_to::<D, T, MAX, MAX>(from)
}

/// Returns a list that may have `MAX` items, whose reading stops after `READ`.
fn read_up_to<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize, const READ: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct UpTo<T, const MAX: usize, const READ: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize, const READ: usize> Visitor<'de> for UpTo<T, MAX, READ> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut taken = Vec::new();
            while let Some(one) = list.next_element()? {
                if taken.len() == READ {
                    return Err(de::Error::invalid_length(READ + 1, &self));
                }
                taken.push(one);
            }
            Ok(taken)
        }
    }
    from.deserialize_seq(UpTo::<T, MAX, READ>(PhantomData))
}

/// Reads up to twice as many tags as an event may have. If there are a few too many, the rule that knows the limit
/// refuses them with its own message.
pub(super) fn few_tags<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Tags(
        #[serde(deserialize_with = "read_up_to::<_, _, { limits::TAGS_MAX }, { 2 * limits::TAGS_MAX }>")] Vec<String>,
    );
    Ok(Option::<Tags>::deserialize(from)?.map(|Tags(tags)| tags).unwrap_or_default())
}

/// Reads fields of up to twice as many bytes as metadata may have, for the same reason.
pub(super) fn bounded_fields<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an object of texts of at most {} bytes", limits::METADATA_BYTES_MAX)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            let (mut fields, mut bytes) = (BTreeMap::new(), 0);
            while let Some((key, value)) = object.next_entry::<String, String>()? {
                // The characters around each field in JSON count as well, or empty ones would cost nothing.
                bytes += key.len() + value.len() + r#""":"","#.len();
                if bytes > 2 * limits::METADATA_BYTES_MAX {
                    return Err(de::Error::invalid_length(bytes, &self));
                }
                fields.insert(key, value);
            }
            Ok(fields)
        }
    }
    from.deserialize_map(Fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{AppendRequest, NewEvent};

    #[test]
    fn tags_and_fields_that_are_far_too_many_are_not_read_to_their_end() {
        let read = |rest: &str| {
            let text = format!(r#"{{"stream":"a-1","type":"t","data":1,{rest}"#);
            serde_json::from_str::<NewEvent>(&text).map_err(|error| error.to_string())
        };
        // The rest is not JSON, and is never reached.
        let error = read(&format!(r#""tags":[{}?"#, r#""t","#.repeat(2 * limits::TAGS_MAX + 1))).unwrap_err();
        assert!(error.contains("invalid length 33, expected a list of at most 16"), "{error}");
        for field in [r#"KEY:"","#.to_owned(), format!(r#"KEY:"{}","#, "x".repeat(5_000))] {
            let fields: String = (0..30_000).map(|number| field.replace("KEY", &format!(r#""k{number}""#))).collect();
            let error = read(&format!(r#""metadata":{{"fields":{{{fields}?"#)).unwrap_err();
            assert!(error.contains("expected an object of texts of at most 65536 bytes"), "{error}");
        }
        // A few too many are for the rule to refuse.
        let event = read(&format!(r#""tags":[{}"t"]}}"#, r#""t","#.repeat(limits::TAGS_MAX))).unwrap();
        assert_eq!(event.tags.len(), limits::TAGS_MAX + 1);
        let long = "x".repeat(limits::METADATA_BYTES_MAX + 9);
        assert!(read(&format!(r#""metadata":{{"fields":{{"k":"{long}"}}}}}}"#)).is_ok());
        assert_eq!(read(r#""tags":null,"metadata":null}"#).unwrap().tags, Vec::<String>::new());
    }

    #[test]
    fn a_list_that_is_too_long_is_not_read_to_its_end() {
        let demand = r#"{"stream":"a-1","revision":"any"}"#;
        let list = format!("{demand},").repeat(limits::APPEND_EXPECTED_MAX);
        // The text after the limit is not JSON, and is never reached.
        let text = format!(r#"{{"events":[],"expected":[{list}{demand},?"#);
        let error = serde_json::from_str::<AppendRequest>(&text).unwrap_err().to_string();
        assert!(error.contains("invalid length 10001, expected a list of at most 10000"), "{error}");
        let text = format!(r#"{{"events":[],"expected":[{}]}}"#, list.trim_end_matches(','));
        assert_eq!(serde_json::from_str::<AppendRequest>(&text).unwrap().expected.len(), limits::APPEND_EXPECTED_MAX);
    }
}
