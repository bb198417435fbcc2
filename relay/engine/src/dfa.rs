//! Whether a text matches, in one look at each of its bytes: a small deterministic automaton, made by subsets.
//!
//! The `regex` crates have such automata too. They can do more, and one for `^team17\..*\.(cpu|mem|disk)\.[a-z]+$` takes six
//! times as long to make and twice the memory. A table may have ten thousand.

use foldhash::{HashMap, HashMapExt as _};
use regex_automata::Span;
use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::look::Look;
use regex_automata::util::prefilter::Prefilter;
use regex_automata::util::primitives::StateID;

/// The transitions that an automaton may have: 32 KiB. How many there are can be exponential in the length of the pattern;
/// this bounds the time to make one to some milliseconds.
const TRANSITIONS_MAX: usize = 1 << 14;

/// An automaton.
#[derive(Debug)]
pub(crate) struct Dfa {
    direction: Direction,
    // Bytes of the same class are told apart nowhere.
    classes: Box<[u8; 256]>,
    // A state is the index of its first transition. It has one for each class, and a last one for the end of the text.
    transitions: Box<[u16]>,
    start: u16,
    matched: u16,
    // What a match can begin with: in the start state, what comes before the next of these is left out.
    prefilter: Option<Prefilter>,
}

/// Where a text is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    /// From its end.
    Backward,
}

// What holds where a text is begun, and where it is ended. An NFA for texts that are read backward has the two swapped.
const FIRST: Look = Look::Start;
const LAST: Look = Look::End;

// Leads nowhere. The state after it is the one in which there is a match, whatever comes.
const DEAD: u16 = 0;

// States of the NFA that read a byte, match, or look for where the text ends, by number.
type Set = u128;

struct Maker<'n> {
    nfa: &'n NFA,
    // By number.
    members: Vec<&'n State>,
    // By state of the NFA; of no use for those that have none.
    numbers: Vec<usize>,
    // By state of the NFA: what is reached from it without reading, in the middle of a text.
    reached: Vec<Option<Set>>,
    stack: Vec<StateID>,
}

impl Dfa {
    /// Makes the automaton of `nfa`, which is in this direction, for matches that begin at the state `begin`. `None` if it
    /// would be large, or if the pattern looks around in another way than for the ends of the text.
    pub(crate) fn new(nfa: &NFA, direction: Direction, begin: StateID) -> Option<Self> {
        let mut maker = Maker::new(nfa)?;
        let byte_classes = nfa.byte_classes();
        let mut classes = Box::new([0; 256]);
        let mut examples: Vec<u8> = Vec::new();
        for byte in 0..=u8::MAX {
            let class = byte_classes.get(byte);
            classes[usize::from(byte)] = class;
            if usize::from(class) == examples.len() {
                examples.push(byte);
            }
        }
        let stride = examples.len() + 1;
        let matched = stride as u16;
        // The dead one, the matched one, and the start.
        let mut sets: Vec<Set> = vec![0, 0, maker.reach(begin, true, false)];
        let mut states: HashMap<Set, u16> = HashMap::new();
        let mut transitions = vec![DEAD; stride];
        transitions.resize(2 * stride, matched);
        if !nfa.look_set_any().contains(FIRST) {
            // Otherwise there is more in the start than in another state with this set.
            states.insert(sets[2], transitions.len() as u16);
        }
        let start = match maker.has_match(sets[2]) {
            true => matched,
            false => transitions.len() as u16,
        };
        let mut at = 2;
        while let Some(set) = sets.get(at).copied() {
            for example in &examples {
                let next = maker.step(set, *example);
                let state = if next == 0 {
                    DEAD
                } else if maker.has_match(next) {
                    matched
                } else {
                    *states.entry(next).or_insert_with(|| {
                        sets.push(next);
                        ((sets.len() - 1) * stride) as u16
                    })
                };
                transitions.push(state);
            }
            let end = match at {
                2 => maker.reach(begin, true, true),
                _ => maker.end(set),
            };
            transitions.push(if maker.has_match(end) { matched } else { DEAD });
            if sets.len() * stride > TRANSITIONS_MAX {
                return None;
            }
            at += 1;
        }
        Some(Self {
            direction,
            classes,
            transitions: transitions.into(),
            start,
            matched,
            prefilter: None,
        })
    }

