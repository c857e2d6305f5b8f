//! One try to make an effect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::{EffectKey, EffectOutcome, EffectTry, Epoch, PendingEffect, Timestamp};
use futures::FutureExt;

use super::{Act, Delivery};
use crate::code::shortened;
use crate::panics::{chain, panic_text};
use crate::versions::Versions;

impl Delivery {
    /// Returns one try of an effect that was begun under `epoch`. `before` is an earlier epoch under which it was begun
    /// without a recorded result. The try ends with this node's lease.
    pub(super) fn act(&self, versions: &Versions, epoch: Epoch, pending: PendingEffect, before: Option<Epoch>) -> Act {
        let PendingEffect { number, effect, attempts, .. } = pending;
        let aside = self.outbox.borrow().aside;
        let key =
            EffectKey { projection: self.id.projection.clone(), position: effect.position, ordinal: effect.ordinal };
        if let Some(before) = before {
            tracing::warn!(view = %self.id, effect = %key, %before, %epoch,
                "an effect was begun, and the result is not recorded: it may have been made, and is made again");
        }
        let attempts = attempts + 1;
        let version = self.id.version;
        let attempt = EffectTry { key, version, epoch, number: attempts, is_uncertain: before.is_some() };
        let (act, options) = (self.carried.act_on(&effect.name), self.carried.options.effects);
        let (clock, steady, view) = (Arc::clone(&versions.world.clock), Arc::clone(&versions.steady), self.id.clone());
        let lease_ends = versions.cluster.lease_ends();
        Box::pin(async move {
            let made = async {
                let act = act.ok_or_else(|| format!("the code of this program does not make {:?}", effect.name))?;
                act.act(&effect.payload, &attempt).await
            };
            let error = tokio::select! {
                // This comes first, so that nothing continues after a pause.
                biased;
                () = lease_ends => "this node has lost its lease meanwhile: it may have been made".to_owned(),
                () = tokio::time::sleep(options.time_max) => {
                    format!("it took longer than {} ms", options.time_max.as_millis())
                }
                made = AssertUnwindSafe(made).catch_unwind() => match made {
                    Ok(Ok(())) => return (number, EffectOutcome::Done),
                    Ok(Err(error)) => chain(&*error),
                    Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
                }
            };
            let (effect_key, name) = (&attempt.key, &effect.name);
            if options.on_failure.sets_aside(attempts, aside) {
                tracing::error!(%view, effect = %effect_key, name, attempts, error, "an effect is set aside");
                return (number, EffectOutcome::SetAside { error: shortened(error), at: clock.now() });
            }
            tracing::warn!(%view, effect = %effect_key, name, attempts, error, "an effect fails");
            let error = shortened(error);
            let due: Timestamp = steady.now().plus(options.back_off(attempts));
            (number, EffectOutcome::Failed { error, due })
        })
    }
}
