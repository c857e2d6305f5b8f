//! Subscribers: handlers that a node calls with events as they are appended.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::{BackOff, Position, WaitingOn};
use dacapo_store::{EventRef, Filter, StoreError, Streams};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::code::{HandlerError, Recorded};
use crate::event::{self, Event};
use crate::limits;
use crate::panics::{chain, panic_text};
use crate::subscribe::{Subscription, Tail};

/// A handler that a node calls with events as they are appended on it, such as to keep a cache in memory or to push
/// to connected clients.
///
/// It has no token: nobody remembers how far it came, so after a restart it begins where it says. What must be kept
/// exactly once belongs into a [`Projection`](crate::Projection); what must happen at least once, into an effect of
/// one.
///
/// ```
/// # use dacapo::{Event, HandlerError, Recorded};
/// # use dacapo::subscribe::Subscriber;
/// # use tokio::sync::broadcast;
/// # #[derive(Event)]
/// # enum AccountEvent { Deposited { amount: i64 } }
/// /// Tells the clients that are connected to this process.
/// struct Push(broadcast::Sender<i64>);
///
/// impl Subscriber for Push {
///     const NAME: &'static str = "push";
///     type Event = AccountEvent;
///
///     async fn receive(&self, event: &Recorded<'_, AccountEvent>) -> Result<(), HandlerError> {
///         let AccountEvent::Deposited { amount } = event.data;
///         // Nobody may be connected.
///         self.0.send(amount).ok();
///         Ok(())
///     }
/// }
/// ```
pub trait Subscriber: Send + Sync + 'static {
    /// What it is called in logs and in the status.
    const NAME: &'static str;
    /// The events it wants.
    type Event: Event;

    /// Where it begins: behind this position. `head` is the end of the journal when the node starts, where it begins
    /// unless it says otherwise. One that begins beyond the end is given nothing: it is logged as an error, and its
    /// status names both positions ([`WaitingOn::BeyondHead`]).
    fn after(&self, head: Position) -> Position {
        head
    }

    /// Only streams of these categories; all unless set.
    fn categories(&self) -> Option<Vec<String>> {
        None
    }

    /// Takes one event. It is called with each once, in the order of the journal, one after the other. A slow one
    /// holds up nobody but itself: it is given what it missed from the journal.
    ///
    /// # Errors
    /// Whatever went wrong. It is logged and counted in the status, and the next event follows: an error here does not
    /// make the event come again, and a panic is an error.
    fn receive(&self, event: &Recorded<'_, Self::Event>) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// How a subscriber is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberStatus {
    /// Its name.
    pub name: &'static str,
    /// It was given everything through here that it wants.
    pub position: Position,
    /// How many positions that is behind the head.
    pub lag: u64,
    /// How many events it failed to take since the start.
    pub failed: u64,
    /// The last of those.
    pub last_failure: Option<SubscriberFailure>,
    /// What it waits on, other than events.
    pub waiting_on: Vec<WaitingOn>,
}

/// An event that a subscriber failed to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberFailure {
    /// Its position.
    pub position: Position,
    /// What went wrong.
    pub error: String,
}

/// The erased form of a subscriber.
pub(crate) trait AnySubscriber: Send + Sync {
    fn name(&self) -> &'static str;

    fn after(&self, head: Position) -> Position;

    fn filter(&self) -> Filter;

    /// Hands one event to it.
    fn receive<'a>(&'a self, place: EventRef<'a>) -> BoxFuture<'a, Result<(), String>>;
}

