use std::io::{Read as _, Write as _};

use super::*;

const ALL: [Compression; 4] = [
    Compression::Gzip,
    Compression::Lz4,
    Compression::Snappy,
    Compression::Zstd,
];

fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Linked)
                .block_checksums(true)
                .content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Snappy => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.into_inner().unwrap()
        }
        Compression::Zstd => zstd::stream::encode_all(bytes, 1).unwrap(),
    }
}

// Everything that comes of pieces of `step` bytes.
fn decompress(compression: Compression, stream: &[u8], step: usize) -> io::Result<Vec<u8>> {
    let mut decompressor = Decompressor::new(compression)?;
    let mut pieces = stream.chunks(step);
    let (mut out, mut buffer) = (Vec::new(), [0; 1000]);
    loop {
        match decompressor.read(&mut buffer) {
            Ok(0) => return Ok(out),
            Ok(read) => out.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                decompressor.feed(pieces.next().unwrap_or_default())?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn lines(count: usize) -> Vec<u8> {
    let line = |i| format!("servers.web{}.cpu {i}.5 1700000000\n", i * 7919 % 1000);
    (0..count).map(line).collect::<String>().into_bytes()
}

#[test]
fn what_was_compressed_comes_out_in_whatever_pieces_it_comes_in() {
    for compression in ALL {
        for count in [0, 1, 20, 20_000] {
            let lines = lines(count);
            let stream = compress(compression, &lines);
            for step in [1, 7, 1000, 1 << 20] {
                let found = decompress(compression, &stream, step).unwrap();
                assert!(found == lines, "{compression:?}, {count} lines by {step}");
            }
        }
    }
}

#[test]
fn what_was_written_so_far_can_be_read_so_far() {
    for compression in ALL {
        let mut compressor = Compressor::new(compression).unwrap();
        let (mut stream, mut written) = (Vec::new(), Vec::new());
        for count in [1, 20_000, 3] {
            let lines = lines(count);
            compressor.write(&lines, &mut stream).unwrap();
            written.extend_from_slice(&lines);
            let mut decompressor = Decompressor::new(compression).unwrap();
            decompressor.feed(&stream).unwrap();
            let (mut found, mut buffer) = (Vec::new(), [0; 1000]);
            while let Ok(read) = decompressor.read(&mut buffer) {
                found.extend_from_slice(&buffer[..read]);
            }
            assert!(found == written, "{compression:?}");
        }
        compressor.finish(&mut stream).unwrap();
        assert!(decompress(compression, &stream, 1000).unwrap() == written);
    }
}

#[test]
fn one_stream_follows_another() {
    for compression in ALL {
        let stream = [&b"a 1 1\n"[..], b"b 2 2\n"].map(|lines| compress(compression, lines));
        for step in [1, 1000] {
            let found = decompress(compression, &stream.concat(), step).unwrap();
            assert_eq!(found, b"a 1 1\nb 2 2\n", "{compression:?}");
        }
    }
}

#[test]
fn what_was_flushed_is_there_before_the_stream_ends() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"a 1 1\n").unwrap();
    encoder.flush().unwrap();
    let mut decompressor = Decompressor::new(Compression::Gzip).unwrap();
    decompressor.feed(encoder.get_ref()).unwrap();
    let mut bytes = [0; 100];
    assert_eq!(decompressor.read(&mut bytes).unwrap(), 6);
    let kind = decompressor.read(&mut bytes).unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::WouldBlock);
}

#[test]
fn a_stream_that_has_rest_says_so() {
    for compression in ALL {
        let stream = compress(compression, &lines(20_000));
        for cut in [1, 5, stream.len() / 2, stream.len() - 1] {
            let kind = decompress(compression, &stream[..cut], 1000).map_err(|error| error.kind());
            assert_eq!(
                kind.unwrap_err(),
                io::ErrorKind::UnexpectedEof,
                "{compression:?}, cut at {cut}"
            );
        }
    }
}

#[test]
fn what_is_not_compressed_so_is_refused() {
    for compression in ALL {
        assert!(decompress(compression, b"servers.web1.cpu 1 1700000000\n", 1000).is_err());
        let mut damaged = compress(compression, &lines(1000));
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        damaged[middle + 1] ^= 0xff;
        let found = decompress(compression, &damaged, 1000);
        // without a checksum gzip's and zstd's frames may be read otherwise
        assert!(
            found.is_err() || found.unwrap() != lines(1000),
            "{compression:?}"
        );
    }
    let mut huge = b"\xff\x06\0\0sNaPpY".to_vec();
    huge.extend(b"\0\xff\xff\xff");
    assert!(decompress(Compression::Snappy, &huge, 1000).is_err());
}

#[test]
fn lz4_is_a_frame_for_each_write_which_carbon_c_relay_needs() {
    let mut compressor = Compressor::new(Compression::Lz4).unwrap();
    for count in [1, 1000, 3] {
        let mut frame = Vec::new();
        compressor.write(&lines(count), &mut frame).unwrap();
        assert_eq!(frame[..4], 0x184d_2204_u32.to_le_bytes());
        assert_eq!(frame[frame.len() - 4..], [0; 4]);
        let mut found = Vec::new();
        let mut decoder = lz4_flex::frame::FrameDecoder::new(&frame[..]);
        decoder.read_to_end(&mut found).unwrap();
        assert!(found == lines(count));
    }
}
