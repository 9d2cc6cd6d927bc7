//! The proof that what runs the client's code gets at nothing of ours, made at every start before any of that code runs.
//!
//! ```text
//!   for each user:  daemon ──starts, confined──▶ `attempt` ──what it read, what worked──▶ daemon ──▶ a secret? a success? ─▶ failed start
//! ```
//!
//! The secrets stay here: whoever tries sends what it could read, and it is looked through here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::session::{Boundary, Isolation as Proven};
use nix::unistd::{Pid, getpid, getppid};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::attempt::Said;
use super::{Inner, Isolation, Role, unfit};
use crate::failure::Failure;
use crate::site::process::{Ending, Program};

/// How long all attempts of one user may take: a few thousand small files are read, and a few addresses may say nothing.
const TIME_MAX: Duration = Duration::from_secs(20);
/// What is shorter than this is found everywhere.
const SECRET_MIN_BYTES: usize = 8;
/// What is shorter in an address is a word of it. The secret of ECS is a UUID.
const UNGUESSABLE_MIN_BYTES: usize = 24;
/// How long the endpoint may take to be connected to.
const CONNECT_TIME_MAX: Duration = Duration::from_millis(500);
/// Where ECS gives out credentials, if it does.
const ENDPOINT: &str = "169.254.170.2:80";
/// Variables by whose value somebody could act as us.
const SECRET_VARIABLES: &[&str] = &[
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "ECS_CONTAINER_METADATA_URI_V4",
    "ECS_AGENT_URI",
];

/// Names a file with such a value.
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// A secret, and what it is.
#[derive(Clone)]
pub(crate) struct Secret {
    name: String,
    value: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// A secret; none if it is too short to be one.
    pub(crate) fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Option<Self> {
        let value = value.into();
        (value.len() >= SECRET_MIN_BYTES).then(|| Self {
            name: name.into(),
            value,
        })
    }

    /// What this process was told that nobody else may know.
    pub(crate) fn of_environment() -> Vec<Self> {
        let set = SECRET_VARIABLES.iter().filter_map(|name| {
            let value = std::env::var_os(name)?;
            let value = value.as_encoded_bytes();
            if name.contains("_URI") {
                Self::new(*name, unguessable(value)?)
            } else {
                Self::new(*name, value)
            }
        });
        // The token may be in a file, which is read anew by whoever uses it.
        let file = std::env::var_os(TOKEN_FILE)
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|token| Self::new(TOKEN_FILE, token.trim()));
        set.chain(file).collect()
    }
}

/// The part of an address that nobody guesses; none if all of it is public, as where every task has the same one.
fn unguessable(address: &[u8]) -> Option<&[u8]> {
    let parts = address.split(|byte| *byte == b'/');
    parts
        .max_by_key(|part| part.len())
        .filter(|part| part.len() >= UNGUESSABLE_MIN_BYTES)
}

/// What has to be out of reach.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    /// What nobody may read.
    pub(crate) secrets: Vec<Secret>,
    /// Where nothing may be read, listed or made.
    pub(crate) closed: Vec<PathBuf>,
    /// What may be read and not written.
    pub(crate) fixed: Vec<PathBuf>,
    /// What is looked through.
    pub(crate) search: Vec<PathBuf>,
    /// Where we listen.
    pub(crate) door: SocketAddr,
}

/// Tries everything as every user. Nothing is proven, and nothing said, where there are no users.
pub(crate) async fn prove(
    isolation: &Isolation,
    guarded: &Guarded,
) -> Result<Option<Proven>, Failure> {
    let Some(inner) = &isolation.0 else {
        return Ok(None);
    };
    let began = Instant::now();
    let endpoint = endpoint();
    let reached_by_us = async {
        match endpoint {
            None => false,
            Some(endpoint) => {
                let connected = tokio::net::TcpStream::connect(endpoint);
                matches!(
                    tokio::time::timeout(CONNECT_TIME_MAX, connected).await,
                    Ok(Ok(_))
                )
            }
        }
    };
    let tries = |role| tries(isolation, inner, role, guarded, endpoint);
    let (site, builder, editor, reached_by_us) = tokio::join!(
        tries(Role::Site),
        tries(Role::Build),
        tries(Role::Editor),
        reached_by_us,
    );
    let all = [site?, builder?, editor?];
    let reached = all.iter().any(|tried| tried.reached == Some(true));
    let boundary = match (endpoint, reached_by_us, reached) {
        (None, ..) => Boundary::NoEndpoint,
        (Some(_), _, true) => Boundary::None,
        (Some(_), true, false) => Boundary::Network,
        (Some(_), false, false) => Boundary::Unknown,
    };
    let attempts = all.iter().map(|tried| tried.tried).sum();
    if !all.iter().all(|tried| tried.whole) {
        tracing::warn!(
            "there is more to read than was looked through for secrets: an earlier start has left many files"
        );
    }
    tracing::info!(
        attempts,
        searched = all.iter().map(|tried| tried.searched).sum::<u32>(),
        ?boundary,
        ms = u64::try_from(began.elapsed().as_millis()).ok(),
        "site, builder and editor get at nothing of the agent's"
    );
    Ok(Some(Proven {
        users: true,
        boundary,
        attempts,
    }))
}

