//! The revision that an append expects of a stream.

use std::fmt;

use dacapo_model::{ExpectedRevision, Revision, StreamName};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::ApiError;

/// The revision that an append expects of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Expected {
    /// The stream.
    pub stream: String,
    /// The expected last revision.
    pub revision: RevisionDemand,
}

/// An expected last revision: `"any"`, `"no_stream"`, `"exists"` or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionDemand {
    /// Any state of the stream.
    Any,
    /// The stream has no events yet.
    NoStream,
    /// The stream has at least one event.
    Exists,
    /// The stream's last event has exactly this revision.
    Exact(u64),
}

impl Expected {
    /// Returns the expectation as types of the model.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] if the stream's name breaks a rule.
    pub fn into_model(self) -> Result<(StreamName, ExpectedRevision), ApiError> {
        Ok((StreamName::new(&self.stream)?, self.revision.into()))
    }
}

impl From<RevisionDemand> for ExpectedRevision {
    fn from(demand: RevisionDemand) -> Self {
        match demand {
            RevisionDemand::Any => Self::Any,
            RevisionDemand::NoStream => Self::NoStream,
            RevisionDemand::Exists => Self::Exists,
            RevisionDemand::Exact(revision) => Self::Exact(Revision::new(revision)),
        }
    }
}

impl From<ExpectedRevision> for RevisionDemand {
    fn from(expected: ExpectedRevision) -> Self {
        match expected {
            ExpectedRevision::Any => Self::Any,
            ExpectedRevision::NoStream => Self::NoStream,
            ExpectedRevision::Exists => Self::Exists,
            ExpectedRevision::Exact(revision) => Self::Exact(revision.get()),
        }
    }
}

impl Serialize for RevisionDemand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::NoStream => serializer.serialize_str("no_stream"),
            Self::Exists => serializer.serialize_str("exists"),
            Self::Exact(revision) => serializer.serialize_u64(*revision),
        }
    }
}

impl<'de> Deserialize<'de> for RevisionDemand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Demand;
        impl Visitor<'_> for Demand {
            type Value = RevisionDemand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", \"no_stream\", \"exists\" or a revision")
            }

            fn visit_u64<E: de::Error>(self, revision: u64) -> Result<RevisionDemand, E> {
                Ok(RevisionDemand::Exact(revision))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RevisionDemand, E> {
                match text {
                    "any" => Ok(RevisionDemand::Any),
                    "no_stream" => Ok(RevisionDemand::NoStream),
                    "exists" => Ok(RevisionDemand::Exists),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Demand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_a_word_or_a_number() {
        for (text, demand) in [
            (r#""any""#, RevisionDemand::Any),
            (r#""no_stream""#, RevisionDemand::NoStream),
            (r#""exists""#, RevisionDemand::Exists),
            ("7", RevisionDemand::Exact(7)),
        ] {
            assert_eq!(serde_json::from_str::<RevisionDemand>(text).unwrap(), demand);
            assert_eq!(serde_json::to_string(&demand).unwrap(), text);
            assert_eq!(RevisionDemand::from(ExpectedRevision::from(demand)), demand);
        }
        let error = serde_json::from_str::<RevisionDemand>(r#""none""#).unwrap_err();
        assert!(error.to_string().contains("no_stream"), "{error}");
    }
}
