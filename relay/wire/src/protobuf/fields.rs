//! The fields of a message, one after the other.

use super::DecodeError;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    /// Where in the frame it stands.
    Bytes {
        start: usize,
        end: usize,
    },
}

/// What of a message has yet to be read.
pub(super) struct Fields<'a> {
    frame: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn of(frame: &'a [u8], start: usize, end: usize) -> Self {
        Self {
            frame,
            at: start,
            end,
        }
    }

    /// The next field with its number.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Field)>, DecodeError> {
        if self.at == self.end {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let (start, end) = self.skip(length)?;
                Field::Bytes { start, end }
            }
            5 => {
                self.array::<4>()?;
                Field::Fixed32
            }
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Some((key >> 3, field)))
    }

    fn skip(&mut self, length: u64) -> Result<(usize, usize), DecodeError> {
        let start = self.at;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length));
        self.at = end
            .filter(|end| *end <= self.end)
            .ok_or(DecodeError::Truncated)?;
        Ok((start, self.at))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.frame[self.at..self.end];
        let array = *rest.first_chunk().ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(array)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Malformed)
    }
}
