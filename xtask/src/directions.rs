//! Checks that no crate under `crates/` depends on one under `examples/`: an example shows how the crates are used, so
//! whoever changes or copies it changes nothing that is delivered.

use std::path::Path;

use crate::docs::{files, read};

/// A manifest: its path from the root of the repository, and its text.
type Manifest = (String, String);

/// Returns the crates under `crates/` that depend on an example, of every kind of dependency.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut manifests = Vec::new();
    for path in files(root, "toml").iter().filter(|path| path.ends_with("Cargo.toml")) {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        manifests.push((name, read(path)?));
    }
    Ok(faults(&manifests))
}

fn faults(manifests: &[Manifest]) -> Vec<String> {
    let packages = manifests.iter().filter(|(path, _)| path.starts_with("examples/"));
    let packages = packages.flat_map(|(_, text)| entries(text)).filter(|entry| entry.table == "package");
    let packages: Vec<String> = packages.filter(|entry| entry.key == "name").map(|entry| entry.value).collect();
    let is_of_example =
        |text: &str| text.contains("examples/") || packages.iter().any(|name| text.contains(&format!("\"{name}\"")));

    // What the workspace calls an example, which may be another name than its own.
    let workspace = manifests.iter().filter(|(path, _)| path == "Cargo.toml").flat_map(|(_, text)| entries(text));
    let named = workspace.filter(|entry| is_dependency(&entry.table) && is_of_example(&entry.value));
    let named: Vec<String> = named.filter_map(|entry| entry.dependency()).collect();

    let mut faults = Vec::new();
    for (path, text) in manifests.iter().filter(|(path, _)| path.starts_with("crates/")) {
        for entry in entries(text).into_iter().filter(|entry| is_dependency(&entry.table)) {
            let Some(name) = entry.dependency() else { continue };
            if packages.contains(&name) || named.contains(&name) || is_of_example(&entry.value) {
                faults.push(format!(
                    "{path}:{}: `{name}` is an example, and nothing under crates/ may depend on one",
                    entry.line
                ));
            }
        }
    }
    faults
}

/// A key of a manifest with its table, as far as the names of dependencies need.
struct Entry {
    line: usize,
    table: String,
    key: String,
    value: String,
}

impl Entry {
    /// Returns the name of the dependency that the entry belongs to: its key, or the end of its table's name in
    /// `[dependencies.name]`.
    fn dependency(&self) -> Option<String> {
        let in_table = self.table.rsplit_once("dependencies.").map(|(_, name)| name);
        let name = in_table.unwrap_or(&self.key).split('.').next()?;
        (!name.is_empty()).then(|| name.to_owned())
    }
}

/// Returns every table and key of a manifest; the table's own line is an entry without a key.
fn entries(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut table = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let unquoted = |text: &str| text.trim().replace('"', "");
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = unquoted(name.trim_matches(['[', ']']));
            found.push(Entry { line: at + 1, table: table.clone(), key: String::new(), value: String::new() });
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, bare) = (unquoted(key), value.trim());
            // A text that stands for itself is compared without its quotes, any other value as it is written.
            let is_text = bare.len() > 1 && bare.starts_with('"') && table == "package";
            let value = if is_text { unquoted(bare) } else { bare.to_owned() };
            found.push(Entry { line: at + 1, table: table.clone(), key, value });
        }
    }
    found
}

fn is_dependency(table: &str) -> bool {
    table.ends_with("dependencies") || table.contains("dependencies.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(workspace: &str, manifest: &str) -> Vec<String> {
        let of = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        faults(&[
            of("Cargo.toml", workspace),
            of(
                "examples/shop/Cargo.toml",
                "[package]\nname = \"example-shop\"\n[dependencies]\nhouse = { path = \"..\" }\n",
            ),
            of("crates/house/Cargo.toml", manifest),
            of("bench/Cargo.toml", "[dependencies]\nexample-shop = { workspace = true }\n"),
        ])
    }

    #[test]
    fn a_crate_that_depends_on_an_example_is_a_fault_of_every_kind() {
        let fault =
            "crates/house/Cargo.toml:3: `example-shop` is an example, and nothing under crates/ may depend on one";
        for table in ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let manifest = format!("[package]\n[{table}]\nexample-shop = {{ workspace = true }}\nserde = \"1\"\n");
            assert_eq!(found("", &manifest), [fault], "{table}");
        }
        assert_eq!(found("", "\n\n[dependencies.example-shop]\nworkspace = true\n")[0], fault);
        assert_eq!(found("", "[dependencies]\n\nexample-shop.workspace = true\n"), [fault]);
    }

    #[test]
    fn an_example_under_another_name_is_found() {
        let by_package = "[dependencies]\nshop = { package = \"example-shop\", version = \"1\" }\n";
        assert_eq!(found("", by_package).len(), 1);
        let by_path = "[dependencies.shop]\npath = \"../../examples/shop\"\n";
        assert_eq!(found("", by_path).len(), 1);
        let workspace = "[workspace.dependencies]\nshop = { path = \"examples/shop\", package = \"example-shop\" }\n";
        assert_eq!(found(workspace, "[dependencies]\nshop = { workspace = true }\n").len(), 1);
    }

    #[test]
    fn other_dependencies_and_an_example_that_uses_a_crate_pass() {
        let workspace = "[workspace.dependencies]\nexample-shop = { path = \"examples/shop\" }\n";
        let manifest = "[package]\nname = \"house\"\n[dependencies]\nserde = \"1\" # not example-shop\n[[example]]\nname = \"example-shop\"\n";
        assert!(found(workspace, manifest).is_empty());
    }
}
