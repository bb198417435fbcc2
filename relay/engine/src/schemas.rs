//! storage-schemas.conf, as far as a sender wants to know: how often each series has a point.
//!
//! ```text
//! # comments begin a line
//! [carbon]
//! pattern = ^carbon\.
//! retentions = 60s:90d
//! priority = 10
//! ```
//!
//! Of the sections whose pattern is found in a series, that with the greatest priority holds, and of several the first. One
//! must match everything (`.*`), so that every series has an interval.

use std::sync::Arc;

use crate::expression::Expression;

/// Sections, in the order in which they hold.
#[derive(Clone, Debug)]
pub struct StorageSchemas {
    sections: Arc<[Section]>,
    text: Arc<str>,
}

#[derive(Debug)]
struct Section {
    pattern: Expression,
    interval: u32,
}

impl PartialEq for StorageSchemas {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for StorageSchemas {}

// A section while it is read.
#[derive(Default)]
struct Draft<'t> {
    name: &'t str,
    pattern: Option<&'t str>,
    retentions: Option<&'t str>,
    priority: i64,
}

impl StorageSchemas {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut drafts: Vec<Draft<'_>> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                let name = name.trim();
                drafts.push(Draft {
                    name,
                    ..Draft::default()
                });
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(format!(
                    "line {number} is neither [section] nor key = value"
                ));
            };
            let Some(draft) = drafts.last_mut() else {
                return Err(format!(
                    "line {number} is in no section: begin one with [name]"
                ));
            };
            let value = value.trim().trim_matches(['"', '\'']);
            match key.trim().to_ascii_lowercase().as_str() {
                "pattern" => draft.pattern = Some(value),
                "retentions" => draft.retentions = Some(value),
                "priority" => {
                    draft.priority = value
                        .parse()
                        .map_err(|_| format!("line {number}: '{value}' is not a whole number"))?;
                }
                // What is for those who store.
                _ => {}
            }
        }
        let matches_all = |draft: &Draft<'_>| draft.pattern == Some(".*");
        if !drafts.iter().any(matches_all) {
            return Err("no section matches everything: add one with pattern = .*".to_owned());
        }
        drafts.sort_by_key(|draft| std::cmp::Reverse(draft.priority));
        let sections: Result<_, _> = drafts.iter().map(Section::of).collect();
        Ok(Self {
            sections: sections?,
            text: text.into(),
        })
    }

    /// The text that it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How often a series has a point, in seconds.
    pub fn interval(&self, series: &[u8]) -> u32 {
        let found = self
            .sections
            .iter()
            .find(|section| section.pattern.is_match(series));
        // One matches everything.
        found.map_or(60, |section| section.interval)
    }
}

impl Section {
    fn of(draft: &Draft<'_>) -> Result<Self, String> {
        let name = draft.name;
        let pattern = draft.pattern.filter(|pattern| !pattern.is_empty());
        let pattern = pattern.ok_or_else(|| format!("[{name}] has no pattern"))?;
        let (pattern, _) =
            Expression::anywhere(pattern).map_err(|error| format!("[{name}] pattern: {error}"))?;
        let retentions = draft.retentions.unwrap_or_default();
        let first = retentions.split(',').next().unwrap_or_default();
        let precision = first.split(':').next().unwrap_or_default().trim();
        let interval = seconds(precision).filter(|seconds| *seconds > 0);
        let interval = interval.ok_or_else(|| {
            format!(
                "[{name}] retentions: '{retentions}' does not begin with an interval such as 10s:6h"
            )
        })?;
        Ok(Self { pattern, interval })
    }
}

// 60, 60s, 1min, 1h …
fn seconds(text: &str) -> Option<u32> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        "y" | "year" | "years" => 31_536_000,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_of_the_greatest_priority_holds() {
        let text = "
# comment
[default]
pattern = .*
retentions = 60s:1d,10m:1y
[fast]
 PATTERN = \"\\.fast$\"
retentions = 10s:6h
priority = 5
[old]
pattern = ^old\\.
retentions = 30:100
[also]
pattern = fast
retentions = 1min:1h
priority = 5
";
        let schemas = StorageSchemas::parse(text).unwrap();
        for (series, interval) in [
            ("a.fast", 10),
            ("a.fast.b", 60),
            ("old.a", 60),
            ("old.fast", 10),
            ("b", 60),
        ] {
            assert_eq!(schemas.interval(series.as_bytes()), interval, "{series}");
        }
        assert_eq!(schemas.text(), text);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            (
                "",
                "no section matches everything: add one with pattern = .*",
            ),
            ("a = b", "line 1 is in no section: begin one with [name]"),
            ("[a]\nb", "line 2 is neither [section] nor key = value"),
            ("[a]\npriority = x", "line 2: 'x' is not a whole number"),
            (
                "[a]\npattern=.*",
                "[a] retentions: '' does not begin with an interval such as 10s:6h",
            ),
            (
                "[a]\npattern=.*\nretentions=0s:1d",
                "[a] retentions: '0s:1d' does not begin with an interval such as 10s:6h",
            ),
            (
                "[a]\npattern=.*\nretentions=1s:1d\n[b]\nretentions=1s:1d",
                "[b] has no pattern",
            ),
        ] {
            assert_eq!(StorageSchemas::parse(text).unwrap_err(), error, "{text}");
        }
        let error = StorageSchemas::parse("[a]\npattern=.*\nretentions=1s:1d\n[b]\npattern=(");
        assert!(error.unwrap_err().starts_with("[b] pattern: "));
    }
}
