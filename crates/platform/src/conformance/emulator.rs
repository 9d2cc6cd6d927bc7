//! AWS as others emulate it: ministack, started by the tests, spoken to over the wire.
//!
//! ```text
//!  test binary ──stdin (a leash)──▶ emulator.py ── ministack on 127.0.0.1:<free port>
//!      └── HTTP: CreateStack(infra/data.yaml), CreateQueue, … and the adapters under test ──▶┘
//! ```
//!
//! The emulator is made once, as a private Python environment below a folder that the caller names
//! (`CARGO_TARGET_TMPDIR`), and started once in a process. It ends with the process that started it, however that one
//! ends. It keeps everything in memory.
//!
//! Tables and shared queues come from `infra/data.yaml`, so that what the tests run on is what an operator deploys. Queues
//! of sessions are made as the router makes them: with the attributes of the intake queue.

#![allow(
    clippy::missing_panics_doc,
    reason = "tests that cannot have their emulator fail, and say why"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::aws::{Aws, AwsSettings, EcsSettings, Keys, Patience};

/// What is installed: pinned, because every version of the emulator is another AWS. The clients are those of others, for
/// tests that send as a producer does.
const PACKAGES: [&str; 4] = [
    "ministack==1.5.33",
    "boto3==1.43.106",
    "awscli==1.46.3",
    "cfn-lint==1.58.0",
];

/// The region of everything in the emulator.
pub const REGION: &str = "eu-central-1";

/// What the targets of ECS begin with.
pub const ECS: &str = "AmazonEC2ContainerServiceV20141113";

/// The template that an operator deploys.
pub const TEMPLATE: &str = include_str!("../../../../infra/data.yaml");

/// How often a stack is looked at that is being made, and the pause between two looks: two minutes in all.
const LOOKS: u32 = 2_400;
const PAUSE: Duration = Duration::from_millis(50);

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    port: u16,
    environment: PathBuf,
    made: AtomicU64,
    /// Held: its standard input is the leash.
    _process: Child,
}

/// What [`TEMPLATE`] made.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// The table of the clients.
    pub clients: String,
    /// The table of the sessions.
    pub sessions: String,
    /// The table of the receipts.
    pub receipts: String,
    /// The URL of the intake queue.
    pub intake: String,
    /// The URL of the dead letters.
    pub dead: String,
    /// The name of the rescue bucket.
    pub rescue: String,
    /// The role of the environments' tasks.
    pub agent_role: String,
}

