//! Lines, taken apart for formats that know numbers.

/// A line of Graphite's line protocol, as the engine forwards it: three fields with one space between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// The series, tags included.
    pub name: &'a [u8],
    /// The value.
    pub value: Value,
    /// Whole seconds since 1970.
    pub timestamp: u32,
}

/// A value, as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Any other number, or NaN.
    Float(f64),
}

impl Value {
    /// It as a double.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
}

impl<'a> Line<'a> {
    /// Takes the first line off `lines`. `None`: there is none.
    pub fn take(lines: &mut &'a [u8]) -> Option<Self> {
        let newline = memchr::memchr(b'\n', lines)?;
        let line = &lines[..newline];
        *lines = &lines[newline + 1..];
        let (rest, timestamp) = cut_last_field(line);
        let (name, value) = cut_last_field(rest);
        Some(Self {
            name,
            value: read_value(value),
            timestamp: read_seconds(timestamp),
        })
    }
}

fn cut_last_field(text: &[u8]) -> (&[u8], &[u8]) {
    let space = memchr::memrchr(b' ', text).unwrap_or_default();
    (&text[..space], text.get(space + 1..).unwrap_or_default())
}

// Without the fraction.
fn read_seconds(text: &[u8]) -> u32 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |seconds: u32, digit| {
        seconds
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'))
    })
}

// A whole number that fits stays one; everything else is what a double makes of it. The engine let nothing through that is
// not a number.
fn read_value(text: &[u8]) -> Value {
    let text = str::from_utf8(text).unwrap_or_default();
    match text.parse() {
        Ok(int) if text != "-0" => Value::Int(int),
        _ => Value::Float(text.parse().unwrap_or(f64::NAN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_one_by_one() {
        let mut lines = &b"a.b;t=x 1.5 1700000000\na -3 1700000001.75\nb nan 0\nc -0 1\nd 9223372036854775808 1\n"[..];
        let mut taken = Vec::new();
        while let Some(line) = Line::take(&mut lines) {
            taken.push((line.name, format!("{:?}", line.value), line.timestamp));
        }
        assert_eq!(
            taken,
            [
                (&b"a.b;t=x"[..], "Float(1.5)".to_owned(), 1_700_000_000),
                (b"a", "Int(-3)".to_owned(), 1_700_000_001),
                (b"b", "Float(NaN)".to_owned(), 0),
                (b"c", "Float(-0.0)".to_owned(), 1),
                (b"d", "Float(9.223372036854776e18)".to_owned(), 1),
            ]
        );
    }
}
