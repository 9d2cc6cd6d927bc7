//! Writes an instruction as the message that [`Instruction::parse`] reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Action, Attachment, Change, Content, Instruction, UndoTarget, VERSION};
use crate::id::{BlobId, InstructionId, SessionId, ThreadId};

impl Instruction {
    /// The message. Read again it gives this instruction: nothing is written that is absent or the default, and bytes
    /// that are UTF-8 stand there as text.
    pub fn to_value(&self) -> Value {
        let mut message = Map::new();
        put(&mut message, "version", VERSION);
        put(&mut message, "instructionId", self.instruction_id.as_str());
        put(&mut message, "clientId", self.client_id.as_str());
        put_some(
            &mut message,
            "sessionId",
            self.session_id.as_ref().map(SessionId::as_str),
        );
        put_some(
            &mut message,
            "threadId",
            self.thread_id.as_ref().map(ThreadId::as_str),
        );
        put_some(&mut message, "userId", self.user_id.as_deref());
        put_some(
            &mut message,
            "author",
            self.author
                .as_ref()
                .map(|author| json!({ "name": author.name, "email": author.email })),
        );
        put(&mut message, "submittedAt", self.submitted_at.to_string());
        put(&mut message, "action", action(&self.action));
        Value::Object(message)
    }
}

fn put(object: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    object.insert(name.to_owned(), value.into());
}

fn put_some(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(object, name, value);
    }
}

fn action(action: &Action) -> Map<String, Value> {
    let mut object = Map::new();
    put(&mut object, "type", action.kind());
    match action {
        Action::Edit { changes } => put(
            &mut object,
            "changes",
            changes.iter().map(change).collect::<Vec<_>>(),
        ),
        Action::Prompt { text, attachments } => {
            put(&mut object, "text", text.as_str());
            if !attachments.is_empty() {
                put(
                    &mut object,
                    "attachments",
                    attachments.iter().map(attachment).collect::<Vec<_>>(),
                );
            }
        }
        Action::Undo {
            target: UndoTarget::Last,
        } => put(&mut object, "instructionId", "last"),
        Action::Undo {
            target: UndoTarget::Instruction(id),
        }
        | Action::Cancel { instruction_id: id } => {
            put(&mut object, "instructionId", id.as_str());
        }
        Action::Publish { up_to } => {
            put_some(
                &mut object,
                "upTo",
                up_to.as_ref().map(InstructionId::as_str),
            );
        }
        Action::Discard | Action::Sync | Action::Commit => {}
    }
    object
}

fn attachment(attachment: &Attachment) -> Value {
    let mut object = Map::new();
    put(&mut object, "name", attachment.name.as_str());
    put_content(&mut object, &attachment.content);
    Value::Object(object)
}

fn change(change: &Change) -> Value {
    let mut object = Map::new();
    put(&mut object, "op", change.op());
    let base = match change {
        Change::Write {
            path,
            content,
            base,
        } => {
            put(&mut object, "path", path.as_str());
            put_content(&mut object, content);
            base.as_ref()
        }
        Change::Replace {
            path,
            find,
            replace,
            expect,
            base,
        } => {
            put(&mut object, "path", path.as_str());
            put(&mut object, "find", find.as_str());
            put(&mut object, "replace", replace.as_str());
            put_some(&mut object, "expect", (*expect != 1).then_some(*expect));
            base.as_ref()
        }
        Change::Delete { path, base } => {
            put(&mut object, "path", path.as_str());
            base.as_ref()
        }
        Change::Move { from, to, base } => {
            put(&mut object, "from", from.as_str());
            put(&mut object, "to", to.as_str());
            base.as_ref()
        }
        Change::Patch { diff } => {
            put(&mut object, "diff", diff.as_str());
            None
        }
        Change::Frontmatter {
            path,
            set,
            unset,
            base,
        } => {
            put(&mut object, "path", path.as_str());
            put_some(&mut object, "set", (!set.is_empty()).then(|| set.clone()));
            put_some(
                &mut object,
                "unset",
                (!unset.is_empty()).then(|| unset.clone()),
            );
            base.as_ref()
        }
    };
    put_some(&mut object, "base", base.map(BlobId::as_str));
    Value::Object(object)
}

fn put_content(object: &mut Map<String, Value>, content: &Content) {
    match content {
        Content::Inline(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => put(object, "content", text),
            Err(_) => put(object, "contentBase64", STANDARD.encode(bytes)),
        },
        Content::Url { url, sha256 } => {
            put(object, "contentUrl", url.as_str());
            put(object, "sha256", sha256.as_str());
        }
    }
}
