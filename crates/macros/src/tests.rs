//! What the derives refuse, by the words of the error.

use syn::{DeriveInput, parse_quote};

fn row_error(input: DeriveInput) -> String {
    crate::row::derive(&input).unwrap_err().to_string()
}

fn event_error(input: DeriveInput) -> String {
    crate::event::derive(&input).unwrap_err().to_string()
}

#[test]
fn a_row_has_a_key_and_columns_that_can_be_told_apart() {
    for (input, part) in [
        (
            parse_quote!(
                struct A {
                    id: u8,
                }
            ),
            "needs a key",
        ),
        (
            parse_quote!(
                enum A {
                    B,
                }
            ),
            "struct with named fields",
        ),
        (
            parse_quote!(
                struct A(u8);
            ),
            "named fields",
        ),
        (
            parse_quote!(
                struct A<T> {
                    #[row(key)]
                    id: T,
                }
            ),
            "generics",
        ),
        (
            parse_quote!(
                struct A {
                    #[row(key)]
                    id: u8,
                    #[row(column = "ID")]
                    other: u8,
                }
            ),
            "two columns",
        ),
        (
            parse_quote!(
                struct A {
                    #[row(key, json)]
                    id: u8,
                }
            ),
            "cannot be JSON",
        ),
        (
            parse_quote!(
                struct A {
                    #[row(kye)]
                    id: u8,
                }
            ),
            "known are `key`",
        ),
        (
            parse_quote!(
                #[row(name = "a")]
                struct A {
                    #[row(key)]
                    id: u8,
                }
            ),
            "table = \"name\"",
        ),
        (
            parse_quote!(
                struct A {
                    #[row(key, index = "i")]
                    id: u8,
                    #[row(unique = "i")]
                    b: u8,
                }
            ),
            "unique on one field",
        ),
        (
            parse_quote!(
                struct A {
                    #[row(key, index, index)]
                    id: u8,
                }
            ),
            "in the index \"id\" already",
        ),
    ] {
        let error = row_error(input);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn events_have_one_name_each_and_a_payload_that_is_an_object() {
    for (input, part) in [
        (
            parse_quote!(
                struct A;
            ),
            "an enum",
        ),
        (
            parse_quote!(
                enum A<T> {
                    B(T),
                }
            ),
            "generics",
        ),
        (
            parse_quote!(
                enum A {
                    B(u8, u8),
                }
            ),
            "one field that is its whole payload",
        ),
        (
            parse_quote!(
                enum A {
                    B,
                    #[event(name = "b")]
                    C,
                }
            ),
            "two events have the name \"b\"",
        ),
        (
            parse_quote!(
                enum A {
                    B,
                    #[event(alias = "b")]
                    C,
                }
            ),
            "two events have the name \"b\"",
        ),
        (
            parse_quote!(
                enum A {
                    #[event(upcast(from = "b", with = f))]
                    B,
                }
            ),
            "two events have the name \"b\"",
        ),
        (
            parse_quote!(
                enum A {
                    #[event(name = "x", name = "y")]
                    B,
                }
            ),
            "one name",
        ),
        (
            parse_quote!(
                enum A {
                    #[event(name = "")]
                    B,
                }
            ),
            "1 to 255 bytes",
        ),
        (
            parse_quote!(
                enum A {
                    #[event(upcast(from = "x"))]
                    B,
                }
            ),
            "an upcast needs",
        ),
        (
            parse_quote!(
                enum A {
                    #[event(rename = "x")]
                    B,
                }
            ),
            "allowed are `name`",
        ),
    ] {
        let error = event_error(input);
        assert!(error.contains(part), "{error}");
    }
}
