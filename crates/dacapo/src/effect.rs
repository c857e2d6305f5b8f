//! Effects: what shall happen outside of views because of an event, as a user declares it.

use std::time::Duration;

use dacapo_model::{BackOff, EffectFailure, PastEffects};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

/// What shall happen outside because of an event: a mail, a call of another service. It is kept as JSON until it has
/// happened.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use dacapo::effects::Effect;
///
/// #[derive(Serialize, Deserialize)]
/// struct Mail {
///     to: String,
///     text: String,
/// }
///
/// impl Effect for Mail {
///     const NAME: &'static str = "mail";
/// }
/// ```
pub trait Effect: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The stable name under which effects of this kind are kept.
    const NAME: &'static str;
}

/// How the effects of a version are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectOptions {
    /// A try that takes longer has failed. 30 seconds unless set.
    pub time_max: Duration,
    /// How long the first new try waits; each further one waits twice as long. Half a second unless set.
    pub retry_first: Duration,
    /// The longest wait between two tries. 5 minutes unless set.
    pub retry_longest: Duration,
    /// What becomes of an effect that fails. It is tried for ever and its stream waits, unless set.
    pub on_failure: EffectFailure,
    /// Whether effects of events are made that were in the journal before the projection's first version was scheduled,
    /// by that version. They are not, unless set.
    pub past: PastEffects,
}

impl Default for EffectOptions {
    fn default() -> Self {
        Self {
            time_max: limits::EFFECT_TIME_MAX,
            retry_first: limits::EFFECT_PAUSE_FIRST,
            retry_longest: limits::EFFECT_PAUSE_MAX,
            on_failure: EffectFailure::Halt,
            past: PastEffects::Silent,
        }
    }
}

impl EffectOptions {
    pub(crate) fn back_off(&self, attempts: u32) -> Duration {
        BackOff::new(self.retry_first, self.retry_longest).after(attempts)
    }
}
