//! The findings of a part: all of them as counts, the first few of each kind in full.

use std::collections::BTreeMap;

use dacapo_model::limits;
use dacapo_model::verify::{Finding, FindingKind, Outcome, Part, PartReport};

/// The findings of one part so far. It needs the same space for any number of findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) looked_at: u64,
    wrong: BTreeMap<FindingKind, u64>,
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl Tally {
    /// Adds a finding. Its text is made only if there is space for it.
    pub(crate) fn wrong(&mut self, kind: FindingKind, words: impl FnOnce() -> Words) {
        let count = self.wrong.entry(kind).or_default();
        *count += 1;
        if *count <= limits::FINDINGS_MAX as u64 {
            let Words { place, key, old, new } = words();
            let cut_all = |text: Option<String>| text.map(cut);
            let finding = Finding { kind, place: cut(place), key: cut_all(key), old: cut_all(old), new: cut_all(new) };
            self.findings.push(finding);
        }
    }

    /// Adds findings that are only counted.
    pub(crate) fn wrong_more(&mut self, kind: FindingKind, count: u64) {
        if count > 0 {
            *self.wrong.entry(kind).or_default() += count;
        }
    }

    /// Adds a note for the readers of the report.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        if self.notes.len() < limits::NOTES_MAX {
            self.notes.push(cut(note.into()));
        }
    }

    pub(crate) fn count(&self, kind: FindingKind) -> u64 {
        self.wrong.get(&kind).copied().unwrap_or_default()
    }

    /// Adds the findings of another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.looked_at += other.looked_at;
        for (kind, count) in other.wrong {
            let room = limits::FINDINGS_MAX.saturating_sub(usize::try_from(self.count(kind)).unwrap_or(usize::MAX));
            self.findings.extend(other.findings.iter().filter(|finding| finding.kind == kind).take(room).cloned());
            self.wrong_more(kind, count);
        }
        other.notes.into_iter().for_each(|note| self.note(note));
    }

    /// Returns the report of the part. The part failed if there is any finding.
    pub(crate) fn report(mut self, part: Part) -> PartReport {
        let outcome = if self.wrong.is_empty() { Outcome::Passed } else { Outcome::Failed };
        self.findings.sort_by_key(|finding| finding.kind);
        let wrong = self.wrong.into_iter().collect();
        PartReport { part, outcome, looked_at: self.looked_at, wrong, findings: self.findings, notes: self.notes }
    }
}

/// A finding in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    pub(crate) place: String,
    pub(crate) key: Option<String>,
    pub(crate) old: Option<String>,
    pub(crate) new: Option<String>,
}

/// Returns the text, cut to the length of a finding.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > limits::FINDING_BYTES_MAX {
        let mark = '…';
        text.truncate(text.floor_char_boundary(limits::FINDING_BYTES_MAX - mark.len_utf8()));
        text.push(mark);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_the_first_few_are_kept() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        for number in 0..7 {
            one.wrong(FindingKind::Differs, || Words { key: Some(number.to_string()), ..Words::default() });
            other.wrong(FindingKind::Differs, || Words { key: Some((7 + number).to_string()), ..Words::default() });
        }
        other.wrong(FindingKind::Missing, Words::default);
        other.wrong(FindingKind::Extra, || Words { place: "ä".repeat(limits::FINDING_BYTES_MAX), ..Words::default() });
        one.add(other);
        let report = one.report(Part::Rows);
        assert_eq!(report.outcome, Outcome::Failed);
        assert_eq!(report.wrong, [(FindingKind::Missing, 1), (FindingKind::Extra, 1), (FindingKind::Differs, 14)]);
        let keys: Vec<_> = report.findings.iter().filter_map(|finding| finding.key.clone()).collect();
        assert_eq!(keys, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(report.findings.iter().all(|finding| finding.place.len() <= limits::FINDING_BYTES_MAX));
    }
}
