//! The machine that pickles are programs for, as far as it makes data and not objects.

use super::DecodeError;
use crate::points::{Points, Span, Text};

/// How much may be made in any case, in values of 16 bytes; beyond that it is a share of the pickle's length.
const VALUES_FREE: usize = 1 << 16;
/// Pickles of points have 4 bytes or more for each value.
const BYTES_PER_VALUE: usize = 2;

/// What stands on the stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// Text or bytes.
    Text(Text),
    /// A number that is written out, or too large for the others.
    Digits(Text),
    Int(i64),
    Float(f64),
    /// Items `start` to `end` of all items of tuples.
    Tuple {
        start: u32,
        end: u32,
    },
    List(u32),
    /// None, True or False.
    Other,
}

#[derive(Debug, Default)]
pub(super) struct Machine {
    stack: Vec<Value>,
    // Where on the stack the marks are.
    marks: Vec<usize>,
    memo: Vec<Value>,
    items: Vec<Value>,
    lists: Vec<Vec<Value>>,
    // How many values were made.
    made: usize,
}

// A pickle, and how far it was read.
struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<Span, DecodeError> {
        let end = self.at.checked_add(bytes);
        let end = end.filter(|end| *end <= self.frame.len());
        let end = end.ok_or(DecodeError::Truncated)?;
        let span = Span::new(self.at, end);
        self.at = end;
        Ok(span)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.frame[self.at..];
        let array = rest.first_chunk().ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    // A length, from the lowest byte to the highest.
    fn length<const N: usize>(&mut self) -> Result<usize, DecodeError> {
        let bytes = self.array::<N>()?;
        let length = bytes
            .iter()
            .rev()
            .fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        usize::try_from(length).map_err(|_| DecodeError::Truncated)
    }

    // To the next newline, which is read too.
    fn line(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = &self.frame[self.at..];
        let end = memchr::memchr(b'\n', rest).ok_or(DecodeError::Truncated)?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn index(&mut self, operation: u8) -> Result<usize, DecodeError> {
        let digits = str::from_utf8(self.line()?).ok();
        let index = digits.and_then(|digits| digits.parse().ok());
        index.ok_or(DecodeError::Malformed(operation))
    }
}

impl Machine {
    pub(super) fn clear(&mut self) {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        self.items.clear();
        self.lists.clear();
        self.made = 0;
        self.stack.shrink_to(VALUES_FREE);
        self.memo.shrink_to(VALUES_FREE);
        self.items.shrink_to(VALUES_FREE);
    }

    /// Runs a pickle to its end, and returns what it comes to. Text that does not stand in it is kept in `kept`.
    pub(super) fn run(&mut self, frame: &[u8], kept: &mut Points) -> Result<Value, DecodeError> {
        let mut reader = Reader { frame, at: 0 };
        let made_max = VALUES_FREE + frame.len() / BYTES_PER_VALUE;
        loop {
            let operation = reader.byte()?;
            if operation == b'.' {
                break;
            }
            self.step(operation, &mut reader, kept)?;
            if self.made > made_max {
                return Err(DecodeError::TooMany);
            }
        }
        if reader.at != frame.len() {
            return Err(DecodeError::TrailingBytes);
        }
        self.pop(b'.')
    }

    fn step(
        &mut self,
        operation: u8,
        reader: &mut Reader<'_>,
        kept: &mut Points,
    ) -> Result<(), DecodeError> {
        match operation {
            // PROTO, FRAME
            0x80 => drop(reader.byte()?),
            0x95 => drop(reader.array::<8>()?),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(mark) if *mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop(operation)?),
            },
            b'1' => {
                let mark = self.mark(operation)?;
                self.stack.truncate(mark);
            }
            b'2' => {
                let top = self.top(operation)?;
                self.push(top);
            }
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'p' => {
                let index = reader.index(operation)?;
                self.put(index, operation, reader)?;
            }
            b'q' => {
                let index = reader.length::<1>()?;
                self.put(index, operation, reader)?;
            }
            b'r' => {
                let index = reader.length::<4>()?;
                self.put(index, operation, reader)?;
            }
            0x94 => self.put(self.memo.len(), operation, reader)?,
            // GET, BINGET, LONG_BINGET
            b'g' => {
                let index = reader.index(operation)?;
                self.get(index, operation)?;
            }
            b'h' => {
                let index = reader.length::<1>()?;
                self.get(index, operation)?;
            }
            b'j' => {
                let index = reader.length::<4>()?;
                self.get(index, operation)?;
            }
            b']' | b'l' | b'a' | b'e' => self.list(operation)?,
            b')' | b't' | 0x85..=0x87 => self.tuple(operation)?,
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            _ => match number(operation, reader, kept)? {
                Some(number) => self.push(number),
                None => self.push(text(operation, reader, kept)?),
            },
        }
        Ok(())
    }

    // EMPTY_LIST, LIST, APPEND, APPENDS
    fn list(&mut self, operation: u8) -> Result<(), DecodeError> {
        let is_new = matches!(operation, b']' | b'l');
        let from = match operation {
            b']' => self.stack.len(),
            b'a' => self.last(1, operation)?,
            _ => self.mark(operation)?,
        };
        if is_new {
            let items = self.stack.drain(from..).collect();
            let number = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
            // A vector takes more than a value does.
            self.made += 2;
            self.lists.push(items);
            self.push(Value::List(number));
            return Ok(());
        }
        let list = from.checked_sub(1).map(|list| self.stack[list]);
        let Some(Value::List(list)) = list else {
            return Err(DecodeError::Malformed(operation));
        };
        let items = self.stack.drain(from..);
        self.made += items.len();
        self.lists[list as usize].extend(items);
        Ok(())
    }

    // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
    fn tuple(&mut self, operation: u8) -> Result<(), DecodeError> {
        let from = match operation {
            b')' => self.stack.len(),
            b't' => self.mark(operation)?,
            _ => self.last(usize::from(operation - 0x84), operation)?,
        };
        let place = |place| u32::try_from(place).unwrap_or(u32::MAX);
        let start = place(self.items.len());
        self.made += self.stack.len() - from;
        self.items.extend(self.stack.drain(from..));
        let end = place(self.items.len());
        self.push(Value::Tuple { start, end });
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.made += 1;
        self.stack.push(value);
    }

    // Nothing is taken from below the last mark.
    fn last(&self, count: usize, operation: u8) -> Result<usize, DecodeError> {
        let floor = self.marks.last().copied().unwrap_or_default();
        let from = self.stack.len().checked_sub(count);
        from.filter(|from| *from >= floor)
            .ok_or(DecodeError::Malformed(operation))
    }

    fn top(&self, operation: u8) -> Result<Value, DecodeError> {
        let top = self.last(1, operation)?;
        Ok(self.stack[top])
    }

    fn pop(&mut self, operation: u8) -> Result<Value, DecodeError> {
        let top = self.top(operation)?;
        self.stack.pop();
        Ok(top)
    }

    fn mark(&mut self, operation: u8) -> Result<usize, DecodeError> {
        self.marks.pop().ok_or(DecodeError::Malformed(operation))
    }

    // What is remembered was made before, so an index is less than there were bytes.
    fn put(&mut self, index: usize, operation: u8, reader: &Reader<'_>) -> Result<(), DecodeError> {
        let value = self.top(operation)?;
        if index >= reader.at {
            return Err(DecodeError::Malformed(operation));
        }
        if index >= self.memo.len() {
            self.made += index + 1 - self.memo.len();
            self.memo.resize(index + 1, Value::Other);
        }
        self.memo[index] = value;
        Ok(())
    }

    fn get(&mut self, index: usize, operation: u8) -> Result<(), DecodeError> {
        let value = self.memo.get(index);
        let value = *value.ok_or(DecodeError::Malformed(operation))?;
        self.push(value);
        Ok(())
    }

    /// The items of a list or a tuple.
    pub(super) fn items(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Tuple { start, end } => self.items.get(start as usize..end as usize),
            Value::List(list) => self.lists.get(list as usize).map(Vec::as_slice),
            Value::Text(_) | Value::Digits(_) | Value::Int(_) | Value::Float(_) | Value::Other => {
                None
            }
        }
    }

    /// The items of a list or tuple of two.
    pub(super) fn pair(&self, value: Value) -> Option<(Value, Value)> {
        match self.items(value)? {
            [first, second] => Some((*first, *second)),
            _ => None,
        }
    }
}

