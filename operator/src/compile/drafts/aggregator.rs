//! Aggregator → its message.

use crds::Aggregator;
use relay_proto as proto;

use super::route::matches;
use crate::inputs::Key;

pub(super) fn message(aggregator: &Aggregator, key: &Key) -> proto::Aggregator {
    let spec = &aggregator.spec;
    proto::Aggregator {
        source: Some(key.to_ref()),
        id: super::id(aggregator, key),
        r#match: Some(matches(&spec.matches)),
        functions: spec.functions.clone(),
        output: spec.output.clone(),
        interval_ms: spec.interval.as_millis(),
        wait_ms: spec.wait.as_millis(),
        drop_raw: spec.drop_raw,
        percentile_definition: spec.percentile_definition.as_str().to_owned(),
    }
}
