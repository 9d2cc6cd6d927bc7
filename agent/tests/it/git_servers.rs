//! Git servers of the stories: git's own CGI behind HTTP, and Debian's sshd, each on a free port of this machine.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{PATIENCE, Repository, git};

/// The token that [`HttpServer::with_token`] takes.
pub const TOKEN: &str = "ghp_OnlyInTheseTests";

/// A bare repository's folder behind HTTP.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    served: Arc<Served>,
    tasks: JoinSet<()>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method, path and query.
    pub line: String,
    /// What proves who asks.
    pub authorization: Option<String>,
}

#[derive(Debug)]
struct Served {
    root: PathBuf,
    authorization: Option<String>,
    /// Everything is answered with a redirect to there.
    elsewhere: Option<String>,
    seen: watch::Sender<Vec<Seen>>,
    /// The next push is carried out, and its answer breaks off.
    cut_next_push: AtomicBool,
    /// No pack is sent to anybody who clones.
    hold_packs: AtomicBool,
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

impl HttpServer {
    /// Serves the repositories below the folder of this one to everybody. Everybody may push, too.
    pub async fn open_to_all(repository: &Repository) -> Self {
        Self::start(repository.path(), None, None).await
    }

    /// Serves the repositories below the folder of this one to whoever has the token.
    pub async fn with_token(repository: &Repository) -> Self {
        Self::start(repository.path(), Some(TOKEN), None).await
    }

    /// Sends everybody elsewhere. Asks for the token first if told to.
    pub async fn that_redirects(to: &str, asks_first: bool) -> Self {
        Self::start(Path::new("/"), asks_first.then_some(TOKEN), Some(to)).await
    }

    /// As [`HttpServer::with_token`], where a server was before.
    pub async fn with_token_at(repository: &Repository, address: SocketAddr) -> Self {
        Self::start_at(address, repository.path(), Some(TOKEN), None).await
    }

    async fn start(repository: &Path, token: Option<&str>, elsewhere: Option<&str>) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any_port, repository, token, elsewhere).await
    }

    async fn start_at(
        address: SocketAddr,
        repository: &Path,
        token: Option<&str>,
        elsewhere: Option<&str>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let served = Arc::new(Served {
            root: repository.parent().unwrap_or(repository).to_owned(),
            authorization: token
                .map(|token| format!("Basic {}", BASE64.encode(format!("x-access-token:{token}")))),
            elsewhere: elsewhere.map(str::to_owned),
            seen: watch::Sender::default(),
            cut_next_push: AtomicBool::new(false),
            hold_packs: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&served)));
        Self {
            address,
            served,
            tasks,
        }
    }

    /// The address of a repository on it.
    pub fn url(&self, repository: &Repository) -> String {
        let name = repository.path().file_name().expect("a folder");
        format!("http://{}/{}", self.address, name.to_string_lossy())
    }

    /// The address of anything on it.
    pub fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.served.seen.borrow().clone()
    }

    /// Carries out the next push, and breaks off in the middle of its answer.
    pub fn cut_the_answer_to_the_next_push(&self) {
        self.served.cut_next_push.store(true, Ordering::SeqCst);
    }

    /// Whether the answer has been cut.
    pub fn has_cut(&self) -> bool {
        !self.served.cut_next_push.load(Ordering::SeqCst)
    }

    /// From now on whoever clones waits for the pack for ever; or no longer.
    pub fn hold_packs(&self, hold: bool) {
        self.served.hold_packs.store(hold, Ordering::SeqCst);
    }

    /// Waits until somebody asks for something that contains `words`.
    pub async fn asked_for(&self, words: &str) {
        let mut seen = self.served.seen.subscribe();
        let asked = seen.wait_for(|seen| seen.iter().any(|request| request.line.contains(words)));
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| panic!("nobody asked for {words}; seen: {:#?}", self.seen()))
            .expect("the server lives");
    }

    /// Stops listening, and breaks off what is under way.
    pub async fn stop(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accepted");
        let served = Arc::clone(&served);
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let served = Arc::clone(&served);
                async move { Ok::<_, Infallible>(answer(&served, request).await) }
            });
            // A client that goes away in the middle is part of the stories.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(served: &Served, request: Request<Incoming>) -> Answer {
    let authorization = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let line = format!("{} {}", request.method(), request.uri());
    served.seen.send_modify(|seen| {
        seen.push(Seen {
            line: line.clone(),
            authorization: authorization.clone(),
        });
    });
    let known = served.authorization.is_none() || served.authorization == authorization;
    if !known {
        let mut answer = plain(StatusCode::UNAUTHORIZED, "Who are you?");
        let basic = hyper::header::HeaderValue::from_static("Basic realm=\"git\"");
        answer.headers_mut().insert("www-authenticate", basic);
        return answer;
    }
    if let Some(elsewhere) = &served.elsewhere {
        let mut answer = plain(StatusCode::FOUND, "It is not here.");
        let place = format!("{elsewhere}{}", request.uri());
        let place = place.parse().expect("an address is a header's value");
        answer.headers_mut().insert("location", place);
        return answer;
    }
    let packs = line.starts_with("POST") && line.ends_with("git-upload-pack");
    if packs && served.hold_packs.load(Ordering::SeqCst) {
        return std::future::pending().await;
    }
    let pushes = line.starts_with("POST") && line.ends_with("git-receive-pack");
    let (status, headers, body) = backend(&served.root, request).await;
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    let body = if pushes && served.cut_next_push.swap(false, Ordering::SeqCst) {
        let half = body.slice(..body.len() / 2);
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        StreamBody::new(stream::iter([Ok(Frame::data(half)), Err(cut)])).boxed()
    } else {
        Full::new(body).map_err(|never| match never {}).boxed()
    };
    builder.body(body).expect("git's headers are headers")
}

