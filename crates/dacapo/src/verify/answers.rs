//! Answers of two versions to the same queries: to the declared ones, and to a share of the live ones.
//!
//! Live queries are only recorded. In the background, a few at a time, they are put to both versions at one identical
//! position. So nobody waits for that and no answer fails because of it. If there are too many, some are dropped.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use dacapo_model::rebuild::stage;
use dacapo_model::verify::FindingKind;
use dacapo_model::{Catalog, Phase, Position, Stage, ViewId};
use dacapo_store::StoreError;
use futures::FutureExt;
use tokio::sync::mpsc;

use crate::code::{AnyQuery, Shadow, Tally, VersionCode, Words};
use crate::limits;
use crate::panics::{chain, panic_text};
use crate::verify::meet::{self, Met, NotMet};
use crate::verify::subject;
use crate::versions::{Noted, Shadowing, Subject, Versions};
use crate::view::{ReadView, ViewError};

/// Returns true if live queries should be put to a version with this code.
pub(crate) fn are_wanted(carried: &VersionCode) -> bool {
    carried.options.verify.shadow_share > 0.0 && !carried.shadows.is_empty()
}

/// Puts live queries to a version until it is not being built any more. If it must be verified again, has other code,
/// or is compared with another version, this begins again, since the earlier findings are about another subject.
pub(crate) async fn drive(versions: Arc<Versions>, id: ViewId) {
    let mut asked = None;
    // A request stays part of the subject after it is answered.
    let now = |asked: Option<Position>| {
        let subject = Subject::of(&versions, &id, |state| state.phase == Phase::Initializing)?;
        Some(Subject { asked: subject.asked.or(asked), ..subject })
    };
    while let Some(subject) = now(asked).filter(|subject| are_wanted(&subject.code)) {
        // Queries that other members answer are not put to it. One member that caps it from time to time is enough.
        if !versions.cluster.drives(&id) {
            break;
        }
        asked = subject.asked;
        let (shadowing, mut queries) = Shadowing::new(id.clone(), subject);
        let shadowing = Arc::new(shadowing);
        versions.begin_shadowing(Arc::clone(&shadowing));
        tokio::select! {
            biased;
            () = subject::changed(&versions, &shadowing.subject, || now(asked)) => {}
            () = put_all(&versions, &shadowing, &mut queries) => {}
        }
    }
    versions.end_shadowing(&id);
}

/// Puts live queries to a version without end.
async fn put_all(versions: &Versions, shadowing: &Shadowing, queries: &mut mpsc::Receiver<Noted>) {
    loop {
        let mut some = Vec::new();
        queries.recv_many(&mut some, limits::SHADOWS_MAX).await;
        match put(versions, shadowing, &some).await {
            Ok(tally) => shadowing.add(tally),
            Err(why) => {
                tracing::debug!(view = %shadowing.id, why, "live queries are not put to it now");
                shadowing.missed(some.len() as u64, why);
            }
        }
        tokio::time::sleep(limits::SHADOW_REST).await;
    }
}

/// Puts queries to both versions, or returns the reason why that is impossible now.
async fn put(versions: &Versions, shadowing: &Shadowing, queries: &[Noted]) -> Result<Tally, String> {
    let Shadowing { id, subject: Subject { code: carried, against, old_code, .. }, .. } = shadowing;
    let catalog = versions.catalog.current();
    let serving = against.ok_or("no version serves")?;
    let tokens = versions.tokens(id).await.map_err(|error| error.to_string())?.unwrap_or_default();
    let state = catalog.version(id).ok_or("it is gone")?;
    let bare = versions.is_bare(id).await.map_err(|error| error.to_string())?;
    if !stage(state, &tokens, bare, versions.head()).is_some_and(Stage::has_caught_up) {
        return Err("it has not caught up".into());
    }
    let old = ViewId { version: serving, ..id.clone() };
    let old_code = old_code.as_ref().ok_or("the code of the serving version is not here")?;
    let flips = |catalog: &Arc<Catalog>| {
        catalog.projections.get(&id.projection).is_some_and(|projection| projection.flips_before(id.version))
    };
    let mut changes = versions.catalog.watch();
    let met = tokio::select! {
        biased;
        _ = changes.wait_for(flips) => return Err("a flip is under way".into()),
        met = meet::meet(versions, &old, id, limits::SHADOW_MEET_TIME_MAX.min(carried.options.verify.meet_time_max)) => met,
    };
    let mut met = met.map_err(|error| error.to_string())?.map_err(NotMet::into_why)?;
    let mut tally = Tally::default();
    for Noted { query, of } in queries {
        let shadow = &carried.shadows[of];
        let answered = ask_both(&**shadow, query, old_code, carried, &mut met, &mut tally).await;
        answered.map_err(|error| error.to_string())?;
    }
    Ok(tally)
}

