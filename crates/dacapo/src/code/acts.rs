//! What a user declares about the effects of a projection, and the erased form of it.

use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use dacapo_model::EffectTry;
use futures::future::BoxFuture;

use super::{HandlerError, Projection};
use crate::effect::Effect;

/// A projection that reacts: effects of type `E` that its handler [emits](crate::View::emit) are made by it. Register
/// them with [`Projection::acting`](crate::Projection::acting).
pub trait Acts<E: Effect>: Projection {
    /// Makes an effect. It is called at least once for each, one after the other for those of one stream, and again
    /// with the same [`EffectTry::key`] when it fails, takes longer than
    /// [`EffectOptions::time_max`](crate::effects::EffectOptions::time_max), or the process ends before what it came to is
    /// recorded: hand the key on to whoever can tell repetitions apart, and [`EffectTry::epoch`] to whoever can refuse a
    /// try of a node that was paused. The future is dropped when the node loses its lease.
    ///
    /// # Errors
    /// Whatever keeps it from happening. It is tried again, later and later.
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
                .map_err(|error| format!("what was kept of it is no {}: {error}", type_name::<E>()))?;
            self.projection.act(&effect, attempt).await
        })
    }
}
