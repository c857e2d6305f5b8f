//! Names of streams, event types and projections, checked once where they enter.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// A name that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    /// The kind of name: `stream`, `event type` or `projection`.
    pub kind: &'static str,
    /// The name as given.
    pub name: String,
    /// The rule it breaks.
    pub rule: String,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a valid {} name: {}", self.name, self.kind, self.rule)
    }
}

impl std::error::Error for InvalidName {}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the checked name.
            ///
            /// # Errors
            /// [`InvalidName`] if `name` breaks a rule of this kind of name.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                let name = name.as_ref();
                $check(name)?;
                Ok(Self(Arc::from(name)))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<&Self> for $name {
            fn from(name: &Self) -> Self {
                name.clone()
            }
        }

        impl TryFrom<&String> for $name {
            type Error = InvalidName;

            fn try_from(name: &String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// The name of a stream: `category-id`, such as `account-17`. 1 to
    /// [`limits::STREAM_NAME_BYTES_MAX`] bytes of UTF-8 without control characters.
    /// Names that begin with `$` belong to dacapo itself.
    StreamName,
    |name| check("stream", name, limits::STREAM_NAME_BYTES_MAX)
);

name!(
    /// The stable name of a kind of event, such as `deposited`. 1 to
    /// [`limits::EVENT_TYPE_BYTES_MAX`] bytes of UTF-8 without control characters.
    EventType,
    |name| check("event type", name, limits::EVENT_TYPE_BYTES_MAX)
);

name!(
    /// The name of a projection, such as `balances`: ASCII lower-case letters, digits, `_` and `-`,
    /// beginning with a letter, at most [`limits::PROJECTION_NAME_BYTES_MAX`] bytes, so that it can
    /// name a file, a schema and a path of the HTTP API alike.
    ProjectionName,
    check_projection
);

impl StreamName {
    /// Returns the kind of entity: the part before the first `-`, or the whole name without one.
    pub fn category(&self) -> &str {
        category_of(&self.0)
    }

    /// Returns true if the stream belongs to dacapo itself.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// Returns the category of a stream name: the part before the first `-`, or the whole name without one.
pub fn category_of(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

fn check(kind: &'static str, name: &str, bytes_max: usize) -> Result<(), InvalidName> {
    let broken = |rule: String| Err(InvalidName { kind, name: name.chars().take(80).collect(), rule });
    if name.is_empty() {
        return broken("it is empty".into());
    }
    if name.len() > bytes_max {
        return broken(format!("it has {} bytes, at most {bytes_max} are allowed", name.len()));
    }
    if name.chars().any(char::is_control) {
        return broken("it has a control character".into());
    }
    Ok(())
}

fn check_projection(name: &str) -> Result<(), InvalidName> {
    check("projection", name, limits::PROJECTION_NAME_BYTES_MAX)?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(good) {
        return Ok(());
    }
    Err(InvalidName {
        kind: "projection",
        name: name.into(),
        rule: "use lower-case letters a to z, digits, '_' and '-', beginning with a letter".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_category_stands_before_the_first_dash() {
        assert_eq!(StreamName::new("account-17-b").unwrap().category(), "account");
        assert_eq!(StreamName::new("$catalog").unwrap().category(), "$catalog");
    }

    #[test]
    fn bad_names_are_refused_with_the_rule() {
        assert!(StreamName::new("").unwrap_err().to_string().contains("empty"));
        assert!(StreamName::new("a\nb").unwrap_err().to_string().contains("control"));
        assert!(StreamName::new("a".repeat(513)).unwrap_err().to_string().contains("at most 512"));
        for bad in ["Balances", "1st", "a b", "a/b", "é"] {
            assert!(ProjectionName::new(bad).is_err(), "{bad}");
        }
        assert!(ProjectionName::new("order_totals-2").is_ok());
    }
}
