//! What becomes of lines that a destination will never take: its dead letters have them, and now and then the log says so.

use std::ops::Range;
use std::sync::Arc;

use tracing::warn;

use super::{DeadLetters, Seldom};

/// Those of one connection.
pub(super) struct Rejections {
    destination: Arc<str>,
    dead_letters: Option<Arc<DeadLetters>>,
    // Lines since the log said something.
    untold: u64,
    told: Seldom,
}

impl Rejections {
    pub(super) fn new(destination: Arc<str>, dead_letters: Option<Arc<DeadLetters>>) -> Self {
        Self {
            destination,
            dead_letters,
            untold: 0,
            told: Seldom::default(),
        }
    }

    /// Keeps these of a batch's lines, each of them with why it was refused.
    pub(super) async fn keep(&mut self, batch: &[u8], refused: &[(Range<usize>, &str)]) {
        let mut groups: Vec<(&str, Vec<u8>)> = Vec::new();
        for (range, why) in refused {
            let lines = &batch[range.clone()];
            match groups.iter_mut().find(|(other, _)| other == why) {
                Some((_, group)) => group.extend_from_slice(lines),
                None => groups.push((why, lines.to_vec())),
            }
            self.untold += memchr::memchr_iter(b'\n', lines).count() as u64;
        }
        let Some((why, _)) = groups.first() else {
            return;
        };
        let are_kept = match &self.dead_letters {
            Some(dead_letters) => dead_letters.keep(&groups).await,
            None => Ok(false),
        };
        if !self.told.is_due() {
            return;
        }
        let (destination, lines) = (&*self.destination, std::mem::take(&mut self.untold));
        match are_kept {
            Ok(are_kept) => {
                warn!(
                    destination,
                    lines, why, are_kept, "lines that the destination will never take"
                );
            }
            Err(error) => {
                warn!(destination, lines, why, %error, "lines that the destination will never take, and they cannot be kept");
            }
        }
    }
}
