//! Regular expressions: read when a table is loaded, compiled when they are first asked.
//!
//! Of ten thousand patterns few are ever asked, since most gates stay closed, so a table holds little more than their texts.
//! Nothing can go wrong later: what is large is compiled when it is read, where it can be refused; what is small always
//! compiles, and in a bounded time.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::prefilter::Prefilter;
use regex_automata::{Input, MatchKind, meta};
use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind, Look};
use regex_syntax::utf8::Utf8Sequences;

use crate::dfa::{Dfa, Direction};
use crate::re2::{self, Alphabet, Parsed};

/// The memory that one compiled expression may take, in bytes; a snapshot cannot make a relay run out of memory.
const BYTES_MAX: usize = 1 << 20;

/// What may be compiled late, in states. About a millisecond, and a quarter of `BYTES_MAX`.
const LATE_STATES_MAX: usize = 10_000;

/// A regular expression that texts are asked to match. See [`re2`] for what it means.
#[derive(Debug)]
pub(crate) struct Expression(Late<Matcher>);

/// A regular expression that is looked for in texts, with its groups.
#[derive(Debug)]
pub(crate) struct Finder {
    regex: Late<meta::Regex>,
    // Of the groups from 1.
    names: Vec<Option<Box<str>>>,
}

/// A match in a text, with its groups.
#[derive(Debug)]
pub(crate) struct Found<'t> {
    text: &'t [u8],
    // By group; the first is the whole match.
    spans: Vec<Option<Range<usize>>>,
}

// What is made of a pattern, once it is needed.
#[derive(Debug)]
struct Late<T> {
    pattern: Box<str>,
    place: Place,
    // Boxed: most are never made.
    ascii: OnceLock<Box<T>>,
    // For texts that are not ASCII.
    unicode: OnceLock<Box<T>>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Anywhere,
    Start,
}

trait Compile: Sized {
    /// `None` only if more than `bytes_max` are needed.
    fn compile(hir: &Hir, bytes_max: Option<usize>) -> Option<Self>;
}

// What answers whether a text matches.
#[derive(Debug)]
enum Matcher {
    Dfa(Dfa),
    // For what makes no small one.
    Other(meta::Regex),
}

impl Expression {
    /// Reads a pattern that matches anywhere in a text. Returns its syntax too.
    ///
    /// # Errors
    /// What is wrong with it and what to do about it, for people.
    pub(crate) fn anywhere(pattern: &str) -> Result<(Self, Hir), String> {
        let (late, parsed) = Late::new(pattern, Place::Anywhere)?;
        Ok((Self(late), parsed.hir))
    }

    /// Reads a pattern that matches at the start of a text.
    ///
    /// # Errors
    /// What is wrong with it and what to do about it, for people.
    pub(crate) fn at_start(pattern: &str) -> Result<Self, String> {
        Late::new(pattern, Place::Start).map(|(late, _)| Self(late))
    }

    /// Whether it matches.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        match text.is_ascii() {
            true => self.0.get(Alphabet::Ascii).is_match(text),
            false => self.0.get(Alphabet::Unicode).is_match(&Utf8::of(text).text),
        }
    }

    /// What it is for texts of ASCII.
    pub(crate) fn ascii_syntax(&self) -> Hir {
        self.0.syntax(Alphabet::Ascii)
    }

    /// Whether it was compiled.
    #[cfg(test)]
    pub(crate) fn is_compiled(&self) -> bool {
        self.0.ascii.get().is_some() || self.0.unicode.get().is_some()
    }
}

