//! Reads an instruction and finds everything that is wrong at once.
//!
//! Which code a refusal carries is decided before anything is read: a version or an action that this build does not
//! know comes first, because its producer is mended by an update and not by another message.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Action, Attachment, Author, Change, Content, Fingerprint, Instruction, Refusal, UndoTarget,
    VERSION,
};
use crate::id::InstructionId;
use crate::limits::{
    ATTACHMENT_NAME_MAX_BYTES, ATTACHMENTS_MAX, AUTHOR_EMAIL_MAX_BYTES, AUTHOR_NAME_MAX_BYTES,
    CHANGES_MAX, CONTENT_URL_MAX_BYTES, EXPECT_MAX, FILE_MAX_BYTES, KEY_MAX_BYTES,
    MESSAGE_MAX_BYTES, PROMPT_MAX_BYTES, USER_ID_MAX_BYTES,
};
use crate::problem::Problems;
use crate::reader::{Fields, Node, Path, Report, from_json, listed, whole};
use crate::receipt::ErrorCode;

// What stands in a message is smaller than any file may be, decoded or not, so it needs no limit of its own.
const _: () = assert!(MESSAGE_MAX_BYTES <= FILE_MAX_BYTES);

/// Reads one object whose kind is known.
type Read<T> = fn(&Node<'_>) -> Option<T>;

const ACTIONS: [(&str, Read<Action>); 8] = [
    ("edit", read_edit),
    ("prompt", read_prompt),
    ("undo", read_undo),
    ("publish", read_publish),
    ("discard", |node| {
        node.exact_fields(&["type"]).map(|_| Action::Discard)
    }),
    ("sync", |node| {
        node.exact_fields(&["type"]).map(|_| Action::Sync)
    }),
    ("commit", |node| {
        node.exact_fields(&["type"]).map(|_| Action::Commit)
    }),
    ("cancel", read_cancel),
];

const OPS: [(&str, Read<Change>); 6] = [
    ("write", read_write),
    ("replace", read_replace),
    ("delete", read_delete),
    ("move", read_move),
    ("patch", read_patch),
    ("frontmatter", read_frontmatter),
];

impl Instruction {
    /// Reads the bytes of a message.
    ///
    /// A field that an object names twice is a problem here, and only here: a [`Value`] has forgotten it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(too_large(bytes.len(), glance_at_id(bytes)));
        }
        let report = Report::default();
        match from_json(bytes, &report) {
            Ok(value) => read_message(&value, report),
            Err(error) => Err(refuse(
                ErrorCode::InvalidMessage,
                format!("must be JSON: {error}"),
                None,
            )),
        }
    }

    /// Reads a message that is JSON already, such as one of several in a list.
    pub fn from_value(value: &Value) -> Result<Self, Refusal> {
        let length = value.to_string().len();
        if length > MESSAGE_MAX_BYTES {
            return Err(too_large(length, id_of(value)));
        }
        read_message(value, Report::default())
    }
}

fn too_large(length: usize, instruction_id: Option<InstructionId>) -> Refusal {
    let message = format!("must have at most {MESSAGE_MAX_BYTES} bytes, not {length}");
    refuse(ErrorCode::MessageTooLarge, message, instruction_id)
}

/// Refuses a message for one reason that concerns all of it.
fn refuse(code: ErrorCode, message: String, instruction_id: Option<InstructionId>) -> Refusal {
    let mut problems = Problems::default();
    problems.push("$", message);
    Refusal {
        code,
        problems,
        instruction_id,
    }
}

/// The id of a message that is too large to be read: everything else is skipped over, not kept.
fn glance_at_id(bytes: &[u8]) -> Option<InstructionId> {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(rename = "instructionId")]
        instruction_id: InstructionId,
    }
    serde_json::from_slice::<Envelope>(bytes)
        .ok()
        .map(|envelope| envelope.instruction_id)
}

fn id_of(value: &Value) -> Option<InstructionId> {
    value.get("instructionId")?.as_str()?.parse().ok()
}

