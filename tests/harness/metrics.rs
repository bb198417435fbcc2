//! What `/metrics` says.

use std::collections::BTreeMap;

/// The samples of one scrape, by name and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, BTreeMap<Labels, f64>>);

type Labels = BTreeMap<String, String>;

impl Metrics {
    /// Reads the Prometheus text format.
    ///
    /// # Errors
    /// With the line that is not in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, labels, value) = sample(line).ok_or_else(|| format!("no sample: {line}"))?;
            let samples = metrics.0.entry(name.to_owned()).or_default();
            if samples.insert(labels, value).is_some() {
                return Err(format!("a sample twice: {line}"));
            }
        }
        Ok(metrics)
    }

    /// The value of the sample with exactly these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        self.0.get(name)?.get(&labels.collect::<Labels>()).copied()
    }

    /// A count, summed over all labels; zero if there is no sample.
    pub fn count(&self, name: &str) -> u64 {
        self.samples(name).map(|(_, value)| value as u64).sum()
    }

    /// The counts that are not zero, by one label and summed over the others, of the samples for which `filter` holds.
    pub fn counts_by(
        &self,
        name: &str,
        label: &str,
        filter: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (labels, value) in self.samples(name).filter(|(labels, _)| filter(labels)) {
            if let (Some(key), 1..) = (labels.get(label), value as u64) {
                *counts.entry(key.clone()).or_default() += value as u64;
            }
        }
        counts
    }

    /// The samples of one name.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = (&BTreeMap<String, String>, f64)> {
        let samples = self.0.get(name).into_iter().flatten();
        samples.map(|(labels, value)| (labels, *value))
    }
}

// `name{key="value",…} 1` with the braces optional. No label of ours has a quote, a comma or a backslash in it.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series, Labels::new(), value));
    };
    let labels = labels
        .strip_suffix('}')?
        .split(',')
        .filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (key, quoted) = label.split_once('=')?;
        let value = quoted.strip_prefix('"')?.strip_suffix('"')?;
        Some((key.to_owned(), value.to_owned()))
    });
    Some((name, labels.collect::<Option<Labels>>()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP dropped_total Lines.\n\
        # TYPE dropped_total counter\n\
        dropped_total{to=\"a\",reason=\"full\"} 3\n\
        dropped_total{to=\"b\",reason=\"full\"} 4\n\
        dropped_total{to=\"b\",reason=\"late\"} 0\n\
        up 0.5\n\
        # EOF\n";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT).unwrap();
        assert_eq!(metrics.get("up", &[]), Some(0.5));
        assert_eq!(
            metrics.get("dropped_total", &[("reason", "full"), ("to", "b")]),
            Some(4.0)
        );
        assert_eq!(metrics.get("dropped_total", &[("to", "b")]), None);
        assert_eq!(
            (metrics.count("dropped_total"), metrics.count("other_total")),
            (7, 0)
        );
    }

    #[test]
    fn counts_are_grouped_by_a_label() {
        let metrics = Metrics::parse(TEXT).unwrap();
        let all = metrics.counts_by("dropped_total", "reason", |_| true);
        assert_eq!(all, BTreeMap::from([("full".into(), 7)]));
        let of_a = metrics.counts_by("dropped_total", "reason", |labels| labels["to"] == "a");
        assert_eq!(of_a, BTreeMap::from([("full".into(), 3)]));
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        assert_eq!(Metrics::parse("up"), Err("no sample: up".into()));
        assert_eq!(
            Metrics::parse("up{a=b} 1"),
            Err("no sample: up{a=b} 1".into())
        );
        assert_eq!(
            Metrics::parse("up 1\nup 2"),
            Err("a sample twice: up 2".into())
        );
    }
}
