//! What is known of series that become Grafana's MetricData. They repeat every interval.

use std::collections::HashMap;
use std::sync::Arc;

use relay_engine::StorageSchemas;
use relay_wire::metric_data::{InvalidSeries, Series};

/// Series that are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 50_000;

/// Series by their names.
pub(super) struct Known {
    org_id: u32,
    schemas: StorageSchemas,
    series: HashMap<Box<[u8]>, Arc<Series>, foldhash::fast::RandomState>,
}

/// What a name is.
pub(super) enum Found {
    Series(Arc<Series>),
    /// Why it is none.
    Invalid(&'static str),
}

/// The name in a line.
pub(super) fn name(line: &[u8]) -> &[u8] {
    &line[..memchr::memchr(b' ', line).unwrap_or(line.len())]
}

impl Known {
    pub(super) fn new(org_id: u32, schemas: StorageSchemas) -> Self {
        Self {
            org_id,
            schemas,
            series: HashMap::default(),
        }
    }

    pub(super) fn find(&mut self, name: &[u8]) -> Found {
        if let Some(series) = self.series.get(name) {
            return Found::Series(Arc::clone(series));
        }
        let interval = self.schemas.interval(name);
        match Series::new(name, self.org_id, interval) {
            Ok(series) => {
                if self.series.len() >= REMEMBERED_MAX {
                    self.series.clear();
                }
                let series = Arc::new(series);
                self.series.insert(name.into(), Arc::clone(&series));
                Found::Series(series)
            }
            Err(InvalidSeries::Name) => Found::Invalid("its name is nothing but dots"),
            Err(InvalidSeries::Utf8) => Found::Invalid("its name is not UTF-8"),
            Err(InvalidSeries::Tag) => Found::Invalid("a tag is not key=value as Grafana has it"),
        }
    }
}
