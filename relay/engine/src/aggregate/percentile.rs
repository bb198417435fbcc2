//! Percentiles, by the definitions that people expect.
//!
//! Ranks are reckoned in whole thousandths, so that P7 of 100 values is exactly the seventh.

use std::fmt;

/// A percentile from 1 to 99.9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile {
    // 10 to 999.
    tenths: u16,
}

/// Where a percentile lies among `n` values in ascending order, whose ranks are 1 to `n`; what falls between two ranks is
/// interpolated. The numbers are Hyndman and Fan's (Sample Quantiles in Statistical Packages, 1996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PercentileDefinition {
    /// Rank `p/100 × (n + 1)`, within 1 and `n`: carbon-relay-ng's and NIST's.
    #[default]
    R6,
    /// Rank `p/100 × (n - 1) + 1`: that of NumPy, of R and of spreadsheets.
    R7,
    /// Rank `p/100 × n`, rounded up: always a value that was there (R1).
    NearestRank,
}

// What ranks are counted in.
const WHOLE: u64 = 1000;

impl Percentile {
    /// Those that the function `Percentiles` gives.
    pub(super) const USUAL: [Self; 6] = [
        Self { tenths: 250 },
        Self { tenths: 500 },
        Self { tenths: 750 },
        Self { tenths: 900 },
        Self { tenths: 950 },
        Self { tenths: 990 },
    ];

    /// Reads `95` or `99.9`; each number has one spelling.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, tenth) = match text.split_once('.') {
            None => (text, 0),
            Some((whole, tenth)) => match tenth.as_bytes() {
                [digit @ b'1'..=b'9'] => (whole, u16::from(digit - b'0')),
                _ => return None,
            },
        };
        match whole.as_bytes() {
            [b'1'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'] => Some(Self {
                tenths: whole.parse::<u16>().ok()? * 10 + tenth,
            }),
            _ => None,
        }
    }
}

impl PercentileDefinition {
    /// The percentile of values in ascending order, of which there is at least one.
    pub(super) fn value(self, percentile: Percentile, ascending: &[f64]) -> f64 {
        let count = ascending.len() as u64;
        let tenths = u64::from(percentile.tenths);
        let rank = match self {
            Self::R6 => tenths * (count + 1),
            Self::R7 => tenths * (count - 1) + WHOLE,
            Self::NearestRank => (tenths * count).next_multiple_of(WHOLE),
        };
        let rank = rank.clamp(WHOLE, count * WHOLE);
        let below = (rank / WHOLE) as usize;
        let lower = ascending[below - 1];
        match rank % WHOLE {
            0 => lower,
            thousandths => lower + thousandths as f64 / WHOLE as f64 * (ascending[below] - lower),
        }
    }
}

/// The value in the middle of values in ascending order, of which there is at least one.
pub(super) fn median(ascending: &[f64]) -> f64 {
    PercentileDefinition::R6.value(Percentile { tenths: 500 }, ascending)
}

/// As output names have it.
impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tenths / 10, self.tenths % 10) {
            (whole, 0) => write!(f, "p{whole}"),
            (whole, tenth) => write!(f, "p{whole}_{tenth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(definition: PercentileDefinition, ascending: &[f64]) -> Vec<f64> {
        ["1", "10", "25", "50", "75", "90", "99.9"]
            .iter()
            .map(|text| definition.value(Percentile::parse(text).unwrap(), ascending))
            .collect()
    }

    // The figures are NumPy's for `method="weibull"`, `"linear"` and `"inverted_cdf"`.
    #[test]
    fn definitions_differ_between_the_ends() {
        let ascending = [15.0, 20.0, 35.0, 40.0, 50.0];
        for (definition, expected) in [
            (
                PercentileDefinition::R6,
                [15.0, 15.0, 17.5, 35.0, 45.0, 50.0, 50.0],
            ),
            (
                PercentileDefinition::R7,
                [15.2, 17.0, 20.0, 35.0, 40.0, 46.0, 49.96],
            ),
            (
                PercentileDefinition::NearestRank,
                [15.0, 15.0, 20.0, 35.0, 40.0, 50.0, 50.0],
            ),
        ] {
            assert_eq!(values(definition, &ascending), expected, "{definition:?}");
            assert_eq!(values(definition, &[7.0]), [7.0; 7], "{definition:?}");
        }
    }

    #[test]
    fn ranks_are_exact() {
        let ascending: Vec<f64> = (1..=1000).map(f64::from).collect();
        for tenths in 10..1000 {
            let percentile = Percentile { tenths };
            let nearest = PercentileDefinition::NearestRank.value(percentile, &ascending);
            assert_eq!(nearest, f64::from(tenths));
        }
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(&[1.0]), 1.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
