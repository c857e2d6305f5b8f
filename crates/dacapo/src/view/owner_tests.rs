//! Whose a row is: what is in memory, in the transaction and in the store comes to one.

use std::sync::Arc;

use dacapo_model::{Position, ProjectionName, SegmentCount, Token, VersionId, ViewId};
use dacapo_store::memory::MemoryViews;
use dacapo_store::{Commit, Table, Value, Views};

use super::{NotCommitted, View, ViewError};
use crate::Row;

#[derive(Clone, Debug, PartialEq, Row)]
struct Thing {
    #[row(key)]
    id: u8,
    value: i64,
}

static TABLES: &[Table] = &[Thing::TABLE];

struct World {
    stored: Arc<dyn dacapo_store::View>,
    view: View,
    tokens: Vec<Token>,
    at: u64,
}

impl World {
    async fn new() -> Self {
        let id =
            ViewId { projection: ProjectionName::new("things").unwrap(), version: VersionId { code: 1, build: 1 } };
        let stored = MemoryViews::new().open(&id, TABLES, count()).await.unwrap();
        let tokens = stored.claim(None, &stored.tokens().await.unwrap()).await.unwrap();
        Self { view: opened(&*stored).await, stored, tokens, at: 0 }
    }

    /// The next event is one of this segment.
    fn event(&mut self, segment: u16) -> &mut View {
        self.at += 1;
        self.view.write_for(count().segment(segment).unwrap(), Position::new(self.at));
        &mut self.view
    }

    async fn commit(&mut self) -> Result<(), NotCommitted> {
        let moves: Vec<_> = self.tokens.iter().map(|token| token.step(Position::new(self.at), 1)).collect();
        self.view.commit(&Commit::of(moves)).await?;
        self.tokens = self.stored.tokens().await.unwrap();
        Ok(())
    }

    /// Commits, which is refused; what is wrong is returned.
    async fn shared(&mut self) -> (String, u16, u16, u64) {
        match self.commit().await {
            Err(NotCommitted::Failed(ViewError::Shared { key, first, second, at, .. })) => {
                (key, first.get(), second.get(), at.unwrap().get())
            }
            other => panic!("a row of another segment was written: {other:?}"),
        }
    }

    /// Whose the committed row is.
    async fn owner(&self, id: u8) -> Option<Option<u16>> {
        let row = self.stored.writer().await.unwrap().load_of(&Thing::TABLE, &[Value::from(id)]).await.unwrap();
        row.map(|(segment, _)| segment.map(dacapo_model::Segment::get))
    }
}

fn count() -> SegmentCount {
    SegmentCount::new(3).unwrap()
}

async fn opened(stored: &dyn dacapo_store::View) -> View {
    View::new(stored.writer().await.unwrap(), TABLES).of_one_segment(true)
}

fn thing(id: u8, value: i64) -> Thing {
    Thing { id, value }
}

#[tokio::test]
async fn the_first_event_that_writes_what_is_anothers_is_told_whatever_is_in_memory() {
    for evicts in [false, true] {
        let mut world = World::new().await;
        world.event(1).put(thing(1, 1)).unwrap();
        world.event(0).put(thing(2, 2)).unwrap();
        world.commit().await.unwrap();
        if evicts {
            world.view = opened(&*world.stored).await;
        }
        world.event(0).put(thing(2, 3)).unwrap();
        world.event(2).put(thing(1, 3)).unwrap();
        assert_eq!(world.view.end_event().map_err(|error| error.to_string()), Ok(()), "it is told in the end");
        // As it would look to the owner, whose event is right.
        world.event(1).put(thing(1, 4)).unwrap();
        assert_eq!(world.shared().await, ("1".to_owned(), 1, 2, 4), "evicted: {evicts}");
        let row = world.event(2).get::<Thing>(1).await.unwrap().cloned();
        assert_eq!(row, Some(thing(1, 1)), "reading is free");
        world.event(2).update::<Thing>(1, |row| row.value = 9).await.unwrap();
        assert_eq!(world.shared().await, ("1".to_owned(), 1, 2, 7), "evicted: {evicts}");
        world.event(1).update::<Thing>(1, |row| row.value = 9).await.unwrap();
        world.commit().await.unwrap();
        assert_eq!((world.owner(1).await, world.owner(2).await), (Some(Some(1)), Some(Some(0))));
    }
}

#[tokio::test]
async fn a_row_that_passes_on_within_a_transaction_is_of_the_last_one() {
    for queries in [false, true] {
        let mut world = World::new().await;
        world.event(1).put(thing(1, 1)).unwrap();
        world.commit().await.unwrap();
        world.event(1).delete::<Thing>(1).await.unwrap();
        world.event(2).put(thing(1, 2)).unwrap();
        world.event(2).delete::<Thing>(1).await.unwrap();
        if queries {
            world.view.query("SELECT 1", &[]).await.unwrap();
        }
        world.event(0).put(thing(1, 3)).unwrap();
        world.commit().await.unwrap();
        assert_eq!(world.owner(1).await, Some(Some(0)));
        world.event(2).put(thing(1, 4)).unwrap();
        assert_eq!(world.shared().await, ("1".to_owned(), 0, 2, 6));
        world.event(0).delete::<Thing>(1).await.unwrap();
        world.commit().await.unwrap();
        assert_eq!(world.owner(1).await, None);
    }
}

/// The store was told to take the row from the first segment, which a hold has undone.
#[tokio::test]
async fn a_row_that_was_passed_on_is_made_again_after_a_hold() {
    let mut world = World::new().await;
    world.event(1).put(thing(1, 1)).unwrap();
    world.commit().await.unwrap();
    for passes_on in [false, true] {
        let hold = Position::new(50 + u64::from(passes_on));
        world.stored.hold(hold).await.unwrap();
        if passes_on {
            world.event(1).delete::<Thing>(1).await.unwrap();
            world.event(2).put(thing(1, 2)).unwrap();
        } else {
            world.event(1).put(thing(1, 2)).unwrap();
        }
        let held = world.commit().await;
        let Err(NotCommitted::Held { must_reapply, .. }) = held else { panic!("it is held: {held:?}") };
        assert_eq!(must_reapply, passes_on);
        world.stored.lift(hold).await.unwrap();
        if passes_on {
            assert_eq!(world.event(1).get::<Thing>(1).await.unwrap(), Some(&thing(1, 2)), "it is as it was committed");
            world.event(1).delete::<Thing>(1).await.unwrap();
            world.event(2).put(thing(1, 2)).unwrap();
        }
        world.commit().await.unwrap();
    }
    assert_eq!(world.owner(1).await, Some(Some(2)));
}

#[tokio::test]
async fn what_follows_from_no_event_leaves_rows_whose_they_are() {
    let mut world = World::new().await;
    world.event(1).put(thing(1, 1)).unwrap();
    world.commit().await.unwrap();
    for evicts in [false, true] {
        if evicts {
            world.view = opened(&*world.stored).await;
        }
        world.at += 1;
        world.view.end_events();
        world.view.put(thing(1, 5)).unwrap();
        world.view.put(thing(2 + u8::from(evicts), 5)).unwrap();
        world.commit().await.unwrap();
        assert_eq!(world.owner(1).await, Some(Some(1)), "evicted: {evicts}");
    }
    assert_eq!(world.owner(3).await, Some(None));
    world.event(0).put(thing(3, 6)).unwrap();
    world.commit().await.unwrap();
    assert_eq!(world.owner(3).await, Some(Some(0)), "it is of the first one that writes it");
}
