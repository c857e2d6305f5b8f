//! `#[derive(Event)]`.
//!
//! Serde itself reads and writes the payloads: a hidden struct for each variant to read, and a hidden mirror
//! of the enum, untagged, to write. So everything that serde knows about fields holds here, and decoding
//! costs what serde_json costs. Hidden types have names that no field's type has.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Path, Result, Variant};

use crate::names::words;

/// The attributes of one variant.
struct Kind<'a> {
    variant: &'a Variant,
    name: LitStr,
    aliases: Vec<LitStr>,
    /// `#[serde(rename_all = …)]` for its fields.
    rename_all: Option<LitStr>,
}

/// An older payload and the function that reads it.
struct Upcast {
    from: LitStr,
    with: Path,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "an event type cannot have generics: stored events have one type",
        ));
    }
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "derive Event for an enum: each variant is a type of event"));
    };
    let mut upcasts = Vec::new();
    let rename_all_fields = on_enum(input, &mut upcasts)?;
    let kinds = data
        .variants
        .iter()
        .map(|variant| Kind::of(variant, rename_all_fields.as_ref(), &mut upcasts))
        .collect::<Result<Vec<_>>>()?;
    check(&kinds, &upcasts)?;

    let ident = &input.ident;
    let types = kinds.iter().flat_map(Kind::names).chain(upcasts.iter().map(|upcast| &upcast.from));
    let event_type = kinds.iter().map(|kind| {
        let (variant, name) = (&kind.variant.ident, &kind.name);
        quote! { Self::#variant { .. } => #name }
    });
    let encode = encode(ident, &kinds);
    let decode = decode(&kinds, &upcasts);
    Ok(quote! {
        #[automatically_derived]
        impl ::dacapo::Event for #ident {
            const TYPES: &'static [&'static str] = &[#(#types),*];

            fn event_type(&self) -> &'static str {
                match *self {
                    #(#event_type,)*
                }
            }

            #encode
            #decode
        }
    })
}

/// Reads the attributes of the enum; returns how its fields are renamed.
fn on_enum(input: &DeriveInput, upcasts: &mut Vec<Upcast>) -> Result<Option<LitStr>> {
    for attribute in named(&input.attrs, "event") {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("upcast") {
                return Err(meta.error("only `upcast(from = \"name\", with = function)` is allowed on the enum"));
            }
            upcasts.push(Upcast::parse(&meta)?);
            Ok(())
        })?;
    }
    serde_value(&input.attrs, "rename_all_fields")
}

