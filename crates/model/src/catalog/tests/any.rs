//! Any commands in any order.

use proptest::prelude::*;

use super::*;

fn any_command() -> impl Strategy<Value = CatalogCommand> {
    let version = (1..4_u32, 1..4_u32).prop_map(|(code, build)| view(&format!("v{code}.{build}")));
    prop_oneof![
        (1..4_u32).prop_map(schedule),
        version.clone().prop_map(CatalogCommand::Begin),
        version.clone().prop_map(CatalogCommand::RequestFlip),
        (version.clone(), 0..200_u64, 0..200_u64).prop_map(|(view, hold, covers)| {
            CatalogCommand::ConfirmFlip { view, hold: Position::new(hold), covers: Position::new(covers) }
        }),
        (version.clone(), 0..200_u64)
            .prop_map(|(view, hold)| CatalogCommand::PostponeFlip { view, hold: Position::new(hold) }),
        version.clone().prop_map(|view| CatalogCommand::CleanUp { view, reason: CleanUpReason::Asked }),
        version.clone().prop_map(CatalogCommand::BeginDrop),
        version.clone().prop_map(CatalogCommand::FinishCleanUp),
        version.clone().prop_map(CatalogCommand::CancelFlip),
        version.clone().prop_map(CatalogCommand::CancelRebuild),
        version.clone().prop_map(CatalogCommand::CancelCleanUp),
        version.clone().prop_map(CatalogCommand::CancelReplay),
        (version.clone(), 0..9_u64).prop_map(|(view, event)| CatalogCommand::SetAside {
            view,
            event: Position::new(event),
            halts: true
        }),
        version.clone().prop_map(|view| CatalogCommand::DecideLetters {
            view,
            of: LettersOf::Effects,
            which: WhichLetters::All,
            wish: Wish::Drop,
            exist: true,
        }),
        version.clone().prop_map(|view| CatalogCommand::Fail { view, reason: "broken".into() }),
        version.clone().prop_map(CatalogCommand::Pause),
        version.clone().prop_map(CatalogCommand::Resume),
        (version.clone(), any::<bool>()).prop_map(|(view, pass)| verified(view, None, pass)),
        version.clone().prop_map(CatalogCommand::RequestVerification),
        version.clone().prop_map(|view| CatalogCommand::Waive { view, by: "ana".into(), why: "known".into() }),
        (version.clone(), 0..200_u64).prop_map(|(view, after)| CatalogCommand::RequestReplay {
            view,
            after: Position::new(after),
            rows: ReplayRows::Keep,
        }),
        (version, 0..200_u64)
            .prop_map(|(view, request)| CatalogCommand::EndReplay { view, request: Position::new(request) }),
    ]
}

proptest! {
    /// Whatever is asked in whatever order: `evolve` accepts what `decide` decided, at most one version
    /// serves (I-5), a flip is confirmed only on evidence (I-6), and what is gone stays gone (I-12).
    #[test]
    fn no_sequence_of_commands_breaks_the_catalog(
        commands in prop::collection::vec((any_command(), any::<bool>()), 1..60),
    ) {
        let mut world = World::default();
        for (command, truthful) in commands {
            let gone: Vec<_> = world.catalog.projections.values().flat_map(|state| &state.versions)
                .filter(|(_, state)| state.phase == Phase::Obsolete).map(|(id, _)| *id).collect();
            let dropping: Vec<_> = world.catalog.projections.values().flat_map(|state| &state.versions)
                .filter(|(_, state)| state.dropping).map(|(id, _)| *id).collect();
            let pending = world.catalog.projections.get(&name()).and_then(|state| state.flip);
            // Half of the confirmations answer the flip that is under way.
            let command = match (command, pending) {
                (CatalogCommand::ConfirmFlip { .. }, Some(flip)) if truthful => world.confirm(&flip.to.to_string()),
                (CatalogCommand::PostponeFlip { .. }, Some(flip)) if truthful => {
                    CatalogCommand::PostponeFlip { view: view(&flip.to.to_string()), hold: flip.hold }
                }
                (command, _) => command,
            };
            // So do half of the verifications.
            let command = match command {
                CatalogCommand::Verify { view, verdict, report, .. } if truthful => {
                    let answers = world.catalog.version(&view).and_then(|state| state.verify_again);
                    CatalogCommand::Verify { view, answers, verdict, report }
                }
                command => command,
            };
            let before = world.catalog.clone();
            let decided = world.when(&command);
            if let (CatalogCommand::CancelFlip(view), Ok(events)) = (&command, &decided) {
                let state = &world.catalog.projections[&view.projection];
                prop_assert!(state.flip.is_none_or(|flip| flip.to != view.version));
                prop_assert!(state.serving != Some(view.version));
                prop_assert!(!state.flips_by_itself(&state.versions[&view.version]), "nor does it come by itself");
                prop_assert_eq!(events.len(), 1, "what is not under way is not cancelled");
            }
            for event in decided.iter().flatten() {
                if let CatalogEvent::Flipped { view, covers, .. } = event {
                    prop_assert!(before.version(view).is_some_and(VersionState::may_serve), "I-6");
                    let pending = pending.expect("a flip follows a request");
                    prop_assert_eq!(view.version, pending.to);
                    prop_assert!(*covers >= pending.requested, "I-6");
                }
            }
            for state in world.catalog.projections.values() {
                let serving: Vec<_> = state.versions.iter()
                    .filter(|(_, version)| version.phase == Phase::Serving).map(|(id, _)| *id).collect();
                prop_assert_eq!(serving, Vec::from_iter(state.serving), "I-5");
                for version in &dropping {
                    let phase = state.versions[version].phase;
                    prop_assert!(matches!(phase, Phase::CleaningUp | Phase::Obsolete), "I-12: too late to cancel");
                }
                for version in &gone {
                    prop_assert_eq!(state.versions[version].phase, Phase::Obsolete, "I-12");
                }
                let built = state.versions.values().filter(|version| version.is_built()).count();
                prop_assert!(built <= 1, "a newer one takes the place of what is not built yet");
                if let Some(flip) = state.flip {
                    prop_assert_eq!(flip.from, state.serving);
                    prop_assert!(state.versions[&flip.to].phase.may_become(Phase::Serving));
                }
            }
        }
        let mut again = Catalog::default();
        for (at, event) in world.history.iter().enumerate() {
            let position = Position::new((at as u64 + 1) * 3);
            again.evolve(event, position, Timestamp::from_micros(position.get() as i64)).unwrap();
        }
        prop_assert_eq!(again, world.catalog, "the fold depends on the events alone");
    }
}
