//! The examples under `fixtures/instructions`, read by the parser and by the schema.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use contract::{Action, Change, Instruction, SchemaName};
use serde::Deserialize;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/instructions");

/// The text of every example in a folder, by its name.
fn examples(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(FOLDER).join(folder);
    let mut examples: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of examples can be listed")
        .map(|entry| entry.expect("the folder of examples can be listed").path())
        .map(|path| {
            let name = path
                .file_name()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned();
            (
                name,
                fs::read_to_string(&path).expect("an example can be read"),
            )
        })
        .collect();
    examples.sort();
    assert!(!examples.is_empty(), "{} is empty", folder.display());
    examples
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&contract::schema::schema(SchemaName::Instruction))
        .expect("the schema is one")
}

/// An example of a refusal.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Refused {
    why: String,
    code: String,
    paths: BTreeSet<String>,
    message: Option<Value>,
    raw: Option<String>,
    #[serde(default)]
    spaces_appended: usize,
    beyond_schema: Option<String>,
}

#[test]
fn every_valid_example_is_read_and_survives_a_round_trip() {
    for (name, text) in examples("valid") {
        let instruction = Instruction::parse(text.as_bytes())
            .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let written = instruction.to_value();
        assert_eq!(
            Instruction::from_value(&written).as_ref(),
            Ok(&instruction),
            "{name}"
        );
        assert_eq!(instruction.client_id.as_str(), "amelia-astro", "{name}");
    }
}

#[test]
fn every_valid_example_is_valid_to_the_schema() {
    let validator = validator();
    for (name, text) in examples("valid") {
        let message: Value = serde_json::from_str(&text).expect("JSON");
        let errors: Vec<String> = validator
            .iter_errors(&message)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

#[test]
fn there_is_an_example_of_every_action_and_every_op() {
    let instructions: Vec<_> = examples("valid")
        .iter()
        .map(|(name, text)| {
            Instruction::parse(text.as_bytes())
                .unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
        })
        .collect();
    let kinds: BTreeSet<_> = instructions
        .iter()
        .map(|instruction| instruction.action.kind())
        .collect();
    assert_eq!(kinds, BTreeSet::from(Action::KINDS));

    let ops: BTreeSet<_> = instructions
        .iter()
        .filter_map(|instruction| match &instruction.action {
            Action::Edit { changes } => Some(changes.iter().map(Change::op)),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(ops, BTreeSet::from(Change::OPS));
}

#[test]
fn every_refused_example_is_refused_with_its_code_and_exactly_its_paths() {
    let mut wrong = Vec::new();
    for (name, text) in examples("refused") {
        let example: Refused =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!example.why.is_empty(), "{name} says why");
        let mut bytes = match (&example.message, &example.raw) {
            (Some(message), None) => message.to_string(),
            (None, Some(raw)) => raw.clone(),
            _ => panic!("{name} has either a message or raw text"),
        };
        bytes.push_str(&" ".repeat(example.spaces_appended));

        let Err(refusal) = Instruction::parse(bytes.as_bytes()) else {
            wrong.push(format!("{name} is not refused"));
            continue;
        };
        let paths: BTreeSet<String> = refusal
            .problems
            .0
            .iter()
            .map(|problem| problem.path.clone())
            .collect();
        if refusal.code.as_str() != example.code || paths != example.paths {
            wrong.push(format!("{name}: {} {refusal}", refusal.code.as_str()));
        }
        if refusal.problems.0.len() != paths.len() {
            wrong.push(format!("{name} names a path twice: {refusal}"));
        }
        if let Some(message) = example.message.filter(|_| example.spaces_appended == 0)
            && Instruction::from_value(&message) != Err(refusal)
        {
            wrong.push(format!("{name} is another refusal when it is JSON already"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_refused_example_is_invalid_to_the_schema_unless_it_says_why_not() {
    let validator = validator();
    for (name, text) in examples("refused") {
        let example: Refused = serde_json::from_str(&text).expect("an example");
        if let Some(message) = example.message {
            assert_eq!(
                validator.is_valid(&message),
                example.beyond_schema.is_some(),
                "{name}: {:?}",
                example.beyond_schema
            );
        }
    }
}

#[test]
fn a_refusal_never_repeats_much_of_a_message() {
    for (name, text) in examples("refused") {
        let example: Refused = serde_json::from_str(&text).expect("an example");
        let bytes = example
            .raw
            .unwrap_or_else(|| example.message.unwrap_or_default().to_string());
        for problem in Instruction::parse(bytes.as_bytes())
            .err()
            .into_iter()
            .flat_map(|refusal| refusal.problems.0)
        {
            assert!(problem.message.len() <= 200, "{name}: {problem:?}");
            assert!(
                !problem.message.contains(char::is_control),
                "{name}: {problem:?}"
            );
        }
    }
}
