//! Notes beside the file of a view (`….db-moved`) about the pages that were moved from its WAL into the file.
//!
//! From time to time SQLite moves pages from the WAL into the file. Until the last page is moved, the file has pages of
//! two states. Only together with the WAL, which has all new pages, do they make one state. Suppose that a process is
//! killed during that time, and the WAL is damaged or removed before the next start. Then SQLite uses the sound part of
//! the WAL, and every page that it reads is sound, but the state is wrong. So a durable note says first what the WAL
//! must have. The note is checked before SQLite opens the file.
//!
//! ```text
//!  WAL begun ─▶ noted: whole, no frame ─▶ frames written ─▶ WAL flushed
//!       ─▶ noted: not whole ─▶ pages moved ─▶ file stamped and flushed ─▶ noted: whole ─▶ the WAL may be begun again or removed
//! ```
//!
//! A WAL also belongs to one state of one file. Suppose that somebody replaces the file or the WAL with another view's,
//! or with an older one. Every page is sound, but together they are nothing that was ever committed. So the file has a
//! stamp in its header, which changes whenever all pages of a WAL were moved into it, and the note has the stamp, too.
//!
//! | the WAL that is found | noted: not whole | noted: whole |
//! |---|---|---|
//! | the noted one, sound as far as noted | right if the file has the noted stamp | right if the file has the noted stamp |
//! | the noted one, not sound as far | damaged | damaged: its older pages would hide those of the file |
//! | another one with a sound frame | damaged | damaged: it is not of this file |
//! | none, no sound header, or another one without a sound frame | damaged | right: the file is of one state, and nothing hides it |
//!
//! If nothing is noted, nothing was moved yet, or an earlier build moved it. Earlier builds noted no stamp. Then stamps
//! are not compared, and another WAL is right if the noted one is whole.
//!
//! ```text
//!   0  8 bytes "dacapomv"    8  u32 version    12  u32 1 where the file has all of it, else 0
//!  16  8 bytes, the salts that the WAL has in its header
//!  24  u32 frames of the WAL that were moved or may have been
//!  28  u32 the stamp that the file has; if it has not all of it, the stamp before; 0 if an earlier build noted it
//!  32  u64 XXH3 of all before
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::embedded::disk::{FILE_MODE, is_not_a_file, open_file};
use crate::error::StoreError;
use crate::files::with_advice;
use crate::record::{u32_at, u64_at};
use crate::sqlite::Place;
use crate::sqlite::fault::corrupt;
use crate::sqlite::pages::{self, FRAME_BYTES, HEADER_BYTES, Round, SALT_BYTES, WAL_HEADER_BYTES};

/// A suffix of the name of a view's file.
pub(crate) const NOTE: &str = "-moved";
/// The same while it is being written.
pub(crate) const NEW_NOTE: &str = "-moved.new";

const MAGIC: &[u8; 8] = b"dacapomv";
const VERSION: u32 = 1;
const WHOLE: u32 = 1;
const CHECKSUM_AT: usize = 32;
const BYTES: usize = 40;

/// The pages that were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// Identifies the WAL.
    pub(super) salts: [u8; SALT_BYTES],
    /// The frame, counted from 1, through which pages were moved or may have been.
    pub(super) frames: u32,
    /// True if all of them are in the file durably.
    pub(super) whole: bool,
    /// The stamp in the header of the file before they were moved; if all of them are there, the one after. 0 if it is
    /// unknown.
    pub(super) stamp: u32,
}

/// The notes on a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Nothing,
    /// The note is not what was written.
    Unsound,
    Moved(Moved),
}

impl Moved {
    /// Returns the state once all of them are in the file.
    pub(super) fn all(&self) -> Self {
        let of = [&self.salts[..], &self.frames.to_le_bytes()].concat();
        // The highest bit sets it apart from the small numbers that SQLite itself writes there, and from 0.
        Self { whole: true, stamp: xxh3_64(&of) as u32 | 1 << 31, ..*self }
    }