fn read_message(value: &Value, report: Report) -> Result<Instruction, Refusal> {
    let code = code_of(value);
    let instruction = if code == ErrorCode::UnsupportedVersion {
        // What else this message must be is for its own version to say.
        report_version(&value["version"], &report);
        None
    } else {
        read_instruction(&Node::root(value, &report))
    };
    report.judge(instruction).map_err(|problems| {
        // Of an id that is given twice nobody knows which one was meant.
        let ambiguous = problems
            .0
            .iter()
            .any(|problem| problem.path == "$.instructionId");
        let instruction_id = if ambiguous { None } else { id_of(value) };
        Refusal {
            code,
            problems,
            instruction_id,
        }
    })
}

/// What the refusal of this message would be called.
fn code_of(value: &Value) -> ErrorCode {
    if value["version"].is_number() && whole(&value["version"]) != Some(VERSION) {
        return ErrorCode::UnsupportedVersion;
    }
    match value["action"]["type"].as_str() {
        Some(kind) if !Action::KINDS.contains(&kind) => ErrorCode::UnsupportedAction,
        _ => ErrorCode::InvalidMessage,
    }
}

fn report_version(version: &Value, report: &Report) {
    let message = format!("{version} is no known version; known is {VERSION}");
    report.add(&Path::Field(&Path::Root, "version"), message);
}

fn read_instruction(root: &Node<'_>) -> Option<Instruction> {
    let fields = root.exact_fields(&[
        "version",
        "instructionId",
        "clientId",
        "sessionId",
        "threadId",
        "userId",
        "author",
        "submittedAt",
        "action",
    ])?;
    let version = fields
        .required("version", "the number 1")
        .and_then(|node| node.whole_number(VERSION..=VERSION));
    let instruction_id = fields
        .required(
            "instructionId",
            "an id of your own, 1 to 128 of A-Z, a-z, 0-9, . _ : and -",
        )
        .and_then(|node| read_own_id(&node));
    let client_id = fields
        .required("clientId", "the id of the client")
        .and_then(|node| node.parse());
    let session_id = fields.optional("sessionId").and_then(|node| node.parse());
    let thread_id = fields.optional("threadId").and_then(|node| node.parse());
    if !fields.has("sessionId") && !fields.has("threadId") {
        fields
            .node()
            .wrong::<()>("must name the session by sessionId or threadId, or by both");
    }
    let user_id = fields
        .optional("userId")
        .and_then(|node| node.checked(|text| line(text, USER_ID_MAX_BYTES)));
    let author = fields
        .optional("author")
        .and_then(|node| read_author(&node));
    let submitted_at = fields
        .required(
            "submittedAt",
            "when the person asked, such as 2026-11-22T09:30:00.000Z",
        )
        .and_then(|node| node.parse());
    let action = fields
        .required("action", "an object with a type")
        .and_then(|node| node.tag("type", "action", &ACTIONS)?(&node));

    version?;
    let mut instruction = Instruction {
        instruction_id: instruction_id?,
        client_id: client_id?,
        session_id,
        thread_id,
        user_id,
        author,
        submitted_at: submitted_at?,
        action: action?,
        fingerprint: Fingerprint(String::new()),
    };
    instruction.fingerprint = Fingerprint::of(&instruction);
    Some(instruction)
}

fn read_own_id(node: &Node<'_>) -> Option<InstructionId> {
    let id: InstructionId = node.parse()?;
    if id.as_str() == "last" {
        return node.wrong("must not be last, by which undo names the newest instruction");
    }
    Some(id)
}

fn read_author(node: &Node<'_>) -> Option<Author> {
    let fields = node.exact_fields(&["name", "email"])?;
    let name = fields
        .required("name", "the person's name")
        .and_then(|node| node.checked(check_name));
    let email = fields
        .required("email", "the person's address")
        .and_then(|node| node.checked(check_email));
    Some(Author {
        name: name?,
        email: email?,
    })
}

