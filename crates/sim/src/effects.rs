//! The world outside that effects are made in: a receiver that fails, is slow, and loses answers while it is stormy.

use std::sync::Mutex;
use std::time::Duration;

use dacapo::HandlerError;
use dacapo::effects::{Effect, EffectKey};
use serde::{Deserialize, Serialize};

use crate::world::{World, locked};

/// The effect that a handler emits for an event that it adds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// The position of the event.
    pub position: u64,
    /// Which of the effects of the event, from 0.
    pub nth: u32,
    pub stream: String,
    pub change: i64,
    /// What no other run of a handler has emitted: it tells which commit kept the effect.
    pub run: u64,
}

impl Effect for Told {
    const NAME: &'static str = "told";
}

/// Returns the number of effects that an event has.
pub const fn effects_of(position: u64) -> u32 {
    if position.is_multiple_of(3) { 2 } else { 1 }
}

/// An effect that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub at: Duration,
    pub code: u32,
    pub key: EffectKey,
    pub told: Told,
}

/// The receiver of effects.
pub struct Receiver(Mutex<Inside>);

struct Inside {
    chance: fastrand::Rng,
    made: Vec<Made>,
}

impl Receiver {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Inside { chance: fastrand::Rng::with_seed(seed ^ 0xEFFE), made: vec![] }))
    }

    /// Returns every effect that was made, in order, as often as it was.
    pub fn made(&self) -> Vec<Made> {
        locked(&self.0).made.clone()
    }
}

impl World {
    /// One try of the code version `code` to make an effect.
    pub async fn receive(&self, code: u32, told: &Told, key: &EffectKey) -> Result<(), HandlerError> {
        let stormy = *self.stormy.borrow();
        let (before, fate, after) = {
            let chance = &mut locked(&self.receiver.0).chance;
            let mut wait = || Duration::from_millis(if chance.u8(..8) == 0 { chance.u64(..1_300) } else { 0 });
            let (before, after) = (wait(), wait());
            (before, chance.u8(..100), after)
        };
        if stormy && !before.is_zero() {
            tokio::time::sleep(before).await;
        }
        if stormy && fate < 15 {
            return Err("the receiver does not answer (simulated)".into());
        }
        self.note(format!("v{code} makes {key} {told:?}"));
        locked(&self.receiver.0).made.push(Made { at: self.now(), code, key: key.clone(), told: told.clone() });
        if stormy && !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        if stormy && fate < 30 {
            return Err("the receiver's answer was lost (simulated)".into());
        }
        Ok(())
    }
}
