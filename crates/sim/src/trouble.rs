//! What troubles handlers: refusals, panics and waits, for some events and for some time.

use std::sync::Mutex;
use std::time::Duration;

use dacapo::HandlerError;

use crate::world::{World, locked};

/// How a panic begins that the simulation has planned.
pub const PLANNED: &str = "planned:";

/// What a handler does with an event instead of applying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It returns an error.
    Refuses,
    /// It panics.
    Panics,
    /// It waits before it goes on.
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

#[derive(Default)]
pub struct Troubles(Mutex<Vec<Trouble>>);

impl Troubles {
    pub fn add(&self, trouble: Trouble) {
        locked(&self.0).push(trouble);
    }

    pub fn clear(&self) {
        locked(&self.0).clear();
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
        let Some(trouble) = locked(&self.troubles.0).iter().find(meets).copied() else { return Ok(()) };
        match trouble.kind {
            Kind::Refuses => {
                Err(format!("event {position} is refused until {:.1} s", trouble.until.as_secs_f64()).into())
            }
            Kind::Panics => panic!("{PLANNED} event {position}"),
            Kind::Waits => {
                tokio::time::sleep(trouble.until - now).await;
                Ok(())
            }
        }
    }
}
