//! Graphite's globs, as regular expressions.
//!
//! ```text
//! *       any bytes but a dot         [a-z]   one byte of the set, never a dot     {a,b}   one of these; may be nested
//! ?       one byte but a dot          [!a-z]  one byte not of the set or a dot     **      any bytes, dots too
//! ```
//!
//! A glob speaks of the whole name. Every other byte stands for itself; a backslash takes the meaning from the next one.

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
            '*' if rest.next_if_eq(&'*').is_some() => regex.push_str(".*"),
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

fn class(rest: &mut impl Iterator<Item = char>, regex: &mut String) -> Result<(), String> {
    const UNCLOSED: &str = "a '[' is not closed: add a ']'";
    let mut next = rest.next().ok_or(UNCLOSED)?;
    let is_negated = matches!(next, '!' | '^');
    if is_negated {
        next = rest.next().ok_or(UNCLOSED)?;
    }
    let mut members = String::new();
    // A ']' that comes first stands for itself.
    loop {
        match next {
            '-' => members.push('-'),
            byte => literal(byte, &mut members),
        }
        next = rest.next().ok_or(UNCLOSED)?;
        if next == ']' {
            break;
        }
    }
    // A '-' at an end stands for itself.
    if let Some(inner) = members.strip_prefix('-') {
        members = format!("\\-{inner}");
    }
    if members.ends_with('-') && !members.ends_with("\\-") {
        members.insert(members.len() - 1, '\\');
    }
    match is_negated {
        true => regex.push_str(&format!("[^.{members}]")),
        false => regex.push_str(&format!("[[{members}]--[.]]")),
    }
    Ok(())
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
    use regex::bytes::RegexBuilder;

    fn matches(glob: &str, name: &str) -> bool {
        let regex = to_regex(glob).unwrap();
        let regex = RegexBuilder::new(&regex).unicode(false).build();
        regex
            .unwrap_or_else(|error| panic!("{glob}: {error}"))
            .is_match(name.as_bytes())
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
            (
                "a\\",
                "it ends in a backslash: write \\\\ for the byte itself",
            ),
        ] {
            assert_eq!(to_regex(glob), Err(said.to_owned()), "{glob}");
        }
    }
}
