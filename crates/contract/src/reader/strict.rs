//! JSON text to [`Value`], with a problem for every field that an object names twice.
//!
//! `serde_json` keeps the last of two fields of one name without a word. A producer that sends two `path`s has a bug,
//! and a filter in front of the queue that keeps the *first* would see another message than we do.

use std::fmt;

use serde::de::{Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Path, Report};

/// Reads `bytes`, which must be one JSON value and nothing else. Nesting is bounded by `serde_json` (128 levels).
pub(crate) fn from_json(bytes: &[u8], report: &Report) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict {
        at: Path::Root,
        report,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// One value, and where it stands.
struct Strict<'p> {
    at: Path<'p>,
    report: &'p Report,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // JSON has no infinities, so every number of a JSON text is one.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict {
            at: Path::Item(&self.at, list.len()),
            report: self.report,
        })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let at = Path::Field(&self.at, &key);
            if map.contains_key(&key) {
                self.report.add(&at, "must not be given twice");
            }
            let value = entries.next_value_seed(Strict {
                at,
                report: self.report,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// The name of a field.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_that_is_given_twice_is_found_wherever_it_stands() {
        let report = Report::default();
        let text =
            br#"{"a": [0, {"b": 1, "\u0062": 2}], "c": {"seo.title": 1, "seo.title": 1}, "a": 3}"#;
        let value = from_json(text, &report).expect("it is JSON");
        assert_eq!(value["a"], 3, "the last one is kept, as serde_json does");
        let paths: Vec<_> = report
            .finish()
            .expect("problems")
            .0
            .into_iter()
            .map(|problem| problem.path)
            .collect();
        assert_eq!(paths, ["$.a[1].b", r#"$.c["seo.title"]"#, "$.a"]);
    }

    #[test]
    fn text_after_the_value_is_an_error() {
        assert!(from_json(b"{} {}", &Report::default()).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_names_no_field_twice_is_read_as_serde_json_reads_it(value in any_value()) {
            let text = value.to_string();
            let report = Report::default();
            let read = from_json(text.as_bytes(), &report).expect("it is JSON");
            prop_assert_eq!(read, serde_json::from_str::<Value>(&text).expect("it is JSON"));
            prop_assert_eq!(report.finish(), None);
        }
    }
}