    /// Returns true if the file may have this stamp.
    fn is_stamp(&self, found: u32) -> bool {
        self.stamp == 0 || found == self.stamp || !self.whole && found == self.all().stamp
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(if self.whole { WHOLE } else { 0 }.to_le_bytes());
        out.extend(self.salts);
        out.extend(self.frames.to_le_bytes());
        out.extend(self.stamp.to_le_bytes());
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let checked = bytes.len() == BYTES
            && bytes.starts_with(MAGIC)
            && u32_at(bytes, 8) == Some(VERSION)
            && u64_at(bytes, CHECKSUM_AT) == Some(xxh3_64(bytes.get(..CHECKSUM_AT)?));
        let moved = Self {
            salts: *bytes.get(16..)?.first_chunk()?,
            frames: u32_at(bytes, 24)?,
            whole: u32_at(bytes, 12)? == WHOLE,
            stamp: u32_at(bytes, 28)?,
        };
        checked.then_some(moved)
    }
}

/// Returns the name of a file beside that of a view.
pub(crate) fn beside(view: &Path, suffix: &str) -> PathBuf {
    let mut name = view.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns the notes beside the file of a view.
pub(super) fn read(view: &Path) -> io::Result<Noted> {
    let file = match open_file(OpenOptions::new().read(true), &beside(view, NOTE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Noted::Nothing),
        Err(error) if is_not_a_file(&error) => return Ok(Noted::Unsound),
        file => file?,
    };
    // One more byte shows whether the file is longer.
    let mut bytes = Vec::with_capacity(BYTES + 1);
    file.take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Moved::decode(&bytes).map_or(Noted::Unsound, Noted::Moved))
}

