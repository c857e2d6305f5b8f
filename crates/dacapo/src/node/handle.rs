//! The handles with which operators name a projection or a version. Each operation is a method of one of the two.

use dacapo_model::{
    Cancel, CatalogCommand, EffectLetter, FlipKind, LettersOf, Position, ProjectionName, VersionId, ViewId, Wish,
};
use dacapo_store::WhichLetters;

use super::cancel::Cancellation;
use super::letters::{DeadLetter, List, SetAside, Settle};
use super::operate::{CleanUp, Examine, Flip, Order, Rebuild};
use super::replay::{Replay, ReplayFrom};
use super::request::{Done, Request};
use super::{Node, view_of};
use crate::error::Error;
use crate::verify::Verification;

/// A projection on a node. Each operation says which version it is about, such as the serving one. Clones are the same
/// projection.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn flip(node: dacapo::Node) -> Result<(), dacapo::Error> {
/// let balances = node.projection("balances")?;
/// let flip = balances.flip().by("ana").because("new indexes").await?;
/// let report = flip.done().within(Duration::from_secs(30)).await?;
/// println!("{} serves since position {}", report.to, report.flipped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProjectionHandle {
    pub(super) node: Node,
    pub(super) name: ProjectionName,
}

/// One version of a projection on a node. Clones are the same version.
#[derive(Clone)]
pub struct VersionHandle {
    pub(super) node: Node,
    pub(super) view: ViewId,
}

impl ProjectionHandle {
    /// Returns its name.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// Returns one version of it.
    pub fn version(&self, version: VersionId) -> VersionHandle {
        self.node.version(view_of(&self.name, version))
    }

    /// Schedules a new build beside the serving version: of the newest code that a live node carries, or of
    /// [`code`](Request::code). It replaces a version that is being built. Any node accepts the request, even without
    /// the code. The build is done once the new version is verified.
    ///
    /// # Errors
    /// [`Error::NotCarried`] and [`Error::NoSuchCode`] if no live node carries the code. [`Error::WouldDiscard`] if it
    /// would replace a version that is ready for its flip; [`discard`](Request::discard) allows that.
    pub fn rebuild(&self) -> Request<Rebuild> {
        Request::new(&self.node, Rebuild::of(self.name.clone()))
    }

    /// Requests a flip to the newest version above the serving one. It happens as soon as that version covers
    /// everything that was ever shown. [`VersionHandle::flip`] names the version.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version; [`Error::Catalog`] if the catalog refuses. The wait for its end
    /// returns [`Error::FlipAborted`] if the flip was given up.
    pub fn flip(&self) -> Request<Flip> {
        Request::new(&self.node, Flip { projection: self.name.clone(), to: None, kind: FlipKind::Flip })
    }

    /// Requests a rollback to the version below the serving one that served last. [`VersionHandle::rollback`] names the
    /// version.
    ///
    /// # Errors
    /// As [`flip`](Self::flip).
    pub fn rollback(&self) -> Request<Flip> {
        Request::new(&self.node, Flip { projection: self.name.clone(), to: None, kind: FlipKind::Rollback })
    }

