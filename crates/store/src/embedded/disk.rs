//! The disk as an argument, so that tests can let it fail, fill up or lose power.
//!
//! This module owns the few operations that the journal needs. It never interprets a byte.

use std::fs::{DirBuilder, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::error::StoreError;

/// A disk with directories and files.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents, as far as they do not exist.
    ///
    /// # Errors
    /// The error of the operating system.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns the names of the files in a directory, in no order.
    ///
    /// # Errors
    /// The error of the operating system.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Opens an existing file, to read and to write.
    ///
    /// # Errors
    /// The error of the operating system.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, or opens an existing one and empties it.
    ///
    /// # Errors
    /// The error of the operating system.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// The error of the operating system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file within its directory, replacing a file that has the new name.
    ///
    /// # Errors
    /// The error of the operating system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Returns true if `path` is the name of the open file, so that a process that opens `path` gets that file.
    ///
    /// # Errors
    /// The error of the operating system.
    fn is_named(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        let _ = (path, file);
        Ok(true)
    }

    /// Makes the names of the files in a directory durable.
    ///
    /// # Errors
    /// The error of the operating system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Returns its size in bytes.
    ///
    /// # Errors
    /// The error of the operating system.
    fn size(&self) -> io::Result<u64>;

    /// Returns the identity of the file, which does not depend on its names; `None` if it has none.
    ///
    /// # Errors
    /// The error of the operating system.
    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }

    /// Appends `len` bytes from `offset` to `out`; fewer only if the file ends before.
    ///
    /// # Errors
    /// The error of the operating system.
    fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()>;

    /// Does the same as [`read_at`](Self::read_at) if all bytes are available without waiting for the disk. Returns
    /// false if they are not, or if that is unknown; then `out` is unchanged.
    ///
    /// # Errors
    /// The error of the operating system.
    fn read_now(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<bool>;

    /// Announces that these bytes will be read soon, so that many reads run at once. It is a hint.
    fn will_need(&self, offset: u64, len: usize);

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The error of the operating system. Any number of the first bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `size` bytes.
    ///
    /// # Errors
    /// The error of the operating system.
    fn set_len(&self, size: u64) -> io::Result<()>;

    /// Makes everything that was written so far durable, and the file's size.
    ///
    /// # Errors
    /// The error of the operating system. What is durable is then unknown, and a retry does not show it, since the
    /// system may have dropped what it could not write.
    fn sync_data(&self) -> io::Result<()>;
}

/// The disk of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        private_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(open_file(OpenOptions::new().read(true).write(true), path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Arc::new(reserve::or_use(path, || open_file(&options, path))?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn is_named(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(named) => Ok(file.identity()?.is_none_or(|identity| identity == (named.dev(), named.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        reserve::or_use(path, || File::open(path))?.sync_all()
    }
}

/// The disk of the operating system, opened so that nothing on it can change.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookDisk;

fn only_looked_at<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it was opened only to look at it"))
}

impl Disk for LookDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() { Ok(()) } else { only_looked_at() }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        FileDisk.list(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(open_file(OpenOptions::new().read(true), path)?))
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        only_looked_at()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        only_looked_at()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        only_looked_at()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        only_looked_at()
    }
}

/// The mode of stored files: only the user that runs the process may read and write them.
pub(crate) const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Makes a directory for the user that runs the process, and its parents, as far as they do not exist.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// Opens a regular file and nothing else: a pipe would block without end, and the bytes of a device are not what was
/// written.
pub(crate) fn open_file(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let other = |found: FileType| io::Error::new(io::ErrorKind::InvalidData, NotAFile(kind_of(found)));
    match options.clone().custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path) {
        Ok(file) => {
            let found = file.metadata()?.file_type();
            if found.is_file() { Ok(file) } else { Err(other(found)) }
        }
        // Some kinds cannot be opened in this way at all.
        Err(error) => match std::fs::metadata(path).map(|found| found.file_type()) {
            Ok(found) if !found.is_file() => Err(other(found)),
            _ => Err(error),
        },
    }
}

