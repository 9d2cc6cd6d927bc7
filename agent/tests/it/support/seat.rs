//! The vocabulary of the stories in the cloud's seat: a client, a session, its queue, and the containers that are started
//! for it. The ports are the product's own; the stories that prove what others see use other people's libraries.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use contract::proof::{Nonce, Proof};
use contract::session::State;
use contract::{ClientConfig, Receipt, Session, SessionId, Timestamp};
use platform::conformance::emulator::{Emulator, Stack};
use platform::local::{LocalStore, QueueSettings};
use platform::{Clients, Created, Instructions, Outgoing, Receipts, Sessions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::ecs::Ecs;
use super::{Answer, PATIENCE, Repository, agent, ask, state};

/// A queue, by its address.
pub type Queues = dyn Fn(&str) -> Arc<dyn Instructions> + Send + Sync;

/// Where records and messages are, and how a container is told so.
#[derive(Clone)]
pub struct Town {
    pub clients: Arc<dyn Clients>,
    pub sessions: Arc<dyn Sessions>,
    pub receipts: Arc<dyn Receipts>,
    pub queue: Arc<Queues>,
    /// The tables and queues, if they are in the cloud.
    pub stack: Option<Stack>,
    /// What is beside a container, if it is in the cloud.
    pub ecs: Option<Ecs>,
    pub arguments: Vec<String>,
    pub variables: Vec<(String, String)>,
}

impl Town {
    /// Everything in the file that all environments of this run share.
    pub fn on_a_laptop() -> Self {
        let store = LocalStore::open(&state().join("edit.sqlite")).expect("open");
        let queues = store.clone();
        let arguments = ["--local", "--state"]
            .map(str::to_owned)
            .into_iter()
            .chain([state().display().to_string()])
            .collect();
        Self {
            clients: store.clients(),
            sessions: store.sessions(),
            receipts: store.receipts(),
            queue: Arc::new(move |name| {
                let settings = QueueSettings {
                    max_receive_count: 10,
                    dead: Some("webordinary-edits-dead.fifo".to_owned()),
                };
                Arc::new(queues.queue(name, settings))
            }),
            stack: None,
            ecs: None,
            arguments,
            variables: Vec::new(),
        }
    }

    /// Tables and queues of their own, made from the template that an operator deploys, in an emulator that others wrote; and
    /// containers that are told what ECS tells them.
    pub async fn in_the_cloud() -> Self {
        let emulator = emulator();
        let stack = emulator.stack().await;
        let aws = emulator.aws().await;
        let ecs = Ecs::starts().await;
        let mut variables = ecs.variables();
        let own = [
            ("CLIENT_CONFIGS_TABLE", &stack.clients),
            ("SESSIONS_TABLE", &stack.sessions),
            ("RECEIPTS_TABLE", &stack.receipts),
            ("DEAD_QUEUE_URL", &stack.dead),
            ("RESCUE_BUCKET", &stack.rescue),
        ];
        variables.extend(own.map(|(name, value)| (name.to_owned(), value.clone())));
        variables.push(("WORKSPACE_DIR".to_owned(), state().display().to_string()));
        // The keys are the task's, from the endpoint of its credentials.
        let endpoint = emulator.variables().into_iter();
        variables.extend(
            endpoint
                .filter(|(name, _)| !name.contains("KEY"))
                .map(|(name, value)| (name.to_owned(), value)),
        );
        let queues = aws.clone();
        Self {
            clients: aws.clients(&stack.clients),
            sessions: aws.sessions(&stack.sessions),
            receipts: aws.receipts(&stack.receipts),
            queue: Arc::new(move |url| queues.queue(url)),
            stack: Some(stack),
            ecs: Some(ecs),
            arguments: Vec::new(),
            variables,
        }
    }

    /// Makes the queue of a session, as the router does, and returns its address.
    async fn make_queue(&self, session: &SessionId) -> String {
        let name = format!("webordinary-edits-{session}.fifo");
        match &self.stack {
            None => name,
            Some(stack) => emulator().queue(&name, Some((&stack.dead, 10))).await,
        }
    }

    /// A client with this repository, and a session of it that sleeps. `settings` is put over the client's.
    pub async fn session(&self, remote: &str, settings: Value) -> Seat {
        self.session_of(remote, json!({ "settings": settings }))
            .await
    }

    /// A session that others made.
    pub async fn seat_of(&self, client: &str, session: &str, queue: &str) -> Seat {
        let client = client.parse().expect("an id");
        let config = self.clients.get(&client).await.expect("answered");
        Seat {
            town: self.clone(),
            config: config.expect("there"),
            id: session.parse().expect("an id"),
            queue: (self.queue)(queue),
        }
    }

    /// As [`Town::session`], with anything of the client's configuration put over what it is otherwise.
    pub async fn session_of(&self, remote: &str, over: Value) -> Seat {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("random");
        let client = format!("amelia-{}", &contract::id::hex(&random)[..10]);
        let mut config = json!({
            "clientId": client,
            "domains": { "production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com" },
            "repository": { "url": remote, "branch": "main" },
            "infrastructure": {},
            "settings": { "containerSize": "small", "idleTimeoutMinutes": 30, "maxConcurrentSessions": 2 },
            "status": "active",
        });
        put_over(&mut config, over);
        let config = ClientConfig::parse(&config).expect("a valid configuration");
        self.clients.put(&config).await.expect("put");
        let id = SessionId::new(&config.client_id, random);
        // What a producer has to write is this and no more.
        let session: Session = serde_json::from_value(json!({
            "sessionId": id,
            "clientId": client,
            "userId": "amelia",
            "threadId": "spring",
            "state": "dormant",
            "generation": 0,
            "queueUrl": self.make_queue(&id).await,
            "previewUrl": format!("https://edit.ameliastamps.com/session/{id}/"),
            "draftBranch": "edit/spring",
            "createdAt": Timestamp::now(),
        }))
        .expect("a session");
        let created = self.sessions.create(&session).await.expect("created");
        assert_eq!(created, Created::New);
        Seat {
            queue: (self.queue)(&session.queue_url),
            town: self.clone(),
            config,
            id,
        }
    }
}

fn put_over(value: &mut Value, over: Value) {
    match (value, over) {
        (Value::Object(value), Value::Object(over)) => {
            for (name, over) in over {
                put_over(value.entry(name).or_insert(Value::Null), over);
            }
        }
        (value, over) => *value = over,
    }
}

/// AWS, as others emulate it.
pub fn emulator() -> &'static Emulator {
    Emulator::shared(env!("CARGO_TARGET_TMPDIR"))
}

