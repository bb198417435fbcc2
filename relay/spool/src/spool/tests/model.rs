//! Random calls, crashes and faults against a list of what was appended. A batch that was synced and neither acknowledged
//! nor dropped must come out, whole, in order; one that was hit by damage may be missing, no other.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::format::segment_sequence;

#[derive(Clone, Debug)]
enum Step {
    Append { lines: u64, line_bytes: usize },
    Sync,
    // From one sync to the next, in seconds.
    Jump(i64),
    Read { bytes_max: usize },
    // What was read but for so many batches.
    Acknowledge { but: usize },
    Rewind,
    Reopen,
    Crash { seed: u64 },
    Flip { file: usize, offset: usize },
    Delete { file: usize },
    FailAfter(usize),
    Capacity(Option<usize>),
    ReadOnly(bool),
    Limit(Limits),
}

#[derive(Clone, Debug)]
struct Sent {
    text: Vec<u8>,
    lines: u64,
    ordinal: u64,
    // Where its record is.
    segment: u64,
    from: u64,
    end: u64,
    // The least that the clock said since it was written.
    clock_min: UnixSeconds,
    fate: Fate,
    is_hit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    // Not synced yet.
    New,
    // A crash came before a sync, or the sync failed: nobody knows.
    Unsure,
    Synced,
    // Acknowledged, or dropped by a counted bound: may come again.
    Done,
    // Damaged: may come or not.
    Hit,
    // Not synced, and not there after a crash.
    Gone,
}

struct System {
    memory: Memory,
    spool: Option<Spool<Memory>>,
    limits: Limits,
    clock: UnixSeconds,
    sent: Vec<Sent>,
    // Since the last reopening or rewinding: the batch that comes next at the earliest.
    next: usize,
    // What was read and where it ended, since the last reopening.
    read: Vec<(usize, Position)>,
    had_faults: bool,
}

impl System {
    fn new() -> Self {
        let limits = limits(20_000, 3_000);
        let memory = Memory::default();
        let clock = UnixSeconds(1_000_000);
        let spool = Spool::open_in(memory.clone(), "uid", limits, clock).unwrap();
        Self {
            memory,
            spool: Some(spool),
            limits,
            clock,
            sent: Vec::new(),
            next: 0,
            read: Vec::new(),
            had_faults: false,
        }
    }

