//! `#[derive(Row)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Result, Type};

use crate::names::words;

/// The attributes of one field.
struct Column<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    name: String,
    key: bool,
    json: bool,
    indexes: Vec<IndexPart>,
}

/// A field's part in an index.
struct IndexPart {
    name: LitStr,
    unique: bool,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "a row cannot have generics: every table has one type"));
    }
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "derive Row for a struct with named fields: each field is a column",
        ));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a row needs named fields: they name the columns"));
    };
    let table = table_name(input)?;
    let columns = fields.named.iter().map(Column::of).collect::<Result<Vec<_>>>()?;
    check(input, &columns)?;
    let table_constant = table_constant(&table, &columns)?;
    let key = key_functions(&table, &columns);
    let values = value_functions(&table, &columns);
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::dacapo::Row for #ident {
            #table_constant
            #key
            #values
        }
    })
}

fn table_name(input: &DeriveInput) -> Result<String> {
    let mut name = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("row")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("table") {
                return Err(meta.error("only `table = \"name\"` is allowed on the struct"));
            }
            name = Some(meta.value()?.parse::<LitStr>()?.value());
            Ok(())
        })?;
    }
    Ok(name.unwrap_or_else(|| words(&input.ident.to_string(), '_')))
}

impl<'a> Column<'a> {
    #[expect(clippy::expect_used, reason = "the fields are named")]
    fn of(field: &'a Field) -> Result<Self> {
        let ident = field.ident.as_ref().expect("the fields are named");
        let name = ident.to_string();
        let name = name.strip_prefix("r#").unwrap_or(&name).to_owned();
        let mut indexes = Vec::new();
        let mut column = Self { ident, ty: &field.ty, name, key: false, json: false, indexes: Vec::new() };
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("row")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("key") {
                    column.key = true;
                } else if meta.path.is_ident("json") {
                    column.json = true;
                } else if meta.path.is_ident("column") {
                    column.name = meta.value()?.parse::<LitStr>()?.value();
                } else if meta.path.is_ident("index") || meta.path.is_ident("unique") {
                    let unique = meta.path.is_ident("unique");
                    let name = meta.input.peek(syn::Token![=]).then(|| meta.value()?.parse::<LitStr>()).transpose()?;
                    indexes.push((name, unique));
                } else {
                    return Err(meta.error("known are `key`, `index`, `unique`, `json` and `column = \"name\"`"));
                }
                Ok(())
            })?;
        }
        // An index without a name has the column's, which may be given after it.
        let own = |column: &Self| LitStr::new(&column.name, ident.span());
        column.indexes = indexes
            .into_iter()
            .map(|(name, unique)| IndexPart { name: name.unwrap_or_else(|| own(&column)), unique })
            .collect();
        Ok(column)
    }
}

