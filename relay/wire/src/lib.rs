//! Points as they travel in other formats than lines, and how they become lines; and what may be wrapped around either:
//! compression, and the header that says where a connection comes from. No I/O.
//!
//! ```text
//! frame ─▶ pickle::Decoder or protobuf::decode ─▶ Points ─▶ lines ─▶ the engine, as if they had come so
//! ```
//!
//! A frame is what stands behind its length in four bytes, the highest first, as carbon sends it ([`FRAME_HEADER_BYTES`]).
//! Whatever a frame holds, nothing is made of it but points; what it takes in memory is bounded by its length.

mod compression;
mod frame;
mod line;
pub mod metric_data;
pub mod partition;
pub mod pickle;
mod points;
pub mod protobuf;
pub mod proxy;
pub mod remote_write;

pub use compression::{Compression, Compressor, Decompressor};
pub use line::{Line, Value};
pub use points::Points;

/// How long the length in front of a frame is, in bytes.
pub const FRAME_HEADER_BYTES: usize = 4;

/// The length of the frame that `bytes` begin with; `None`: it is not there yet.
pub fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    usize::try_from(u32::from_be_bytes(*header)).ok()
}
