//! Rewriters: rules that change a name, one after the other.
//!
//! Each rule sees what the one before it made of the name, tags included. A literal is replaced from the left, as often as
//! its rule says; a regular expression wherever it matches, without overlaps.

use std::sync::Arc;

use memchr::memmem;

use crate::expression::Finder;
use crate::pattern::Pattern;
use crate::template::Template;

/// The longest name that a rule may make, in bytes; rules that double a name over and over cannot use up memory.
const NAME_BYTES_MAX: usize = 1 << 16;

/// One rule of a rewriter.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The Rewriter, as `namespace/name`.
    pub(crate) object: Arc<str>,
    /// The rule's place in it.
    pub(crate) index: usize,
    pub(crate) name: Box<str>,
    pub(crate) replace: Replace,
    /// Names that are left alone.
    pub(crate) unless: Option<Pattern>,
}

/// What is replaced by what.
#[derive(Debug)]
pub(crate) enum Replace {
    Literal {
        find: Box<memmem::Finder<'static>>,
        with: Box<[u8]>,
        max: usize,
    },
    Regex {
        find: Finder,
        with: Template,
    },
}

/// A name became longer than a name may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Puts `name` through all of `rules`. Returns whether any of them found something to replace. `spare` is memory to be reused.
pub(crate) fn rewrite(
    rules: &[Rule],
    name: &mut Vec<u8>,
    spare: &mut Vec<u8>,
) -> Result<bool, TooLong> {
    let mut is_changed = false;
    for rule in rules {
        if rule.apply(name, spare)? {
            std::mem::swap(name, spare);
            is_changed = true;
        }
    }
    Ok(is_changed)
}

impl Rule {
    /// Whether `unless` keeps the name from this rule.
    pub(crate) fn leaves_alone(&self, name: &[u8]) -> bool {
        let unless = self.unless.as_ref();
        unless.is_some_and(|unless| unless.matches(name))
    }

    /// Sets `made` to what the rule makes of `name`. Returns whether there was anything to replace; if not, `made` is of no
    /// use.
    pub(crate) fn apply(&self, name: &[u8], made: &mut Vec<u8>) -> Result<bool, TooLong> {
        made.clear();
        if self.leaves_alone(name) {
            return Ok(false);
        }
        // What stands before this was copied or replaced.
        let mut done = 0;
        let mut found = false;
        let is_within = |made: &Vec<u8>| made.len() <= NAME_BYTES_MAX;
        match &self.replace {
            Replace::Literal { find, with, max } => {
                for start in find.find_iter(name).take(*max) {
                    made.extend_from_slice(&name[done..start]);
                    made.extend_from_slice(with);
                    done = start + find.needle().len();
                    found = true;
                    if !is_within(made) {
                        return Err(TooLong);
                    }
                }
            }
            Replace::Regex { find, with } => {
                for matched in find.find_all(name) {
                    let range = matched.range();
                    made.extend_from_slice(&name[done..range.start]);
                    with.expand(&matched, 0, made);
                    done = range.end;
                    found = true;
                    if !is_within(made) {
                        return Err(TooLong);
                    }
                }
            }
        }
        made.extend_from_slice(&name[done..]);
        match is_within(made) {
            true => Ok(found),
            false => Err(TooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_proto::Match;

    use super::*;

    fn rule(replace: Replace) -> Rule {
        Rule {
            object: "d/r".into(),
            index: 0,
            name: "x".into(),
            replace,
            unless: None,
        }
    }

    fn literal(find: &str, with: &str, max: usize) -> Rule {
        rule(Replace::Literal {
            find: Box::new(memmem::Finder::new(find).into_owned()),
            with: with.as_bytes().into(),
            max,
        })
    }

    fn regex(find: &str, with: &str) -> Rule {
        let find = Finder::new(find).unwrap();
        let with = Template::parse(with, &find, None).unwrap();
        rule(Replace::Regex { find, with })
    }

    fn rewritten(rules: &[Rule], name: &str) -> Result<String, TooLong> {
        let mut name = name.as_bytes().to_vec();
        rewrite(rules, &mut name, &mut Vec::new())?;
        Ok(String::from_utf8(name).unwrap())
    }

    // Those of carbon-relay-ng's documentation among them.
    #[test]
    fn names_are_rewritten() {
        let all = usize::MAX;
        for (rule, name, expected) in [
            (literal("foo", "bar", 1), "foo.foo", "bar.foo"),
            (literal("foo", "bar", all), "foo.foo", "bar.bar"),
            (literal("foo", "", all), "a.foo.b", "a..b"),
            (literal("aa", "a", all), "aaaaa", "aaa"),
            (regex("^", "prefix."), "a.b", "prefix.a.b"),
            (regex("$", ".suffix"), "a.b", "a.b.suffix"),
            (
                regex(r"server\.([^.]+)", "servers.${1}.collectd"),
                "server.web1.cpu",
                "servers.web1.collectd.cpu",
            ),
            (regex("(a)b", "${1}x"), "ab.ab", "ax.ax"),
            (regex("a*", "-"), "baaac", "-b-c-"),
            (regex("x", "y"), "abc", "abc"),
        ] {
            let rewritten = rewritten(&[rule], name);
            assert_eq!(rewritten.as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn each_rule_sees_what_the_one_before_made_unless_it_is_told_to_leave_it() {
        let mut guarded = literal("b", "c", usize::MAX);
        let conditions = Match {
            contains: "keep".into(),
            ..Match::default()
        };
        guarded.unless = Some(Pattern::compile(&conditions).unwrap());
        let rules = [literal("a", "b", usize::MAX), guarded];
        assert_eq!(rewritten(&rules, "a").as_deref(), Ok("c"));
        assert_eq!(rewritten(&rules, "a.keep").as_deref(), Ok("b.keep"));
        let making_it = [
            literal("a", "keep.b", usize::MAX),
            rules.into_iter().nth(1).unwrap(),
        ];
        assert_eq!(rewritten(&making_it, "a").as_deref(), Ok("keep.b"));
    }

    #[test]
    fn rules_that_double_a_name_come_to_an_end() {
        let doubling: Vec<Rule> = (0..64).map(|_| literal("a", "aa", usize::MAX)).collect();
        assert_eq!(rewritten(&doubling, "a"), Err(TooLong));
        let doubling: Vec<Rule> = (0..64).map(|_| regex("^(.*)$", "$1$1")).collect();
        assert_eq!(rewritten(&doubling, "ab"), Err(TooLong));
    }
}
