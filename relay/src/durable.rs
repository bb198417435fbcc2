//! Files that are there whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Who may read what is written, and write it: this process's user alone, because a snapshot may hold keys.
const MODE: u32 = 0o600;

/// Puts `parts`, one after the other, in the place of the file at `path`: it is written beside, synced, and renamed over the
/// old one.
pub(crate) fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    // Before the first byte, and whatever a file that was left there allowed.
    file.set_permissions(Permissions::from_mode(MODE))?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
