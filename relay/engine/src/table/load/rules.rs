//! The rules that change or drop lines, or make one of many: rewriters, aggregators, blocklists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use relay_proto as proto;
use relay_proto::rewrite_rule::Find;

use super::{Loader, NO_CONDITION, path};
use crate::aggregate::{PercentileDefinition, Rule, RuleSettings, Rules, UnknownFunction};
use crate::aggregator::{Aggregator, Aggregators, FUNCTION};
use crate::expression::Finder;
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;
use crate::rewrite::{self, Replace};
use crate::template::Template;

impl Loader {
    pub(super) fn rewriters(&mut self, rewriters: &[proto::Rewriter]) -> Vec<rewrite::Rule> {
        let mut loaded = Vec::new();
        for rewriter in rewriters {
            self.source = rewriter.source.clone().unwrap_or_default();
            let object: Arc<str> = path(&self.source);
            let mut names = BTreeSet::new();
            for (index, rule) in rewriter.rules.iter().enumerate() {
                let at = |field: &str| format!("rules[{index}].{field}");
                if !names.insert(&rule.name) {
                    let message = format!("'{}' is there twice: names are unique", rule.name);
                    self.unsupported(at("name"), message);
                }
                let unless = rule
                    .unless
                    .as_ref()
                    .filter(|unless| **unless != NO_CONDITION);
                let unless = unless.map(|unless| self.pattern(&at("unless"), Some(unless)));
                if let Some(replace) = self.replace(rule, at) {
                    loaded.push(rewrite::Rule {
                        object: Arc::clone(&object),
                        index,
                        name: rule.name.as_str().into(),
                        replace,
                        unless,
                    });
                }
            }
        }
        loaded
    }

    // `None` after an error.
    fn replace(
        &mut self,
        rule: &proto::RewriteRule,
        at: impl Fn(&str) -> String,
    ) -> Option<Replace> {
        match &rule.find {
            Some(Find::Literal(literal)) if !literal.is_empty() => Some(Replace::Literal {
                find: Box::new(memmem::Finder::new(literal).into_owned()),
                with: rule.with.as_bytes().into(),
                max: match rule.max {
                    0 => usize::MAX,
                    max => max as usize,
                },
            }),
            Some(Find::Regex(regex)) if !regex.is_empty() => {
                if rule.max > 0 {
                    let message = "a regex is replaced wherever it matches: leave max out";
                    self.unsupported(at("max"), message);
                }
                let find = match Finder::new(regex) {
                    Ok(find) => find,
                    Err(message) => return self.invalid_pattern(at("regex"), message),
                };
                match Template::parse(&rule.with, &find, None) {
                    Ok(with) => Some(Replace::Regex { find, with }),
                    Err(message) => self.invalid_pattern(at("with"), message),
                }
            }
            Some(Find::Literal(_)) => {
                self.refuse(at("literal"), "it is empty: name what is replaced")
            }
            Some(Find::Regex(_)) => self.refuse(at("regex"), "it is empty: name what is replaced"),
            None => self.refuse(
                at("literal"),
                "nothing is to be replaced: set literal or regex",
            ),
        }
    }

    pub(super) fn aggregators(&mut self, aggregators: &[proto::Aggregator]) -> Aggregators {
        let (mut list, mut patterns, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for aggregator in aggregators {
            self.source = aggregator.source.clone().unwrap_or_default();
            let conditions = aggregator.r#match.as_ref().unwrap_or(&NO_CONDITION);
            let pattern = self.pattern("match", Some(conditions));
            let selected = self.aggregator(aggregator, &conditions.regex);
            let rule = self.rule(aggregator);
            if let (Some(selected), Some(rule)) = (selected, rule) {
                list.push(selected);
                patterns.push(pattern);
                rules.push(rule);
            }
        }
        let rules = Rules::try_new(rules).unwrap_or_else(|error| {
            self.unsupported("metadata.name", error.to_string());
            Rules::default()
        });
        Aggregators::new(list, PatternSet::new(patterns), rules)
    }

    // `None` after an error.
    fn aggregator(&mut self, aggregator: &proto::Aggregator, regex: &str) -> Option<Aggregator> {
        if regex.is_empty() {
            let message = "there is none: set one, its groups name the output";
            return self.refuse("match.regex", message);
        }
        // If it does not compile, that was said of the match.
        let regex = Finder::new(regex).ok()?;
        if regex
            .names()
            .iter()
            .flatten()
            .any(|name| **name == *FUNCTION)
        {
            let message = "${function} stands for the function's name: call the group otherwise";
            return self.invalid_pattern("match.regex", message);
        }
        if aggregator.output.is_empty() {
            return self.refuse("output", "it is empty: name the series that is made");
        }
        match Template::parse(&aggregator.output, &regex, Some(FUNCTION)) {
            Ok(output) => Some(Aggregator {
                object: path(&self.source),
                regex,
                output,
                drop_raw: aggregator.drop_raw,
            }),
            Err(message) => self.invalid_pattern("output", message),
        }
    }

    // `None` after an error.
    fn rule(&mut self, aggregator: &proto::Aggregator) -> Option<Rule> {
        let mut functions = Vec::with_capacity(aggregator.functions.len());
        for (index, text) in aggregator.functions.iter().enumerate() {
            match text.parse() {
                Ok(function) => functions.push(function),
                Err(error) => {
                    let error: UnknownFunction = error;
                    return self.refuse(format!("functions[{index}]"), error.to_string());
                }
            }
        }
        let definition = &aggregator.percentile_definition;
        let Some(percentile_definition) = percentile_definition(definition) else {
            return self.refuse(
                "percentileDefinition",
                format!("'{definition}' is not a definition: use R6, R7 or NearestRank"),
            );
        };
        let rule = Rule::try_new(RuleSettings {
            id: aggregator.id.as_str().into(),
            functions,
            percentile_definition,
            interval: Duration::from_millis(aggregator.interval_ms),
            wait: Duration::from_millis(aggregator.wait_ms),
        });
        match rule {
            Ok(rule) => Some(rule),
            Err(error) => self.refuse(error.field(), error.to_string()),
        }
    }

    pub(super) fn blocklist(&mut self, blocklist: &proto::Blocklist) -> Vec<Pattern> {
        self.source = blocklist.source.clone().unwrap_or_default();
        let mut entries = Vec::with_capacity(blocklist.entries.len());
        for (index, entry) in blocklist.entries.iter().enumerate() {
            let field = format!("entries[{index}]");
            let pattern = self.pattern(&field, Some(entry));
            let is_set = entry != &proto::Match::default();
            if !is_set {
                self.unsupported(
                    field,
                    "no condition is set, which would drop every line: set at least one",
                );
            }
            entries.push(pattern);
        }
        entries
    }
}

fn percentile_definition(text: &str) -> Option<PercentileDefinition> {
    match text {
        "" | "R6" => Some(PercentileDefinition::R6),
        "R7" => Some(PercentileDefinition::R7),
        "NearestRank" => Some(PercentileDefinition::NearestRank),
        _ => None,
    }
}
