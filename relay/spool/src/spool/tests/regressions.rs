//! What the model found.

use super::*;

#[test]
fn lines_of_a_process_that_died_are_synced_by_the_next() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..1);
    drop(spool);
    let mut spool = open(&memory);
    spool.sync(NOW).unwrap();
    crash(&memory);
    drop(spool);
    assert_eq!(read(&mut open(&memory)), [0]);
}

#[test]
fn lines_that_are_dropped_behind_the_reader_are_not_found_missing_as_well() {
    let memory = Memory::default();
    let limits = Limits {
        age_max: Some(Duration::from_secs(50)),
        ..LIMITS
    };
    let mut spool = open_with(&memory, limits);
    append(&mut spool, 0..6);
    // Reading skips all of the second segment, and has not seen an ordinal behind it.
    for n in 0..3 {
        memory.flip(&segment_name(2), 512 + 448 * n + 20);
    }
    assert_eq!(read(&mut spool), [0, 1, 2]);
    spool.sync(UnixSeconds(NOW.0 + 60)).unwrap();
    append(&mut spool, 6..7);
    assert_eq!(read(&mut spool), [6]);
    let figures = spool.figures();
    let dropped: u64 = figures.dropped.iter().sum();
    assert_eq!((dropped, figures.waiting), (6, 1));
}

#[test]
fn dropping_the_oldest_ends_although_a_crash_left_a_piece_of_a_block() {
    let memory = Memory::default();
    let limits = Limits {
        bytes_max: 2_000,
        when_full: WhenFull::DropOldest,
        ..LIMITS
    };
    let mut spool = open_with(&memory, limits);
    append(&mut spool, 0..1);
    drop(spool);
    memory.put(&segment_name(2), &[0; 237]);
    let mut spool = open_with(&memory, limits);
    spool.append(&[b'\n'; 1_400], 1_400).unwrap();
    assert_eq!(spool.figures().dropped(Loss::Full), 1);
}
