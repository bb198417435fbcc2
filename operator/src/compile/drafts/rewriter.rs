//! Rewriter → its message.

use crds::{Reason, RewriteRule, Rewriter};
use relay_proto as proto;
use relay_proto::rewrite_rule::Find;

use super::route::matches;
use crate::compile::Finding;
use crate::inputs::Key;

pub(super) fn message(rewriter: &Rewriter, key: &Key) -> Result<proto::Rewriter, Finding> {
    let rules = rewriter.spec.rules.iter().enumerate();
    Ok(proto::Rewriter {
        source: Some(key.to_ref()),
        rules: rules
            .map(|(index, rule)| self::rule(rule, &format!("rules[{index}]")))
            .collect::<Result<_, _>>()?,
    })
}

fn rule(rule: &RewriteRule, field: &str) -> Result<proto::RewriteRule, Finding> {
    let find = match (&rule.literal, &rule.regex) {
        (Some(literal), None) => Find::Literal(literal.clone()),
        (None, Some(regex)) => Find::Regex(regex.clone()),
        (None, None) | (Some(_), Some(_)) => {
            return Err(Finding::at(
                field,
                Reason::UnsupportedValue,
                "set exactly one of literal and regex",
            ));
        }
    };
    Ok(proto::RewriteRule {
        name: rule.name.clone(),
        find: Some(find),
        with: rule.with.clone(),
        max: match rule.max {
            None => 0,
            Some(max) => u32::try_from(max)
                .ok()
                .filter(|max| *max > 0)
                .ok_or_else(|| {
                    Finding::at(
                        format!("{field}.max"),
                        Reason::UnsupportedValue,
                        format!("{max} replaces nothing: use at least 1, or leave max out"),
                    )
                })?,
        },
        unless: rule.unless.as_ref().map(matches),
    })
}