fn plain(status: StatusCode, words: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(words).map_err(|never| match never {}).boxed());
    *answer.status_mut() = status;
    answer
}

/// Asks git's own CGI.
async fn backend(
    root: &Path,
    request: Request<Incoming>,
) -> (StatusCode, Vec<(String, String)>, Bytes) {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let program = Path::new(&git(Path::new("/"), &["--exec-path"])).join("git-http-backend");
    let mut command = Command::new(program);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // Who is known may push.
        .env("REMOTE_USER", "x-access-token")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", request.uri().path())
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        // The client is gone: nobody reads what is answered.
        Err(_) => return (StatusCode::BAD_REQUEST, Vec::new(), Bytes::new()),
    };
    command.env("CONTENT_LENGTH", body.len().to_string());
    let mut child = command.spawn().expect("git http-backend runs");
    let mut stdin = child.stdin.take().expect("piped");
    let (written, output) = tokio::join!(
        async move { stdin.write_all(&body).await },
        child.wait_with_output()
    );
    // It may end before it has read everything.
    written.ok();
    let output = output.expect("it ran").stdout;
    let (head, body) = split_head(&output);
    let mut status = StatusCode::OK;
    let mut headers = Vec::new();
    for line in head.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split_whitespace().next().unwrap_or_default();
            status = code.parse().expect("a status is a number");
        } else {
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    (status, headers, Bytes::copy_from_slice(body))
}

fn split_head(output: &[u8]) -> (String, &[u8]) {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(output.len());
    let body = output.get(end + 4..).unwrap_or_default();
    (String::from_utf8_lossy(&output[..end]).into_owned(), body)
}

/// An sshd that lets one key in.
#[derive(Debug)]
pub struct SshServer {
    address: SocketAddr,
    folder: TempDir,
    logins: Arc<Mutex<u32>>,
    _tasks: JoinSet<()>,
}

