//! Lines that are known to be lost, ahead of what is done with.

use std::collections::BTreeMap;

/// Ranges of ordinals; no two overlap or touch, and each is between two records that were not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    // From the first ordinal to the one after the last.
    ranges: BTreeMap<u64, u64>,
    lines: u64,
}

impl Gaps {
    /// How many lines are in gaps.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Makes the ordinals from `first` up to, but without, `end` a gap; returns how many of them were in none yet.
    pub(crate) fn add(&mut self, first: u64, end: u64) -> u64 {
        if first >= end {
            return 0;
        }
        let lines_before = self.lines;
        let (mut first, mut last) = (first, end);
        while let Some((&start, &stop)) = self.ranges.range(..=last).next_back() {
            if stop < first {
                break;
            }
            self.ranges.remove(&start);
            self.lines -= stop - start;
            (first, last) = (first.min(start), last.max(stop));
        }
        self.ranges.insert(first, last);
        self.lines += last - first;
        self.lines - lines_before
    }

    /// Forgets what lies before the ordinal `end`; returns how many lines these were.
    pub(crate) fn forget_before(&mut self, end: u64) -> u64 {
        let lines_before = self.lines;
        while let Some((&start, &stop)) = self.ranges.first_key_value()
            && start < end
        {
            self.ranges.remove(&start);
            self.lines -= stop.min(end) - start;
            if stop > end {
                self.ranges.insert(end, stop);
            }
        }
        lines_before - self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_lost_once() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.add(10, 20), 10);
        assert_eq!(gaps.add(10, 20), 0);
        assert_eq!(gaps.add(30, 40), 10);
        assert_eq!(gaps.add(15, 35), 10);
        assert_eq!(gaps.add(5, 10), 5);
        assert_eq!(gaps.add(7, 7), 0);
        assert_eq!(gaps.lines(), 35);
        assert_eq!(gaps.ranges, BTreeMap::from([(5, 40)]));
    }

    #[test]
    fn what_lies_before_is_forgotten() {
        let mut gaps = Gaps::default();
        gaps.add(0, 10);
        gaps.add(20, 30);
        assert_eq!(gaps.forget_before(25), 15);
        assert_eq!(gaps.ranges, BTreeMap::from([(25, 30)]));
        assert_eq!(gaps.forget_before(25), 0);
        assert_eq!(gaps.forget_before(100), 5);
        assert_eq!(gaps.lines(), 0);
    }
}