fn read_edit(node: &Node<'_>) -> Option<Action> {
    let fields = node.exact_fields(&["type", "changes"])?;
    let list = fields.required("changes", "a list of changes")?;
    let read = |change: Node<'_>| change.tag("op", "op", &OPS)?(&change);
    let changes: Vec<Option<Change>> = list.items(CHANGES_MAX)?.map(read).collect();
    if changes.is_empty() {
        return list.wrong("must have at least one change");
    }
    Some(Action::Edit {
        changes: changes.into_iter().collect::<Option<_>>()?,
    })
}

fn read_prompt(node: &Node<'_>) -> Option<Action> {
    let fields = node.exact_fields(&["type", "text", "attachments"])?;
    let text = fields
        .required("text", "what the person wrote")
        .and_then(|node| {
            node.checked(|text| {
                if text.len() > PROMPT_MAX_BYTES {
                    return Err(format!(
                        "must have at most {PROMPT_MAX_BYTES} bytes, not {}",
                        text.len()
                    ));
                }
                not_blank(text)
            })
        });
    let attachments = match fields.optional("attachments") {
        Some(list) => list
            .items(ATTACHMENTS_MAX)?
            .map(|node| read_attachment(&node))
            .collect(),
        None => Vec::new(),
    };
    Some(Action::Prompt {
        text: text?,
        attachments: attachments.into_iter().collect::<Option<_>>()?,
    })
}

fn read_attachment(node: &Node<'_>) -> Option<Attachment> {
    let fields =
        node.exact_fields(&["name", "content", "contentBase64", "contentUrl", "sha256"])?;
    let name = fields
        .required("name", "the name of the file")
        .and_then(|node| node.checked(check_file_name));
    let content = read_content(&fields);
    Some(Attachment {
        name: name?,
        content: content?,
    })
}

fn read_undo(node: &Node<'_>) -> Option<Action> {
    let fields = node.exact_fields(&["type", "instructionId"])?;
    let target: UndoTarget = fields
        .required("instructionId", "the id of an instruction, or last")
        .and_then(|node| node.parse())?;
    Some(Action::Undo { target })
}

fn read_publish(node: &Node<'_>) -> Option<Action> {
    let fields = node.exact_fields(&["type", "upTo"])?;
    Some(Action::Publish {
        up_to: fields.optional("upTo").and_then(|node| node.parse()),
    })
}

fn read_cancel(node: &Node<'_>) -> Option<Action> {
    let fields = node.exact_fields(&["type", "instructionId"])?;
    let instruction_id = fields
        .required("instructionId", "the id of an instruction")
        .and_then(|node| node.parse())?;
    Some(Action::Cancel { instruction_id })
}

fn read_write(node: &Node<'_>) -> Option<Change> {
    let fields = node.exact_fields(&[
        "op",
        "path",
        "content",
        "contentBase64",
        "contentUrl",
        "sha256",
        "base",
    ])?;
    let path = fields.required("path", PATH).and_then(|node| node.parse());
    let content = read_content(&fields);
    let base = fields.optional("base").and_then(|node| node.parse());
    Some(Change::Write {
        path: path?,
        content: content?,
        base,
    })
}

fn read_replace(node: &Node<'_>) -> Option<Change> {
    let fields = node.exact_fields(&["op", "path", "find", "replace", "expect", "base"])?;
    let path = fields.required("path", PATH).and_then(|node| node.parse());
    let find = fields
        .required("find", "the text to find")
        .and_then(|node| node.checked(not_empty));
    let replace = fields
        .required("replace", "the text to put in its place")
        .and_then(|node| node.text());
    let expect = fields
        .optional("expect")
        .and_then(|node| node.whole_number(1..=u64::from(EXPECT_MAX)));
    let base = fields.optional("base").and_then(|node| node.parse());
    Some(Change::Replace {
        path: path?,
        find: find?,
        replace: replace?.to_owned(),
        expect: expect.map_or(1, |count| {
            u32::try_from(count).expect("EXPECT_MAX is a u32")
        }),
        base,
    })
}