    /// Leaves out what comes before what `prefilter` finds, one of which every match begins with. For a pattern that matches
    /// anywhere and does not look for the start of the text.
    pub(crate) fn with_prefilter(mut self, prefilter: Option<Prefilter>) -> Self {
        self.prefilter = prefilter.filter(|_| self.start != self.matched);
        self
    }

    /// Whether a text matches.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        match (self.direction, &self.prefilter) {
            (Direction::Forward, Some(prefilter)) => self.skips(text, prefilter),
            (Direction::Forward, None) => self.takes(text.iter()),
            (Direction::Backward, _) => self.takes(text.iter().rev()),
        }
    }

    fn takes<'t>(&self, bytes: impl Iterator<Item = &'t u8>) -> bool {
        let mut state = self.start;
        for byte in bytes {
            if state <= self.matched {
                break;
            }
            state = self.next(state, *byte);
        }
        self.matches_at_end(state)
    }

    fn skips(&self, text: &[u8], prefilter: &Prefilter) -> bool {
        let mut at = 0;
        'candidates: while let Some(found) = prefilter.find(text, Span::from(at..text.len())) {
            at = found.start;
            let mut state = self.start;
            for byte in &text[at..] {
                state = self.next(state, *byte);
                at += 1;
                if state == self.start {
                    continue 'candidates;
                }
                if state <= self.matched {
                    break;
                }
            }
            return self.matches_at_end(state);
        }
        false
    }

    fn next(&self, state: u16, byte: u8) -> u16 {
        let class = self.classes[usize::from(byte)];
        self.transitions[usize::from(state) + usize::from(class)]
    }

    // The dead and the matched state stay what they are.
    fn matches_at_end(&self, state: u16) -> bool {
        let end = self.matched - 1;
        self.transitions[usize::from(state) + usize::from(end)] == self.matched
    }
}

impl<'n> Maker<'n> {
    fn new(nfa: &'n NFA) -> Option<Self> {
        let mut members = Vec::new();
        let mut numbers = vec![0; nfa.states().len()];
        for (number, state) in numbers.iter_mut().zip(nfa.states()) {
            let is_member = match state {
                State::ByteRange { .. }
                | State::Sparse(_)
                | State::Dense(_)
                | State::Match { .. } => true,
                State::Look { look, .. } if *look == LAST => true,
                State::Look { look, .. } if *look == FIRST => false,
                State::Look { .. } => return None,
                State::Union { .. }
                | State::BinaryUnion { .. }
                | State::Capture { .. }
                | State::Fail => false,
            };
            if is_member {
                *number = members.len();
                members.push(state);
            }
        }
        let fits = members.len() <= Set::BITS as usize;
        fits.then(|| Self {
            nfa,
            members,
            numbers,
            reached: vec![None; nfa.states().len()],
            stack: Vec::new(),
        })
    }

    // What is reached from a state without reading.
    fn reach(&mut self, from: StateID, is_first: bool, is_last: bool) -> Set {
        let mut seen = vec![false; self.nfa.states().len()];
        let mut set = 0;
        self.stack.push(from);
        while let Some(id) = self.stack.pop() {
            if std::mem::replace(&mut seen[id.as_usize()], true) {
                continue;
            }
            match self.nfa.state(id) {
                State::Look { look, next }
                    if (is_first && *look == FIRST) || (is_last && *look == LAST) =>
                {
                    self.stack.push(*next);
                }
                State::Look { look, .. } if *look == FIRST => {}
                State::ByteRange { .. }
                | State::Sparse(_)
                | State::Dense(_)
                | State::Match { .. }
                | State::Look { .. } => set |= 1 << self.numbers[id.as_usize()],
                State::Union { alternates } => self.stack.extend(alternates.iter().copied()),
                State::BinaryUnion { alt1, alt2 } => self.stack.extend([*alt1, *alt2]),
                State::Capture { next, .. } => self.stack.push(*next),
                State::Fail => {}
            }
        }
        set
    }

    fn step(&mut self, set: Set, byte: u8) -> Set {
        let mut next = 0;
        for number in numbers_in(set) {
            let to = match self.members[number] {
                State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                State::Sparse(sparse) => sparse.matches_byte(byte),
                State::Dense(dense) => dense.matches_byte(byte),
                State::Look { .. }
                | State::Union { .. }
                | State::BinaryUnion { .. }
                | State::Capture { .. }
                | State::Fail
                | State::Match { .. } => None,
            };
            let Some(to) = to else { continue };
            next |= match self.reached[to.as_usize()] {
                Some(reached) => reached,
                None => {
                    let reached = self.reach(to, false, false);
                    *self.reached[to.as_usize()].insert(reached)
                }
            };
        }
        next
    }

