//! Checks that modules import only from floors below their own.
//!
//! `docs/architecture.md` draws the floors of a folder of modules as a block of code whose first line is
//! ```` ```text floors crates/name/src ````, from the top floor down, one floor a line. Modules that stand on the same
//! line do not import each other either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The start of a block that draws floors.
const BLOCK: &str = "```text floors ";

/// The floors of the modules of one folder.
pub(crate) struct Floors {
    folder: String,
    /// For each module its floor, counted from the top.
    floors: BTreeMap<String, usize>,
}

/// Returns every drawing of floors in a document.
pub(crate) fn drawn(document: &str) -> Vec<Floors> {
    let mut found = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(folder) = line.strip_prefix(BLOCK) else { continue };
        let floors = lines.by_ref().take_while(|line| !line.starts_with("```")).enumerate();
        let modules =
            floors.flat_map(|(floor, line)| line.split_whitespace().map(move |module| (module.to_owned(), floor)));
        found.push(Floors { folder: folder.trim().to_owned(), floors: modules.collect() });
    }
    found
}

impl Floors {
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// Returns what is wrong with the sources of the folder, which are paths from the root of the repository and texts.
    pub(crate) fn faults<'a>(&self, sources: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for (path, text) in sources {
            let Ok(inside) = path.strip_prefix(&self.folder) else { continue };
            let Some(module) = module_of(inside) else { continue };
            let Some(floor) = self.floors.get(&module) else {
                faults.push(format!("{}: docs/architecture.md draws no floor for `{module}`", path.display()));
                continue;
            };
            for (line, named) in self.named(path, text) {
                match self.floors.get(&named) {
                    Some(other) if named != module && other <= floor => faults.push(format!(
                        "{}:{line}: `{module}` imports from `{named}`, which is not on a floor below it",
                        path.display()
                    )),
                    _ => {}
                }
            }
            seen.push(module);
        }
        let gone = self.floors.keys().filter(|module| !seen.contains(module));
        faults.extend(gone.map(|module| format!("docs/architecture.md: there is no `{}/{module}`", self.folder)));
        faults
    }

    /// Returns the modules of the folder that a source names, with the line.
    fn named(&self, path: &Path, text: &str) -> Vec<(usize, String)> {
        let folder = crate_path(Path::new(&self.folder));
        let own = crate_path(path);
        let mut found = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for named in paths(code) {
                let absolute = match named.split_first() {
                    Some((&"crate", rest)) => rest.iter().map(|name| (*name).to_owned()).collect(),
                    _ => {
                        let ups = named.iter().take_while(|name| **name == "super").count();
                        let kept = own.len().saturating_sub(ups);
                        let rest = named[ups..].iter().map(|name| (*name).to_owned());
                        own[..kept].iter().cloned().chain(rest).collect::<Vec<_>>()
                    }
                };
                let inside = absolute.strip_prefix(&folder[..]).and_then(<[String]>::first);
                found.extend(inside.map(|module| (at + 1, module.clone())));
            }
        }
        found
    }
}

/// Returns the module directly in the folder that a file in it belongs to; none for the folder's own.
fn module_of(inside: &Path) -> Option<String> {
    let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
    match first.strip_suffix(".rs") {
        Some("lib" | "main" | "mod") => None,
        Some(module) => Some(module.to_owned()),
        None => Some(first),
    }
}

/// Returns the path of a file or folder below `src`, as modules.
fn crate_path(path: &Path) -> Vec<String> {
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let inside = names.iter().position(|name| name == "src").map_or(&names[..0], |at| &names[at + 1..]);
    let modules = inside.iter().map(|name| name.strip_suffix(".rs").unwrap_or(name).to_owned());
    modules.filter(|name| !matches!(name.as_str(), "lib" | "main" | "mod")).collect()
}

/// Returns the paths in a line of code that begin with `crate` or `super`; of a group in braces, the names at its
/// beginning.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path = &code[at..];
            let end = path.find(|c| !is_part(c)).unwrap_or(path.len());
            let names: Vec<&str> = path[..end].split("::").filter(|name| !name.is_empty()).collect();
            match path[end..].strip_prefix('{') {
                Some(group) if path[..end].ends_with("::") => {
                    let items = group.split([',', '}']).map(|item| item.trim().split("::").next().unwrap_or_default());
                    found.extend(items.filter(|item| !item.is_empty()).map(|item| [&names[..], &[item]].concat()));
                }
                _ => found.push(names),
            }
        }
    }
    found
}

/// Returns the sources below a folder, as paths from the root.
pub(crate) fn sources(root: &Path, code: &[PathBuf], texts: &[String]) -> Vec<(PathBuf, String)> {
    let named = code.iter().map(|path| path.strip_prefix(root).unwrap_or(path).to_owned());
    named.zip(texts.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWING: &str = "text\n```text floors crates/house/src\nroof\nhall   stairs\ncellar\n```\nmore\n";

    fn faults(path: &str, text: &str) -> Vec<String> {
        let [floors] = &drawn(DRAWING)[..] else { panic!("one drawing") };
        let all = ["roof.rs", "hall/mod.rs", "stairs.rs", "cellar.rs"].map(|name| format!("crates/house/src/{name}"));
        let others = all.iter().filter(|name| *name != path).map(|name| (Path::new(name.as_str()), ""));
        floors.faults(others.chain([(Path::new(path), text)]))
    }

    #[test]
    fn an_import_from_a_floor_above_is_a_fault() {
        let found = faults("crates/house/src/cellar.rs", "use crate::roof::Tile;\n");
        assert_eq!(
            found,
            ["crates/house/src/cellar.rs:1: `cellar` imports from `roof`, which is not on a floor below it"]
        );
        assert!(faults("crates/house/src/roof.rs", "use crate::cellar::Stone;\n").is_empty());
    }

    #[test]
    fn a_path_in_code_and_one_over_super_count_as_imports() {
        assert_eq!(faults("crates/house/src/hall/door.rs", "fn open() { super::super::roof::leak(); }\n").len(), 1);
        assert_eq!(faults("crates/house/src/cellar.rs", "use super::hall::Floor;\n").len(), 1);
        assert!(
            faults("crates/house/src/hall/door.rs", "use super::Key;\nuse crate::cellar::{Stone, Wine};\n").is_empty()
        );
        assert!(faults("crates/house/src/cellar.rs", "// as crate::roof does\n").is_empty());
    }

    #[test]
    fn modules_of_one_floor_do_not_import_each_other() {
        assert_eq!(faults("crates/house/src/stairs.rs", "use crate::{cellar::Stone, hall};\n").len(), 1);
    }

    #[test]
    fn every_module_has_a_floor_and_every_floor_its_modules() {
        let [floors] = &drawn(DRAWING)[..] else { panic!("one drawing") };
        let found = floors.faults([(Path::new("crates/house/src/attic.rs"), "")]);
        assert_eq!(found.len(), 5);
        assert!(found[0].contains("no floor for `attic`"), "{}", found[0]);
    }
}
