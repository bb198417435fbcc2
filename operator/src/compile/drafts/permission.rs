//! Which namespaces may refer to an object of another one.

use std::collections::{BTreeMap, BTreeSet};

use crds::{LabelOperator, NamespaceExpression, NamespaceSelector, Namespaces};
use kube::core::{Expression, Selector, SelectorExt as _};

use crate::inputs::Labels;

/// The label with a namespace's name, which every namespace has.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Says who may, by the labels that namespaces have. Of a namespace that is not among them its name alone is known.
pub(super) struct Permission<'a> {
    pub(super) namespaces: &'a BTreeMap<String, Labels>,
}

impl Permission<'_> {
    /// Whether an object of `own` that allows these namespaces allows `other`.
    pub(super) fn is_given(
        &self,
        own: &str,
        allowed: Namespaces,
        selector: Option<&NamespaceSelector>,
        other: &str,
    ) -> bool {
        own == other
            || match (allowed, selector) {
                (Namespaces::Same, _) | (Namespaces::Selector, None) => false,
                (Namespaces::All, _) => true,
                (Namespaces::Selector, Some(selector)) => {
                    let mut labels = self.namespaces.get(other).cloned().unwrap_or_default();
                    // Nobody can give a namespace another one's name.
                    labels.insert(NAME_LABEL.to_owned(), other.to_owned());
                    self::selector(selector).matches(&labels)
                }
            }
    }
}

fn selector(selector: &NamespaceSelector) -> Selector {
    let labels = selector.match_labels.clone().into_iter();
    let labels = labels.map(|(key, value)| Expression::Equal(key, value));
    let expressions = selector.match_expressions.iter().map(expression);
    labels.chain(expressions).collect()
}

fn expression(expression: &NamespaceExpression) -> Expression {
    let key = expression.key.clone();
    let values = || BTreeSet::from_iter(expression.values.iter().cloned());
    match expression.operator {
        LabelOperator::In => Expression::In(key, values()),
        LabelOperator::NotIn => Expression::NotIn(key, values()),
        LabelOperator::Exists => Expression::Exists(key),
        LabelOperator::DoesNotExist => Expression::DoesNotExist(key),
    }
}