/// Replaces the note. Once this returns without an error, the note survives a loss of power.
pub(super) fn note(view: &Path, moved: &Moved) -> io::Result<()> {
    let new = beside(view, NEW_NOTE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let mut file = open_file(&options, &new)?;
    file.write_all(&moved.encode())?;
    file.sync_all()?;
    std::fs::rename(&new, beside(view, NOTE))?;
    sync_folder(view)
}

/// Removes the note, durably.
pub(super) fn forget(view: &Path) -> io::Result<()> {
    match std::fs::remove_file(beside(view, NOTE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => sync_folder(view),
    }
}

fn sync_folder(view: &Path) -> io::Result<()> {
    let folder = view.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Checks that the WAL beside a view has what it must have, before SQLite opens the view. It changes nothing.
///
/// # Errors
/// [`StoreError::Corrupt`] if it has not, [`StoreError::Unavailable`] if that cannot be found out.
pub(crate) fn look(view: &Path, place: &Place) -> Result<(), StoreError> {
    let failed = |error: io::Error| {
        StoreError::unavailable(format!("look at the WAL beside {}", view.display()), with_advice(&error))
    };
    match lost(view, place).map_err(failed)? {
        None => Ok(()),
        Some(lost) => Err(corrupt(&view.display().to_string(), &lost)),
    }
}

/// Returns the part that the WAL beside a view should have but does not.
fn lost(view: &Path, place: &Place) -> io::Result<Option<String>> {
    loop {
        let noted = read(view)?;
        if noted == Noted::Nothing {
            return Ok(None);
        }
        let wal = Wal::open(view)?;
        let Some(lost) = lost_of(view, place, noted, wal.as_ref())? else { return Ok(None) };
        // Another user of the view in this process may have moved more pages meanwhile, or begun the WAL again.
        let salts = |wal: Option<&Wal>| wal.and_then(|wal| wal.round.as_ref()).map(|round| round.salts);
        if read(view)? == noted && salts(Wal::open(view)?.as_ref()) == salts(wal.as_ref()) {
            return Ok(Some(lost));
        }
    }
}

fn lost_of(view: &Path, place: &Place, noted: Noted, wal: Option<&Wal>) -> io::Result<Option<String>> {
    let moved = match noted {
        Noted::Nothing => return Ok(None),
        Noted::Unsound => {
            let note = beside(view, NOTE);
            return Ok(Some(format!(
                "{} is not what was written there, so how far pages were moved from the WAL into the file is unknown",
                note.display()
            )));
        }
        Noted::Moved(moved) => moved,
    };
    let name = beside(view, "-wal");
    let name = name.display();
    let found = match wal {
        None => "it is not there".to_owned(),
        Some(Wal { round: None, .. }) => "its header is not sound".to_owned(),
        Some(wal @ Wal { round: Some(round), .. }) if round.salts != moved.salts => {
            if moved.stamp != 0 && wal.sound_frames(1)? == 1 {
                return Ok(Some(format!("{name} is not its WAL, but another one")));
            }
            "another one is there".to_owned()
        }
        Some(wal) => match wal.sound_frames(moved.frames)? {
            sound if sound == moved.frames => {
                let hides = wal.sound_frames(1)? == 1 && !moved.is_stamp(stamp_of(&*place.file(view)?)?);
                let other =
                    format!("it is not the file to which {name} belongs, but another one, or an older copy of it");
                return Ok(hides.then_some(other));
            }
            sound => {
                let at = WAL_HEADER_BYTES + u64::from(sound) * FRAME_BYTES;
                return Ok(Some(format!(
                    "{name} is not what was written there, from byte {at} on, and it has pages that belong together with \
                     those in the file"
                )));
            }
        },
    };
    Ok((!moved.whole).then(|| format!("only a part of the pages in {name} had been moved into the file, and {found}")))
}

/// Returns the stamp in the header of the file of a view; 0 if it has no header.
fn stamp_of(file: &File) -> io::Result<u32> {
    let mut header = [0; HEADER_BYTES];
    Ok(if is_read(file.read_exact_at(&mut header, 0))? { pages::stamp_of(&header) } else { 0 })
}

/// The WAL that was found beside a view.
struct Wal {
    file: File,
    /// The contents of its header, if that is sound.
    round: Option<Round>,
}

impl Wal {
    fn open(view: &Path) -> io::Result<Option<Self>> {
        let file = match open_file(OpenOptions::new().read(true), &beside(view, "-wal")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut header = [0; WAL_HEADER_BYTES as usize];
        let round = is_read(file.read_exact_at(&mut header, 0))?.then(|| Round::of(&header)).flatten();
        Ok(Some(Self { file, round }))
    }

    /// Returns how many of the first `most` frames are what was written.
    fn sound_frames(&self, most: u32) -> io::Result<u32> {
        let Some(round) = &self.round else { return Ok(0) };
        let mut sum = round.sum;
        let mut frame = [0; FRAME_BYTES as usize];
        for sound in 0..most {
            let at = WAL_HEADER_BYTES + u64::from(sound) * FRAME_BYTES;
            if !is_read(self.file.read_exact_at(&mut frame, at))? {
                return Ok(sound);
            }
            match round.sum_of(sum, &frame) {
                Some(next) => sum = next,
                None => return Ok(sound),
            }
        }
        Ok(most)
    }
}

/// Returns true if all the requested bytes were there.
fn is_read(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_every_flipped_bit_in_it_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let view = dir.path().join("v1.1.db");
        assert_eq!(read(&view).unwrap(), Noted::Nothing);
        for whole in [false, true] {
            let moved = Moved { salts: *b"saltsalt", frames: 7, whole, stamp: 5 };
            note(&view, &moved).unwrap();
            assert_eq!(read(&view).unwrap(), Noted::Moved(moved));
        }
        let place = Place::new(view.display().to_string());
        let path = beside(&view, NOTE);
        let written = std::fs::read(&path).unwrap();
        for bit in 0..written.len() * 8 {
            let mut bytes = written.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&view).unwrap(), Noted::Unsound, "bit {bit}");
            assert!(matches!(look(&view, &place), Err(StoreError::Corrupt { .. })), "bit {bit}");
        }
        for length in [0, BYTES - 1, BYTES + 1] {
            let mut bytes = written.clone();
            bytes.resize(length, 0);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&view).unwrap(), Noted::Unsound, "{length} bytes");
        }
    }
}
