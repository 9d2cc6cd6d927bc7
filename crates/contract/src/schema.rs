//! The JSON Schemas of what goes over the wire: draft 2020-12, committed under `schema/`.
//!
//! Records are derived from their types and open: a reader takes fields that it does not know. The schema of an
//! instruction is written by hand and strict, as [`crate::Instruction::parse`] is: whatever it refuses, the parser
//! refuses. The parser knows more (bytes, Unicode, what two fields must not have in common).

use std::fmt;
use std::str::FromStr;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::canonical::sorted;
use crate::reader::{listed, quoted};
use crate::{ClientConfig, Receipt, Session};

mod instruction;

/// Which schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaName {
    /// What a producer sends: [`crate::Instruction`].
    Instruction,
    /// What became of it: [`Receipt`].
    Receipt,
    /// What a client is: [`ClientConfig`].
    ClientConfig,
    /// Who may act: [`Session`].
    Session,
}

impl SchemaName {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Instruction,
        Self::Receipt,
        Self::ClientConfig,
        Self::Session,
    ];

    /// The name on a command line and of the file `schema/<name>.schema.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instruction => "instruction",
            Self::Receipt => "receipt",
            Self::ClientConfig => "client-config",
            Self::Session => "session",
        }
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no schema of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no schema {}; there are {}", quoted(.0), listed(SchemaName::ALL.map(SchemaName::as_str), "and"))]
pub struct UnknownSchema(pub String);

impl FromStr for SchemaName {
    type Err = UnknownSchema;

    fn from_str(text: &str) -> Result<Self, UnknownSchema> {
        let known = Self::ALL.into_iter().find(|name| name.as_str() == text);
        known.ok_or_else(|| UnknownSchema(text.to_owned()))
    }
}

/// The schema.
pub fn schema(name: SchemaName) -> Value {
    let mut schema = match name {
        SchemaName::Instruction => instruction::schema(),
        SchemaName::Receipt => derived::<Receipt>(),
        SchemaName::ClientConfig => derived::<ClientConfig>(),
        SchemaName::Session => derived::<Session>(),
    };
    tidy(&mut schema);
    sorted(&schema)
}

/// The schema as it is committed and printed: indented, with sorted keys and a newline at its end.
pub fn text(name: SchemaName) -> String {
    format!("{:#}\n", schema(name))
}

fn derived<T: schemars::JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Makes of what the derive says what a reader expects: no `uint32`, `double` and their like, which are no formats of
/// JSON Schema (strict validators say so), and no line breaks where a comment in Rust happens to have one.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let machine = |format: &str| {
                format.starts_with("int") || format.starts_with("uint") || format == "double"
            };
            if map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(machine)
            {
                map.remove("format");
            }
            if let Some(Value::String(description)) = map.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_found_by_its_name() {
        for name in SchemaName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let error = "instructions"
            .parse::<SchemaName>()
            .expect_err("no such schema");
        insta::assert_snapshot!(error, @r#"there is no schema "instructions"; there are instruction, receipt, client-config and session"#);
    }
}
