//! Addresses of one's own.

use std::net::Ipv4Addr;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A loopback address that nothing else on this machine uses: all of 127.0.0.0/8 is local on Linux. With it the ports can
/// be the ones that users know, and a server can be closed and come back on its port without anybody taking it meanwhile.
///
/// # Panics
/// After 1000 addresses in one process.
pub fn own_address() -> Ipv4Addr {
    let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(
        taken < 1000,
        "this process has used up its loopback addresses"
    );
    address(process::id(), taken)
}

// 127.0.x.x and 127.1.x.x are left to others. Two processes meet only if their ids are equal in the low 12 bits.
fn address(process: u32, taken: u32) -> Ipv4Addr {
    let [_, _, high, low] = (process % 4096).to_be_bytes();
    let host = taken % 250 + 1;
    let second = 2 + u32::from(high) * 4 + taken / 250;
    Ipv4Addr::new(127, second as u8, low, host as u8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_address_is_another_one() {
        let mut seen = BTreeSet::new();
        for process in [0, 1, 255, 256, 4095] {
            for taken in 0..1000 {
                let address = address(process, taken);
                assert!(
                    address.is_loopback() && address.octets()[1] > 1,
                    "{address}"
                );
                assert!(seen.insert(address), "{address} twice");
            }
        }
    }
}