impl<'a> Kind<'a> {
    fn of(variant: &'a Variant, rename_all_fields: Option<&LitStr>, upcasts: &mut Vec<Upcast>) -> Result<Self> {
        if matches!(&variant.fields, Fields::Unnamed(fields) if fields.unnamed.len() != 1) {
            let why = "an event has named fields, or one field that is its whole payload, or none";
            return Err(Error::new_spanned(&variant.fields, why));
        }
        let (mut name, mut aliases) = (None, Vec::new());
        for attribute in named(&variant.attrs, "event") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    let lit: LitStr = meta.value()?.parse()?;
                    if name.replace(lit).is_some() {
                        return Err(meta.error("an event has one name: write older ones as `alias = \"name\"`"));
                    }
                } else if meta.path.is_ident("alias") {
                    aliases.push(meta.value()?.parse()?);
                } else if meta.path.is_ident("upcast") {
                    upcasts.push(Upcast::parse(&meta)?);
                } else {
                    return Err(
                        meta.error("allowed are `name`, `alias` and `upcast(from = \"name\", with = function)`")
                    );
                }
                Ok(())
            })?;
        }
        let ident = &variant.ident;
        let name = name.unwrap_or_else(|| LitStr::new(&words(&ident.to_string(), '-'), ident.span()));
        let rename_all = serde_value(&variant.attrs, "rename_all")?.or_else(|| rename_all_fields.cloned());
        Ok(Self { variant, name, aliases, rename_all })
    }

    /// Returns every name under which its payload is stored.
    fn names(&self) -> impl Iterator<Item = &LitStr> {
        std::iter::once(&self.name).chain(&self.aliases)
    }

    fn rename_all(&self) -> Option<TokenStream> {
        self.rename_all.as_ref().map(|case| quote! { #[serde(rename_all = #case)] })
    }
}

impl Upcast {
    fn parse(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let (mut from, mut with) = (None, None);
        meta.parse_nested_meta(|meta| {
            if meta.path.is_ident("from") {
                from = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("with") {
                with = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error("allowed are `from = \"name\"` and `with = function`"));
            }
            Ok(())
        })?;
        match (from, with) {
            (Some(from), Some(with)) => Ok(Self { from, with }),
            _ => Err(meta.error("an upcast needs `from = \"name\"` and `with = function`")),
        }
    }
}

fn named<'a>(attributes: &'a [Attribute], name: &'a str) -> impl Iterator<Item = &'a Attribute> {
    attributes.iter().filter(move |attribute| attribute.path().is_ident(name))
}

/// Returns the text of `#[serde(name = "text")]`, if it is there; the rest is for serde's own derives.
fn serde_value(attributes: &[Attribute], name: &str) -> Result<Option<LitStr>> {
    let mut found = None;
    for attribute in named(attributes, "serde") {
        attribute.parse_nested_meta(|meta| {
            let wanted = meta.path.is_ident(name);
            if meta.input.peek(syn::Token![=]) {
                let value: syn::Expr = meta.value()?.parse()?;
                if let (true, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) = (wanted, value) {
                    found = Some(text);
                }
            } else if wanted {
                return Err(meta.error(format!("write `{name} = \"case\"`, for reading and writing alike")));
            } else if meta.input.peek(syn::token::Paren) {
                let group;
                syn::parenthesized!(group in meta.input);
                group.parse::<TokenStream>()?;
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn check(kinds: &[Kind<'_>], upcasts: &[Upcast]) -> Result<()> {
    let mut known: Vec<String> = Vec::new();
    for name in kinds.iter().flat_map(Kind::names).chain(upcasts.iter().map(|upcast| &upcast.from)) {
        let text = name.value();
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(Error::new(name.span(), "the name of an event is 1 to 255 bytes without control characters"));
        }
        if known.contains(&text) {
            return Err(Error::new(
                name.span(),
                format!("two events have the name {text:?}: a stored event has one type"),
            ));
        }
        known.push(text);
    }
    Ok(())
}

/// Writes through a mirror of the enum that serde takes for the enum itself.
fn encode(ident: &Ident, kinds: &[Kind<'_>]) -> TokenStream {
    let written: Vec<&Kind<'_>> = kinds.iter().filter(|kind| !matches!(kind.variant.fields, Fields::Unit)).collect();
    let empty: Vec<&Ident> = kinds
        .iter()
        .filter(|kind| matches!(kind.variant.fields, Fields::Unit))
        .map(|kind| &kind.variant.ident)
        .collect();
    let empty_arm = (!empty.is_empty()).then(|| quote! { #(Self::#empty)|* => Ok(b"{}".to_vec()), });
    let mirror = kinds.iter().map(|kind| {
        let (variant, rename_all) = (&kind.variant.ident, kind.rename_all());
        let fields = fields(&kind.variant.fields);
        quote! { #rename_all #variant #fields }
    });
    let other_arm = (!written.is_empty()).then(|| {
        let name = ident.to_string();
        quote! {
            _ => {
                #[derive(::dacapo::__private::serde::Serialize)]
                #[serde(crate = "::dacapo::__private::serde", remote = #name, untagged)]
                #[allow(dead_code)]
                enum __DacapoMirror { #(#mirror),* }

                struct __DacapoPayload<'a>(&'a #ident);

                impl ::dacapo::__private::serde::Serialize for __DacapoPayload<'_> {
                    fn serialize<S: ::dacapo::__private::serde::Serializer>(
                        &self,
                        serializer: S,
                    ) -> ::core::result::Result<S::Ok, S::Error> {
                        __DacapoMirror::serialize(self.0, serializer)
                    }
                }

                ::dacapo::__private::encode(self.event_type(), &__DacapoPayload(self))
            }
        }
    });
    quote! {
        fn encode(&self) -> ::core::result::Result<::std::vec::Vec<u8>, ::dacapo::journal::EventError> {
            match self {
                #empty_arm
                #other_arm
            }
        }
    }
}

/// Reads a struct of the variant's fields, straight from the bytes.
fn decode(kinds: &[Kind<'_>], upcasts: &[Upcast]) -> TokenStream {
    let current = kinds.iter().map(|kind| {
        let (variant, names, rename_all) = (&kind.variant.ident, kind.names(), kind.rename_all());
        let body = match &kind.variant.fields {
            Fields::Unit => quote! { Self::#variant },
            Fields::Named(_) => {
                let idents = kind.variant.fields.iter().map(|field| &field.ident).collect::<Vec<_>>();
                let fields = fields(&kind.variant.fields);
                quote! {
                    #[derive(::dacapo::__private::serde::Deserialize)]
                    #[serde(crate = "::dacapo::__private::serde")]
                    #rename_all
                    struct __DacapoPayload #fields
                    let __DacapoPayload { #(#idents),* } = ::dacapo::__private::decode(event_type, payload)?;
                    Self::#variant { #(#idents),* }
                }
            }
            Fields::Unnamed(_) => {
                let fields = fields(&kind.variant.fields);
                quote! {
                    #[derive(::dacapo::__private::serde::Deserialize)]
                    #[serde(crate = "::dacapo::__private::serde", transparent)]
                    struct __DacapoPayload #fields;
                    let __DacapoPayload(all) = ::dacapo::__private::decode(event_type, payload)?;
                    Self::#variant(all)
                }
            }
        };
        quote! { #(#names)|* => { #body } }
    });
    let older = upcasts.iter().map(|Upcast { from, with }| {
        quote! { #from => #with(::dacapo::__private::decode(event_type, payload)?) }
    });
    quote! {
        fn decode(
            event_type: &str,
            payload: &[u8],
        ) -> ::core::result::Result<::core::option::Option<Self>, ::dacapo::journal::EventError> {
            let event = match event_type {
                #(#current)*
                #(#older,)*
                _ => return Ok(None),
            };
            Ok(Some(event))
        }
    }
}

/// Returns the fields with their serde attributes.
fn fields(fields: &Fields) -> TokenStream {
    let each = fields.iter().map(|field| {
        let (serde, ty) = (named(&field.attrs, "serde"), &field.ty);
        match &field.ident {
            Some(ident) => quote! { #(#serde)* #ident: #ty },
            None => quote! { #(#serde)* #ty },
        }
    });
    match fields {
        Fields::Named(_) => quote! { { #(#each),* } },
        Fields::Unnamed(_) => quote! { ( #(#each),* ) },
        Fields::Unit => quote! {},
    }
}
