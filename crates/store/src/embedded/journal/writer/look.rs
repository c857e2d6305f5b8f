//! The checks of the write side before it writes: known damage, and changes of its files by others.

use std::path::Path;

use super::{Failed, Settled, State, Writer, refused};
use crate::embedded::disk::DiskFile;
use crate::embedded::journal::log::disk_error;
use crate::error::StoreError;

impl Writer {
    /// Checks that nobody else has moved, replaced or changed the files that are written to.
    pub(super) fn check_files(&mut self) -> Result<(), Failed> {
        if let Err(replaced) = self.check_named() {
            self.replaced(&replaced);
            return Err(replaced);
        }
        self.check_size(self.end)
    }

    /// Checks that the chunk ends at byte `end`, the end of what this process wrote.
    pub(super) fn check_size(&mut self, end: u64) -> Result<(), Failed> {
        let path = self.log.log_path(self.chunk.first);
        let size = match self.file.size() {
            Ok(size) if size == end => return Ok(()),
            Ok(size) => size,
            Err(error) => return Err(Box::new(move || disk_error("look at", &path, &error))),
        };
        let found = format!(
            "the file had {end} bytes when this process wrote to it last, and has {size} now, so another program changed it: \
             stop this process, see which program did, and restore the file from a backup"
        );
        let changed = StoreError::corrupt(format!("{} at byte {}", path.display(), size.min(end)), found);
        tracing::error!(error = %changed, "the journal accepts no more events");
        self.state = State::Changed(changed.clone());
        Err(refused(changed))
    }

    /// Checks that no damage is known in the chunk that is written to. Events that are appended after damage would be
    /// lost with it.
    pub(super) fn check_damage(&self) -> Result<(), Failed> {
        match self.log.damage_written_to() {
            None => Ok(()),
            Some(damage) => Err(refused(damage)),
        }
    }

    /// Records that the files that are written to are gone, or are not those that the directory names.
    pub(super) fn replaced(&mut self, found: &Failed) {
        tracing::error!(error = %found(), "the journal accepts no more events while its files are gone");
        self.state = State::Replaced;
    }

    /// Checks that the files that are written to are those that a process finds when it opens the directory.
    pub(super) fn check_named(&self) -> Result<(), Failed> {
        let path = self.log.log_path(self.chunk.first);
        self.check_name(&path, &*self.file)?;
        match &self.settled {
            Settled::Yes(kept) => {
                let (path, file) = kept.named();
                self.check_name(path, file)
            }
            Settled::Not(_) => Ok(()),
        }
    }

    fn check_name(&self, path: &Path, file: &dyn DiskFile) -> Result<(), Failed> {
        let path = path.to_owned();
        match self.log.disk.is_named(&path, file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Box::new(move || {
                StoreError::unavailable(
                    format!("append to {}", path.display()),
                    "the file was removed or replaced while this process had it open, or its directory was, so what is \
                     written now would be lost: put it back, or stop this process, and see who changed the directory",
                )
            })),
            Err(error) => Err(Box::new(move || disk_error("look at", &path, &error))),
        }
    }
}
