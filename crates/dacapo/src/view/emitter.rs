//! The effects that a handler emits in one batch.

use std::any::type_name;

use dacapo_model::{NewEffect, Position, Segment, StreamName, limits};

use crate::effect::Effect;

/// Collects the effects that a handler emits in one batch.
pub(crate) struct Emitter {
    /// The names of the effects that the projection makes.
    names: Vec<&'static str>,
    position: Position,
    segment: Segment,
    stream: String,
    ordinal: u32,
    silent: bool,
    pub(crate) emitted: Vec<NewEffect>,
}

impl Emitter {
    pub(crate) fn new(names: Vec<&'static str>, segment: Segment) -> Self {
        let (position, stream, ordinal, emitted) = Default::default();
        Self { names, position, segment, stream, ordinal, silent: true, emitted }
    }

    /// States that the next effects follow from this event.
    pub(crate) fn begin(&mut self, position: Position, segment: Segment, stream: &str, silent: bool) {
        (self.position, self.segment, self.ordinal, self.silent) = (position, segment, 0, silent);
        self.stream.clear();
        self.stream.push_str(stream);
    }

    /// States that the next effects follow from no event.
    pub(crate) fn silence(&mut self) {
        self.silent = true;
    }

    /// Stores one effect. Returns the reason if it cannot be stored.
    pub(crate) fn emit<E: Effect>(&mut self, effect: &E) -> Result<(), String> {
        if !self.names.contains(&E::NAME) {
            let effect = type_name::<E>();
            return Err(format!(
                "the projection does not make it: add it to the code with `acting::<{effect}>()`, or to a `Case` of \
                 dacapo-testkit with `effects::<{effect}>()`"
            ));
        }
        let ordinal = self.ordinal;
        // The effect is counted even if it is not stored, so that a key permanently means the same effect.
        self.ordinal += 1;
        if self.silent {
            return Ok(());
        }
        let payload = serde_json::to_vec(effect).map_err(|error| format!("it cannot be written: {error}"))?;
        if payload.len() > limits::EFFECT_BYTES_MAX {
            return Err(format!("it has {} bytes, at most {} are possible", payload.len(), limits::EFFECT_BYTES_MAX));
        }
        let stream = StreamName::new(&self.stream).map_err(|invalid| invalid.to_string())?;
        let (position, segment, name) = (self.position, self.segment, E::NAME.to_owned());
        self.emitted.push(NewEffect { position, ordinal, segment, stream, name, payload });
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        let of_effect = |effect: &NewEffect| size_of::<NewEffect>() + effect.payload.len() + effect.name.len();
        self.emitted.iter().map(of_effect).sum()
    }
}