/// A session and everything that is known of it outside its containers.
#[derive(Clone)]
pub struct Seat {
    pub town: Town,
    pub config: ClientConfig,
    pub id: SessionId,
    pub queue: Arc<dyn Instructions>,
}

impl Seat {
    /// The record as it is.
    pub async fn record(&self) -> Session {
        let record = self.town.sessions.get(&self.id).await.expect("answered");
        record.expect("the record stays")
    }

    /// The record, once it is as wanted.
    pub async fn record_when(&self, what: &str, wanted: impl Fn(&Session) -> bool) -> Session {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                pace.tick().await;
                let record = last.insert(self.record().await);
                if wanted(record) {
                    return record.clone();
                }
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("never {what}; last: {last:#?}"))
    }

    /// Sends an instruction, as a producer does.
    pub async fn sends(&self, id: &str, action: Value) {
        let group = if action["type"] == "cancel" {
            "control"
        } else {
            self.id.as_str()
        };
        let body = json!({
            "version": 1,
            "instructionId": id,
            "clientId": self.config.client_id,
            "sessionId": self.id,
            "submittedAt": Timestamp::now(),
            "author": { "name": "Amelia", "email": "amelia@ameliastamps.com" },
            "action": action,
        });
        self.sends_raw(id, group, body.to_string()).await;
    }

    /// Sends anything.
    pub async fn sends_raw(&self, deduplication_id: &str, group: &str, body: String) {
        let message = Outgoing {
            body,
            group: group.to_owned(),
            deduplication_id: deduplication_id.to_owned(),
            trace_parent: None,
        };
        self.queue.send(&message).await.expect("sent");
    }

    /// Sends an edit that replaces a text of the front page.
    pub async fn replaces(&self, id: &str, find: &str, replace: &str) {
        let change = json!({ "op": "replace", "path": "src/pages/index.astro", "find": find, "replace": replace });
        self.sends(id, json!({ "type": "edit", "changes": [change] }))
            .await;
    }

    /// The final receipt of an instruction.
    pub async fn receipt(&self, id: &str) -> Receipt {
        let found = self.receipt_in_time(id).await;
        found.unwrap_or_else(|last| panic!("no final receipt of {id}; last: {last:#?}"))
    }

    async fn receipt_in_time(&self, id: &str) -> Result<Receipt, Option<Receipt>> {
        let id = id.parse().expect("an id");
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                pace.tick().await;
                last = self
                    .town
                    .receipts
                    .get(&self.id, &id)
                    .await
                    .expect("answered");
                if let Some(receipt) = last.as_ref().filter(|receipt| receipt.status.is_final()) {
                    return receipt.clone();
                }
            }
        })
        .await;
        found.map_err(|_| last)
    }

    /// What a container of this session is told.
    pub fn container(&self) -> Container {
        let mut command = agent();
        command.arg("run").args(&self.town.arguments);
        command
            .env("CLIENT_ID", self.config.client_id.as_str())
            .env("SESSION_ID", self.id.as_str())
            .env("LOG_LEVEL", "edit_agent=debug,info")
            .env("PORT", "0");
        for (name, value) in &self.town.variables {
            command.env(name, value);
        }
        Container {
            seat: self.clone(),
            command,
        }
    }

    /// Starts a container and waits until it is registered.
    pub async fn wakes(&self) -> Awake {
        self.container().starts().registered().await
    }

    /// The same, with what an operator's log says and no more.
    pub async fn wakes_as_in_production(&self) -> Awake {
        let container = self.container().variable("LOG_LEVEL", "info");
        container.starts().registered().await
    }
}

