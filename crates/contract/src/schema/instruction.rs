//! The schema of an instruction, by hand: one branch an action, one branch an op, nothing else allowed.
//!
//! JSON Schema counts characters where we count bytes. A text has never more characters than bytes, so that our limits
//! in characters refuse nothing that is valid.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::id::{BlobId, ClientId, InstructionId, SessionId, ThreadId};
use crate::instruction::VERSION;
use crate::limits::{
    ATTACHMENT_NAME_MAX_BYTES, ATTACHMENTS_MAX, AUTHOR_EMAIL_MAX_BYTES, AUTHOR_NAME_MAX_BYTES,
    CHANGES_MAX, CONTENT_URL_MAX_BYTES, EXPECT_MAX, KEY_MAX_BYTES, MESSAGE_MAX_BYTES,
    PROMPT_MAX_BYTES, USER_ID_MAX_BYTES,
};
use crate::site_path::SitePath;
use crate::timestamp::Timestamp;

/// No control characters.
const LINE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// Something that git does not strip.
const AUTHOR_NAME: &str =
    r#"^[^<>\x00-\x1f\x7f-\x9f]*[^<>\x00-\x1f\x7f-\x9f\s.,:;"'\\][^<>\x00-\x1f\x7f-\x9f]*$"#;
const AUTHOR_EMAIL: &str = r"^[^@<>\s\x00-\x1f\x7f-\x9f]+@[^@<>\s\x00-\x1f\x7f-\x9f]+$";
const FILE_NAME: &str = r"^(?!\.{1,2}$)[^/\\\x00-\x1f\x7f-\x9f]+$";
const KEY: &str = r"^[^.\x00-\x1f\x7f-\x9f]+(\.[^.\x00-\x1f\x7f-\x9f]+)*$";
const BASE64: &str = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$";
const SHA256: &str = "^[0-9a-f]{64}$";
const CONTENT_URL: &str =
    r"^(https://[^/?#@\s\\]+([/?#][^\s\\]*)?|s3://[a-z0-9.-]{3,63}/[^\s\\]+)$";
/// Something that can be seen.
const NOT_BLANK: &str = r"\S";

pub(super) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Instruction",
        "description": format!(
            "One request to change a site. At most {MESSAGE_MAX_BYTES} bytes of UTF-8, every field once. Lengths are \
             in bytes where the parser looks at them."
        ),
        "type": "object",
        "properties": {
            "version": { "description": "The version of this message.", "const": VERSION },
            "instructionId": {
                "description": "The idempotency key: the same id with the same body is the same instruction.",
                "$ref": "#/$defs/instructionId",
                "not": { "const": "last" },
            },
            "clientId": of::<ClientId>(),
            "sessionId": of::<SessionId>(),
            "threadId": of::<ThreadId>(),
            "userId": {
                "description": "The producer's name for the person.",
                "type": "string", "minLength": 1, "maxLength": USER_ID_MAX_BYTES, "pattern": LINE,
            },
            "author": {
                "description": "The person, as the author of the commit.",
                "type": "object",
                "properties": {
                    "name": {
                        "type": "string", "minLength": 1, "maxLength": AUTHOR_NAME_MAX_BYTES, "pattern": AUTHOR_NAME,
                    },
                    "email": {
                        "type": "string", "minLength": 3, "maxLength": AUTHOR_EMAIL_MAX_BYTES, "pattern": AUTHOR_EMAIL,
                    },
                },
                "required": ["name", "email"],
                "additionalProperties": false,
            },
            "submittedAt": described(of::<Timestamp>(), "When the person asked."),
            "action": { "$ref": "#/$defs/action" },
        },
        "required": ["version", "instructionId", "clientId", "submittedAt", "action"],
        "anyOf": [{ "required": ["sessionId"] }, { "required": ["threadId"] }],
        "additionalProperties": false,
        "$defs": {
            "instructionId": of::<InstructionId>(),
            "path": of::<SitePath>(),
            "base": described(
                of::<BlobId>(),
                "The version of the file that the author saw: its git blob id. If the file has changed since, the two \
                 changes are merged, or the instruction is refused as stale.",
            ),
            "key": {
                "description": "A front matter key. Dots reach into mappings: seo.title.",
                "type": "string", "minLength": 1, "maxLength": KEY_MAX_BYTES, "pattern": KEY,
            },
            "action": action(),
            "change": change(),
            "attachment": attachment(),
        },
    })
}

fn action() -> Value {
    let id = json!({ "$ref": "#/$defs/instructionId" });
    json!({
        "description": "What is asked.",
        "oneOf": [
            branch("type", "edit", "Structured changes: all of them or none.", &["changes"], json!({
                "changes": {
                    "description": "In order; a later change sees what an earlier one did.",
                    "type": "array", "minItems": 1, "maxItems": CHANGES_MAX, "items": { "$ref": "#/$defs/change" },
                },
            })),
            branch("type", "prompt", "Plain words, carried out by the editor.", &["text"], json!({
                "text": {
                    "description": "What the person wrote.",
                    "type": "string", "minLength": 1, "maxLength": PROMPT_MAX_BYTES, "pattern": NOT_BLANK,
                },
                "attachments": {
                    "description": "Files that came with it.",
                    "type": "array", "maxItems": ATTACHMENTS_MAX, "items": { "$ref": "#/$defs/attachment" },
                },
            })),
            branch("type", "undo", "Take one instruction back.", &["instructionId"], json!({
                "instructionId": described(id.clone(), "Which one; last is the newest of the draft that stands."),
            })),
            branch("type", "publish", "Bring the draft to the published branch.", &[], json!({
                "upTo": described(id.clone(), "The last instruction to publish; all if absent."),
            })),
            branch("type", "discard", "Bring the draft back to what is published.", &[], json!({})),
            branch("type", "sync", "Bring the published branch into the draft.", &[], json!({})),
            branch("type", "commit",
                "Make what was changed by hand in the workspace a commit of the draft: all of it, and nothing else.", &[], json!({})),
            branch("type", "cancel", "Do not carry out an instruction that has not been carried out yet.",
                &["instructionId"], json!({ "instructionId": described(id, "Which one.") })),
        ],
    })
}

