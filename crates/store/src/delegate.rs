//! Views around other views, and journals around other journals. A wrapper states for each call how it is passed on; the
//! signatures are written here.

/// The types that the signatures name.
#[doc(hidden)]
pub mod delegated {
    pub use std::time::Duration;

    pub use dacapo_model::{
        BegunEffect, EffectLetter, EffectOutcome, EffectsClaim, EventId, JournalId, Letter, Mark, MemberId,
        PendingEffect, Position, Refusal, Revision, Segment, StreamName, Timestamp, Token, Wish,
    };
    pub use tokio::sync::watch::Receiver;

    pub use crate::{
        Append, AppendError, Appended, Attached, Commit, CommitError, EventBatch, Filter, FirstRows, Health, Index,
        Limit, OfSegment, Outbox, StoreError, StreamInfo, Table, Value, ViewCopy, ViewHistory, ViewReader, ViewWriter,
        WhichEffects, WhichLetters,
    };
}

/// Implements a trait of views, or that of journals, for a type that has another one in its field `inner`. Each line names a method and says
/// how its calls pass:
///
/// | line | what a call does |
/// |---|---|
/// | `tokens;` | It passes straight to `inner`. |
/// | `tokens by meet("read tokens");` | The caller's own macro has it: `meet!(self, self.inner.tokens(), "read tokens")`. |
/// | `claim => claim_and_note;` | A method of the wrapper has it, with the same arguments. |
/// | `{ fn health(&self) -> ViewHealth { … } }` | It is written out. |
///
/// A method without a line is not implemented, which the compiler refuses where the trait has no default.
///
/// ```
/// use std::sync::Arc;
///
/// use dacapo_store::{StoreError, View, ViewLetters};
///
/// struct Counted {
///     inner: Arc<dyn View>,
/// }
///
/// macro_rules! told {
///     ($self:ident, $call:expr, $what:literal) => {{
///         println!($what);
///         $call.await
///     }};
/// }
///
/// dacapo_store::delegate! {
///     impl ViewLetters for Counted {
///         refusals;
///         letters by told("letters are read");
///         wish;
///         unspoken;
///     }
/// }
/// ```
#[macro_export]
macro_rules! delegate {
    (impl $trait:ident for $wrapper:ty { $($lines:tt)* }) => {
        $crate::delegate! { @next [$trait for $wrapper] [] $($lines)* }
    };

    // The lines, one after the other.
    (@next [$trait:ident for $wrapper:ty] [$($done:tt)*]) => {
        const _: () = {
            use $crate::delegated::*;

            #[::async_trait::async_trait]
            impl $crate::$trait for $wrapper { $($done)* }
        };
    };
    (@next $head:tt [$($done:tt)*] { $($own:tt)* } $($rest:tt)*) => {
        $crate::delegate! { @next $head [$($done)* $($own)*] $($rest)* }
    };
    (@next [$trait:ident for $wrapper:ty] $done:tt $method:ident; $($rest:tt)*) => {
        $crate::delegate! { @$trait $method [$trait for $wrapper] $done [straight] [$($rest)*] }
    };
    (@next [$trait:ident for $wrapper:ty] $done:tt $method:ident by $by:ident($($with:tt)*); $($rest:tt)*) => {
        $crate::delegate! { @$trait $method [$trait for $wrapper] $done [by $by $($with)*] [$($rest)*] }
    };
    (@next [$trait:ident for $wrapper:ty] $done:tt $method:ident => $own:ident; $($rest:tt)*) => {
        $crate::delegate! { @$trait $method [$trait for $wrapper] $done [own $own] [$($rest)*] }
    };

    // The method that a line becomes.
    (@make $head:tt [$($done:tt)*] [$($how:tt)*] [$($rest:tt)*]
        ($this:ident: $($receiver:tt)*) $method:ident($($name:ident: $type:ty),*) -> $returns:ty) => {
        $crate::delegate! { @next $head [
            $($done)*
            async fn $method($($receiver)*, $($name: $type),*) -> $returns {
                $crate::delegate!(@call [$($how)*] $this $method($($name),*))
            }
        ] $($rest)* }
    };
    (@call [straight] $this:ident $method:ident($($name:ident),*)) => { $this.inner.$method($($name),*).await };
    (@call [own $own:ident] $this:ident $method:ident($($name:ident),*)) => { $this.$own($($name),*).await };
    (@call [by $by:ident $($with:tt)*] $this:ident $method:ident($($name:ident),*)) => {
        $by!($this, $this.inner.$method($($name),*), $($with)*)
    };

    (@sync $head:tt [$($done:tt)*] [straight] [$($rest:tt)*] $method:ident() -> $returns:ty) => {
        $crate::delegate! { @next $head [
            $($done)*
            fn $method(&self) -> $returns {
                self.inner.$method()
            }
        ] $($rest)* }
    };

    // The signatures.
    (@Journal id $($line:tt)*) => {
        $crate::delegate! { @sync $($line)* id() -> JournalId }
    };
    (@Journal mark $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) mark(through: Position) -> Result<Mark, StoreError> }
    };
    (@Journal append $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) append(append: Append) -> Result<Appended, AppendError> }
    };
    (@Journal read $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            read(after: Position, filter: &Filter, limit: Limit) -> Result<EventBatch, StoreError>
        }
    };
    (@Journal read_places $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            read_places(after: Position, limit: Limit) -> Result<EventBatch, StoreError>
        }
    };
    (@Journal read_stream $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            read_stream(stream: &StreamName, after: Revision, limit: Limit) -> Result<EventBatch, StoreError>
        }
    };
    (@Journal stream_revision $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) stream_revision(stream: &StreamName) -> Result<Revision, StoreError>
        }
    };
    (@Journal position_of $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) position_of(id: EventId) -> Result<Option<Position>, StoreError>
        }
    };
    (@Journal position_before $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) position_before(time: Timestamp) -> Result<Position, StoreError>
        }
    };
    (@Journal streams $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            streams(category: Option<&str>, after: Option<&StreamName>, most: usize)
            -> Result<Vec<StreamInfo>, StoreError>
        }
    };
    (@Journal blocks $($line:tt)*) => {
        $crate::delegate! { @sync $($line)* blocks() -> bool }
    };
    (@Journal health $($line:tt)*) => {
        $crate::delegate! { @sync $($line)* health() -> Health }
    };
    (@Journal warnings $($line:tt)*) => {
        $crate::delegate! { @sync $($line)* warnings() -> Vec<String> }
    };
    (@Journal head $($line:tt)*) => {
        $crate::delegate! { @sync $($line)* head() -> Receiver<Position> }
    };
    (@Journal close $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) close() -> () }
    };
    (@ViewTokens tokens $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) tokens() -> Result<Vec<Token>, StoreError> }
    };
    (@ViewTokens history $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) history() -> Result<Option<ViewHistory>, StoreError> }
    };
    (@ViewTokens claim $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) claim(by: Option<MemberId>, seen: &[Token]) -> Result<Vec<Token>, StoreError>
        }
    };
    (@ViewTokens revoke $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) revoke() -> Result<(), StoreError> }
    };
    (@ViewTokens hold $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) hold(mark: Position) -> Result<Vec<Token>, StoreError> }
    };
    (@ViewTokens lift $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) lift(mark: Position) -> Result<(), StoreError> }
    };
    (@ViewTokens cap $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) cap(at: Option<Position>) -> Result<Vec<Token>, StoreError> }
    };
    (@ViewLetters refusals $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) refusals() -> Result<Vec<Refusal>, StoreError> }
    };
    (@ViewLetters letters $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) letters(after: Position, most: usize) -> Result<Vec<Letter>, StoreError>
        }
    };
    (@ViewLetters wish $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) wish(which: &WhichLetters, wish: Option<Wish>) -> Result<u64, StoreError>
        }
    };
    (@ViewLetters unspoken $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) unspoken() -> Result<Vec<Position>, StoreError> }
    };
    (@ViewOutbox effects_due $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            effects_due(now: Timestamp, longest: Duration, most: usize) -> Result<Vec<PendingEffect>, StoreError>
        }
    };
    (@ViewOutbox first_effect $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            first_effect(stream: &StreamName, after: Position) -> Result<Option<Position>, StoreError>
        }
    };
    (@ViewOutbox outbox $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) outbox(most: usize) -> Result<Outbox, StoreError> }
    };
    (@ViewOutbox effect_letters $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            effect_letters(after: u64, most: usize, untried: bool) -> Result<Vec<EffectLetter>, StoreError>
        }
    };
    (@ViewOutbox decide_effects $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) decide_effects(which: &WhichEffects, wish: Wish) -> Result<u64, StoreError>
        }
    };
    (@ViewOutbox effects_claim $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) effects_claim() -> Result<EffectsClaim, StoreError> }
    };
    (@ViewOutbox claim_effects $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            claim_effects(seen: EffectsClaim, next: EffectsClaim) -> Result<bool, StoreError>
        }
    };
    (@ViewOutbox begin_effects $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            begin_effects(claim: EffectsClaim, numbers: &[u64]) -> Result<Option<Vec<BegunEffect>>, StoreError>
        }
    };
    (@ViewOutbox settle_effects $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self)
            settle_effects(claim: EffectsClaim, settled: &[(u64, EffectOutcome)]) -> Result<(), StoreError>
        }
    };
    (@ViewRows missing_indexes $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) missing_indexes(tables: &[Table]) -> Result<Vec<(usize, usize)>, StoreError>
        }
    };
    (@ViewRows look_at_pages $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &self) look_at_pages(after: u64, most: u64) -> Result<Option<u64>, StoreError>
        }
    };
    (@ViewRows copy $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) copy() -> Result<ViewCopy, StoreError> }
    };
    (@ViewRows writer $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) writer() -> Result<Box<dyn ViewWriter>, StoreError> }
    };
    (@ViewRows reader $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &self) reader() -> Result<Box<dyn ViewReader>, StoreError> }
    };
    (@ViewWriter load $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            load(table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>
        }
    };
    (@ViewWriter load_of $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            load_of(table: &Table, key: &[Value]) -> Result<Option<OfSegment>, StoreError>
        }
    };
    (@ViewWriter segments_of $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            segments_of(table: &Table, keys: &[Vec<Value>]) -> Result<Vec<(usize, Segment)>, StoreError>
        }
    };
    (@ViewWriter keep_segments $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &mut self) keep_segments(table: &Table) -> Result<(), StoreError> }
    };
    (@ViewWriter is_empty $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &mut self) is_empty(table: &Table) -> Result<bool, StoreError> }
    };
    (@ViewWriter rows_with $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            rows_with(table: &Table, index: &Index, values: &[Vec<Value>])
            -> Result<Vec<(usize, Vec<Value>)>, StoreError>
        }
    };
    (@ViewWriter put $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            put(table: &Table, rows: &mut (dyn Iterator<Item = OfSegment> + Send)) -> Result<(), StoreError>
        }
    };
    (@ViewWriter delete $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            delete(table: &Table, keys: &mut (dyn Iterator<Item = OfSegment> + Send)) -> Result<(), StoreError>
        }
    };
    (@ViewWriter execute $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self) execute(sql: &str, parameters: &[Value]) -> Result<u64, StoreError>
        }
    };
    (@ViewWriter query $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            query(sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, StoreError>
        }
    };
    (@ViewWriter index $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self) index(table: &Table, index: &Index) -> Result<(), StoreError>
        }
    };
    (@ViewWriter attach $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &mut self) attach(copy: &ViewCopy) -> Result<Attached, StoreError> }
    };
    (@ViewWriter take_over_segments $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            take_over_segments(table: &Table, from: &Attached) -> Result<(), StoreError>
        }
    };
    (@ViewWriter commit $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &mut self) commit(commit: &Commit) -> Result<(), CommitError> }
    };
    (@ViewWriter rollback $($line:tt)*) => {
        $crate::delegate! { @make $($line)* (self: &mut self) rollback() -> Result<(), StoreError> }
    };
    (@ViewReader get $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            get(table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, StoreError>
        }
    };
    (@ViewReader select $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            select(table: &Table, columns: &[(usize, Value)], most: usize) -> Result<Vec<Vec<Value>>, StoreError>
        }
    };
    (@ViewReader page $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            page(table: &Table, after: Option<&[Value]>, most: usize) -> Result<Vec<Vec<Value>>, StoreError>
        }
    };
    (@ViewReader query $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self)
            query(sql: &str, parameters: &[Value]) -> Result<(Vec<String>, Vec<Vec<Value>>), StoreError>
        }
    };
    (@ViewReader first_rows $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self) first_rows(sql: &str, most: usize) -> Result<FirstRows, StoreError>
        }
    };
    (@ViewReader letters $($line:tt)*) => {
        $crate::delegate! {
            @make $($line)* (self: &mut self) letters(after: Position, most: usize) -> Result<Vec<Letter>, StoreError>
        }
    };
}
