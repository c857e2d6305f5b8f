//! Recovery of the write side after a failure of the disk.

use super::{Failed, Settled, State, Writer, refused};
use crate::embedded::journal::chunk::{self, Header, Index};
use crate::embedded::journal::log::disk_error;
use crate::error::StoreError;
use crate::record;

/// The most bytes that may share a block with bytes of a failed flush. No file system has larger blocks.
const REWRITTEN_BYTES: u64 = 64 << 10;

impl Writer {
    /// Recovers from a failed flush: cuts off what it should have made durable, writes the end of the durable part
    /// again, since it shares blocks with that, and flushes again. Until this succeeds, nothing is appended.
    pub(super) fn write_end_again(&mut self) -> Result<(), Failed> {
        let State::Broken(found) = &self.state else { return Ok(()) };
        let (path, found) = (self.log.log_path(self.chunk.first), found.clone());
        let from = match &*self.chunk.index() {
            Index::Memory(index) => index.record_at_or_before(self.end.saturating_sub(REWRITTEN_BYTES)),
            Index::File(_) => unreachable!("the chunk that is written to has its index in memory"),
        };
        let again = || -> std::io::Result<()> {
            let mut bytes = Vec::new();
            self.file.read_at(from, (self.end - from) as usize, &mut bytes)?;
            self.check_end(from, &bytes).map_err(std::io::Error::other)?;
            self.file.set_len(self.end)?;
            self.file.write_at(from, &bytes)?;
            self.file.sync_data()
        };
        match again() {
            Ok(()) => {
                self.state = State::Good;
                Ok(())
            }
            Err(error) => Err(Box::new(move || {
                StoreError::unavailable(
                    format!("append to {}", path.display()),
                    format!(
                        "an earlier flush failed ({found}), and the end of the journal cannot be written again ({error}): \
                         look after the disk; it is tried again by itself, no restart is needed"
                    ),
                )
            })),
        }
    }

    /// Checks that the durable part, of which `bytes` begin at byte `from`, is what was written. Bytes that were
    /// durable before the failed flush are durable after it, so any difference is damage.
    fn check_end(&self, from: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let damaged = |at: usize, found: &str| self.log.corrupt(self.chunk.first, from + at as u64, found);
        if (bytes.len() as u64) < self.end - from {
            return Err(damaged(bytes.len(), "the file ends here, but events were durable after it"));
        }
        let mut at = 0;
        if from == 0 {
            Header::decode(bytes, self.chunk.first).map_err(|found| damaged(0, &found))?;
            at = chunk::HEADER_BYTES as usize;
        }
        while at < bytes.len() {
            at += record::verify(&bytes[at..]).map_err(|found| damaged(at, found))?.1;
        }
        Ok(())
    }

    /// Permanently cuts off the remains of a failed write. Mixed with the next write they could look like an append
    /// after a crash.
    pub(super) fn cut(&mut self) -> Result<(), Failed> {
        let path = self.log.log_path(self.chunk.first);
        if let Err(error) = self.file.set_len(self.end) {
            return Err(Box::new(move || disk_error("cut back", &path, &error)));
        }
        if let Err(error) = self.file.sync_data() {
            self.state = State::Broken(error.to_string());
            return Err(Box::new(move || disk_error("flush", &path, &error)));
        }
        self.state = State::Good;
        Ok(())
    }

    /// Notes that this many bytes after the end are durable, which could not be noted before, and makes them visible.
    /// They were flushed, so a process that opens the journal finds them, and a retry recognises them. Cutting them off
    /// instead could leave a note that claims more than there is.
    pub(super) fn note_again(&mut self, bytes: u64) -> Result<(), Failed> {
        self.check_named()?;
        self.check_size(self.end + bytes)?;
        if let Settled::Yes(kept) = &self.settled {
            kept.keep(&self.at_behind(bytes)).map_err(refused)?;
        }
        self.state = State::Good;
        self.show(bytes);
        Ok(())
    }

    /// Checks that commits can be noted, and that earlier notes last.
    pub(super) fn check_noted(&self) -> Result<(), Failed> {
        match &self.settled {
            Settled::Yes(kept) if kept.broken().is_some() => kept.keep(&self.at()).map_err(refused),
            _ => Ok(()),
        }
    }
}