fn read_delete(node: &Node<'_>) -> Option<Change> {
    let fields = node.exact_fields(&["op", "path", "base"])?;
    let path = fields.required("path", PATH).and_then(|node| node.parse());
    let base = fields.optional("base").and_then(|node| node.parse());
    Some(Change::Delete { path: path?, base })
}

fn read_move(node: &Node<'_>) -> Option<Change> {
    let fields = node.exact_fields(&["op", "from", "to", "base"])?;
    let from = fields.required("from", PATH).and_then(|node| node.parse());
    let to = fields.required("to", PATH).and_then(|node| node.parse());
    let base = fields.optional("base").and_then(|node| node.parse());
    let (from, to) = (from?, to?);
    if from == to {
        fields.report("to", "must be another path than from");
    }
    Some(Change::Move { from, to, base })
}

fn read_patch(node: &Node<'_>) -> Option<Change> {
    let fields = node.exact_fields(&["op", "diff"])?;
    let diff = fields
        .required("diff", "the output of git diff")
        .and_then(|node| node.checked(not_blank))?;
    Some(Change::Patch { diff })
}

fn read_frontmatter(node: &Node<'_>) -> Option<Change> {
    let fields = node.exact_fields(&["op", "path", "set", "unset", "base"])?;
    let path = fields.required("path", PATH).and_then(|node| node.parse());
    let base = fields.optional("base").and_then(|node| node.parse());
    let set = fields.optional("set");
    let unset = fields.optional("unset");
    let set = set.as_ref().map_or_else(|| Some(Map::new()), read_set);
    let unset = unset
        .as_ref()
        .map_or_else(|| Some(Vec::new()), |node| read_unset(node, set.as_ref()));
    let (set, unset) = (set?, unset?);
    if set.is_empty() && unset.is_empty() {
        return fields
            .node()
            .wrong("must name at least one key in set or unset");
    }
    Some(Change::Frontmatter {
        path: path?,
        set,
        unset,
        base,
    })
}

fn read_set(node: &Node<'_>) -> Option<Map<String, Value>> {
    let mut set = Map::new();
    for (key, entry) in node.entries()? {
        if let Err(message) = check_key(key) {
            entry.wrong::<()>(message);
        }
        set.insert(key.to_owned(), entry.value().clone());
    }
    Some(set)
}

fn read_unset(node: &Node<'_>, set: Option<&Map<String, Value>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let read = |item: Node<'_>| {
        let key = item.checked(check_key)?;
        if set.is_some_and(|set| set.contains_key(&key)) {
            return item.wrong("must not be in set as well; a key is set or removed");
        }
        if !seen.insert(key.clone()) {
            return item.wrong("must not be given twice; a key is removed once");
        }
        Some(key)
    };
    // The size of the message bounds how many there can be.
    let keys: Vec<Option<String>> = node.items(usize::MAX)?.map(read).collect();
    keys.into_iter().collect()
}

/// The bytes of a file in one of their three forms. All that are there are read, so that their own mistakes show too.
fn read_content(fields: &Fields<'_>) -> Option<Content> {
    const FORMS: [&str; 3] = ["content", "contentBase64", "contentUrl"];
    let forms = FORMS.iter().filter(|form| fields.has(form)).count();
    if forms != 1 {
        let forms = listed(FORMS, "and");
        fields
            .node()
            .wrong::<()>(format!("must have exactly one of {forms} (with sha256)"));
    }
    if fields.has("sha256") && !fields.has("contentUrl") {
        fields.report(
            "sha256",
            "must stand beside contentUrl, to which it belongs",
        );
    }
    let text = fields
        .optional("content")
        .and_then(|node| node.text())
        .map(|text| Content::Inline(text.into()));
    let decoded = fields
        .optional("contentBase64")
        .and_then(|node| read_base64(&node))
        .map(Content::Inline);
    let elsewhere = fields.optional("contentUrl").and_then(|node| {
        let url = node.checked(check_content_url);
        let sha256 = fields
            .required("sha256", "the SHA-256 of the bytes")
            .and_then(|node| node.checked(check_sha256));
        Some(Content::Url {
            url: url?,
            sha256: sha256?,
        })
    });
    text.or(decoded).or(elsewhere)
}

