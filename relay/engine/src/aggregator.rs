//! Which points an aggregator takes, and the series that it makes of them.

use std::sync::Arc;

use crate::aggregate::{FUNCTION_MARK, Rule, RuleIndex, Rules};
use crate::expression::Finder;
use crate::name::NameRules;
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;
use crate::template::Template;

/// The name in an output template that stands for the function's.
pub(crate) const FUNCTION: &str = "function";

/// All aggregators of a table, in the order of evaluation.
#[derive(Debug, Default)]
pub(crate) struct Aggregators {
    list: Vec<Aggregator>,
    patterns: PatternSet,
    /// How each puts points together, in the same order.
    rules: Rules,
}

/// One aggregator; its match stands elsewhere.
#[derive(Debug)]
pub(crate) struct Aggregator {
    /// As `namespace/name`.
    pub(crate) object: Arc<str>,
    /// The regular expression of the match, for its groups.
    pub(crate) regex: Finder,
    pub(crate) output: Template,
    /// Whether what it takes goes no further.
    pub(crate) drop_raw: bool,
}

/// Where the points of a name go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Feed {
    pub(crate) rule: RuleIndex,
    /// The output name, as [`crate::aggregate::Buckets`] want it; `None` if what came out is no name.
    pub(crate) output: Option<Arc<[u8]>>,
}

impl Aggregators {
    /// Takes aggregators, what finds them and their rules, each in the order of evaluation.
    pub(crate) fn new(list: Vec<Aggregator>, patterns: PatternSet, rules: Rules) -> Self {
        Self {
            list,
            patterns,
            rules,
        }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn get(&self, rule: RuleIndex) -> &Aggregator {
        &self.list[rule.get()]
    }

    /// Every aggregator with its match and its rule, in the order of evaluation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Aggregator, &Pattern, &Arc<Rule>)> {
        let rules = self.rules.iter().map(|(_, rule)| rule);
        let matched = self.list.iter().zip(self.patterns.patterns());
        matched
            .zip(rules)
            .map(|((aggregator, pattern), rule)| (aggregator, pattern, rule))
    }

    /// Sets `feeds` to where the points of `name` go. Returns whether they go no further.
    pub(crate) fn feed(
        &self,
        name: &[u8],
        name_rules: NameRules,
        feeds: &mut Vec<Feed>,
        scratch: &mut Vec<u32>,
    ) -> bool {
        feeds.clear();
        for place in self.patterns.matching(name, scratch) {
            let aggregator = &self.list[place];
            feeds.push(Feed {
                rule: RuleIndex::at(place),
                output: aggregator.output(name, name_rules),
            });
            if aggregator.drop_raw {
                return true;
            }
        }
        false
    }
}

impl Aggregator {
    /// The name of the series that points of `name` go into, if it is one.
    pub(crate) fn output(&self, name: &[u8], name_rules: NameRules) -> Option<Arc<[u8]>> {
        let found = self.regex.find(name)?;
        let mut output = Vec::new();
        self.output.expand(&found, FUNCTION_MARK, &mut output);
        // A name may have that byte where no name is refused; then it could not be told from the mark.
        let marks = memchr::memchr_iter(FUNCTION_MARK, &output).count();
        if marks != self.output.specials() {
            return None;
        }
        let is_name = match marks {
            0 => name_rules.check_made(&output),
            _ => {
                let spelt: Vec<u8> = output
                    .iter()
                    .map(|byte| if *byte == FUNCTION_MARK { b'f' } else { *byte })
                    .collect();
                name_rules.check_made(&spelt)
            }
        };
        is_name.is_ok().then(|| output.into())
    }
}
