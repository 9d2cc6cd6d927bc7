//! Every adapter passes the suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use platform::conformance::emulator::Emulator;
use platform::conformance::{
    LauncherUnderTest, ObjectsUnderTest, QueueUnderTest, QueuesUnderTest, SecretsUnderTest,
    StoreUnderTest, Stores,
};
use platform::local::{LocalObjects, LocalSecrets, LocalStore, QueueSettings};
use platform::{Instructions, Launcher, Objects, Queues, Secrets};
use serde_json::json;
use tempfile::TempDir;

/// The local adapter: all queues in one file, each store in one of its own.
struct Local {
    folder: TempDir,
    made: AtomicU32,
}

impl Local {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            made: AtomicU32::new(0),
        }
    }

    fn name(&self) -> String {
        self.made.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn open(&self, name: &str) -> LocalStore {
        LocalStore::open(&self.folder.path().join(name)).expect("open")
    }
}

#[async_trait]
impl QueueUnderTest for Local {
    async fn fresh(&self) -> Arc<dyn Instructions> {
        Arc::new(
            self.open("queues")
                .queue(&self.name(), QueueSettings::default()),
        )
    }

    async fn fresh_with_dead(
        &self,
        max_receive_count: u32,
    ) -> (Arc<dyn Instructions>, Arc<dyn Instructions>) {
        let store = self.open("queues");
        let (name, dead) = (self.name(), self.name());
        let settings = QueueSettings {
            max_receive_count,
            dead: Some(dead.clone()),
        };
        (
            Arc::new(store.queue(&name, settings)),
            Arc::new(store.queue(&dead, QueueSettings::default())),
        )
    }
}

#[async_trait]
impl StoreUnderTest for Local {
    async fn fresh(&self) -> Stores {
        let store = self.open(&self.name());
        Stores {
            clients: store.clients(),
            sessions: store.sessions(),
            receipts: store.receipts(),
        }
    }
}

#[async_trait]
impl SecretsUnderTest for Local {
    async fn secrets(&self) -> Arc<dyn Secrets> {
        Arc::new(LocalSecrets)
    }

    async fn store(&self, text: &str) -> Vec<String> {
        // Not `env:`: a process cannot safely change its own. It reads what cargo set, in a test of its own.
        let path = self.folder.path().join(self.name());
        std::fs::write(&path, text).expect("write");
        vec![format!("file:{}", path.display())]
    }

    async fn missing(&self) -> Vec<String> {
        let path = self.folder.path().join("no such file");
        vec![
            format!("file:{}", path.display()),
            "env:NO_SUCH_VARIABLE_1".to_owned(),
        ]
    }
}

#[async_trait]
impl ObjectsUnderTest for Local {
    async fn fresh(&self) -> Arc<dyn Objects> {
        Arc::new(LocalObjects::new(&self.folder.path().join(self.name())))
    }
}

#[async_trait]
impl QueuesUnderTest for Local {
    async fn fresh(&self) -> (Arc<dyn Queues>, String) {
        let dead = "webordinary-edits-dead.fifo";
        (self.open(&self.name()).queues(dead), dead.to_owned())
    }
}

#[async_trait]
impl LauncherUnderTest for Local {
    async fn fresh(&self) -> Arc<dyn Launcher> {
        Arc::new(crate::launcher::processes(
            &self.folder.path().join(self.name()),
            "exec tail -f /dev/null",
        ))
    }
}

/// The AWS adapters, against an emulator that others wrote.
struct Emulated {
    emulator: &'static Emulator,
    local: Local,
}

impl Emulated {
    fn new() -> Self {
        Self {
            emulator: Emulator::shared(env!("CARGO_TARGET_TMPDIR")),
            local: Local::new(),
        }
    }

    async fn queue(&self, dead: Option<(&str, u32)>) -> (Arc<dyn Instructions>, String) {
        let name = format!("{}.fifo", self.emulator.fresh_name());
        let url = self.emulator.queue(&name, dead).await;
        (self.emulator.aws().await.queue(&url), url)
    }
}

#[async_trait]
impl QueueUnderTest for Emulated {
    async fn fresh(&self) -> Arc<dyn Instructions> {
        self.queue(None).await.0
    }

    async fn fresh_with_dead(
        &self,
        max_receive_count: u32,
    ) -> (Arc<dyn Instructions>, Arc<dyn Instructions>) {
        let (dead, url) = self.queue(None).await;
        let (queue, _) = self.queue(Some((&url, max_receive_count))).await;
        (queue, dead)
    }
}

#[async_trait]
impl StoreUnderTest for Emulated {
    async fn fresh(&self) -> Stores {
        let stack = self.emulator.stack().await;
        let aws = self.emulator.aws().await;
        Stores {
            clients: aws.clients(&stack.clients),
            sessions: aws.sessions(&stack.sessions),
            receipts: aws.receipts(&stack.receipts),
        }
    }
}

#[async_trait]
impl SecretsUnderTest for Emulated {
    async fn secrets(&self) -> Arc<dyn Secrets> {
        self.emulator.aws().await.secrets()
    }

