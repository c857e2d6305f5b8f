//! The planted faults: each breaks one invariant on purpose, to prove that a checker of the simulator notices.
//!
//! The product's own code has none of them. They are edits, which are applied to a copy of the tree.
//! `crates/sim/planted/README.md` describes the form of their files.
//!
//! ```text
//!   crates/sim/planted/*.fault ──┐
//!   the tree ────────────────────┴─▶ a copy with all faults ──cargo──▶ one program, which is told the active fault
//! ```

mod edits;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Done;
use crate::docs::{files, read, tracked};
use edits::Edit;

/// The folder of the faults.
const FOLDER: &str = "crates/sim/planted";
/// The file with the seed by which each fault was found last: the first one to try.
pub(crate) const SEEDS: &str = "crates/sim/planted-seeds.txt";
/// The module that knows which fault is active.
const MODULE: &str = "crates/sim/planted/planted.rs";
/// The place of this module in the copy: in the lowest crate, so that every other one can ask it.
const MODEL: &str = "crates/model/src";
/// The variable of the environment that names the active fault.
pub(crate) const ACTIVE: &str = "DACAPO_PLANTED";

/// A fault that can be planted.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    /// The checkers of which one must find it.
    pub(crate) breaks: Vec<String>,
    edits: Vec<Edit>,
}

/// Returns every fault, in the order of names.
pub(crate) fn faults(root: &Path) -> Result<Vec<Fault>, String> {
    let of_file = |path: &PathBuf| {
        let name = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        fault(name, &read(path)?)
    };
    let faults: Vec<Fault> = files(&root.join(FOLDER), "fault").iter().map(of_file).collect::<Result<_, _>>()?;
    if faults.is_empty() { Err(format!("{FOLDER} has no faults")) } else { Ok(faults) }
}

/// Returns the seed by which each fault was found last.
pub(crate) fn seeds(root: &Path) -> Result<BTreeMap<String, u64>, String> {
    let of_line = |line: &str| {
        let (name, seed) = line.split_once(' ')?;
        Some((name.to_owned(), seed.parse().ok()?))
    };
    let text = read(&root.join(SEEDS))?;
    text.lines().map(|line| of_line(line).ok_or(format!("{SEEDS}: `{line}` is not a name and a seed"))).collect()
}

/// Records by which seed each fault was found.
pub(crate) fn note(root: &Path, seeds: &BTreeMap<String, u64>) -> Done {
    let text: String = seeds.iter().map(|(name, seed)| format!("{name} {seed}\n")).collect();
    write(&root.join(SEEDS), text.as_bytes())
}

/// Returns what is wrong with the faults: edits that do not fit the code, and seeds that are missing or left over.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let (faults, seeds) = (faults(root)?, seeds(root)?);
    let mut wrong = edited(root, &faults).err().unwrap_or_default();
    let names: BTreeSet<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
    wrong.extend(names.iter().filter(|name| !seeds.contains_key(**name)).map(|name| {
        format!("{FOLDER}/{name}.fault: {SEEDS} has no seed for it. `cargo xtask sim --planted` looks for one")
    }));
    let left_over = seeds.keys().filter(|name| !names.contains(name.as_str()));
    wrong.extend(left_over.map(|name| format!("{SEEDS}: {FOLDER} has no fault `{name}`. Remove the line")));
    Ok(wrong)
}

/// Makes `copy` the tree with these faults. A file in it that is right already keeps its time, so that cargo does not
/// compile it again.
pub(crate) fn plant(root: &Path, faults: &[Fault], copy: &Path) -> Done {
    let mut edited = edited(root, faults).map_err(|wrong| wrong.join("\n"))?;
    let lib = format!("{MODEL}/lib.rs");
    let text = match edited.remove(&lib) {
        Some(text) => text,
        None => read(&root.join(&lib))?,
    };
    edited.insert(lib, text + "\npub mod planted;\n");
    edited.insert(format!("{MODEL}/planted.rs"), read(&root.join(MODULE))?);
    let mut kept = BTreeSet::new();
    for name in tracked(root, ".")?.iter().filter(|name| !edited.contains_key(*name)) {
        let path = root.join(name);
        let content = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        write(&copy.join(name), &content)?;
        kept.insert(copy.join(name));
    }
    for (name, text) in &edited {
        write(&copy.join(name), text.as_bytes())?;
        kept.insert(copy.join(name));
    }
    remove_others(copy, &kept)
}

