//! The grammar of one line: `name value timestamp`.
//!
//! Nearly every line is in the canonical form: three fields, one space between, nothing around. [`Line::canonical`] cuts it
//! from the back, for only value and timestamp must be looked at; whatever it does not take goes to [`Line::any`], which
//! splits at any whitespace and says what is wrong. A canonical line is forwarded as the bytes that came.

use crate::simd::{self, Classes, TAIL_BYTES};
use crate::{Reason, UnixSeconds};

/// A line in its three fields. None holds whitespace, except that a canonical line's name is yet to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) timestamp: Timestamp<'a>,
}

/// When a point was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timestamp<'a> {
    /// Seconds since 1970 as they came, perhaps with a fraction.
    At(&'a [u8]),
    /// `-1` or `N`: when the line came in.
    Now,
}

impl<'a> Line<'a> {
    /// Cuts a line in the canonical form, or returns `None`. The name may still hold whitespace or a leading dot.
    pub(crate) fn canonical(raw: &'a [u8]) -> Option<Self> {
        match raw.last_chunk() {
            Some(tail) => Self::canonical_by_tail(raw, tail),
            None => Self::canonical_by_byte(raw),
        }
    }

    // Value and timestamp nearly always stand within the last bytes; their classes come as bit masks, the line's last byte
    // as the highest bit.
    fn canonical_by_tail(raw: &'a [u8], tail: &[u8; TAIL_BYTES]) -> Option<Self> {
        let Classes {
            spaces,
            digits,
            dots,
        } = simd::classify(tail);
        let last_space = spaces.checked_ilog2()?;
        let before = spaces & ((1 << last_space) - 1);
        let Some(first_space) = before.checked_ilog2() else {
            // A long value; or only one space, which takes no longer to find out.
            return Self::canonical_by_byte(raw);
        };
        let begin = raw.len() - TAIL_BYTES;
        let timestamp = &raw[begin + last_space as usize + 1..];
        let value = &raw[begin + first_space as usize + 1..begin + last_space as usize];
        // Bits of the fields, without those of the space in front.
        let timestamp_bits = (u32::MAX << last_space) & !(1 << last_space);
        let value_bits =
            ((1_u32 << last_space) - 1) & (u32::MAX << first_space) & !(1 << first_space);
        let timestamp_is_plain = digits & timestamp_bits == timestamp_bits;
        let value_is_plain = (digits | dots) & value_bits == value_bits
            && digits & value_bits != 0
            && (dots & value_bits).count_ones() <= 1;
        let fine = (timestamp_is_plain && fits_in_32_bits(timestamp) || is_timestamp(timestamp))
            && (value_is_plain || is_plain_number(value));
        let name = &raw[..begin + first_space as usize];
        fine.then_some(Self {
            name,
            value,
            timestamp: Timestamp::At(timestamp),
        })
    }

    fn canonical_by_byte(raw: &'a [u8]) -> Option<Self> {
        let (rest, timestamp) = cut_last_field(raw)?;
        let (name, value) = cut_last_field(rest)?;
        if !is_timestamp(timestamp) || !is_plain_number(value) {
            return None;
        }
        Some(Self {
            name,
            value,
            timestamp: Timestamp::At(timestamp),
        })
    }

    /// Splits a line in any form. Values that are not finite are let through if `any_value` says so.
    pub(crate) fn any(raw: &'a [u8], any_value: bool) -> Result<Self, Reason> {
        let mut fields = raw
            .split(|byte| is_whitespace(*byte))
            .filter(|field| !field.is_empty());
        let name = fields.next().ok_or(Reason::Blank)?;
        let (Some(value), Some(timestamp), None) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(Reason::FieldCount);
        };
        let name = name.strip_prefix(b".").unwrap_or(name);
        check_value(value, any_value)?;
        let timestamp = match timestamp {
            b"-1" | b"N" => Timestamp::Now,
            _ if is_timestamp(timestamp) => Timestamp::At(timestamp),
            _ => return Err(Reason::TimestampInvalid),
        };
        Ok(Self {
            name,
            value,
            timestamp,
        })
    }
}

/// Value and timestamp of a line, as numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Seconds since 1970, without their fraction.
    pub(crate) timestamp: u32,
    pub(crate) value: f64,
}

impl Point {
    /// Reads what follows the name in a canonical line: ` value timestamp`.
    pub(crate) fn of(rest: &[u8]) -> Self {
        let (value, timestamp) = cut_last_field(rest).unwrap_or_default();
        Self::read(value.trim_ascii_start(), timestamp)
    }

    // Both were checked before.
    fn read(value: &[u8], timestamp: &[u8]) -> Self {
        let parsed = || str::from_utf8(value).ok()?.parse().ok();
        let digits = timestamp.iter().take_while(|byte| byte.is_ascii_digit());
        let seconds = digits.fold(0_u32, |seconds, digit| {
            seconds
                .wrapping_mul(10)
                .wrapping_add(u32::from(digit - b'0'))
        });
        Self {
            timestamp: seconds,
            value: short_decimal(value).or_else(parsed).unwrap_or(f64::NAN),
        }
    }
}

