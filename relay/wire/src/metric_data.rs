//! Points as Grafana's MetricData: what carbon-relay-ng sends to grafana.net and, by its `kafkaMdm`, to Kafka.
//!
//! ```text
//! {Id, OrgId, Name, Interval, Value, Unit: "unknown", Time, Mtype: "gauge", Tags: ["k=v", …]}   in MessagePack
//! Id = OrgId "." md5(Name 0 Unit 0 Mtype 0 Interval { 0 Tag })
//! ```
//!
//! Dots that say nothing, at either end of a name or beside another one, are left out.

use md5::{Digest as _, Md5};

use crate::line::Line;

const UNIT: &[u8] = b"unknown";
const MTYPE: &[u8] = b"gauge";

/// A series, as far as it stays the same from point to point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    // The message up to the value, between the value and the time, and behind that.
    head: Box<[u8]>,
    middle: Box<[u8]>,
    tail: Box<[u8]>,
    /// The name without its tags.
    pub name: Box<[u8]>,
    /// `key=value`, sorted.
    pub tags: Vec<Box<[u8]>>,
}

/// Why a series has no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSeries {
    /// There is nothing but dots.
    #[error("the name is empty")]
    Name,
    /// A text is not UTF-8.
    #[error("the name or a tag is not UTF-8")]
    Utf8,
    /// A tag has no `=`, nothing on one of its sides, or what may not stand there.
    #[error("a tag is not key=value, or has ; ! ^ or = in its key, or a value that begins with ~")]
    Tag,
}

impl Series {
    /// # Errors
    /// See [`InvalidSeries`].
    pub fn new(series: &[u8], org_id: u32, interval: u32) -> Result<Self, InvalidSeries> {
        let text = str::from_utf8(series).map_err(|_| InvalidSeries::Utf8)?;
        let mut parts = text.split(';');
        let nodes = parts.next().unwrap_or_default().split('.');
        let nodes: Vec<&str> = nodes.filter(|node| !node.is_empty()).collect();
        let name = nodes.join(".");
        if name.is_empty() {
            return Err(InvalidSeries::Name);
        }
        let mut tags: Vec<&str> = parts.collect();
        if !tags.iter().all(|tag| is_tag(tag)) {
            return Err(InvalidSeries::Tag);
        }
        tags.sort_unstable();
        let mut hash = Md5::new();
        for part in [name.as_bytes(), b"\0", UNIT, b"\0", MTYPE, b"\0"] {
            hash.update(part);
        }
        hash.update(interval.to_string());
        for tag in &tags {
            hash.update(b"\0");
            hash.update(tag);
        }
        let digest: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();

        // A map of nine.
        let mut head = vec![0x89];
        string(b"Id", &mut head);
        string(format!("{org_id}.{digest}").as_bytes(), &mut head);
        string(b"OrgId", &mut head);
        int(org_id.into(), &mut head);
        string(b"Name", &mut head);
        string(name.as_bytes(), &mut head);
        string(b"Interval", &mut head);
        int(interval.into(), &mut head);
        string(b"Value", &mut head);
        let mut middle = Vec::new();
        string(b"Unit", &mut middle);
        string(UNIT, &mut middle);
        string(b"Time", &mut middle);
        let mut tail = Vec::new();
        string(b"Mtype", &mut tail);
        string(MTYPE, &mut tail);
        string(b"Tags", &mut tail);
        array(tags.len(), &mut tail);
        for tag in &tags {
            string(tag.as_bytes(), &mut tail);
        }
        Ok(Self {
            head: head.into(),
            middle: middle.into(),
            tail: tail.into(),
            name: name.into_bytes().into(),
            tags: tags.into_iter().map(|tag| tag.as_bytes().into()).collect(),
        })
    }
}

/// Appends the point of a line, with its newline, which is one of `series`, to `out`.
pub fn encode(mut line: &[u8], series: &Series, out: &mut Vec<u8>) {
    let Some(line) = Line::take(&mut line) else {
        return;
    };
    out.extend_from_slice(&series.head);
    out.push(0xcb);
    out.extend_from_slice(&line.value.as_f64().to_be_bytes());
    out.extend_from_slice(&series.middle);
    int(line.timestamp.into(), out);
    out.extend_from_slice(&series.tail);
}

/// Appends what stands before `count` points that are sent together, as to grafana.net.
pub fn encode_array_header(count: usize, out: &mut Vec<u8>) {
    // The format's version, and a time that nobody looks at.
    out.push(1);
    out.extend_from_slice(&[0; 8]);
    array(count, out);
}

fn is_tag(tag: &str) -> bool {
    tag.split_once('=').is_some_and(|(key, value)| {
        !key.is_empty()
            && !key.contains([';', '!', '^', '='])
            && !value.is_empty()
            && !value.starts_with('~')
    })
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..0x100 => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..0x1_0000 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn array(length: usize, out: &mut Vec<u8>) {
    match length {
        0..16 => out.push(0x90 | length as u8),
        16..0x1_0000 => {
            out.push(0xdc);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdd);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

// In eight bytes, as Go's encoder writes its int64.
fn int(int: i64, out: &mut Vec<u8>) {
    out.push(0xd3);
    out.extend_from_slice(&int.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_map_of_nine() {
        let series = Series::new(b".a..b.;z=1;dc=ams", 7, 10).unwrap();
        assert_eq!(&*series.name, b"a.b");
        let mut out = Vec::new();
        encode(b".a..b.;z=1;dc=ams 1.5 1700000000\n", &series, &mut out);
        let mut expected = vec![0x89, 0xa2];
        expected.extend_from_slice(b"Id\xd9\x227.");
        let id = Md5::digest(b"a.b\0unknown\0gauge\x0010\0dc=ams\0z=1");
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        expected.extend_from_slice(id.as_bytes());
        let integer = |value: i64| [&[0xd3][..], &value.to_be_bytes()].concat();
        for part in [
            &b"\xa5OrgId"[..],
            &integer(7),
            b"\xa4Name\xa3a.b\xa8Interval",
            &integer(10),
            b"\xa5Value\xcb\x3f\xf8\0\0\0\0\0\0\xa4Unit\xa7unknown\xa4Time",
            &integer(1_700_000_000),
            b"\xa5Mtype\xa5gauge\xa4Tags\x92\xa6dc=ams\xa3z=1",
        ] {
            expected.extend_from_slice(part);
        }
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[test]
    fn what_grafana_would_not_take_is_refused() {
        for (series, error) in [
            (&b"..."[..], InvalidSeries::Name),
            (b"a\xff", InvalidSeries::Utf8),
            (b"a;b", InvalidSeries::Tag),
            (b"a;b=", InvalidSeries::Tag),
            (b"a;=b", InvalidSeries::Tag),
            (b"a;b!=c", InvalidSeries::Tag),
            (b"a;b=~c", InvalidSeries::Tag),
            (b"a;", InvalidSeries::Tag),
        ] {
            assert_eq!(
                Series::new(series, 1, 10),
                Err(error),
                "{}",
                series.escape_ascii()
            );
        }
    }
}
