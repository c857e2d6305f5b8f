//! Code that copies otherwise: by a migration in Rust, or of other events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dacapo::rows::Value;
use dacapo::{Answers, Event, HandlerError, Options, Projection, ReadView, Recorded, Row, Table, View};
use tokio::sync::watch;

use crate::common::*;

/// Version 3 reads events that no earlier one did; version 4 fills itself in Rust.
#[derive(Clone, Debug, Event)]
pub(super) enum MoreEvents {
    #[event(name = "added")]
    Added { amount: i64 },
    #[event(name = "audited")]
    Audited {},
}

pub(super) struct Odd<const VERSION: u32>(pub(super) Options);

impl<const CODE: u32> Projection for Odd<CODE> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = CODE;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = MoreEvents;

    fn options(&self) -> Options {
        self.0.clone()
    }

    async fn apply(&self, _: &Recorded<'_, MoreEvents>, _: &mut View) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Fills itself in Rust, once it is let.
#[derive(Default)]
pub(super) struct Migrating {
    pub(super) options: Options,
    pub(super) ready: Arc<AtomicBool>,
    /// While this is false, it waits in the middle.
    pub(super) gate: Option<watch::Sender<bool>>,
    /// Whether it looks at what it has put, in SQL.
    pub(super) by_sql: bool,
}

impl Projection for Migrating {
    const NAME: &'static str = "totals";
    const VERSION: u32 = 4;
    const TABLES: &'static [Table] = &[TotalWithLast::TABLE];
    type Event = LedgerEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, LedgerEvent>, view: &mut View) -> Result<(), HandlerError> {
        v2().apply(event, view).await
    }

    async fn migrate(&self, source: &mut ReadView, view: &mut View) -> Result<(), HandlerError> {
        for Total { ledger, sum, events } in source.rows::<Total>().load().await? {
            view.put(TotalWithLast { ledger, sum, events, last: 0 })?;
        }
        if let Some(gate) = &self.gate {
            gate.subscribe().wait_for(|open| *open).await?;
        }
        if self.by_sql {
            // Refused by SQLite where that index is not there.
            let sql = "SELECT count(*) FROM totals INDEXED BY \"totals.last\" WHERE last = 0";
            assert_eq!(view.query(sql, &[]).await?, [[Value::Integer(7)]]);
        }
        assert!(self.ready.load(Ordering::SeqCst), "not yet");
        Ok(())
    }
}

impl Answers<TotalOf> for Migrating {
    async fn answer(&self, query: &TotalOf, view: &mut ReadView) -> Result<(i64, i64), HandlerError> {
        v2().answer(query, view).await
    }
}
