//! Replacement texts: what stands where a regular expression matched.
//!
//! `$1` and `${1}` stand for a group by number, `$dc` and `${dc}` for one by name, `$0` for the whole match and `$$` for a
//! dollar sign. Without braces a name is the longest run of letters, digits and `_`, so `$1x` asks for a group called `1x`;
//! what is meant is `${1}x`. A group that the expression does not have is refused, for it would silently be nothing.

use crate::expression::{Finder, Found};

/// A replacement text, taken apart.
#[derive(Debug)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Group(usize),
    /// The one name that the template's user gives a meaning to.
    Special,
}

impl Template {
    /// Takes `text` apart, for matches of `regex`. `${special}` is written as the byte that [`Template::expand`] is given.
    pub(crate) fn parse(text: &str, regex: &Finder, special: Option<&str>) -> Result<Self, String> {
        let mut template = Self { pieces: Vec::new() };
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('$') {
            template.push_literal(literal);
            if let Some(after) = after.strip_prefix('$') {
                template.push_literal("$");
                rest = after;
                continue;
            }
            let (name, after) = match after.strip_prefix('{') {
                Some(braced) => braced
                    .split_once('}')
                    .ok_or("a '${' is not closed: add a '}'")?,
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            if name.is_empty() {
                return Err("a '$' names no group: write '$$' for the sign itself".to_owned());
            }
            template.pieces.push(match special {
                Some(special) if special == name => Piece::Special,
                _ => Piece::Group(group(name, regex)?),
            });
            rest = after;
        }
        template.push_literal(rest);
        Ok(template)
    }

    /// Appends the text for a match; `special` where the special name stands.
    pub(crate) fn expand(&self, found: &Found<'_>, special: u8, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => out.extend_from_slice(literal),
                Piece::Group(group) => {
                    out.extend_from_slice(found.group(*group).unwrap_or_default());
                }
                Piece::Special => out.push(special),
            }
        }
    }

    /// How often the special name stands in it.
    pub(crate) fn specials(&self) -> usize {
        let is_special = |piece: &&Piece| **piece == Piece::Special;
        self.pieces.iter().filter(is_special).count()
    }

    fn push_literal(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Literal(literal)) => literal.extend_from_slice(text.as_bytes()),
            _ => self.pieces.push(Piece::Literal(text.into())),
        }
    }
}

fn group(name: &str, regex: &Finder) -> Result<usize, String> {
    let groups = regex.names().len();
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return match name.parse() {
            Ok(number) if number <= groups => Ok(number),
            _ => Err(format!("there is no group {name}: the regex has {groups}")),
        };
    }
    let is_it = |known: &Option<Box<str>>| known.as_deref() == Some(name);
    let names = regex.names();
    let found = names.iter().position(is_it);
    if found != names.iter().rposition(is_it) {
        return Err(format!(
            "the regex has several groups called '{name}': call them by numbers"
        ));
    }
    found.map(|place| place + 1).ok_or_else(|| {
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        match name.split_at(digits) {
            ("", _) => format!("the regex has no group called '{name}'"),
            (number, text) => {
                format!("the regex has no group called '{name}': write '${{{number}}}{text}' for group {number} and then '{text}'")
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(regex: &str, template: &str, text: &str) -> String {
        let regex = Finder::new(regex).unwrap();
        let template = Template::parse(template, &regex, Some("function")).unwrap();
        let mut out = Vec::new();
        template.expand(&regex.find(text.as_bytes()).unwrap(), b'@', &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn groups_stand_for_what_they_matched() {
        let regex = r"^(?P<dc>[a-z]+)([0-9]+)?\.(.*)$";
        for (template, expected) in [
            ("$1.$3", "ams.web.cpu"),
            ("${1}x", "amsx"),
            ("$dc-${dc}", "ams-ams"),
            ("$0", "ams.web.cpu"),
            ("a${2}b", "ab"),
            ("${function}.$3", "@.web.cpu"),
            ("", ""),
        ] {
            assert_eq!(
                expanded(regex, template, "ams.web.cpu"),
                expected,
                "{template}"
            );
        }
        assert_eq!(expanded("a", "$$1$$", "a"), "$1$");
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        let regex = Finder::new("(a)b|(?<n>c)|(?<n>d)").unwrap();
        for (template, message) in [
            ("$4", "there is no group 4: the regex has 3"),
            (
                "$99999999999999999999",
                "there is no group 99999999999999999999: the regex has 3",
            ),
            (
                "$1x",
                "the regex has no group called '1x': write '${1}x' for group 1 and then 'x'",
            ),
            ("$dc", "the regex has no group called 'dc'"),
            (
                "$n",
                "the regex has several groups called 'n': call them by numbers",
            ),
            ("${function}", "the regex has no group called 'function'"),
            ("a$", "a '$' names no group: write '$$' for the sign itself"),
            (
                "${}",
                "a '$' names no group: write '$$' for the sign itself",
            ),
            ("${1", "a '${' is not closed: add a '}'"),
        ] {
            let refused = Template::parse(template, &regex, None).unwrap_err();
            assert_eq!(refused, message, "{template}");
        }
    }
}
