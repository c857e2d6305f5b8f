//! Checks of random histories against the memory journal, which is simple enough to be trusted.

use super::*;
use crate::contract::Chance;
use crate::journal::{OnKnown, Streams};
use crate::memory::MemoryJournal;

/// Streams whose categories are `a`, `b`, `$c`, nothing, and some that look like others.
const STREAMS: [&str; 7] = ["a-0", "b-1", "$c-2", "a-b-3", "b", "-5", "é--6"];
/// Names for queries by category, existing and not.
const CATEGORIES: [&str; 11] = ["a", "b", "$c", "", "é", "none", "a-b", "b-1", "b-", "a\0", "\0"];
/// Names for queries by type, existing and not.
const TYPES: [&str; 6] = ["deposited", "withdrawn", "none", "", "depo\0sited", "isn't \\ $1"];

/// Returns a random filter, mostly of something that exists.
fn random_filter(chance: &mut Chance) -> Filter {
    let mut some = |of: &[&str]| {
        let count = chance.below(4);
        (0..count).map(|_| of[chance.below(of.len() as u64) as usize].to_owned()).collect::<Vec<_>>()
    };
    let (categories, types) = (some(&CATEGORIES), some(&TYPES));
    let streams = match chance.below(4) {
        0 => Streams::User,
        1 => Streams::All,
        _ => Streams::Categories(categories),
    };
    Filter { streams, types: (chance.below(3) > 0).then_some(types) }
}

/// Returns a random append: new events, known ones and mixtures, with right and wrong expectations.
fn random_append(chance: &mut Chance, next: &mut u64) -> Append {
    let events = (0..=chance.below(4)).map(|_| {
        let known = chance.below(6) == 0 && *next > 0;
        let number = if known {
            chance.below(*next)
        } else {
            *next += 1;
            *next - 1
        };
        // The stream mostly follows from the number, so that a known event is the same one.
        let stream = if chance.below(30) == 0 { chance.below(7) } else { number % 7 };
        in_stream(STREAMS[stream as usize], number)
    });
    let events: Vec<_> = events.collect();
    let expected = match chance.below(5) {
        0 => Some(ExpectedRevision::NoStream),
        1 => Some(ExpectedRevision::Exists),
        2 => Some(ExpectedRevision::Exact(Revision::new(chance.below(40)))),
        _ => None,
    };
    let expected = expected.map(|expected| (events[0].stream.clone(), expected)).into_iter().collect();
    let on_known = if chance.below(3) == 0 { OnKnown::Skip } else { OnKnown::Recognise };
    Append { events, expected, on_known }
}

/// The store gives the same answers and the same events as the model, with restarts if it lasts.
pub async fn it_does_what_the_model_does(home: &mut dyn JournalHome) {
    let seed = 0x0da_ca90;
    let mut chance = Chance::new(seed);
    let model = MemoryJournal::new(Arc::new(SetClock::default()));
    let mut journal = open(home).await;
    let mut next = 0;
    for step in 0..600 {
        let append = random_append(&mut chance, &mut next);
        let answers = (journal.append(append.clone()).await, model.append(append.clone()).await);
        let same = match &answers {
            (Ok(one), Ok(other)) => one == other,
            (Err(AppendError::Refused(one)), Err(AppendError::Refused(other))) => one == other,
            _ => false,
        };
        assert!(same, "seed {seed}, step {step}: {append:?} is answered {answers:?}");
        if step % 150 == 149 {
            if home.lasts() {
                journal.close().await;
                drop(journal);
                journal = open(home).await;
            }
            same_content(&*journal, &model).await;
            same_choices(&*journal, &model, &mut chance).await;
        }
    }
}

/// Each filter has the same events, and each category the same streams.
async fn same_choices(journal: &dyn Journal, model: &dyn Journal, chance: &mut Chance) {
    let head = *model.head().borrow();
    for _ in 0..60 {
        let (filter, most) = (random_filter(chance), chance.below(60) as usize + 1);
        let chosen = async |journal: &dyn Journal| {
            let (mut after, mut found) = (Position::START, Vec::new());
            while after < head {
                let batch = journal.read(after, &filter, Limit::events(most)).await.unwrap();
                found.extend(batch.iter().map(Recorded::from));
                after = batch.through;
            }
            found
        };
        assert_eq!(chosen(journal).await, chosen(model).await, "{filter:?}");
    }
    for category in CATEGORIES {
        for most in [0, 1, 100] {
            let listed = async |journal: &dyn Journal| journal.streams(Some(category), None, most).await.unwrap();
            assert_eq!(listed(journal).await, listed(model).await, "{category:?}");
        }
    }
}

async fn same_content(journal: &dyn Journal, model: &dyn Journal) {
    assert_eq!(everything(journal).await, everything(model).await);
    for event in everything(model).await.iter().step_by(7) {
        assert_eq!(journal.position_of(event.event.id).await.unwrap().map(Position::get), Some(event.position));
    }
    let streams = model.streams(None, None, 100).await.unwrap();
    assert_eq!(journal.streams(None, None, 100).await.unwrap(), streams);
    for stream in &streams {
        assert_eq!(journal.stream_revision(&stream.name).await.unwrap(), stream.revision);
        for after in [0, stream.revision.get() / 2] {
            let read = |journal| async move {
                let journal: &dyn Journal = journal;
                let batch = journal.read_stream(&stream.name, Revision::new(after), Limit::events(1000)).await.unwrap();
                batch.iter().map(Recorded::from).collect::<Vec<_>>()
            };
            assert_eq!(read(journal).await, read(model).await, "{}", stream.name);
        }
    }
}

// I-2
/// Acknowledged events exist after a restart, and appends continue after them.
pub async fn what_was_acknowledged_is_there_again(home: &mut dyn JournalHome) {
    if !home.lasts() {
        return;
    }
    let mut before = Vec::new();
    for round in 0..5 {
        let journal = open(home).await;
        assert_eq!(everything(&*journal).await, before);
        for number in round * 30..round * 30 + 10 {
            let revision = journal.stream_revision(&name("a-1")).await.unwrap();
            appended(&*journal, to("a-1", ExpectedRevision::Exact(revision), (number..number + 30).step_by(10))).await;
        }
        before = everything(&*journal).await;
        assert_eq!(before.len() as u64, (round + 1) * 30);
        journal.close().await;
    }
}