// The number of a short text like `-12.34`, which is what nearly every value is. Up to fifteen digits make a whole number that a
// double holds exactly, as it holds the powers of ten up to the twenty-second; so the one division rounds correctly.
fn short_decimal(text: &[u8]) -> Option<f64> {
    const DIGITS_MAX: usize = 15;
    const POWERS: [f64; DIGITS_MAX + 1] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (is_negative, unsigned) = match text {
        [b'-', unsigned @ ..] => (true, unsigned),
        unsigned => (false, unsigned),
    };
    if unsigned.len() > DIGITS_MAX {
        return None;
    }
    let mut whole = 0_u64;
    let mut digits = 0;
    let mut dot = None;
    for byte in unsigned {
        match byte {
            b'0'..=b'9' => {
                whole = whole * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if dot.is_none() => dot = Some(digits),
            _ => return None,
        }
    }
    if digits == 0 {
        return None;
    }
    let number = whole as f64 / POWERS[dot.map_or(0, |dot| digits - dot)];
    Some(if is_negative { -number } else { number })
}

impl Line<'_> {
    /// Its value and timestamp.
    pub(crate) fn point(&self, now: UnixSeconds) -> Point {
        match self.timestamp {
            Timestamp::At(seconds) => Point::read(self.value, seconds),
            Timestamp::Now => Point {
                timestamp: u32::try_from(now.0).unwrap_or(u32::MAX),
                ..Point::read(self.value, b"")
            },
        }
    }
}

/// Whether a byte separates fields.
pub(crate) const fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c)
}

// Splits at the last space.
fn cut_last_field(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = raw.iter().rposition(|byte| *byte == b' ')?;
    Some((&raw[..space], &raw[space + 1..]))
}

