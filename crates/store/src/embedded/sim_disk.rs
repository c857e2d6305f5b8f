//! A disk that fails on demand: it fills up, refuses a write midway, fails a flush, loses power.
//!
//! ```text
//!   write_at, set_len ─▶ what reads see ── sync_data ─▶ what is durable      (sectors of 512 bytes)
//!   create, rename, remove ─▶ names now ── sync_dir ─▶ names that are durable
//! ```
//!
//! When the power fails, any subset of the sectors written since the last flush is on the disk, the size is any between
//! the durable one and the last, and the first few changes of names have happened. A failed flush forgets which sectors
//! were to be written, as operating systems do, and may show the earlier contents.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};
use crate::contract::Chance;

const SECTOR_BYTES: usize = 512;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Since the last flush of names, in order.
    renamed: Vec<NameChange>,
    /// Grows when the power fails. Files that were opened before it cannot be used any more.
    lives: u32,
    room_bytes: Option<u64>,
    power_for: Option<u64>,
    fail_write_after: Option<usize>,
    fail_sync: bool,
    /// The number of checks after which names are no longer those of the open files; `None` means never.
    named_for: Option<u64>,
    fail_reads: bool,
    /// The file that refuses, the kind of acts it refuses, and which of the next ones.
    refuses: Option<(usize, Refuses, i64)>,
    /// Chooses the sectors that the operating system writes before a flush.
    write_back: Option<Chance>,
}

/// The acts that a file refuses for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    /// Every write, after this many of its bytes are written.
    WritesAfter(usize),
    /// Every flush.
    Flushes,
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
    Move(PathBuf, PathBuf),
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that the next flush writes.
    dirty: BTreeSet<usize>,
}

struct SimFile {
    world: Arc<Mutex<World>>,
    content: usize,
    life: u32,
}

impl SimDisk {
    /// Lets only this many more bytes be added to files from now on; `None` is no limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.world().room_bytes = bytes;
    }

    /// Lets the next write fail after this many of its bytes.
    pub fn fail_next_write_after(&self, bytes: usize) {
        self.world().fail_write_after = Some(bytes);
    }

    /// Lets reads fail from now on, or succeed again.
    pub fn fail_reads(&self, fail: bool) {
        self.world().fail_reads = fail;
    }

    /// Lets the next flush of a file fail.
    pub fn fail_next_sync(&self) {
        self.world().fail_sync = true;
    }

    /// Lets the file at `path` refuse something from now on. The lowest bit of `which` says whether it refuses the next
    /// act of that kind, the second bit the one after, and so on. The highest bit holds for every later act. So 1 is
    /// once, and -1 is for ever.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn refuse(&self, path: &Path, refuses: Refuses, which: i64) {
        let mut world = self.world();
        world.refuses = Some((world.names[path], refuses, which));
    }

    /// Lets no file refuse anything from now on.
    pub fn refuse_nothing(&self) {
        self.world().refuses = None;
    }

    /// Lets this many more checks find that a name is that of an open file. After them none does, as after somebody
    /// moved the directory; `None` is for ever.
    pub fn named_for(&self, times: Option<u64>) {
        self.world().named_for = times;
    }

    /// Lets any part of the written bytes reach the disk before it is flushed, as `chance` decides.
    pub fn write_back(&self, chance: Chance) {
        self.world().write_back = Some(chance);
    }

    /// Lets the power fail at the change that follows this many more; `None` is never.
    pub fn power_for(&self, changes: Option<u64>) {
        self.world().power_for = changes;
    }

    /// Lets the power fail, if it has not yet, and return. `chance` decides what is left.
    pub fn power_cycle(&self, chance: &mut Chance) {
        let mut world = self.world();
        let world = &mut *world;
        let happened = chance.below(world.renamed.len() as u64 + 1) as usize;
        let changes = std::mem::take(&mut world.renamed);
        changes.into_iter().take(happened).for_each(|change| change.apply(&mut world.durable_names));
        world.names = world.durable_names.clone();
        for content in &mut world.contents {
            content.survive(chance);
        }
        world.lives += 1;
        (world.power_for, world.fail_write_after, world.fail_sync) = (None, None, false);
    }

    /// Changes the bytes of a file without any notice.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let content = world.names[path];
        let content = &mut world.contents[content];
        change(&mut content.now);
        content.durable.clone_from(&content.now);
        content.dirty.clear();
    }

    /// Returns the names of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn file(&self, content: usize, life: u32) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { world: Arc::clone(&self.world), content, life })
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_power() -> io::Error {
    io::Error::other("the power is gone")
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Set(path, content) => drop(names.insert(path, content)),
            Self::Remove(path) => drop(names.remove(&path)),
            Self::Move(from, to) => {
                if let Some(content) = names.remove(&from) {
                    names.insert(to, content);
                }
            }
        }
    }
}

