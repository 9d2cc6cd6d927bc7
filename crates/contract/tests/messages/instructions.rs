//! Any valid instruction, for properties.

use contract::instruction::{Attachment, Author, Content, Fingerprint, UndoTarget};
use contract::{Action, BlobId, Change, Instruction, InstructionId, SitePath, Timestamp};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

pub(crate) fn any_instruction() -> impl Strategy<Value = Instruction> {
    let session = prop_oneof![
        ("[a-z0-9][a-z0-9_-]{0,56}", option::of(any_thread()))
            .prop_map(|(session, thread)| (Some(session), thread)),
        any_thread().prop_map(|thread| (None, Some(thread))),
    ];
    (
        any_id(),
        "[a-z0-9]([a-z0-9]|-[a-z0-9]){1,11}",
        session,
        option::of(line(1..=64)),
        option::of(any_author()),
        // The years 1970 to 9999.
        0_i64..253_402_207_200_000,
        any_action(),
    )
        .prop_map(
            |(instruction_id, client, (session, thread), user_id, author, submitted, action)| {
                let mut instruction = Instruction {
                    instruction_id,
                    client_id: client.parse().expect("a client id"),
                    session_id: session.map(|text| text.parse().expect("a session id")),
                    thread_id: thread.map(|text| text.parse().expect("a thread id")),
                    user_id,
                    author,
                    submitted_at: Timestamp::from_unix_ms(submitted),
                    action,
                    fingerprint: Fingerprint(String::new()),
                };
                instruction.fingerprint = Fingerprint::of(&instruction);
                instruction
            },
        )
}

fn any_id() -> impl Strategy<Value = InstructionId> {
    "[A-Za-z0-9._:-]{1,128}"
        .prop_filter("last means something else", |text| text != "last")
        .prop_map(|text| text.parse().expect("an instruction id"))
}

fn any_thread() -> impl Strategy<Value = String> {
    line(1..=64)
}

/// Text of any characters (of at most four bytes each) but control characters.
fn line(characters: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(
        any::<char>().prop_filter("no control characters", |c| !c.is_control()),
        characters,
    )
    .prop_map(|characters| characters.into_iter().collect())
}

fn any_author() -> impl Strategy<Value = Author> {
    (
        "[^<>\\p{Cc}]{0,20}[a-zé][^<>\\p{Cc}]{0,20}",
        "[^@<>\\s\\p{Cc}\u{feff}]{1,30}@[^@<>\\s\\p{Cc}\u{feff}]{1,30}",
    )
        .prop_map(|(name, email)| Author { name, email })
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(any_change(), 1..5).prop_map(|changes| Action::Edit { changes }),
        2 => (".{0,100}[a-z]", prop::collection::vec(any_attachment(), 0..3))
            .prop_map(|(text, attachments)| Action::Prompt { text, attachments }),
        1 => any_id().prop_map(|id| Action::Undo { target: UndoTarget::Instruction(id) }),
        1 => Just(Action::Undo { target: UndoTarget::Last }),
        1 => option::of(any_id()).prop_map(|up_to| Action::Publish { up_to }),
        1 => Just(Action::Discard),
        1 => Just(Action::Sync),
        1 => any_id().prop_map(|instruction_id| Action::Cancel { instruction_id }),
    ]
}

fn any_attachment() -> impl Strategy<Value = Attachment> {
    ("[^/\\\\\\p{Cc}]{0,30}[a-z]", any_content())
        .prop_map(|(name, content)| Attachment { name, content })
}

fn any_content() -> impl Strategy<Value = Content> {
    let address = prop_oneof![
        "https://[a-z0-9.:-]{1,20}(/[!-\\[\\]-~]{0,30})?",
        "s3://[a-z0-9.-]{3,20}/[!-\\[\\]-~é]{1,30}",
    ];
    prop_oneof![
        ".{0,100}".prop_map(|text| Content::Inline(text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Content::Inline),
        (address, "[0-9a-f]{64}").prop_map(|(url, sha256)| Content::Url { url, sha256 }),
    ]
}

fn any_path() -> impl Strategy<Value = SitePath> {
    let component = "[ -~éß…中]{1,20}";
    prop::collection::vec(component, 1..4)
        .prop_filter_map("not every text is a path", |components| {
            components.join("/").parse().ok()
        })
}

fn any_base() -> impl Strategy<Value = Option<BlobId>> {
    option::of("[0-9a-f]{40}".prop_map(|text| text.parse().expect("a blob id")))
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any_path(), any_content(), any_base()).prop_map(|(path, content, base)| Change::Write {
            path,
            content,
            base
        }),
        (
            any_path(),
            ".{1,50}",
            ".{0,50}",
            prop_oneof![Just(1), 1..=10_000_u32],
            any_base()
        )
            .prop_map(|(path, find, replace, expect, base)| Change::Replace {
                path,
                find,
                replace,
                expect,
                base
            }),
        (any_path(), any_base()).prop_map(|(path, base)| Change::Delete { path, base }),
        (any_path(), any_path(), any_base())
            .prop_filter("a file moves somewhere else", |(from, to, _)| from != to)
            .prop_map(|(from, to, base)| Change::Move { from, to, base }),
        ".{0,100}[a-z]".prop_map(|diff| Change::Patch { diff }),
        any_frontmatter(),
    ]
}

fn any_frontmatter() -> impl Strategy<Value = Change> {
    let part = "[^.\\p{Cc}]{1,10}";
    let key = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("."));
    let keys = prop::collection::btree_map(key, option::of(any_value()), 1..6);
    (any_path(), keys, any_base()).prop_map(|(path, keys, base)| {
        let unset = keys
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        let set = keys
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        Change::Frontmatter {
            path,
            set,
            unset,
            base,
        }
    })
}

/// Any JSON, of the kind that stands in front matter.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}
