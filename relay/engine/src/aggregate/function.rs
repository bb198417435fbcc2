//! What the points of a bucket can be made into.

use std::fmt;
use std::str::FromStr;

use super::Percentile;

/// A function as an aggregator lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// It gives one value.
    One(Statistic),
    /// P25, P50, P75, P90, P95 and P99.
    Percentiles,
}

/// One value that a bucket gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The mean.
    Avg,
    /// How many points there are.
    Count,
    /// The greatest value less the least.
    Delta,
    /// The change per second, from the point with the oldest timestamp to that with the newest; of points with the same
    /// timestamp the one that was received first counts. There is none if all timestamps are the same.
    Derive,
    /// The value that was received last, whatever its timestamp.
    Last,
    /// The greatest value.
    Max,
    /// The least value.
    Min,
    /// The standard deviation of the points as a whole population.
    Stdev,
    /// The sum.
    Sum,
    /// The value in the middle, or the mean of the two there, under every [`super::PercentileDefinition`].
    Median,
    /// A percentile, as the rule defines it.
    Percentile(Percentile),
}

/// A text that names no function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownFunction {
    /// It is not among the names.
    #[error(
        "'{0}' is not a function: use Avg, Count, Delta, Derive, Last, Max, Min, Stdev, Sum, Median, P1 to P99.9, or Percentiles"
    )]
    Name(String),
    /// It starts like a percentile and is none.
    #[error(
        "'{0}' is not a percentile: use P1 to P99.9, with at most one decimal, as in P95 or P99.9"
    )]
    Percentile(String),
}

// As custom resources write it, as output names have it.
const NAMES: [(&str, &str, Statistic); 10] = [
    ("Avg", "avg", Statistic::Avg),
    ("Count", "count", Statistic::Count),
    ("Delta", "delta", Statistic::Delta),
    ("Derive", "derive", Statistic::Derive),
    ("Last", "last", Statistic::Last),
    ("Max", "max", Statistic::Max),
    ("Min", "min", Statistic::Min),
    ("Stdev", "stdev", Statistic::Stdev),
    ("Sum", "sum", Statistic::Sum),
    ("Median", "median", Statistic::Median),
];

impl Function {
    /// The values that it gives, in the order in which they are written.
    pub(super) fn statistics(self) -> Vec<Statistic> {
        match self {
            Self::One(statistic) => vec![statistic],
            Self::Percentiles => Percentile::USUAL.map(Statistic::Percentile).to_vec(),
        }
    }
}

impl FromStr for Function {
    type Err = UnknownFunction;

    fn from_str(text: &str) -> Result<Self, UnknownFunction> {
        if text == "Percentiles" {
            return Ok(Self::Percentiles);
        }
        if let Some((_, _, statistic)) = NAMES.iter().find(|(name, _, _)| *name == text) {
            return Ok(Self::One(*statistic));
        }
        match text.strip_prefix('P') {
            Some(number) if number.starts_with(|first: char| first.is_ascii_digit()) => {
                Percentile::parse(number)
                    .map(|percentile| Self::One(Statistic::Percentile(percentile)))
                    .ok_or_else(|| UnknownFunction::Percentile(text.to_owned()))
            }
            _ => Err(UnknownFunction::Name(text.to_owned())),
        }
    }
}

/// As output names have it: `sum`, `p95`, `p99_9`; there is never a dot in it, which would be a level of the name.
impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Percentile(percentile) = self {
            return percentile.fmt(f);
        }
        let named = NAMES.iter().find(|(_, _, statistic)| statistic == self);
        let (_, name, _) = named.expect("all but percentiles are in the table");
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_as_in_resources_and_suffixed_as_in_names() {
        for (text, suffixes) in [
            ("Avg", &["avg"][..]),
            ("Count", &["count"]),
            ("Delta", &["delta"]),
            ("Derive", &["derive"]),
            ("Last", &["last"]),
            ("Max", &["max"]),
            ("Min", &["min"]),
            ("Stdev", &["stdev"]),
            ("Sum", &["sum"]),
            ("Median", &["median"]),
            ("P1", &["p1"]),
            ("P95", &["p95"]),
            ("P99.9", &["p99_9"]),
            ("Percentiles", &["p25", "p50", "p75", "p90", "p95", "p99"]),
        ] {
            let function: Function = text.parse().unwrap();
            let found: Vec<String> = function
                .statistics()
                .iter()
                .map(Statistic::to_string)
                .collect();
            assert_eq!(found, suffixes, "{text}");
        }
    }

    #[test]
    fn what_is_no_function_is_refused_with_a_remedy() {
        for text in ["", "sum", "Sum ", "Mean", "P", "Px", "Percentile", "P-5"] {
            let error = text.parse::<Function>();
            assert_eq!(error, Err(UnknownFunction::Name(text.to_owned())), "{text}");
        }
        // One spelling each: two would be two lines with one name.
        for text in [
            "P0", "P0.5", "P100", "P05", "P95.0", "P95.", "P99.99", "P9999", "P1e1", "P5 ", "P5.-1",
        ] {
            let error = text.parse::<Function>();
            assert_eq!(
                error,
                Err(UnknownFunction::Percentile(text.to_owned())),
                "{text}"
            );
        }
        assert_eq!(
            "P100".parse::<Function>().unwrap_err().to_string(),
            "'P100' is not a percentile: use P1 to P99.9, with at most one decimal, as in P95 or P99.9"
        );
    }
}
