//! The stored form of a view's data beside its rows, as the columns of its tables, and its conversion.
//!
//! Every store of views has these columns with these texts. Each store makes and finds them in its own way.

use dacapo_model::{
    Applied, BegunEffect, EffectLetter, EffectsClaim, Epoch, EventType, Letter, LetterKind, MemberId, NewEffect,
    PendingEffect, Position, Refusal, ReplayMark, Segment, SegmentCount, StreamName, Timestamp, Token, Wish, limits,
};

/// A row of the table of tokens.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns by their names")]
pub struct TokenForm {
    pub segment: i64,
    pub epoch: i64,
    pub position: i64,
    pub claimed_by: Option<Vec<u8>>,
    pub held_for: Option<i64>,
    pub cap: Option<i64>,
    pub counted_after: i64,
    pub counted: i64,
    pub replay_request: Option<i64>,
    pub replay_through: Option<i64>,
}

/// A row of the table of refusals.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns by their names")]
pub struct RefusalForm {
    pub segment: i64,
    pub position: i64,
    pub attempts: i64,
    pub error: String,
    pub since: i64,
    pub due: i64,
}

/// A row of the table of letters.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns by their names")]
pub struct LetterForm {
    pub position: i64,
    pub segment: i64,
    pub stream: String,
    pub event_type: String,
    pub kind: String,
    pub first: Option<i64>,
    pub error: String,
    pub attempts: i64,
    pub recorded: i64,
    pub wish: Option<String>,
}

/// A row of the outbox.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns by their names")]
pub struct EffectForm {
    pub number: i64,
    pub position: i64,
    pub ordinal: i64,
    pub segment: i64,
    pub stream: String,
    pub name: String,
    pub payload: Vec<u8>,
    pub attempts: i64,
    pub due: Option<i64>,
    pub error: Option<String>,
    pub aside: Option<i64>,
}

/// The table with the description of the view.
pub const VIEW: &str = "_dacapo_view";
/// The table of the view's tokens.
pub const TOKENS: &str = "_dacapo_tokens";

/// A fault in the data that a view keeps beside its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The table with the fault.
    pub table: &'static str,
    /// The fault.
    pub found: String,
}

fn member(bytes: Vec<u8>) -> Result<MemberId, String> {
    let wrong = |bytes: Vec<u8>| format!("the id of a member has 16 bytes, this one has {}", bytes.len());
    bytes.try_into().map(MemberId::from_bytes).map_err(wrong)
}

impl TokenForm {
    /// Returns the token.
    ///
    /// # Errors
    /// The fault of the row.
    pub fn token(self) -> Result<Token, String> {
        let mark = |(request, through)| Ok::<_, String>(ReplayMark { request: at(request)?, through: at(through)? });
        Ok(Token {
            segment: segment(self.segment)?,
            epoch: Epoch::new(whole(self.epoch, "an epoch")?),
            position: at(self.position)?,
            claimed_by: self.claimed_by.map(member).transpose()?,
            held_for: self.held_for.map(at).transpose()?,
            cap: self.cap.map(at).transpose()?,
            applied: Applied { after: at(self.counted_after)?, events: whole(self.counted, "a count")? },
            replay: self.replay_request.zip(self.replay_through).map(mark).transpose()?,
        })
    }
}

/// Returns the tokens of a view. `segments` are the numbers of segments in the rows that describe the view. There must
/// be one such row, and one token for each segment: rows of a segment without a token would be shown permanently as
/// they are, as if they covered the same position as the others.
///
/// # Errors
/// The fault of the rows.
pub fn tokens(stored: Vec<TokenForm>, segments: &[i64]) -> Result<Vec<Token>, Wrong> {
    let [count] = segments else {
        let found = format!("the table must have one row, and it has {}", segments.len());
        return Err(Wrong { table: VIEW, found });
    };
    tokens_of(stored, *count).map_err(|found| Wrong { table: TOKENS, found })
}

fn tokens_of(stored: Vec<TokenForm>, count: i64) -> Result<Vec<Token>, String> {
    let tokens = stored.into_iter().map(TokenForm::token).collect::<Result<Vec<_>, _>>()?;
    let of = |segment: i64| tokens.iter().filter(|token| i64::from(token.segment.get()) == segment).count();
    let list = |wrong: &dyn Fn(usize) -> bool| {
        let these = (0..count).filter(|segment| wrong(of(*segment))).map(|segment| segment.to_string());
        these.collect::<Vec<_>>().join(", ")
    };
    let (none, several) = (list(&|tokens| tokens == 0), list(&|tokens| tokens > 1));
    if !none.is_empty() {
        return Err(format!("of {count} segments these have no token: {none}"));
    }
    if !several.is_empty() {
        return Err(format!("of {count} segments these have several tokens: {several}"));
    }
    match tokens.iter().find(|token| i64::from(token.segment.get()) >= count) {
        Some(token) => Err(format!("there is a token of segment {}, and there are {count} segments", token.segment)),
        None => Ok(tokens),
    }
}

impl RefusalForm {
    /// Returns the refusal.
    ///
    /// # Errors
    /// The fault of the row.
    pub fn refusal(self) -> Result<Refusal, String> {
        Ok(Refusal {
            segment: segment(self.segment)?,
            position: at(self.position)?,
            attempts: whole(self.attempts, "a number of tries")?,
            error: self.error,
            since: Timestamp::from_micros(self.since),
            due: Timestamp::from_micros(self.due),
        })
    }
}

