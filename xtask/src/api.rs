//! The public API of the library crates, as lists that are kept in the repository: a change of the API is a change of a
//! list, which a reviewer sees. `cargo xtask api` compares, `cargo xtask api --write` rewrites.
//!
//! The lists come from the sources, not from the compiler, so they take a second and need no nightly. What a macro makes
//! is listed as the call of the macro. Names that another crate defines are listed as what they are there.

mod lines;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;

use crate::{Done, docs::read};
use tree::Crate;

/// The crates whose API is kept, with their folders.
const CRATES: &[(&str, &str)] = &[
    ("dacapo", "crates/dacapo"),
    ("dacapo-api", "crates/api"),
    ("dacapo-model", "crates/model"),
    ("dacapo-server", "crates/server"),
    ("dacapo-store", "crates/store"),
];

/// The folder of the lists.
const LISTS: &str = "docs/public-api";

/// Compares the lists with the sources, or writes them anew.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Done {
    match arguments {
        [] => check(root),
        [write] if write == "--write" => CRATES.iter().try_for_each(|(name, folder)| {
            let list = list(name, &root.join(folder))?;
            let path = root.join(LISTS).join(format!("{name}.txt"));
            std::fs::write(&path, list).map_err(|error| format!("{}: {error}", path.display()))
        }),
        _ => Err("usage: cargo xtask api [--write]".to_owned()),
    }
}

/// Compares the lists with the sources.
pub(crate) fn check(root: &Path) -> Done {
    let mut differences = Vec::new();
    for (name, folder) in CRATES {
        let kept = read(&root.join(LISTS).join(format!("{name}.txt")))?;
        let difference = difference(&kept, &list(name, &root.join(folder))?);
        if !difference.is_empty() {
            differences.push(format!("{LISTS}/{name}.txt: the public API is another one\n{}", difference.join("\n")));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    differences.push("If this is intended, `cargo xtask api --write` rewrites the lists.".to_owned());
    Err(differences.join("\n"))
}

fn list(name: &str, folder: &Path) -> Result<String, String> {
    let krate = Crate::read(&name.replace('-', "_"), &folder.join("src"))?;
    let lines: BTreeSet<String> = lines::of(&krate).into_iter().collect();
    let mut list = String::new();
    for line in lines {
        list.push_str(&line);
        list.push('\n');
    }
    Ok(list)
}

/// Returns the lines that went, and those that came, in the order of the lists.
fn difference(kept: &str, found: &str) -> Vec<String> {
    let (kept, found): (BTreeSet<_>, BTreeSet<_>) = (kept.lines().collect(), found.lines().collect());
    let went = kept.difference(&found).map(|line| (*line, '-'));
    let came = found.difference(&kept).map(|line| (*line, '+'));
    let mut all: Vec<_> = went.chain(came).collect();
    all.sort_by_key(|(line, sign)| (line.split('(').next().map(str::to_owned), *sign != '-'));
    all.into_iter().map(|(line, sign)| format!("  {sign} {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(sources: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in sources {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        lines::of(&Crate::read("house", folder.path()).unwrap())
    }

    #[test]
    fn what_is_public_is_listed_under_its_public_path() {
        let found = listed(&[
            ("lib.rs", "mod door; pub mod hall { pub use crate::door::{Door, open as enter}; } pub use other::Roof;"),
            (
                "door/mod.rs",
                "mod lock; pub struct Door { pub wide: u8, high: u8 } pub fn open() -> bool { true } pub struct Hidden;
                 impl Door { pub const MAX: u8 = 3; pub fn close(&self, hard: bool) {} fn creak(&self) {} }
                 impl Clone for Door { fn clone(&self) -> Self { Door { ..*self } } }",
            ),
            (
                "door/lock.rs",
                "impl super::Door { pub fn lock(self) -> Option<Self> { None } pub(crate) fn pick(&self) {} }",
            ),
        ]);
        assert_eq!(
            found,
            [
                "const house::hall::Door::MAX: u8",
                "field house::hall::Door::wide: u8",
                "fn house::hall::Door::close(&self, hard: bool)",
                "fn house::hall::Door::lock(self) -> Option<Self>",
                "fn house::hall::enter() -> bool",
                "impl Clone for house::hall::Door",
                "mod house::hall",
                "struct house::hall::Door",
                "use house::Roof = other::Roof",
            ]
        );
    }

    #[test]
    fn traits_enums_and_macros_are_listed_in_full() {
        let found = listed(&[
            (
                "lib.rs",
                "#[non_exhaustive] pub enum Room { Empty, Full { guests: u8 } }
                 pub trait Guest: Send { type Bag; fn come(&self); fn go(self) where Self: Sized {} }
                 #[macro_export] macro_rules! knock { () => {} }
                 mod ids; pub use ids::Id;
                 #[doc(hidden)] pub mod private { pub fn f() {} }
                 #[cfg(test)] mod tests { pub fn g() {} }",
            ),
            ("ids.rs", "id!(/// Which one.\n Id, 8);"),
            ("no.rs", "not even Rust"),
        ]);
        assert_eq!(
            found,
            [
                "enum house::Room (non_exhaustive)",
                "fn house::Guest::come(&self)",
                "fn house::Guest::go(self) where Self: Sized (provided)",
                "macro house::ids id!: 8",
                "macro house::ids id!: Id",
                "macro house::knock!",
                "trait house::Guest: Send",
                "type house::Guest::Bag",
                "use house::Id = house::ids::Id",
                "variant house::Room::Empty",
                "variant house::Room::Full { guests: u8 }",
            ]
        );
    }

    #[test]
    fn a_difference_shows_what_went_and_what_came() {
        let found = difference("fn a::b()\nfn a::c(x: u8)\n", "fn a::b()\nfn a::c(x: u16)\n");
        assert_eq!(found, ["  - fn a::c(x: u8)", "  + fn a::c(x: u16)"]);
    }
}
