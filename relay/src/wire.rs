//! What the table names, in relay-wire's terms.

pub(crate) fn compression(compression: relay_engine::Compression) -> relay_wire::Compression {
    match compression {
        relay_engine::Compression::Gzip => relay_wire::Compression::Gzip,
        relay_engine::Compression::Lz4 => relay_wire::Compression::Lz4,
        relay_engine::Compression::Snappy => relay_wire::Compression::Snappy,
        relay_engine::Compression::Zstd => relay_wire::Compression::Zstd,
    }
}
