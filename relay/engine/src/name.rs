//! What a series name must be: carbon-relay-ng's rules, except that `;` ends the part in which metrics2.0 is looked for, so
//! that `cpu;host=a` is an ordinary tagged name, and that no name is empty.

use memchr::memmem;

use crate::Reason;
use crate::line::is_whitespace;

/// What a name turned out to be, if nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Fit to be forwarded as it is.
    Clean,
    /// The line has whitespace or a leading dot to be taken out before its name can be judged.
    Untidy,
}

/// How strictly names are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameRules {
    pub(crate) level: Level,
    /// Whether a metrics2.0 name must have unit, mtype and another tag.
    pub(crate) any_metrics20: bool,
}

/// How strictly names are judged, but for what metrics2.0 asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    /// Any name.
    None,
    /// ASCII without NUL, and well-formed tags.
    #[default]
    Medium,
    /// Medium; and before the tags nothing but letters, digits, `_`, `-` and single dots, unless it is a metrics2.0 name.
    Strict,
}

impl NameRules {
    /// Judges the name of a line in the canonical form.
    pub(crate) fn check(self, name: &[u8]) -> Result<Name, Reason> {
        let seen = classes(name);
        if seen & WHITESPACE != 0 || name.first() == Some(&b'.') || name.is_empty() {
            return Ok(Name::Untidy);
        }
        self.check_classed(name, seen).map(|()| Name::Clean)
    }

    /// Judges the name of a line that was taken apart: it has no whitespace, and one leading dot was stripped.
    pub(crate) fn check_tidied(self, name: &[u8]) -> Result<(), Reason> {
        if name.is_empty() {
            return Err(Reason::NameEmpty);
        }
        self.check_classed(name, classes(name))
    }

    /// Judges a name that a rule made: besides, it must be one that a receiver takes as it is.
    pub(crate) fn check_made(self, name: &[u8]) -> Result<(), Reason> {
        if classes(name) & WHITESPACE != 0 {
            return Err(Reason::FieldCount);
        }
        match name {
            [] | [b'.', ..] => Err(Reason::NameEmpty),
            _ => self.check_tidied(name),
        }
    }

    fn check_classed(self, name: &[u8], seen: u8) -> Result<(), Reason> {
        if self.level != Level::None {
            if seen & NON_ASCII != 0 {
                return Err(Reason::NameNonAscii);
            }
            if seen & NUL != 0 {
                return Err(Reason::NameNul);
            }
        }
        let semicolon = if seen & SEMICOLON == 0 {
            None
        } else {
            memchr::memchr(b';', name)
        };
        let (path, tags) = match semicolon {
            Some(semicolon) => (&name[..semicolon], Some(&name[semicolon + 1..])),
            None => (name, None),
        };
        if path.is_empty() && self.level != Level::None {
            return Err(Reason::TagsInvalid);
        }
        match metrics20_form(path) {
            Some(form) if !self.any_metrics20 => check_metrics20(path, &form)?,
            None if self.level == Level::Strict => check_strict(path)?,
            _ => {}
        }
        match tags {
            Some(tags)
                if self.level != Level::None && !tags.split(|byte| *byte == b';').all(is_tag) =>
            {
                Err(Reason::TagsInvalid)
            }
            _ => Ok(()),
        }
    }
}

fn check_strict(path: &[u8]) -> Result<(), Reason> {
    let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !path.iter().all(is_legal) {
        return Err(Reason::NameIllegalCharacter);
    }
    match memmem::find(path, b"..") {
        Some(_) => Err(Reason::NameEmptyNode),
        None => Ok(()),
    }
}

// The classes of all bytes, OR-ed together without a branch.
fn classes(name: &[u8]) -> u8 {
    name.iter()
        .fold(0, |seen, byte| seen | CLASS[usize::from(*byte)])
}

const WHITESPACE: u8 = 1;
const NUL: u8 = 2;
const NON_ASCII: u8 = 4;
const SEMICOLON: u8 = 8;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            0 => NUL,
            b';' => SEMICOLON,
            0x80.. => NON_ASCII,
            ascii if is_whitespace(ascii) => WHITESPACE,
            _ => 0,
        };
        byte += 1;
    }
    class
};

