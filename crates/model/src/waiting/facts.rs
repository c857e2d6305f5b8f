//! The fields of a reason in the form in which they are shown, independent of any serialisation.

use std::time::Duration;

use crate::journal::Parted;
use crate::name::StreamName;
use crate::position::Position;
use crate::reads::CodeMismatch;
use crate::segment::Segment;
use crate::share::WorkShare;
use crate::time::Timestamp;
use crate::verify::Part;
use crate::version::VersionId;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A number: a position, a count, a percentage.
    Number(u64),
    /// A name or a text.
    Text(String),
    /// A point in time.
    Time(Timestamp),
    /// A span of time.
    Span(Duration),
}

/// A reason, as the reference lists it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its public name.
    pub name: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
    /// The public names of its fields, and the meaning of each.
    pub fields: &'static [(&'static str, &'static str)],
}

/// A value that has facts to show.
pub(super) trait Facts {
    /// Adds its facts, under this name if there is only one.
    fn add(&self, name: &'static str, facts: &mut Vec<(&'static str, Fact)>);
}

macro_rules! one_fact {
    ($($type:ty: |$value:ident| $fact:expr;)+) => {
        $(impl Facts for $type {
            fn add(&self, name: &'static str, facts: &mut Vec<(&'static str, Fact)>) {
                let $value = self;
                facts.push((name, $fact));
            }
        })+
    };
}

one_fact! {
    u64: |number| Fact::Number(*number);
    u32: |number| Fact::Number(u64::from(*number));
    usize: |number| Fact::Number(*number as u64);
    Position: |position| Fact::Number(position.get());
    Segment: |segment| Fact::Number(u64::from(segment.get()));
    WorkShare: |share| Fact::Number(u64::from(share.get()));
    String: |text| Fact::Text(text.clone());
    StreamName: |stream| Fact::Text(stream.as_str().to_owned());
    VersionId: |version| Fact::Text(version.to_string());
    CodeMismatch: |unlike| Fact::Text(unlike.to_string());
    Timestamp: |time| Fact::Time(*time);
    Duration: |span| Fact::Span(*span);
}

impl Facts for Option<Part> {
    fn add(&self, name: &'static str, facts: &mut Vec<(&'static str, Fact)>) {
        facts.extend(self.map(|part| (name, Fact::Text(part.as_str().to_owned()))));
    }
}

impl Facts for Parted {
    fn add(&self, _: &'static str, facts: &mut Vec<(&'static str, Fact)>) {
        facts.extend(match self {
            Self::Journal { made_from, found } => {
                [("made_from", Fact::Text(made_from.to_string())), ("found", Fact::Text(found.to_string()))]
            }
            Self::History { same_through, differs_at } => {
                [("same_through", Fact::Number(same_through.get())), ("differs_at", Fact::Number(differs_at.get()))]
            }
        });
    }
}