/// Where the task's credentials are given out, without the path that gives them.
fn endpoint() -> Option<SocketAddr> {
    if let Ok(full) = std::env::var("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
        let uri: http::Uri = full.parse().ok()?;
        let usual = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let port = uri.port_u16().unwrap_or(usual);
        let mut found = (uri.host()?.trim_matches(['[', ']']), port).to_socket_addrs();
        return found.as_mut().ok().and_then(Iterator::next);
    }
    std::env::var_os("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")?;
    ENDPOINT.parse().ok()
}

/// What one user has tried in vain.
#[derive(Debug, Default)]
struct Tried {
    tried: u32,
    searched: u32,
    /// Whether everything that could be read was looked through.
    whole: bool,
    reached: Option<bool>,
}

async fn tries(
    isolation: &Isolation,
    inner: &Inner,
    role: Role,
    guarded: &Guarded,
    endpoint: Option<SocketAddr>,
) -> Result<Tried, Failure> {
    let user = inner.account(role).name;
    let could_not = |why: String| {
        unfit(
            format!("what `{user}` can get at could not be tried: {why}"),
            "Look at the lines before this one. Nothing of the client's has run.",
        )
        .retryable(true)
    };
    let program = std::env::current_exe().map_err(|error| could_not(error.to_string()))?;
    let mut closed = guarded.closed.clone();
    let others = inner.users.of_children().map(|account| account.name);
    let others = others.into_iter().filter(|name| *name != user);
    closed.extend(others.map(|name| inner.homes.join(name)));
    let mut search = guarded.search.clone();
    search.push(inner.homes.join(user));
    let mut words: Vec<OsString> = vec!["attempt".into()];
    let processes: BTreeSet<Pid> = [Pid::from_raw(1), getppid(), getpid()].into();
    let processes = processes
        .into_iter()
        .filter(|pid| pid.as_raw() > 0)
        .map(|pid| pid.to_string())
        .collect::<Vec<_>>()
        .join(",");
    words.extend(["--processes".into(), processes.into()]);
    for (flag, paths) in [
        ("--closed", &closed),
        ("--fixed", &guarded.fixed),
        ("--search", &search),
    ] {
        for path in paths {
            words.extend([flag.into(), path.into()]);
        }
    }
    words.extend(["--door".into(), guarded.door.to_string().into()]);
    if let Some(endpoint) = endpoint {
        words.extend(["--endpoint".into(), endpoint.to_string().into()]);
    }
    let program = Program::new(program, "/")
        .arguments(words)
        .confined(isolation, role);
    let mut group = program
        .start()
        .map_err(|error| could_not(error.to_string()))?;
    let (stdin, stdout, stderr) = group.pipes().expect("just started");
    drop(stdin);
    let heard = async {
        let mut said = String::new();
        let mut stderr = stderr.take(4096);
        let (tried, _) = tokio::join!(
            listen(BufReader::new(stdout), user, &guarded.secrets),
            stderr.read_to_string(&mut said)
        );
        (tried, said)
    };
    let (tried, said) = tokio::time::timeout(TIME_MAX, heard)
        .await
        .map_err(|_| could_not(format!("it did not end within {} s", TIME_MAX.as_secs())))?;
    let ending = group.ending().await;
    match (tried?, ending) {
        (Some(tried), Ok(Ending::Exited(0))) => Ok(tried),
        (_, ending) => {
            let ending = ending.map_or_else(|error| error.to_string(), |ending| ending.to_string());
            Err(could_not(format!("it {ending}: {}", said.trim())))
        }
    }
}

/// Hears what was tried. None if it did not come to its end.
async fn listen(
    mut said: impl AsyncBufRead + Unpin,
    user: &str,
    secrets: &[Secret],
) -> Result<Option<Tried>, Failure> {
    let broken = |what: String| {
        tracing::error!(user, what, "isolation is broken");
        unfit(
            format!("`{user}` could {what}"),
            "Nothing of the client's has run. Build the image from docker/Dockerfile, and mount nothing into it that others may read.",
        )
    };
    let mut tried = Tried::default();
    let (mut line, mut content) = (String::new(), Vec::new());
    loop {
        line.clear();
        match said.read_line(&mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Ok(None),
        }
        match serde_json::from_str(&line) {
            Ok(Said::Read { from, bytes }) => {
                content.resize(bytes, 0);
                if said.read_exact(&mut content).await.is_err() {
                    return Ok(None);
                }
                tried.searched += 1;
                if let Some(secret) = secrets
                    .iter()
                    .find(|secret| memchr::memmem::find(&content, &secret.value).is_some())
                {
                    return Err(broken(format!("read {} in {from}", secret.name)));
                }
            }
            Ok(Said::Tried { what, succeeded }) => {
                tried.tried += 1;
                if let Some(how) = succeeded {
                    return Err(broken(format!("{what}: {how}")));
                }
            }
            Ok(Said::Endpoint { reached }) => tried.reached = Some(reached),
            Ok(Said::Done { whole }) => {
                tried.whole = whole;
                return Ok(Some(tried));
            }
            Err(_) => return Ok(None),
        }
    }
}

