//! A producer: sends instructions and follows them to their receipts.
//!
//! Where to is a [`Target`]: the door of an environment that runs, which tells what happens, or a queue, whose environment
//! may be asleep, and whose receipts are looked for in the table. What is sent and what a person reads is the same.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use contract::{Problem, Receipt, Status, Timestamp};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

mod queue;
mod target;
mod wire;
mod words;

use queue::Queue;
pub(crate) use target::Door;
use target::Target;
use wire::Stream;
pub(crate) use wire::Wire;
pub(crate) use words::moment;
use words::{Aim, words};

use crate::cli::{SendArguments, change_options};
use crate::environment::interrupt::Interrupt;
use crate::failure::{Exit, Failure};

/// How long to wait between looks while the event stream cannot be had.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Bytes read of a file given on the command line: what a message can carry, and a clear error beyond it.
const INPUT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Sends, follows, and says what became of it.
pub(crate) async fn run(arguments: SendArguments) -> Result<Exit, Failure> {
    let messages = read_messages(&arguments)?;
    let array = messages.len() != 1;
    let sent = match Target::find(&arguments)? {
        Target::Door(door) => through_door(&door, messages, &arguments).await?,
        Target::Queue(queue) => through_queue(&queue, messages, &arguments).await?,
    };
    let Some(receipts) = sent.receipts else {
        if arguments.json {
            print(&json!({ "instructionIds": sent.ids }).to_string());
        } else {
            for id in &sent.ids {
                print(&format!("accepted {id}"));
            }
        }
        return Ok(Exit::Success);
    };
    if arguments.json {
        let document = if array {
            serde_json::to_value(&receipts)
        } else {
            serde_json::to_value(&receipts[0])
        };
        print(
            &serde_json::to_string_pretty(&document.expect("a receipt is JSON"))
                .expect("a value is JSON"),
        );
    } else {
        for receipt in &receipts {
            print(&words(receipt, aim(&sent.messages, receipt)));
        }
    }
    let done = |receipt: &Receipt| match aim(&sent.messages, receipt) {
        Aim::Cancel => receipt.status == Status::Cancelled,
        Aim::Change | Aim::Undo(_) => receipt.status.landed(),
    };
    Ok(if receipts.iter().all(done) {
        Exit::Success
    } else {
        Exit::NotLanded
    })
}

/// What was sent.
struct Sent {
    messages: Vec<Value>,
    ids: Vec<String>,
    /// The final receipts in the order of the ids, if they were waited for.
    receipts: Option<Vec<Receipt>>,
}

/// To an environment that runs, which says what happens.
async fn through_door(
    door: &Door,
    messages: Vec<Value>,
    arguments: &SendArguments,
) -> Result<Sent, Failure> {
    let wire = Wire::new(door);
    let about = wire.get("/_edit/status").await?.expect_status(200)?;
    let messages: Vec<Value> = messages
        .into_iter()
        .map(|message| complete(message, &about, arguments))
        .collect();
    // Listened to before anything is sent, so that nothing is missed.
    let stream = if arguments.no_wait {
        None
    } else {
        Some(wire.events(None).await?)
    };
    let body = match &messages[..] {
        [message] => message.clone(),
        several => Value::Array(several.to_vec()),
    };
    let mut interrupt = Interrupt::listen()?;
    let answer = wire.post("/_edit/instructions", &body).await?;
    if answer.status != 202 {
        return Err(declined(answer.status, &answer.body));
    }
    let ids: Vec<String> = answer.body["instructionIds"]
        .as_array()
        .map(|ids| {
            ids.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let receipts = match stream {
        Some(stream) => Some(waited(follow(&wire, stream, &ids), &ids, &mut interrupt).await?),
        None => None,
    };
    Ok(Sent {
        messages,
        ids,
        receipts,
    })
}

/// To a queue, whether or not anybody is awake who reads it.
async fn through_queue(
    queue: &Queue,
    messages: Vec<Value>,
    arguments: &SendArguments,
) -> Result<Sent, Failure> {
    let about = queue.about();
    let messages: Vec<Value> = messages
        .into_iter()
        .map(|message| complete(message, &about, arguments))
        .collect();
    let letters = queue.letters(&messages)?;
    let ids: Vec<String> = letters.iter().map(queue::Letter::id).collect();
    let mut interrupt = Interrupt::listen()?;
    let open = queue.open().await;
    open.send(&letters).await?;
    let receipts = if arguments.no_wait {
        None
    } else {
        Some(waited(open.follow(&letters), &ids, &mut interrupt).await?)
    };
    Ok(Sent {
        messages,
        ids,
        receipts,
    })
}

/// Waits for receipts until somebody has had enough of it.
async fn waited(
    following: impl Future<Output = Result<Vec<Receipt>, Failure>>,
    ids: &[String],
    interrupt: &mut Interrupt,
) -> Result<Vec<Receipt>, Failure> {
    tokio::select! {
        receipts = following => receipts,
        () = interrupt.requested() => Err(Failure::new(
            Exit::Interrupted,
            format!("stopped waiting for the receipt of {}", ids.join(", ")),
            "It stays in the queue and is carried out all the same; send it again with the same --id to follow it, or call it off with --cancel.",
        )),
    }
}

/// What the instruction of a receipt was to do.
fn aim<'a>(messages: &'a [Value], receipt: &Receipt) -> Aim<'a> {
    let action = messages
        .iter()
        .find(|message| message["instructionId"] == receipt.instruction_id.as_str())
        .map(|message| &message["action"]);
    match action.and_then(|action| Some((action["type"].as_str()?, action))) {
        Some(("undo", action)) => action["instructionId"]
            .as_str()
            .map_or(Aim::Change, Aim::Undo),
        Some(("cancel", _)) => Aim::Cancel,
        _ => Aim::Change,
    }
}

