use std::time::Duration;

use super::*;
use crate::format::RECORD_HEADER_BYTES;
use crate::limits::WhenFull;
use crate::storage::Memory;

mod damage;
mod model;
mod regressions;

const NOW: UnixSeconds = UnixSeconds(1_000_000);

const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    age_max: None,
    segment_bytes: 2_000,
    when_full: WhenFull::DropNewest,
};

fn open(memory: &Memory) -> Spool<Memory> {
    open_with(memory, LIMITS)
}

fn open_with(memory: &Memory, limits: Limits) -> Spool<Memory> {
    Spool::open_in(memory.clone(), "uid", limits, NOW).unwrap()
}

// A batch of one line that begins with `n`; a segment of 2,000 bytes takes three of them.
fn batch(n: usize) -> Vec<u8> {
    format!("{n:<399}\n").into_bytes()
}

fn append(spool: &mut Spool<Memory>, numbers: std::ops::Range<usize>) {
    for n in numbers {
        spool.append(&batch(n), 1).unwrap();
    }
}

// The numbers of all batches that wait from where reading is.
fn read(spool: &mut Spool<Memory>) -> Vec<usize> {
    let mut bytes = Vec::new();
    let mut numbers = Vec::new();
    while spool.read(&mut bytes, 1000).unwrap().is_some() {
        let lines = str::from_utf8(&bytes).unwrap().lines();
        numbers.extend(lines.map(|line| line.trim_end().parse::<usize>().unwrap()));
    }
    numbers
}

// Acknowledges all that was read.
fn acknowledge(spool: &mut Spool<Memory>) -> u64 {
    spool.acknowledge(spool.reader.at())
}

fn crash(memory: &Memory) {
    // Everything that may be lost is.
    memory.crash(|_| 0);
}

#[test]
fn lines_come_out_as_they_went_in() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    spool.append(b"a 1 2\nb 3 4\n", 2).unwrap();
    spool.append(b"c 5 6\n", 1).unwrap();
    let mut bytes = Vec::new();
    let first = spool.read(&mut bytes, 12).unwrap().unwrap();
    assert_eq!((first.lines, &bytes[..]), (2, &b"a 1 2\nb 3 4\n"[..]));
    let second = spool.read(&mut bytes, 1).unwrap().unwrap();
    assert_eq!((second.lines, &bytes[..]), (1, &b"c 5 6\n"[..]));
    assert_eq!(spool.read(&mut bytes, 1).unwrap(), None);
    spool.rewind();
    let both = spool.read(&mut bytes, 100).unwrap().unwrap();
    assert_eq!((both.lines, both.end), (3, second.end));
}

#[test]
fn what_is_no_batch_is_refused_and_not_counted() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    for (bytes, lines) in [(&b""[..], 0), (b"a", 1), (b"a\n", 0), (b"a\n", 3)] {
        let error = spool.append(bytes, lines).unwrap_err();
        assert!(matches!(error, Error::Batch { .. }), "{error}");
    }
    assert_eq!(spool.figures(), Figures::default());
}

#[test]
fn acknowledged_lines_do_not_come_again_and_give_their_space_back() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..10);
    let mut bytes = Vec::new();
    let batch = spool.read(&mut bytes, 4 * 400).unwrap().unwrap();
    assert_eq!(spool.acknowledge(batch.end), 4);
    assert_eq!(spool.acknowledge(batch.end), 0);
    let bytes_before = spool.figures().bytes;
    spool.sync(NOW).unwrap();
    // The first segment holds three.
    assert_eq!(bytes_before - spool.figures().bytes, 512 + 3 * 448);
    crash(&memory);
    drop(spool);
    let mut spool = open(&memory);
    assert_eq!(spool.figures().recovered, 6);
    assert_eq!(read(&mut spool), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_spool_without_lines_has_no_segments() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..4);
    let mut bytes = Vec::new();
    let batch = spool.read(&mut bytes, 4000).unwrap().unwrap();
    spool.acknowledge(batch.end);
    spool.sync(NOW).unwrap();
    assert_eq!(memory.names().unwrap(), ["cursor"]);
    append(&mut spool, 4..5);
    assert_eq!(read(&mut spool), [4]);
}

#[test]
fn a_full_spool_refuses_new_lines() {
    let memory = Memory::default();
    let bytes_max = 8_000;
    let mut spool = open_with(
        &memory,
        Limits {
            bytes_max,
            ..LIMITS
        },
    );
    let refused = (0..20).filter(|n| match spool.append(&batch(*n), 1) {
        Ok(()) => false,
        Err(Error::Full { bytes, .. }) => bytes <= bytes_max,
        Err(error) => panic!("{error}"),
    });
    let refused = refused.count();
    let figures = spool.figures();
    assert_eq!(figures.dropped(Loss::Full), refused as u64);
    assert_eq!(
        (figures.offered, figures.waiting),
        (20, 20 - refused as u64)
    );
    assert!(figures.bytes > 6_500, "{figures:?}");
    assert_eq!(read(&mut spool), Vec::from_iter(0..20 - refused));
}

