//! JSON whose text depends on nothing but its meaning.
//!
//! `serde_json` keeps the keys of an object sorted unless any crate of the whole build asks for its `preserve_order`
//! feature: then the order is that of the message. A fingerprint and a committed schema must not hang on that, so the
//! keys are sorted here.

use serde_json::{Map, Value};

/// `value` with the keys of every object in order.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(sorted_entries(map)),
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The entries of one object in the order of their keys, whatever order they come in.
fn sorted_entries<'a>(
    entries: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> Map<String, Value> {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
        .into_iter()
        .map(|(key, value)| (key.clone(), sorted(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both features of `serde_json` must pass this: `cargo test -p contract --features serde_json/preserve_order`.
    #[test]
    fn the_order_of_the_keys_does_not_show() {
        let inner: Value =
            serde_json::from_str(r#"{"z": 1, "a": {"y": [{"d": 1, "c": 2}], "b": null}}"#)
                .expect("JSON");
        let (first, second) = ("outer".to_owned(), "another".to_owned());
        let forward = sorted_entries([(&first, &inner), (&second, &Value::Null)]);
        let backward = sorted_entries([(&second, &Value::Null), (&first, &inner)]);

        let text = Value::Object(forward).to_string();
        assert_eq!(
            text,
            r#"{"another":null,"outer":{"a":{"b":null,"y":[{"c":2,"d":1}]},"z":1}}"#
        );
        assert_eq!(text, Value::Object(backward).to_string());
    }
}
