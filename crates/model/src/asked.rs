//! The bounds of the texts in which a request says who makes it, and why.

use std::fmt;

use crate::limits;

/// A text that the caller of a request chooses freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedText {
    /// The person or program that makes the request.
    Actor,
    /// The reason.
    Reason,
    /// The idempotency key.
    Key,
}

/// A text of a request that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedTooLong {
    /// The text.
    pub text: AskedText,
    /// Its length in bytes.
    pub bytes: usize,
}

impl AskedText {
    /// Returns its name in snake_case, such as `idempotency_key`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::Reason => "reason",
            Self::Key => "idempotency_key",
        }
    }

    /// Returns its longest length in bytes.
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Actor => limits::ACTOR_BYTES_MAX,
            Self::Reason => limits::REASON_BYTES_MAX,
            Self::Key => limits::IDEMPOTENCY_KEY_BYTES_MAX,
        }
    }

    /// Checks its length.
    ///
    /// # Errors
    /// [`AskedTooLong`] if it is too long.
    pub fn check(self, text: &str) -> Result<(), AskedTooLong> {
        let bytes = text.len();
        if bytes <= self.bytes_max() { Ok(()) } else { Err(AskedTooLong { text: self, bytes }) }
    }
}

impl fmt::Display for AskedTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, bytes } = self;
        let name = text.name().replace('_', " ");
        write!(f, "the {name} of the request has {bytes} bytes, and at most {} are accepted", text.bytes_max())
    }
}

impl std::error::Error for AskedTooLong {}
