//! The layer between the reader and the forms.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::trail::{Found, Trail};
use crate::form::parse_number;

/// The name under which `serde_json` reads a value as it is. A payload must not be inspected.
const RAW: &str = "$serde_json::private::RawValue";

/// A reader, or a part of one, whose objects are checked.
pub(super) struct Strict<'t, D> {
    pub(super) inner: D,
    pub(super) trail: &'t Trail,
}

macro_rules! forwarded {
    ($($method:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let trail = self.trail;
            self.inner.$method(Looking { visitor, fields: None, trail })
        })+
    };
}

/// Checks texts in a query before they are read as another type.
macro_rules! texts {
    ($($method:ident: $text:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let visitor = Looking { visitor, fields: None, trail: self.trail };
            if self.trail.is_query { self.inner.deserialize_str($text(visitor)) } else { self.inner.$method(visitor) }
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    forwarded!(
        deserialize_any,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_str,
        deserialize_string,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
        deserialize_identifier,
        deserialize_ignored_any,
    );

    texts!(
        deserialize_bool: Word,
        deserialize_u8: Digits,
        deserialize_u16: Digits,
        deserialize_u32: Digits,
        deserialize_u64: Digits,
    );

    /// Returns a parameter that is present has a value: the reader of queries would read an empty one as absent.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Looking { visitor, fields: None, trail: self.trail };
        if self.trail.is_query { visitor.visit_some(self.inner) } else { self.inner.deserialize_option(visitor) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Looking { visitor, fields: Some(fields), trail: self.trail })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        if name == RAW {
            return self.inner.deserialize_newtype_struct(name, visitor);
        }
        self.inner.deserialize_newtype_struct(name, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, Looking { visitor, fields: None, trail: self.trail })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, len, Looking { visitor, fields: None, trail: self.trail })
    }

    /// The variants of requests are plain words. A reader of JSON would report a value of another kind as bad JSON.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(Variant { visitor, variants })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A word that names one of these variants.
struct Variant<V> {
    visitor: V,
    variants: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Variant<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self.variants.iter().map(|variant| format!("`{variant}`")).collect();
        f.write_str(&quoted.join(" or "))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.visitor.visit_enum(text.into_deserializer())
    }
}

/// A number in a query.
struct Digits<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Digits<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.0.visit_u64(parse_number(text).map_err(E::custom)?)
    }
}

/// A boolean in a query.
struct Word<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Word<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<V::Value, E> {
        match text {
            "true" => self.0.visit_bool(true),
            "false" => self.0.visit_bool(false),
            other => Err(E::custom(format!("{other:?} is neither true nor false"))),
        }
    }
}

/// The form's visitor, after a check of the input. `fields` are those of a form that is an object.
struct Looking<'t, V> {
    visitor: V,
    fields: Option<&'static [&'static str]>,
    trail: &'t Trail,
}

macro_rules! passed_on {
    ($($method:ident: $type:ty),+ $(,)?) => {
        $(fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Looking<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fields {
            // The name of a type means nothing to the sender of JSON.
            Some(_) => f.write_str("an object"),
            None => self.visitor.expecting(f),
        }
    }

    passed_on!(
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    );

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        match self.fields {
            Some(_) => Err(E::invalid_type(de::Unexpected::Other("null"), &self)),
            None => self.visitor.visit_unit(),
        }
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict { inner, trail: self.trail })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict { inner, trail: self.trail })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        match self.fields {
            Some(_) => Err(A::Error::invalid_type(de::Unexpected::Other("an array"), &self)),
            None => self.visitor.visit_seq(Items { inner, at: 0, trail: self.trail }),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let keys = Keys { inner, fields: self.fields, seen: HashSet::new(), key: String::new(), trail: self.trail };
        self.visitor.visit_map(keys)
    }
}

struct Items<'t, A> {
    inner: A,
    at: usize,
    trail: &'t Trail,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let part = format!("[{}]", self.at);
        self.at += 1;
        let (inner, trail) = (&mut self.inner, self.trail);
        trail.enter(part, || inner.next_element_seed(Seed { seed, trail }))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The keys of an object. Each is checked before the form sees it.
struct Keys<'t, A> {
    inner: A,
    fields: Option<&'static [&'static str]>,
    seen: HashSet<String>,
    key: String,
    trail: &'t Trail,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Keys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.inner.next_key::<String>()? else { return Ok(None) };
        if let Some(known) = self.fields.filter(|fields| !fields.contains(&key.as_str())) {
            return Err(self.trail.refuse(Found::Unknown { key, known }));
        }
        if !self.seen.insert(key.clone()) {
            return Err(self.trail.refuse(Found::Doubled { key }));
        }
        self.key.clone_from(&key);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let (inner, trail) = (&mut self.inner, self.trail);
        trail.enter(std::mem::take(&mut self.key), || inner.next_value_seed(Seed { seed, trail }))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Seed<'t, S> {
    seed: S,
    trail: &'t Trail,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Strict { inner, trail: self.trail })
    }
}
