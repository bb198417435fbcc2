//! Names with labels, as Prometheus has them: what becomes of the names of series.
//!
//! The first rule that matches the part before the tags gives a name and labels. Where none does, the name stays what it is.
//! Tags are labels. What Prometheus does not allow in names becomes `_`.

use std::sync::Arc;

use crate::expression::Finder;
use crate::template::Template;

/// The label that is the metric's name.
const NAME: &[u8] = b"__name__";

/// Rules, in order.
#[derive(Clone, Debug)]
pub struct Mapping {
    rules: Arc<[Rule]>,
    // What no rule matches is not mapped.
    is_strict: bool,
    // What it was made of, to tell one from another.
    source: Arc<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) regex: Finder,
    /// `None`: what matches is not mapped.
    pub(crate) output: Option<Output>,
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) name: Template,
    pub(crate) labels: Vec<(Box<[u8]>, Template)>,
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Mapping {}

/// Labels of a series, with its name among them.
#[derive(Debug, Default)]
pub struct Labels(Vec<(Vec<u8>, Vec<u8>)>);

impl Labels {
    /// Each label and its value, sorted by label; none twice, none empty. Labels are `[a-zA-Z_][a-zA-Z0-9_]*`, and so is the
    /// value of `__name__`, which may have colons besides. Other values are UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(label, value)| (&label[..], &value[..]))
    }

    // The first to give a label a value wins. A value that is empty is none.
    fn push(&mut self, label: Vec<u8>, value: Vec<u8>) {
        let is_known = self.0.iter().any(|(known, _)| *known == label);
        if !is_known && !value.is_empty() {
            self.0.push((label, value));
        }
    }
}

impl Mapping {
    pub(crate) fn new(rules: Vec<Rule>, is_strict: bool, source: &[u8]) -> Self {
        Self {
            rules: rules.into(),
            is_strict,
            source: source.into(),
        }
    }

    /// The labels of a series. `None`: it is not mapped.
    pub fn labels(&self, series: &[u8]) -> Option<Labels> {
        let end = memchr::memchr(b';', series).unwrap_or(series.len());
        let (path, tags) = series.split_at(end);
        let mut labels = Labels::default();
        let found = self
            .rules
            .iter()
            .find_map(|rule| Some((rule, rule.regex.find(path)?)));
        match found {
            Some((rule, found)) => {
                let output = rule.output.as_ref()?;
                let expanded = |template: &Template| {
                    let mut text = Vec::new();
                    template.expand(&found, 0, &mut text);
                    text
                };
                labels.push(NAME.into(), legal_name(&expanded(&output.name), true));
                for (label, value) in &output.labels {
                    labels.push(label.to_vec(), valid_utf8(&expanded(value)));
                }
            }
            None if self.is_strict => return None,
            None => labels.push(NAME.into(), legal_name(path, true)),
        }
        for tag in tags.split(|byte| *byte == b';').skip(1) {
            let equals = memchr::memchr(b'=', tag).unwrap_or(tag.len());
            let value = tag.get(equals + 1..).unwrap_or_default();
            labels.push(legal_name(&tag[..equals], false), valid_utf8(value));
        }
        labels.0.sort_unstable();
        Some(labels)
    }
}

fn legal_name(text: &[u8], is_metric: bool) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len() + 1);
    if text.first().is_none_or(u8::is_ascii_digit) {
        name.push(b'_');
    }
    name.extend(text.iter().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => *byte,
        b':' if is_metric => *byte,
        _ => b'_',
    }));
    name
}

fn valid_utf8(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text).into_owned().into_bytes()
}
