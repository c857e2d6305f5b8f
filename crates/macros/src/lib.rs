//! The derives of dacapo. The generated code names `::dacapo`, so users need no other crate.

#![warn(clippy::unwrap_used, clippy::expect_used)]

mod event;
mod names;
mod row;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `dacapo::Row` for a struct with named fields: a table with one column for each field.
///
/// - `#[row(table = "accounts")]` on the struct names the table. Default: the struct's name in snake case.
/// - `#[row(key)]` on one field or several makes the primary key, in the order of the fields.
/// - `#[row(index)]` indexes a column, `#[row(unique)]` makes its values unique. Fields that share a name,
///   as in `#[row(index = "by_owner")]`, share an index. Values are unique after each event: within
///   an event they may move from row to row, and an event after which two rows share a value is refused. NULL equals
///   nothing.
///   A version with a unique index has one segment. A key or an index has at most 2,000 bytes of a row.
/// - `#[row(json)]` keeps any type that serde knows as JSON.
/// - `#[row(column = "name")]` names the column. Default: the field's name.
///
/// The type of a field without `json` must implement `dacapo::rows::Field`.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    row::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives `dacapo::Event` for an enum: each variant is a type of event, and its fields are the JSON payload.
///
/// A variant has named fields, or one field that is the whole payload, or none.
///
/// - `#[event(name = "money-deposited")]` is the stable name that is stored. Default: the variant's name in
///   kebab case.
/// - `#[event(alias = "deposited")]` is a name that was stored earlier with the same payload. Repeatable.
/// - `#[event(upcast(from = "deposited-v1", with = from_v1))]`, on a variant or the enum, reads an older
///   payload: the function takes the payload as any type that serde reads, and returns the enum. Repeatable.
///
/// `#[serde(…)]` on fields, `rename_all` on variants and `rename_all_fields` on the enum are honoured.
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