/// Something else is in the place of a file.
#[derive(Debug, thiserror::Error)]
#[error("{0} is there in place of the file")]
struct NotAFile(&'static str);

/// Returns true if an error says that something else is in the place of a file.
pub(crate) fn is_not_a_file(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotAFile>())
}

/// Returns the error that something else is in the place of the file `path`, if `error` says so.
pub(super) fn not_a_file(path: &Path, error: &io::Error) -> Option<StoreError> {
    let found = error.get_ref().filter(|inner| inner.is::<NotAFile>())?;
    Some(StoreError::corrupt(path.display(), format!("{found}: put the file back, from a backup if necessary")))
}

/// Returns the kind of `path` if it is not a regular file. The file is not opened for this: closing it would release
/// SQLite's locks on it.
pub(crate) fn other_than_a_file(path: &Path) -> io::Result<Option<&'static str>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(Some(found?.file_type()).filter(|found| !found.is_file()).map(kind_of)),
    }
}

fn kind_of(found: FileType) -> &'static str {
    match found {
        found if found.is_dir() => "a directory",
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Spare open files, of which one is closed when the process may open no more files. So the next chunk of a journal
/// does not fail because a thousand callers are connected.
mod reserve {
    use std::fs::File;
    use std::io;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use crate::files::no_more_files;

    const FILES: usize = 8;
    static KEPT: Mutex<Vec<File>> = Mutex::new(Vec::new());

    /// Opens a file. If no more files can be opened, it closes a spare one and retries.
    pub fn or_use(path: &Path, open: impl Fn() -> io::Result<File>) -> io::Result<File> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match open().map_err(|error| (no_more_files(&error), error)) {
                Err((Some(advice), error)) => {
                    tracing::warn!(file = %path.display(), left = kept.len(), %error, advice, "no more files can be \
                        opened; one that was kept for the journal is used");
                    // Another thread may take the freed file first. Then the next spare file is closed.
                    if kept.pop().is_none() {
                        return Err(error);
                    }
                }
                Err((None, error)) => return Err(error),
                Ok(file) => {
                    while kept.len() < FILES
                        && let Ok(spare) = File::open("/dev/null")
                    {
                        kept.push(spare);
                    }
                    return Ok(file);
                }
            }
        }
    }
}

impl DiskFile for File {
    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        let metadata = self.metadata()?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let start = out.len();
        let end = start + len;
        out.reserve_exact(len);
        let mut filled = start;
        // The bytes are read into the spare capacity, because zeroing a block first takes a third of the time of
        // reading it. The read fills the whole capacity, so a buffer that is much larger than the read is zeroed
        // nevertheless.
        let fits = out.capacity() - end <= len / 4;
        if !fits {
            out.resize(end, 0);
        }
        while filled < end {
            let at = offset + (filled - start) as u64;
            let read = if fits {
                rustix::io::pread(self, rustix::buffer::spare_capacity(out), at)
            } else {
                rustix::io::pread(self, &mut out[filled..], at)
            };
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        out.truncate(end.min(filled));
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn read_now(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        use rustix::io::{Errno, ReadWriteFlags};
        let start = out.len();
        out.resize(start + len, 0);
        let into = &mut [io::IoSliceMut::new(&mut out[start..])];
        match rustix::io::preadv2(self, into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == len => Ok(true),
            // Some or all of it is not in memory, or the file system cannot tell.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS) => {
                out.truncate(start);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_now(&self, _: u64, _: usize, _: &mut Vec<u8>) -> io::Result<bool> {
        Ok(false)
    }

    #[cfg(not(target_os = "linux"))]
    fn will_need(&self, _: u64, _: usize) {}

    #[cfg(target_os = "linux")]
    fn will_need(&self, offset: u64, len: usize) {
        // A refused hint affects only speed, and the read that follows reports the error.
        let hint =
            rustix::fs::fadvise(self, offset, std::num::NonZeroU64::new(len as u64), rustix::fs::Advice::WillNeed);
        if let Err(error) = hint {
            tracing::debug!(%error, "the disk accepts no hints");
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        File::set_len(self, size)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}