#[test]
fn a_full_spool_drops_the_oldest_lines_if_asked() {
    let memory = Memory::default();
    let limits = Limits {
        bytes_max: 8_000,
        when_full: WhenFull::DropOldest,
        ..LIMITS
    };
    let mut spool = open_with(&memory, limits);
    append(&mut spool, 0..20);
    let figures = spool.figures();
    assert_eq!(figures.dropped(Loss::Full) + figures.waiting, 20);
    assert!(
        figures.bytes <= 8_000 && figures.waiting >= 10,
        "{figures:?}"
    );
    assert_eq!(
        read(&mut spool),
        Vec::from_iter(20 - figures.waiting as usize..20)
    );
    let error = spool.append(&[b'\n'; 8_000], 8_000).unwrap_err();
    assert!(matches!(error, Error::Full { .. }));
    assert_eq!(spool.figures().waiting, figures.waiting);
}

#[test]
fn smaller_limits_lose_nothing_that_is_on_disk() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..20);
    drop(spool);
    let small = Limits {
        bytes_max: 4_000,
        segment_bytes: 600,
        ..LIMITS
    };
    let mut spool = open_with(&memory, small);
    assert!(matches!(
        spool.append(&batch(20), 1),
        Err(Error::Full { .. })
    ));
    spool.set_limits(LIMITS);
    append(&mut spool, 20..22);
    assert_eq!(read(&mut spool), Vec::from_iter(0..22));
}

#[test]
fn old_lines_go_between_the_limit_and_a_sixteenth_more() {
    let memory = Memory::default();
    let limits = Limits {
        age_max: Some(Duration::from_secs(160)),
        ..LIMITS
    };
    let mut spool = open_with(&memory, limits);
    for second in 0..400 {
        let now = UnixSeconds(NOW.0 + second);
        spool.sync(now).unwrap();
        spool.append(b"a 1 2\n", 1).unwrap();
        let oldest = spool.figures().oldest_seconds.unwrap();
        assert!(oldest <= 160 + 10 + 1, "{oldest} s after {second} s");
        assert!(oldest >= second.min(160));
    }
    let figures = spool.figures();
    assert_eq!(figures.dropped(Loss::AgedOut) + figures.waiting, 400);
    assert!((160..=172).contains(&figures.waiting), "{figures:?}");
}

#[test]
fn a_clock_that_jumps_and_is_set_right_ages_nothing_out() {
    let memory = Memory::default();
    let limits = Limits {
        age_max: Some(Duration::from_secs(3600)),
        ..LIMITS
    };
    let mut spool = open_with(&memory, limits);
    append(&mut spool, 0..1);
    for _ in 0..30 {
        spool.sync(UnixSeconds(u64::MAX)).unwrap();
    }
    append(&mut spool, 1..2);
    spool.sync(UnixSeconds(0)).unwrap();
    append(&mut spool, 2..3);
    spool.sync(NOW).unwrap();
    assert_eq!(read(&mut spool), [0, 1, 2]);
    assert_eq!(spool.figures().dropped, [0; 5]);
    // If it stays there, it is believed.
    for _ in 0..100 {
        spool.sync(UnixSeconds(u64::MAX)).unwrap();
    }
    assert_eq!(spool.figures().dropped(Loss::AgedOut), 3);
}

#[test]
fn a_crash_loses_nothing_that_was_synced() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..5);
    spool.sync(NOW).unwrap();
    append(&mut spool, 5..9);
    crash(&memory);
    drop(spool);
    let mut spool = open(&memory);
    // A segment that is full was synced with all that is before it, but its name was not.
    assert_eq!(read(&mut spool), [0, 1, 2, 3, 4, 5]);
    append(&mut spool, 9..10);
    assert_eq!(read(&mut spool), [9]);
}

#[test]
fn one_directory_has_one_owner() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..1);
    let second = Spool::open_in(memory.clone(), "uid", LIMITS, NOW).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }));
    drop(spool);
    let other = Spool::open_in(memory.clone(), "other", LIMITS, NOW).unwrap_err();
    assert_eq!(
        other.to_string(),
        "memory/0000000000000001.segment was written for \"uid\", not for \"other\": give each destination a directory of \
         its own"
    );
    assert_eq!(read(&mut open(&memory)), [0]);
    let too_long = "x".repeat(crate::IDENTITY_BYTES_MAX + 1);
    let refused = Spool::open_in(memory, &too_long, LIMITS, NOW).unwrap_err();
    assert!(matches!(refused, Error::Identity { .. }));
}

#[test]
fn another_format_is_left_alone() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..1);
    drop(spool);
    let name = segment_name(1);
    let mut bytes = memory.get(&name).unwrap();
    bytes[8] = 2;
    let checksum = twox_hash::XxHash64::oneshot(0, &bytes[..504]);
    bytes[504..512].copy_from_slice(&checksum.to_le_bytes());
    memory.put(&name, &bytes);
    let refused = Spool::open_in(memory.clone(), "uid", LIMITS, NOW).unwrap_err();
    assert!(matches!(refused, Error::OtherVersion { found: 2, .. }));
    assert_eq!(memory.get(&name), Some(bytes));
}

#[test]
fn foreign_files_are_left_alone() {
    let memory = Memory::default();
    for name in [
        "README",
        "1.segment",
        "ffffffffffffffff.segment",
        "x.segment",
    ] {
        memory.put(name, b"not ours");
    }
    let mut spool = open(&memory);
    append(&mut spool, 0..4);
    let mut bytes = Vec::new();
    let all = spool.read(&mut bytes, 4000).unwrap().unwrap();
    spool.acknowledge(all.end);
    spool.sync(NOW).unwrap();
    let names = memory.names().unwrap();
    assert_eq!(
        names,
        [
            "1.segment",
            "README",
            "cursor",
            "ffffffffffffffff.segment",
            "x.segment"
        ]
    );
}
