//! Prometheus' remote-write protocol, version 1.0: samples in protobuf, compressed by Snappy.
//!
//! ```text
//! WriteRequest { timeseries: [TimeSeries { labels: [Label { name, value }], samples: [Sample { value, timestamp }] }] }
//! ```

use std::io;
use std::sync::Arc;

use crate::line::Line;
use crate::protobuf::write;

// Numbers of fields.
const TIMESERIES: u8 = 1;
const LABELS: u8 = 1;
const SAMPLES: u8 = 2;
const LABEL_NAME: u8 = 1;
const LABEL_VALUE: u8 = 2;
const SAMPLE_VALUE: u8 = 1;
const SAMPLE_TIMESTAMP: u8 = 2;

/// One request, and memory for the next one.
pub struct Request {
    message: Vec<u8>,
    sample: Vec<u8>,
    compressor: snap::raw::Encoder,
}

/// Appends labels, as they stand in a series, to `out`. They must be sorted by name.
pub fn encode_labels<'a>(
    labels: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut Vec<u8>,
) {
    for (name, value) in labels {
        let length = write::bytes_len(name.len()) + write::bytes_len(value.len());
        write::begin(LABELS, length, out);
        write::bytes(LABEL_NAME, name, out);
        write::bytes(LABEL_VALUE, value, out);
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            message: Vec::new(),
            sample: Vec::new(),
            compressor: snap::raw::Encoder::new(),
        }
    }
}

impl Request {
    /// Adds the sample of the first of `lines`, and takes that off them. `labels` gives what [`encode_labels`] made for a name,
    /// or `None` for one that has no place here. Returns whether the sample was added; `None`: there is no line left.
    pub fn push<'l>(
        &mut self,
        lines: &mut &'l [u8],
        labels: impl FnOnce(&'l [u8]) -> Option<Arc<[u8]>>,
    ) -> Option<bool> {
        let line = Line::take(lines)?;
        let Some(labels) = labels(line.name) else {
            return Some(false);
        };
        self.sample.clear();
        write::double(SAMPLE_VALUE, line.value.as_f64(), &mut self.sample);
        let milliseconds = u64::from(line.timestamp) * 1000;
        write::varint(SAMPLE_TIMESTAMP, milliseconds, &mut self.sample);
        let length = labels.len() + write::bytes_len(self.sample.len());
        write::begin(TIMESERIES, length, &mut self.message);
        self.message.extend_from_slice(&labels);
        write::bytes(SAMPLES, &self.sample, &mut self.message);
        Some(true)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// The body of the request. What follows is the next one.
    ///
    /// # Errors
    /// It is longer than 4 GiB.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        let body = self.compressor.compress_vec(&self.message);
        self.message.clear();
        Ok(body?)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Message, PartialEq)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<TimeSeries>,
    }

    #[derive(Message, PartialEq)]
    struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<Sample>,
    }

    #[derive(Message, PartialEq)]
    struct Label {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Message, PartialEq)]
    struct Sample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        timestamp: i64,
    }

    #[test]
    fn a_request_is_what_prometheus_reads() {
        let mut request = Request::default();
        let long = "v".repeat(300);
        let mut lines = &b"a 1.5 1700000000\nleft.out 1 1\nb -0 0\n"[..];
        let mut pushed = Vec::new();
        while let Some(is_in) = request.push(&mut lines, |name| {
            let mut labels = Vec::new();
            encode_labels(
                [(&b"__name__"[..], name), (b"dc", long.as_bytes())],
                &mut labels,
            );
            (name != b"left.out").then(|| labels.into())
        }) {
            pushed.push(is_in);
        }
        assert_eq!(pushed, [true, false, true]);
        let body = request.finish().unwrap();
        assert!(request.is_empty());
        let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let expected = |name: &str, value, timestamp| TimeSeries {
            labels: vec![
                Label {
                    name: "__name__".into(),
                    value: name.into(),
                },
                Label {
                    name: "dc".into(),
                    value: long.clone(),
                },
            ],
            samples: vec![Sample { value, timestamp }],
        };
        assert_eq!(
            WriteRequest::decode(&body[..]).unwrap(),
            WriteRequest {
                timeseries: vec![
                    expected("a", 1.5, 1_700_000_000_000),
                    expected("b", -0.0, 0)
                ],
            }
        );
    }
}
