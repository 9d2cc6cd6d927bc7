//! What an environment has around it: AWS in an emulator, a git server, and the packages of the fixture site without a registry.
//!
//! ```text
//!  10.77.n.2  git        ssh, with a deploy key and a host key that nobody had before
//!         .3  emulator   tables, queues and clients, and one session of amelia that sleeps
//!        .10… environments, routers: whoever the story puts there
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use contract::proof::{Nonce, Proof};
use contract::session::ProofKey;
use contract::{Generation, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::engine::{Ended, Network, Recipe, Running, Volume, told};

/// The session that is there.
pub(crate) const SESSION: &str = "amelia_compose";
/// The first address that is nobody's.
pub(crate) const ENVIRONMENT: u8 = 10;

const GIT: u8 = 2;
const EMULATOR: u8 = 3;
/// How long the emulator may take to be there, on a machine that is building something else.
const TOWN_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a record may take to say what is waited for: less than a program in a container may take.
const RECORD_TIME_MAX: Duration = Duration::from_secs(300);
/// How long a page may take: the door holds visitors while a change is looked at.
const PAGE_TIME_MAX: Duration = Duration::from_secs(60);

/// Everything around an environment.
#[derive(Debug)]
pub(crate) struct Town {
    git: Running,
    emulator: Running,
    /// Held: what is added to the site is read from it.
    _added: TempDir,
    _keys: Volume,
    pub(crate) network: Network,
}

impl Town {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With these files in the repositories of its clients, beside those of the fixture site.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let network = Network::new();
        let keys = Volume::new();
        let added = tempfile::tempdir().expect("there is room");
        // Children of the agent see no variable of npm's, but they read this.
        fs::write(
            added.path().join(".npmrc"),
            "cache=/packages\noffline=true\n",
        )
        .expect("there is room");
        for (path, content) in files {
            let path = added.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("there is room");
            fs::write(path, content).expect("there is room");
        }
        let git = Recipe::of(told("STORIES_GIT_IMAGE"))
            .at(&network, GIT)
            .volume(&keys, "/keys")
            .folder(added.path(), "/srv/added")
            .start::<&str>(&[]);
        let emulator = Recipe::of(told("STORIES_EMULATOR_IMAGE"))
            .at(&network, EMULATOR)
            .volume(&keys, "/keys")
            .variable("EMULATOR_HOST", "emulator")
            .variable("KEYS", "/keys")
            .variable("REPOSITORY_URL", "ssh://git@git/srv/git/{client}.git")
            .variable("SESSION", SESSION)
            .variable("THREAD", "compose")
            .start::<&str>(&[]);
        emulator.line_with("everything is there", TOWN_TIME_MAX);
        Self {
            git,
            emulator,
            _added: added,
            _keys: keys,
            network,
        }
    }

    /// Whoever is in town knows where the others are, and how AWS is spoken to.
    pub(crate) fn citizen(&self, recipe: Recipe, host: u8) -> Recipe {
        recipe
            .at(&self.network, host)
            .knowing("git", &self.network, GIT)
            .knowing("emulator", &self.network, EMULATOR)
            .variable("AWS_ENDPOINT_URL", "http://emulator:4566")
            .variable("AWS_REGION", "eu-central-1")
            .variable("AWS_ACCESS_KEY_ID", "test")
            .variable("AWS_SECRET_ACCESS_KEY", "test")
            .variable("EDIT_DOMAIN", "localhost")
    }

    /// The environment of the session, as a task of Fargate.
    pub(crate) fn environment(&self) -> Recipe {
        self.environment_of("amelia", SESSION, ENVIRONMENT)
    }

    /// The same of another session, at the `host`th address.
    pub(crate) fn environment_of(&self, client: &str, session: &str, host: u8) -> Recipe {
        let packages = told("STORIES_PACKAGES_FOLDER");
        self.citizen(Recipe::agent().like_on_fargate(), host)
            .shared_folder(Path::new(&packages), "/packages")
            .variable("CLIENT_ID", client)
            .variable("SESSION_ID", session)
    }

    /// How an environment is started outside ECS: told where it is, and as which task.
    pub(crate) fn command(&self, task: &str) -> Vec<String> {
        let address = self.network.address(ENVIRONMENT);
        ["run", "--ip", &address, "--task", task]
            .map(str::to_owned)
            .into()
    }

    /// Asks the repository of amelia with git.
    pub(crate) fn git(&self, arguments: &[&str]) -> Ended {
        let repository = [
            "git",
            "--git-dir=/srv/git/amelia.git",
            "-c",
            "safe.directory=*",
        ];
        self.git.exec(&[&repository[..], arguments].concat())
    }

    /// The instructions that have landed on the draft, the newest first.
    pub(crate) fn landed(&self) -> Vec<String> {
        let format = "--format=%(trailers:key=Edit-Instruction,valueonly,separator=)";
        let history = self.git(&["log", format, "main..edit/compose"]).well();
        history.split_whitespace().map(str::to_owned).collect()
    }

    /// Runs a Python program with boto3, as a producer or an operator has it. What it binds to `said` comes back.
    pub(crate) fn aws(&self, program: &str) -> Value {
        let program = format!("{PREAMBLE}\n{program}\nprint(json.dumps(said, default=float))");
        let said = self
            .emulator
            .exec(&["/opt/emulator/bin/python", "-c", &program]);
        serde_json::from_str(&said.well()).expect("it was JSON")
    }

    /// What the table of the sessions says of the session.
    pub(crate) fn record(&self) -> Value {
        self.aws(&format!("said = session({SESSION:?})"))
    }

    /// The record of the session, once it is as the Python expression of `row` says.
    pub(crate) fn record_when(&self, expression: &str) -> Value {
        self.record_of(SESSION, expression)
    }

    /// The same of another session.
    pub(crate) fn record_of(&self, session: &str, expression: &str) -> Value {
        let seconds = RECORD_TIME_MAX.as_secs();
        let said = self.aws(&format!(
            "said = until({seconds}, lambda: session({session:?}), lambda row: {expression})"
        ));
        assert_eq!(said["met"], true, "{expression}: {said:#}");
        said["last"].clone()
    }

    /// Sends an edit with these changes to the session's queue.
    pub(crate) fn sends(&self, id: &str, changes: &Value) {
        self.asks(id, &json!({ "type": "edit", "changes": changes }));
    }

    /// Sends an instruction.
    pub(crate) fn asks(&self, id: &str, action: &Value) {
        let body = json!({
            "version": 1, "instructionId": id, "clientId": "amelia", "sessionId": SESSION,
            "submittedAt": "2026-11-22T09:30:00.000Z", "author": { "name": "Amelia", "email": "amelia@ameliastamps.com" },
            "action": action,
        });
        let body = body.to_string();
        self.aws(&format!(
            "said = sqs.send_message(QueueUrl=session({SESSION:?})['queueUrl'], MessageGroupId={SESSION:?}, MessageDeduplicationId={id:?}, MessageBody={body:?})['MessageId']"
        ));
    }

    /// The client wants a site built before it is published.
    pub(crate) fn wants_builds(&self) {
        self.aws("said = clients.update_item(Key={'clientId': 'amelia'}, UpdateExpression='SET #p = :p', ExpressionAttributeNames={'#p': 'policy'}, ExpressionAttributeValues={':p': {'publishCheck': 'build'}})['ResponseMetadata']['HTTPStatusCode']");
    }

    /// Sends an edit that writes one page.
    pub(crate) fn writes(&self, id: &str, path: &str, content: &str) {
        self.sends(
            id,
            &json!([{ "op": "write", "path": path, "content": content }]),
        );
    }

    /// What became of an instruction in the end.
    pub(crate) fn receipt(&self, id: &str) -> Value {
        let seconds = RECORD_TIME_MAX.as_secs();
        let said = self.aws(&format!(
            "final = ['pushed', 'published', 'rejected', 'failed', 'cancelled', 'interrupted']\n\
             said = until({seconds}, lambda: receipt({SESSION:?}, {id:?}), lambda row: row['status'] in final)"
        ));
        assert_eq!(said["met"], true, "{id}: {said:#}");
        said["last"].clone()
    }

    /// A page of the environment at the `host`th address, as the router asks for it: the status and the body.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        let record = self.record();
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let key = ProofKey(text("proofKey"));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a generation counts from 0"
        )]
        let generation = Generation(record["generation"].as_f64().unwrap_or_default() as u64);
        let session = SESSION.parse().expect("an id");
        let proof = Proof::new(&key, session, generation).expect("the record has a key");
        let now = Timestamp::now();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&now.unix_ms().to_be_bytes());
        nonce[8] = NONCES.fetch_add(1, Ordering::Relaxed);
        let proof = proof.request(now, Nonce::new(nonce));
        let address = format!("{}:8080", self.network.address(ENVIRONMENT));
        ask(
            &address,
            path,
            &[("Host", "edit.amelia.localhost"), ("Edit-Proof", &proof)],
        )
    }
}

