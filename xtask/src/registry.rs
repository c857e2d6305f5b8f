//! Shares what cargo has built of the crates of the registry with another folder of cargo's.
//!
//! These crates are the same for every copy of the tree, and most of a build. Cargo compiles one again if anything that
//! it is built from differs, so a file too many does no harm.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use crate::Done;

/// The folders that have results for each crate, by the names of crates.
const RESULTS: [&str; 3] = [".fingerprint", "build", "deps"];
/// How the names of this workspace's own crates and of their libraries begin.
const OWN: [&str; 4] = ["dacapo", "libdacapo", "xtask", "libxtask"];

/// Gives `to` the results of crates of the registry in `from`. Both are folders of one profile, such as `target/debug`.
pub(crate) fn share(from: &Path, to: &Path) -> Done {
    for results in RESULTS {
        let folder = from.join(results);
        // Libraries are large, and rustc replaces them as a whole. Cargo writes into the other files.
        let share = if results == "deps" { link } else { copy };
        share_all(&folder, &to.join(results), &|name| !is_own(name), share)
            .map_err(|error| format!("share {}: {error}", folder.display()))?;
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)
}

/// Copies a file with its time, by which cargo decides what is fresh.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let time = fs::metadata(from)?.modified()?;
    fs::File::options().append(true).open(to)?.set_modified(time)
}

fn is_own(name: &OsStr) -> bool {
    OWN.iter().any(|own| name.as_encoded_bytes().starts_with(own.as_bytes()))
}

fn share_all(
    from: &Path,
    to: &Path,
    wanted: &dyn Fn(&OsStr) -> bool,
    share: fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !wanted(&name) {
            continue;
        }
        let (there, here) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            share_all(&there, &here, &|_| true, share)?;
        } else if !here.exists() {
            share(&there, &here)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_of_the_registry_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let files = [
            ".fingerprint/serde-1/lib-serde",
            ".fingerprint/dacapo-store-1/lib-dacapo_store",
            "build/sqlite-2/out/sqlite.a",
            "build/dacapo-2/out/x",
            "deps/libserde-1.rlib",
            "deps/libdacapo_store-1.rlib",
            "deps/dacapo_sim-3",
        ];
        for file in files {
            fs::create_dir_all(from.join(file).parent().unwrap()).unwrap();
            fs::write(from.join(file), file).unwrap();
        }
        share(&from, &to).unwrap();
        // A second time finds the files there.
        share(&from, &to).unwrap();
        let shared: Vec<&str> = files.into_iter().filter(|file| to.join(file).exists()).collect();
        assert_eq!(shared, [".fingerprint/serde-1/lib-serde", "build/sqlite-2/out/sqlite.a", "deps/libserde-1.rlib"]);
        for file in shared {
            let time = |folder: &Path| fs::metadata(folder.join(file)).unwrap().modified().unwrap();
            assert_eq!(time(&from), time(&to), "{file}");
        }
    }
}