/// Says on a terminal that something is waited for.
fn progress() -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a constant template"),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// What a receipt that is not final says, in a line.
fn so_far(receipt: &Receipt) -> String {
    let trouble = receipt
        .error
        .as_ref()
        .map(|error| format!(" (attempt {}: {})", receipt.attempts, error.message))
        .unwrap_or_default();
    format!("{}{trouble}", receipt.status.as_str())
}

/// Waits for the final receipt of every id, in their order.
async fn follow(wire: &Wire, mut stream: Stream, ids: &[String]) -> Result<Vec<Receipt>, Failure> {
    let bar = progress();
    bar.set_message("accepted");
    let mut finals: BTreeMap<String, Receipt> = BTreeMap::new();
    // It may have been done before: the same id again, or a quick environment.
    look(wire, ids, &mut finals).await?;
    let mut last_id = None;
    while finals.len() < ids.len() {
        match stream.next().await {
            Some(event) => {
                last_id = event.id.or(last_id);
                let Ok(receipt) = serde_json::from_str::<Receipt>(&event.data) else {
                    continue;
                };
                let id = receipt.instruction_id.to_string();
                if !ids.contains(&id) {
                    continue;
                }
                if receipt.status.is_final() {
                    finals.insert(id, receipt);
                } else {
                    bar.set_message(so_far(&receipt));
                }
            }
            None => {
                // The environment may be restarting. Whatever it did meanwhile is in the receipts.
                tokio::time::sleep(LOOK_PAUSE).await;
                look(wire, ids, &mut finals).await.map_err(|failure| {
                    let waiting = ids.iter().filter(|id| !finals.contains_key(*id)).cloned().collect::<Vec<_>>().join(", ");
                    Failure::new(failure.exit, format!("the environment went away before the receipt of {waiting}: {}", failure.message), "It is kept in the queue and goes on when the environment runs again; send it again with the same --id to follow it.")
                })?;
                if let Ok(again) = wire.events(last_id).await {
                    stream = again;
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(ids.iter().filter_map(|id| finals.remove(id)).collect())
}

async fn look(
    wire: &Wire,
    ids: &[String],
    finals: &mut BTreeMap<String, Receipt>,
) -> Result<(), Failure> {
    for id in ids {
        let answer = wire.get(&format!("/_edit/instructions/{id}")).await?;
        if let Ok(receipt) = serde_json::from_value::<Receipt>(answer.body)
            && receipt.status.is_final()
        {
            finals.insert(id.clone(), receipt);
        }
    }
    Ok(())
}

fn read_messages(arguments: &SendArguments) -> Result<Vec<Value>, Failure> {
    let actions = actions(arguments);
    if actions.len() > 1 && arguments.id.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "--id names one instruction, and these are {}",
                actions.len()
            ),
            "Leave it out, or send them one by one.",
        ));
    }
    if !actions.is_empty() {
        return Ok(actions
            .into_iter()
            .map(|action| json!({ "action": action }))
            .collect());
    }
    let Some(file) = &arguments.file else {
        return Ok(vec![
            json!({ "action": { "type": "edit", "changes": changes(arguments)? } }),
        ]);
    };
    let text = read(file)?;
    let message: Value = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Exit::Usage, format!("{} is not JSON: {error}", file.display()), "Send an instruction, or an array of them; `edit-agent schema instruction` prints the schema."))?;
    match message {
        Value::Array(messages) if messages.is_empty() => Err(Failure::new(
            Exit::Usage,
            format!("{} has no instruction in it", file.display()),
            "",
        )),
        Value::Array(messages) => Ok(messages),
        message => Ok(vec![message]),
    }
}