impl<S: Subscriber> AnySubscriber for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn after(&self, head: Position) -> Position {
        Subscriber::after(self, head)
    }

    fn filter(&self) -> Filter {
        Filter {
            streams: self.categories().map_or(Streams::User, Streams::Categories),
            types: Some(S::Event::TYPES.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    fn receive<'a>(&'a self, place: EventRef<'a>) -> BoxFuture<'a, Result<(), String>> {
        let receive = async move {
            let Some(data) = event::read::<S::Event>(&place)? else { return Ok(()) };
            Subscriber::receive(self, &Recorded::new(data, place)).await
        };
        Box::pin(AssertUnwindSafe(receive).catch_unwind().map(|done| match done {
            Ok(done) => done.map_err(|error| chain(&*error)),
            Err(panic) => Err(format!("it panicked: {}", panic_text(&*panic))),
        }))
    }
}

/// A subscriber at work on a node.
pub(crate) struct Subscribed {
    name: &'static str,
    told: watch::Receiver<Told>,
    run: Mutex<Option<JoinHandle<()>>>,
}

/// How far it is, for the status.
#[derive(Clone, Debug, Default)]
struct Told {
    position: Position,
    failed: u64,
    last_failure: Option<SubscriberFailure>,
    waiting_on: Option<WaitingOn>,
}

impl Subscribed {
    /// Lets it begin. It ends with the journal, or with whoever has the other side of `stop`.
    pub(crate) fn begin(subscriber: Arc<dyn AnySubscriber>, tail: Arc<Tail>, mut stop: watch::Receiver<bool>) -> Self {
        let head = *tail.journal().head().borrow();
        let position = subscriber.after(head);
        let (tell, told) = watch::channel(Told { position, ..Told::default() });
        let name = subscriber.name();
        let run = tokio::spawn(async move {
            tokio::select! {
                () = run(&*subscriber, tail, position, tell) => {}
                () = async { while stop.changed().await.is_ok() {} } => {}
            }
        });
        Self { name, told, run: Mutex::new(Some(run)) }
    }

    pub(crate) fn status(&self, head: Position) -> SubscriberStatus {
        let Told { position, failed, last_failure, waiting_on } = self.told.borrow().clone();
        let (name, lag) = (self.name, head.since(position));
        SubscriberStatus { name, position, lag, failed, last_failure, waiting_on: waiting_on.into_iter().collect() }
    }

    /// Waits until it was given the rest of a journal that is closed, for up to [`limits::STOP_TIME_MAX`].
    pub(crate) async fn end(&self) {
        let Some(mut run) = self.run.lock().await.take() else { return };
        match tokio::time::timeout(limits::STOP_TIME_MAX, &mut run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(subscriber = self.name, %error, "it ended by a bug in dacapo"),
            Err(_) => {
                run.abort();
                let position = self.told.borrow().position;
                tracing::warn!(subscriber = self.name, %position, "it did not take the rest in time, and is left");
            }
        }
    }
}

/// Hands over events until the journal ends. Whatever it fails to take is told, and the next one follows.
async fn run(subscriber: &dyn AnySubscriber, tail: Arc<Tail>, after: Position, tell: watch::Sender<Told>) {
    let mut back_off = BackOff::new(limits::SUBSCRIBER_PAUSE_FIRST, limits::SUBSCRIBER_PAUSE_MAX);
    let mut begun = None;
    loop {
        let looked = match &mut begun {
            None => match Subscription::on(Arc::clone(&tail), after, subscriber.filter()).await {
                Ok(subscription) => begun.insert(subscription).look().await,
                Err(error) => Err(error),
            },
            Some(subscription) => subscription.look().await,
        };
        let batch = match looked {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            // Tried again, it would go on as soon as the journal has grown past there, and lack what came before.
            Err(error @ StoreError::BeyondHead { after: position, head }) => {
                tracing::error!(subscriber = subscriber.name(), %error, "it is given nothing");
                tell.send_modify(|told| told.waiting_on = Some(WaitingOn::BeyondHead { position, head }));
                return;
            }
            Err(error) => {
                tracing::warn!(subscriber = subscriber.name(), %error, "it cannot go on for the moment");
                tell.send_modify(|told| told.waiting_on = Some(WaitingOn::Store { error: error.to_string() }));
                tokio::time::sleep(back_off.pause()).await;
                continue;
            }
        };
        back_off.reset();
        for place in batch.iter() {
            let position = place.position;
            let received = subscriber.receive(place).await;
            if let Err(error) = &received {
                tracing::warn!(subscriber = subscriber.name(), %position, error, "a subscriber fails to take an event");
            }
            tell.send_modify(|told| {
                told.position = position;
                if let Err(error) = received {
                    told.failed += 1;
                    told.last_failure = Some(SubscriberFailure { position, error });
                }
            });
        }
        tell.send_modify(|told| (told.position, told.waiting_on) = (batch.through, None));
    }
}
