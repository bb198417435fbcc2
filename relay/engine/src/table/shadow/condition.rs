//! Single conditions of a match, what they say of the bytes of a name, and which follow from which.

use std::cell::OnceCell;
use std::fmt;

use memchr::memmem;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind, Look};
use relay_proto::Match;

use crate::gate::{self, Gate};
use crate::glob;
use crate::re2::{self, Alphabet};

/// Comparisons of two literals or two texts that are made for one route.
const STEPS_MAX: usize = 5_000;

/// Literals that one regular expression may stand for; with more it follows from nothing but itself.
const LITERALS_MAX: usize = 64;

/// What may still be done for a route.
pub(super) struct Effort {
    steps_left: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            steps_left: STEPS_MAX,
        }
    }
}

impl Effort {
    // Whether so much was left.
    fn spend(&mut self, steps: usize) -> bool {
        let is_left = steps <= self.steps_left;
        self.steps_left = self.steps_left.saturating_sub(steps);
        is_left
    }
}

/// Which field of a match a condition stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Prefix,
    NotPrefix,
    Contains,
    NotContains,
    Regex,
    NotRegex,
    Suffix,
    Glob,
    Tags,
}

/// One condition of a match.
pub(super) struct Condition<'a> {
    kind: Kind,
    text: &'a str,
    meaning: Meaning,
}

/// What a condition says of a name. Names hold no newline: lines are cut there.
enum Meaning {
    /// It holds if the name has one of these, and only then.
    Has(Literals),
    /// It holds if the name has none of these, and only then.
    HasNone(Literals),
    /// It is a regular expression or glob, and holds only if the name has one of these, if anything is known. Looked for when
    /// it is asked for, as that takes longer than all else.
    Regex(OnceCell<Option<Literals>>),
    Unknown,
}

struct Literals {
    place: Place,
    any: Vec<Box<[u8]>>,
}

/// Where in a name a literal stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Anywhere,
    End,
    /// It is all of the name.
    Whole,
}

impl<'a> Condition<'a> {
    /// The conditions that are set, but for those that hold for every name.
    pub(super) fn all(conditions: &'a Match) -> Vec<Self> {
        let single = [
            (Kind::Prefix, &conditions.prefix),
            (Kind::NotPrefix, &conditions.not_prefix),
            (Kind::Contains, &conditions.contains),
            (Kind::NotContains, &conditions.not_contains),
            (Kind::Regex, &conditions.regex),
            (Kind::NotRegex, &conditions.not_regex),
            (Kind::Suffix, &conditions.suffix),
            (Kind::Glob, &conditions.glob),
        ];
        let tags = conditions.tags.iter().map(|text| (Kind::Tags, text));
        single
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .chain(tags)
            .map(|(kind, text)| Self {
                kind,
                text,
                meaning: Meaning::of(kind, text),
            })
            .filter(|condition| !condition.always_holds())
            .collect()
    }

    fn always_holds(&self) -> bool {
        match &self.meaning {
            Meaning::Has(Literals { place, any }) => {
                *place != Place::Whole && any.iter().any(|literal| literal.is_empty())
            }
            Meaning::HasNone(_) | Meaning::Regex(_) | Meaning::Unknown => false,
        }
    }

    /// What makes it the same condition as another.
    pub(super) fn key(&self) -> (Kind, &'a str) {
        (self.kind, self.text)
    }

    /// Whether it follows from nothing but itself.
    pub(super) fn is_rigid(&self) -> bool {
        match self.meaning {
            Meaning::Has(_) | Meaning::HasNone(_) => false,
            Meaning::Regex(_) | Meaning::Unknown => true,
        }
    }

    /// What a name begins with one of if the condition holds.
    pub(super) fn known_prefixes(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let known = self.known()?;
        let begins = matches!(known.place, Place::Start | Place::Whole);
        begins.then(|| known.each().map(|literal| literal.bytes))
    }

