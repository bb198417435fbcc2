//! The last lines that were refused, for people who ask why theirs did not arrive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use relay_engine::{Reason, UnixSeconds};
use serde_json::{Value, json};

use crate::source::Source;

/// Lines that are kept for each reason.
const LINES_MAX: usize = 32;

/// What is kept of a line, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The last lines of each reason, by its place. Of a block of lines, one for each reason is noted, so that a flood of bad
/// lines costs next to nothing.
#[derive(Debug, Default)]
pub(crate) struct RefusedLines([Mutex<VecDeque<RefusedLine>>; Reason::ALL.len()]);

/// A line that was refused.
#[derive(Debug)]
pub(crate) struct RefusedLine {
    text: Box<[u8]>,
    is_cut: bool,
    listener: Arc<str>,
    source: Source,
    at: UnixSeconds,
}

impl RefusedLine {
    pub(crate) fn new(text: &[u8], listener: &Arc<str>, source: Source, at: UnixSeconds) -> Self {
        Self {
            text: text[..text.len().min(TEXT_BYTES_MAX)].into(),
            is_cut: text.len() > TEXT_BYTES_MAX,
            listener: Arc::clone(listener),
            source,
            at,
        }
    }
}

impl RefusedLines {
    pub(crate) fn note(&self, reason: Reason, line: RefusedLine) {
        let mut lines = self.of(reason);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// `{"blank": [{"line": …, "listener": …, "source": …, "time": …}, …], …}`, the newest line of each reason first. Bytes
    /// that are not printable ASCII are escaped; `time` is in seconds since 1970.
    pub(crate) fn to_json(&self) -> Value {
        let line = |line: &RefusedLine| {
            json!({
                "line": line.text.escape_ascii().to_string(),
                "cut": line.is_cut,
                "listener": &*line.listener,
                "source": line.source.to_string(),
                "time": line.at.0,
            })
        };
        let reasons = Reason::ALL.into_iter().filter_map(|reason| {
            let lines: Vec<Value> = self.of(reason).iter().rev().map(line).collect();
            (!lines.is_empty()).then(|| (reason.as_str().to_owned(), Value::Array(lines)))
        });
        Value::Object(reasons.collect())
    }

    fn of(&self, reason: Reason) -> std::sync::MutexGuard<'_, VecDeque<RefusedLine>> {
        let lines = &self.0[reason as usize];
        lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn the_last_lines_of_each_reason_are_kept_the_newest_first() {
        let refused = RefusedLines::default();
        let source = Source::Remote(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let listener = Arc::from("plain");
        for number in 0..40 {
            let text = format!("bad\u{e9} {number}");
            let line = RefusedLine::new(text.as_bytes(), &listener, source, UnixSeconds(number));
            refused.note(Reason::FieldCount, line);
        }
        let long = RefusedLine::new(&[b'x'; 600], &listener, source, UnixSeconds(7));
        refused.note(Reason::LineTooLong, long);
        let shown = refused.to_json();
        let of = |reason: &str| shown[reason].as_array().unwrap().clone();
        assert_eq!(of("field_count").len(), LINES_MAX);
        assert_eq!(
            of("field_count")[0],
            json!({"line": r"bad\xc3\xa9 39", "cut": false, "listener": "plain", "source": "127.0.0.1:4000", "time": 39})
        );
        assert_eq!(of("line_too_long")[0]["cut"], true);
        assert_eq!(of("line_too_long")[0]["line"].as_str().unwrap().len(), 512);
        assert_eq!(shown.as_object().unwrap().len(), 2);
    }
}
