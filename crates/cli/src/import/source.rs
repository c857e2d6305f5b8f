//! From bytes to batches of lines, in a thread of its own.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use dacapo_api::ApiError;
use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;

use super::Options;
use super::line::{self, Line};
use crate::limits::LINE_BYTES_MAX;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const BUFFER_BYTES: usize = 256 << 10;

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number in the source, from 1.
    pub number: u64,
    /// The fault, in words.
    pub reason: String,
    /// Its bytes; the beginning of them when it is longer than [`LINE_BYTES_MAX`].
    pub text: Vec<u8>,
    /// True if it is longer than that.
    pub cut: bool,
}

impl BadLine {
    /// Returns a line that the node refused.
    pub(super) fn refused(line: &Line, error: &ApiError) -> Self {
        Self { number: line.number, reason: error.to_string(), text: line.text.clone(), cut: false }
    }

    /// As much of the line as helps in a message.
    pub fn beginning(&self) -> String {
        let text = String::from_utf8_lossy(&self.text[..self.text.len().min(400)]);
        let mut beginning: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if self.cut || text.chars().count() > 60 {
            beginning.push('…');
        }
        beginning
    }
}

/// The items of a source, in order.
pub(super) enum Found {
    /// Good lines that belong together.
    Lines(Vec<Line>),
    /// A bad line; everything before it came before.
    Bad(BadLine),
    /// The source cannot be read on.
    Broken { error: io::Error, line: u64 },
}

/// Reads `reader`, plain or gzip, to its end or until nobody takes what is found.
pub(super) fn read_all(reader: impl Read + Send + 'static, options: Options, found: &mpsc::Sender<Found>) {
    let mut batch = Batch { options, lines: vec![], bytes: 0 };
    let end = read_lines(reader, &mut batch, found);
    let rest = batch.take().into_iter().chain(end);
    for item in rest {
        // Nobody listens only when the import has ended early, and then nothing is left to tell.
        if found.blocking_send(item).is_err() {
            return;
        }
    }
}

/// Returns the error at the end, if there is one.
fn read_lines(reader: impl Read + Send + 'static, batch: &mut Batch, found: &mpsc::Sender<Found>) -> Option<Found> {
    let mut number = 0;
    let mut lines = match open(reader) {
        Ok(lines) => lines,
        Err(error) => return Some(Found::Broken { error, line: 1 }),
    };
    loop {
        number += 1;
        let full = match next_line(&mut *lines, number) {
            Ok(None) => return None,
            Ok(Some(raw)) if raw.is_blank() => continue,
            Ok(Some(raw)) => match raw.check(number) {
                Ok(line) => batch.push(line).into_iter().chain(None),
                Err(bad) => batch.take().into_iter().chain(Some(Found::Bad(bad))),
            },
            Err(error) => return Some(Found::Broken { error, line: number }),
        };
        for item in full {
            if found.blocking_send(item).is_err() {
                return None;
            }
        }
    }
}

/// Returns the lines of `reader`, unpacked if it begins as gzip does, whatever its name.
fn open(mut reader: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut first = Vec::new();
    reader.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut first)?;
    let packed = first == GZIP_MAGIC;
    let whole = Cursor::new(first).chain(reader);
    Ok(if packed {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(whole)))
    } else {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, whole))
    })
}

/// A line without its end; only its beginning when it is too long.
struct Raw {
    text: Vec<u8>,
    cut: bool,
}

fn next_line(lines: &mut dyn BufRead, number: u64) -> io::Result<Option<Raw>> {
    let mut text = Vec::new();
    // Room for the line's end, so that the longest line is not taken for a longer one.
    let read = lines.take(LINE_BYTES_MAX as u64 + 2).read_until(b'\n', &mut text)?;
    if read == 0 {
        return Ok(None);
    }
    let ended = text.pop_if(|byte| *byte == b'\n').is_some();
    text.pop_if(|byte| ended && *byte == b'\r');
    let cut = text.len() > LINE_BYTES_MAX;
    if cut {
        text.truncate(LINE_BYTES_MAX);
        if !ended {
            lines.skip_until(b'\n')?;
        }
    }
    if number == 1 && text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(Some(Raw { text, cut }))
}

impl Raw {
    fn is_blank(&self) -> bool {
        self.text.trim_ascii().is_empty() && !self.cut
    }

    fn check(self, number: u64) -> Result<Line, BadLine> {
        let checked = if self.cut {
            Err(format!("it is longer than {LINE_BYTES_MAX} bytes"))
        } else {
            line::parse(number, &self.text)
        };
        checked.map_err(|reason| BadLine { number, reason, text: self.text, cut: self.cut })
    }
}

/// Good lines on their way to one append.
struct Batch {
    options: Options,
    lines: Vec<Line>,
    bytes: usize,
}

impl Batch {
    /// Adds a line, and returns those before it if it does not fit beside them.
    fn push(&mut self, line: Line) -> Option<Found> {
        let bytes = line.text.len();
        let full =
            self.bytes + bytes > self.options.batch_bytes_max || self.lines.len() >= self.options.batch_lines_max;
        let before = if full { self.take() } else { None };
        self.bytes += bytes;
        self.lines.push(line);
        before
    }

    fn take(&mut self) -> Option<Found> {
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        (!lines.is_empty()).then_some(Found::Lines(lines))
    }
}
