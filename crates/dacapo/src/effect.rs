//! Effects: actions outside of views because of an event, as a user declares them.

use std::time::Duration;

use dacapo_model::{BackOff, EffectFailure, PastEffects};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

/// An action outside because of an event, such as a mail or a call of another service. It is stored as JSON until it
/// has happened.
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
    /// The stable name under which effects of this kind are stored.
    const NAME: &'static str;
}

/// The options of the effects of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectOptions {
    /// The longest time of a try. After it the try has failed. Default: 30 seconds.
    pub time_max: Duration,
    /// The wait before the first retry. Each further wait is twice as long. Default: half a second.
    pub retry_first: Duration,
    /// The longest wait between two tries. Default: 5 minutes.
    pub retry_longest: Duration,
    /// The action for an effect that fails. Default: it is retried for ever, and its stream waits.
    pub on_failure: EffectFailure,
    /// The treatment of effects of events that were in the journal before the projection's first version was scheduled.
    /// The first version can make them. Default: they are not made.
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