impl Finder {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it and what to do about it, for people.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let (regex, parsed) = Late::new(pattern, Place::Anywhere)?;
        let names = parsed.names;
        Ok(Self { regex, names })
    }

    /// The names of the groups, from group 1.
    pub(crate) fn names(&self) -> &[Option<Box<str>>] {
        &self.names
    }

    /// The leftmost match.
    pub(crate) fn find<'t>(&self, text: &'t [u8]) -> Option<Found<'t>> {
        self.find_all(text).next()
    }

    /// All matches that do not overlap, from the left. An empty one does not follow another at once.
    pub(crate) fn find_all<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = Found<'t>> {
        let (alphabet, utf8) = match text.is_ascii() {
            true => (Alphabet::Ascii, Utf8::clean(text)),
            false => (Alphabet::Unicode, Utf8::of(text)),
        };
        let regex = self.regex.get(alphabet);
        let mut groups = regex.create_captures();
        let (mut from, mut last_end) = (0, None);
        std::iter::from_fn(move || {
            loop {
                let rest = utf8.text.get(from..).map(|_| from..)?;
                regex.search_captures(&Input::new(&utf8.text).range(rest), &mut groups);
                let whole = groups.get_match()?;
                if whole.is_empty() && last_end == Some(whole.end()) {
                    from += 1;
                    continue;
                }
                (from, last_end) = (whole.end(), Some(whole.end()));
                // A group that is repeated no times leaves no trace in the tree, so there may be fewer.
                let span = |group| {
                    groups
                        .get_group(group)
                        .map(|span| utf8.original(span.range()))
                };
                let spans = (0..=self.names.len()).map(span).collect();
                return Some(Found { text, spans });
            }
        })
    }
}

impl<'t> Found<'t> {
    /// Where the match is, in bytes.
    pub(crate) fn range(&self) -> Range<usize> {
        self.spans[0].clone().expect("a match is somewhere")
    }

    /// What a group matched, if it took part; group 0 is the whole match.
    pub(crate) fn group(&self, group: usize) -> Option<&'t [u8]> {
        let span = self.spans.get(group)?.clone()?;
        Some(&self.text[span])
    }
}

#[cfg(test)]
impl Found<'_> {
    pub(crate) fn spans(&self) -> &[Option<Range<usize>>] {
        &self.spans
    }
}

impl<T: Compile> Late<T> {
    fn new(pattern: &str, place: Place) -> Result<(Self, Parsed), String> {
        let late = Self {
            pattern: pattern.into(),
            place,
            ascii: OnceLock::new(),
            unicode: OnceLock::new(),
        };
        let parsed = late
            .read(Alphabet::Unicode)
            .map_err(|error| format!("'{pattern}' is not a regular expression: {error}"))?;
        if states(&parsed.hir) > LATE_STATES_MAX {
            for alphabet in [Alphabet::Ascii, Alphabet::Unicode] {
                let large = T::compile(&late.syntax(alphabet), Some(BYTES_MAX)).ok_or_else(|| {
                    format!("'{pattern}' takes more than {BYTES_MAX} bytes compiled: use smaller repetitions")
                })?;
                late.cell(alphabet).get_or_init(|| Box::new(large));
            }
        }
        Ok((late, parsed))
    }

    fn get(&self, alphabet: Alphabet) -> &T {
        self.cell(alphabet).get_or_init(|| {
            let small = T::compile(&self.syntax(alphabet), None);
            Box::new(small.expect("nothing but its size can be wrong, and that has no limit here"))
        })
    }

    fn cell(&self, alphabet: Alphabet) -> &OnceLock<Box<T>> {
        match alphabet {
            Alphabet::Ascii => &self.ascii,
            Alphabet::Unicode => &self.unicode,
        }
    }

    fn syntax(&self, alphabet: Alphabet) -> Hir {
        self.read(alphabet).expect("it was read before").hir
    }

    fn read(&self, alphabet: Alphabet) -> Result<Parsed, re2::Invalid> {
        let mut parsed = re2::parse(&self.pattern, alphabet)?;
        match self.place {
            Place::Anywhere => {}
            Place::Start => parsed.hir = Hir::concat(vec![Hir::look(Look::Start), parsed.hir]),
        }
        Ok(parsed)
    }
}

impl Compile for Matcher {
    fn compile(hir: &Hir, bytes_max: Option<usize>) -> Option<Self> {
        if bytes_max.is_none()
            && let Some(dfa) = Self::dfa(hir)
        {
            return Some(dfa);
        }
        regex(hir, WhichCaptures::None, bytes_max).map(Self::Other)
    }
}