    /// Whether it holds for every name for which all of `known` hold. False also if that is not found out.
    pub(super) fn follows_from<'k>(
        &self,
        mut known: impl Iterator<Item = &'k Condition<'k>> + Clone,
        effort: &mut Effort,
    ) -> bool {
        if !effort.spend(known.clone().count()) {
            return false;
        }
        let facts = known.clone();
        if known.any(|fact| fact.key() == self.key()) {
            return true;
        }
        match &self.meaning {
            Meaning::Has(wanted) => facts
                .filter_map(|fact| fact.known())
                .any(|fact| fact.imply(wanted, effort)),
            Meaning::HasNone(unwanted) => unwanted
                .each()
                .all(|literal| facts.clone().any(|fact| fact.excludes(literal, effort))),
            Meaning::Regex(_) | Meaning::Unknown => false,
        }
    }

    // What a name has one of if the condition holds.
    fn known(&self) -> Option<&Literals> {
        match &self.meaning {
            Meaning::Has(literals) => Some(literals),
            Meaning::Regex(needed) => needed.get_or_init(|| self.needed()).as_ref(),
            Meaning::HasNone(_) | Meaning::Unknown => None,
        }
    }

    fn needed(&self) -> Option<Literals> {
        let regex = match self.kind == Kind::Glob {
            true => glob::to_regex(self.text).ok()?,
            false => self.text.to_owned(),
        };
        let hir = re2::parse(&regex, Alphabet::Unicode).ok()?.hir;
        let (place, any) = match Gate::of_regex(&hir) {
            Gate::Prefix(literals) => (Place::Start, literals),
            Gate::Inner(literals) => (Place::Anywhere, literals),
            Gate::Open => return None,
        };
        Some(Literals { place, any })
    }

    // Whether no name for which it holds has `literal`.
    fn excludes(&self, literal: Literal<'_>, effort: &mut Effort) -> bool {
        if let Meaning::HasNone(absent) = &self.meaning {
            return effort.spend(absent.any.len())
                && absent.each().any(|absent| literal.implies(absent));
        }
        self.known().is_some_and(|known| {
            effort.spend(known.any.len()) && known.each().all(|known| known.excludes(literal))
        })
    }
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self.kind {
            Kind::Prefix => "prefix",
            Kind::NotPrefix => "notPrefix",
            Kind::Contains => "contains",
            Kind::NotContains => "notContains",
            Kind::Regex => "regex",
            Kind::NotRegex => "notRegex",
            Kind::Suffix => "suffix",
            Kind::Glob => "glob",
            Kind::Tags => "tags",
        };
        write!(f, "{field} '{}'", self.text)
    }
}

impl Meaning {
    fn of(kind: Kind, text: &str) -> Self {
        let one = |place| Literals {
            place,
            any: vec![text.as_bytes().into()],
        };
        let of_regex = |regex: &str| {
            Literals::of_regex(regex).map_or_else(|| Self::Regex(OnceCell::new()), Self::Has)
        };
        match kind {
            Kind::Prefix => Self::Has(one(Place::Start)),
            Kind::NotPrefix => Self::HasNone(one(Place::Start)),
            Kind::Contains => Self::Has(one(Place::Anywhere)),
            Kind::NotContains => Self::HasNone(one(Place::Anywhere)),
            Kind::Suffix => Self::Has(one(Place::End)),
            Kind::Regex => of_regex(text),
            Kind::NotRegex => Literals::of_regex(text).map_or(Self::Unknown, Self::HasNone),
            Kind::Glob => glob::to_regex(text).map_or(Self::Unknown, |regex| of_regex(&regex)),
            Kind::Tags => Self::Unknown,
        }
    }
}

