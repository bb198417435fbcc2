//! Whatever is in the files: no panic, no endless loop, no more memory than the files and one batch, and afterwards the spool
//! works.
//!
//! The input is cut into files. In every second one, checksums are made right where blocks and records would be, so that the
//! numbers that they protect are tried as well.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use relay_spool::storage::Memory;
use relay_spool::{Limits, Loss, Spool, UnixSeconds, WhenFull};
use twox_hash::XxHash64;

const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

const IDENTITY: &str = "uid";

fuzz_target!(|bytes: &[u8]| {
    let memory = Memory::default();
    let mut is_possible = true;
    let mut rest = bytes;
    while let [name, kind, long, short, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*short, *long])).min(more.len());
        let (content, more) = more.split_at(length);
        rest = more;
        let mut content = content.to_vec();
        is_possible &= kind & 9 != 9;
        match name % 8 {
            0 => {
                forge(&mut content, *kind, b"\xffcwcursr", 0);
                if let Some(second) = content.get_mut(4096..) {
                    let mut block = second.to_vec();
                    forge(&mut block, *kind, b"\xffcwcursr", 0);
                    second.copy_from_slice(&block);
                }
                memory.put("cursor", &content);
            }
            number => {
                let sequence = u64::from(number);
                forge(&mut content, *kind, b"\xffcwspool", sequence);
                memory.put(&format!("{sequence:016x}.segment"), &content);
            }
        }
    }
    use_it(&memory, bytes.len(), is_possible);
});

// Makes a block of our own, and records where `kind` wants some.
fn forge(content: &mut [u8], kind: u8, magic: &[u8; 8], sequence: u64) {
    if kind & 1 == 0 || content.len() < 512 {
        return;
    }
    content[..8].copy_from_slice(magic);
    content[8..12].copy_from_slice(&1_u32.to_le_bytes());
    content[12..16].copy_from_slice(&(IDENTITY.len() as u32).to_le_bytes());
    content[56..59].copy_from_slice(IDENTITY.as_bytes());
    if kind & 8 == 0 {
        // Numbers that a spool can come to.
        (0..5).for_each(|i| content[16 + 8 * i + 7] = 0);
    }
    let checksum = XxHash64::oneshot(0, &content[..504]);
    content[504..512].copy_from_slice(&checksum.to_le_bytes());
    let segment = XxHash64::oneshot(sequence, IDENTITY.as_bytes());
    let mut offset = 512;
    while kind & 2 != 0 && offset + 48 <= content.len() {
        let (header, batch) = content[offset..].split_at_mut(48);
        header[..8].copy_from_slice(b"\xffrecord\xfe");
        if kind & 8 == 0 {
            header[23] = 0;
        }
        let length = if kind & 4 == 0 {
            header[8] as usize
        } else {
            batch.len()
        };
        header[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        let checksum = XxHash64::oneshot(0, &batch[..length.min(batch.len())]);
        header[32..40].copy_from_slice(&checksum.to_le_bytes());
        let checksum = XxHash64::oneshot(segment.wrapping_add(offset as u64), &header[..40]);
        header[40..48].copy_from_slice(&checksum.to_le_bytes());
        offset += 48 + length;
    }
}

fn use_it(memory: &Memory, bytes_max: usize, is_possible: bool) {
    let limits = Limits {
        bytes_max: 1 << 30,
        age_max: Some(Duration::from_secs(3600)),
        segment_bytes: 1 << 20,
        when_full: WhenFull::DropOldest,
    };
    let Ok(mut spool) = Spool::open_in(memory.clone(), IDENTITY, limits, NOW) else {
        return;
    };
    let mut batch = Vec::new();
    let mut bytes_read = 0;
    let mut position = None;
    while let Some(read) = spool.read(&mut batch, 1000).expect("nothing fails here") {
        assert!(read.lines as usize <= batch.len());
        bytes_read += batch.len();
        position = Some(read.end);
    }
    assert!(bytes_read <= bytes_max && batch.capacity() <= 2 * bytes_max + 1000);
    assert!(spool.figures().damaged_bytes <= bytes_max as u64);
    spool.rewind();
    let mut bytes_again = 0;
    while spool
        .read(&mut batch, 1 << 20)
        .expect("nothing fails here")
        .is_some()
    {
        bytes_again += batch.len();
    }
    assert_eq!(bytes_again, bytes_read);
    if let Some(position) = position {
        spool.acknowledge(position);
    }
    spool
        .sync(UnixSeconds(NOW.0 + 1))
        .expect("nothing fails here");
    spool.append(b"a 1 2\n", 1).expect("there is room");
    while spool
        .read(&mut batch, 1000)
        .expect("nothing fails here")
        .is_some()
    {}
    assert!(batch.is_empty());
    assert_eq!(spool.figures().dropped(Loss::Io), 0);
    spool
        .sync(UnixSeconds(NOW.0 + 2))
        .expect("nothing fails here");
    drop(spool);
    let mut spool = Spool::open_in(memory.clone(), IDENTITY, limits, NOW).expect("it was ours");
    let mut last = Vec::new();
    while spool
        .read(&mut batch, 0)
        .expect("nothing fails here")
        .is_some()
    {
        last.clone_from(&batch);
    }
    assert!(last == b"a 1 2\n" || !is_possible);
}
