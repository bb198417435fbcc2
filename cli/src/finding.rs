//! What is wrong with a directory of resources, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use operator::inputs::Key;
use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// As it was named on the command line.
    pub(crate) file: PathBuf,
    /// Where the document begins, or the very line if it is known; from 1.
    pub(crate) line: usize,
    /// The resource as `Kind namespace/name`, if it could be told.
    #[serde(serialize_with = "displayed", skip_serializing_if = "Option::is_none")]
    pub(crate) object: Option<Key>,
    /// Where in the resource: `spec.match.regex`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) field: String,
    pub(crate) message: String,
}

fn displayed<S: serde::Serializer>(key: &Option<Key>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.collect_str(key),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        // One line a finding, whatever a library had to say.
        self.message
            .lines()
            .enumerate()
            .try_for_each(|(index, line)| {
                let separator = if index == 0 { "" } else { " " };
                write!(f, "{separator}{}", line.trim())
            })
    }
}