impl Emulator {
    /// The emulator of this process, made and started by whoever asks first. `folder` is `CARGO_TARGET_TMPDIR`.
    ///
    /// Blocks: the first time of all for as long as packages take to be installed.
    pub fn shared(folder: &str) -> &'static Self {
        static SHARED: OnceLock<Emulator> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Path::new(folder)))
    }

    fn start(folder: &Path) -> Self {
        let environment = environment(folder);
        let mut process = Command::new(environment.join("bin/python"))
            .args(["-c", include_str!("emulator.py")])
            .env_clear()
            .env("AWS_REGION", REGION)
            .env("MINISTACK_REGION", REGION)
            .env("HOME", &environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python that was just installed starts");
        let said = process.stdout.take().expect("it is piped");
        let mut first = String::new();
        BufReader::new(said)
            .read_line(&mut first)
            .expect("the emulator says its port");
        let port = first
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("the emulator said {first:?} instead of its port"));
        Self {
            port,
            environment,
            made: AtomicU64::new(0),
            _process: process,
        }
    }

    /// Where it is, for `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A program of its Python environment: `python` (with boto3), `aws`, `cfn-lint`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.environment.join("bin").join(name)
    }

    /// The standard variables by which a child process finds it. The command line of AWS (version 1, the one that pip
    /// has) does not look at `AWS_ENDPOINT_URL`: it wants `--endpoint-url` as well.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
    }

    /// The settings by which this process finds it.
    pub fn settings(&self) -> AwsSettings {
        AwsSettings {
            region: Some(REGION.to_owned()),
            endpoint_url: Some(self.endpoint()),
            keys: Some(Keys {
                id: "test".to_owned(),
                secret: "test".to_owned(),
            }),
            patience: Patience {
                // It is one process of one thread, on a machine that is building something else.
                attempt: Duration::from_secs(30),
                operation: Duration::from_secs(60),
                ..Patience::default()
            },
        }
    }

    /// The adapters under test.
    pub async fn aws(&self) -> Aws {
        Aws::load(self.settings()).await
    }

    /// A name that nothing else in it has.
    pub fn fresh_name(&self) -> String {
        format!("fresh-{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Tables, shared queues and bucket of their own, from [`TEMPLATE`].
    pub async fn stack(&self) -> Stack {
        let name = self.fresh_name();
        let parameters = [
            ("ClientConfigsTable", format!("{name}-clients")),
            ("SessionsTable", format!("{name}-sessions")),
            ("ReceiptsTable", format!("{name}-receipts")),
            ("IntakeQueue", format!("{name}-intake.fifo")),
            ("DeadQueue", format!("{name}-dead.fifo")),
            ("AgentClientId", "*".to_owned()),
        ];
        self.stack_with(&name, &parameters).await
    }

    /// A stack from [`TEMPLATE`] with these parameters, and the template's own names where there are none.
    pub async fn stack_with(&self, name: &str, parameters: &[(&str, String)]) -> Stack {
        let mut form = vec![
            ("Action".to_owned(), "CreateStack".to_owned()),
            ("Version".to_owned(), "2010-05-15".to_owned()),
            ("StackName".to_owned(), name.to_owned()),
            ("TemplateBody".to_owned(), TEMPLATE.to_owned()),
            (
                "Capabilities.member.1".to_owned(),
                "CAPABILITY_IAM".to_owned(),
            ),
        ];
        for (number, (key, value)) in (1..).zip(parameters) {
            let place = format!("Parameters.member.{number}");
            form.push((format!("{place}.ParameterKey"), (*key).to_owned()));
            form.push((format!("{place}.ParameterValue"), value.clone()));
        }
        self.query("cloudformation", &form).await;
        let described = self.created(name).await;
        let outputs: BTreeMap<&str, &str> = described
            .split("<member>")
            .filter_map(|member| {
                let key = between(member, "<OutputKey>", "</OutputKey>")?;
                let value = between(member, "<OutputValue>", "</OutputValue>")?;
                Some((key, value))
            })
            .collect();
        let parameter = |key: &str, otherwise: &str| {
            parameters
                .iter()
                .find(|(name, _)| *name == key)
                .map_or_else(|| otherwise.to_owned(), |(_, value)| value.clone())
        };
        Stack {
            name: name.to_owned(),
            clients: parameter("ClientConfigsTable", "webordinary-client-configs"),
            sessions: parameter("SessionsTable", "webordinary-edit-sessions"),
            receipts: parameter("ReceiptsTable", "webordinary-edit-receipts"),
            intake: outputs["IntakeQueueUrl"].to_owned(),
            dead: outputs["DeadQueueUrl"].to_owned(),
            rescue: outputs["RescueBucketName"].to_owned(),
            agent_role: outputs["AgentRoleArn"].to_owned(),
        }
    }

    /// What is said of a stack once it is made.
    async fn created(&self, name: &str) -> String {
        let form = [
            ("Action".to_owned(), "DescribeStacks".to_owned()),
            ("Version".to_owned(), "2010-05-15".to_owned()),
            ("StackName".to_owned(), name.to_owned()),
        ];
        let mut answer = String::new();
        for _ in 0..LOOKS {
            answer = self.query("cloudformation", &form).await;
            match between(&answer, "<StackStatus>", "</StackStatus>") {
                Some("CREATE_COMPLETE") => return answer,
                Some("CREATE_IN_PROGRESS") => tokio::time::sleep(PAUSE).await,
                _ => break,
            }
        }
        panic!("the stack is not made: {answer}")
    }

    /// A queue as the router makes it for a session: the attributes that DESIGN gives all of them. Returns its URL.
    pub async fn queue(&self, name: &str, dead: Option<(&str, u32)>) -> String {
        let mut attributes = json!({
            "FifoQueue": "true",
            "DeduplicationScope": "messageGroup",
            "FifoThroughputLimit": "perMessageGroupId",
            "MessageRetentionPeriod": "1209600",
            "VisibilityTimeout": "60",
        });
        if let Some((dead, max_receive_count)) = dead {
            let arn = self.queue_attribute(dead, "QueueArn").await;
            let policy =
                json!({ "deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count });
            attributes["RedrivePolicy"] = Value::String(policy.to_string());
        }
        let created = self
            .ask(
                "AmazonSQS.CreateQueue",
                &json!({ "QueueName": name, "Attributes": attributes }),
            )
            .await;
        created["QueueUrl"]
            .as_str()
            .expect("CreateQueue answers a URL")
            .to_owned()
    }

    /// A cluster of its own with a task definition of its own, as `infra/router.yaml` wants them to be there.
    pub async fn cluster(&self) -> EcsSettings {
        let name = self.fresh_name();
        let cluster = json!({ "clusterName": name });
        self.ask(&format!("{ECS}.CreateCluster"), &cluster).await;
        let definition = json!({
            "family": name,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "512",
            "memory": "1024",
            "containerDefinitions": [{ "name": "edit-agent", "image": "edit-agent", "essential": true }],
        });
        self.ask(&format!("{ECS}.RegisterTaskDefinition"), &definition)
            .await;
        EcsSettings {
            cluster: name.clone(),
            task_definition: name,
            container_name: "edit-agent".to_owned(),
            subnets: vec!["subnet-1".to_owned(), "subnet-2".to_owned()],
            security_groups: vec!["sg-1".to_owned()],
            assign_public_ip: false,
            environment: vec![("EDIT_DOMAIN".to_owned(), "example.com".to_owned())],
        }
    }

    /// An attribute of a queue, as the emulator says it.
    pub async fn queue_attribute(&self, url: &str, name: &str) -> String {
        let asked = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
        let answer = self.ask("AmazonSQS.GetQueueAttributes", &asked).await;
        match &answer["Attributes"][name] {
            Value::String(value) => value.clone(),
            other => panic!("the queue says {other} about its {name}"),
        }
    }

    /// Asks a service that speaks JSON, without any SDK. `target` is the operation's `X-Amz-Target`.
    pub async fn ask(&self, target: &str, body: &Value) -> Value {
        let (status, answer) = self.try_ask(target, body).await;
        assert_eq!(status, 200, "{target} {body}: {answer}");
        answer
    }

    /// The same where it may be refused: the HTTP status and the answer.
    pub async fn try_ask(&self, target: &str, body: &Value) -> (u16, Value) {
        let service = match target.split('.').next().unwrap_or_default() {
            "DynamoDB_20120810" => "dynamodb",
            "AmazonSQS" => "sqs",
            "secretsmanager" => "secretsmanager",
            "AmazonSSM" => "ssm",
            ECS => "ecs",
            other => panic!("{other} is no service of these tests"),
        };
        let json_version = if matches!(service, "dynamodb" | "sqs") {
            "1.0"
        } else {
            "1.1"
        };
        let headers = format!(
            "X-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-{json_version}\r\n"
        );
        let (status, text) = self
            .post(service, &headers, body.to_string().as_bytes())
            .await;
        let answer = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        (status, answer)
    }

    /// Asks a service that speaks XML.
    async fn query(&self, service: &str, form: &[(String, String)]) -> String {
        let body: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
        let (status, answer) = self.post(service, headers, body.join("&").as_bytes()).await;
        assert_eq!(status, 200, "{service}: {answer}");
        answer
    }

    async fn post(&self, service: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("the emulator listens");
        let head = format!(
            "POST / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}Authorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        connection
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .expect("the emulator takes the request");
        let mut answer = Vec::new();
        connection
            .read_to_end(&mut answer)
            .await
            .expect("the emulator answers");
        read_response(&String::from_utf8_lossy(&answer))
    }
}

/// Status and body of an HTTP answer that was read to its end.
fn read_response(answer: &str) -> (u16, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?} is no HTTP answer"));
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{head:?} has no status"));
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return (status, body.to_owned());
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_default();
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    (status, whole)
}

/// The Python environment, which is made if it is not there yet. Other processes that want it too wait.
fn environment(folder: &Path) -> PathBuf {
    let versions: Vec<&str> = PACKAGES
        .iter()
        .filter_map(|package| package.split("==").nth(1))
        .collect();
    let environment = folder.join(format!("aws-emulator-{}", versions.join("-")));
    let complete = environment.join("complete");
    std::fs::create_dir_all(folder).expect("a folder for the emulator");
    let lock = File::create(folder.join("aws-emulator.lock")).expect("a lock");
    lock.lock().expect("file systems lock");
    if !complete.exists() {
        drop(std::fs::remove_dir_all(&environment));
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment));
        run(Command::new(environment.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(PACKAGES));
        File::create(&complete).expect("a mark that it is complete");
    }
    environment
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// Percent-encoded for a form.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
