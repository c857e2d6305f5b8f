//! Views in memory, with the same SQL as the embedded store's.
//!
//! SQLite in memory has no second connection that could see the committed state while the first one writes. So a reader
//! gets a copy of the whole view, and a transaction keeps a copy of the state before it. Readers and writers never wait
//! for each other. Each transaction costs a copy, which is cheap at the sizes of tests.
//!
//! All work happens on the caller's thread, always in the same order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dacapo_model::{SegmentCount, ViewId};
use rusqlite::MAIN_DB;

use crate::error::StoreError;
use crate::sqlite::view::{Desk, Home, SqliteView, locked};
use crate::sqlite::{Db, Place};
use crate::table::Table;
use crate::views::{View, ViewCopy, ViewHealth, Views};

/// Views that last as long as this value.
#[derive(Default)]
pub struct MemoryViews {
    views: Mutex<BTreeMap<ViewId, Arc<SqliteView<MemoryHome>>>>,
}

impl MemoryViews {
    /// Returns views of which none exists yet.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Views for MemoryViews {
    async fn open(&self, id: &ViewId, tables: &[Table], segments: SegmentCount) -> Result<Arc<dyn View>, StoreError> {
        let mut views = locked(&self.views);
        if let Some(view) = views.get(id) {
            view.home().settled(|db| db.make(id, tables, segments))?;
            return Ok(Arc::clone(view) as Arc<dyn View>);
        }
        let place = Place::new(format!("the view {id} in memory"));
        let mut db = Db::in_memory(&place)?;
        db.make(id, tables, segments)?;
        let view =
            Arc::new(SqliteView::new(MemoryHome { place, room: Arc::new(Mutex::new(Room { db, before: None })) }));
        views.insert(id.clone(), Arc::clone(&view));
        Ok(view)
    }

    async fn find(&self, id: &ViewId) -> Result<Option<Arc<dyn View>>, StoreError> {
        Ok(locked(&self.views).get(id).map(|view| Arc::clone(view) as Arc<dyn View>))
    }

    async fn list(&self) -> Result<Vec<ViewId>, StoreError> {
        Ok(locked(&self.views).keys().cloned().collect())
    }

    async fn drop_view(&self, id: &ViewId) -> Result<(), StoreError> {
        locked(&self.views).remove(id);
        Ok(())
    }
}

/// A view in memory.
struct MemoryHome {
    place: Arc<Place>,
    room: Arc<Mutex<Room>>,
}

/// The one connection to the view, with the committed state while a transaction is open on it.
struct Room {
    db: Db,
    before: Option<Vec<u8>>,
}

impl Room {
    fn copy(&mut self) -> Result<Vec<u8>, StoreError> {
        if let Some(before) = &self.before {
            return Ok(before.clone());
        }
        self.db.tried("copy the view", |connection| Ok(connection.serialize(MAIN_DB)?.to_vec()))
    }
}

impl MemoryHome {
    /// Does something to the committed state, which is a copy while a transaction is open.
    fn settled<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut room = locked(&self.room);
        if room.before.is_none() {
            return act(&mut room.db);
        }
        let copy = room.copy()?;
        act(&mut restored(copy, &self.place)?)
    }
}

impl Home for MemoryHome {
    type Desk = MemoryDesk;
    const INLINE: bool = true;

    fn desk(self: &Arc<Self>) -> Result<MemoryDesk, StoreError> {
        Ok(MemoryDesk(Arc::clone(self)))
    }

    fn look<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.settled(act)
    }

    fn control<T>(&self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.settled(act)
    }

    fn snapshot_now(&self) -> Option<Db> {
        self.snapshot().ok()
    }

    fn snapshot(&self) -> Result<Db, StoreError> {
        let copy = locked(&self.room).copy()?;
        restored(copy, &self.place)
    }

    fn copy(&self) -> Result<ViewCopy, StoreError> {
        Ok(ViewCopy::Bytes(Arc::new(locked(&self.room).copy()?)))
    }

    fn give_back(&self, db: Db) {
        drop(db);
    }

    fn health(&self) -> ViewHealth {
        self.place.health()
    }

    fn look_at_pages(&self, _after: u64, _most: u64) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}

/// All writers of a view in memory share its connection. The gate separates their transactions.
pub(crate) struct MemoryDesk(Arc<MemoryHome>);

impl Desk for MemoryDesk {
    fn read<T>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.0.settled(act)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        let mut room = locked(&self.0.room);
        let before = room.copy()?;
        room.db.begin()?;
        room.before = Some(before);
        Ok(())
    }

    fn inside<T, E>(&mut self, act: impl FnOnce(&mut Db) -> Result<T, E>) -> Result<T, E> {
        act(&mut locked(&self.0.room).db)
    }

    fn ended(&mut self) {
        locked(&self.0.room).before = None;
    }
}

/// Returns a view made from a copy of another one.
fn restored(copy: Vec<u8>, place: &Arc<Place>) -> Result<Db, StoreError> {
    let mut db = Db::in_memory(place)?;
    let size = copy.len();
    db.tried("open a copy of the view", |connection| {
        connection.deserialize_read_exact(MAIN_DB, copy.as_slice(), size, true)
    })?;
    Ok(db)
}
