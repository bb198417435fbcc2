//! Sets of code points: `[…]`, `\d`, `\pL`, and the escapes of single ones.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::{Input, Invalid};

const LAST: u32 = 0x10_FFFF;

/// `.`
pub(super) fn dot(takes_newline: bool) -> ClassUnicode {
    let newline = u32::from('\n');
    match takes_newline {
        true => of([(0, LAST)]),
        false => of([(0, newline - 1), (newline + 1, LAST)]),
    }
}

pub(super) fn ascii() -> ClassUnicode {
    of([(0, 0x7F)])
}

/// One code point, and those that it folds to.
pub(super) fn one(code_point: u32, folds_case: bool) -> ClassUnicode {
    let mut class = of([(code_point, code_point)]);
    if folds_case {
        class.case_fold_simple();
    }
    class
}

/// What follows a `[`, which is where `begin` is.
pub(super) fn bracketed(
    input: &mut Input<'_>,
    begin: Input<'_>,
    folds_case: bool,
) -> Result<ClassUnicode, Invalid> {
    let is_negated = input.take("^");
    let mut class = ClassUnicode::empty();
    let mut ranges = Vec::new();
    let mut is_first = true;
    // A `]` that comes first stands for itself.
    while is_first || !input.take("]") {
        is_first = false;
        if let Some(named) = named(input, folds_case)? {
            class.union(&named);
            continue;
        }
        let at = *input;
        if input.take("\\") {
            if let Some(escaped) = escaped_class(input, at, folds_case)? {
                class.union(&escaped);
                continue;
            }
            *input = at;
        }
        let first = member(input, begin)?;
        let mut last = first;
        if input.rest().starts_with('-') && !input.rest().starts_with("-]") && input.rest() != "-" {
            input.take("-");
            last = member(input, begin)?;
        }
        if last < first {
            let what = format!("the range '{}' ends below its start", at.up_to(*input));
            return Err(at.invalid(what, "swap the two"));
        }
        ranges.push((first, last));
    }
    class.union(&of(ranges));
    if folds_case {
        class.case_fold_simple();
    }
    if is_negated {
        class.negate();
    }
    Ok(class)
}

// `[:alpha:]`, within a class.
fn named(input: &mut Input<'_>, folds_case: bool) -> Result<Option<ClassUnicode>, Invalid> {
    let begin = *input;
    let Some(end) = begin
        .rest()
        .strip_prefix("[:")
        .and_then(|rest| rest.find(":]"))
    else {
        return Ok(None);
    };
    input.at += "[:".len() + end + ":]".len();
    let name = &begin.rest()[2..2 + end];
    let (name, is_negated) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let ranges: &[(char, char)] = match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7F')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1F'), ('\x7F', '\x7F')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => WORD,
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => {
            let what = format!("'{}' is not known", begin.up_to(*input));
            return Err(begin.invalid(what, "use [:alpha:], [:digit:], [:alnum:] and so on"));
        }
    };
    Ok(Some(group(of_chars(ranges), folds_case, is_negated)))
}

const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// `d`, `pL` and the like, after the backslash where `begin` is; `None` if it is no class.
pub(super) fn escaped_class(
    input: &mut Input<'_>,
    begin: Input<'_>,
    folds_case: bool,
) -> Result<Option<ClassUnicode>, Invalid> {
    let (ranges, is_negated): (&[_], _) = match input.peek() {
        Some('d') => (&[('0', '9')], false),
        Some('D') => (&[('0', '9')], true),
        Some('s') => (SPACE, false),
        Some('S') => (SPACE, true),
        Some('w') => (WORD, false),
        Some('W') => (WORD, true),
        Some('p' | 'P') => return unicode(input, begin, folds_case).map(Some),
        _ => return Ok(None),
    };
    input.bump();
    Ok(Some(group(of_chars(ranges), folds_case, is_negated)))
}

// Without `\v`, unlike [:space:].
const SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0C', '\r'), (' ', ' ')];

// `pL`, `P{Greek}`, `p{^Greek}`.
fn unicode(
    input: &mut Input<'_>,
    begin: Input<'_>,
    folds_case: bool,
) -> Result<ClassUnicode, Invalid> {
    let mut is_negated = input.take("P");
    if !is_negated {
        input.take("p");
    }
    let rest = input.rest();
    let mut name = match input.bump() {
        Some('{') => input.take_until('}').unwrap_or_default(),
        Some(letter) => &rest[..letter.len_utf8()],
        None => "",
    };
    if let Some(rest) = name.strip_prefix('^') {
        is_negated = !is_negated;
        name = rest;
    }
    let table = table(name).ok_or_else(|| {
        let what = format!("'{}' is no set of Unicode", begin.up_to(*input));
        begin.invalid(what, "name a category or a script: \\pL, \\p{Greek}")
    })?;
    Ok(group(table, folds_case, is_negated))
}