fn fault(name: &str, text: &str) -> Result<Fault, String> {
    let of = format!("{FOLDER}/{name}.fault");
    let (head, edits) = edits::parse(&of, text)?;
    let breaks = head.iter().find_map(|line| line.strip_prefix("breaks ")).unwrap_or_default();
    let breaks: Vec<String> = breaks.split_whitespace().map(str::to_owned).collect();
    let is_told = head.first().is_some_and(|line| !line.is_empty() && !line.starts_with("breaks "));
    if !is_told || breaks.is_empty() {
        return Err(format!(
            "{of}: begin it with what is wrong, and list with `breaks` the checkers that must find it"
        ));
    }
    let condition = format!("planted::is({name:?})");
    for Edit { path, to, .. } in &edits {
        let count = |text: &str| to.iter().map(|line| line.matches(text).count()).sum::<usize>();
        if count(&condition) == 0 || count(&condition) != count("planted::is(") {
            return Err(format!("{of}: its edit of {path} must depend on `{condition}`, and on no other fault"));
        }
    }
    Ok(Fault { name: name.to_owned(), breaks, edits })
}

/// Returns the text of each file that the faults change, or what is wrong with their edits.
fn edited(root: &Path, faults: &[Fault]) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut by_path = BTreeMap::<&str, Vec<&Edit>>::new();
    for edit in faults.iter().flat_map(|fault| &fault.edits) {
        by_path.entry(&edit.path).or_default().push(edit);
    }
    let (mut edited, mut wrong) = (BTreeMap::new(), Vec::new());
    for (path, edits) in by_path {
        match read(&root.join(path)).map_err(|error| vec![error]).and_then(|text| edits::apply(&text, &edits)) {
            Ok(text) => drop(edited.insert(path.to_owned(), text)),
            Err(found) => wrong.extend(found),
        }
    }
    if wrong.is_empty() { Ok(edited) } else { Err(wrong) }
}

/// Writes a file, except when it has this content already.
fn write(path: &Path, content: &[u8]) -> Done {
    if fs::read(path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(path, content)).map_err(|error| format!("{}: {error}", path.display()))
}

