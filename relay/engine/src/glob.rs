//! Graphite's globs, as regular expressions in RE2's syntax.
//!
//! ```text
//! *   anything without a dot       [a-z]   one character of the set, never a dot    {a,b}  one of these; may be nested
//! ?   one character but a dot      [!a-z]  one that is not in it, nor a dot         **     anything
//! ```
//!
//! A glob speaks of the whole name. Every other character stands for itself; a backslash takes the meaning from the next one.

use std::iter::Peekable;

/// Translates a glob.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn to_regex(glob: &str) -> Result<String, String> {
    let mut regex = String::from("^(?:");
    let mut depth = 0_usize;
    let mut rest = glob.chars().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            '*' if rest.next_if_eq(&'*').is_some() => regex.push_str("(?s:.*)"),
            '*' => regex.push_str("[^.]*"),
            '?' => regex.push_str("[^.]"),
            '[' => class(&mut rest, &mut regex)?,
            '{' => {
                depth += 1;
                regex.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                regex.push(')');
            }
            '}' => return Err("a '}' closes nothing: write \\} for the byte itself".to_owned()),
            ',' if depth > 0 => regex.push('|'),
            '\\' => {
                let next = rest
                    .next()
                    .ok_or("it ends in a backslash: write \\\\ for the byte itself")?;
                literal(next, &mut regex);
            }
            byte => literal(byte, &mut regex),
        }
    }
    if depth > 0 {
        return Err("a '{' is not closed: add a '}'".to_owned());
    }
    regex.push_str(")$");
    Ok(regex)
}

fn class<I>(rest: &mut Peekable<I>, regex: &mut String) -> Result<(), String>
where
    I: Iterator<Item = char> + Clone,
{
    const UNCLOSED: &str = "a '[' is not closed: add a ']'";
    let is_negated = rest.next_if(|next| matches!(next, '!' | '^')).is_some();
    let mut members = String::new();
    let mut is_first = true;
    // A ']' that comes first stands for itself.
    while is_first || rest.next_if_eq(&']').is_none() {
        is_first = false;
        let first = rest.next().ok_or(UNCLOSED)?;
        let mut ahead = rest.clone();
        let last = match (ahead.next(), ahead.next()) {
            // A '-' at an end stands for itself.
            (Some('-'), Some(last)) if last != ']' => {
                *rest = ahead;
                last
            }
            _ => first,
        };
        if last < first {
            return Err(format!(
                "the range {first}-{last} ends below its start: swap the two"
            ));
        }
        match is_negated {
            true => range(first, last, &mut members),
            false => {
                range(first, last.min('-'), &mut members);
                range(first.max('/'), last, &mut members);
            }
        }
    }
    match (is_negated, members.is_empty()) {
        (true, _) => regex.push_str(&format!("[^.{members}]")),
        (false, false) => regex.push_str(&format!("[{members}]")),
        // Nothing but the dot, which it never takes.
        (false, true) => regex.push_str("[^\\x{0}-\\x{10FFFF}]"),
    }
    Ok(())
}

// Adds a range, unless it is empty.
fn range(first: char, last: char, members: &mut String) {
    if first <= last {
        let (first, last) = (u32::from(first), u32::from(last));
        members.push_str(&format!("\\x{{{first:X}}}-\\x{{{last:X}}}"));
    }
}

fn literal(byte: char, regex: &mut String) {
    if regex_syntax::is_meta_character(byte) {
        regex.push('\\');
    }
    regex.push(byte);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Expression;

    fn matches(glob: &str, name: &str) -> bool {
        let (expression, _) = Expression::anywhere(&to_regex(glob).unwrap()).unwrap();
        expression.is_match(name.as_bytes())
    }

    #[test]
    fn globs_match_whole_names_and_dots_are_walls() {
        for (glob, yes, no) in [
            (
                "a.*.c",
                &["a.b.c", "a..c"][..],
                &["a.b.b.c", "xa.b.c", "a.b.cx"][..],
            ),
            ("a.?", &["a.b"], &["a.", "a.bc", "a.."]),
            ("a.**.c", &["a.b.c", "a.b.b.c"], &["a.c"]),
            ("**", &["", "a", "a.b"], &[]),
            (
                "web[0-9a].x",
                &["web1.x", "weba.x"],
                &["webb.x", "web.x", "web11.x"],
            ),
            ("a[!b]c", &["axc"], &["abc", "a.c"]),
            ("a[^b-d]c", &["aec"], &["acc", "a.c"]),
            ("a[+-/]c", &["a+c", "a/c", "a-c"], &["a.c"]),
            ("a[]x]c", &["a]c", "axc"], &["abc"]),
            ("a[-x]", &["a-", "ax"], &["ab"]),
            ("a[x-]", &["a-", "ax"], &["ab"]),
            ("{a,b{c,d}}.e", &["a.e", "bc.e", "bd.e"], &["b.e", "a,b.e"]),
            ("{a,}b", &["ab", "b"], &["a"]),
            ("a,b", &["a,b"], &["a"]),
            ("a\\*", &["a*"], &["ab"]),
            ("a+(b)|c$;k=v", &["a+(b)|c$;k=v"], &["aa"]),
            ("<a>", &["<a>"], &["a"]),
            ("a[.]b", &[], &["a.b", "ab", "a[.]b"]),
            ("a[+-.]b", &["a+b", "a-b"], &["a.b"]),
            ("a[b\\]c", &["abc", "a\\c"], &["a]c"]),
            ("a[&&b]c", &["a&c", "abc"], &["acc"]),
            ("ü?[é-ë]", &["üaé", "üüë"], &["üa.", "üé"]),
            ("a**", &["a\n.b"], &["b"]),
        ] {
            for name in yes {
                assert!(matches(glob, name), "{glob} should match {name}");
            }
            for name in no {
                assert!(!matches(glob, name), "{glob} should not match {name}");
            }
        }
    }

    #[test]
    fn bad_globs_say_what_is_wrong() {
        for (glob, said) in [
            ("a[", "a '[' is not closed: add a ']'"),
            ("a[b", "a '[' is not closed: add a ']'"),
            ("a[]", "a '[' is not closed: add a ']'"),
            ("{a", "a '{' is not closed: add a '}'"),
            ("a}", "a '}' closes nothing: write \\} for the byte itself"),
            ("[b-a]", "the range b-a ends below its start: swap the two"),
            (
                "a\\",
                "it ends in a backslash: write \\\\ for the byte itself",
            ),
        ] {
            assert_eq!(to_regex(glob), Err(said.to_owned()), "{glob}");
        }
    }
}