/// The folders of the root in which anybody may have mounted or left something: all but those of the kernel and of the programs.
fn mounted_or_left() -> Vec<PathBuf> {
    const LEFT_OUT: &[&str] = &[
        "proc", "sys", "dev", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "boot",
    ];
    let found = std::fs::read_dir("/").into_iter().flatten().flatten();
    found
        .filter(|entry| !LEFT_OUT.iter().any(|known| entry.file_name() == *known))
        .map(|entry| entry.path())
        .collect()
}

impl Guarded {
    /// Nothing, where nobody else is there to get at it.
    pub(crate) fn none(door: SocketAddr) -> Self {
        Self {
            secrets: Vec::new(),
            closed: Vec::new(),
            fixed: Vec::new(),
            search: Vec::new(),
            door,
        }
    }

    /// What an environment in these folders has to keep.
    pub(crate) fn of(
        home: &crate::environment::home::Home,
        secrets: Vec<Secret>,
        door: SocketAddr,
    ) -> Self {
        let workspace = &home.workspace;
        // The door listens on all addresses; a child asks at the nearest.
        let door = if door.ip().is_unspecified() {
            SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), door.port())
        } else {
            door
        };
        let mut search = mounted_or_left();
        search.push("/dev/shm".into());
        Self {
            secrets,
            closed: vec![
                workspace.join("draft.git"),
                workspace.join("journal.json"),
                workspace.join("staging"),
                home.state.join("rescue"),
                home.store(),
                home.database(),
                home.folder.join("lock"),
            ],
            fixed: [
                Path::new("/etc/passwd"),
                Path::new("/etc"),
                Path::new("/usr/local/bin"),
                &home.state,
                &home.folder,
                workspace,
                &workspace.join("runner.mjs"),
            ]
            .iter()
            .map(|path| (*path).to_owned())
            .chain(std::env::current_exe().ok())
            .collect(),
            search,
            door,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(said: &[u8], secrets: &[Secret]) -> Result<Option<Tried>, String> {
        listen(BufReader::new(said), "site", secrets)
            .await
            .map_err(|failure| failure.message)
    }

    fn secret() -> Secret {
        Secret::new("AWS_SESSION_TOKEN", "a-token-of-some-length").expect("long enough")
    }

    #[test]
    fn of_an_address_only_what_nobody_guesses_is_a_secret() {
        let guid = "c0ffee00-4a11-4b0b-9d3e-5eaf00d5eaf0";
        for address in [
            format!("/v2/credentials/{guid}"),
            format!("http://169.254.170.2/v2/{guid}?x"),
            format!("http://localhost:51679/{guid}/credentials"),
        ] {
            let found = unguessable(address.as_bytes()).expect("a secret");
            assert!(found.starts_with(guid.as_bytes()), "{address}");
        }
        let public = "http://169.254.170.23/v1/credentials";
        assert_eq!(unguessable(public.as_bytes()), None);
    }

    #[tokio::test]
    async fn a_secret_in_anything_that_could_be_read_is_a_failed_start() {
        let content = "PATH=/bin\0T=a-token-of-some-length\0";
        let said = format!(
            "{{\"read\":{{\"from\":\"/proc/1/environ\",\"bytes\":{}}}}}\n{content}{{\"done\":{{\"whole\":true}}}}\n",
            content.len()
        );
        let found = heard(said.as_bytes(), &[secret()]).await;
        assert_eq!(
            found.expect_err("found"),
            "`site` could read AWS_SESSION_TOKEN in /proc/1/environ"
        );
        let other = Secret::new("other", "something-else").expect("long enough");
        let tried = heard(said.as_bytes(), &[other]).await.expect("not found");
        assert_eq!(tried.expect("whole").searched, 1);
    }

    #[tokio::test]
    async fn one_success_is_enough_and_half_a_report_is_none() {
        let vain = r#"{"tried":{"what":"become root","succeeded":null}}"#;
        let won = r#"{"tried":{"what":"signal process 1","succeeded":"it was allowed"}}"#;
        let whole = heard(
            format!("{vain}\n{{\"done\":{{\"whole\":true}}}}\n").as_bytes(),
            &[],
        )
        .await;
        assert_eq!(whole.expect("in vain").expect("whole").tried, 1);
        let broken = heard(
            format!("{vain}\n{won}\n{{\"done\":{{\"whole\":true}}}}\n").as_bytes(),
            &[],
        )
        .await;
        assert_eq!(
            broken.expect_err("it worked"),
            "`site` could signal process 1: it was allowed"
        );
        let half = heard(format!("{vain}\n").as_bytes(), &[]).await;
        assert!(half.expect("nothing worked").is_none());
    }
}