fn change() -> Value {
    let path = json!({ "$ref": "#/$defs/path" });
    let base = json!({ "$ref": "#/$defs/base" });
    let key = json!({ "$ref": "#/$defs/key" });
    let mut write = branch(
        "op",
        "write",
        "Make the file have this content; it may be new.",
        &["path"],
        json!({ "path": path, "base": base }),
    );
    add_content(&mut write);
    let mut frontmatter = branch(
        "op",
        "frontmatter",
        "Set and remove keys of a file's YAML front matter; every other byte stays. No key is both set and removed.",
        &["path"],
        json!({
            "path": path,
            "set": { "description": "Keys to set.", "type": "object", "propertyNames": key },
            "unset": { "description": "Keys to remove.", "type": "array", "uniqueItems": true, "items": key },
            "base": base,
        }),
    );
    frontmatter["anyOf"] = json!([
        { "required": ["set"], "properties": { "set": { "minProperties": 1 } } },
        { "required": ["unset"], "properties": { "unset": { "minItems": 1 } } },
    ]);
    json!({
        "description": "One structured change to one file (a patch: to several).",
        "oneOf": [
            write,
            branch("op", "replace", "Replace a text that occurs exactly as often as expected.",
                &["path", "find", "replace"], json!({
                    "path": path,
                    "find": { "description": "The text to find, byte for byte.", "type": "string", "minLength": 1 },
                    "replace": { "description": "What to put in its place.", "type": "string" },
                    "expect": {
                        "description": "How often the text must occur.",
                        "type": "integer", "minimum": 1, "maximum": EXPECT_MAX, "default": 1,
                    },
                    "base": base,
                })),
            branch("op", "delete", "Remove the file.", &["path"], json!({ "path": path, "base": base })),
            branch("op", "move", "Give the file another path, which must be free.", &["from", "to"],
                json!({ "from": path, "to": path, "base": base })),
            branch("op", "patch", "Apply a git patch, strictly: no fuzz.", &["diff"], json!({
                "diff": {
                    "description": "The output of git diff (also --binary, renames, new and deleted files).",
                    "type": "string", "minLength": 1, "pattern": NOT_BLANK,
                },
            })),
            frontmatter,
        ],
    })
}

fn attachment() -> Value {
    let mut attachment = json!({
        "description": "A file that came with a prompt.",
        "type": "object",
        "properties": {
            "name": {
                "description": "Its name, for people, without folders.",
                "type": "string", "minLength": 1, "maxLength": ATTACHMENT_NAME_MAX_BYTES, "pattern": FILE_NAME,
            },
        },
        "required": ["name"],
        "additionalProperties": false,
    });
    add_content(&mut attachment);
    attachment
}

/// Adds the bytes of a file in exactly one of their three forms.
fn add_content(object: &mut Value) {
    object["properties"]["content"] =
        json!({ "description": "The file as text.", "type": "string" });
    object["properties"]["contentBase64"] = json!({
        "description": "The file as standard base64, padded, without line breaks.",
        "type": "string", "contentEncoding": "base64", "pattern": BASE64,
    });
    object["properties"]["contentUrl"] = json!({
        "description": "Where the file is, if it does not fit a message: https: or s3:.",
        "type": "string", "maxLength": CONTENT_URL_MAX_BYTES, "pattern": CONTENT_URL,
    });
    object["properties"]["sha256"] = json!({
        "description": "What the bytes behind contentUrl hash to.",
        "type": "string", "pattern": SHA256,
    });
    object["oneOf"] = json!([{ "required": ["content"] }, { "required": ["contentBase64"] }, { "required": ["contentUrl"] }]);
    object["dependentRequired"] = json!({ "contentUrl": ["sha256"], "sha256": ["contentUrl"] });
}

/// An object whose field `tag` is `word`.
fn branch(tag: &str, word: &str, description: &str, required: &[&str], properties: Value) -> Value {
    let mut properties = properties;
    properties[tag] = json!({ "const": word });
    let required: Vec<_> = [&[tag], required].concat();
    json!({
        "title": word,
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema of an id or a path, whose grammar stands with its type.
fn of<T: JsonSchema>() -> Value {
    T::json_schema(&mut SchemaGenerator::default()).to_value()
}

fn described(schema: Value, description: &str) -> Value {
    let Value::Object(mut map) = schema else {
        return Value::Object(Map::new());
    };
    map.insert("description".to_owned(), description.into());
    Value::Object(map)
}