impl LetterForm {
    /// Returns the letter.
    ///
    /// # Errors
    /// The fault of the row.
    pub fn letter(self) -> Result<Letter, String> {
        let position = at(self.position)?;
        let kind = match (self.kind.as_str(), self.first) {
            ("refused", _) => LetterKind::Refused,
            ("skipped", _) => LetterKind::Skipped,
            ("blocked" | "behind", Some(first)) => LetterKind::Blocked { first: at(first)? },
            (other, _) => return Err(format!("the kind {other:?} of the letter at {position} is not known")),
        };
        let wish = match self.wish.as_deref() {
            None => None,
            Some("retry") => Some(Wish::Retry),
            Some("drop") => Some(Wish::Drop),
            Some(other) => return Err(format!("the wish {other:?} for the letter at {position} is not known")),
        };
        Ok(Letter {
            position,
            segment: segment(self.segment)?,
            stream: StreamName::new(&self.stream).map_err(|invalid| invalid.to_string())?,
            event_type: EventType::new(&self.event_type).map_err(|invalid| invalid.to_string())?,
            kind,
            error: self.error,
            attempts: whole(self.attempts, "a number of tries")?,
            recorded: Timestamp::from_micros(self.recorded),
            wish,
        })
    }
}

impl EffectForm {
    /// Returns the effect, with the time at which it was set aside.
    ///
    /// # Errors
    /// The fault of the row.
    pub fn letter(self) -> Result<EffectLetter, String> {
        let aside = self.aside.map(Timestamp::from_micros);
        Ok(EffectLetter { pending: self.pending()?, aside })
    }

    /// Returns the effect.
    ///
    /// # Errors
    /// The fault of the row.
    pub fn pending(self) -> Result<PendingEffect, String> {
        Ok(PendingEffect {
            number: whole(self.number, "a number")?,
            effect: NewEffect {
                position: at(self.position)?,
                ordinal: whole(self.ordinal, "an ordinal")?,
                segment: segment(self.segment)?,
                stream: StreamName::new(&self.stream).map_err(|invalid| invalid.to_string())?,
                name: self.name,
                payload: self.payload,
            },
            attempts: whole(self.attempts, "a number of tries")?,
            error: self.error,
            due: Timestamp::from_micros(self.due.unwrap_or_default()),
        })
    }
}

/// Returns the claim on the effects from its stored form; the default, which no member has, if nothing is stored.
///
/// # Errors
/// The fault of the row.
pub fn effects_claim(stored: Option<(i64, Option<Vec<u8>>)>) -> Result<EffectsClaim, String> {
    let Some((epoch, owner)) = stored else { return Ok(EffectsClaim::default()) };
    Ok(EffectsClaim { epoch: Epoch::new(whole(epoch, "an epoch")?), owner: owner.map(member).transpose()? })
}

/// Returns an effect that is begun, with the epoch under which it was begun before.
///
/// # Errors
/// The fault of the row.
pub fn begun(number: u64, before: Option<i64>) -> Result<BegunEffect, String> {
    let before = before.map(|epoch| whole(epoch, "an epoch").map(Epoch::new)).transpose()?;
    Ok(BegunEffect { number, before })
}

/// Returns the stored form of a position. A position above every number that a store can hold comes from outside and is
/// in no journal. It is stored as the largest number, which is in no journal either.
pub fn number(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

/// Returns the position of a stored number; `None` if it is not a position.
pub fn position(number: i64) -> Option<Position> {
    u64::try_from(number).ok().map(Position::new)
}

/// Returns the stored form of a digest, which has the same bits.
pub fn digest_number(digest: u64) -> i64 {
    digest.cast_signed()
}

/// Returns the digest of a stored number.
pub fn digest(number: i64) -> u64 {
    number.cast_unsigned()
}

/// Returns the stored form of an epoch.
#[expect(clippy::expect_used, reason = "no segment is claimed that often")]
pub fn epoch_number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.get()).expect("no segment is claimed that often")
}

/// Returns the stored form of a count of events.
#[expect(clippy::expect_used, reason = "no journal is that long")]
pub fn count(events: u64) -> i64 {
    i64::try_from(events).expect("no journal is that long")
}

/// Returns the stored form of a letter's kind, with the first event of which the stream was set aside.
pub fn kind_form(kind: LetterKind) -> (&'static str, Option<Position>) {
    match kind {
        LetterKind::Refused => ("refused", None),
        LetterKind::Blocked { first } => ("blocked", Some(first)),
        LetterKind::Skipped => ("skipped", None),
    }
}

/// Returns the stored form of a wish.
pub fn wish_name(wish: Wish) -> &'static str {
    match wish {
        Wish::Retry => "retry",
        Wish::Drop => "drop",
    }
}

/// Returns the position of a stored number.
///
/// # Errors
/// The fault, if there is no such position.
pub fn at(number: i64) -> Result<Position, String> {
    whole(number, "a position").map(Position::new)
}

#[expect(clippy::expect_used, reason = "the limit is a count")]
fn segment(number: i64) -> Result<Segment, String> {
    let every = SegmentCount::new(limits::SEGMENTS_MAX).expect("the limit is a count");
    every.segment(whole(number, "a segment")?).map_err(|_| format!("a segment is out of range: {number}"))
}

fn whole<T: TryFrom<i64>>(number: i64, what: &str) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("{what} is out of range: {number}"))
}
