//! [`lay_over`]: what a person wants to be different in an object that is made here.

use serde_json::{Map, Value};

/// By which field the elements of a list are told apart, the first that they all have.
const KEYS: [&str; 4] = ["name", "mountPath", "containerPort", "topologyKey"];

/// Lays `over` over `base`: objects are merged, and so are lists whose elements have a key, by that; null takes away;
/// everything else takes the place of what was there.
pub(crate) fn lay_over(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => lay_map_over(base, over),
        (Value::Array(base), Value::Array(over)) => match key(base, over) {
            Some(key) => lay_list_over(base, over, key),
            None => base.clone_from(over),
        },
        (base, over) => base.clone_from(over),
    }
}

fn lay_map_over(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (field, value) in over {
        if value.is_null() {
            base.remove(field);
        } else {
            lay_over(base.entry(field).or_insert(Value::Null), value);
        }
    }
}

fn lay_list_over(base: &mut Vec<Value>, over: &[Value], key: &str) {
    for element in over {
        match base.iter_mut().find(|known| known[key] == element[key]) {
            Some(known) => lay_over(known, element),
            None => base.push(element.clone()),
        }
    }
}

fn key(base: &[Value], over: &[Value]) -> Option<&'static str> {
    let has = |key: &str| {
        base.iter()
            .chain(over)
            .all(|element| element[key] != Value::Null)
    };
    KEYS.into_iter().find(|key| has(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn laid_over(mut base: Value, over: &Value) -> Value {
        lay_over(&mut base, over);
        base
    }

    #[test]
    fn objects_are_merged_and_null_takes_away() {
        let base = json!({"a": {"b": 1, "c": 2}, "d": 3});
        let over = json!({"a": {"c": 4, "e": 5}, "d": null});
        assert_eq!(
            laid_over(base, &over),
            json!({"a": {"b": 1, "c": 4, "e": 5}})
        );
    }

    #[test]
    fn lists_of_named_things_are_merged_by_name() {
        let base = json!([{"name": "relay", "image": "a"}, {"name": "other"}]);
        let over = json!([{"name": "relay", "env": [1]}, {"name": "new"}]);
        let all = json!([{"name": "relay", "image": "a", "env": [1]}, {"name": "other"}, {"name": "new"}]);
        assert_eq!(laid_over(base, &over), all);
    }

    #[test]
    fn other_lists_are_replaced() {
        assert_eq!(laid_over(json!([1, 2]), &json!([3])), json!([3]));
    }
}