fn check(input: &DeriveInput, columns: &[Column<'_>]) -> Result<()> {
    if !columns.iter().any(|column| column.key) {
        return Err(Error::new_spanned(&input.ident, "a row needs a key: mark its fields with `#[row(key)]`"));
    }
    for (at, column) in columns.iter().enumerate() {
        if column.key && column.json {
            return Err(Error::new_spanned(column.ident, "a key cannot be JSON: one value may have several texts"));
        }
        // Stores do not tell names apart by case.
        if columns[..at].iter().any(|other| other.name.eq_ignore_ascii_case(&column.name)) {
            return Err(Error::new_spanned(column.ident, format!("two columns have the name {:?}", column.name)));
        }
    }
    Ok(())
}

fn table_constant(table: &str, columns: &[Column<'_>]) -> Result<TokenStream> {
    let described = columns.iter().map(|Column { name, ty, json, .. }| {
        if *json {
            return quote! {
                ::dacapo::rows::Column { name: #name, kind: ::dacapo::rows::ColumnKind::Json, optional: false }
            };
        }
        quote_spanned! { ty.span() =>
            ::dacapo::rows::Column {
                name: #name,
                kind: <#ty as ::dacapo::rows::Field>::KIND,
                optional: <#ty as ::dacapo::rows::Field>::OPTIONAL,
            }
        }
    });
    let key = (0..columns.len()).filter(|place| columns[*place].key);
    let key_checks = columns.iter().filter(|column| column.key).map(|Column { ty, .. }| {
        quote_spanned! { ty.span() =>
            assert!(!<#ty as ::dacapo::rows::Field>::OPTIONAL, "a field of a key cannot be optional");
        }
    });
    let indexes = indexes(columns)?.into_iter().map(|(name, unique, places)| {
        quote! { ::dacapo::rows::Index { name: #name, columns: &[#(#places),*], unique: #unique } }
    });
    Ok(quote! {
        const TABLE: ::dacapo::Table = {
            #(#key_checks)*
            ::dacapo::Table {
                name: #table,
                columns: &[#(#described),*],
                key: &[#(#key),*],
                indexes: &[#(#indexes),*],
            }
        };
    })
}

/// Returns the indexes by name, in the order in which they are first named.
fn indexes(columns: &[Column<'_>]) -> Result<Vec<(String, bool, Vec<usize>)>> {
    let mut indexes: Vec<(String, bool, Vec<usize>)> = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        for part in &column.indexes {
            let name = part.name.value();
            let Some((_, unique, places)) = indexes.iter_mut().find(|(known, ..)| *known == name) else {
                indexes.push((name, part.unique, vec![place]));
                continue;
            };
            if *unique != part.unique {
                let why = format!("the index {name:?} is unique on one field and not on another: say the same on all");
                return Err(Error::new(part.name.span(), why));
            }
            if places.contains(&place) {
                return Err(Error::new(part.name.span(), format!("the field is in the index {name:?} already")));
            }
            places.push(place);
        }
    }
    Ok(indexes)
}

fn key_functions(table: &str, columns: &[Column<'_>]) -> TokenStream {
    let keys: Vec<&Column<'_>> = columns.iter().filter(|column| column.key).collect();
    let types: Vec<&Type> = keys.iter().map(|column| column.ty).collect();
    let names: Vec<&String> = keys.iter().map(|column| &column.name).collect();
    let fields: Vec<&Ident> = keys.iter().map(|column| column.ident).collect();
    if let [Column { ident, ty, name, .. }] = keys.as_slice() {
        return quote! {
            type Key = #ty;
            const KEY_EXACT: bool = <#ty as ::dacapo::rows::Field>::EXACT;
            fn kept_key(mut key: Self::Key) -> ::core::result::Result<Self::Key, ::dacapo::rows::RowError> {
                ::dacapo::__private::keep_column(&mut key, #table, #name)?;
                Ok(key)
            }
            fn key(&self) -> Self::Key {
                ::core::clone::Clone::clone(&self.#ident)
            }
            fn has_key(&self, key: &Self::Key) -> bool {
                self.#ident == *key
            }
            fn key_values(key: &Self::Key) -> ::core::result::Result<::std::vec::Vec<::dacapo::rows::Value>, ::dacapo::rows::RowError> {
                Ok(::std::vec![::dacapo::__private::to_column(key, #table, #name)?])
            }
        };
    }
    let places: Vec<syn::Index> = (0..keys.len()).map(syn::Index::from).collect();
    quote! {
        type Key = (#(#types,)*);
        const KEY_EXACT: bool = #(<#types as ::dacapo::rows::Field>::EXACT)&&*;
        fn kept_key(mut key: Self::Key) -> ::core::result::Result<Self::Key, ::dacapo::rows::RowError> {
            #(::dacapo::__private::keep_column(&mut key.#places, #table, #names)?;)*
            Ok(key)
        }
        fn key(&self) -> Self::Key {
            (#(::core::clone::Clone::clone(&self.#fields),)*)
        }
        fn has_key(&self, key: &Self::Key) -> bool {
            #(self.#fields == key.#places)&&*
        }
        fn key_values(key: &Self::Key) -> ::core::result::Result<::std::vec::Vec<::dacapo::rows::Value>, ::dacapo::rows::RowError> {
            Ok(::std::vec![#(::dacapo::__private::to_column(&key.#places, #table, #names)?),*])
        }
    }
}

fn value_functions(table: &str, columns: &[Column<'_>]) -> TokenStream {
    let write = columns.iter().map(|Column { ident, name, json, .. }| {
        let function = if *json { quote!(to_json) } else { quote!(to_column) };
        quote! { ::dacapo::__private::#function(&self.#ident, #table, #name)? }
    });
    let one = columns.iter().enumerate().map(|(place, Column { ident, name, json, .. })| {
        let function = if *json { quote!(to_json) } else { quote!(to_column) };
        quote! { #place => ::dacapo::__private::#function(&self.#ident, #table, #name) }
    });
    let exact = columns.iter().map(|Column { ty, json, .. }| match json {
        true => quote!(false),
        false => quote!(<#ty as ::dacapo::rows::Field>::EXACT),
    });
    let keeps = columns.iter().map(|Column { ident, name, json, .. }| {
        let function = if *json { quote!(keep_json) } else { quote!(keep_column) };
        quote! { ::dacapo::__private::#function(&mut self.#ident, #table, #name)?; }
    });
    let plain = || columns.iter().enumerate().filter(|(_, column)| !column.json);
    let bytes = plain().map(|(place, Column { ident, .. })| {
        quote! { #place => ::dacapo::rows::Field::value_bytes(&self.#ident) }
    });
    let checks = plain().map(|(_, Column { ident, name, .. })| {
        quote! { ::dacapo::__private::check_column(&self.#ident, #table, #name)?; }
    });
    let read = columns.iter().map(|Column { ident, name, json, .. }| {
        let function = if *json { quote!(from_json) } else { quote!(from_column) };
        quote! { #ident: ::dacapo::__private::#function(values.next(), #table, #name)? }
    });
    quote! {
        const EXACT: bool = #(#exact)&&*;
        fn keep(&mut self) -> ::core::result::Result<(), ::dacapo::rows::RowError> {
            #(#keeps)*
            Ok(())
        }
        fn to_values(&self) -> ::core::result::Result<::std::vec::Vec<::dacapo::rows::Value>, ::dacapo::rows::RowError> {
            Ok(::std::vec![#(#write),*])
        }
        fn column_value(&self, place: usize) -> ::core::result::Result<::dacapo::rows::Value, ::dacapo::rows::RowError> {
            match place {
                #(#one,)*
                _ => ::core::unreachable!("a table has no such column"),
            }
        }
        fn column_bytes(&self, place: usize) -> usize {
            match place {
                #(#bytes,)*
                _ => ::dacapo::Row::column_value(self, place).map_or(0, |value| value.index_bytes()),
            }
        }
        fn check_values(&self) -> ::core::result::Result<(), ::dacapo::rows::RowError> {
            #(#checks)*
            Ok(())
        }
        fn from_values(
            values: ::std::vec::Vec<::dacapo::rows::Value>,
        ) -> ::core::result::Result<Self, ::dacapo::rows::RowError> {
            let mut values = values.into_iter();
            Ok(Self { #(#read),* })
        }
    }
}
