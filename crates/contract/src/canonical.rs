//! JSON whose text depends on nothing but its meaning.
//!
//! `serde_json` keeps the keys of an object sorted unless any crate of the whole build asks for its `preserve_order`
//! feature: then the order is that of the message. A fingerprint and a committed schema must not hang on that, so the
//! keys are sorted here. `cargo test -p contract --features serde_json/preserve_order` runs the tests the other way.

use serde_json::Value;

/// `value` with the keys of every object in order.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => in_order(map)
            .into_iter()
            .map(|(key, value)| (key.clone(), sorted(value)))
            .collect(),
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The entries of one object in the order of their keys, whatever order they come in.
fn in_order<'a>(
    entries: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> Vec<(&'a String, &'a Value)> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_in_the_order_of_their_keys() {
        // Not a `Map`, which would sort them by itself in a build without `preserve_order`.
        let [z, a, m] = ["z", "a", "m"].map(str::to_owned);
        let entries = in_order([(&z, &Value::Null), (&a, &Value::Null), (&m, &Value::Null)]);
        assert_eq!(
            entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            ["a", "m", "z"]
        );
    }

    #[test]
    fn the_order_of_the_keys_does_not_show_at_any_depth() {
        let value: Value =
            serde_json::from_str(r#"{"z": 1, "a": {"y": [{"d": 1, "c": [2, 1]}], "b": null}}"#)
                .expect("JSON");
        assert_eq!(
            sorted(&value).to_string(),
            r#"{"a":{"b":null,"y":[{"c":[2,1],"d":1}]},"z":1}"#
        );
    }
}
