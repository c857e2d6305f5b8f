//! Rebuilds: keeps what runs on this node as the catalog says, and the catalog as the plan says.
//!
//! One task looks at the catalog, the tokens and the time, does what is missing and waits for a change.
//! It holds no state that matters: whatever it forgets it finds again. It never decides; the rules are
//! [`dacapo_model::rebuild::plan`] and the catalog's own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dacapo_model::rebuild::{Code, Facts, no_source, plan, wants_verification};
use dacapo_model::{
    CatalogCommand, Parted, Phase, Position, ProjectionName, Token, VersionState, ViewId, WaitingOn, WorkShare,
};
use dacapo_store::{Health, Journal, Store, StoreError, Views};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::catalog::{Asked, CatalogError, CatalogLog};
use crate::core::{self, Core, OpenVersion};
use crate::flip;
use crate::history;
use crate::processor::Orders;
use crate::projection::Carried;
use crate::reactor::Voices;
use crate::reads;
use crate::seed::{SeedFrom, check};
use crate::verify;
use crate::world::Step;

/// How often to look while a version is being built or replayed, which gets ready without telling anyone.
const LOOK_BUILDING: Duration = Duration::from_millis(50);
/// How often to look otherwise: stand-by ends with time.
const LOOK_IDLE: Duration = Duration::from_millis(500);
/// How long to rest before it is tried again to let SQL from outside see what serves.
const PUBLISH_REST: Duration = Duration::from_secs(1);
/// Looks for views that reach beyond the journal, before anything runs: they were made from a history that is there no
/// more. Followed, such a view would silently lack whatever gets the positions that it covers already (I-3). So the
/// catalog keeps that its version has parted, before the journal comes to those positions. A view whose version is gone
/// goes as well.
///
/// # Errors
/// [`CatalogError`] when the catalog cannot be changed. A view that cannot be read is not an error here.
pub(crate) async fn check_views(store: &Store, catalog: &Arc<CatalogLog>) -> Result<(), CatalogError> {
    let views = &*store.views;
    for id in views.list().await? {
        // Of what another node has made since, the catalog is asked after the view was seen.
        if catalog.current().version(&id).is_none_or(|state| state.phase == Phase::Scheduled) {
            catalog.refresh().await?;
        }
        match catalog.current().version(&id).map(|state| (state.phase, state.parted)) {
            None => {
                let advice = "remove it, or put the journal back that it was made from";
                tracing::warn!(view = %id, advice, "a view is there of which the journal knows nothing; it is left alone");
            }
            Some((phase, None)) if phase.applies() => {
                let Ok(Some(view)) = views.find(&id).await else { continue };
                let reaches = reaches(&*store.journal, &*view).await;
                let Err(StoreError::Parted(Parted::History { same_through, differs_at })) = reaches else { continue };
                tracing::error!(view = %id, %same_through, %differs_at, "the view reaches beyond the journal");
                let part = CatalogCommand::Part { view: id, same_through, differs_at };
                match Arc::clone(catalog).change(part, Asked::by_plan()).await {
                    // Somebody moved it on meanwhile.
                    Ok(_) | Err(CatalogError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            // Made again by a process that was killed before it knew that the version is gone (I-12).
            Some((Phase::Obsolete, _)) => discard(views, &id).await?,
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks that the journal reaches as far as the view does. The journal itself is asked, not the head that is known here:
/// that of a shared one may be behind what another node has appended and a third one has applied.
///
/// # Errors
/// [`StoreError::Parted`] when it does not; another [`StoreError`] when either cannot be read.
async fn reaches(journal: &dyn Journal, view: &dyn dacapo_store::View) -> Result<(), StoreError> {
    let tokens = view.tokens().await?;
    let marks = tokens.iter().flat_map(|token| token.held_for.into_iter().chain([token.position]));
    let head = match journal.mark(marks.max().unwrap_or_default()).await {
        Err(StoreError::BeyondHead { head, .. }) => head,
        reached => return reached.map(drop),
    };
    // Where its marks say more, that is told.
    history::check(journal, view).await?;
    let kept = view.history().await?.map(|history| history.marks).unwrap_or_default();
    let same_through = kept.last().map(|mark| mark.position).unwrap_or_default();
    Err(StoreError::Parted(Parted::History { same_through, differs_at: head.next() }))
}

/// Opens what there is of every version, for a node that only looks: nothing is changed, and nothing runs.
pub(crate) async fn look(core: &Core) {
    for (id, state) in core.catalog.current().versions() {
        let looked = look_at(core, &id, state).await;
        core.set_trouble(&id, looked.err().as_ref().map(history::waiting_on));
    }
}

async fn look_at(core: &Core, id: &ViewId, state: &VersionState) -> Result<(), StoreError> {
    let is_open = state.phase.applies() || state.phase == Phase::CleaningUp;
    if state.phase == Phase::Scheduled {
        return unbegun(core, id).await;
    }
    let Some(view) = core.views.find(id).await?.filter(|_| is_open) else { return Ok(()) };
    if state.phase.applies() {
        belongs(&*core.journal, &*view, state).await?;
        reaches(&*core.journal, &*view).await?;
    }
    let version = OpenVersion::still(id.clone(), view, None, Orders::of(state));
    version.tokens().await?;
    version.outbox.send_replace(version.view.outbox(0).await?);
    core.insert_open(Arc::new(version));
    Ok(())
}

/// Checks that a view is of this journal.
async fn belongs(journal: &dyn Journal, view: &dyn dacapo_store::View, state: &VersionState) -> Result<(), StoreError> {
    history::check(journal, view).await?;
    state.parted.map_or(Ok(()), |parted| Err(StoreError::Parted(parted)))
}

/// Checks that there is no view of a version that was never begun: it would be of another history, in which it was.
async fn unbegun(core: &Core, id: &ViewId) -> Result<(), StoreError> {
    let view = match core.views.find(id).await {
        Ok(Some(view)) => view,
        // One that cannot be read is not built upon either: the version fails once it has begun.
        Ok(None) | Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Another node may have begun it, before it made the view.
    core.catalog.refresh().await?;
    if core.catalog.current().version(id).is_none_or(|state| state.phase != Phase::Scheduled) {
        return Ok(());
    }
    history::check(&*core.journal, &*view).await?;
    let kept = view.history().await?.map(|history| history.marks).unwrap_or_default();
    let same_through = kept.last().map(|mark| mark.position).unwrap_or_default();
    let covered = view.tokens().await?.into_iter().map(|token| token.position);
    let differs_at = covered.fold(core.head(), Position::max).next();
    Err(StoreError::Parted(Parted::History { same_through, differs_at }))
}

/// Runs until it is stopped. Flips under way are left where they are; the next start takes them up. `looked` is
/// told once it has been through everything for the first time.
pub(crate) async fn conduct(core: Arc<Core>, mut stop: watch::Receiver<bool>, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    let mut catalog = core.catalog.watch();
    let mut opened = core.opened.subscribe();
    let mut tasks = Tasks::default();
    loop {
        let gets_on = |state: &VersionState| state.phase == Phase::Initializing || state.replay.is_some();
        let building = catalog.borrow_and_update().versions().any(|(_, state)| gets_on(state));
        opened.mark_unchanged();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            done = AssertUnwindSafe(reconcile(&core, &mut tasks)).catch_unwind() => match done {
                // Once history has parted nothing is done any more.
                Ok(Ok(())) => core.set_stuck(match core.journal.health() {
                    Health::Parted(parted) => Some(WaitingOn::Parted { parted }),
                    Health::Well | Health::Failing(_) | Health::Damaged(_) => None,
                }),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the rebuild driver cannot go on for the moment");
                    core.set_stuck(Some(trouble(&error)));
                }
                // It holds no state that a panic could leave half changed, and what serves must not depend on it.
                Err(_) => tracing::error!("the rebuild driver met a bug in dacapo and begins anew"),
            },
        }
        if let Some(looked) = looked.take() {
            // Nobody waits for it only when the start was given up.
            looked.send(()).ok();
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = catalog.changed() => {}
            _ = opened.changed() => {}
            () = tokio::time::sleep(if building { LOOK_BUILDING } else { LOOK_IDLE }) => {}
        }
    }
    let Tasks { flips, verifications, shadows, publishes } = tasks;
    let of_projections = flips.into_values().chain(publishes.into_values());
    for task in of_projections.chain(verifications.into_values()).chain(shadows.into_values()) {
        task.abort();
        // Aborted or done: either way it does nothing any more, which is what is waited for.
        drop(task.await);
    }
}

/// The drivers that run beside the conductor: whatever is cut off with them is begun anew.
#[derive(Default)]
struct Tasks {
    flips: HashMap<ProjectionName, JoinHandle<()>>,
    verifications: HashMap<ViewId, JoinHandle<()>>,
    /// Those that put live queries to versions that do not serve yet.
    shadows: HashMap<ViewId, JoinHandle<()>>,
    /// Those that let SQL from outside find what serves, which no flip waits for.
    publishes: HashMap<ProjectionName, JoinHandle<()>>,
}

impl Tasks {
    /// Lets go of those that have ended.
    async fn clear(&mut self) {
        let flips = self.flips.extract_if(|_, task| task.is_finished());
        let flips = flips.chain(self.publishes.extract_if(|_, task| task.is_finished()));
        let flips = flips.map(|(of, task)| (of.to_string(), task));
        let others = self.verifications.extract_if(|_, task| task.is_finished());
        let others = others.chain(self.shadows.extract_if(|_, task| task.is_finished()));
        let ended: Vec<_> = flips.chain(others.map(|(of, task)| (of.to_string(), task))).collect();
        for (of, task) in ended {
            if let Err(error) = task.await {
                tracing::error!(of, %error, "a task of the rebuild driver ended by a bug in dacapo");
            }
        }
    }
}

async fn reconcile(core: &Arc<Core>, tasks: &mut Tasks) -> Result<(), CatalogError> {
    if let Health::Parted(parted) = core.journal.health() {
        // What the catalog says is of a history that is gone.
        for open in core.open_versions() {
            stop(core, &open.id).await;
            core.set_trouble(&open.id, Some(WaitingOn::Parted { parted }));
        }
        return Ok(());
    }
    // Looked at before the catalog is: every flip through here is known then.
    let head = core.head();
    core.catalog.refresh().await?;
    decide_reads(core).await?;
    core.tell_carried();
    let_go(core).await;
    let (mut tokens, mut bare, mut speaking) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut may_begin = BTreeSet::new();
    for (id, state) in core.catalog.current().versions() {
        // What is wrong with one view stops no other.
        if let (Some(open), Some(projection)) =
            (core.open_version(&id), core.catalog.current().projections.get(&id.projection))
        {
            open.hear(Voices::new(projection, head));
        }
        let attended = attend(core, &id, state).await;
        if let Err(CatalogError::Store(StoreError::Parted(_))) = attended {
            // What it shows is not of this journal. It stays closed until that is there again, or it is built anew.
            close(core, &id).await;
        }
        let damage = core.open_version(&id).and_then(|open| open.view.health().damaged);
        if let (Some(_), Err(CatalogError::Store(StoreError::Corrupt { .. }))) = (&damage, &attended) {
            // Nobody can be answered from it. What else is damaged is refused where it is read, and the rest answered.
            close(core, &id).await;
        }
        if let (Phase::Initializing, Some(error)) = (state.phase, damage) {
            give_up(core, &id, &StoreError::corrupt(format!("the view {id}"), error)).await?;
        }
        if let (Phase::Initializing, Err(CatalogError::Store(error))) = (state.phase, &attended) {
            give_up(core, &id, error).await?;
        }
        if matches!(attended, Err(CatalogError::Store(StoreError::Unavailable { .. }))) {
            // How far it is cannot be told, so it is not known to have spoken.
            speaking.insert(id.clone());
        }
        core.set_trouble(&id, attended.as_ref().err().map(trouble));
        may_begin.extend((state.phase == Phase::Scheduled && attended.is_ok()).then(|| id.clone()));
        if let Some(found) = attended.ok().flatten() {
            bare.extend(found.bare.then(|| id.clone()));
            speaking.extend(found.speaking.then(|| id.clone()));
            tokens.insert(id, found.tokens);
        }
    }
    let carried: Vec<Code> = core.carried().into_iter().map(|carried| code(core, carried)).collect();
    let (head, now) = (core.head(), core.world.clock.now());
    let facts = Facts { carried: &carried, tokens: &tokens, bare: &bare, speaking: &speaking, head, now };
    for command in plan(&core.catalog.current(), &facts) {
        // One that is known only now is looked at first.
        if matches!(&command, CatalogCommand::Begin(id) if !may_begin.contains(id)) {
            continue;
        }
        let ends_replay = matches!(command, CatalogCommand::EndReplay { .. });
        if ends_replay {
            core.world.probe.completed(Step::ReplayCovered);
        }
        match Arc::clone(&core.catalog).change(command, Asked::by_plan()).await {
            Ok(_) if ends_replay => core.world.probe.completed(Step::ReplayEnded),
            Ok(_) => {}
            // Somebody changed the catalog since it was looked at; the next look sees it.
            Err(CatalogError::Refused(refused)) => tracing::debug!(%refused, "planned on an older catalog"),
            Err(error) => return Err(error),
        }
    }
    tasks.clear().await;
    for (projection, state) in &core.catalog.current().projections {
        let to = state.flip.map(|flip| ViewId { projection: projection.clone(), version: flip.to });
        // Any node may drive it, but only one that carries the version to serve can tell whether that is there.
        if to.is_none_or(|to| core.code_of(&to).is_none() && core.cluster.has_capable(&to)) {
            continue;
        }
        let drive = || tokio::spawn(flip::drive(Arc::clone(core), projection.clone()));
        tasks.flips.entry(projection.clone()).or_insert_with(drive);
    }
    for (projection, state) in &core.catalog.current().projections {
        let Some((flip, version)) = state.served.last().copied() else { continue };
        let serving = ViewId { projection: projection.clone(), version };
        if core.is_published(projection, flip) || !core.cluster.drives(&serving) {
            continue;
        }
        let publish = || tokio::spawn(publish(Arc::clone(core), serving, flip));
        tasks.publishes.entry(projection.clone()).or_insert_with(publish);
    }
    for (id, state) in core.catalog.current().versions() {
        let Some(tokens) = tokens.get(&id).filter(|_| state.phase == Phase::Initializing) else { continue };
        examine(core, tasks, &id, wants_verification(state, tokens, bare.contains(&id), facts.head));
    }
    Ok(())
}

/// Decides about what code of a newer release shall read, should whoever announced it be gone.
async fn decide_reads(core: &Core) -> Result<(), StoreError> {
    for (view, state) in core.catalog.current().announced() {
        if let Some(announced) = &state.announced {
            reads::settle(&core.journal, &core.catalog, view, announced, state.reads.as_ref()).await?;
        }
    }
    Ok(())
}

/// Lets SQL from outside find what serves by the flip at `flip`. Where that fails it rests, and the next look tries again.
async fn publish(core: Arc<Core>, serving: ViewId, flip: Position) {
    let published = core.views.publish(&serving, flip).await;
    let failed = published.is_err();
    core.set_published(&serving, flip, published.err().map(|error| error.to_string()));
    if failed {
        tokio::time::sleep(PUBLISH_REST).await;
    }
}

/// Lets a version that is being built be verified, and live queries be put to it, if that is wanted and it runs here.
fn examine(core: &Arc<Core>, tasks: &mut Tasks, id: &ViewId, verify: bool) {
    let Some((open, carried)) = core.open_version(id).and_then(|open| Some((open.clone(), open.carried.clone()?)))
    else {
        return;
    };
    // One that halts or is paused would only be found unfinished. It says itself what it waits on.
    if verify && core.cluster.drives(id) && !core.is_paused(id) && open.progress.borrow().waiting_on.is_empty() {
        let drive = || tokio::spawn(verify::drive(Arc::clone(core), id.clone()));
        tasks.verifications.entry(id.clone()).or_insert_with(drive);
    }
    if verify::are_wanted(&carried) && core.cluster.drives(id) {
        let shadow = || tokio::spawn(verify::shadow(Arc::clone(core), id.clone()));
        tasks.shadows.entry(id.clone()).or_insert_with(shadow);
    }
}

/// What a version waits on that could not be attended to.
fn trouble(error: &CatalogError) -> WaitingOn {
    match error {
        CatalogError::Store(error) => history::waiting_on(error),
        error => WaitingOn::Store { error: error.to_string() },
    }
}

/// What the rules want to know of the code: it begins as a copy by itself only where it could.
fn code(core: &Core, carried: Carried) -> Code {
    let seeded = carried.options.seed_new_code && core.may_copy(&carried).is_ok();
    Code { seeded, ..carried.code }
}

/// Fails a version that cannot be built however often it is tried: its view is damaged or of another shape. A
/// later build takes its place.
async fn give_up(core: &Arc<Core>, id: &ViewId, error: &StoreError) -> Result<(), CatalogError> {
    if matches!(error, StoreError::Unavailable { .. }) {
        return Ok(());
    }
    tracing::warn!(view = %id, %error, "the version cannot be built");
    let fail = CatalogCommand::Fail { view: id.clone(), reason: error.to_string() };
    match Arc::clone(&core.catalog).change(fail, Asked::by_plan()).await {
        // Somebody moved it on meanwhile.
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the rules want to know of a view.
struct Found {
    tokens: Vec<Token>,
    /// Whether it lacks indexes, while it is being built.
    bare: bool,
    /// Whether it is on its way to events that it speaks for, while it stands by.
    speaking: bool,
}

/// Does for one version what its phase wants, and returns what its view is like if that is open.
async fn attend(core: &Arc<Core>, id: &ViewId, state: &VersionState) -> Result<Option<Found>, CatalogError> {
    match state.phase {
        phase if phase.applies() => {
            if let Some(parted) = state.parted {
                return Err(StoreError::Parted(parted).into());
            }
            open(core, id, state).await?;
            let Some(version) = core.open_version(id) else { return Ok(None) };
            version.compare(&*core.journal).await?;
            version.order(Orders::of(state));
            // Looked at now and then, a handler that does not return is seen, and logged.
            drop(version.waiting_on());
            let tokens = version.tokens().await?;
            core.watch_claims(id, &tokens);
            version.work(match &version.carried {
                Some(carried) if state.phase == Phase::Initializing => carried.options.rebuild_share,
                _ => WorkShare::ALL,
            });
            let covers = tokens.iter().map(|token| token.position).min().unwrap_or_default();
            core.trails.look(id, &tokens, version.reached(covers), core.head());
            lift_stray(core, &version, &tokens).await?;
            uncap_stray(core, &version, &tokens).await?;
            let bare = state.phase == Phase::Initializing && core.is_bare(id).await?;
            let speaking = state.phase == Phase::StandingBy && core.is_speaking(id, &*version.view, &tokens).await?;
            return Ok(Some(Found { tokens, bare, speaking }));
        }
        Phase::Scheduled => unbegun(core, id).await?,
        Phase::CleaningUp => clean_up(core, id).await?,
        Phase::Failed => stop(core, id).await,
        _ => {}
    }
    Ok(None)
}

/// Says that effects are made again: those that were still to be made, and which had been made, went with the view.
async fn tell_of_effects(
    core: &Core,
    id: &ViewId,
    state: &VersionState,
    carried: &Carried,
    view: &dyn dacapo_store::View,
) -> Result<(), StoreError> {
    let served = matches!(state.phase, Phase::Serving | Phase::StandingBy);
    if !served || carried.effect_names().is_empty() || !view.tokens().await?.iter().all(Token::is_new) {
        return Ok(());
    }
    let catalog = core.catalog.current();
    let projection = catalog.projections.get(&id.projection);
    let past = carried.options.effects.past;
    if let Some(from) = projection.and_then(|projection| projection.speaks_from(id.version, past)) {
        tracing::warn!(
            view = %id,
            from = from.get(),
            "its view was gone and is built again: the effects of events from position {from} on for which it speaks are \
             made again, under the same keys, also those that were dropped"
        );
    }
    Ok(())
}

/// Opens the version, and runs its processor if the code is here.
async fn open(core: &Arc<Core>, id: &ViewId, state: &VersionState) -> Result<(), StoreError> {
    let carried = core.code_of(id);
    let mut is_corrected = false;
    if let Some(open) = core.open_version(id) {
        let is_other = is_other(&open, carried.as_ref());
        if !is_other && !open.has_ended() {
            return Ok(());
        }
        is_corrected = is_other && open.carried.is_some();
        open.stop().await;
    }
    let mut opening = core.opening.lock().await;
    opening.insert(id.clone());
    let version = match carried {
        Some(carried) => {
            let view = core.views.open(id, carried.tables, state.segments).await?;
            // It may have been cleaned up since the catalog was looked at.
            core.catalog.refresh().await?;
            if !core.catalog.current().version(id).is_some_and(|state| state.phase.applies()) {
                return Ok(());
            }
            history::check(&*core.journal, &*view).await?;
            tell_of_effects(core, id, state, &carried, &*view).await?;
            let seed = seed(core, id, state, &carried, &*view).await?;
            OpenVersion::run(core, id.clone(), view, carried, state, seed, is_corrected)?
        }
        None => match core.views.find(id).await? {
            Some(view) => {
                history::check(&*core.journal, &*view).await?;
                OpenVersion::still(id.clone(), view, None, Orders::of(state))
            }
            None => return Ok(()),
        },
    };
    insert(core, version).await;
    Ok(())
}

/// Whether this node carries code by now that the open version is not run with.
fn is_other(open: &OpenVersion, carried: Option<&Carried>) -> bool {
    match (&open.carried, carried) {
        (Some(open), Some(carried)) => !Arc::ptr_eq(&open.handlers, &carried.handlers),
        (None, carried) => carried.is_some(),
        (Some(_), None) => false,
    }
}

async fn insert(core: &Arc<Core>, version: OpenVersion) {
    let version = Arc::new(version);
    core.insert_open(Arc::clone(&version));
    // Whoever wished for something just before has told the one whose place it takes.
    version.wished();
    version.deliver(core).await;
}

/// What the version begins as a copy of, if it is to and has not begun.
///
/// # Errors
/// [`StoreError::Invalid`] when that copy cannot be right, or is there no more.
async fn seed(
    core: &Core,
    id: &ViewId,
    state: &VersionState,
    carried: &Carried,
    view: &dyn dacapo_store::View,
) -> Result<Option<SeedFrom>, StoreError> {
    let Some(source) = state.seed.filter(|_| state.phase == Phase::Initializing) else { return Ok(None) };
    if !view.tokens().await?.iter().all(Token::is_new) {
        return Ok(None);
    }
    let catalog = core.catalog.current();
    let projection = &catalog.projections[&id.projection];
    if let Some(why) = no_source(id, projection, state) {
        return Err(StoreError::Invalid(why));
    }
    let segments = projection.versions[&source].segments;
    let source = ViewId { version: source, ..id.clone() };
    let refused =
        |why: String| StoreError::Invalid(format!("{id} cannot begin as a copy of {}: {why}", source.version));
    let code = core.code_of(&source);
    check(carried, state.segments, source.version, segments, code.as_ref()).map_err(refused)?;
    let view = match core.open_version(&source) {
        Some(open) => Arc::clone(&open.view),
        None => {
            let gone = || refused("its view is gone: rebuild the projection once more".to_owned());
            core.views.find(&source).await?.ok_or_else(gone)?
        }
    };
    belongs(&*core.journal, &*view, &projection.versions[&source.version]).await.map_err(|error| match error {
        StoreError::Parted(parted) => refused(parted.to_string()),
        error => error,
    })?;
    Ok(code.map(|code| SeedFrom { id: source.clone(), view, tables: code.tables }))
}

/// Closes what another node has cleaned up before this one heard of it, and drops its view again: opened meanwhile, it
/// may have been made after the other node had dropped it, and nobody else would drop that one (I-12).
async fn let_go(core: &Core) {
    let catalog = core.catalog.current();
    let is_gone = |id: &&ViewId| catalog.version(id).is_none_or(|state| state.phase == Phase::Obsolete);
    let gone: Vec<_> = core.opening.lock().await.iter().filter(is_gone).cloned().collect();
    for id in gone {
        stop(core, &id).await;
        let dropped = discard(&*core.views, &id).await;
        core.set_trouble(&id, dropped.as_ref().err().map(history::waiting_on));
        if dropped.is_ok() {
            core.opening.lock().await.remove(&id);
        }
    }
}

async fn stop(core: &Core, id: &ViewId) {
    core.trails.forget(id);
    if let Some(open) = core.remove_open(id) {
        open.stop().await;
    }
}

/// Closes a version from which nobody may be answered any more.
async fn close(core: &Core, id: &ViewId) {
    if core.open_version(id).is_some() {
        stop(core, id).await;
        core.closed(id);
    }
}

/// Drops the view of a version that is cleaned up, once its processor has stopped and the effects that it owes are made.
async fn clean_up(core: &Arc<Core>, id: &ViewId) -> Result<(), CatalogError> {
    core.world.probe.completed(Step::CleaningUp);
    if owes(core, id).await? {
        return Ok(());
    }
    stop(core, id).await;
    revoke(&*core.views, id).await?;
    // From here on nobody adds to them; a batch that was under way may have.
    if owes(core, id).await? {
        return Ok(());
    }
    // From here on the clean-up cannot be cancelled; until here it may have been.
    match Arc::clone(&core.catalog).change(CatalogCommand::BeginDrop(id.clone()), Asked::by_plan()).await {
        Ok(_) => {}
        Err(CatalogError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    core.views.drop_view(id).await?;
    core.world.probe.completed(Step::Dropped);
    match Arc::clone(&core.catalog).change(CatalogCommand::FinishCleanUp(id.clone()), Asked::by_plan()).await {
        // Another member was first.
        Ok(_) | Err(CatalogError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Drops the view (I-12): its epochs are revoked, then it goes.
async fn discard(views: &dyn Views, id: &ViewId) -> Result<(), StoreError> {
    revoke(views, id).await?;
    views.drop_view(id).await
}

/// Revokes the epochs of a view that is dropped.
async fn revoke(views: &dyn Views, id: &ViewId) -> Result<(), StoreError> {
    match core::revoke(views, id).await {
        // What is damaged has no claim that could still write to it.
        Err(error @ (StoreError::Corrupt { .. } | StoreError::Invalid(_))) => {
            tracing::warn!(view = %id, %error, "a view is dropped that cannot be read");
            Ok(())
        }
        revoked => revoked,
    }
}

/// Whether the version has yet to make effects of events that it speaks for. If so its view stays, without a processor.
async fn owes(core: &Arc<Core>, id: &ViewId) -> Result<bool, StoreError> {
    let catalog = core.catalog.current();
    let Some(state) = catalog.version(id) else { return Ok(false) };
    let served = catalog.projections.get(&id.projection).map(|state| state.served.as_slice()).unwrap_or_default();
    // One that never served speaks for nothing. What another one speaks for, the delivery forgets.
    if !served.iter().any(|(_, version)| *version == id.version) {
        return Ok(false);
    }
    let found = match core.views.find(id).await {
        Ok(Some(view)) => view.outbox(0).await.map(|outbox| Some((view, outbox))),
        other => other.map(|_| None),
    };
    match found {
        Ok(Some((view, outbox))) if outbox.pending > 0 => {
            let carried = core.code_of(id);
            let delivers = match core.open_version(id) {
                Some(open) if is_other(&open, carried.as_ref()) || open.is_silent().await => {
                    open.stop().await;
                    false
                }
                Some(open) => {
                    open.stop_applying().await;
                    true
                }
                None => false,
            };
            if !delivers {
                core.opening.lock().await.insert(id.clone());
                let version = OpenVersion::still(id.clone(), view, carried, Orders::of(state));
                version.outbox.send_replace(outbox);
                insert(core, version).await;
            }
            Ok(true)
        }
        Ok(_) | Err(StoreError::Corrupt { .. } | StoreError::Invalid(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes away the cap of a verification that is over: it was cut off, or whoever made it died. While a version of the
/// projection is being built, the member that verifies it is the one to know.
async fn uncap_stray(core: &Core, version: &OpenVersion, tokens: &[Token]) -> Result<(), StoreError> {
    if tokens.iter().all(|token| token.cap.is_none()) {
        return Ok(());
    }
    let catalog = core.catalog.current();
    let projection = &version.id.projection;
    let mut built = catalog.versions().filter(|(id, state)| {
        id.projection == *projection && state.phase == Phase::Initializing && core.cluster.has_capable(id)
    });
    let meets = |id: &ViewId| core.open_version(id).is_some_and(|open| open.is_meeting());
    let is_stray = |(id, _): (ViewId, &VersionState)| core.cluster.drives(&id) && !meets(&id);
    if built.all(is_stray) {
        version.uncap().await?;
    }
    Ok(())
}

/// Lifts the hold of a flip that is over: whoever held died before it could lift. The catalog is looked at
/// after `tokens` were read, so it knows the request behind every mark among them.
async fn lift_stray(core: &Core, version: &OpenVersion, tokens: &[Token]) -> Result<(), StoreError> {
    let catalog = core.catalog.current();
    let id = &version.id;
    let flip = catalog.projections.get(&id.projection).and_then(|state| state.flip);
    let present = flip.filter(|flip| flip.from == Some(id.version)).map(|flip| flip.hold);
    let marks = tokens.iter().filter_map(|token| token.held_for);
    let stray = marks.filter(|mark| Some(*mark) != present && *mark <= catalog.position).max();
    match stray {
        Some(mark) => version.lift(mark).await,
        None => Ok(()),
    }
}
