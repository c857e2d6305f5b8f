//! Files that a test makes unreadable for a while.

use std::path::Path;

#[cfg(feature = "contract")]
static FOLDERS: std::sync::Mutex<Vec<std::path::PathBuf>> = std::sync::Mutex::new(Vec::new());

#[cfg(feature = "contract")]
pub(crate) fn set(folder: &Path, fails: bool) {
    let mut folders = crate::sqlite::view::locked(&FOLDERS);
    folders.retain(|other| other != folder);
    folders.extend(fails.then(|| folder.to_owned()));
}

/// Returns true if the file cannot be read.
#[cfg(feature = "contract")]
pub(crate) fn to_read(file: &Path) -> bool {
    crate::sqlite::view::locked(&FOLDERS).iter().any(|folder| file.starts_with(folder))
}

#[cfg(not(feature = "contract"))]
pub(crate) fn to_read(_: &Path) -> bool {
    false
}
