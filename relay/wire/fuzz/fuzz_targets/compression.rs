//! Whatever somebody calls a compressed stream, in whatever pieces it comes: no panic, no hang, and the same bytes come out.
#![no_main]

use std::io::ErrorKind;

use libfuzzer_sys::fuzz_target;
use relay_wire::{Compression, Decompressor};

// A little input may stand for very much output.
const OUT_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some(([kind, piece], stream)) = input.split_first_chunk() else {
        return;
    };
    let compression = match kind % 4 {
        0 => Compression::Gzip,
        1 => Compression::Lz4,
        2 => Compression::Snappy,
        _ => Compression::Zstd,
    };
    let whole = decompressed(compression, stream, stream.len());
    let in_pieces = decompressed(compression, stream, (*piece).into());
    // A fault may be seen before what is in front of it was asked for, or after.
    let common = whole.len().min(in_pieces.len());
    assert!(whole[..common] == in_pieces[..common]);
});

fn decompressed(compression: Compression, stream: &[u8], piece: usize) -> Vec<u8> {
    let mut decompressor = Decompressor::new(compression).expect("there is memory");
    let mut pieces = stream.chunks(piece.max(1));
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    let (mut is_fed, mut turns) = (false, 0);
    while out.len() < OUT_BYTES_MAX {
        turns += 1;
        assert!(turns < 1_000_000, "it comes to no end");
        match decompressor.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => out.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(!is_fed, "it wants more than there is");
                let piece = pieces.next().unwrap_or_default();
                is_fed = piece.is_empty();
                if decompressor.feed(piece).is_err() {
                    assert!(decompressor.has_rest());
                    break;
                }
            }
            Err(_) => {
                assert!(decompressor.has_rest());
                break;
            }
        }
    }
    out
}
