//! The last snapshot that was applied, on disk, so that a relay starts without an operator.
//!
//! One file, `snapshot`: the 32 bytes of the version, then the encoded snapshot that they are the SHA-256 of. It is written
//! beside, synced, and renamed over the old one, so there is always one whole file; one that does not match its digest is
//! ignored and said so. Keys of certificates are in there, so no other user may read it; credentials of destinations are not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use relay_proto::{Message as _, Snapshot, Version};
use tracing::warn;

use crate::durable;

const VERSION_BYTES: usize = 32;

/// Where the last good snapshot is kept.
pub(crate) struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Reads the snapshot, if there is a usable one.
    ///
    /// # Errors
    /// The directory or the file cannot be read, which a person must mend before this relay can keep anything there.
    pub(crate) fn load(&self) -> anyhow::Result<Option<(Snapshot, Version, Bytes)>> {
        fs::create_dir_all(&self.directory).with_context(|| {
            format!(
                "cannot make the state directory {}",
                self.directory.display()
            )
        })?;
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let usable = decode(&bytes.into());
        if usable.is_none() {
            warn!(path = %path.display(), "the last good snapshot is damaged and ignored");
        }
        Ok(usable)
    }

    /// Puts `encoded` in the place of what is there.
    pub(crate) fn save(&self, encoded: &[u8]) -> io::Result<()> {
        durable::write(&self.path(), &[Version::of(encoded).as_bytes(), encoded])
    }

    fn path(&self) -> PathBuf {
        self.directory.join("snapshot")
    }
}

fn decode(bytes: &Bytes) -> Option<(Snapshot, Version, Bytes)> {
    let (digest, _) = bytes.split_at_checked(VERSION_BYTES)?;
    let encoded = bytes.slice(VERSION_BYTES..);
    let version = Version::of(&encoded);
    if version.as_bytes() != digest {
        return None;
    }
    Some((Snapshot::decode(encoded.clone()).ok()?, version, encoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(&directory.path().join("state"));
        assert!(last_good.load().unwrap().is_none());
        for schema in [1, 2] {
            let snapshot = Snapshot {
                schema,
                ..Snapshot::default()
            };
            let (encoded, version) = snapshot.seal();
            last_good.save(&encoded).unwrap();
            assert_eq!(
                last_good.load().unwrap(),
                Some((snapshot, version, encoded.into()))
            );
        }
    }

    #[test]
    fn no_other_user_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("snapshot.new"), "left by a crash").unwrap();
        LastGood::new(directory.path()).save(b"any").unwrap();
        let mode = fs::metadata(directory.path().join("snapshot"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(directory.path());
        let (encoded, _) = Snapshot {
            schema: 1,
            ..Snapshot::default()
        }
        .seal();
        last_good.save(&encoded).unwrap();
        let path = directory.path().join("snapshot");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        for damaged in [&bytes[..], &bytes[..20], &[]] {
            fs::write(&path, damaged).unwrap();
            assert!(last_good.load().unwrap().is_none());
        }
    }
}
