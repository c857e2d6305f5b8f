//! The declaration of a projection's effects, and its erased form.

use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use dacapo_model::EffectTry;
use futures::future::BoxFuture;

use super::{HandlerError, Projection};
use crate::effect::Effect;

/// A projection that makes the effects of type `E` that its handler [emits](crate::View::emit). Register them with
/// [`Projection::acting`](crate::Projection::acting).
pub trait Acts<E: Effect>: Projection {
    /// Makes an effect. It is called at least once for each effect. Effects of one stream are made one after the other.
    ///
    /// It is called again with the same [`EffectTry::key`] if it fails, if it takes longer than
    /// [`EffectOptions::time_max`](crate::effects::EffectOptions::time_max), or if the process ends before the result
    /// is recorded. So pass the key to a receiver that can recognise repetitions, and [`EffectTry::epoch`] to one that
    /// can refuse the try of a node that was paused. The future is dropped if the node loses its lease.
    ///
    /// # Errors
    /// The reason why the effect did not happen. It is retried after growing pauses.
    fn act(&self, effect: &E, attempt: &EffectTry) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// The erased form of [`Acts`].
pub(crate) trait AnyAct: Send + Sync {
    fn act<'a>(&'a self, payload: &'a [u8], attempt: &'a EffectTry) -> BoxFuture<'a, Result<(), HandlerError>>;
}

pub(crate) struct Actor<P, E> {
    pub(crate) projection: Arc<P>,
    pub(crate) effect: PhantomData<fn(E)>,
}

impl<P: Acts<E>, E: Effect> AnyAct for Actor<P, E> {
    fn act<'a>(&'a self, payload: &'a [u8], attempt: &'a EffectTry) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let effect: E = serde_json::from_slice(payload)
                .map_err(|error| format!("the stored effect is not a {}: {error}", type_name::<E>()))?;
            self.projection.act(&effect, attempt).await
        })
    }
}