impl World {
    /// Counts a change. Returns false if the power fails at it.
    fn change(&mut self) -> io::Result<bool> {
        match &mut self.power_for {
            None => Ok(true),
            Some(0) => Err(no_power()),
            Some(left) => {
                *left -= 1;
                Ok(*left > 0)
            }
        }
    }

    /// Returns what a file refuses of the requested act.
    fn refuses<T>(&mut self, file: usize, asked: impl Fn(Refuses) -> Option<T>) -> Option<T> {
        let (refusing, refuses, which) = self.refuses.as_mut()?;
        let found = asked(*refuses).filter(|_| *refusing == file)?;
        let is_refused = *which & 1 == 1;
        *which >>= 1;
        is_refused.then_some(found)
    }

    fn rename(&mut self, change: NameChange) -> io::Result<()> {
        if !self.change()? {
            return Err(no_power());
        }
        self.renamed.push(change.clone());
        change.apply(&mut self.names);
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        if self.power_for == Some(0) {
            return Err(no_power());
        }
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty.extend((offset..end).step_by(SECTOR_BYTES).chain(end.checked_sub(1)).map(|at| at / SECTOR_BYTES));
    }

    /// Writes one sector in its present state to the disk, as far as the durable size reaches.
    fn settle(&mut self, sector: usize) {
        let from = (sector * SECTOR_BYTES).min(self.now.len()).min(self.durable.len());
        let through = ((sector + 1) * SECTOR_BYTES).min(self.now.len()).min(self.durable.len());
        self.durable[from..through].copy_from_slice(&self.now[from..through]);
    }

    /// Writes some sectors to the disk before a flush. They may be written again, so they stay dirty.
    fn write_back(&mut self, chance: &mut Chance) {
        for sector in self.dirty.clone() {
            if chance.below(2) == 0 {
                let end = ((sector + 1) * SECTOR_BYTES).min(self.now.len());
                self.durable.resize(self.durable.len().max(end), 0);
                self.settle(sector);
            }
        }
    }

    /// Forgets what was to be flushed. A sector that is read from the disk again is as before, or empty.
    fn lose(&mut self, chance: Option<&mut Chance>) {
        let lost = std::mem::take(&mut self.dirty);
        let Some(chance) = chance else { return };
        for sector in lost.into_iter().filter(|_| chance.below(2) == 0) {
            let end = ((sector + 1) * SECTOR_BYTES).min(self.now.len());
            for at in sector * SECTOR_BYTES..end {
                self.now[at] = self.durable.get(at).copied().unwrap_or(0);
            }
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.settle(sector);
        }
    }