/// The actions other than an edit that the options name. Only undo can be named several times; their order counts, because the
/// later of two changes of one place has to go first.
fn actions(arguments: &SendArguments) -> Vec<Value> {
    let mut actions: Vec<Value> = arguments
        .undo
        .iter()
        .map(|id| json!({ "type": "undo", "instructionId": id }))
        .collect();
    if arguments.publish {
        let mut action = json!({ "type": "publish" });
        if let Some(id) = &arguments.up_to {
            action["upTo"] = json!(id);
        }
        actions.push(action);
    }
    if let Some(id) = &arguments.cancel {
        actions.push(json!({ "type": "cancel", "instructionId": id }));
    }
    let others = [
        (arguments.sync, "sync"),
        (arguments.discard, "discard"),
        (arguments.commit_mine, "commit"),
    ];
    actions.extend(
        others
            .into_iter()
            .filter(|(asked, _)| *asked)
            .map(|(_, kind)| json!({ "type": kind })),
    );
    actions
}

/// The changes that the options name, in their order.
fn changes(arguments: &SendArguments) -> Result<Vec<Value>, Failure> {
    let (mut write, mut replace, mut delete, mut moves, mut patch) = (
        arguments.write.iter(),
        arguments.replace.chunks(3),
        arguments.delete.iter(),
        arguments.move_.chunks(2),
        arguments.patch.iter(),
    );
    let mut changes = Vec::new();
    for option in change_options(std::env::args_os()) {
        let change = match option {
            "--write" => write.next().map(|text| written(text)).transpose()?,
            "--replace" => replace.next().map(|words| json!({ "op": "replace", "path": words[0], "find": words[1], "replace": words[2] })),
            "--delete" => delete.next().map(|path| json!({ "op": "delete", "path": path })),
            "--move" => moves.next().map(|words| json!({ "op": "move", "from": words[0], "to": words[1] })),
            _ => patch.next().map(|file| text_of(file).map(|diff| json!({ "op": "patch", "diff": diff }))).transpose()?,
        };
        changes.extend(change);
    }
    Ok(changes)
}

fn written(text: &str) -> Result<Value, Failure> {
    let (path, content) = text.split_once('=').ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("--write {text} names no content"),
            "Write PATH=@FILE for a file's content, or PATH=TEXT.",
        )
    })?;
    let bytes = match content.strip_prefix('@') {
        Some(file) => read(Path::new(file))?,
        None => content.as_bytes().to_vec(),
    };
    Ok(match String::from_utf8(bytes) {
        Ok(text) => json!({ "op": "write", "path": path, "content": text }),
        Err(error) => {
            json!({ "op": "write", "path": path, "contentBase64": BASE64.encode(error.as_bytes()) })
        }
    })
}

fn text_of(file: &Path) -> Result<String, Failure> {
    String::from_utf8(read(file)?).map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("{} is not UTF-8 text", file.display()),
            "Send binary files with --write.",
        )
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(INPUT_MAX_BYTES)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(INPUT_MAX_BYTES).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("could not read {}: {error}", file.display()),
            "",
        )
    })?;
    Ok(bytes)
}

/// Fills in what a person leaves out. What is there is sent as it is: the environment judges it.
fn complete(mut message: Value, about: &Value, arguments: &SendArguments) -> Value {
    let Some(fields) = message.as_object_mut() else {
        return message;
    };
    let id = arguments
        .id
        .clone()
        .unwrap_or_else(|| format!("send-{}", contract::id::hex(&crate::random::bytes::<8>())));
    if arguments.id.is_some() {
        fields.insert("instructionId".to_owned(), json!(id));
    }
    fields.entry("instructionId").or_insert(json!(id));
    fields
        .entry("version")
        .or_insert(json!(contract::instruction::VERSION));
    fields
        .entry("clientId")
        .or_insert(about["clientId"].clone());
    fields
        .entry("submittedAt")
        .or_insert(json!(Timestamp::now()));
    if let Some(thread) = &arguments.thread {
        fields.insert("threadId".to_owned(), json!(thread));
        fields.remove("sessionId");
    } else if !fields.contains_key("sessionId") && !fields.contains_key("threadId") {
        fields.insert("sessionId".to_owned(), about["sessionId"].clone());
    }
    let author = arguments
        .author
        .as_deref()
        .and_then(named_author)
        .or_else(|| {
            if fields.contains_key("author") {
                None
            } else {
                git_author()
            }
        });
    if let Some((name, email)) = author {
        fields.insert("author".to_owned(), json!({ "name": name, "email": email }));
    }
    message
}

