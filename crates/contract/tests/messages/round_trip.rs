//! What holds of every instruction, and of messages that are almost one.

use std::fmt::Write as _;

use contract::instruction::{Content, Refusal};
use contract::limits::{MESSAGE_MAX_BYTES, PROBLEMS_MAX, PROMPT_MAX_BYTES};
use contract::{Action, Change, ErrorCode, Instruction, InstructionId, SchemaName, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::instructions::{any_instruction, any_value};

proptest! {
    #[test]
    fn an_instruction_survives_a_round_trip(instruction in any_instruction()) {
        let message = instruction.to_value();
        let expected = Ok(instruction);
        prop_assert_eq!(&Instruction::from_value(&message), &expected);
        prop_assert_eq!(&Instruction::parse(message.to_string().as_bytes()), &expected);
        prop_assert_eq!(&Instruction::parse(format!("{message:#}").as_bytes()), &expected);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Instruction::parse(&bytes).is_err());
    }

    #[test]
    fn a_refusal_always_says_why(value in any_value()) {
        let refusal = Instruction::from_value(&value).expect_err("no instruction");
        prop_assert!(!refusal.problems.is_empty());
    }
}

/// Every place in a message, as a JSON pointer.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(inner, &format!("{here}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                pointers(inner, &format!("{here}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// What a producer may put in the place of something.
fn any_mistake() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        " ",
        ".",
        "..",
        "last",
        "x",
        "a b",
        "a\u{7f}",
        "é",
        "edit",
        "prompt",
        "undo",
        "write",
        "delete",
        "move",
        "patch",
        "frontmatter",
        "a/b",
        "/a",
        "a@b",
        "eA==",
        "eA",
        "https://a/b",
        "s3://abc/d",
        "2026-11-22T09:30:00Z",
        ".git",
        "A",
    ];
    prop_oneof![
        4 => prop::sample::select(texts.to_vec()).prop_map(Value::from),
        1 => prop::sample::select(vec![json!(0), json!(1), json!(1.0), json!(2), json!(-1), json!(1.5)]),
        1 => prop::sample::select(vec![json!(null), json!(true), json!([]), json!({}), json!([""]), json!({ "": 1 })]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The schema is never stricter than the parser, also for what is almost valid.
    #[test]
    fn what_the_schema_refuses_the_parser_refuses(
        instruction in any_instruction(),
        mistakes in prop::collection::vec((any::<prop::sample::Index>(), any_mistake()), 0..3),
    ) {
        thread_local! {
            static VALIDATOR: jsonschema::Validator =
                jsonschema::validator_for(&contract::schema::schema(SchemaName::Instruction)).expect("the schema is one");
        }
        let mut message = instruction.to_value();
        for (place, mistake) in mistakes {
            let mut places = Vec::new();
            pointers(&message, "", &mut places);
            *message.pointer_mut(place.get(&places[..]).as_str()).expect("it was found there") = mistake;
        }
        if Instruction::from_value(&message).is_ok() {
            VALIDATOR.with(|validator| {
                let errors: Vec<String> = validator.iter_errors(&message).map(|error| error.to_string()).collect();
                prop_assert!(errors.is_empty(), "{message:#}\n{errors:#?}");
                Ok(())
            })?;
        }
    }
}

fn message() -> Value {
    json!({
        "version": 1,
        "instructionId": "one",
        "clientId": "amelia-astro",
        "threadId": "local",
        "submittedAt": "2026-11-22T09:30:00.000Z",
        "action": {
            "type": "edit",
            "changes": [
                { "op": "frontmatter", "path": "a.md", "set": { "a": { "x": 1, "b": 2 } } },
                { "op": "replace", "path": "a", "find": "a", "replace": "b" },
                { "op": "write", "path": "b", "content": "hello" },
            ],
        },
    })
}

fn read(message: &Value) -> Instruction {
    Instruction::from_value(message).expect("valid")
}

fn refused(text: &str) -> Refusal {
    Instruction::parse(text.as_bytes()).expect_err("not valid")
}

#[test]
fn an_instruction_that_is_sent_again_in_another_spelling_is_the_same() {
    let mut again = message();
    again["submittedAt"] = json!("2026-11-22T11:00:00+01:00");
    again["version"] = json!(1.0);
    again["action"]["changes"][1]["expect"] = json!(1);
    again["action"]["changes"][2] =
        json!({ "op": "write", "path": "b", "contentBase64": "aGVsbG8=" });
    assert_eq!(read(&again).fingerprint, read(&message()).fingerprint);
    assert_ne!(read(&again).submitted_at, read(&message()).submitted_at);

    let shuffled = message()
        .to_string()
        .replace(r#""b":2,"x":1"#, r#""x":1,"b":2"#);
    assert!(
        shuffled.contains(r#""x":1,"b":2"#),
        "the keys are in another order"
    );
    assert_eq!(
        Instruction::parse(shuffled.as_bytes()),
        Ok(read(&message()))
    );
}

#[test]
fn an_instruction_that_asks_for_something_else_is_another_one() {
    for (pointer, value) in [
        ("/instructionId", json!("two")),
        ("/clientId", json!("bo")),
        ("/threadId", json!("other")),
        ("/action/changes/0/set/a/b", json!(3)),
        ("/action/changes/1/replace", json!("c")),
        ("/action/changes/2/content", json!("hello ")),
        ("/action", json!({ "type": "sync" })),
    ] {
        let mut other = message();
        *other.pointer_mut(pointer).expect("there") = value;
        assert_ne!(
            read(&other).fingerprint,
            read(&message()).fingerprint,
            "{pointer}"
        );
    }
}

/// Receipts keep fingerprints: this one may never change without a new `version`.
#[test]
fn a_fingerprint_is_the_same_for_ever() {
    insta::assert_snapshot!(read(&message()).fingerprint.0, @"346d85226601becfeafc071969317c84da86803c32b58fd08a6199d052713692");
}

#[test]
fn what_the_fields_say_is_what_is_read() {
    let instruction = read(&message());
    assert_eq!(
        instruction.submitted_at,
        Timestamp::from_unix_ms(1_795_339_800_000)
    );
    let path = |text: &str| text.parse().expect("a path");
    let set = json!({ "a": { "x": 1, "b": 2 } })
        .as_object()
        .expect("an object")
        .clone();
    let changes = vec![
        Change::Frontmatter {
            path: path("a.md"),
            set,
            unset: vec![],
            base: None,
        },
        Change::Replace {
            path: path("a"),
            find: "a".into(),
            replace: "b".into(),
            expect: 1,
            base: None,
        },
        Change::Write {
            path: path("b"),
            content: Content::Inline(b"hello".to_vec()),
            base: None,
        },
    ];
    assert_eq!(instruction.action, Action::Edit { changes });
}

#[test]
fn a_refusal_carries_the_id_if_the_message_has_a_valid_one() {
    let id_of = |text: &str| refused(text).instruction_id.map(String::from);
    assert_eq!(id_of(r#"{"instructionId": "one"}"#).as_deref(), Some("one"));
    assert_eq!(
        id_of(r#"{"instructionId": "one", "version": 2}"#).as_deref(),
        Some("one")
    );
    assert_eq!(id_of(r#"{"instructionId": "o n e"}"#), None);
    assert_eq!(id_of(r#"{"instructionId": 1}"#), None);
    assert_eq!(
        id_of(r#"{"instructionId": "one", "instructionId": "two"}"#),
        None,
        "which one?"
    );
    assert_eq!(id_of(r#"{"instructionId": "one""#), None);
    assert_eq!(id_of("[]"), None);
}

#[test]
fn a_message_that_is_too_large_is_not_read_but_its_id_is() {
    let mut large = message();
    let room = MESSAGE_MAX_BYTES - large.to_string().len();
    large["action"]["changes"][2]["content"] = "x".repeat(room + "hello".len()).into();
    let text = large.to_string();
    assert_eq!(text.len(), MESSAGE_MAX_BYTES);
    assert!(
        Instruction::parse(text.as_bytes()).is_ok(),
        "the limit itself is allowed"
    );

    let refusal = refused(&format!("{text} "));
    assert_eq!(refusal.code, ErrorCode::MessageTooLarge);
    assert_eq!(
        refusal.instruction_id.as_ref().map(InstructionId::as_str),
        Some("one")
    );
    insta::assert_snapshot!(refusal, @"$: must have at most 262144 bytes, not 262145");

    large["action"]["changes"][2]["content"] = "x".repeat(room + "hello".len() + 1).into();
    let refusal = Instruction::from_value(&large).expect_err("too large");
    assert_eq!(refusal.code, ErrorCode::MessageTooLarge);
    assert_eq!(
        refusal.instruction_id.as_ref().map(InstructionId::as_str),
        Some("one")
    );

    let broken = refused(&"[".repeat(MESSAGE_MAX_BYTES + 1));
    assert_eq!(
        (broken.code, broken.instruction_id),
        (ErrorCode::MessageTooLarge, None)
    );
}

#[test]
fn a_prompt_has_its_limit() {
    let prompt = |bytes: usize| {
        let mut prompt = message();
        prompt["action"] = json!({ "type": "prompt", "text": "é".repeat(bytes / 2) });
        Instruction::from_value(&prompt)
    };
    assert!(prompt(PROMPT_MAX_BYTES).is_ok());
    let refusal = prompt(PROMPT_MAX_BYTES + 2).expect_err("too long");
    insta::assert_snapshot!(refusal, @"$.action.text: must have at most 65536 bytes, not 65538");
}

#[test]
fn a_message_with_very_many_problems_is_answered_with_few() {
    let mut hostile = message();
    let object = hostile.as_object_mut().expect("an object");
    for index in 0..10_000 {
        object.insert(format!("x{index}"), Value::Null);
    }
    let refusal = Instruction::from_value(&hostile).expect_err("unknown fields");
    assert_eq!(refusal.problems.0.len(), PROBLEMS_MAX);
    assert_eq!(
        refusal.problems.0[PROBLEMS_MAX - 1].message,
        "has 9901 more problems; mend these first"
    );
}

#[test]
fn problems_read_like_advice() {
    let texts = [
        "please change the headline".to_owned(),
        "{\n  \"version\": 1,\n  \"clientId\" \"a\"\n}".to_owned(),
        "[]".to_owned(),
        r#"{"version": 7}"#.to_owned(),
        r#"{"version": "1", "client_id": "amelia", "submittedAt": 5, "action": {"type": "publsh"}}"#.to_owned(),
        json!({
            "version": 1, "instructionId": "last", "clientId": "amelia", "clientID": "x", "threadId": null,
            "author": { "name": "x".repeat(500), "email": "amelia" }, "submittedAt": "today", "userId": "",
            "action": { "type": "edit", "changes": [
                {},
                { "op": "raplace" },
                { "op": "x".repeat(500) },
                { "op": "write", "path": "../x", "content": "a", "contentBase64": "?", "contentURL": "x", "sha256": "y" },
                { "op": "write", "path": "a", "contentUrl": "ftp://x" },
                { "op": "replace", "path": "a", "find": "", "replace": 1, "expect": 0, "base": "x" },
                { "op": "move", "from": "a", "to": "a" },
                { "op": "patch", "diff": "", "path": "a" },
                { "op": "frontmatter", "path": "a", "set": { "a..b": 1, "c": 1 }, "unset": ["c", "d", "d"] },
                { "op": "frontmatter", "path": "a" },
            ] },
        })
        .to_string(),
    ];
    let mut advice = String::new();
    for text in texts {
        let refusal = refused(&text);
        writeln!(advice, "{}", refusal.code.as_str()).expect("a String");
        for problem in refusal.problems.0 {
            writeln!(advice, "  {}: {}", problem.path, problem.message).expect("a String");
        }
    }
    insta::assert_snapshot!(advice, @r#"
    invalid_message
      $: must be JSON: expected value at line 1 column 1
    invalid_message
      $: must be JSON: expected `:` at line 3 column 14
    invalid_message
      $: must be an object, not a list
    unsupported_version
      $.version: 7 is no known version; known is 1
    unsupported_action
      $.client_id: is not known here; did you mean "clientId"?
      $.version: must be the number 1, not text
      $.instructionId: is required: an id of your own, 1 to 128 of A-Z, a-z, 0-9, . _ : and -
      $.clientId: is required: the id of the client
      $: must name the session by sessionId or threadId, or by both
      $.submittedAt: must be text, not a number
      $.action.type: "publsh" is no known action; known are edit, prompt, undo, publish, discard, sync, commit and cancel; did you mean "publish"?
    invalid_message
      $.clientID: is not known here; did you mean "clientId"?
      $.instructionId: must not be last, by which undo names the newest instruction
      $.threadId: must be text, not null; a field that is not needed is left out
      $.userId: must have 1 to 256 bytes and no control characters
      $.author.name: must have 1 to 200 bytes and no control characters
      $.author.email: must be an address with one @ and something on both sides of it, at most 254 bytes, without control characters, spaces, < and >
      $.submittedAt: a time is RFC 3339 with an offset, such as 2026-11-22T09:30:00.000Z
      $.action.changes[0].op: is required: write, replace, delete, move, patch or frontmatter
      $.action.changes[1].op: "raplace" is no known op; known are write, replace, delete, move, patch and frontmatter; did you mean "replace"?
      $.action.changes[2].op: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…" is no known op; known are write, replace, delete, move, patch and frontmatter
      $.action.changes[3].contentURL: is not known here; did you mean "contentUrl"?
      $.action.changes[3].path: a path has no . or .. component
      $.action.changes[3]: must have exactly one of content, contentBase64 and contentUrl (with sha256)
      $.action.changes[3].sha256: must stand beside contentUrl, to which it belongs
      $.action.changes[3].contentBase64: must be standard base64 (A-Z, a-z, 0-9, + and /) with = at the end and no line breaks
      $.action.changes[4].contentUrl: must be https://<host>/<path> or s3://<bucket>/<key>, at most 4096 bytes, without user, spaces and backslashes
      $.action.changes[4].sha256: is required: the SHA-256 of the bytes
      $.action.changes[5].find: must not be empty
      $.action.changes[5].replace: must be text, not a number
      $.action.changes[5].expect: must be a whole number from 1 to 10000
      $.action.changes[5].base: a git object id is 40 lower-case hexadecimal digits
      $.action.changes[6].to: must be another path than from
      $.action.changes[7].path: is not known here; known are op and diff
      $.action.changes[7].diff: must not be blank
      $.action.changes[8].set["a..b"]: a front matter key has 1 to 200 bytes without control characters, and no empty part between dots
      $.action.changes[8].unset[0]: must not be in set as well; a key is set or removed
      $.action.changes[8].unset[2]: must not be given twice; a key is removed once
      $.action.changes[9]: must name at least one key in set or unset
    "#);
}
