//! Whatever somebody sends where a PROXY header belongs: no panic, and never is more read than belongs to the header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_wire::proxy::{Header, read};

const HEADER_BYTES_MAX: usize = 8192;

fuzz_target!(|stream: &[u8]| {
    let mut have = 0;
    while let Ok(Header::Wants(bytes)) = read(&stream[..have]) {
        assert!(bytes > 0);
        have += bytes;
        assert!(have <= HEADER_BYTES_MAX);
        if have > stream.len() {
            return;
        }
    }
});
