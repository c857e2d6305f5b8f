//! A reactor that tells another service over HTTP: every movement of money is posted to one address.
//!
//! The effect is kept with the view in one transaction and posted after that, at least once, in the order of each
//! account. The header `Idempotency-Key` is the same for every try of one movement and for no other, so the receiver
//! tells repetitions apart: it keeps the keys that it has taken, and answers a known one with success.

use std::time::Duration;

use dacapo::effects::{Acts, Effect, EffectTry};
use dacapo::{HandlerError, Options, Projection, Recorded, Table, View};
use serde::{Deserialize, Serialize};

use crate::AccountEvent;

/// The header that carries the key.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Money came in or went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// The stream of the account.
    pub account: String,
    /// How much, in cents; negative when it went out.
    pub amount: i64,
}

impl Effect for Movement {
    const NAME: &'static str = "movement";
}

/// Posts movements. Its view has no rows, only what is still to be posted.
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// Where to.
    url: String,
    http: reqwest::Client,
    options: Options,
}

impl Webhooks {
    /// Posts to `url`. A post that is not answered within `patience` has failed, and is tried again.
    ///
    /// # Errors
    /// [`reqwest::Error`] when the HTTP client cannot be set up.
    pub fn new(url: impl Into<String>, patience: Duration, options: Options) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(patience).no_proxy().build()?;
        Ok(Self { url: url.into(), http, options })
    }
}

impl Projection for Webhooks {
    const NAME: &'static str = "webhooks";
    const VERSION: u32 = 1;
    const TABLES: &'static [Table] = &[];
    type Event = AccountEvent;

    fn options(&self) -> Options {
        self.options.clone()
    }

    async fn apply(&self, event: &Recorded<'_, AccountEvent>, view: &mut View) -> Result<(), HandlerError> {
        let amount = match &event.data {
            AccountEvent::Opened { .. } => return Ok(()),
            AccountEvent::Deposited { amount, .. } => *amount,
            AccountEvent::Withdrawn { amount, .. } => -amount,
        };
        Ok(view.emit(&Movement { account: event.stream.to_owned(), amount })?)
    }
}

impl Acts<Movement> for Webhooks {
    async fn act(&self, movement: &Movement, attempt: &EffectTry) -> Result<(), HandlerError> {
        let post = self.http.post(&self.url).header(IDEMPOTENCY_KEY, attempt.key.to_string()).json(movement);
        post.send().await?.error_for_status()?;
        Ok(())
    }
}
