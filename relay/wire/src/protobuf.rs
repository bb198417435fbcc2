//! Points in carbon's protobuf: `Payload{repeated Metric{string metric = 1; repeated Point{uint32 timestamp = 1; double value = 2}
//! points = 2} metrics = 1}`.
//!
//! A frame is walked through in place: a message would cost far more memory than the frame that it is read from.

mod encode;
mod fields;
pub(crate) mod write;

use crate::points::{Number, Point, Points, Span, Text};
use fields::{Field, Fields};

pub use encode::encode;

/// Why a frame was not read. Nothing of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends within a field.
    #[error("it ends too early")]
    Truncated,
    /// There is no such field.
    #[error("it has a field of an unknown form")]
    Malformed,
}

/// Puts the points of a payload in place of what was in `points`. Fields that are not known are passed over.
///
/// # Errors
/// It is not a payload.
pub fn decode(frame: &[u8], points: &mut Points) -> Result<(), DecodeError> {
    points.clear();
    let decoded = payload(frame, points);
    if decoded.is_err() {
        points.clear();
    }
    decoded
}

fn payload(frame: &[u8], points: &mut Points) -> Result<(), DecodeError> {
    let mut metrics = Fields::of(frame, 0, frame.len());
    while let Some(field) = metrics.next()? {
        if let (1, Field::Bytes { start, end }) = field {
            metric(frame, start, end, points)?;
        }
    }
    Ok(())
}

// The name may stand behind its points.
fn metric(frame: &[u8], start: usize, end: usize, points: &mut Points) -> Result<(), DecodeError> {
    let mut name = Span::new(start, start);
    let mut fields = Fields::of(frame, start, end);
    while let Some(field) = fields.next()? {
        if let (1, Field::Bytes { start, end }) = field {
            name = Span::new(start, end);
        }
    }
    let mut fields = Fields::of(frame, start, end);
    while let Some(field) = fields.next()? {
        if let (2, Field::Bytes { start, end }) = field {
            let point = point(frame, start, end, Text::Frame(name))?;
            points.push(point, frame);
        }
    }
    Ok(())
}

// What is zero is not there.
fn point(frame: &[u8], start: usize, end: usize, name: Text) -> Result<Point, DecodeError> {
    let (mut timestamp, mut value) = (0, 0.0);
    let mut fields = Fields::of(frame, start, end);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Varint(seconds)) => timestamp = seconds as u32,
            (2, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (_, Field::Varint(_) | Field::Fixed64(_) | Field::Fixed32 | Field::Bytes { .. }) => {}
        }
    }
    Ok(Point {
        name,
        timestamp: Number::Int(timestamp.into()),
        value: Number::Float(value),
    })
}

#[cfg(test)]
mod tests;
