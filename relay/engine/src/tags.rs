//! Conditions on the tags of a series, in the words of Graphite's `seriesByTag`.
//!
//! ```text
//! dc=ams       the tag is there with this value; with an empty value: it is not there
//! dc!=ams      it is not there, or with another value; with an empty value: it is there
//! dc=~^a.*     the expression matches the value from its start, as Graphite anchors it
//! dc!=~^a.*    it does not
//! ```
//!
//! A tag that is not there has the empty value. `name` is the part before the first `;`.

use crate::expression::Expression;

/// One condition.
#[derive(Debug)]
pub(crate) struct TagCondition {
    key: Box<[u8]>,
    is_negated: bool,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Literal(Box<[u8]>),
    Regex(Expression),
}

impl TagCondition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (key, rest) = text
            .find(['=', '!'])
            .map(|at| text.split_at(at))
            .filter(|(key, _)| !key.is_empty() && !key.contains(';'))
            .ok_or_else(|| format!("'{text}' is no condition: write tag=value, tag!=value, tag=~regex or tag!=~regex"))?;
        let key = key.as_bytes().into();
        let (is_negated, rest) = match rest.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest
            .strip_prefix('=')
            .ok_or_else(|| format!("'{text}' has a '!' without '=': write tag!=value"))?;
        let value = match rest.strip_prefix('~') {
            Some(regex) => Value::Regex(Expression::at_start(regex)?),
            None => Value::Literal(rest.as_bytes().into()),
        };
        Ok(Self {
            key,
            is_negated,
            value,
        })
    }

    /// Whether the condition holds for a series name.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let mut parts = name.split(|byte| *byte == b';');
        let path = parts.next().unwrap_or_default();
        let value = match &*self.key {
            b"name" => path,
            key => parts
                .find_map(|tag| tag.strip_prefix(key)?.strip_prefix(b"="))
                .unwrap_or_default(),
        };
        let holds = match &self.value {
            Value::Literal(literal) => **literal == *value,
            Value::Regex(regex) => regex.is_match(value),
        };
        holds != self.is_negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_as_graphite_has_them() {
        for (condition, yes, no) in [
            (
                "dc=ams",
                &["a;dc=ams", "a;x=y;dc=ams"][..],
                &["a", "a;dc=amsx", "a;xdc=ams"][..],
            ),
            ("dc=", &["a", "a;x=y"], &["a;dc=ams"]),
            ("dc!=ams", &["a", "a;dc=fra"], &["a;dc=ams"]),
            ("dc!=", &["a;dc=ams"], &["a"]),
            ("dc=~a|f", &["a;dc=ams", "a;dc=fra"], &["a", "a;dc=xa"]),
            ("dc=~(?i)A", &["a;dc=ams"], &["a;dc=xa"]),
            ("dc!=~a", &["a", "a;dc=fra"], &["a;dc=ams"]),
            ("name=a.b", &["a.b", "a.b;x=y"], &["a.bc", "a;name=a.b"]),
        ] {
            let parsed = TagCondition::parse(condition).unwrap();
            for name in yes {
                assert!(
                    parsed.matches(name.as_bytes()),
                    "{condition} should hold for {name}"
                );
            }
            for name in no {
                assert!(
                    !parsed.matches(name.as_bytes()),
                    "{condition} should not hold for {name}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in ["", "dc", "=a", "!=a", "dc!a", "a;b=c", "dc=~(", "dc=~a)|(b"] {
            assert!(TagCondition::parse(text).is_err(), "{text}");
        }
    }
}
