//! Checks that a program on another store compiles no SQLite: with the default features off, nothing brings it in, and
//! the crates compile without it.

use std::process::Command;

use crate::{Done, cargo, root};

/// The crates that a program on another store uses.
const CRATES: &[&str] = &["dacapo-store", "dacapo", "dacapo-server", "dacapo-postgres"];

/// The crates that are compiled for SQLite.
const SQLITE: &[&str] = &["libsqlite3-sys", "rusqlite"];

pub(crate) fn check() -> Done {
    for name in CRATES {
        let brought = sqlite(&tree(name)?);
        if !brought.is_empty() {
            return Err(format!("{name} brings in {} without its default features", brought.join(" and ")));
        }
    }
    let packages = CRATES.iter().flat_map(|name| ["--package", name]);
    let check: Vec<&str> = ["check", "--locked", "--no-default-features"].into_iter().chain(packages).collect();
    cargo(&check, &[])
}

/// Returns the dependencies of a crate, one a line.
fn tree(name: &str) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["tree", "--locked", "--no-default-features", "--edges", "normal,build", "--prefix", "none"];
    let listed = Command::new(cargo).args(arguments).args(["--package", name]).current_dir(root()).output();
    let listed = listed.map_err(|error| format!("cargo tree: {error}"))?;
    match listed.status.success() {
        true => Ok(String::from_utf8_lossy(&listed.stdout).into_owned()),
        false => Err(format!("cargo tree of {name}: {}", String::from_utf8_lossy(&listed.stderr))),
    }
}

/// Returns the crates for SQLite that are in a tree.
fn sqlite(tree: &str) -> Vec<&'static str> {
    let is_there = |name: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**name));
    SQLITE.iter().filter(is_there).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_is_found_in_a_tree_by_its_whole_name() {
        let tree = "dacapo v0.1.0 (/x)\nlibsqlite3-sys v0.37.0\nserde v1.0.0\n";
        assert_eq!(sqlite(tree), ["libsqlite3-sys"]);
        assert!(sqlite("dacapo v0.1.0\nrusqlite-like v1.0.0\nserde v1.0.0 (rusqlite)\n").is_empty());
    }

    #[test]
    fn a_crate_with_its_default_features_brings_sqlite_in() {
        let tree = tree("dacapo-cli").unwrap();
        assert_eq!(sqlite(&tree), ["libsqlite3-sys", "rusqlite"]);
    }
}
