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
use tokio::time::Instant;

use crate::code::{HandlerError, Recorded};
use crate::event::{self, Event};
use crate::limits;
use crate::panics::{chain, panic_text};
use crate::subscribe::{Subscription, Tail};

/// A handler that a node calls with events as they are appended, such as to keep a cache in memory or to push to
/// connected clients.
///
/// It has no token: its progress is not stored, so after a restart it begins at the position that it names. Code that
/// must take effect exactly once belongs in a [`Projection`](crate::Projection); an action that must happen at least
/// once, in an effect of a projection.
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
    /// Its name in logs and in the status.
    const NAME: &'static str;
    /// The events that it wants.
    type Event: Event;

    /// Returns the position after which it begins. `head` is the end of the journal when the node starts. Default:
    /// `head`. A subscriber that begins beyond the end gets no events: this is logged as an error, and its status names
    /// both positions ([`WaitingOn::BeyondHead`]).
    fn after(&self, head: Position) -> Position {
        head
    }

    /// Returns the categories of the streams that it wants. Default: all.
    fn categories(&self) -> Option<Vec<String>> {
        None
    }

    /// Handles one event. It is called with each event once, in the order of the journal, one after the other. A slow
    /// subscriber blocks nobody else: it gets the events that it missed from the journal.
    ///
    /// # Errors
    /// The reason why it could not handle the event. The error is logged and counted in the status, and the next event
    /// follows. The event does not come again. A panic counts as an error.
    fn receive(&self, event: &Recorded<'_, Self::Event>) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// The state of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberStatus {
    /// Its name.
    pub name: &'static str,
    /// The position through which it got all events that it wants.
    pub position: Position,
    /// The number of positions between that and the head.
    pub lag: u64,
    /// The number of events that it failed to handle since the start.
    pub failed: u64,
    /// The last of these failures.
    pub last_failure: Option<SubscriberFailure>,
    /// Its wait reasons, apart from new events.
    pub waiting_on: Vec<WaitingOn>,
}

/// An event that a subscriber failed to handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberFailure {
    /// Its position.
    pub position: Position,
    /// The error.
    pub error: String,
}

/// The erased form of a subscriber.
pub(crate) trait AnySubscriber: Send + Sync {
    fn name(&self) -> &'static str;

    fn after(&self, head: Position) -> Position;

    fn filter(&self) -> Filter;

    /// Passes one event to it.
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

/// A subscriber that runs on a node.
pub(crate) struct Subscribed {
    name: &'static str,
    told: watch::Receiver<Told>,
    run: Mutex<Option<JoinHandle<()>>>,
}

/// Its progress, for the status.
#[derive(Clone, Debug, Default)]
struct Told {
    position: Position,
    failed: u64,
    last_failure: Option<SubscriberFailure>,
    waiting_on: Option<WaitingOn>,
}

impl Subscribed {
    /// Starts it. It ends with the journal, or when `stop` is sent or its sender is dropped.
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

    /// Waits until it got the rest of a closed journal, up to [`limits::STOP_TIME_MAX`] and not beyond `end`.
    pub(crate) async fn end(&self, end: Instant) {
        let Some(mut run) = self.run.lock().await.take() else { return };
        match tokio::time::timeout_at(end.min(Instant::now() + limits::STOP_TIME_MAX), &mut run).await {
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

/// Passes events to it until the journal ends. A failure is reported, and the next event follows.
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
            // A retry would succeed once the journal has grown past that position, and would lack the events before it.
            Err(error @ StoreError::BeyondHead { after: position, head }) => {
                tracing::error!(subscriber = subscriber.name(), %error, "it is given nothing");
                tell.send_modify(|told| told.waiting_on = Some(WaitingOn::BeyondHead { position, head }));
                return;
            }
            Err(error) => {
                tracing::warn!(subscriber = subscriber.name(), %error, "it cannot continue now, and retries");
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