/// Removes the files of a folder that are not kept, and the folders that have none.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> Done {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let removed = match path.is_dir() {
            true if kept.iter().any(|kept| kept.starts_with(&path)) => {
                remove_others(&path, kept)?;
                Ok(())
            }
            true => fs::remove_dir_all(&path),
            false if kept.contains(&path) => Ok(()),
            false => fs::remove_file(&path),
        };
        removed.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const FAULT: &str = "What.\n\nbreaks I-1 parted\n\n@@ a.rs\n-one();\n+if !planted::is(\"i-1-a\") { one() }\n";

    /// A tree with one line of code, a fault that breaks it, and the seed that finds the fault.
    fn tree() -> TempDir {
        let root = TempDir::new().unwrap();
        for (name, text) in [
            ("a.rs", "one();\n"),
            ("b.rs", "two();\n"),
            ("crates/model/src/lib.rs", "mod a;\n"),
            ("crates/sim/planted-seeds.txt", "i-1-a 7\n"),
            ("crates/sim/planted/i-1-a.fault", FAULT),
            (MODULE, "pub fn is() {}\n"),
        ] {
            write(&root.path().join(name), text.as_bytes()).unwrap();
        }
        root
    }

    #[test]
    fn the_faults_of_this_tree_fit_its_code_and_each_has_a_seed() {
        assert_eq!(check(&crate::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_change_of_the_code_that_a_fault_breaks_names_the_fault() {
        let tree = tree();
        assert!(check(tree.path()).unwrap().is_empty());
        fs::write(tree.path().join("a.rs"), "two();\n").unwrap();
        let wrong = check(tree.path()).unwrap().join("\n");
        assert!(wrong.starts_with("crates/sim/planted/i-1-a.fault: ") && wrong.ends_with("\none();"), "{wrong}");
        fs::remove_file(tree.path().join("a.rs")).unwrap();
        let wrong = check(tree.path()).unwrap().join("\n");
        assert!(wrong.contains("a.rs"), "{wrong}");
    }

    #[test]
    fn a_fault_without_a_seed_and_a_seed_without_a_fault_are_found() {
        let tree = tree();
        note(tree.path(), &BTreeMap::from([("i-1-b".to_owned(), 3)])).unwrap();
        let wrong = check(tree.path()).unwrap();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].starts_with("crates/sim/planted/i-1-a.fault: "), "{wrong:?}");
        assert!(wrong[1].contains("no fault `i-1-b`"), "{wrong:?}");
        fs::write(tree.path().join(SEEDS), "i-1-a\n").unwrap();
        assert!(check(tree.path()).unwrap_err().contains("`i-1-a` is not a name and a seed"));
    }

    #[test]
    fn a_fault_says_what_is_wrong_what_finds_it_and_when_it_is_active() {
        let parsed = fault("i-1-a", FAULT).unwrap();
        assert_eq!(
            (parsed.name.as_str(), parsed.breaks, parsed.edits.len()),
            ("i-1-a", vec!["I-1".into(), "parted".into()], 1)
        );
        for (text, why) in [
            (FAULT.replace("What.\n\n", ""), "begin it with what is wrong"),
            (FAULT.replace("breaks I-1 parted", ""), "list with `breaks`"),
            (FAULT.replace("i-1-a", "i-1-b"), "must depend on `planted::is(\"i-1-a\")`"),
            (FAULT.replace("if !planted::is(\"i-1-a\")", ""), "must depend on"),
            (FAULT.replace("one() }", "planted::is(\"i-1-b\") }"), "and on no other fault"),
        ] {
            let error = fault("i-1-a", &text).unwrap_err();
            assert!(error.starts_with("crates/sim/planted/i-1-a.fault: ") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_copy_has_the_faults_and_keeps_the_times_of_files_that_stay_the_same() {
        let (tree, target) = (tree(), TempDir::new().unwrap());
        let copy = target.path().join("copy");
        git(tree.path(), &["init", "--quiet"]);
        let text = |name: &str| fs::read_to_string(copy.join(name)).unwrap();
        let modified = |name: &str| fs::metadata(copy.join(name)).unwrap().modified().unwrap();
        plant(tree.path(), &faults(tree.path()).unwrap(), &copy).unwrap();
        assert_eq!(text("a.rs"), "if !planted::is(\"i-1-a\") { one() }\n");
        assert_eq!(text("crates/model/src/lib.rs"), "mod a;\n\npub mod planted;\n");
        assert_eq!(text("crates/model/src/planted.rs"), "pub fn is() {}\n");

        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        for name in ["a.rs", "b.rs", SEEDS] {
            fs::File::options().write(true).open(copy.join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        write(&copy.join("gone/b.rs"), b"").unwrap();
        write(&copy.join("c.rs"), b"").unwrap();
        fs::write(tree.path().join("b.rs"), "three();\n").unwrap();
        plant(tree.path(), &faults(tree.path()).unwrap(), &copy).unwrap();
        assert_eq!((modified("a.rs"), modified(SEEDS)), (long_ago, long_ago));
        assert!(modified("b.rs") > long_ago);
        assert!(!copy.join("gone").exists() && !copy.join("c.rs").exists());
    }

    fn git(folder: &Path, arguments: &[&str]) {
        let done = std::process::Command::new("git").args(arguments).current_dir(folder).status().unwrap();
        assert!(done.success());
    }
}
