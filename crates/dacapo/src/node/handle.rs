//! A projection and a version of it, as operators name them: each operation is a method of one of the two.

use dacapo_model::{
    Cancel, CatalogCommand, EffectLetter, LettersOf, Position, ProjectionName, VersionId, ViewId, Wish,
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
use dacapo_model::FlipKind;

/// A projection on a node: what is asked here is about the version that each operation says, such as the one that serves.
/// Clones are the same projection.
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
    /// Its name.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// One version of it.
    pub fn version(&self, version: VersionId) -> VersionHandle {
        self.node.version(view_of(&self.name, version))
    }

    /// Schedules a new build beside the serving version: of the newest code that a live node carries, or of
    /// [`code`](Request::code). It takes the place of a version that is being built. Any node can be asked, also one
    /// without code. The build is done once the new version is verified.
    ///
    /// # Errors
    /// [`Error::NotCarried`] and [`Error::NoSuchCode`] when no live node carries it. [`Error::WouldDiscard`] where it
    /// would take the place of a version that only has to be flipped to: [`discard`](Request::discard) says that this is
    /// wanted.
    pub fn rebuild(&self) -> Request<Rebuild> {
        Request::new(&self.node, Rebuild::of(self.name.clone()))
    }

    /// Asks that readers move to the newest version above the serving one. It happens as soon as that version covers
    /// everything that was ever shown. [`VersionHandle::flip`] names the version.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version; [`Error::Catalog`] when the catalog declines. While it is waited for,
    /// [`Error::FlipAborted`] when it was given up.
    pub fn flip(&self) -> Request<Flip> {
        Request::new(&self.node, Flip { projection: self.name.clone(), to: None, kind: FlipKind::Flip })
    }

    /// Asks that readers move back to the version below the serving one that served last. [`VersionHandle::rollback`]
    /// names the version.
    ///
    /// # Errors
    /// As [`flip`](Self::flip).
    pub fn rollback(&self) -> Request<Flip> {
        Request::new(&self.node, Flip { projection: self.name.clone(), to: None, kind: FlipKind::Rollback })
    }

    /// Asks that the version that is being built is verified again. Until that is done its verdict does not count.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version; [`Error::Catalog`] when it is not being built.
    pub fn verify_again(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::again(self.name.clone(), None))
    }

    /// Answers for the version that was not found right: it may serve all the same. Who and why are kept.
    ///
    /// # Errors
    /// [`Error::NoReason`] without [`because`](Request::because); [`Error::NoTarget`] without such a version;
    /// [`Error::Catalog`] when there is no verdict to waive.
    pub fn waive(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::waived(self.name.clone(), None))
    }

    /// Lets past events go through the serving version again, in its own view. Its projection says in
    /// [`Options::in_place`](crate::Options::in_place) that they may; what it costs readers is said there.
    ///
    /// # Errors
    /// [`Error::NotInPlace`] when the projection does not let it; [`Error::ReplayUnderWay`] while another one runs,
    /// with how far that is; [`Error::NoTarget`] when there is nothing to replay; [`Error::Catalog`] when the catalog
    /// declines, as during a flip.
    pub fn replay(&self, from: ReplayFrom) -> Request<Replay> {
        Request::new(&self.node, Replay { projection: self.name.clone(), version: None, from })
    }

    /// Cancels what was asked for and has not happened: this, or with `None` the only thing that there is to cancel, of
    /// the only version that it could be.
    ///
    /// A flip is given up until it is confirmed, also one that would come by itself once the version is ready; the version
    /// flips only on command from then on. A rebuild is given up, and its view dropped, until the version serves. A
    /// clean-up is given up until the view is being dropped: a version that stood by stands by anew, one that was being
    /// built is built on unless another one is by then. A replay that keeps its rows is left where it is until it has
    /// ended; one that resets them is given up until it has begun.
    ///
    /// # Errors
    /// [`Error::Catalog`] when it is too late; [`Error::NoTarget`] when there is nothing to cancel, or more than one thing.
    pub fn cancel(&self, what: impl Into<Option<Cancel>>) -> Request<Cancellation> {
        Request::new(&self.node, Cancellation { projection: self.name.clone(), version: None, what: what.into() })
    }

    /// How the verification stands: of the newest version that is being built, or else of the newest that was verified.
    ///
    /// # Errors
    /// [`Error::NoTarget`] without such a version.
    pub fn verification(&self) -> Result<Verification, Error> {
        self.node.verification_of(&self.name, None)
    }
}

impl VersionHandle {
    /// Which version this is.
    pub fn view(&self) -> &ViewId {
        &self.view
    }

    /// Asks that readers move to this version. It happens as soon as it covers everything that was ever shown.
    ///
    /// # Errors
    /// As [`ProjectionHandle::flip`].
    pub fn flip(&self) -> Request<Flip> {
        self.moves(FlipKind::Flip)
    }

    /// Asks that readers move back to this version, which is below the serving one.
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