/// A container that is to be started.
pub struct Container {
    seat: Seat,
    command: Command,
}

impl Container {
    /// With a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without a variable.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// With further arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// As the first process of a container: of a namespace of its own, in which it looks after a daemon.
    pub fn supervised(mut self) -> Self {
        let inside = self.command.as_std();
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command
            .args(["--mount-proc", "--pid", "--fork", "--kill-child"])
            .arg(inside.get_program())
            .args(inside.get_args())
            .kill_on_drop(true);
        for (name, value) in inside.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.command = command;
        self
    }

    /// Starts it.
    pub fn starts(mut self) -> Awake {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the agent starts");
        let (heard, log) = watch::channel(String::new());
        let heard = Arc::new(heard);
        for stream in [
            Box::new(child.stdout.take().expect("piped"))
                as Box<dyn tokio::io::AsyncRead + Send + Unpin>,
            Box::new(child.stderr.take().expect("piped")),
        ] {
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    heard.send_modify(|text| {
                        text.push_str(&line);
                        text.push('\n');
                    });
                }
            });
        }
        Awake {
            seat: self.seat,
            child,
            log,
            record: None,
        }
    }

    /// Starts it and waits until it has ended: its exit code, and what it said.
    pub async fn fails(self) -> (i32, String) {
        self.starts().ended().await
    }
}

/// A container that runs.
pub struct Awake {
    pub seat: Seat,
    child: Child,
    log: watch::Receiver<String>,
    record: Option<Session>,
}

impl Awake {
    /// Waits until the record says where its door is.
    pub async fn registered(mut self) -> Self {
        let seat = self.seat.clone();
        let task = self.child.id().expect("it runs");
        let ready = tokio::select! {
            record = seat.record_when("ready", |record| record.state == State::Ready && record.lease_until > Some(Timestamp::now())) => record,
            status = self.child.wait() => panic!("it ended with {status:?} before it was ready:\n{}", *self.log.borrow()),
        };
        assert!(task > 0);
        self.record = Some(ready);
        self
    }

    fn registration(&self) -> &Session {
        self.record.as_ref().expect("it is registered")
    }

    /// Host and port of its door.
    pub fn authority(&self) -> String {
        let record = self.registration();
        let ip = record.container_ip.as_deref().expect("registered");
        format!("{ip}:{}", record.port.expect("registered"))
    }

    /// The proof that the router shows.
    pub fn proof(&self) -> Proof {
        let record = self.registration();
        let key = record.proof_key.as_ref().expect("woken");
        Proof::new(key, record.session_id.clone(), record.generation).expect("a key")
    }