fn named_author(text: &str) -> Option<(String, String)> {
    let (name, rest) = text.split_once('<')?;
    Some((
        name.trim().to_owned(),
        rest.trim_end().strip_suffix('>')?.trim().to_owned(),
    ))
}

/// Who commits here by git's own account.
fn git_author() -> Option<(String, String)> {
    let config = match git2::Repository::discover(".") {
        Ok(repository) => repository.config().ok()?,
        Err(_) => git2::Config::open_default().ok()?,
    };
    Some((
        config.get_string("user.name").ok()?,
        config.get_string("user.email").ok()?,
    ))
}

fn declined(status: u16, body: &Value) -> Failure {
    let errors: Vec<Problem> = serde_json::from_value(body["errors"].clone()).unwrap_or_default();
    let errors = listed(&errors);
    let code = body["code"].as_str().unwrap_or("unknown");
    Failure::new(
        Exit::NotLanded,
        format!("the environment did not accept it ({code}, status {status}):{errors}"),
        hint_of(code),
    )
}

/// Each problem on a line of its own.
fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n    {}: {}", problem.path, problem.message))
        .collect()
}

fn hint_of(code: &str) -> &'static str {
    contract::ErrorCode::ALL
        .iter()
        .find(|known| known.as_str() == code)
        .map_or("", |code| code.hint())
}

fn print(text: &str) {
    // A closed pipe is no failure.
    writeln!(std::io::stdout(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_text_is_sent_as_base64() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("photo.jpg");
        std::fs::write(&file, [0xff, 0xd8, 0xff]).expect("written");
        let change = written(&format!("public/photo.jpg=@{}", file.display())).expect("a change");
        assert_eq!(
            change,
            json!({ "op": "write", "path": "public/photo.jpg", "contentBase64": "/9j/" })
        );
    }

    fn sent(line: &[&str]) -> Result<String, String> {
        use clap::Parser as _;
        let line = ["edit-agent", "send"].iter().chain(line);
        let cli = crate::cli::Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let crate::cli::Command::Send(arguments) = cli.command else {
            return Err("another command".to_owned());
        };
        let messages = read_messages(&arguments).map_err(|failure| failure.to_string())?;
        Ok(Value::Array(messages).to_string())
    }

    #[test]
    fn what_is_no_change_of_a_file_has_an_option_of_its_own() {
        for (line, expected) in [
            (
                &["--undo", "last"][..],
                r#"[{"action":{"instructionId":"last","type":"undo"}}]"#,
            ),
            (
                &["--undo", "b", "--undo", "a"],
                r#"[{"action":{"instructionId":"b","type":"undo"}},{"action":{"instructionId":"a","type":"undo"}}]"#,
            ),
            (&["--publish"], r#"[{"action":{"type":"publish"}}]"#),
            (
                &["--publish", "--up-to", "a"],
                r#"[{"action":{"type":"publish","upTo":"a"}}]"#,
            ),
            (&["--sync", "--id", "x"], r#"[{"action":{"type":"sync"}}]"#),
            (&["--discard"], r#"[{"action":{"type":"discard"}}]"#),
            (
                &["--cancel", "a"],
                r#"[{"action":{"instructionId":"a","type":"cancel"}}]"#,
            ),
            (&["--commit-mine"], r#"[{"action":{"type":"commit"}}]"#),
        ] {
            assert_eq!(sent(line).as_deref(), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn one_call_is_one_kind_of_instruction() {
        for line in [
            &[][..],
            &["--publish", "--sync"],
            &["--undo", "last", "--publish"],
            &["--cancel", "a", "--undo", "b"],
            &["--cancel", "a", "--delete", "a.md"],
            &["--undo", "last", "--delete", "a.md"],
            &["--commit-mine", "--write", "a.md=x"],
            &["--discard", "instruction.json"],
            &["--up-to", "a"],
            &["--sync", "--up-to", "a"],
        ] {
            assert!(sent(line).is_err(), "{line:?}");
        }
        insta::assert_snapshot!(sent(&["--undo", "b", "--undo", "a", "--id", "x"]).expect_err("one id for two"), @r"
        error: --id names one instruction, and these are 2
          hint: Leave it out, or send them one by one.
        ");
    }

    #[test]
    fn an_author_is_a_name_and_an_address() {
        assert_eq!(
            named_author("Amelia <a@example.com>"),
            Some(("Amelia".to_owned(), "a@example.com".to_owned()))
        );
        assert_eq!(named_author("Amelia"), None);
    }
}