    fn survive(&mut self, chance: &mut Chance) {
        let (low, high) = (self.now.len().min(self.durable.len()), self.now.len().max(self.durable.len()));
        let size = match chance.below(4) {
            0 => self.durable.len(),
            1 => self.now.len(),
            _ => (low + chance.below((high - low) as u64 + 1) as usize).next_multiple_of(SECTOR_BYTES).min(high),
        };
        self.durable.resize(size, 0);
        let likely = chance.below(5);
        for sector in std::mem::take(&mut self.dirty) {
            if chance.below(4) < likely {
                self.settle(sector);
            }
        }
        self.now.clone_from(&self.durable);
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world();
        Ok(self.file(world.find(path)?, world.lives))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let there = world.names.get(path).copied();
        let content = match there {
            Some(content) if world.change()? => content,
            Some(_) => return Err(no_power()),
            None => {
                world.contents.push(Content::default());
                let content = world.contents.len() - 1;
                world.rename(NameChange::Set(path.to_owned(), content))?;
                content
            }
        };
        world.contents[content].now.clear();
        Ok(self.file(content, world.lives))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.find(path)?;
        world.rename(NameChange::Remove(path.to_owned()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.find(from)?;
        world.rename(NameChange::Move(from.to_owned(), to.to_owned()))
    }

    fn is_named(&self, _: &Path, _: &dyn DiskFile) -> io::Result<bool> {
        let mut world = self.world();
        let left = world.named_for.map(|times| times.checked_sub(1));
        world.named_for = left.map(Option::unwrap_or_default);
        Ok(left != Some(None))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.change()? {
            return Err(no_power());
        }
        let world = &mut *world;
        // All names are in one directory, whose parent has nothing to lose.
        if world.names.keys().any(|name| name.parent() == Some(path)) {
            world.durable_names.clone_from(&world.names);
            world.renamed.clear();
        }
        Ok(())
    }
}

impl SimFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = lock(&self.world);
        if world.lives != self.life || world.power_for == Some(0) { Err(no_power()) } else { Ok(world) }
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.world()?.contents[self.content].now.len() as u64)
    }

    fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let world = self.world()?;
        if world.fail_reads {
            return Err(io::Error::other("the disk cannot read it"));
        }
        let now = &world.contents[self.content].now;
        let from = (offset as usize).min(now.len());
        out.extend_from_slice(&now[from..(from + len).min(now.len())]);
        Ok(())
    }

    fn read_now(&self, _: u64, _: usize, _: &mut Vec<u8>) -> io::Result<bool> {
        Ok(false)
    }

    fn will_need(&self, _: u64, _: usize) {}

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world()?;
        let offset = offset as usize;
        let powered = world.change()?;
        let grows = (offset + bytes.len()).saturating_sub(world.contents[self.content].now.len()) as u64;
        let (mut len, mut failed) = (bytes.len(), None);
        let refused = world.refuses(self.content, |refuses| match refuses {
            Refuses::WritesAfter(bytes) => Some(bytes),
            Refuses::Flushes => None,
        });
        if let Some(after) = world.fail_write_after.take().or(refused) {
            (len, failed) = (len.min(after), Some(io::Error::other("the disk does not answer")));
        }
        match &mut world.room_bytes {
            Some(room) if *room < grows => {
                len = len.min(*room as usize);
                failed = Some(io::ErrorKind::StorageFull.into());
                *room = 0;
            }
            Some(room) => *room -= grows,
            None => {}
        }
        if !powered {
            failed = Some(no_power());
        }
        let world = &mut *world;
        let content = &mut world.contents[self.content];
        content.write(offset, &bytes[..len]);
        if let Some(chance) = &mut world.write_back {
            content.write_back(chance);
        }
        failed.map_or(Ok(()), Err)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut world = self.world()?;
        if !world.change()? {
            return Err(no_power());
        }
        world.contents[self.content].now.resize(size as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.world()?;
        if !world.change()? {
            return Err(no_power());
        }
        let refused = world.refuses(self.content, |refuses| (refuses == Refuses::Flushes).then_some(())).is_some();
        if std::mem::take(&mut world.fail_sync) || refused {
            let world = &mut *world;
            world.contents[self.content].lose(world.write_back.as_mut());
            return Err(io::Error::other("the disk lost what it was to flush"));
        }
        world.contents[self.content].sync();
        Ok(())
    }
}