    fn spool(&mut self) -> &mut Spool<Memory> {
        self.spool.as_mut().unwrap()
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append { lines, line_bytes } => self.append(*lines, *line_bytes),
            Step::Sync => self.sync(),
            Step::Jump(seconds) => {
                self.clock = UnixSeconds(self.clock.0.saturating_add_signed(*seconds))
            }
            Step::Read { bytes_max } => self.read(*bytes_max),
            Step::Acknowledge { but } => self.acknowledge(*but),
            Step::Rewind => {
                self.spool().rewind();
                self.next = 0;
            }
            Step::Reopen => self.reopen(),
            Step::Crash { seed } => {
                let random = below_from(*seed);
                self.memory.crash(random);
                self.doubt_unsynced();
                self.reopen();
            }
            Step::Flip { file, offset } => self.flip(*file, *offset),
            Step::Delete { file } => self.delete(*file),
            Step::FailAfter(operations) => {
                self.had_faults = true;
                self.memory.fail_after(Some(*operations));
            }
            Step::Capacity(bytes) => {
                self.had_faults = true;
                self.memory.set_capacity(*bytes);
            }
            Step::ReadOnly(is_read_only) => {
                self.had_faults = true;
                self.memory.set_read_only(*is_read_only);
            }
            Step::Limit(limits) => {
                self.limits = *limits;
                self.spool().set_limits(*limits);
            }
        }
        self.check();
    }

    fn append(&mut self, lines: u64, line_bytes: usize) {
        let index = self.sent.len();
        let text: String = (0..lines)
            .map(|line| format!("{:<line_bytes$}\n", format!("{index}.{line}")))
            .collect();
        let text = text.into_bytes();
        let bytes_max = self.limits.bytes_max;
        let front_before = self.spool().front.line;
        let ordinal = self.spool().next_line;
        let outcome = self.spool().append(&text, lines);
        self.note_dropped(front_before, None);
        match outcome {
            Ok(()) => {
                let spool = self.spool();
                assert!(spool.bytes <= bytes_max);
                let segment = spool.segments.back().unwrap();
                let (segment, end) = (segment.sequence, segment.end);
                let from = end - (RECORD_HEADER_BYTES + text.len()) as u64;
                let clock_min = spool.now;
                self.sent.push(Sent {
                    text,
                    lines,
                    ordinal,
                    segment,
                    from,
                    end,
                    clock_min,
                    fate: Fate::New,
                    is_hit: false,
                });
            }
            Err(Error::Full { .. }) => {
                assert!(self.spool().bytes + text.len() as u64 + 1000 > bytes_max);
            }
            Err(error) => assert!(self.had_faults, "{error}"),
        }
    }

    fn sync(&mut self) {
        self.clock = UnixSeconds(self.clock.0.saturating_add(1));
        let clock = self.clock;
        let front_before = self.spool().front.line;
        let outcome = self.spool().sync(clock);
        let now = self.spool().now;
        for sent in &mut self.sent {
            sent.clock_min = sent.clock_min.min(now);
            if sent.fate == Fate::New {
                sent.fate = match &outcome {
                    Ok(()) => Fate::Synced,
                    Err(_) => Fate::Unsure,
                };
            }
        }
        if let Err(error) = outcome {
            assert!(self.had_faults, "{error}");
        }
        self.note_dropped(front_before, Some(now));
    }

    // The front moved, and not because of an acknowledgement; at the time that is given, because of age.
    fn note_dropped(&mut self, front_before: u64, aged_at: Option<UnixSeconds>) {
        let front = self.spool().front.line;
        let limits = self.limits;
        let waits = self.spool().waiting() > 0;
        for sent in &mut self.sent {
            let is_there = !matches!(sent.fate, Fate::Done | Fate::Gone);
            if is_there && (front_before..front).contains(&sent.ordinal) {
                if let Some(now) = aged_at.filter(|_| waits && sent.fate != Fate::Hit) {
                    assert!(
                        limits.is_too_old(now.seconds_since(sent.clock_min)),
                        "{sent:?}"
                    );
                }
                sent.fate = Fate::Done;
            }
        }
    }

    fn read(&mut self, bytes_max: usize) {
        let mut bytes = Vec::new();
        let outcome = match self.spool().read(&mut bytes, bytes_max) {
            Ok(outcome) => outcome,
            Err(error) => return assert!(self.had_faults, "{error}"),
        };
        let Some(batch) = outcome else {
            return assert_eq!(bytes, b"");
        };
        let mut rest = &bytes[..];
        let mut lines = 0;
        while !rest.is_empty() {
            let name = rest.split(|byte| *byte == b'.').next().unwrap();
            let index: usize = str::from_utf8(name).unwrap().parse().unwrap();
            let sent = &self.sent[index];
            assert!(index >= self.next, "{index} after {}", self.next);
            assert_ne!(sent.fate, Fate::Gone);
            rest = rest.strip_prefix(&sent.text[..]).expect("a whole batch");
            lines += sent.lines;
            self.next = index + 1;
            self.read.push((index, batch.end));
        }
        assert_eq!(batch.lines, lines);
        let first_alone = self.read.last().map(|(index, _)| self.sent[*index].lines);
        assert!(bytes.len() <= bytes_max || first_alone == Some(lines));
    }

    fn acknowledge(&mut self, but: usize) {
        let Some(until) = self.read.len().checked_sub(but + 1) else {
            return;
        };
        let position = self.read[until].1;
        let front_before = self.spool().front;
        let count = self.spool().acknowledge(position);
        if position <= front_before {
            return assert_eq!(count, 0);
        }
        // Of what was damaged after it was read, a later pass may have found out.
        let (mut lines, mut lines_hit) = (0, 0);
        let read = self.read.iter().filter(|(_, end)| *end <= position);
        let read: BTreeSet<usize> = read.map(|(index, _)| *index).collect();
        for index in read {
            let sent = &mut self.sent[index];
            if sent.ordinal >= front_before.line {
                match sent.is_hit {
                    true => lines_hit += sent.lines,
                    false => lines += sent.lines,
                }
                sent.fate = Fate::Done;
            }
        }
        assert!((lines..=lines + lines_hit).contains(&count), "{count}");
    }

    fn doubt_unsynced(&mut self) {
        for sent in &mut self.sent {
            if sent.fate == Fate::New {
                sent.fate = Fate::Unsure;
            }
        }
    }

    fn reopen(&mut self) {
        // The next sync would have said that one failed.
        if self.spool().unreported.is_some() {
            self.doubt_unsynced();
        }
        self.spool = None;
        let mut spool = Spool::open_in(self.memory.clone(), "uid", self.limits, self.clock);
        if spool.is_err() {
            assert!(self.had_faults);
            // It may have been a sync that failed.
            self.doubt_unsynced();
            self.heal();
            spool = Spool::open_in(self.memory.clone(), "uid", self.limits, self.clock);
        }
        let spool = self.spool.insert(spool.unwrap());
        for sent in &mut self.sent {
            sent.clock_min = sent.clock_min.min(spool.now);
            if sent.ordinal >= spool.next_line {
                assert_ne!(sent.fate, Fate::Synced, "{sent:?} is lost");
                if sent.fate != Fate::Done {
                    sent.fate = Fate::Gone;
                }
            }
        }
        self.next = 0;
        self.read.clear();
    }

    fn heal(&mut self) {
        self.memory.fail_after(None);
        self.memory.set_capacity(None);
        self.memory.set_read_only(false);
    }

    fn file(&self, file: usize) -> Option<String> {
        let mut names = self.memory.names().ok()?;
        names.retain(|name| segment_sequence(name).is_some() || name == "cursor");
        (!names.is_empty()).then(|| names.swap_remove(file % names.len()))
    }

    fn flip(&mut self, file: usize, offset: usize) {
        let Some(name) = self.file(file) else { return };
        let length = self.memory.get(&name).unwrap().len();
        if length == 0 {
            return;
        }
        let offset = offset % length;
        self.memory.flip(&name, offset);
        let offset = offset as u64;
        for sent in &mut self.sent {
            let is_here = Some(sent.segment) == segment_sequence(&name);
            if is_here && (sent.from..sent.end).contains(&offset) {
                sent.hit();
            }
        }
    }

    fn delete(&mut self, file: usize) {
        let Some(name) = self.file(file) else { return };
        self.memory.delete(&name);
        let segment = segment_sequence(&name);
        // What is being written to it is lost as well until a sync finds out.
        for sent in &mut self.sent {
            if Some(sent.segment) == segment {
                sent.hit();
            }
        }
        if let Some(spool) = &mut self.spool
            && spool.segments.back().map(|s| s.sequence) == segment
        {
            spool.abandon();
        }
    }

    fn check(&mut self) {
        let figures = self.spool().figures();
        let dropped: u64 = figures.dropped.iter().sum();
        assert_eq!(
            figures.recovered + figures.offered,
            figures.acknowledged + figures.waiting + dropped,
            "{figures:?}"
        );
        if !self.had_faults {
            let names = self.memory.names().unwrap();
            let segments = names.iter().filter(|name| segment_sequence(name).is_some());
            let bytes: usize = segments
                .map(|name| self.memory.get(name).unwrap().len())
                .sum();
            assert!(bytes as u64 <= figures.bytes);
        }
    }

    // Everything that must come does, and then nothing is left.
    fn finish(&mut self) {
        self.heal();
        self.apply(&Step::Reopen);
        loop {
            let before = self.read.len();
            self.read(700);
            if self.read.len() == before {
                break;
            }
        }
        let came: BTreeSet<usize> = self.read.iter().map(|(index, _)| *index).collect();
        for (index, sent) in self.sent.iter().enumerate() {
            assert!(
                sent.fate != Fate::Synced || came.contains(&index),
                "{index} {sent:?}"
            );
        }
        self.check();
        let figures = self.spool().figures();
        assert_eq!(
            figures.waiting,
            came.iter()
                .map(|index| self.sent[*index].lines)
                .sum::<u64>()
        );
        self.apply(&Step::Acknowledge { but: 0 });
        self.apply(&Step::Sync);
        self.apply(&Step::Sync);
        let mut names = self.memory.names().unwrap();
        names.retain(|name| segment_sequence(name).is_some());
        assert_eq!((self.spool().figures().bytes, names), (0, vec![]));
    }
}

