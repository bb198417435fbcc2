//! Disks and people that do harm.

use super::*;

const ONE_SEGMENT: Limits = Limits {
    bytes_max: 4 << 20,
    segment_bytes: 1 << 20,
    ..LIMITS
};

#[test]
fn a_full_disk_is_a_counted_drop_and_recovers_by_itself() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..2);
    spool.sync(NOW).unwrap();
    let used: usize = [segment_name(1), "cursor".to_owned()]
        .iter()
        .map(|name| memory.get(name).unwrap().len())
        .sum();
    memory.set_capacity(Some(used + 300));
    for n in 2..5 {
        let error = spool.append(&batch(n), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write memory/0000000000000001.segment: free space on its file system, or lower the spool's maxBytes"
        );
    }
    assert_eq!(spool.figures().dropped(Loss::DiskFull), 3);
    spool.sync(NOW).unwrap();
    // What is done with is removed on a full disk, too, and at once.
    assert_eq!(read(&mut spool), [0, 1]);
    acknowledge(&mut spool);
    append(&mut spool, 5..6);
    memory.set_capacity(None);
    append(&mut spool, 6..8);
    assert_eq!(read(&mut spool), [5, 6, 7]);
    spool.sync(NOW).unwrap();
    crash(&memory);
    drop(spool);
    let mut spool = open(&memory);
    assert_eq!(read(&mut spool), [5, 6, 7]);
    assert_eq!(spool.figures().damaged_bytes, 0);
}

#[test]
fn a_file_system_that_is_remounted_read_only_is_still_read() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..5);
    spool.sync(NOW).unwrap();
    memory.set_read_only(true);
    let error = spool.append(&batch(5), 1).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Io {
                operation: "write",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(read(&mut spool), [0, 1, 2, 3, 4]);
    acknowledge(&mut spool);
    assert!(matches!(spool.sync(NOW), Err(Error::Io { .. })));
    assert_eq!(spool.figures().dropped(Loss::Io), 1);
    memory.set_read_only(false);
    append(&mut spool, 6..7);
    spool.sync(NOW).unwrap();
    assert_eq!(read(&mut spool), [6]);
    assert_eq!(spool.figures().damaged_bytes, 0);
}

#[test]
fn a_sync_that_failed_says_so_and_the_next_one_covers_what_came_later() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..1);
    spool.sync(NOW).unwrap();
    append(&mut spool, 1..2);
    // Looking for the file is the first thing.
    memory.fail_after(Some(1));
    let error = spool.sync(NOW).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Io {
                operation: "sync",
                ..
            }
        ),
        "{error}"
    );
    append(&mut spool, 2..3);
    spool.sync(NOW).unwrap();
    crash(&memory);
    drop(spool);
    let mut spool = open(&memory);
    assert_eq!(read(&mut spool), [0, 2]);
    // Nobody was told that the one between was safe, and it is counted all the same.
    assert_eq!(spool.figures().dropped(Loss::Damaged), 1);
}

#[test]
fn a_damaged_batch_is_skipped_and_counted() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..6);
    memory.flip(&segment_name(1), 512 + 448 + 100);
    assert_eq!(read(&mut spool), [0, 2, 3, 4, 5]);
    spool.rewind();
    assert_eq!(read(&mut spool), [0, 2, 3, 4, 5]);
    let figures = spool.figures();
    assert_eq!(
        (figures.dropped(Loss::Damaged), figures.damaged_bytes),
        (1, 448)
    );
    assert_eq!(figures.waiting, 5);
    assert_eq!(acknowledge(&mut spool), 5);
}

#[test]
fn reading_goes_on_at_the_next_sound_header() {
    let memory = Memory::default();
    let mut spool = open_with(&memory, ONE_SEGMENT);
    append(&mut spool, 0..1000);
    let name = segment_name(1);
    // The first header, one in the middle, and the last.
    for n in [0, 500, 999] {
        memory.flip(&name, 512 + 448 * n + 20);
    }
    let expected: Vec<usize> = (0..1000).filter(|n| ![0, 500, 999].contains(n)).collect();
    assert_eq!(read(&mut spool), expected);
    let figures = spool.figures();
    assert_eq!(
        (figures.dropped(Loss::Damaged), figures.damaged_bytes),
        (3, 3 * 448)
    );
}

#[test]
fn lines_that_look_like_a_record_are_none() {
    let memory = Memory::default();
    let mut spool = open_with(&memory, ONE_SEGMENT);
    append(&mut spool, 0..2);
    let record = memory.get(&segment_name(1)).unwrap()[512..512 + 448].to_vec();
    let lines = record.iter().filter(|byte| **byte == b'\n').count();
    spool.append(&record, lines as u64).unwrap();
    append(&mut spool, 2..3);
    // The header of the batch with the record in it.
    memory.flip(&segment_name(1), 512 + 2 * 448);
    assert_eq!(read(&mut spool), [0, 1, 2]);
    assert_eq!(spool.figures().dropped(Loss::Damaged), lines as u64);
}