    /// Requests another verification of the version that is being built. Until it is done, the earlier verdict does not
    /// count.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version; [`Error::Catalog`] if it is not being built.
    pub fn verify_again(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::again(self.name.clone(), None))
    }

    /// Waives the verdict of the version that failed its verification, so that it may serve. The catalog keeps the
    /// requester and the reason.
    ///
    /// # Errors
    /// [`Error::NoReason`] without [`because`](Request::because); [`Error::NoTarget`] if there is no such version;
    /// [`Error::Catalog`] if there is no verdict to waive.
    pub fn waive(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::waived(self.name.clone(), None))
    }

    /// Replays past events in place, in the view of the serving version. Its projection allows this in
    /// [`Options::in_place`](crate::Options::in_place), which also states the effect on readers.
    ///
    /// # Errors
    /// [`Error::NotInPlace`] if the projection does not allow it; [`Error::ReplayUnderWay`] while another replay runs,
    /// with its progress; [`Error::NoTarget`] if there is nothing to replay; [`Error::Catalog`] if the catalog refuses,
    /// such as during a flip.
    pub fn replay(&self, from: ReplayFrom) -> Request<Replay> {
        Request::new(&self.node, Replay { projection: self.name.clone(), version: None, from })
    }

    /// Cancels a request that is not carried out yet. `None` cancels the only such request, of the only version that
    /// has one.
    ///
    /// - A flip can be cancelled until it is confirmed, including one that would happen automatically once the version
    ///   is ready. From then on the version flips only on request.
    /// - A rebuild can be cancelled until the version serves. Its view is dropped.
    /// - A clean-up can be cancelled until the drop of the view begins. A version that stood by stands by again. A
    ///   version that was being built continues, except if another one has replaced it.
    /// - A replay that keeps its rows can be cancelled until it has ended; its tokens return to the positions before the
    ///   replay. A replay that resets its rows can be cancelled until it has begun.
    ///
    /// # Errors
    /// [`Error::Catalog`] if it is too late; [`Error::NoTarget`] if there is nothing to cancel, or more than one
    /// request.
    pub fn cancel(&self, what: impl Into<Option<Cancel>>) -> Request<Cancellation> {
        Request::new(&self.node, Cancellation { projection: self.name.clone(), version: None, what: what.into() })
    }

    /// Returns the state of a verification: of the newest version that is being built, or else of the newest that was
    /// verified.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if there is no such version.
    pub fn verification(&self) -> Result<Verification, Error> {
        self.node.verification_of(&self.name, None)
    }
}

impl VersionHandle {
    /// Returns the projection and the number of this version.
    pub fn view(&self) -> &ViewId {
        &self.view
    }

    /// Requests a flip to this version, which is not below the serving one. It happens as soon as this version covers
    /// everything that was ever shown.
    ///
    /// # Errors
    /// As [`ProjectionHandle::flip`].
    pub fn flip(&self) -> Request<Flip> {
        self.moves(FlipKind::Flip)
    }

    /// Requests a rollback to this version, which is below the serving one.
    ///
    /// # Errors
    /// As [`ProjectionHandle::rollback`].
    pub fn rollback(&self) -> Request<Flip> {
        self.moves(FlipKind::Rollback)
    }

