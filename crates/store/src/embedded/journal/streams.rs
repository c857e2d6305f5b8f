//! The list of streams: the sorted tables of all chunks, merged one page at a time.

use std::collections::BTreeMap;

use dacapo_model::{InvalidName, Position, Revision, StreamName, category_of};

use super::chunk::{Chunk, Index};
use super::index::MemoryIndex;
use super::index_file::Section;
use super::log::{Log, streams_of};
use crate::error::StoreError;
use crate::journal::StreamInfo;

/// A page of streams that is being built, with the newest facts about each.
type Page = BTreeMap<StreamName, (Revision, Position)>;

impl Log {
    /// Returns streams in the order of their names' bytes, after `after`, at most `most` of them. The first `most` of
    /// all are among the first `most` of each chunk, so no chunk has to return more.
    pub fn streams(
        &self,
        category: Option<&str>,
        after: Option<&StreamName>,
        most: usize,
    ) -> Result<Vec<StreamInfo>, StoreError> {
        let after = after.map_or("", StreamName::as_str);
        let wanted = |name: &str| name > after && category.is_none_or(|category| category_of(name) == category);
        let mut page = Page::new();
        // The newest chunk is last, so that its facts replace older ones.
        for chunk in self.chunks().iter() {
            let summary = match &*chunk.index() {
                Index::Memory(index) => {
                    from_memory(&mut page, chunk, index, wanted, most);
                    continue;
                }
                Index::File(summary) => summary.clone(),
            };
            let section = self.section(chunk, &summary, Section::Streams)?;
            let streams = streams_of(&section);
            let from = streams.lower_bound(after.max(category.unwrap_or("")));
            let in_reach = |name: &str| category.is_none_or(|category| name.starts_with(category));
            let found = streams.from(from).take_while(|stream| in_reach(stream.name));
            for stream in found.filter(|stream| wanted(stream.name)).take(most) {
                let damaged = |invalid: InvalidName| self.corrupt(chunk.first, 0, &format!("its index: {invalid}"));
                let name = StreamName::new(stream.name).map_err(damaged)?;
                page.insert(name, (stream.revision(), stream.last));
            }
        }
        let info = |(name, (revision, last))| StreamInfo { name, revision, last };
        Ok(page.into_iter().take(most).map(info).collect())
    }
}

#[expect(clippy::expect_used, reason = "every posting is an offset of a record")]
fn from_memory(page: &mut Page, chunk: &Chunk, index: &MemoryIndex, wanted: impl Fn(&str) -> bool, most: usize) {
    let durable = chunk.durable();
    let mut found: Vec<_> = index
        .streams()
        .iter()
        .filter(|stream| wanted(stream.name.as_str()))
        .map(|stream| (&stream.name, stream, stream.durable(durable)))
        .filter(|(_, _, events)| *events > 0)
        .collect();
    if found.len() > most {
        found.select_nth_unstable_by(most, |a, b| a.0.cmp(b.0));
        found.truncate(most);
    }
    for (name, stream, events) in found {
        let last = index.position_of(chunk.first, stream.postings[events - 1]);
        let last = last.expect("every posting is an offset of a record");
        page.insert(name.clone(), (stream.before.plus(events as u64), last));
    }
}
