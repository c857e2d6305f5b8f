//! Event sourcing whose read models are rebuilt beside the old ones and switched at once.

// What the derives generate names `::dacapo`, in this crate's own tests as well.
#[allow(unused_extern_crates)]
extern crate self as dacapo;

mod event;
mod row;
pub mod view;

pub use dacapo_macros::{Event, Row};
pub use dacapo_store::{Column, ColumnKind, Index, Table, Value};
pub use event::{Event, EventError};
pub use row::{Field, FieldError, Row, RowError};
pub use view::{ReadView, View, ViewError};

/// What the derives generate calls. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::{decode, encode};
    pub use crate::row::{from_column, from_json, to_column, to_json};
    pub use {serde, serde_json};
}

/// Values as parameters of SQL: `params!["ann", 5, account.id]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::Value::from($value)),*] as &[$crate::Value]
    };
}
