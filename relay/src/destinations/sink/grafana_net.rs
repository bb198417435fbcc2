//! grafana.net, or what speaks as it does.

use std::io::{self, Write as _};
use std::time::Duration;

use relay_engine::{GrafanaNet, Sink};
use relay_wire::metric_data::{encode, encode_array_header};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::http::{Http, Options, shown};
use super::series::{Found, Known, name};
use super::{Refusal, Seldom, Taken, host_name};

/// How often the server is told of schemas and aggregations.
const CONFIG_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// How long until it is tried again, when that failed.
const CONFIG_RETRY: Duration = Duration::from_secs(30);

pub(super) struct Client {
    metrics: Http,
    known: Known,
    points: Vec<u8>,
    body: Vec<u8>,
    invalid_told: Seldom,
    // Tells the server of schemas and aggregations, if this is the first connection. Ends with the client.
    _telling: JoinSet<()>,
}

// What the server is told besides points, and where.
struct Config(Vec<(Http, String)>);

// What the server says of a batch that it took.
#[derive(Default, Deserialize)]
struct Answer {
    /// Points that it did not keep.
    #[serde(rename = "Invalid", default)]
    invalid: u64,
}

impl Client {
    pub(super) async fn open(to: &GrafanaNet, sink: &Sink, is_first: bool) -> io::Result<Self> {
        let instance = &host_name();
        let http = |url: String| async move {
            Http::open(Options {
                url: &url,
                tls: sink.tls.as_ref(),
                authorization: to.authorization.as_ref(),
                headers: vec![("Carbon-Relay-NG-Instance", instance)],
                timeout: sink.timeout,
            })
            .await
        };
        let base = to.url.strip_suffix("/metrics").unwrap_or(&to.url);
        let base = base.strip_suffix("/graphite").unwrap_or(base);
        let mut telling = JoinSet::new();
        // One connection is enough for that.
        if is_first {
            let schemas = http(format!("{base}/graphite/config/storageSchema")).await?;
            let mut config = vec![(schemas, to.schemas.text().to_owned())];
            if let Some(text) = &to.aggregation {
                let url = format!("{base}/graphite/config/storageAggregation");
                config.push((http(url).await?, text.clone()));
            }
            telling.spawn(Config(config).tell_over_and_over());
        }
        Ok(Self {
            metrics: http(to.url.clone()).await?,
            known: Known::new(to.org_id, to.schemas.clone()),
            points: Vec::new(),
            body: Vec::new(),
            invalid_told: Seldom::default(),
            _telling: telling,
        })
    }

    pub(super) async fn send(&mut self, lines: &[u8]) -> Result<Taken, Refusal> {
        let mut taken = Taken::default();
        self.points.clear();
        let mut count = 0;
        let mut at = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match self.known.find(name(line)) {
                Found::Series(series) => {
                    encode(line, &series, &mut self.points);
                    count += 1;
                }
                Found::Invalid(why) => taken.refused.push((at..at + line.len(), why)),
            }
            at += line.len();
        }
        if count > 0 {
            let body = self.body(count).map_err(Refusal::later)?;
            let request = self.metrics.post(body);
            let request = request.header("Content-Type", "rt-metric-binary-snappy");
            let text = self.metrics.send(request).await?;
            let Answer { invalid } = serde_json::from_str(&text).unwrap_or_default();
            taken.left_out = invalid.min(count as u64);
            if invalid > 0 && self.invalid_told.is_due() {
                warn!(
                    answer = shown(&text),
                    "the server took a batch, and does not keep all of its points"
                );
            }
        }
        Ok(taken)
    }

    // In Snappy's framing format.
    fn body(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.body.clear();
        encode_array_header(count, &mut self.body);
        let mut compressed = snap::write::FrameEncoder::new(Vec::new());
        compressed.write_all(&self.body)?;
        compressed.write_all(&self.points)?;
        compressed.into_inner().map_err(|error| error.into_error())
    }
}

impl Config {
    async fn tell_over_and_over(mut self) {
        loop {
            let mut is_settled = true;
            for (http, text) in &mut self.0 {
                is_settled &= tell(http, text).await;
            }
            sleep(match is_settled {
                true => CONFIG_INTERVAL,
                false => CONFIG_RETRY,
            })
            .await;
        }
    }
}

// Points are sent all the same, so what goes wrong is no more than said. Returns whether it was settled.
async fn tell(http: &mut Http, text: &str) -> bool {
    let request = http.post(text.into());
    match http
        .send(request.header("Content-Type", "text/plain"))
        .await
    {
        Ok(_) => true,
        // The server has no use for it.
        Err(Refusal::Stopped(why)) if why.starts_with("404") => {
            debug!(why, "the server takes no schemas");
            true
        }
        Err(refusal) => {
            warn!(%refusal, "the server was not told of schemas and aggregations");
            false
        }
    }
}
