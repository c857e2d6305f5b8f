//! A store that several nodes share, what they carry, and who has which segment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dacapo::journal::{Append, Appended, Revision, StreamName};
use dacapo::options::{RowScope, SegmentCount};
use dacapo::status::{Member, MemberId};
use dacapo::store::{Journal, Store, StoreError};
use dacapo::world::SystemClock;
use dacapo::{
    HandlerError, Node, NodeBuilder, Options, Projection, Recorded, Row, Table, VersionCode, VersionId, View,
};
use dacapo_store::{AppendError, Members};
use dacapo_testkit::Faults;
use tokio::sync::watch;

use crate::common::*;

/// A store as one of several nodes has it: closing it closes it for nobody else, and its lease can be cut off.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) cut: Arc<AtomicBool>,
    /// While this is false, nothing is heard of the catalog.
    pub(super) hears: watch::Sender<bool>,
    /// What somebody else appends just before this node announces that its code reads more.
    pub(super) early: Arc<Mutex<Option<Append>>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let (store, hears) = (Store::memory(Arc::new(SystemClock)), watch::Sender::new(true));
        Self { store, cut: Arc::default(), hears, early: Arc::default() }
    }

    /// The same store as another node has it.
    pub(super) fn another(&self) -> Self {
        Self { cut: Arc::default(), hears: watch::Sender::new(true), ..self.clone() }
    }

    pub(super) fn node(&self, name: &str) -> NodeBuilder {
        self.node_with(&Faults::default(), name)
    }

    /// One whose store goes wrong like this.
    pub(super) fn node_with(&self, faults: &Faults, name: &str) -> NodeBuilder {
        let early = Arc::clone(&self.early);
        let journal = Arc::new(Apart { inner: Arc::clone(&self.store.journal), hears: self.hears.subscribe(), early });
        let members = Arc::new(Cut { inner: Arc::clone(&self.store.members), cut: Arc::clone(&self.cut) });
        Node::builder().store(faults.over(&Store { journal, members, ..self.store.clone() })).name(name)
    }
}

pub(super) struct Apart {
    pub(super) inner: Arc<dyn Journal>,
    pub(super) hears: watch::Receiver<bool>,
    pub(super) early: Arc<Mutex<Option<Append>>>,
}

impl Apart {
    async fn append_after_others(&self, append: Append) -> Result<Appended, AppendError> {
        if append.events[0].event.event_type.as_str() == "reads-announced" {
            let early = self.early.lock().unwrap().take();
            if let Some(early) = early {
                self.inner.append(early).await?;
            }
        }
        self.inner.append(append).await
    }

    async fn hear_revision(&self, stream: &StreamName) -> Result<Revision, StoreError> {
        let mut hears = self.hears.clone();
        // An error means that the test is over.
        hears.wait_for(|hears| *hears).await.ok();
        self.inner.stream_revision(stream).await
    }
}

dacapo_store::delegate! {
    impl Journal for Apart {
        id;
        mark;
        append => append_after_others;
        read;
        read_stream;
        stream_revision => hear_revision;
        streams;
        head;
        { async fn close(&self) {} }
    }
}

struct Cut {
    inner: Arc<dyn Members>,
    cut: Arc<AtomicBool>,
}

impl Cut {
    fn is_cut(&self) -> Result<(), StoreError> {
        match self.cut.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable("reach the members", "the line is cut")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Members for Cut {
    async fn renew(&self, member: &Member, lease: Duration) -> Result<Vec<Member>, StoreError> {
        self.is_cut()?;
        self.inner.renew(member, lease).await
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        self.is_cut()?;
        self.inner.leave(id).await
    }

    async fn live(&self) -> Result<Vec<Member>, StoreError> {
        self.is_cut()?;
        self.inner.live().await
    }
}

pub(super) fn eight() -> Options {
    Options { segments: SegmentCount::new(8).unwrap(), ..options() }
}

pub(super) fn first() -> VersionCode {
    carry_v1(TotalsV1 { options: eight(), ..v1() })
}

pub(super) fn second() -> VersionCode {
    carry_v2(TotalsV2 { options: eight(), ..v2() })
}

/// How many segments of a version each member has, by its name.
pub(super) fn shares(status: &dacapo::status::Status, version: VersionId) -> BTreeMap<String, usize> {
    let versions = status.projections.iter().flat_map(|projection| &projection.versions);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for token in versions.filter(|found| found.version == version).flat_map(|found| &found.tokens) {
        let owner = status.members.iter().find(|member| Some(member.id) == token.claimed_by);
        *shares.entry(owner.map_or("nobody", |owner| &owner.name).to_owned()).or_default() += 1;
    }
    shares
}

pub(super) async fn shared(node: &Node, text: &str, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<String, usize> = wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    until(node, &format!("{text} is shared like {wanted:?}"), |status| shares(status, version(text)) == wanted).await;
}

/// All events together: one row that every segment changes.
#[derive(Clone, Row)]
#[row(table = "together")]
pub(super) struct Together {
    #[row(key)]
    pub(super) what: String,
    pub(super) events: i64,
}

pub(super) struct Tally;

impl Projection for Tally {
    const NAME: &'static str = "tally";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Together::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        Options { rows: RowScope::AcrossSegments, ..eight() }
    }

    async fn apply(&self, _: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        let new = || Together { what: "all".into(), events: 0 };
        view.upsert("all", new, |row: &mut Together| row.events += 1).await?;
        Ok(())
    }
}