    // What is reached where the text ends, but not begins.
    fn end(&mut self, set: Set) -> Set {
        let mut all = 0;
        for number in numbers_in(set) {
            if let State::Look { next, .. } = self.members[number] {
                all |= self.reach(*next, false, true);
            }
        }
        all
    }

    fn has_match(&self, set: Set) -> bool {
        numbers_in(set).any(|number| matches!(self.members[number], State::Match { .. }))
    }
}

fn numbers_in(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(number)
    })
}

#[cfg(test)]
mod tests {
    use regex_automata::MatchKind;
    use regex_automata::nfa::thompson;
    use regex_syntax::hir::Hir;

    use super::*;
    use crate::re2::{self, Alphabet};

    fn nfa(pattern: &str, direction: Direction) -> NFA {
        let hir = re2::parse(pattern, Alphabet::Ascii).unwrap().hir;
        let config = thompson::Config::new()
            .which_captures(thompson::WhichCaptures::None)
            .reverse(direction == Direction::Backward);
        let mut compiler = thompson::Compiler::new();
        compiler.configure(config).build_from_hir(&hir).unwrap()
    }

    fn prefilter(hir: &Hir) -> Option<Prefilter> {
        let looks = hir.properties().look_set();
        let is_free = !looks.contains(regex_syntax::hir::Look::Start);
        is_free.then(|| Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, hir))?
    }

    fn forward(pattern: &str) -> Option<Dfa> {
        let nfa = nfa(pattern, Direction::Forward);
        Dfa::new(&nfa, Direction::Forward, nfa.start_unanchored())
    }

    #[test]
    fn it_matches_where_the_library_does_in_both_directions() {
        let mut texts = vec![Vec::new()];
        for length in 0..5 {
            let longest: Vec<Vec<u8>> = texts
                .iter()
                .filter(|text| text.len() == length)
                .cloned()
                .collect();
            for text in longest {
                texts.extend(b"ab\n".map(|byte| [&text[..], &[byte]].concat()));
            }
        }
        for pattern in [
            "",
            "a",
            "ab|b",
            "^",
            "$",
            "^$",
            "$^",
            "^a",
            "a$",
            "^a$",
            "^a|b$",
            "(^a|b)a",
            "b(a$|b)",
            "a*",
            "a+b",
            ".b",
            "(?s).b.",
            "[^a]b",
            "(^|b)a",
            "a(b|$)",
            "(^)*a",
            "($)+",
            "a$b",
            "a^",
            "^(a|ab)(b|bab)$",
            "a{2,3}",
            "()",
            "[^\\x00-\\x{10FFFF}]",
        ] {
            let hir = re2::parse(pattern, Alphabet::Ascii).unwrap().hir;
            let library = regex_automata::meta::Builder::new()
                .build_from_hir(&hir)
                .unwrap();
            let dfa = forward(pattern).unwrap();
            let skipping = forward(pattern).unwrap().with_prefilter(prefilter(&hir));
            let whole = format!("^(?:{pattern})$");
            let whole_hir = re2::parse(&whole, Alphabet::Ascii).unwrap().hir;
            let whole_library = regex_automata::meta::Builder::new()
                .build_from_hir(&whole_hir)
                .unwrap();
            let nfa = nfa(&whole, Direction::Backward);
            let backward = Dfa::new(&nfa, Direction::Backward, nfa.start_anchored()).unwrap();
            for text in &texts {
                let shown = text.escape_ascii();
                let expected = library.is_match(text);
                assert_eq!(dfa.is_match(text), expected, "{pattern} and {shown}");
                assert_eq!(skipping.is_match(text), expected, "{pattern} and {shown}");
                assert_eq!(
                    backward.is_match(text),
                    whole_library.is_match(text),
                    "{whole} and {shown}"
                );
            }
        }
    }

    #[test]
    fn what_would_be_large_or_looks_around_is_left_to_the_library() {
        for pattern in ["a[ab]{20}c", "a{200}", "\\ba", "a\\B", "(?m)^a", "(?m)a$"] {
            assert!(forward(pattern).is_none(), "{pattern}");
        }
    }
}
