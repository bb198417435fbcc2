//! Spools of destinations that are not there any more: renamed or removed, with lines that were not sent.
//!
//! Nobody can know whether somebody still wants these lines. So a relay leaves them alone, and tells of them until a person
//! removes the directory or brings the destination back.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use relay_spool::Survey;
use serde_json::{Value, json};

/// What is on disk for a destination that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    /// In the directory of spools.
    pub(crate) directory: String,
    pub(crate) survey: Survey,
}

impl Orphan {
    /// Looks through the directory of spools, the largest spool first. `in_use` has the directories of those destinations
    /// that are there. A spool that cannot be read counts, for lines may be in it.
    ///
    /// # Errors
    /// The directory of spools cannot be read.
    pub(crate) fn find(spools: &Path, in_use: &BTreeSet<String>) -> io::Result<Vec<Self>> {
        let mut orphans = Vec::new();
        let entries = match std::fs::read_dir(spools) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(orphans),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let directory = entry.file_name().to_string_lossy().into_owned();
            if in_use.contains(&directory) || !entry.file_type()?.is_dir() {
                continue;
            }
            match Survey::read(&entry.path()) {
                Ok(survey) if !survey.holds_lines() => {}
                read => orphans.push(Self {
                    directory,
                    survey: read.unwrap_or_default(),
                }),
            }
        }
        orphans.sort_by(|a, b| {
            let by_bytes = b.survey.bytes.cmp(&a.survey.bytes);
            by_bytes.then_with(|| a.directory.cmp(&b.directory))
        });
        Ok(orphans)
    }

    /// As `/destinations` has it.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "destination": self.survey.owner,
            "id": self.survey.identity,
            "directory": self.directory,
            "bytes": self.survey.bytes,
            "lines": self.survey.lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use relay_spool::{Limits, Spool, UnixSeconds, WhenFull};

    use super::*;

    fn spool(spools: &Path, id: &str, lines: u64) {
        let limits = Limits {
            bytes_max: 1 << 20,
            age_max: None,
            segment_bytes: Limits::SEGMENT_BYTES,
            when_full: WhenFull::DropNewest,
        };
        let mut spool = Spool::open(&spools.join(id), id, limits, UnixSeconds(1)).unwrap();
        spool.set_owner(&format!("default/{id}")).unwrap();
        if lines > 0 {
            let batch = "a 1 1\n".repeat(lines as usize);
            spool.append(batch.as_bytes(), lines).unwrap();
        }
        spool.sync(UnixSeconds(1)).unwrap();
    }

    #[test]
    fn what_waits_for_nobody_is_found_the_largest_first() {
        let parent = tempfile::tempdir().unwrap();
        let spools = parent.path().join("spools");
        let find = || Orphan::find(&spools, &BTreeSet::from(["used".to_owned()])).unwrap();
        assert_eq!(find(), []);
        for (id, lines) in [("used", 9), ("small", 1), ("empty", 0), ("large", 5)] {
            spool(&spools, id, lines);
        }
        std::fs::write(spools.join("file"), "not a spool").unwrap();
        let found: Vec<_> = find()
            .into_iter()
            .map(|orphan| (orphan.survey.owner.unwrap(), orphan.survey.lines))
            .collect();
        assert_eq!(
            found,
            [
                ("default/large".to_owned(), Some(5)),
                ("default/small".to_owned(), Some(1))
            ]
        );
    }
}