    /// Asks its door as the router does, and checks that it is the right one that answers.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("random");
        let nonce = Nonce::new(random);
        let proof = self.proof();
        let shown = proof.request(Timestamp::now(), nonce);
        let mut all = vec![
            ("host", "edit.ameliastamps.com"),
            ("x-forwarded-proto", "https"),
            (contract::proof::HEADER, shown.as_str()),
        ];
        all.extend(headers);
        let answer = ask(&self.authority(), method, path, &all, body).await;
        let answered = answer.headers.get(contract::proof::HEADER);
        let answered = answered
            .unwrap_or_else(|| panic!("{} without a proof: {}", answer.status, answer.text()));
        proof
            .verify_answer(answered.to_str().expect("text"), nonce)
            .expect("it is the right door");
        answer
    }

    /// Asks for a page as a person's browser does.
    pub async fn visit(&self, path: &str) -> Answer {
        let headers = [
            ("accept", "text/html,application/xhtml+xml"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("sec-fetch-site", "none"),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
        ];
        self.request("GET", path, &headers, None).await
    }

    /// The final receipt of an instruction. If there is none, what it said tells why.
    pub async fn receipt(&self, id: &str) -> Receipt {
        let found = self.seat.receipt_in_time(id).await;
        found.unwrap_or_else(|last| {
            panic!("no final receipt of {id}; last: {last:#?}\n{}", self.said())
        })
    }

    /// Somebody looks at the front page again and again while something is waited for.
    pub async fn watched<T>(&self, waited: impl Future<Output = T>) -> T {
        let mut pace = tokio::time::interval(Duration::from_millis(300));
        let mut waited = std::pin::pin!(waited);
        loop {
            tokio::select! {
                found = &mut waited => return found,
                _ = pace.tick() => { self.visit("/").await; }
            }
        }
    }

    /// Everything at a glance.
    pub async fn status(&self) -> Value {
        self.request("GET", "/_edit/status", &[], None).await.json()
    }

    /// The same, once it is as expected.
    pub async fn status_when(&self, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
        super::value_when(what, expected, || self.status()).await
    }

    /// A page's HTML, once it contains `words`. Nobody counts it as a visit.
    pub async fn page_with(&self, path: &str, words: &str) -> String {
        let mut last = String::new();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.request("GET", path, &[], None).await.text();
                if last.contains(words) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_ok(), "{path} never said {words:?}: {last}");
        last
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).expect("a pid")
    }

    /// Its first process, where it is one.
    pub fn first_process(&self) -> nix::unistd::Pid {
        only_child(nix::unistd::Pid::from_raw(self.pid()))
    }

    /// Signals it.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("signalled");
    }

    /// Stops it as ECS does, and returns its exit code and what it said.
    pub async fn stopped(self) -> (i32, String) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended().await
    }

    /// Kills it as `kill -9` does.
    pub async fn killed(mut self) {
        self.child.start_kill().expect("killed");
        self.child.wait().await.expect("reaped");
    }

    /// Waits until it has ended by itself: its exit code, and what it said.
    pub async fn ended(mut self) -> (i32, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it does not end:\n{}", *self.log.borrow()));
        // Both streams are closed with it, unless it left somebody behind who holds them.
        while self.log.changed().await.is_ok() {}
        let code = status.expect("reaped").code().unwrap_or(-1);
        (code, self.log.borrow().clone())
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until it has said something.
    pub async fn says(&mut self, words: &str) {
        let said = self.log.wait_for(|text| text.contains(words));
        let said = tokio::time::timeout(PATIENCE, said).await.is_ok();
        assert!(said, "it never said {words:?}:\n{}", *self.log.borrow());
    }
}

/// The only child of a process with one thread.
pub fn only_child(of: nix::unistd::Pid) -> nix::unistd::Pid {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    let child = children.expect("it runs").trim().parse();
    nix::unistd::Pid::from_raw(child.expect("one"))
}

/// Where a container on this machine keeps the work tree of a session.
pub fn work_tree(seat: &Seat) -> std::path::PathBuf {
    use sha2::Digest as _;
    let hash = contract::id::hex(&sha2::Sha256::digest(seat.id.as_str()));
    let key = format!("{}-{}", seat.config.client_id, &hash[..10]);
    state()
        .join("environments")
        .join(key)
        .join("workspace/tree")
}

/// A bare repository with the fixture site, as a server has it.
pub fn site() -> Repository {
    Repository::amelia().bare_copy()
}