    fn moves(&self, kind: FlipKind) -> Request<Flip> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Flip { projection, to: Some(version), kind })
    }

    /// Does the same as [`ProjectionHandle::verify_again`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::verify_again`].
    pub fn verify_again(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::again(self.view.projection.clone(), Some(self.view.version)))
    }

    /// Does the same as [`ProjectionHandle::waive`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::waive`].
    pub fn waive(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::waived(self.view.projection.clone(), Some(self.view.version)))
    }

    /// Does the same as [`ProjectionHandle::replay`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::replay`].
    pub fn replay(&self, from: ReplayFrom) -> Request<Replay> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Replay { projection, version: Some(version), from })
    }

    /// Does the same as [`ProjectionHandle::cancel`], for this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::cancel`].
    pub fn cancel(&self, what: impl Into<Option<Cancel>>) -> Request<Cancellation> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Cancellation { projection, version: Some(version), what: what.into() })
    }

    /// Drops the view of this version, which does not serve. This ends its stand-by, or gives up a rebuild. If the
    /// version must still emit effects for events that it has not reached, such as those that were appended during the
    /// flip, it waits up to [`limits::SPEAK_TIME_MAX`](crate::limits::SPEAK_TIME_MAX) for the version to reach them. It
    /// is done once the view is dropped.
    ///
    /// # Errors
    /// [`Error::Catalog`] if the catalog refuses.
    pub fn clean_up(&self) -> Request<CleanUp> {
        Request::new(&self.node, CleanUp(self.view.clone()))
    }

    /// Stops applying events to the view of this version, after the present batch, until it is resumed. A copy or an
    /// index under way is given up, and begun again on resume. The pause survives a restart.
    ///
    /// # Errors
    /// [`Error::Catalog`] if no events are applied to a version in its phase.
    pub fn pause(&self) -> Request<Order> {
        Request::new(&self.node, Order::new("pause", &self.view, CatalogCommand::Pause))
    }

    /// Applies events to the view of this version again. Immediately retries the event that its handler refused, and a
    /// failed copy or reset.
    ///
    /// # Errors
    /// [`Error::Catalog`] if no events are applied to a version in its phase.
    pub fn resume(&self) -> Request<Order> {
        Request::new(&self.node, Order::new("resume", &self.view, CatalogCommand::Resume))
    }

    /// Returns the state of the verification of this version.
    ///
    /// # Errors
    /// [`Error::NoTarget`] if it was never verified and is not being built; [`Error::Catalog`] if there is no such
    /// version.
    pub fn verification(&self) -> Result<Verification, Error> {
        self.node.verification_of(&self.view.projection, Some(self.view.version))
    }

    /// Returns a future that waits until this version is verified, and returns the result.
    pub fn verified(&self) -> Done<Verification> {
        Done::new(&self.node, self.view.clone(), None)
    }

    /// Lists the dead letters of this version in the order of their events.
    ///
    /// # Errors
    /// [`Error::Catalog`] if there is no such version; [`Error::Store`] if its view is not open on this node, or if the
    /// position after which the list begins is not in the journal.
    pub fn letters(&self) -> List<DeadLetter> {
        List::new(self)
    }

    /// Retries events that were set aside, in the order of their streams. It happens soon, possibly after this has
    /// returned; for a paused version, once it is resumed. [`Settled`](super::Settled) has their number.
    ///
    /// A letter whose event is applied is removed. A letter whose event is refused again stays, with one more attempt.
    /// If the order matters, later letters of its stream then stay as they were, without a retry. Events of these
    /// streams that are set aside during that time are retried as well.
    ///
    /// # Errors
    /// As [`letters`](Self::letters); [`Error::Behind`] for one event if an earlier event of its stream is set aside
    /// and has no decision.
    pub fn retry_letters(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Events, which, Wish::Retry)
    }

    /// Gives up events that were set aside, so that the view stays without them. Later events of their streams that
    /// were set aside stay so until they are retried. It happens soon, possibly after this has returned; for a paused
    /// version, once it is resumed.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn drop_letters(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Events, which, Wish::Drop)
    }

    /// Sets aside the event at which a segment of this version halts, under any policy. The event is tried once more.
    /// If it is refused again, it becomes a dead letter. If the order of streams matters, later events of its stream
    /// wait for it. It happens soon, possibly after this has returned, on the node that has the segment; for a paused
    /// version, once it is resumed.
    ///
    /// # Errors
    /// [`Error::NotHalted`] if no segment halts at the event; as [`letters`](Self::letters), including an event that is
    /// not in the journal.
    pub fn set_aside(&self, event: Position) -> Request<SetAside> {
        Request::new(&self.node, SetAside { view: self.view.clone(), event })
    }

    /// Lists the failed effects of this version, set aside or not, in the order in which they were emitted. For a
    /// version that is being cleaned up, lists all effects that are still to be made.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn effect_letters(&self) -> List<EffectLetter> {
        List::new(self)
    }

    /// Retries effects at once. An effect that was set aside is made before the waiting
    /// effects of its stream, and after those that were made meanwhile.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn retry_effects(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Effects, which, Wish::Retry)
    }

    /// Gives up failed effects. They are not made any more, except if a try is under way now.
    /// The later effects of their streams are made. The effect of one named event, and all effects of a version that is
    /// being cleaned up, are given up even if they were never tried.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn drop_effects(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Effects, which, Wish::Drop)
    }

    fn settles(&self, of: LettersOf, which: WhichLetters, wish: Wish) -> Request<Settle> {
        Request::new(&self.node, Settle { view: self.view.clone(), of, which, wish })
    }
}
