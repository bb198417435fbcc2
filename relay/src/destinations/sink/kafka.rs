//! A Kafka cluster.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use relay_engine::{Kafka, KafkaPayload, Sasl, SaslMechanism, Sink};
use relay_wire::metric_data;
use relay_wire::partition::{Partitioning, by_key};
use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::series::{Found, Known, name};
use super::{Refusal, Taken};
use crate::destinations::tls;

/// How long a cluster may take to be found.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the client tries by itself, before the sender does.
const RETRY_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(super) struct Client {
    partitions: Vec<Arc<PartitionClient>>,
    payload: Payload,
    compression: Compression,
    timeout: Duration,
}

enum Payload {
    Plaintext,
    MetricData {
        org_id: u32,
        partitioning: Partitioning,
        known: Known,
    },
}

impl Client {
    pub(super) async fn open(to: &Kafka, sink: &Sink) -> io::Result<Self> {
        let opening = Self::connect(to, sink);
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        opened.unwrap_or_else(|_| {
            let message = format!("no answer from the cluster in {CONNECT_TIMEOUT:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    async fn connect(to: &Kafka, sink: &Sink) -> io::Result<Self> {
        let mut builder = ClientBuilder::new(to.brokers.clone())
            .client_id("carbonway")
            .max_message_size(ANSWER_BYTES_MAX)
            .backoff_config(BackoffConfig {
                deadline: Some(RETRY_TIMEOUT),
                max_backoff: RETRY_TIMEOUT,
                ..BackoffConfig::default()
            });
        if to.is_encrypted {
            builder = builder.tls_config(tls::client(sink.tls.as_ref())?);
        }
        if let Some(sasl) = &to.sasl {
            builder = builder.sasl_config(sasl_config(sasl));
        }
        let client = builder.build().await.map_err(io::Error::other)?;
        let topics = client.list_topics().await.map_err(io::Error::other)?;
        let topic = topics.into_iter().find(|topic| topic.name == to.topic);
        let topic = topic.filter(|topic| !topic.partitions.is_empty());
        let topic = topic.ok_or_else(|| {
            let message = format!("there is no topic {}: create it", to.topic);
            io::Error::new(io::ErrorKind::NotFound, message)
        })?;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let handling = UnknownTopicHandling::Error;
            let opened = client.partition_client(&topic.name, partition, handling);
            partitions.push(Arc::new(opened.await.map_err(io::Error::other)?));
        }
        Ok(Self {
            partitions,
            payload: match &to.payload {
                KafkaPayload::Plaintext => Payload::Plaintext,
                KafkaPayload::MetricData {
                    org_id,
                    schemas,
                    partitioning,
                } => Payload::MetricData {
                    org_id: *org_id,
                    partitioning: partitioning_of(*partitioning),
                    known: Known::new(*org_id, schemas.clone()),
                },
            },
            compression: match to.compression {
                Some(relay_engine::Compression::Gzip) => Compression::Gzip,
                Some(relay_engine::Compression::Snappy) => Compression::Snappy,
                Some(relay_engine::Compression::Lz4 | relay_engine::Compression::Zstd) | None => {
                    Compression::NoCompression
                }
            },
            timeout: sink.timeout,
        })
    }

    pub(super) async fn send(&mut self, lines: &[u8]) -> Result<Taken, Refusal> {
        let now = Utc::now();
        let mut taken = Taken::default();
        let mut records: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        let mut at = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match self.payload.record(line, self.partitions.len() as u32, now) {
                Ok((partition, record)) => records.entry(partition).or_default().push(record),
                Err(why) => taken.refused.push((at..at + line.len(), why)),
            }
            at += line.len();
        }
        let mut producing = JoinSet::new();
        for (partition, records) in records {
            let partition = Arc::clone(&self.partitions[partition as usize]);
            let compression = self.compression;
            producing.spawn(async move { partition.produce(records, compression).await });
        }
        let all = async {
            while let Some(produced) = producing.join_next().await {
                produced.map_err(Refusal::later)?.map_err(refusal)?;
            }
            Ok(())
        };
        let within = timeout(self.timeout, all).await;
        within.unwrap_or_else(|_| {
            let message = format!("no answer in {:?}", self.timeout);
            Err(Refusal::later(message))
        })?;
        Ok(taken)
    }
}

impl Payload {
    // The message for a line with its newline, and its partition.
    fn record(
        &mut self,
        line: &[u8],
        partitions: u32,
        timestamp: DateTime<Utc>,
    ) -> Result<(u32, Record), &'static str> {
        let name = name(line);
        let (partition, key, value) = match self {
            Self::Plaintext => {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                (by_key(name, partitions), Some(name.to_vec()), text.to_vec())
            }
            Self::MetricData {
                org_id,
                partitioning,
                known,
            } => {
                let series = match known.find(name) {
                    Found::Series(series) => series,
                    Found::Invalid(why) => return Err(why),
                };
                let partition = partitioning.partition(&series, name, *org_id, partitions);
                let mut value = Vec::new();
                metric_data::encode(line, &series, &mut value);
                (partition, None, value)
            }
        };
        let record = Record {
            key,
            value: Some(value),
            headers: BTreeMap::new(),
            timestamp,
        };
        Ok((partition, record))
    }
}

fn refusal(error: Error) -> Refusal {
    let Error::ServerError { protocol_error, .. } = &error else {
        return Refusal::later(error);
    };
    let is_never = matches!(
        protocol_error,
        ProtocolError::MessageTooLarge
            | ProtocolError::RecordListTooLarge
            | ProtocolError::InvalidRecord
            | ProtocolError::CorruptMessage
    );
    let has_stopped = matches!(
        protocol_error,
        ProtocolError::TopicAuthorizationFailed
            | ProtocolError::ClusterAuthorizationFailed
            | ProtocolError::SaslAuthenticationFailed
            | ProtocolError::PolicyViolation
    );
    match (is_never, has_stopped) {
        (true, _) => Refusal::Never(error.to_string()),
        (_, true) => Refusal::Stopped(error.to_string()),
        (false, false) => Refusal::later(error),
    }
}

fn sasl_config(sasl: &Sasl) -> SaslConfig {
    let password = String::from_utf8_lossy(sasl.credentials.password.as_bytes());
    let credentials = Credentials::new(sasl.credentials.username.clone(), password.into_owned());
    match sasl.mechanism {
        SaslMechanism::Plain => SaslConfig::Plain(credentials),
        SaslMechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
        SaslMechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
    }
}

fn partitioning_of(partitioning: relay_engine::Partitioning) -> Partitioning {
    match partitioning {
        relay_engine::Partitioning::ByOrg => Partitioning::ByOrg,
        relay_engine::Partitioning::BySeries => Partitioning::BySeries,
        relay_engine::Partitioning::BySeriesWithTags => Partitioning::BySeriesWithTags,
        relay_engine::Partitioning::BySeriesWithTagsFnv => Partitioning::BySeriesWithTagsFnv,
        relay_engine::Partitioning::Murmur2 => Partitioning::Murmur2,
    }
}
