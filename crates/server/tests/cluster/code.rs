//! A projection for each operation of the API, of its name, so that all operations can be tried at the same time. Each
//! reads the streams of its own category.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dacapo::effects::{Acts, Effect, EffectFailure, EffectOptions, EffectTry};
use dacapo::options::{FlipPolicy, InPlace, OnFailure, Policy, Retry, Seed, SegmentCount};
use dacapo::verify::Checks;
use dacapo::{Event, HandlerError, Options, Projection, ReadView, Recorded, Row, Table, VersionCode, View};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Event)]
pub enum Happened {
    #[event(name = "added")]
    Added { amount: i64 },
}

#[derive(Clone, Debug, Row)]
#[row(table = "totals")]
pub struct Total {
    #[row(key)]
    pub stream: String,
    pub sum: i64,
}

/// What follows from each event outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mail {
    amount: i64,
}

impl Effect for Mail {
    const NAME: &'static str = "mail";
}

/// What can go wrong with a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Its handler refuses every event.
    Refuses,
    /// Its effects fail.
    MailFails,
    /// Its check does not hold.
    CheckFails,
}

/// The troubles of a process, and what its projections have done.
#[derive(Default)]
pub struct Behaviour {
    troubles: Mutex<HashSet<(&'static str, Trouble)>>,
    mails: Mutex<Vec<(&'static str, i64)>>,
    applied: Mutex<HashMap<&'static str, u64>>,
}

impl Behaviour {
    pub fn begin(&self, projection: &'static str, trouble: Trouble) {
        self.troubles.lock().unwrap().insert((projection, trouble));
    }

    pub fn end(&self, projection: &'static str, trouble: Trouble) {
        self.troubles.lock().unwrap().remove(&(projection, trouble));
    }

    fn has(&self, projection: &'static str, trouble: Trouble) -> bool {
        self.troubles.lock().unwrap().contains(&(projection, trouble))
    }

    /// Returns true if the mail about this amount was sent.
    pub fn has_sent(&self, projection: &'static str, amount: i64) -> bool {
        self.mails.lock().unwrap().contains(&(projection, amount))
    }

    /// Returns how often the handler of this projection was called.
    pub fn applied(&self, projection: &'static str) -> u64 {
        self.applied.lock().unwrap().get(projection).copied().unwrap_or(0)
    }
}

/// The name of a projection, as a type.
trait Named: Send + Sync + 'static {
    const NAME: &'static str;
}

/// The sum of each stream.
struct Totals<N> {
    behaviour: Arc<Behaviour>,
    name: PhantomData<fn() -> N>,
}

impl<N: Named> Projection for Totals<N> {
    const NAME: &'static str = N::NAME;
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[Total::TABLE];
    type Event = Happened;

    fn options(&self) -> Options {
        let serving = if N::NAME == "set_aside" { Policy::Halt } else { Policy::DeadLetter };
        Options {
            segments: SegmentCount::new(2).unwrap(),
            flip: FlipPolicy::OnCommand,
            categories: Some(vec![N::NAME.to_owned()]),
            in_place: InPlace::Resets,
            seed: Seed::Columns,
            retry: Retry { attempts: 1, first: Duration::from_millis(10), longest: Duration::from_millis(50) },
            on_failure: OnFailure { serving, initializing: Policy::Halt },
            order_matters: false,
            effects: EffectOptions { on_failure: EffectFailure::SetAside { tries: 1 }, ..EffectOptions::default() },
            ..Options::default()
        }
    }

    async fn apply(&self, event: &Recorded<'_, Happened>, view: &mut View) -> Result<(), HandlerError> {
        *self.behaviour.applied.lock().unwrap().entry(N::NAME).or_default() += 1;
        if self.behaviour.has(N::NAME, Trouble::Refuses) {
            return Err("it is in trouble".into());
        }
        let Happened::Added { amount } = event.data;
        view.emit(&Mail { amount })?;
        let none = || Total { stream: event.stream.to_owned(), sum: 0 };
        Ok(view.upsert(event.stream, none, |row: &mut Total| row.sum += amount).await?)
    }

    async fn check(&self, _: &mut ReadView, checks: &mut Checks) -> Result<(), HandlerError> {
        checks.holds("it is in no trouble", !self.behaviour.has(N::NAME, Trouble::CheckFails));
        Ok(())
    }
}

impl<N: Named> Acts<Mail> for Totals<N> {
    async fn act(&self, mail: &Mail, _: &EffectTry) -> Result<(), HandlerError> {
        if self.behaviour.has(N::NAME, Trouble::MailFails) {
            return Err("nobody takes it".into());
        }
        self.behaviour.mails.lock().unwrap().push((N::NAME, mail.amount));
        Ok(())
    }
}

macro_rules! code {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        /// Returns the code of these projections, each of which is named as an operation.
        pub fn code(behaviour: &Arc<Behaviour>, of: &[&str]) -> Vec<VersionCode> {
            let mut code: Vec<VersionCode> = Vec::new();
            $(if of.contains(&stringify!($name)) {
                enum This {}
                impl Named for This {
                    const NAME: &'static str = stringify!($name);
                }
                let totals = Totals::<This> { behaviour: Arc::clone(behaviour), name: PhantomData };
                code.push(totals.acting::<Mail>().into());
            })*
            code
        }
    };
}

dacapo_api::operations!(code);
