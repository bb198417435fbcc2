//! Fields on their way out. Their numbers are below 16, so that a key is one byte.

pub(crate) fn varint(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    raw_varint(value, out);
}

pub(crate) fn varint_len(value: u64) -> usize {
    1 + raw_varint_len(value)
}

pub(crate) fn double(number: u8, value: f64, out: &mut Vec<u8>) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) const DOUBLE_LEN: usize = 1 + 8;

pub(crate) fn bytes(number: u8, value: &[u8], out: &mut Vec<u8>) {
    begin(number, value.len(), out);
    out.extend_from_slice(value);
}

/// What stands before the bytes of a field.
pub(crate) fn begin(number: u8, length: usize, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    raw_varint(length as u64, out);
}

/// How long a field of so many bytes is.
pub(crate) fn bytes_len(length: usize) -> usize {
    1 + raw_varint_len(length as u64) + length
}

fn raw_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn raw_varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