// `k=v`: k not empty and without `!`, v not empty and without `=`.
fn is_tag(tag: &[u8]) -> bool {
    match memchr::memchr(b'=', tag) {
        Some(equals) => {
            let (key, value) = (&tag[..equals], &tag[equals + 1..]);
            let key_is_fine = !key.is_empty() && !key.contains(&b'!');
            key_is_fine && !value.is_empty() && !value.contains(&b'=')
        }
        None => false,
    }
}

// How a metrics2.0 name spells `key=value`.
struct Metrics20 {
    other: &'static [u8],
    unit: &'static [u8],
    mtype: &'static [u8],
}

const EQUALS: Metrics20 = Metrics20 {
    other: b"_is_",
    unit: b"unit=",
    mtype: b"mtype=",
};
const NO_EQUALS: Metrics20 = Metrics20 {
    other: b"=",
    unit: b"unit_is_",
    mtype: b"mtype_is_",
};

// The first node decides: whichever of `=` and `_is_` comes first in it.
fn metrics20_form(path: &[u8]) -> Option<Metrics20> {
    let node = &path[..memchr::memchr(b'.', path).unwrap_or(path.len())];
    let equals = memchr::memchr(b'=', node);
    let is = memmem::find(node, b"_is_");
    match (equals, is) {
        (None, None) => None,
        (Some(equals), Some(is)) if is < equals => Some(NO_EQUALS),
        (Some(_), _) => Some(EQUALS),
        (None, Some(_)) => Some(NO_EQUALS),
    }
}

