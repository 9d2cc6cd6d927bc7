//! Records as DynamoDB keeps them: the same field names and shapes as their JSON, in native attributes, so that any
//! program can read and write the rows.

use std::collections::HashMap;
use std::fmt::Display;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::Error as _;
use serde_json::{Map, Number, Value};

/// A row.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn to_item(record: &impl Serialize) -> Result<Item, serde_json::Error> {
    match serde_json::to_value(record)? {
        Value::Object(fields) => Ok(fields
            .into_iter()
            .map(|(name, value)| (name, to_attribute(value)))
            .collect()),
        _ => Err(serde_json::Error::custom("a record is an object")),
    }
}

pub(super) fn from_item<T: DeserializeOwned>(item: &Item) -> Result<T, serde_json::Error> {
    serde_json::from_value(to_json(item)?)
}

pub(super) fn to_json(item: &Item) -> Result<Value, serde_json::Error> {
    let fields = item
        .iter()
        .map(|(name, value)| Ok((name.clone(), from_attribute(value)?)))
        .collect::<Result<Map<_, _>, serde_json::Error>>()?;
    Ok(Value::Object(fields))
}

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(format!("{value}"))
}

fn to_attribute(value: Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(value) => AttributeValue::Bool(value),
        Value::Number(value) => AttributeValue::N(value.to_string()),
        Value::String(value) => AttributeValue::S(value),
        Value::Array(values) => AttributeValue::L(values.into_iter().map(to_attribute).collect()),
        Value::Object(fields) => AttributeValue::M(
            fields
                .into_iter()
                .map(|(name, value)| (name, to_attribute(value)))
                .collect(),
        ),
    }
}

fn from_attribute(attribute: &AttributeValue) -> Result<Value, serde_json::Error> {
    Ok(match attribute {
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::Bool(value) => Value::Bool(*value),
        AttributeValue::N(digits) => Value::Number(from_digits(digits)?),
        AttributeValue::S(value) => Value::String(value.clone()),
        AttributeValue::L(values) => Value::Array(
            values
                .iter()
                .map(from_attribute)
                .collect::<Result<_, _>>()?,
        ),
        AttributeValue::M(fields) => to_json(fields)?,
        // Sets are how some programs write a list of names.
        AttributeValue::Ss(values) => values.iter().cloned().map(Value::String).collect(),
        AttributeValue::Ns(values) => Value::Array(
            values
                .iter()
                .map(|digits| from_digits(digits).map(Value::Number))
                .collect::<Result<_, _>>()?,
        ),
        _ => {
            return Err(serde_json::Error::custom(
                "a record has no binary attributes",
            ));
        }
    })
}

/// DynamoDB writes a number that is whole without a point, others may not: `8080`, `8080.0` and `8.08E3` are one number.
fn from_digits(digits: &str) -> Result<Number, serde_json::Error> {
    /// Up to here every whole number has a floating point number of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Ok(whole) = digits.parse::<i64>() {
        return Ok(whole.into());
    }
    if let Ok(whole) = digits.parse::<u64>() {
        return Ok(whole.into());
    }
    let value: f64 = digits
        .parse()
        .map_err(|_| serde_json::Error::custom(format!("{digits:?} is no number")))?;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        return Ok((value as i64).into());
    }
    Number::from_f64(value)
        .ok_or_else(|| serde_json::Error::custom(format!("{digits:?} is out of range")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_attributes_and_comes_back() {
        let record = json!({
            "text": "Grüße", "empty": "", "whole": 18_446_744_073_709_551_615_u64, "negative": -3, "part": 2.5,
            "yes": true, "none": null, "list": [1, "a", { "deep": [] }], "map": { "a": { "b": false } },
        });
        let item = to_item(&record).expect("an object");
        assert_eq!(
            item["whole"],
            AttributeValue::N("18446744073709551615".to_owned())
        );
        assert_eq!(to_json(&item).expect("readable"), record);
    }

    #[test]
    fn what_other_programs_write_is_read() {
        let item = Item::from([
            ("float".to_owned(), number("8080.0")),
            ("scientific".to_owned(), number("8.08E3")),
            ("set".to_owned(), AttributeValue::Ss(vec!["a".to_owned()])),
        ]);
        assert_eq!(
            to_json(&item).expect("readable"),
            json!({ "float": 8080, "scientific": 8080, "set": ["a"] })
        );
        let binary = Item::from([("b".to_owned(), AttributeValue::B(vec![1].into()))]);
        assert!(to_json(&binary).is_err());
    }
}
