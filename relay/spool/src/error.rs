//! What can go wrong, on which path, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::figures::Loss;
use crate::format::{BATCH_BYTES_MAX, IDENTITY_BYTES_MAX, VERSION};
use crate::storage::Directory;

/// Why a call did not do all that it is for. None of these makes the spool unusable: each call may be made again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {operation} {path}: {}", remedy(source), path = path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process has the spool.
    #[error("the spool {path} is in use: wait for the process that has it, or give this one a directory of its own",
        path = path.display())]
    Locked {
        /// Its directory.
        path: PathBuf,
    },
    /// The directory belongs to another destination.
    #[error("{path} was written for {found:?}, not for {expected:?}: give each destination a directory of its own",
        path = path.display())]
    OtherIdentity {
        /// The file that says so.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who was to have it.
        expected: String,
    },
    /// Another release wrote it, in a format of its own.
    #[error("{path} is in format {found}, this release knows {VERSION}: let the release that wrote it send what is in there",
        path = path.display())]
    OtherVersion {
        /// The file that says so.
        path: PathBuf,
        /// The format's version.
        found: u32,
    },
    /// An identity that cannot be written.
    #[error("the identity {identity:?} has {} bytes: use 1 to {IDENTITY_BYTES_MAX}", identity.len())]
    Identity {
        /// What was given.
        identity: String,
    },
    /// The spool has no room for a batch.
    #[error("the spool {path} is full with {bytes} bytes: raise its maxBytes, or see why the destination takes so little",
        path = path.display())]
    Full {
        /// Its directory.
        path: PathBuf,
        /// Bytes on disk.
        bytes: u64,
    },
    /// A batch is not what a batch must be. This is the caller's mistake; nothing was counted or written.
    #[error(
        "{bytes} bytes as {lines} lines are no batch: it takes whole lines, and at most {BATCH_BYTES_MAX} bytes"
    )]
    Batch {
        /// Its length.
        bytes: usize,
        /// How many lines were said to be in it.
        lines: u64,
    },
}

impl Error {
    /// For `map_err`: what was tried on the file `name`.
    pub(crate) fn io<D: Directory>(
        directory: &D,
        operation: &'static str,
        name: &str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = directory.path().join(name);
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// What was tried on the directory itself.
    pub(crate) fn directory<D: Directory>(
        directory: &D,
        operation: &'static str,
        source: io::Error,
    ) -> Self {
        Self::Io {
            operation,
            path: directory.path().to_owned(),
            source,
        }
    }

    /// Under which reason [`Spool::append`](crate::Spool::append) counted the batch for which it gave this error.
    pub(crate) fn loss(&self) -> Loss {
        match self {
            Self::Full { .. } => Loss::Full,
            Self::Io { source, .. } if is_out_of_space(source) => Loss::DiskFull,
            Self::Io { .. }
            | Self::Locked { .. }
            | Self::OtherIdentity { .. }
            | Self::OtherVersion { .. }
            | Self::Identity { .. }
            | Self::Batch { .. } => Loss::Io,
        }
    }
}

fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn remedy(error: &io::Error) -> &'static str {
    if is_out_of_space(error) {
        return "free space on its file system, or lower the spool's maxBytes";
    }
    let remedies = [
        (
            io::ErrorKind::NotFound,
            "somebody removed it; leave the directory to the relay alone",
        ),
        (
            io::ErrorKind::PermissionDenied,
            "let the user that the relay runs as write there",
        ),
        (
            io::ErrorKind::ReadOnlyFilesystem,
            "mount its file system for writing",
        ),
    ];
    let known = remedies.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or("see the kernel's log on the disk below it", |known| known.1)
}
