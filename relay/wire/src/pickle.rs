//! Points in Python's pickle, as carbon's relays send them: `[(name, (timestamp, value)), …]`.
//!
//! A pickle is a program for a small machine with a stack. The machine here can make lists, tuples, text, bytes and numbers,
//! and nothing else; a program that asks for more is refused. All protocols are read, 0 to 5, and every form that a list
//! can have, so also what carbon-relay-ng writes. Lists stand for tuples, bytes for text, and text for numbers.

mod encode;
mod machine;

use crate::points::{Number, Point, Points, Text};
use machine::{Machine, Value};

pub use encode::encode;

/// Reads pickles, and keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Decoder(Machine);

/// Why a pickle was not read. Nothing of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends before its end.
    #[error("it ends too early")]
    Truncated,
    /// There is more after its end.
    #[error("something follows its end")]
    TrailingBytes,
    /// It asks for something that is neither a list, a tuple, text, bytes nor a number.
    #[error("operation 0x{0:02x} is not for lists, tuples, text and numbers")]
    Forbidden(u8),
    /// An operation does not find what it needs.
    #[error("operation 0x{0:02x} does not find what it needs")]
    Malformed(u8),
    /// It makes far more than it is long.
    #[error("it makes far more than it is long")]
    TooMany,
    /// What it comes to is not a list.
    #[error("it is not a list")]
    NotAList,
}

impl Decoder {
    /// Puts the points of a pickle in place of what was in `points`. What in its list is not a point is counted there.
    ///
    /// # Errors
    /// It is not a pickle, not one of points, or wants to be more than points.
    pub fn decode(&mut self, frame: &[u8], points: &mut Points) -> Result<(), DecodeError> {
        points.clear();
        let decoded = self.try_decode(frame, points);
        self.0.clear();
        if decoded.is_err() {
            points.clear();
        }
        decoded
    }

    fn try_decode(&mut self, frame: &[u8], points: &mut Points) -> Result<(), DecodeError> {
        let machine = &mut self.0;
        let result = machine.run(frame, points)?;
        let items = machine.items(result).ok_or(DecodeError::NotAList)?;
        for item in items {
            let point = machine.pair(*item).and_then(|(name, rest)| {
                let Value::Text(name) = name else { return None };
                Some((name, machine.pair(rest)))
            });
            match point {
                Some((name, Some((timestamp, value)))) => {
                    match (number(timestamp), number(value)) {
                        (Some(timestamp), Some(value)) => {
                            let point = Point {
                                name,
                                timestamp,
                                value,
                            };
                            points.push(point, frame);
                        }
                        _ => points.push_invalid(Some(name), frame),
                    }
                }
                Some((name, None)) => points.push_invalid(Some(name), frame),
                None => points.push_invalid(None::<Text>, frame),
            }
        }
        Ok(())
    }
}

fn number(value: Value) -> Option<Number> {
    match value {
        Value::Int(int) => Some(Number::Int(int)),
        Value::Float(float) => Some(Number::Float(float)),
        Value::Digits(text) | Value::Text(text) => Some(Number::Text(text)),
        Value::Tuple { .. } | Value::List(_) | Value::Other => None,
    }
}

#[cfg(test)]
mod tests;
