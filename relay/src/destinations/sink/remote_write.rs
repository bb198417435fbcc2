//! A server of Prometheus' remote-write protocol.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use relay_engine::{Mapping, RemoteWrite, Sink};
use relay_wire::remote_write::{Request, encode_labels};

use super::http::{Http, Options};
use super::{Refusal, Taken};

/// Names whose labels are remembered, and the bytes of both; then all are forgotten.
const REMEMBERED_MAX: usize = 200_000;
const REMEMBERED_BYTES_MAX: usize = 32 << 20;

const HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

pub(super) struct Client {
    http: Http,
    request: Request,
    series: Series,
}

// Encoded; `None`: the name has no place on the server.
type Labels = Option<Arc<[u8]>>;

// What names become. They repeat every interval.
struct Series {
    mapping: Mapping,
    known: HashMap<Box<[u8]>, Labels, foldhash::fast::RandomState>,
    bytes: usize,
}

impl Client {
    pub(super) async fn open(to: &RemoteWrite, sink: &Sink) -> io::Result<Self> {
        let own = to.headers.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        let http = Http::open(Options {
            url: &to.url,
            tls: sink.tls.as_ref(),
            authorization: to.authorization.as_ref(),
            headers: HEADERS.into_iter().chain(own).collect(),
            timeout: sink.timeout,
        });
        Ok(Self {
            http: http.await?,
            request: Request::default(),
            series: Series {
                mapping: to.mapping.clone(),
                known: HashMap::default(),
                bytes: 0,
            },
        })
    }

    pub(super) async fn send(&mut self, mut lines: &[u8]) -> Result<Taken, Refusal> {
        let mut left_out = 0;
        let series = &mut self.series;
        while let Some(is_in) = self.request.push(&mut lines, |name| series.labels(name)) {
            left_out += u64::from(!is_in);
        }
        if !self.request.is_empty() {
            let body = self.request.finish().map_err(Refusal::later)?;
            let request = self.http.post(body);
            self.http.send(request).await?;
        }
        Ok(Taken {
            left_out,
            refused: Vec::new(),
        })
    }
}

impl Series {
    fn labels(&mut self, name: &[u8]) -> Labels {
        if let Some(labels) = self.known.get(name) {
            return labels.clone();
        }
        if self.known.len() >= REMEMBERED_MAX || self.bytes >= REMEMBERED_BYTES_MAX {
            self.known.clear();
            self.bytes = 0;
        }
        let labels = self.mapping.labels(name).map(|labels| {
            let mut encoded = Vec::new();
            encode_labels(labels.iter(), &mut encoded);
            Arc::from(encoded)
        });
        self.bytes += name.len() + labels.as_ref().map_or(0, |labels: &Arc<[u8]>| labels.len());
        self.known.insert(name.into(), labels.clone());
        labels
    }
}