    async fn store(&self, text: &str) -> Vec<String> {
        let name = self.emulator.fresh_name();
        let secret = json!({ "Name": name, "SecretString": text });
        let created = self
            .emulator
            .ask("secretsmanager.CreateSecret", &secret)
            .await;
        let arn = created["ARN"].as_str().expect("a secret has an ARN");
        let name = format!("/{name}/deploy-key");
        let parameter = json!({ "Name": name, "Value": text, "Type": "SecureString" });
        self.emulator
            .ask("AmazonSSM.PutParameter", &parameter)
            .await;
        let mut references = self.local.store(text).await;
        references.extend([format!("secretsmanager:{arn}"), format!("ssm:{name}")]);
        references
    }

    async fn missing(&self) -> Vec<String> {
        let arn = "arn:aws:secretsmanager:eu-central-1:000000000000:secret:missing-AbCdEf";
        let mut references = self.local.missing().await;
        references.extend([format!("secretsmanager:{arn}"), "ssm:/missing".to_owned()]);
        references
    }
}

#[async_trait]
impl ObjectsUnderTest for Emulated {
    async fn fresh(&self) -> Arc<dyn Objects> {
        let stack = self.emulator.stack().await;
        self.emulator.aws().await.objects(&stack.rescue)
    }
}

#[async_trait]
impl QueuesUnderTest for Emulated {
    async fn fresh(&self) -> (Arc<dyn Queues>, String) {
        let (_, dead) = self.queue(None).await;
        (self.emulator.aws().await.queues(&dead), dead)
    }
}

#[async_trait]
impl LauncherUnderTest for Emulated {
    async fn fresh(&self) -> Arc<dyn Launcher> {
        crate::launcher::tasks(self.emulator).await
    }
}

mod aws {
    mod clients {
        platform::clients_conformance!(super::super::Emulated::new());
    }
    mod objects {
        platform::objects_conformance!(super::super::Emulated::new());
    }
    mod receipts {
        platform::receipts_conformance!(super::super::Emulated::new());
    }
    mod secrets {
        platform::secrets_conformance!(super::super::Emulated::new());
    }
    mod sessions {
        platform::sessions_conformance!(super::super::Emulated::new());
    }
    mod queue {
        platform::queue_conformance!(super::super::Emulated::new());
    }
    mod queues {
        platform::queues_conformance!(super::super::Emulated::new());
    }
    mod launcher {
        platform::launcher_conformance!(super::super::Emulated::new());
    }
}

mod local {
    mod objects {
        platform::objects_conformance!(super::super::Local::new());
    }
    mod secrets {
        platform::secrets_conformance!(super::super::Local::new());
    }
    mod clients {
        platform::clients_conformance!(super::super::Local::new());
    }
    mod receipts {
        platform::receipts_conformance!(super::super::Local::new());
    }
    mod sessions {
        platform::sessions_conformance!(super::super::Local::new());
    }
    mod queue {
        platform::queue_conformance!(super::super::Local::new());
    }
    mod queues {
        platform::queues_conformance!(super::super::Local::new());
    }
    mod launcher {
        platform::launcher_conformance!(super::super::Local::new());
    }
}

/// A case that is written but not named in its macro would never run.
#[test]
fn every_case_of_the_suite_runs() {
    let sources = [
        include_str!("../../src/conformance/clients.rs"),
        include_str!("../../src/conformance/launcher.rs"),
        include_str!("../../src/conformance/objects.rs"),
        include_str!("../../src/conformance/queue.rs"),
        include_str!("../../src/conformance/queues.rs"),
        include_str!("../../src/conformance/receipts.rs"),
        include_str!("../../src/conformance/secrets.rs"),
        include_str!("../../src/conformance/sessions.rs"),
    ];
    for source in sources {
        let (_, list) = source.split_once("$under_test,\n").expect("a macro");
        let (list, _) = list.split_once('}').expect("the end of the list");
        let listed: Vec<&str> = list.split_whitespace().collect();
        let written: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub async fn "))
            .filter_map(|line| line.split_once('(').map(|(name, _)| name))
            .collect();
        assert_eq!(listed, written);
    }
}

/// What cargo sets for every test.
#[tokio::test]
async fn a_variable_is_read_as_a_secret() {
    let read = LocalSecrets.read("env:CARGO_MANIFEST_DIR").await;
    let read = read.expect("read").expect("cargo sets it");
    assert_eq!(read.expose(), env!("CARGO_MANIFEST_DIR"));
}

/// On a laptop nobody has AWS's.
#[tokio::test]
async fn a_secret_of_aws_is_refused_on_a_laptop_with_what_to_do() {
    for reference in [
        "secretsmanager:arn:aws:secretsmanager:eu-central-1:1:secret:a",
        "ssm:/a",
    ] {
        let refused = LocalSecrets.read(reference).await.expect_err("no AWS");
        let said = refused.to_string();
        assert!(said.contains("file:<path> or env:<NAME>"), "{said}");
    }
}
