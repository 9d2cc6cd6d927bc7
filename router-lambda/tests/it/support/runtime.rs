//! The runtime of AWS Lambda, as cargo-lambda emulates it: it hands events to a function that asks for them, one at a time.
//!
//! ```text
//!   invoke(event) ──▶ cargo lambda watch --only-lambda-apis ◀──next── the function, a process that the story starts
//!                 ◀─                                       ◀─answer─
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use platform::conformance::emulator::{Emulator, Stack};
use tokio::process::{Child, Command};

use super::PATIENCE;

/// From `PyPI`, where its maintainers put the program itself.
const PACKAGE: &str = "cargo-lambda==1.9.2";

/// A runtime that runs until it is dropped.
#[derive(Debug)]
pub struct Runtime {
    port: u16,
    client: Client<HttpConnector, Full<Bytes>>,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Runtime {
    /// A runtime without a function. The first one of all takes as long as a package takes to be installed.
    pub async fn start() -> Self {
        let program =
            tokio::task::spawn_blocking(|| program(Path::new(env!("CARGO_TARGET_TMPDIR"))))
                .await
                .expect("it is installed");
        // It wants to be in a package, and builds nothing of it.
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = "[package]\nname = \"function\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("written");
        std::fs::create_dir(folder.path().join("src")).expect("a folder");
        std::fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").expect("written");
        // It cannot choose a port itself.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let process = Command::new(program)
            .args([
                "lambda",
                "watch",
                "--only-lambda-apis",
                "--invoke-address",
                "127.0.0.1",
                "--invoke-port",
            ])
            .arg(port.to_string())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("what was just installed starts");
        let runtime = Self {
            port,
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            _process: process,
            _folder: folder,
        };
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens)
            .await
            .expect("the runtime listens");
        runtime
    }

    /// The router as its function, with these records, which ends when it is dropped.
    pub fn router(&self, emulator: &Emulator, stack: &Stack) -> Child {
        self.starts(
            &mut Command::new(env!("CARGO_BIN_EXE_edit-router")),
            emulator,
            stack,
        )
    }

    /// A program as its function.
    pub fn starts(&self, program: &mut Command, emulator: &Emulator, stack: &Stack) -> Child {
        program
            .env_clear()
            .envs(self.variables())
            .envs(emulator.variables())
            .envs([
                ("EDIT_DOMAIN", "example.com"),
                ("LINK_KEYS", &format!("a:{}", "0b".repeat(32))),
                ("ALLOWED_CIDRS", "127.77.0.0/16"),
                ("ECS_CLUSTER", "edit"),
                ("TASK_DEFINITION", "edit-agent"),
                ("SUBNETS", "subnet-1"),
                ("SECURITY_GROUPS", "sg-1"),
                ("DEAD_QUEUE_URL", &stack.dead),
                ("CLIENT_CONFIGS_TABLE", &stack.clients),
                ("SESSIONS_TABLE", &stack.sessions),
                ("RECEIPTS_TABLE", &stack.receipts),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts")
    }

    /// The variables by which a function finds it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "AWS_LAMBDA_RUNTIME_API",
                format!("http://127.0.0.1:{}/.rt", self.port),
            ),
            ("AWS_LAMBDA_FUNCTION_NAME", "_".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
        ]
    }

    /// What invokes the function, for a load balancer.
    pub fn invoke(&self) -> super::alb::Invoke {
        let (client, port) = (self.client.clone(), self.port);
        std::sync::Arc::new(move |event| {
            let client = client.clone();
            Box::pin(async move { invoke(&client, port, event).await })
        })
    }

    /// Invokes the function with an event. An error is what it says, as JSON.
    pub async fn invokes(&self, event: &str) -> Result<String, String> {
        invoke(&self.client, self.port, event.to_owned()).await
    }
}

async fn invoke(
    client: &Client<HttpConnector, Full<Bytes>>,
    port: u16,
    event: String,
) -> Result<String, String> {
    let request = http::Request::post(format!(
        "http://127.0.0.1:{port}/2015-03-31/functions/_/invocations"
    ))
    .header("content-type", "application/json")
    .body(Full::new(Bytes::from(event)))
    .expect("a request");
    let answered = async {
        let response = client
            .request(request)
            .await
            .map_err(|error| error.to_string())?;
        let failed = response.headers().contains_key("x-amz-function-error")
            || !response.status().is_success();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if failed { Err(text) } else { Ok(text) }
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .expect("the function answers")
}

/// The program, which is installed if it is not there yet. Other processes that want it too wait.
fn program(folder: &Path) -> PathBuf {
    let environment = folder.join(PACKAGE.replace("==", "-"));
    let program = environment.join("bin/cargo-lambda");
    let complete = environment.join("complete");
    std::fs::create_dir_all(folder).expect("a folder");
    let lock = File::create(folder.join("lambda-runtime.lock")).expect("a lock");
    lock.lock().expect("file systems lock");
    if !complete.exists() {
        drop(std::fs::remove_dir_all(&environment));
        run(std::process::Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment));
        run(
            std::process::Command::new(environment.join("bin/python")).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                PACKAGE,
            ]),
        );
        File::create(&complete).expect("a mark that it is complete");
    }
    program
}

fn run(command: &mut std::process::Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