impl Sent {
    fn hit(&mut self) {
        self.is_hit = true;
        if !matches!(self.fate, Fate::Done | Fate::Gone) {
            self.fate = Fate::Hit;
        }
    }
}

// Numbers below what it is given, from a seed.
fn below_from(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    }
}

fn limits(bytes_max: u64, segment_bytes: u64) -> Limits {
    Limits {
        bytes_max,
        age_max: Some(Duration::from_secs(100)),
        segment_bytes,
        when_full: WhenFull::DropNewest,
    }
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let when_full = prop_oneof![Just(WhenFull::DropNewest), Just(WhenFull::DropOldest)];
    let age_max = prop_oneof![
        Just(None),
        (0..200_u64).prop_map(|s| Some(Duration::from_secs(s)))
    ];
    (2_000..40_000_u64, 600..8_000_u64, when_full, age_max).prop_map(
        |(bytes_max, segment_bytes, when_full, age_max)| Limits {
            when_full,
            age_max,
            ..limits(bytes_max, segment_bytes)
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..6_u64, prop_oneof![8..40_usize, 8..40_usize, 100..700_usize])
            .prop_map(|(lines, line_bytes)| Step::Append { lines, line_bytes }),
        5 => Just(Step::Sync),
        1 => (-300..300_i64).prop_map(Step::Jump),
        6 => (0..5_000_usize).prop_map(|bytes_max| Step::Read { bytes_max }),
        4 => (0..4_usize).prop_map(|but| Step::Acknowledge { but }),
        1 => Just(Step::Rewind),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(file, offset)| Step::Flip { file, offset }),
        1 => any::<usize>().prop_map(|file| Step::Delete { file }),
        1 => (0..12_usize).prop_map(Step::FailAfter),
        1 => proptest::option::of(0..30_000_usize).prop_map(Step::Capacity),
        1 => any::<bool>().prop_map(Step::ReadOnly),
        1 => any_limits().prop_map(Step::Limit),
    ]
}

fn run(steps: &[Step]) {
    let mut system = System::new();
    for step in steps {
        system.apply(step);
    }
    system.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_synced_comes_out(steps in prop::collection::vec(any_step(), 1..80)) {
        run(&steps);
    }
}