    /// As [`ProjectionHandle::verify_again`], of this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::verify_again`].
    pub fn verify_again(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::again(self.view.projection.clone(), Some(self.view.version)))
    }

    /// As [`ProjectionHandle::waive`], of this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::waive`].
    pub fn waive(&self) -> Request<Examine> {
        Request::new(&self.node, Examine::waived(self.view.projection.clone(), Some(self.view.version)))
    }

    /// As [`ProjectionHandle::replay`], of this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::replay`].
    pub fn replay(&self, from: ReplayFrom) -> Request<Replay> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Replay { projection, version: Some(version), from })
    }

    /// As [`ProjectionHandle::cancel`], of this version.
    ///
    /// # Errors
    /// As [`ProjectionHandle::cancel`].
    pub fn cancel(&self, what: impl Into<Option<Cancel>>) -> Request<Cancellation> {
        let ViewId { projection, version } = self.view.clone();
        Request::new(&self.node, Cancellation { projection, version: Some(version), what: what.into() })
    }

    /// Drops the view of this version, which does not serve: ends its stand-by, or gives up a rebuild. One that is on its
    /// way to events whose effects are its to make, such as those that were appended during the flip, is waited for, for
    /// up to [`limits::SPEAK_TIME_MAX`](crate::limits::SPEAK_TIME_MAX). It is done once the view is dropped.
    ///
    /// # Errors
    /// [`Error::Catalog`] when the catalog declines.
    pub fn clean_up(&self) -> Request<CleanUp> {
        Request::new(&self.node, CleanUp(self.view.clone()))
    }

    /// Applies no more events to the view of this version, after the batch it is in, until it is resumed. A copy that it
    /// begins as or an index under way is given up and begun again then. It survives a restart.
    ///
    /// # Errors
    /// [`Error::Catalog`] when no events are applied to it anyway.
    pub fn pause(&self) -> Request<Order> {
        Request::new(&self.node, Order::new("pause", &self.view, CatalogCommand::Pause))
    }

    /// Applies events to the view of this version again, and tries at once what its handler refused, and a copy or a reset
    /// that failed.
    ///
    /// # Errors
    /// [`Error::Catalog`] when no events are applied to a version in its phase.
    pub fn resume(&self) -> Request<Order> {
        Request::new(&self.node, Order::new("resume", &self.view, CatalogCommand::Resume))
    }

    /// How the verification of this version stands.
    ///
    /// # Errors
    /// [`Error::NoTarget`] when it was never verified and is not being built; [`Error::Catalog`] without such a version.
    pub fn verification(&self) -> Result<Verification, Error> {
        self.node.verification_of(&self.view.projection, Some(self.view.version))
    }

    /// Waits until this version is verified, once it is awaited, and tells what came of it.
    pub fn verified(&self) -> Done<Verification> {
        Done::new(&self.node, self.view.clone(), None)
    }

    /// Lists the dead letters of this version in the order of their events.
    ///
    /// # Errors
    /// [`Error::Catalog`] without such a version; [`Error::Store`] when its view is not open on this node, or when the
    /// position that it begins after is not in the journal.
    pub fn letters(&self) -> List<DeadLetter> {
        List::new(self)
    }

    /// Hands events that were set aside to the handler again, in the order of their streams, and returns how many
    /// there are. It happens soon, or once a version that is paused is resumed, and maybe after this has returned: a
    /// letter that goes was applied, one that is refused again stays with one attempt more, and where the order matters
    /// those behind it are left as they were, not to be retried. Events of these streams that are set aside behind the
    /// last of them meanwhile are tried as well.
    ///
    /// # Errors
    /// As [`letters`](Self::letters); [`Error::Behind`] for one event that waits behind another of its stream, for which
    /// nothing is wished.
    pub fn retry_letters(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Events, which, Wish::Retry)
    }

    /// Gives up events that were set aside, so that the view goes without them, and returns how many there are. Later
    /// events of their streams that were set aside behind them stay so until they are retried. It happens soon, or once a
    /// version that is paused is resumed, and maybe after this has returned.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn drop_letters(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Events, which, Wish::Drop)
    }

    /// Lets the event be set aside at which a segment of this version halts, whatever the policy is: it is tried once more,
    /// and should it be refused again it becomes a dead letter like any other. Where the order of streams matters, later
    /// events of its stream wait behind it. It happens soon, maybe after this has returned, on whichever node has the
    /// segment, and once a version that is paused is resumed.
    ///
    /// # Errors
    /// [`Error::NotHalted`] when no segment halts at the event; as [`letters`](Self::letters), also when it is not in the
    /// journal.
    pub fn set_aside(&self, event: Position) -> Request<SetAside> {
        Request::new(&self.node, SetAside { view: self.view.clone(), event })
    }

    /// Lists the effects of this version that were tried in vain, set aside or not, in the order in which they were
    /// emitted. Of a version that is cleaned up, all that it owes.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn effect_letters(&self) -> List<EffectLetter> {
        List::new(self)
    }

    /// Lets effects be tried at once, and returns how many there are. One that was set aside is made before what waits in
    /// its stream, and after what was made of it meanwhile.
    ///
    /// # Errors
    /// As [`letters`](Self::letters).
    pub fn retry_effects(&self, which: WhichLetters) -> Request<Settle> {
        self.settles(LettersOf::Effects, which, Wish::Retry)
    }

    /// Gives up effects that were tried in vain, and returns how many there are: they are not made any more, unless a try
    /// is under way just now, and the later ones of their streams are. That of one event is given up, and all of a version
    /// that is cleaned up, also when it was never tried.
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