fn read_base64(node: &Node<'_>) -> Option<Vec<u8>> {
    let Ok(bytes) = STANDARD.decode(node.text()?) else {
        return node.wrong(
            "must be standard base64 (A-Z, a-z, 0-9, + and /) with = at the end and no line breaks",
        );
    };
    Some(bytes)
}

const PATH: &str = "a path from the site root, such as src/pages/index.astro";

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(())
    }
}

fn not_blank(text: &str) -> Result<(), String> {
    if text.chars().all(is_space) {
        Err("must not be blank".to_owned())
    } else {
        Ok(())
    }
}

/// White space, as Unicode has it and as the regular expressions of the schema have it, to which a byte order mark
/// belongs.
fn is_space(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

/// One line of text that is not empty.
fn line(text: &str, max_bytes: usize) -> Result<(), String> {
    if (1..=max_bytes).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!(
        "must have 1 to {max_bytes} bytes and no control characters"
    ))
}

fn check_name(name: &str) -> Result<(), String> {
    // What git strips from both ends of a name; of a name that is nothing else, nothing would be left.
    let stripped = |c: char| is_space(c) || ".,:;\"'\\".contains(c);
    line(name, AUTHOR_NAME_MAX_BYTES)?;
    if name.contains(['<', '>']) {
        return Err("must not contain < or >".to_owned());
    }
    if name.chars().all(stripped) {
        return Err("must have more than spaces and punctuation".to_owned());
    }
    Ok(())
}

fn check_email(email: &str) -> Result<(), String> {
    let forbidden = |c: char| c.is_control() || is_space(c) || c == '<' || c == '>';
    let (local, host) = email.split_once('@').unwrap_or_default();
    let shaped = !local.is_empty() && !host.is_empty() && !host.contains('@');
    if shaped && email.len() <= AUTHOR_EMAIL_MAX_BYTES && !email.contains(forbidden) {
        return Ok(());
    }
    Err(format!(
        "must be an address with one @ and something on both sides of it, at most {AUTHOR_EMAIL_MAX_BYTES} bytes, \
         without control characters, spaces, < and >"
    ))
}

fn check_file_name(name: &str) -> Result<(), String> {
    line(name, ATTACHMENT_NAME_MAX_BYTES)?;
    if name == "." || name == ".." || name.contains(['/', '\\']) {
        return Err("must be the name of a file, without folders".to_owned());
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), String> {
    let parts = key.split('.').all(|part| !part.is_empty());
    if parts && key.len() <= KEY_MAX_BYTES && !key.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!(
        "a front matter key has 1 to {KEY_MAX_BYTES} bytes without control characters, and no empty part between dots"
    ))
}

fn check_sha256(text: &str) -> Result<(), String> {
    if text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Ok(());
    }
    Err("must be a SHA-256: 64 lower-case hexadecimal digits".to_owned())
}

/// Whether an address has one of the two forms that are fetched. Whether it *may* be fetched is the client's to say.
fn check_content_url(url: &str) -> Result<(), String> {
    // White space, control characters and backslashes are what parsers of addresses disagree about.
    let plain = !url.contains(|c: char| c.is_control() || is_space(c) || c == '\\');
    let shaped = if let Some(rest) = url.strip_prefix("https://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // `https://allowed.example@elsewhere.example/` is not at allowed.example.
        !host.is_empty() && !host.contains('@')
    } else if let Some(rest) = url.strip_prefix("s3://") {
        rest.split_once('/')
            .is_some_and(|(bucket, key)| is_bucket(bucket) && !key.is_empty())
    } else {
        false
    };
    if plain && shaped && url.len() <= CONTENT_URL_MAX_BYTES {
        return Ok(());
    }
    Err(format!(
        "must be https://<host>/<path> or s3://<bucket>/<key>, at most {CONTENT_URL_MAX_BYTES} bytes, without user, \
         spaces and backslashes"
    ))
}

fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}
