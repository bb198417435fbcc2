//! What a destination will never take, kept in a file where people can read it and have it sent again.
//!
//! The file has lines as they would have been sent, and before each group of them a line that begins with `#`: when, and why
//! they were not taken. It is bounded; what has no room is counted as dropped all the same, and not kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use crate::clock;

/// What is written of a reason, in characters.
const REASON_CHARS_MAX: usize = 256;

/// The dead letters of one destination.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: PathBuf,
    bytes_max: AtomicU64,
    // Held while the file is written or emptied.
    file: Mutex<Option<File>>,
    bytes: AtomicU64,
}

impl DeadLetters {
    /// Those in a file, which need not be there.
    pub(crate) fn new(path: PathBuf, bytes_max: u64) -> Self {
        let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self {
            path,
            bytes_max: bytes_max.into(),
            file: Mutex::new(None),
            bytes: bytes.into(),
        }
    }

    /// Says how many bytes are kept at most.
    pub(crate) fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keeps lines, each group with why it was refused. Returns whether there was room for all of them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) async fn keep(self: &Arc<Self>, groups: &[(&str, Vec<u8>)]) -> io::Result<bool> {
        let now = clock::now().0;
        let groups = groups.iter().map(|(why, lines)| {
            let why: String = why.chars().take(REASON_CHARS_MAX).collect();
            let why = why.replace(['\n', '\r'], " ");
            [format!("# {now} {why}\n").as_bytes(), lines].concat()
        });
        let groups: Vec<Vec<u8>> = groups.collect();
        let this = Arc::clone(self);
        spawn_blocking(move || {
            let mut are_kept = true;
            for group in &groups {
                are_kept &= this.append(group)?;
            }
            Ok(are_kept)
        })
        .await?
    }

    fn append(&self, group: &[u8]) -> io::Result<bool> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.bytes();
        if before + group.len() as u64 > self.bytes_max.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if file.is_none() {
            let opened = || {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)
            };
            *file = Some(match opened() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                    opened()?
                }
                other => other?,
            });
        }
        if let Some(open) = &mut *file {
            open.write_all(group)?;
            self.bytes
                .store(before + group.len() as u64, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Everything that is kept, with its reasons.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Gives all lines to `take`, and keeps them no more if that returns `true`.
    ///
    /// # Errors
    /// The file cannot be read, or cannot be removed: its lines were given to `take` then, and may be once more.
    pub(crate) fn empty(&self, take: impl FnOnce(Vec<u8>) -> bool) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.read()?;
        let lines = kept.split_inclusive(|byte| *byte == b'\n');
        let is_whole = |line: &&[u8]| !line.starts_with(b"#") && line.ends_with(b"\n");
        let lines: Vec<u8> = lines.filter(is_whole).flatten().copied().collect();
        if !take(lines) {
            return Ok(());
        }
        *file = None;
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.bytes.store(0, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_can_be_read_and_taken_out_and_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/lines");
        let dead = Arc::new(DeadLetters::new(path.clone(), 100));
        assert_eq!(dead.read().unwrap(), b"");
        let groups = [
            ("400: out of\norder", b"a 1 1\nb 2 2\n".to_vec()),
            ("too much", vec![b'x'; 100]),
        ];
        assert!(dead.keep(&groups[..1]).await.unwrap());
        assert!(!dead.keep(&groups[1..]).await.unwrap());
        let again = Arc::new(DeadLetters::new(path, 100));
        assert_eq!(again.bytes(), dead.bytes());
        let text = String::from_utf8(again.read().unwrap()).unwrap();
        let (reason, lines) = text.split_once('\n').unwrap();
        assert!(
            reason.starts_with("# 1") && reason.ends_with(" 400: out of order"),
            "{reason}"
        );
        assert_eq!(lines, "a 1 1\nb 2 2\n");
        let mut taken = Vec::new();
        again
            .empty(|lines| {
                taken = lines;
                true
            })
            .unwrap();
        assert_eq!(taken, b"a 1 1\nb 2 2\n");
        assert_eq!((again.bytes(), again.read().unwrap()), (0, vec![]));
    }
}