/// Puts the declared queries to both versions.
pub(super) async fn samples(
    old: &VersionCode,
    new: &VersionCode,
    met: &mut Met,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    for query in &new.samples {
        let shadow = &new.shadows[&(**query).type_id()];
        ask_both(&**shadow, query, old, new, met, tally).await?;
    }
    Ok(())
}

async fn ask_both(
    shadow: &dyn Shadow,
    query: &AnyQuery,
    old: &VersionCode,
    new: &VersionCode,
    met: &mut Met,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let was = ask(old, query, &mut met.old).await?;
    let is = ask(new, query, &mut met.new).await?;
    // A query that the old version does not answer is not put to the new one by readers.
    if matches!(was, Given::Nothing) {
        return Ok(());
    }
    tally.looked_at += 1;
    let compared = std::panic::catch_unwind(AssertUnwindSafe(|| compared(shadow, query, was, is)));
    let words = match compared {
        Ok(words) => words,
        // The formatting of the values may be what panics.
        Err(panic) => Some(Words {
            place: "a comparison of answers".to_owned(),
            new: Some(format!("it panicked: {}", panic_text(&*panic))),
            ..Words::default()
        }),
    };
    if let Some(words) = words {
        tally.wrong(FindingKind::Answer, || words);
    }
    Ok(())
}

/// Returns the difference between the answers of two versions, if there is one.
fn compared(shadow: &dyn Shadow, query: &AnyQuery, was: Given, is: Given) -> Option<Words> {
    let (old, new) = match (was, is) {
        (Given::Answer(was), Given::Answer(is)) => shadow.differ(&*was, &*is)?,
        // Neither version has an answer, so callers see no difference.
        (Given::Failed(_), Given::Failed(_)) => return None,
        (was, is) => (was.shown(shadow), is.shown(shadow)),
    };
    Some(Words { place: shadow.show(&**query), key: None, old: Some(old), new: Some(new) })
}

/// What a version gives for a query.
enum Given {
    Answer(Box<dyn Any + Send>),
    Failed(String),
    /// It does not answer such queries.
    Nothing,
}

impl Given {
    fn shown(&self, shadow: &dyn Shadow) -> String {
        match self {
            Self::Answer(answer) => shadow.show_answer(&**answer),
            Self::Failed(error) => format!("no answer: {error}"),
            Self::Nothing => "no answer: it does not answer such queries".to_owned(),
        }
    }
}

async fn ask(carried: &VersionCode, query: &AnyQuery, view: &mut ReadView) -> Result<Given, StoreError> {
    let Some(answer) = carried.answer_any(&**query, view) else { return Ok(Given::Nothing) };
    Ok(match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(answer)) => Given::Answer(answer),
        Ok(Err(error)) => match error.downcast::<ViewError>() {
            Ok(error) if error.is_passing() => return Err(StoreError::unavailable("ask a version", error)),
            Ok(error) => Given::Failed(error.to_string()),
            Err(error) => Given::Failed(chain(&*error)),
        },
        Err(panic) => Given::Failed(format!("it panicked: {}", panic_text(&*panic))),
    })
}