// `None`: the operation does not make a number.
fn number(
    operation: u8,
    reader: &mut Reader<'_>,
    kept: &mut Points,
) -> Result<Option<Value>, DecodeError> {
    let value = match operation {
        // BININT, BININT1, BININT2
        b'J' => Value::Int(i32::from_le_bytes(reader.array()?).into()),
        b'K' => Value::Int(reader.byte()?.into()),
        b'M' => Value::Int(u16::from_le_bytes(reader.array()?).into()),
        // BINFLOAT
        b'G' => Value::Float(f64::from_be_bytes(reader.array()?)),
        // INT, LONG, FLOAT
        b'I' | b'L' | b'F' => match reader.line()? {
            b"00" | b"01" if operation == b'I' => Value::Other,
            digits => {
                let digits = digits.strip_suffix(b"L").unwrap_or(digits);
                Value::Digits(kept.keep(digits.iter().copied()))
            }
        },
        // LONG1, LONG4
        0x8a => {
            let length = reader.length::<1>()?;
            long(length, reader, kept)?
        }
        0x8b => {
            let length = reader.length::<4>()?;
            long(length, reader, kept)?
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

// A whole number in two's complement, the lowest byte first.
fn long(length: usize, reader: &mut Reader<'_>, kept: &mut Points) -> Result<Value, DecodeError> {
    let start = reader.at;
    reader.take(length)?;
    let bytes = &reader.frame[start..reader.at];
    let is_negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let fill = if is_negative { 0xff } else { 0 };
    let mut wide = [fill; 16];
    if let Some(low) = wide.get_mut(..length) {
        low.copy_from_slice(bytes);
        let wide = i128::from_le_bytes(wide);
        return Ok(match i64::try_from(wide) {
            Ok(int) => Value::Int(int),
            Err(_) => Value::Digits(kept.keep(wide.to_string().into_bytes())),
        });
    }
    // A double is as near as any server keeps it.
    let digits = bytes.iter().rev();
    let magnitude = digits.fold(0.0, |number, byte| {
        let byte = if is_negative { !byte } else { *byte };
        number * 256.0 + f64::from(byte)
    });
    Ok(Value::Float(if is_negative {
        -magnitude
    } else {
        magnitude
    }))
}

// What is neither text nor bytes is refused.
fn text(operation: u8, reader: &mut Reader<'_>, kept: &mut Points) -> Result<Value, DecodeError> {
    let length = match operation {
        // SHORT_BINUNICODE, SHORT_BINSTRING, SHORT_BINBYTES
        0x8c | b'U' | b'C' => reader.length::<1>()?,
        // BINUNICODE, BINSTRING, BINBYTES
        b'X' | b'T' | b'B' => reader.length::<4>()?,
        // BINUNICODE8, BINBYTES8
        0x8d | 0x8e => reader.length::<8>()?,
        // UNICODE, STRING
        b'V' => {
            let line = reader.line()?;
            return Ok(Value::Text(unescape_unicode(line, kept)));
        }
        b'S' => {
            let line = reader.line()?;
            let text = unescape_string(line, kept);
            return text.map(Value::Text).ok_or(DecodeError::Malformed(b'S'));
        }
        _ => return Err(DecodeError::Forbidden(operation)),
    };
    reader
        .take(length)
        .map(|span| Value::Text(Text::Frame(span)))
}

// Python's raw-unicode-escape: Latin-1, and \uXXXX and \UXXXXXXXX.
fn unescape_unicode(raw: &[u8], kept: &mut Points) -> Text {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        let digits = match rest {
            [b'\\', b'u', ..] => rest.get(2..6),
            [b'\\', b'U', ..] => rest.get(2..10),
            _ => None,
        };
        let character = digits.and_then(|digits| {
            let digits = str::from_utf8(digits).ok()?;
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        });
        match (character, digits) {
            (Some(character), Some(digits)) => {
                text.push(character);
                rest = &rest[2 + digits.len()..];
            }
            _ => {
                text.push(char::from(*first));
                rest = after;
            }
        }
    }
    kept.keep(text.into_bytes())
}

// A string as Python 2 writes it in its source. `None`: it is not in quotes.
fn unescape_string(raw: &[u8], kept: &mut Points) -> Option<Text> {
    let quoted = raw.trim_ascii();
    let inner = match quoted {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return None,
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [first, after @ ..] = rest {
        let (byte, length) = match rest {
            [b'\\', b'x', digits @ ..] => {
                let digits = str::from_utf8(digits.get(..2)?).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, 4)
            }
            [b'\\', escaped, ..] => match escaped {
                b'n' => (b'\n', 2),
                b'r' => (b'\r', 2),
                b't' => (b'\t', 2),
                other => (*other, 2),
            },
            _ => {
                text.push(*first);
                rest = after;
                continue;
            }
        };
        text.push(byte);
        rest = &rest[length..];
    }
    Some(kept.keep(text))
}