// Of a category, or else of a script.
fn table(name: &str) -> Option<ClassUnicode> {
    let is_name = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | ' ');
    let begins = name.get(..2).unwrap_or_default();
    // The library would strip this one.
    if name.is_empty() || !name.chars().all(is_name) || begins.eq_ignore_ascii_case("is") {
        return None;
    }
    if ["cs", "surrogate"].contains(&name.to_ascii_lowercase().as_str()) {
        return Some(ClassUnicode::empty());
    }
    let hir = ["gc", "sc"]
        .iter()
        .find_map(|kind| regex_syntax::parse(&format!("\\p{{{kind}={name}}}")).ok())?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        HirKind::Class(Class::Bytes(class)) => class.to_unicode_class(),
        // A set of one, such as \p{Zl}.
        HirKind::Literal(literal) => {
            let literal = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
            Some(one(literal.into(), false))
        }
        HirKind::Empty
        | HirKind::Look(_)
        | HirKind::Repetition(_)
        | HirKind::Capture(_)
        | HirKind::Concat(_)
        | HirKind::Alternation(_) => None,
    }
}

fn member(input: &mut Input<'_>, class: Input<'_>) -> Result<u32, Invalid> {
    let begin = *input;
    match input.bump() {
        Some('\\') => escaped(input, begin),
        Some(literal) => Ok(literal.into()),
        None => Err(class.invalid(
            "'[' is not closed",
            "add a ']', or write \\[ for the byte itself",
        )),
    }
}

/// What follows the backslash where `begin` is, as a code point.
pub(super) fn escaped(input: &mut Input<'_>, begin: Input<'_>) -> Result<u32, Invalid> {
    let code_point = match input.bump() {
        Some('a') => Some(0x07),
        Some('f') => Some(0x0C),
        Some('n') => Some(0x0A),
        Some('r') => Some(0x0D),
        Some('t') => Some(0x09),
        Some('v') => Some(0x0B),
        Some('x') => hexadecimal(input),
        Some(digit @ '0'..='7') => octal(input, digit),
        Some(other) if other.is_ascii() && !other.is_ascii_alphanumeric() => Some(other.into()),
        Some(_) => None,
        None => {
            return Err(begin.invalid("it ends in a backslash", "write \\\\ for the byte itself"));
        }
    };
    code_point.ok_or_else(|| {
        let what = format!("'{}' is not known", begin.up_to(*input));
        begin.invalid(
            what,
            "write \\\\ for a backslash; there are no back-references, \\C, \\Z",
        )
    })
}

// Up to three digits; one alone that is not 0 would be a back-reference.
fn octal(input: &mut Input<'_>, first: char) -> Option<u32> {
    let mut value = first.to_digit(8)?;
    let mut digits = 1;
    while digits < 3
        && let Some(digit) = input.peek().and_then(|c| c.to_digit(8))
    {
        input.bump();
        value = value * 8 + digit;
        digits += 1;
    }
    (first == '0' || digits > 1).then_some(value)
}

// `7F` or `{10FFFF}`.
fn hexadecimal(input: &mut Input<'_>) -> Option<u32> {
    if !input.take("{") {
        let digits = [input.bump()?.to_digit(16)?, input.bump()?.to_digit(16)?];
        return Some(digits[0] * 16 + digits[1]);
    }
    let digits = input.take_until('}').filter(|digits| !digits.is_empty())?;
    digits.chars().try_fold(0, |value, digit| {
        let value = value * 16 + digit.to_digit(16)?;
        (value <= LAST).then_some(value)
    })
}

fn group(mut class: ClassUnicode, folds_case: bool, is_negated: bool) -> ClassUnicode {
    if folds_case {
        class.case_fold_simple();
    }
    if is_negated {
        class.negate();
    }
    class
}

fn of_chars(ranges: &[(char, char)]) -> ClassUnicode {
    let range = |(first, last): &(char, char)| ClassUnicodeRange::new(*first, *last);
    ClassUnicode::new(ranges.iter().map(range))
}

// Surrogates, which no text holds, are left out; a range of characters may span them.
fn of(ranges: impl IntoIterator<Item = (u32, u32)>) -> ClassUnicode {
    let range = |(first, last)| {
        let first = char::from_u32(first).unwrap_or('\u{E000}');
        let last = char::from_u32(last).unwrap_or('\u{D7FF}');
        (first <= last).then(|| ClassUnicodeRange::new(first, last))
    };
    ClassUnicode::new(ranges.into_iter().filter_map(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_are_in_no_set_and_its_negation_neither() {
        let mut all = of([(0, LAST)]);
        assert_eq!(all.ranges(), [ClassUnicodeRange::new('\0', char::MAX)]);
        all.negate();
        assert_eq!(all.ranges(), []);
        assert_eq!(of([(0xD800, 0xDFFF)]).ranges(), []);
        let mut upper = of([(0xD900, LAST)]);
        upper.negate();
        assert_eq!(upper.ranges(), [ClassUnicodeRange::new('\0', '\u{D7FF}')]);
    }
}