impl Compile for meta::Regex {
    fn compile(hir: &Hir, bytes_max: Option<usize>) -> Option<Self> {
        regex(hir, WhichCaptures::All, bytes_max)
    }
}

fn regex(hir: &Hir, captures: WhichCaptures, bytes_max: Option<usize>) -> Option<meta::Regex> {
    let config = meta::Config::new()
        .which_captures(captures)
        .nfa_size_limit(bytes_max)
        .hybrid_cache_capacity(BYTES_MAX);
    meta::Builder::new()
        .configure(config)
        .build_from_hir(hir)
        .ok()
}

impl Matcher {
    fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Dfa(dfa) => dfa.is_match(text),
            Self::Other(regex) => regex.is_match(text),
        }
    }

    // A pattern that ends in `$` and does not begin with `^` is soonest refused from the end.
    fn dfa(hir: &Hir) -> Option<Self> {
        let properties = hir.properties();
        let begins = properties.look_set_prefix().contains(Look::Start);
        let ends = properties.look_set_suffix().contains(Look::End);
        let direction = match !begins && ends {
            true => Direction::Backward,
            false => Direction::Forward,
        };
        let config = thompson::Config::new()
            .reverse(direction == Direction::Backward)
            .which_captures(WhichCaptures::None);
        let mut compiler = thompson::Compiler::new();
        let nfa = compiler.configure(config).build_from_hir(hir).ok()?;
        let begin = match begins || ends {
            true => nfa.start_anchored(),
            false => nfa.start_unanchored(),
        };
        let dfa = Dfa::new(&nfa, direction, begin)?;
        let is_free = !ends && !properties.look_set().contains(Look::Start);
        let prefilter = is_free.then(|| Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, hir));
        Some(Self::Dfa(dfa.with_prefilter(prefilter.flatten())))
    }
}

// A bound of the states that a tree compiles to, in one direction.
fn states(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Bytes(_)) => 1,
        HirKind::Class(Class::Unicode(class)) => {
            let of_range = |range: &ClassUnicodeRange| {
                let sequences = Utf8Sequences::new(range.start(), range.end());
                sequences.map(|sequence| sequence.len()).sum::<usize>()
            };
            class.ranges().iter().map(of_range).sum::<usize>() + 2
        }
        HirKind::Capture(capture) => states(&capture.sub) + 2,
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min.saturating_add(1));
            (states(&repetition.sub) + 2).saturating_mul(copies as usize) + 1
        }
        HirKind::Concat(subs) => sum(subs),
        HirKind::Alternation(subs) => sum(subs) + 2,
    }
}

fn sum(subs: &[Hir]) -> usize {
    subs.iter().map(states).fold(0, usize::saturating_add)
}

// A text in which every byte that is not UTF-8 was replaced by U+FFFD, as Go reads it.
struct Utf8<'t> {
    text: Cow<'t, [u8]>,
    // Where the replaced ones are in `text`.
    replaced: Vec<usize>,
}

// How much longer the replacement is than a byte.
const GROWTH: usize = "\u{FFFD}".len() - 1;

impl<'t> Utf8<'t> {
    fn of(text: &'t [u8]) -> Self {
        if std::str::from_utf8(text).is_ok() {
            return Self::clean(text);
        }
        let mut replaced = Vec::new();
        let mut all = Vec::with_capacity(text.len() + 16);
        for chunk in text.utf8_chunks() {
            all.extend_from_slice(chunk.valid().as_bytes());
            for _ in chunk.invalid() {
                replaced.push(all.len());
                all.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
        let text = Cow::Owned(all);
        Self { text, replaced }
    }

    // Of what is UTF-8 already.
    fn clean(text: &'t [u8]) -> Self {
        Self {
            text: Cow::Borrowed(text),
            replaced: Vec::new(),
        }
    }

    // Where in the original what is at `span` came from.
    fn original(&self, span: Range<usize>) -> Range<usize> {
        let original = |at| at - self.replaced.partition_point(|before| *before < at) * GROWTH;
        original(span.start)..original(span.end)
    }
}

#[cfg(test)]
mod tests;