fn check_metrics20(path: &[u8], form: &Metrics20) -> Result<(), Reason> {
    let has_tag = |tag: &[u8]| {
        path.split(|byte| *byte == b'.')
            .any(|node| node.starts_with(tag))
    };
    if memmem::find(path, form.other).is_some() {
        return Err(Reason::Metrics20Mixed);
    }
    if !has_tag(form.unit) {
        return Err(Reason::Metrics20NoUnit);
    }
    if !has_tag(form.mtype) {
        return Err(Reason::Metrics20NoMtype);
    }
    if memchr::memchr_iter(b'.', path).count() < 2 {
        return Err(Reason::Metrics20TooFewTags);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIUM: NameRules = NameRules {
        level: Level::Medium,
        any_metrics20: false,
    };

    // carbon-relay-ng's own vectors at level medium.
    #[test]
    fn plain_and_tagged_names() {
        for name in [
            "foo.bar",
            "foo..bar",
            "foo..bar.ba::z",
            "foo.bar;k=v",
            "foo.bar=baz",
            "foo-bar",
        ] {
            assert_eq!(MEDIUM.check(name.as_bytes()), Ok(Name::Clean), "{name}");
        }
        for tags in ["k=v", "123456=89710", "k=v;k2=v2"] {
            assert_eq!(
                MEDIUM.check(format!("foo.bar;{tags}").as_bytes()),
                Ok(Name::Clean),
                "{tags}"
            );
        }
        for tags in [
            "",
            "k",
            "k=",
            "k!=v",
            "k=v;;k2=v2",
            "!=v",
            "!k=v",
            "k=v;",
            "k=v;=",
            "k=v;k2=",
            ";k=v",
            "k=v=",
            "k=v;k2==v2",
        ] {
            let name = format!("foo.bar;{tags}");
            assert_eq!(
                MEDIUM.check(name.as_bytes()),
                Err(Reason::TagsInvalid),
                "{name}"
            );
        }
        assert_eq!(MEDIUM.check(b";k=v"), Err(Reason::TagsInvalid));
        for name in [&b"foo..bar.b\xbdz"[..], b"foo.bar;k=\xbdz"] {
            assert_eq!(MEDIUM.check(name), Err(Reason::NameNonAscii));
        }
        for name in [&b"foo..bar.b\0z"[..], b"foo.bar;k=\0z"] {
            assert_eq!(MEDIUM.check(name), Err(Reason::NameNul));
        }
    }

    #[test]
    fn metrics20_names() {
        for name in [
            "unit=B.mtype=gauge.x=y",
            "x=y.mtype=gauge.unit=B",
            "unit_is_B.mtype_is_gauge.x_is_y",
            // `;` ends the part in which metrics2.0 is looked for
            "cpu;host=a",
            "sys.cpu;host=a",
            // only the first node decides
            "foo.bar=baz",
            "cpu.this_is_x",
            "foo.bar.mtype_is_count.baz",
        ] {
            assert_eq!(MEDIUM.check(name.as_bytes()), Ok(Name::Clean), "{name}");
        }
        for (name, reason) in [
            ("this_is_x.cpu", Reason::Metrics20NoUnit),
            ("foo=bar.x", Reason::Metrics20NoUnit),
            ("unit=B.mtype=gauge", Reason::Metrics20TooFewTags),
            ("foo=bar_is_b.unit=B.mtype=c", Reason::Metrics20Mixed),
            ("a_is_b.unit=B.mtype=c", Reason::Metrics20Mixed),
            ("unit=B.x=y.z=w", Reason::Metrics20NoMtype),
            ("x=y.aunit=no.mtype=c", Reason::Metrics20NoUnit),
        ] {
            assert_eq!(MEDIUM.check(name.as_bytes()), Err(reason), "{name}");
        }
    }

    #[test]
    fn untidy_names_are_left_to_the_slow_way() {
        for name in ["", ".foo", "a b", "a\tb"] {
            assert_eq!(MEDIUM.check(name.as_bytes()), Ok(Name::Untidy), "{name}");
        }
        assert_eq!(MEDIUM.check_tidied(b""), Err(Reason::NameEmpty));
        assert_eq!(MEDIUM.check_tidied(b".foo"), Ok(()));
        assert_eq!(MEDIUM.check_tidied(b"..\xbd"), Err(Reason::NameNonAscii));
        assert_eq!(MEDIUM.check_tidied(b".foo;k"), Err(Reason::TagsInvalid));
    }

    // carbon-relay-ng's own vectors, for strict, medium and none.
    #[test]
    fn levels() {
        let levels = [Level::Strict, Level::Medium, Level::None];
        for (name, expected) in [
            (&b"foo.bar"[..], [true, true, true]),
            (b"foo..bar", [false, true, true]),
            (b"foo..bar.ba::z", [false, true, true]),
            (b"foo..bar.b\xbdz", [false, false, true]),
            (b"foo..bar.b\0z", [false, false, true]),
            (b"foo.bar;", [false, false, true]),
            (b"foo.bar;k", [false, false, true]),
            (b"foo.bar;k=", [false, false, true]),
            (b"foo.bar;k=v", [true, true, true]),
            (b"foo.bar;k=v:w", [true, true, true]),
            (b"foo.bar;k!=v", [false, false, true]),
            (b"foo.bar;k=\xbdz", [false, false, true]),
            (b"foo.bar;k=\0z", [false, false, true]),
            (b";k=v", [false, false, true]),
            (b"unit=B.mtype=gauge.x=y", [true, true, true]),
            (b"foo=bar.x", [false, false, false]),
        ] {
            let passed = levels.map(|level| {
                let rules = NameRules {
                    level,
                    any_metrics20: false,
                };
                rules.check(name) == Ok(Name::Clean)
            });
            assert_eq!(passed, expected, "{}", name.escape_ascii());
        }
        let any_metrics20 = NameRules {
            level: Level::Strict,
            any_metrics20: true,
        };
        assert_eq!(any_metrics20.check(b"foo=bar.x"), Ok(Name::Clean));
        assert_eq!(
            any_metrics20.check(b"a:b"),
            Err(Reason::NameIllegalCharacter)
        );
        assert_eq!(any_metrics20.check(b"a..b"), Err(Reason::NameEmptyNode));
    }

    #[test]
    fn made_names_are_judged_as_they_would_be_sent() {
        for name in ["a.b", "a;b=c"] {
            assert_eq!(MEDIUM.check_made(name.as_bytes()), Ok(()), "{name}");
        }
        for (name, reason) in [
            ("", Reason::NameEmpty),
            (".a", Reason::NameEmpty),
            ("a b", Reason::FieldCount),
            ("a\n1", Reason::FieldCount),
            ("a;b", Reason::TagsInvalid),
        ] {
            assert_eq!(MEDIUM.check_made(name.as_bytes()), Err(reason), "{name:?}");
        }
    }
}
