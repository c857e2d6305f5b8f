//! What troubles handlers: refusals, panics and waits, for some events and for some time.

use std::sync::Mutex;
use std::time::Duration;

use dacapo::HandlerError;

use crate::world::{World, locked};

/// The beginning of the text of a planned panic.
pub const PLANNED: &str = "planned:";

/// What a handler does with an event instead of applying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It returns an error.
    Refuses,
    /// It panics.
    Panics,
    /// It waits before it continues.
    Waits,
}

/// A trouble with every event whose position has the remainder `rest` by `modulus`, until it is over.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub kind: Kind,
    pub modulus: u64,
    pub rest: u64,
    /// Only this code version; all if none.
    pub code: Option<u32>,
    pub until: Duration,
}

/// A trouble with every reset of rows, until it is over.
#[derive(Clone, Copy, Debug)]
pub struct ResetTrouble {
    pub kind: Kind,
    pub until: Duration,
}

#[derive(Default)]
pub struct Troubles {
    events: Mutex<Vec<Trouble>>,
    resets: Mutex<Option<ResetTrouble>>,
}

impl Troubles {
    pub fn add(&self, trouble: Trouble) {
        locked(&self.events).push(trouble);
    }

    pub fn set_resets(&self, trouble: ResetTrouble) {
        *locked(&self.resets) = Some(trouble);
    }

    pub fn clear(&self) {
        locked(&self.events).clear();
        *locked(&self.resets) = None;
    }
}

impl World {
    /// What the handler of code version `code` meets at `position`.
    pub async fn meet(&self, code: u32, position: u64) -> Result<(), HandlerError> {
        let now = self.now();
        let meets = |trouble: &&Trouble| {
            trouble.until > now
                && position % trouble.modulus == trouble.rest
                && trouble.code.is_none_or(|only| only == code)
        };
        let Some(trouble) = locked(&self.troubles.events).iter().find(meets).copied() else { return Ok(()) };
        self.troubled(trouble.kind, trouble.until, &format!("event {position}")).await
    }

    /// What the reset of rows meets in code version `code`.
    pub async fn meet_reset(&self, code: u32) -> Result<(), HandlerError> {
        let trouble = locked(&self.troubles.resets).filter(|trouble| trouble.until > self.now());
        let Some(ResetTrouble { kind, until }) = trouble else { return Ok(()) };
        self.note(format!("the reset of v{code} is troubled: it {kind:?}"));
        self.troubled(kind, until, "a reset").await
    }

    async fn troubled(&self, kind: Kind, until: Duration, what: &str) -> Result<(), HandlerError> {
        match kind {
            Kind::Refuses => Err(format!("{what} is refused until {:.1} s", until.as_secs_f64()).into()),
            Kind::Panics => panic!("{PLANNED} {what}"),
            Kind::Waits => {
                tokio::time::sleep(until.saturating_sub(self.now())).await;
                Ok(())
            }
        }
    }
}