#[test]
fn a_segment_without_its_block_is_read() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..6);
    drop(spool);
    memory.flip(&segment_name(1), 3);
    memory.flip(&segment_name(2), 3);
    let mut spool = open(&memory);
    assert_eq!(read(&mut spool), [0, 1, 2, 3, 4, 5]);
    assert_eq!(spool.figures().recovered, 6);
}

#[test]
fn a_segment_that_was_deleted_is_counted() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..9);
    spool.sync(NOW).unwrap();
    memory.delete(&segment_name(2));
    assert_eq!(read(&mut spool), [0, 1, 2, 6, 7, 8]);
    assert_eq!(spool.figures().dropped(Loss::Damaged), 3);
    drop(spool);
    // Also the last one, of which nothing on disk but the cursor knows.
    memory.delete(&segment_name(3));
    let mut spool = open(&memory);
    assert_eq!(read(&mut spool), [0, 1, 2]);
    let figures = spool.figures();
    assert_eq!((figures.recovered, figures.dropped(Loss::Damaged)), (9, 6));
    append(&mut spool, 9..10);
    assert_eq!(read(&mut spool), [9]);
}

#[test]
fn a_segment_that_is_deleted_while_it_is_written_takes_no_more() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..2);
    memory.delete(&segment_name(1));
    spool.sync(NOW).unwrap();
    append(&mut spool, 2..3);
    assert_eq!(read(&mut spool), [2]);
    assert_eq!(spool.figures().dropped(Loss::Damaged), 2);
}

#[test]
fn a_lost_cursor_costs_duplicates_only() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..4);
    let mut bytes = Vec::new();
    let first = spool.read(&mut bytes, 800).unwrap().unwrap();
    spool.acknowledge(first.end);
    spool.sync(NOW).unwrap();
    drop(spool);
    let cursor = memory.get("cursor").unwrap();
    memory.flip("cursor", 100);
    assert_eq!(read(&mut open(&memory)), [0, 1, 2, 3]);
    memory.put("cursor", &cursor);
    assert_eq!(read(&mut open(&memory)), [2, 3]);
}

#[test]
fn a_torn_write_of_the_cursor_leaves_the_one_before() {
    let memory = Memory::default();
    let mut spool = open_with(&memory, ONE_SEGMENT);
    append(&mut spool, 0..4);
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let one = spool.read(&mut bytes, 1).unwrap().unwrap();
        spool.acknowledge(one.end);
        spool.sync(NOW).unwrap();
    }
    drop(spool);
    // The first of three is overwritten by the third.
    memory.flip("cursor", 100);
    let mut spool = open(&memory);
    assert_eq!(read(&mut spool), [2, 3]);
}

#[test]
fn a_bad_sector_is_skipped_if_the_rest_can_be_read() {
    let memory = Memory::default();
    let mut spool = open_with(&memory, ONE_SEGMENT);
    append(&mut spool, 0..100);
    memory.break_sector(&segment_name(1), 512 + 448 * 3 + 100);
    let mut bytes = Vec::new();
    let before = spool.read(&mut bytes, 10_000).unwrap().unwrap();
    assert_eq!(before.lines, 2);
    let error = spool.read(&mut bytes, 10_000).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Io {
                operation: "read",
                ..
            }
        ),
        "{error}"
    );
    let rest = read(&mut spool);
    // A search goes in steps of 4,096 bytes, which is nine of these.
    assert!(rest.len() >= 98 - 12, "{rest:?}");
    assert_eq!(rest, Vec::from_iter(100 - rest.len()..100));
    assert_eq!(
        spool.figures().dropped(Loss::Damaged),
        98 - rest.len() as u64
    );
}

#[test]
fn a_disk_that_gives_no_answer_at_all_loses_nothing() {
    let memory = Memory::default();
    let mut spool = open(&memory);
    append(&mut spool, 0..9);
    for segment in 1..=3 {
        for offset in (0..2_000).step_by(512) {
            memory.break_sector(&segment_name(segment), offset);
        }
    }
    let mut bytes = Vec::new();
    for _ in 0..5 {
        assert!(matches!(
            spool.read(&mut bytes, 1000),
            Err(Error::Io { .. })
        ));
    }
    assert_eq!(spool.figures().waiting, 9);
    memory.repair();
    assert_eq!(read(&mut spool), Vec::from_iter(0..9));
}