// Decimal seconds that fit in 32 bits, perhaps with a fraction.
fn is_timestamp(text: &[u8]) -> bool {
    let whole = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let fraction_is_fine = match text[whole..] {
        [] => true,
        [b'.', ref fraction @ ..] => fraction.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    fraction_is_fine && fits_in_32_bits(&text[..whole])
}

fn fits_in_32_bits(digits: &[u8]) -> bool {
    match digits.len() {
        1..=9 => true,
        0 => false,
        _ => {
            let number = digits.iter().try_fold(0_u64, |number, digit| {
                let number = number * 10 + u64::from(digit - b'0');
                (number <= u64::from(u32::MAX)).then_some(number)
            });
            number.is_some()
        }
    }
}

// `-12.34` and the like, short enough to be finite in any case: what nearly every value is.
fn is_plain_number(text: &[u8]) -> bool {
    let unsigned = match text {
        [b'-' | b'+', unsigned @ ..] => unsigned,
        unsigned => unsigned,
    };
    let mut digits = 0;
    let mut dots = 0;
    for byte in unsigned {
        digits += usize::from(byte.is_ascii_digit());
        dots += usize::from(*byte == b'.');
    }
    digits > 0 && dots <= 1 && digits + dots == unsigned.len() && unsigned.len() <= 300
}

// Whether a field is a decimal float that is finite. Rust's own grammar for floats is the wanted one: no hexadecimal, no `_`.
fn check_value(text: &[u8], any_value: bool) -> Result<(), Reason> {
    if is_plain_number(text) {
        return Ok(());
    }
    let number: f64 = str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Reason::ValueInvalid)?;
    let spelt_out = text.iter().any(|byte| matches!(byte, b'n' | b'N'));
    match number.is_finite() {
        true => Ok(()),
        false if spelt_out && any_value => Ok(()),
        false if spelt_out => Err(Reason::ValueNotFinite),
        false => Err(Reason::ValueInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(name: &'a str, value: &'a str, timestamp: &'a str) -> Line<'a> {
        let timestamp = Timestamp::At(timestamp.as_bytes());
        Line {
            name: name.as_bytes(),
            value: value.as_bytes(),
            timestamp,
        }
    }

    #[test]
    fn any_whitespace_separates_fields() {
        assert_eq!(Line::any(b"foo   1\t2\r", false), Ok(at("foo", "1", "2")));
        assert_eq!(Line::any(b" \x0bfoo 1 2 ", false), Ok(at("foo", "1", "2")));
        assert_eq!(Line::any(b".foo 1 2", false), Ok(at("foo", "1", "2")));
        assert_eq!(Line::any(b"..foo 1 2", false), Ok(at(".foo", "1", "2")));
    }

    #[test]
    fn other_than_three_fields_are_refused() {
        assert_eq!(Line::any(b"", false), Err(Reason::Blank));
        assert_eq!(Line::any(b" \r", false), Err(Reason::Blank));
        for raw in ["foo", "foo 1", "foo 1 2 3"] {
            assert_eq!(
                Line::any(raw.as_bytes(), false),
                Err(Reason::FieldCount),
                "{raw}"
            );
        }
    }

    #[test]
    fn values_are_decimal_and_finite() {
        for value in [
            "1", "-1", "+1", "1.5", ".5", "5.", "1e5", "1E+5", "+1E-5", "1e100", "1e-400",
        ] {
            assert_eq!(
                Line::any(format!("a {value} 1").as_bytes(), false),
                Ok(at("a", value, "1")),
                "{value}"
            );
        }
        for value in [
            "z1", "++1", "0x1p-2", "1_000", "1e400", "-1e400", "", ".", "e5", "1\u{e9}",
        ] {
            let expected = if value.is_empty() {
                Reason::FieldCount
            } else {
                Reason::ValueInvalid
            };
            assert_eq!(
                Line::any(format!("a {value} 1").as_bytes(), false),
                Err(expected),
                "{value}"
            );
        }
        for value in ["NaN", "nan", "inf", "-Infinity", "+INF"] {
            let refused = Line::any(format!("a {value} 1").as_bytes(), false).map(|_| ());
            assert_eq!(refused, Err(Reason::ValueNotFinite), "{value}");
        }
        let digits = "9".repeat(400);
        assert_eq!(
            Line::any(format!("a {digits} 1").as_bytes(), false),
            Err(Reason::ValueInvalid)
        );
    }

    #[test]
    fn timestamps_are_seconds_in_32_bits() {
        for timestamp in [
            "0",
            "123",
            "123.0",
            "123.9",
            "123.",
            "1700000000",
            "4294967295",
        ] {
            let line = Line::any(
                b"a 1 "
                    .iter()
                    .chain(timestamp.as_bytes())
                    .copied()
                    .collect::<Vec<_>>()
                    .leak(),
                false,
            );
            assert_eq!(line, Ok(at("a", "1", timestamp)), "{timestamp}");
        }
        for timestamp in ["-1", "N"] {
            let raw = format!("a 1 {timestamp}");
            assert_eq!(
                Line::any(raw.as_bytes(), false).map(|line| line.timestamp),
                Ok(Timestamp::Now)
            );
        }
        for timestamp in [
            "123abc",
            "1e9",
            "nan",
            "-2",
            "4294967296",
            "99999999999999999999",
            ".5",
            "1.2.3",
        ] {
            let refused = Line::any(format!("a 1 {timestamp}").as_bytes(), false).map(|_| ());
            assert_eq!(refused, Err(Reason::TimestampInvalid), "{timestamp}");
        }
    }

    #[test]
    fn both_ways_to_cut_the_canonical_form_agree() {
        // Six places of a line, and at each every byte that matters.
        let bytes = b" .-+019a\t";
        let choices = bytes.len().pow(6);
        for choice in 0..choices {
            let mut raw = *b"servers.web1.cpu.user 12.50 1700000000";
            let mut left = choice;
            for place in [21, 23, 26, 27, 28, 36] {
                raw[place] = bytes[left % bytes.len()];
                left /= bytes.len();
            }
            assert_eq!(
                Line::canonical(&raw),
                Line::canonical_by_byte(&raw),
                "{raw:?}"
            );
        }
    }

    #[test]
    fn the_canonical_form_is_cut_as_any_form_is() {
        for raw in [
            "a.b 1 2",
            "a.b -1.5 1700000000.25",
            "cpu;host=a +.5 4294967295",
        ] {
            let line = Line::canonical(raw.as_bytes());
            assert_eq!(line, Line::any(raw.as_bytes(), false).ok());
            assert!(line.is_some(), "{raw}");
        }
        for raw in [
            "", "a", "a 1", "a 1 2\r", "a 1 N", "a 1e5 2", "a 1\t2", "a 1 2 ",
        ] {
            assert_eq!(Line::canonical(raw.as_bytes()), None, "{raw}");
        }
    }

    #[test]
    fn short_decimals_are_read_as_the_library_reads_them() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..100_000 {
            let whole: String = (0..random(10))
                .map(|_| char::from(b'0' + random(10) as u8))
                .collect();
            let rest: String = (0..random(8))
                .map(|_| char::from(b'0' + random(10) as u8))
                .collect();
            let sign = ["", "-", "+"][random(3) as usize];
            let dot = ["", "."][random(2) as usize];
            let text = format!("{sign}{whole}{dot}{rest}");
            let expected = text.parse::<f64>().ok().map(f64::to_bits);
            match short_decimal(text.as_bytes()) {
                Some(number) => assert_eq!(Some(number.to_bits()), expected, "{text}"),
                None => assert!(
                    expected.is_none() || text.starts_with('+') || text.len() > 15,
                    "{text}"
                ),
            }
        }
    }
}
