//! Outputs that speak HTTP, as a server of ours sees them.

use std::io::Read as _;
use std::net::SocketAddr;

use crate::Posted;

/// A kind of output.
#[derive(Clone, Copy, Debug)]
pub struct HttpOutput {
    spec: fn(SocketAddr, &str) -> String,
    /// Where it posts lines to.
    pub path: &'static str,
    content: fn(&Posted) -> Vec<u8>,
}

impl HttpOutput {
    /// Prometheus' remote-write.
    pub const PROMETHEUS: Self = Self {
        spec: |address, settings| {
            format!("prometheusRemoteWrite: {{url: \"http://{address}/write\", {settings}}}")
        },
        path: "/write",
        content: |posted| {
            let body = snap::raw::Decoder::new().decompress_vec(&posted.body);
            body.expect("it is Snappy")
        },
    };

    /// grafana.net.
    pub const GRAFANA_NET: Self = Self {
        spec: |address, settings| {
            let schemas = "[all]\\npattern = .*\\nretentions = 10s:1d\\n";
            format!(
                "grafanaNet: {{url: \"http://{address}/metrics\", apiKey: {{name: key}}, storageSchemas: \"{schemas}\", {settings}}}"
            )
        },
        path: "/metrics",
        content: |posted| {
            let mut body = Vec::new();
            let mut frames = snap::read::FrameDecoder::new(&posted.body[..]);
            frames.read_to_end(&mut body).expect("it is Snappy");
            body
        },
    };

    /// Pub/Sub.
    pub const PUB_SUB: Self = Self {
        spec: |address, settings| {
            format!(
                "pubSub: {{project: p, topic: top, url: \"http://{address}\", compression: None, {settings}}}"
            )
        },
        path: "/v1/projects/p/topics/top:publish",
        content: |posted| {
            let body: serde_json::Value = serde_json::from_slice(&posted.body).expect("it is JSON");
            let data = body["messages"][0]["data"]
                .as_str()
                .expect("there is a message");
            base64(data)
        },
    };

    /// CloudWatch.
    pub const CLOUD_WATCH: Self = Self {
        spec: |address, settings| {
            format!(
                "cloudWatch: {{region: eu-west-1, namespace: ns, url: \"http://{address}\", secret: {{name: key}}, {settings}}}"
            )
        },
        path: "/",
        content: |posted| {
            let mut body = Vec::new();
            let mut gzip = flate2::read::GzDecoder::new(&posted.body[..]);
            gzip.read_to_end(&mut body).expect("it is gzip");
            body
        },
    };

    /// Each of them, with a name.
    pub const ALL: [(&str, Self); 4] = [
        ("prometheus", Self::PROMETHEUS),
        ("grafana-net", Self::GRAFANA_NET),
        ("pub-sub", Self::PUB_SUB),
        ("cloud-watch", Self::CLOUD_WATCH),
    ];

    /// The Secret `key`, which some need.
    pub fn secret() -> String {
        crate::secret(
            "key",
            &[
                ("token", "t"),
                ("accessKeyId", "k"),
                ("secretAccessKey", "s"),
            ],
        )
    }

    /// Its endpoint at `http://ADDRESS`, with settings that all of them have.
    pub fn spec(&self, address: SocketAddr, settings: &str) -> String {
        (self.spec)(address, settings)
    }

    /// The names in what it posts, as far as they are a letter, a dot and a number.
    ///
    /// # Panics
    /// If it is not what this output posts.
    pub fn names(&self, posted: &Posted) -> Vec<String> {
        let content = (self.content)(posted);
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._".contains(byte);
        let words = content.split(|byte| !is_word(byte));
        let names = words.filter_map(|word| {
            // A metric of Prometheus has _ for a dot.
            let (letter, number) = str::from_utf8(word).ok()?.split_once(['.', '_'])?;
            let is_letter =
                letter.len() == 1 && letter.bytes().all(|byte| byte.is_ascii_lowercase());
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            (is_letter && is_number).then(|| format!("{letter}.{number}"))
        });
        names.collect()
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
