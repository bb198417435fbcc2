//! A relay that takes over from another one, with the same ports and the same state directory.
//!
//! What a relay leaves behind is there when it lets go of its directory: until then its successor runs on, and takes that up
//! when it may. The lock is the kernel's, so one that was killed has let go too.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

/// How often a directory that another process has is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The right to leave something behind in a state directory, and to take up what another one left.
#[derive(Debug)]
pub(crate) struct Succession {
    path: PathBuf,
    is_ours: bool,
    // Held while it is ours. A directory that cannot be locked has none: nobody else can lock it either.
    _lock: Option<File>,
}

impl Succession {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("lock"),
            is_ours: false,
            _lock: None,
        }
    }

    /// Takes the directory if no other process has it. Returns whether it is ours.
    pub(crate) fn try_take(&mut self) -> bool {
        if self.is_ours {
            return true;
        }
        match lock(&self.path) {
            Ok(lock) => {
                self.is_ours = lock.is_some();
                self._lock = lock;
            }
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the state directory cannot be locked, and is used as it is");
                self.is_ours = true;
            }
        }
        self.is_ours
    }

    /// Resolves when the directory is ours.
    pub(crate) async fn take(&mut self) {
        if self.try_take() {
            return;
        }
        info!("another process has the state directory; what it leaves is taken up when it stops");
        while !self.try_take() {
            sleep(ASK_AGAIN).await;
        }
    }
}

// `None`: another process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_one_processs_until_it_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let (mut first, mut second) = (Succession::new(&state), Succession::new(&state));
        assert!(first.try_take() && first.try_take());
        assert!(!second.try_take());
        let leave = async { drop(first) };
        tokio::join!(second.take(), leave);
        assert!(second.try_take());
    }
}
