//! What of a series name is hashed.

use std::borrow::Cow;
use std::fmt;

/// What of a series name is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashKey {
    /// All of it, with the tags as they stand: what carbon and carbon-relay-ng hash.
    #[default]
    Series,
    /// What is before the first `;`, so that all series of one name stay together: what carbon-c-relay hashes.
    Name,
    /// All of it, with the tags as Graphite stores them, in whatever order they came: what carbon hashes with
    /// `TAG_RELAY_NORMALIZED`.
    Normalised,
}

impl HashKey {
    /// Every kind of key.
    pub const ALL: [Self; 3] = [Self::Series, Self::Name, Self::Normalised];

    /// The name in resources.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Series => "Series",
            Self::Name => "Name",
            Self::Normalised => "Normalised",
        }
    }

    /// The key of a series.
    pub fn of(self, series: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Series => Cow::Borrowed(series),
            Self::Name => {
                let semicolon = memchr::memchr(b';', series);
                Cow::Borrowed(&series[..semicolon.unwrap_or(series.len())])
            }
            Self::Normalised => normalised(series),
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The series as Graphite stores it (`TaggedSeries` in carbon's `util.py`): no `~` in front; tags sorted as text, of several
/// values the last, none called `name`; and `name{tag="value"}` written as `name;tag=value`. What is not a tagged series by
/// carbon's rules stays as it is.
pub(crate) fn normalised(series: &[u8]) -> Cow<'_, [u8]> {
    let parsed = if series.ends_with(b"\"}") && series.contains(&b'{') {
        Tagged::parse_openmetrics(series)
    } else if series.starts_with(b"~") || series.contains(&b';') {
        Tagged::parse_carbon(series)
    } else {
        None
    };
    match parsed {
        Some(tagged) => Cow::Owned(tagged.normalised()),
        None => Cow::Borrowed(series),
    }
}

struct Tagged<'a> {
    name: &'a [u8],
    tags: Vec<Tag<'a>>,
}

struct Tag<'a> {
    key: &'a [u8],
    value: Cow<'a, [u8]>,
}

impl<'a> Tagged<'a> {
    // name;tag=value;…
    fn parse_carbon(series: &'a [u8]) -> Option<Self> {
        let mut segments = series.split(|byte| *byte == b';');
        let name = segments.next()?;
        let tag = |segment: &'a [u8]| {
            let equals = memchr::memchr(b'=', segment)?;
            Tag::checked(&segment[..equals], Cow::Borrowed(&segment[equals + 1..]))
        };
        Some(Self {
            name: name_checked(name)?,
            tags: segments.map(tag).collect::<Option<_>>()?,
        })
    }

    // name{tag="value",…}, with `\"` and `\\` in values; `:,` also separates.
    fn parse_openmetrics(series: &'a [u8]) -> Option<Self> {
        let brace = memchr::memchr(b'{', series)?;
        let (name, rest) = (&series[..brace], &series[brace + 1..]);
        let mut rest = rest.strip_suffix(b"}")?;
        if rest.contains(&b'{') {
            return None;
        }
        let mut tags = Vec::new();
        while !rest.is_empty() {
            let equals = memchr::memchr(b'=', rest)?;
            let (value, after) = unquoted(&rest[equals + 1..])?;
            tags.push(Tag::checked(&rest[..equals], Cow::Owned(value))?);
            rest = match after {
                [] => after,
                [b',', next @ ..] | [b':', b',', next @ ..] => next,
                _ => return None,
            };
        }
        let name = name_checked(name)?;
        Some(Self { name, tags })
    }

    fn normalised(mut self) -> Vec<u8> {
        // The sort is stable: of equal keys, the last one is the one that counts.
        self.tags.sort_by_key(|tag| tag.key);
        let last_of_key = |index: usize| {
            let next = self.tags.get(index + 1);
            next.is_none_or(|next| next.key != self.tags[index].key)
        };
        let mut texts: Vec<Vec<u8>> = (0..self.tags.len())
            .filter(|index| last_of_key(*index) && self.tags[*index].key != b"name")
            .map(|index| [b";", self.tags[index].key, b"=", &self.tags[index].value].concat())
            .collect();
        // As text, which is not by key: "a-b=" comes before "a=".
        texts.sort_unstable();
        let mut normalised = self.name.to_vec();
        texts.iter().for_each(|text| normalised.extend(text));
        normalised
    }
}

impl<'a> Tag<'a> {
    fn checked(key: &'a [u8], value: Cow<'a, [u8]>) -> Option<Self> {
        let key_is_fine = !key.is_empty() && !key.iter().any(|byte| b";!^=".contains(byte));
        let value_is_fine = !value.is_empty() && !value.starts_with(b"~") && !value.contains(&b';');
        (key_is_fine && value_is_fine).then_some(Self { key, value })
    }
}

fn name_checked(name: &[u8]) -> Option<&[u8]> {
    let begin = name.iter().position(|byte| *byte != b'~')?;
    Some(&name[begin..])
}

// The text in the quotes that `quoted` begins with, and what follows them.
fn unquoted(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = quoted.strip_prefix(b"\"")?;
    let mut text = Vec::new();
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some((text, after)),
            [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                text.push(*escaped);
                after
            }
            [b'\\', ..] | [] => return None,
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
        };
    }
}