impl SshServer {
    /// Listens, with a host key of its own and a key that may log in.
    pub async fn start() -> Self {
        let sshd = Path::new("/usr/sbin/sshd");
        assert!(
            sshd.exists(),
            "the ssh stories need Debian's package `openssh-server`: apt-get install openssh-server"
        );
        if nix::unistd::geteuid().is_root() {
            // As root it insists on this folder, which is made when the system's own sshd starts.
            fs::create_dir_all("/run/sshd").expect("made");
        }
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["host_key", "deploy_key", "other_key"] {
            key(&folder.path().join(name));
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::copy(at("deploy_key.pub"), at("authorized_keys")).expect("copied");
        let path = std::env::var("PATH").unwrap_or_default();
        let configuration = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nSetEnv PATH={path}\n",
            at("host_key"),
            at("authorized_keys")
        );
        fs::write(at("sshd_config"), configuration).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let logins = Arc::new(Mutex::new(0));
        let mut tasks = JoinSet::new();
        let (configuration, log) = (at("sshd_config"), at("log"));
        let counted = Arc::clone(&logins);
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                *counted.lock().expect("no panic") += 1;
                let mut session = Command::new(sshd)
                    .args(["-i", "-f", &configuration, "-E", &log])
                    .stdin(stdio(&stream))
                    .stdout(stdio(&stream))
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()
                    .expect("sshd runs");
                drop(stream);
                sessions.spawn(async move { session.wait().await });
                while sessions.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            folder,
            logins,
            _tasks: tasks,
        }
    }

    /// The address of a repository on it.
    pub fn url(&self, repository: &Repository) -> String {
        let me = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .expect("users can be read")
            .expect("I am one");
        format!(
            "ssh://{}@{}{}",
            me.name,
            self.address,
            repository.path().display()
        )
    }

    /// `--deploy-key` for the key that may log in.
    pub fn deploy_key(&self) -> String {
        format!("file:{}", self.folder.path().join("deploy_key").display())
    }

    /// `--deploy-key` for a key that may not.
    pub fn other_key(&self) -> String {
        format!("file:{}", self.folder.path().join("other_key").display())
    }

    /// `--host-key` for this server's key.
    pub fn host_key(&self) -> String {
        fingerprint(&self.folder.path().join("host_key.pub"))
    }

    /// `--host-key` for the key of another server.
    pub fn other_host_key(&self) -> String {
        fingerprint(&self.folder.path().join("other_key.pub"))
    }

    /// A home in which this server is known; or not.
    pub fn home(&self, known: bool) -> TempDir {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join(".ssh");
        fs::create_dir(&folder).expect("made");
        let key = fs::read_to_string(self.folder.path().join("host_key.pub")).expect("made");
        let (host, port) = (self.address.ip(), self.address.port());
        let line = if known {
            format!("[{host}]:{port} {key}")
        } else {
            String::new()
        };
        fs::write(folder.join("known_hosts"), line).expect("written");
        // Where packages come from is none of the story.
        if let Some(own) = std::env::var_os("HOME") {
            let settings = Path::new(&own).join(".npmrc");
            if settings.exists() {
                fs::copy(settings, home.path().join(".npmrc")).expect("copied");
            }
        }
        home
    }

    /// How many connections there were.
    pub fn connections(&self) -> u32 {
        *self.logins.lock().expect("no panic")
    }

    /// What the server said of them.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn stdio(stream: &TcpStream) -> Stdio {
    use std::os::fd::AsFd as _;
    let handle = stream.as_fd().try_clone_to_owned().expect("a handle");
    let stream = std::net::TcpStream::from(handle);
    stream.set_nonblocking(false).expect("sshd blocks");
    std::os::fd::OwnedFd::from(stream).into()
}

fn fingerprint(key: &Path) -> String {
    let printed = std::process::Command::new("ssh-keygen")
        .arg("-lf")
        .arg(key)
        .output()
        .expect("ssh-keygen runs (Debian's package `openssh-client`)");
    let line = String::from_utf8_lossy(&printed.stdout).into_owned();
    line.split(' ').nth(1).expect("a fingerprint").to_owned()
}

fn key(path: &Path) {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen runs (Debian's package `openssh-client`)");
    assert!(made.success());
}
