//! An axum server that relays everything to one upstream, as the door does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use relay::{Forwarded, HostPolicy, PoolKey, Proto, Relay, RelayError, Settings};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use crate::wire::{Wire, within};

pub(crate) struct Front {
    pub(crate) relay: Relay,
    address: SocketAddr,
    errors: Mutex<mpsc::Receiver<RelayError>>,
    _tasks: TaskTracker,
}

struct Shared {
    relay: Relay,
    upstream: relay::Upstream,
    veto: bool,
    errors: mpsc::Sender<RelayError>,
}

/// The upstream of most tests: the client's `Host`, nothing forwarded, one pool.
pub(crate) fn plain(address: SocketAddr) -> relay::Upstream {
    relay::Upstream {
        address,
        host: HostPolicy::Keep,
        forwarded: Forwarded::default(),
        pool_key: PoolKey::from("task-1#1"),
    }
}

/// As the gateway says it.
pub(crate) fn forwarded() -> Forwarded {
    Forwarded {
        client: Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))),
        proto: Some(Proto::Https),
        host: Some(HeaderValue::from_static("edit.acme.example")),
        headers: [(
            "edit-proof".parse().expect("a name"),
            HeaderValue::from_static("v1 ours"),
        )]
        .into_iter()
        .collect(),
    }
}

impl Front {
    pub(crate) async fn of(address: SocketAddr) -> Self {
        Self::with(Settings::default(), plain(address)).await
    }

    pub(crate) async fn with(settings: Settings, upstream: relay::Upstream) -> Self {
        Self::start(settings, upstream, false).await
    }

    /// A front that turns every answer into a 403 of its own, as one does that finds a proof wrong.
    pub(crate) async fn that_vetoes(settings: Settings, upstream: relay::Upstream) -> Self {
        Self::start(settings, upstream, true).await
    }

    async fn start(settings: Settings, upstream: relay::Upstream, veto: bool) -> Self {
        let relay = Relay::new(settings);
        let (errors, received) = mpsc::channel(64);
        let shared = Shared {
            relay: relay.clone(),
            upstream,
            veto,
            errors,
        };
        let router = Router::new().fallback(pass_on).with_state(Arc::new(shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let tasks = TaskTracker::new();
        tasks.spawn(async move { axum::serve(listener, router).await });
        Self {
            relay,
            address,
            errors: Mutex::new(received),
            _tasks: tasks,
        }
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// The next error of the relay.
    pub(crate) async fn error(&self) -> RelayError {
        within("an error of the relay", async {
            self.errors.lock().await.recv().await
        })
        .await
        .expect("the front runs")
    }
}

async fn pass_on(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match shared.relay.ask(request, &shared.upstream).await {
        Ok(_) if shared.veto => own(StatusCode::FORBIDDEN, "not proven"),
        Ok(answer) => answer.pass_on().map(axum::body::Body::new),
        Err(error) => {
            let answer = own(error.status(), &error.to_string());
            shared.errors.try_send(error).expect("few errors in a test");
            answer
        }
    }
}

fn own(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(axum::body::Body::from(text.to_owned()));
    *response.status_mut() = status;
    response
}
