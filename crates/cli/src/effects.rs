//! The effects that `dacapo letters --effects` lists.

use comfy_table::CellAlignment;
use dacapo_api::{EffectLetter, LettersResponse};

use crate::numbers::count;
use crate::operate::to_the_second;
use crate::output::{Out, lines_of, narrow};

/// Returns one page of effects in words and a table.
pub(crate) fn page(out: &Out, answer: &LettersResponse) -> String {
    let LettersResponse { projection, version, effects, more, .. } = answer;
    let Some(last) = effects.last() else {
        return format!("{projection} {version} has no failed effect\n");
    };
    let mut table = out.table(&["EVENT", "STREAM", "KIND", "STATE", "TRIES", "ERROR", "DATA"]);
    narrow(&mut table, 0..=0, CellAlignment::Right);
    narrow(&mut table, 1..=3, CellAlignment::Left);
    narrow(&mut table, 4..=4, CellAlignment::Right);
    for effect in effects {
        let EffectLetter { position, stream, name, attempts, error, data, .. } = effect;
        let data = data.as_ref().map(|data| data.as_str().to_owned()).unwrap_or_default();
        let (stream, name, tries) = (stream.clone(), name.clone(), attempts.to_string());
        table.add_row([count(*position), stream, name, state(effect), tries, error.clone().unwrap_or_default(), data]);
    }
    let mut page = format!("{projection} {version}\n\n{}", lines_of(&table));
    if *more {
        let after = last.number;
        page.push_str(&format!("\nmore: dacapo letters {projection} --effects --version {version} --after {after}\n"));
    }
    page
}

fn state(effect: &EffectLetter) -> String {
    let time = effect.time.as_deref().map(to_the_second);
    match (effect.state.as_str(), time) {
        ("set_aside", _) => "set aside".to_owned(),
        ("failing", Some(due)) => format!("retry at {due}"),
        ("failing", None) => "retry now".to_owned(),
        (other, _) => other.to_owned(),
    }
}
