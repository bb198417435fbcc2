//! An exchange of AMQP 0-9-1.

use std::io;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, ExchangeKind};
use relay_engine::{Amqp, Sink};
use tokio::time::{sleep, timeout};

use super::series::name;
use super::{Refusal, Taken};
use crate::amqp::{Connection, connect, in_time};

/// The longest routing key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// How often a connection with nothing to send is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Messages outlive the broker, if their queues do.
const PERSISTENT: u8 = 2;

pub(super) struct Client {
    // Ends with the last that has it.
    connection: Connection,
    channel: Channel,
    exchange: ShortString,
    has_name_in_body: bool,
    timeout: Duration,
}

impl Client {
    pub(super) async fn open(to: &Amqp, sink: &Sink) -> io::Result<Self> {
        in_time(Self::connect(to, sink)).await
    }

    async fn connect(to: &Amqp, sink: &Sink) -> io::Result<Self> {
        let connection = connect(&to.server, sink.tls.as_ref()).await?;
        let channel = connection
            .create_channel()
            .await
            .map_err(io::Error::other)?;
        let declared = channel.exchange_declare(
            to.exchange.as_str().into(),
            ExchangeKind::Topic,
            ExchangeDeclareOptions {
                durable: true,
                // Then it must be there already.
                passive: !to.declares,
                ..ExchangeDeclareOptions::default()
            },
            FieldTable::default(),
        );
        declared.await.map_err(io::Error::other)?;
        let confirming = channel.confirm_select(ConfirmSelectOptions::default());
        confirming.await.map_err(io::Error::other)?;
        Ok(Self {
            connection,
            channel,
            exchange: to.exchange.as_str().into(),
            has_name_in_body: to.has_name_in_body,
            timeout: sink.timeout,
        })
    }

    /// Resolves when there is no connection any more.
    pub(super) async fn broken(&self) -> io::Error {
        while self.connection.status().connected() {
            sleep(LOOK_INTERVAL).await;
        }
        io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the broker ended the connection",
        )
    }

    pub(super) async fn send(&mut self, lines: &[u8]) -> Result<Taken, Refusal> {
        let publishing = timeout(self.timeout, self.publish(lines)).await;
        publishing.unwrap_or_else(|_| {
            let mut message = format!("the broker did not confirm in {:?}", self.timeout);
            if self.connection.status().blocked() {
                message += ": it blocks those who publish, as it is low on memory or disk";
            }
            Err(Refusal::later(message))
        })
    }

    async fn publish(&self, lines: &[u8]) -> Result<Taken, Refusal> {
        let mut taken = Taken::default();
        let mut confirms = Vec::new();
        let mut at = 0;
        // So that what no queue wants comes back.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let range = at..at + line.len();
            at = range.end;
            let name = name(line);
            let key = match str::from_utf8(name) {
                Ok(key) if key.len() <= KEY_BYTES_MAX => key,
                Ok(_) => {
                    let why = "its name is longer than 255 bytes, which a routing key must not be";
                    taken.refused.push((range, why));
                    continue;
                }
                Err(_) => {
                    taken.refused.push((range, "its name is not UTF-8"));
                    continue;
                }
            };
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let body = match self.has_name_in_body {
                true => text,
                false => text.get(name.len() + 1..).unwrap_or_default(),
            };
            let published = self.channel.basic_publish(
                self.exchange.clone(),
                key.into(),
                options,
                body,
                properties.clone(),
            );
            confirms.push(published.await.map_err(refusal)?);
        }
        for confirm in confirms {
            match confirm.await.map_err(refusal)? {
                Confirmation::Ack(returned) => taken.left_out += u64::from(returned.is_some()),
                Confirmation::Nack(_) | Confirmation::NotRequested => {
                    return Err(Refusal::later("the broker could not keep a message"));
                }
            }
        }
        Ok(taken)
    }
}

fn refusal(error: lapin::Error) -> Refusal {
    // Access refused, not found, not allowed.
    let has_stopped = matches!(
        error.kind(),
        ErrorKind::ProtocolError(error) if matches!(error.get_id(), 403 | 404 | 530)
    );
    match has_stopped {
        true => Refusal::Stopped(error.to_string()),
        false => Refusal::later(error),
    }
}