impl Literals {
    // What a regular expression stands for, if it is no more than literals: `^servers\.`, `\.(cpu|mem)$`, `.*foo.*`.
    fn of_regex(pattern: &str) -> Option<Self> {
        let hir = re2::parse(pattern, Alphabet::Unicode).ok()?.hir;
        let mut parts = Vec::new();
        flatten(&hir, &mut parts);
        let mut parts = parts.as_slice();
        let (mut is_start, mut is_end) = (false, false);
        if let [first, rest @ ..] = parts
            && is_look(first, Look::Start)
        {
            (is_start, parts) = (true, rest);
        }
        if let [rest @ .., last] = parts
            && is_look(last, Look::End)
        {
            (is_end, parts) = (true, rest);
        }
        // An end that may be anything is as good as none, and there whatever may be empty adds nothing.
        while let [first, rest @ ..] = parts
            && (is_anything(first) || !is_start && may_be_empty(first))
        {
            (is_start, parts) = (false, rest);
        }
        while let [rest @ .., last] = parts
            && (is_anything(last) || !is_end && may_be_empty(last))
        {
            (is_end, parts) = (false, rest);
        }
        let is_finite = |part: &&Hir| {
            let properties = part.properties();
            properties.maximum_len().is_some() && properties.look_set().is_empty()
        };
        if !parts.iter().all(is_finite) {
            return None;
        }
        let literals = Hir::concat(parts.iter().map(|part| (*part).clone()).collect());
        let sequence = Extractor::new()
            .limit_total(LITERALS_MAX)
            .extract(&literals);
        let any = sequence.literals().filter(|_| sequence.is_exact())?;
        if !any.iter().all(gate::is_found) {
            return None;
        }
        Some(Self {
            place: match (is_start, is_end) {
                (true, true) => Place::Whole,
                (true, false) => Place::Start,
                (false, true) => Place::End,
                (false, false) => Place::Anywhere,
            },
            any: any
                .iter()
                .map(|literal| literal.as_bytes().into())
                .collect(),
        })
    }

    fn each(&self) -> impl Iterator<Item = Literal<'_>> {
        let place = self.place;
        self.any.iter().map(move |bytes| Literal { place, bytes })
    }

    // Whether a name that has one of these has one of `others`.
    fn imply(&self, others: &Self, effort: &mut Effort) -> bool {
        effort.spend(self.any.len() * others.any.len())
            && self
                .each()
                .all(|literal| others.each().any(|other| literal.implies(other)))
    }
}

fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Concat(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        HirKind::Empty
        | HirKind::Literal(_)
        | HirKind::Class(_)
        | HirKind::Look(_)
        | HirKind::Repetition(_)
        | HirKind::Alternation(_) => parts.push(hir),
    }
}

fn is_look(hir: &Hir, look: Look) -> bool {
    matches!(hir.kind(), HirKind::Look(found) if *found == look)
}

fn may_be_empty(hir: &Hir) -> bool {
    let properties = hir.properties();
    properties.minimum_len() == Some(0) && properties.look_set().is_empty()
}

// `.*`
fn is_anything(hir: &Hir) -> bool {
    let HirKind::Repetition(repetition) = hir.kind() else {
        return false;
    };
    let HirKind::Class(Class::Unicode(class)) = repetition.sub.kind() else {
        return false;
    };
    let mut others = class.clone();
    others.negate();
    let has_all_but_newline = match others.ranges() {
        [] => true,
        [range] => (range.start(), range.end()) == ('\n', '\n'),
        _ => false,
    };
    repetition.min == 0 && repetition.max.is_none() && has_all_but_newline
}

/// Bytes at a place of a name.
#[derive(Clone, Copy)]
struct Literal<'a> {
    place: Place,
    bytes: &'a [u8],
}

impl Literal<'_> {
    // Whether every name that has this one has `other`. If this one is the whole name, no name with it has it otherwise.
    fn implies(self, other: Literal<'_>) -> bool {
        match (self.place, other.place) {
            (Place::Start | Place::Whole, Place::Start) => self.bytes.starts_with(other.bytes),
            (Place::End | Place::Whole, Place::End) => self.bytes.ends_with(other.bytes),
            (_, Place::Anywhere) => memmem::find(self.bytes, other.bytes).is_some(),
            (Place::Whole, Place::Whole) => self.bytes == other.bytes,
            (Place::Anywhere | Place::End, Place::Start)
            | (Place::Start | Place::Anywhere, Place::End)
            | (Place::Start | Place::Anywhere | Place::End, Place::Whole) => false,
        }
    }

    // Whether no name has both.
    fn excludes(self, other: Literal<'_>) -> bool {
        let (one, two) = (self.bytes, other.bytes);
        match (self.place, other.place) {
            (Place::Whole, _) => !self.implies(other),
            (_, Place::Whole) => !other.implies(self),
            (Place::Start, Place::Start) => !one.starts_with(two) && !two.starts_with(one),
            (Place::End, Place::End) => !one.ends_with(two) && !two.ends_with(one),
            (Place::Start, Place::Anywhere | Place::End)
            | (Place::Anywhere, Place::Start | Place::Anywhere | Place::End)
            | (Place::End, Place::Start | Place::Anywhere) => false,
        }
    }
}
