//! The keys by which rows are looked up.

use std::hash::{Hash, Hasher};

use crate::row::Field;

/// A key, or a borrowed form of it: a `&str` finds a row whose key is a `String`, and `("a-1", 7)` a row whose key is
/// `(String, i64)`. Finding a row in memory needs no new key.
pub trait Lookup<K> {
    /// Returns true if `key` is this key.
    fn is(&self, key: &K) -> bool;

    /// Hashes in the same way as the key.
    fn hash<H: Hasher>(&self, state: &mut H);

    /// Returns the key itself.
    fn into_key(self) -> K;
}

impl<F: Field + Hash + Eq> Lookup<F> for F {
    fn is(&self, key: &F) -> bool {
        self == key
    }

    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(self, state);
    }

    fn into_key(self) -> F {
        self
    }
}

impl<F: Field + Hash + Eq + Clone> Lookup<F> for &F {
    fn is(&self, key: &F) -> bool {
        *self == key
    }

    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(*self, state);
    }

    fn into_key(self) -> F {
        self.clone()
    }
}

impl Lookup<String> for &str {
    fn is(&self, key: &String) -> bool {
        self == key
    }

    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(*self, state);
    }

    fn into_key(self) -> String {
        self.to_owned()
    }
}

/// A key in the form that a store returns.
pub(super) struct Kept<K>(pub(super) K);

impl<K: Hash + Eq> Lookup<K> for Kept<K> {
    fn is(&self, key: &K) -> bool {
        self.0 == *key
    }

    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(&self.0, state);
    }

    fn into_key(self) -> K {
        self.0
    }
}

/// Tuples hash their parts one after the other.
macro_rules! tuple {
    ($($key:ident $part:ident $at:tt),*) => {
        impl<$($key, $part: Lookup<$key>),*> Lookup<($($key,)*)> for ($($part,)*) {
            fn is(&self, key: &($($key,)*)) -> bool {
                $(self.$at.is(&key.$at))&&*
            }

            fn hash<S: Hasher>(&self, state: &mut S) {
                $(self.$at.hash(state);)*
            }

            fn into_key(self) -> ($($key,)*) {
                ($(self.$at.into_key(),)*)
            }
        }
    };
}

tuple!(A P 0, B Q 1);
tuple!(A P 0, B Q 1, C R 2);
tuple!(A P 0, B Q 1, C R 2, D T 3);

/// A borrowed key of several parts.
macro_rules! borrowed_tuple {
    ($($key:ident $at:tt),*) => {
        impl<$($key: Field + Hash + Eq + Clone),*> Lookup<($($key,)*)> for &($($key,)*) {
            fn is(&self, key: &($($key,)*)) -> bool {
                *self == key
            }

            fn hash<S: Hasher>(&self, state: &mut S) {
                Hash::hash(*self, state);
            }

            fn into_key(self) -> ($($key,)*) {
                self.clone()
            }
        }
    };
}

borrowed_tuple!(A 0, B 1);
borrowed_tuple!(A 0, B 1, C 2);
borrowed_tuple!(A 0, B 1, C 2, D 3);