/// Asks with these headers: the status and the rest of the answer.
pub(crate) fn ask(address: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let asked = || -> std::io::Result<String> {
        let mut door = TcpStream::connect(address)?;
        door.set_read_timeout(Some(PAGE_TIME_MAX))?;
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        write!(
            door,
            "GET {path} HTTP/1.1\r\n{headers}Accept: text/html\r\nConnection: close\r\n\r\n"
        )?;
        let mut said = Vec::new();
        door.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let said = asked().unwrap_or_else(|error| format!("HTTP/1.1 0 {error}"));
    let status = said.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), said)
}

/// What differs between requests of one millisecond.
static NONCES: AtomicU8 = AtomicU8::new(0);

/// What Python programs of stories find.
const PREAMBLE: &str = r"
import boto3, json, time
from decimal import Decimal
where = dict(region_name='eu-central-1', endpoint_url='http://127.0.0.1:4566', aws_access_key_id='test', aws_secret_access_key='test')
db, sqs = boto3.resource('dynamodb', **where), boto3.client('sqs', **where)
clients, sessions, receipts = (db.Table('webordinary-' + name) for name in ['client-configs', 'edit-sessions', 'edit-receipts'])
def session(id):
    return sessions.get_item(Key={'sessionId': id}, ConsistentRead=True).get('Item')
def receipt(session, id):
    return receipts.get_item(Key={'sessionId': session, 'instructionId': id}, ConsistentRead=True).get('Item')
def until(seconds, look, wanted):
    end = time.monotonic() + seconds
    while True:
        last = look()
        met = last is not None and bool(wanted(last))
        if met or time.monotonic() > end:
            return {'met': met, 'last': last}
        time.sleep(0.1)
";
