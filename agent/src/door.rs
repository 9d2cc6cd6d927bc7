//! The door: the one port, in front of the site.
//!
//! ```text
//!   request ─▶ proof (the router's) ─▶ guard (host, origin, path) ─┬─ /_edit/* ─▶ control, presence
//!                                                                  └─ the rest ─▶ visit ─▶ relay ─▶ site
//! ```
//!
//! In the cloud, only the router is answered: `proof` sees to it before anything else is looked at. The guard decides who may ask and for what, and is a pure function of the request's head. A visit is relayed while
//! the site answers, held while it restarts, and answered with a waiting page while it starts. The pages among the
//! answers get the status bar while they pass.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::serve::ListenerExt as _;
use contract::proof::Proof;
use contract::session::Isolation;
use relay::Relay;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod bar;
mod control;
mod guard;
mod history;
mod intake;
mod opened;
mod page;
mod presence;
mod proof;
mod visit;

pub(crate) use bar::Bar;
pub(crate) use guard::Hosts;
pub(crate) use history::SeenOn;
pub(crate) use intake::Intake;
pub(crate) use opened::Opened;
use proof::Asker;

use crate::activity::Activity;
use crate::events::{Events, PhaseName};
use crate::idle;
use crate::pipeline::PipelineView;
use crate::pulse::Pulse;
use crate::site::Site;
use crate::verify::Visits;

/// How long connections may take to end once the door closes.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// How far the environment is, and what exists then.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// It starts; there is no site yet.
    Starting {
        /// What it is doing.
        phase: PhaseName,
    },
    /// The site is supervised, and instructions are carried out.
    Serving {
        /// The site.
        site: Site,
    },
    /// It stops: nothing new is taken on.
    Draining,
}

/// What the door needs.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// Where instructions go.
    pub(crate) intake: Intake,
    /// How far the environment is.
    pub(crate) stage: watch::Receiver<Stage>,
    /// What the pipeline is doing.
    pub(crate) pipeline: watch::Receiver<PipelineView>,
    /// Where changes were seen.
    pub(crate) seen_on: SeenOn,
    /// What happens.
    pub(crate) events: Events,
    /// Which pages people look at.
    pub(crate) visits: Visits,
    /// When they were given them.
    pub(crate) opened: Opened,
    /// Who it takes itself for.
    pub(crate) hosts: Hosts,
    /// The folder that the site may show through `/@fs/`.
    pub(crate) shown_root: std::path::PathBuf,
    /// Carries requests to the site.
    pub(crate) relay: Relay,
    /// What is put into the site's pages; nothing if absent.
    pub(crate) bar: Option<Bar>,
    /// Whether whoever looks at the site develops it: then they are told what its tools say.
    pub(crate) developer: bool,
    /// What the router has to prove, and what is proven to it. Without it everybody is answered.
    pub(crate) proof: Option<Proof>,
    /// How what runs the client's code is kept apart, once that is proven.
    pub(crate) isolation: Arc<OnceLock<Isolation>>,
    /// What people do.
    pub(crate) activity: Activity,
    /// The loop that decides whether it sleeps.
    pub(crate) life: Pulse,
    /// When the environment sleeps; never if absent.
    pub(crate) idle: Option<idle::Settings>,
    /// When it closes.
    pub(crate) closing: CancellationToken,
}

impl Door {
    /// Serves until `closing`, and then a moment longer for what is under way.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let (relay, closing) = (self.relay.clone(), self.closing.clone());
        let service = self
            .router()
            .into_make_service_with_connect_info::<SocketAddr>();
        // An HMR message is small and alone: it must not wait for more to go with it.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps Nagle's algorithm");
            }
        });
        let server = axum::serve(listener, service)
            .with_graceful_shutdown(closing.clone().cancelled_owned());
        let deadline = async {
            closing.cancelled().await;
            relay.close_tunnels(CLOSING_TIME).await;
            tokio::time::sleep(CLOSING_TIME).await;
        };
        tokio::select! {
            ended = server.into_future() => if let Err(error) = ended { panic!("the door broke: {error}") },
            () = deadline => tracing::debug!("some connections did not end in time"),
        }
    }

    fn router(self) -> Router {
        let control = Router::new()
            .route("/health", get(control::health))
            .route("/ready", get(control::ready))
            .route("/status", get(control::status))
            .route("/bar.js", get(bar::script))
            .route("/history", get(history::history))
            .route("/events", get(control::events))
            .route("/presence", post(presence::presence))
            .route("/instructions", post(control::instructions))
            .route("/instructions/{id}", get(control::receipt))
            .fallback(control::unknown);
        let door = Arc::new(self);
        Router::new()
            .nest("/_edit", control)
            // The one address below it that a nest leaves out.
            .route("/_edit/", any(control::unknown))
            .fallback(visit)
            .layer(middleware::from_fn_with_state(Arc::clone(&door), guarded))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&door),
                proof::proven,
            ))
            .with_state(door)
    }
}

async fn guarded(
    State(door): State<Arc<Door>>,
    Extension(asker): Extension<Asker>,
    request: Request,
    next: Next,
) -> Response {
    match guard::judge(
        request.method(),
        request.uri(),
        request.headers(),
        &door.hosts,
        &door.shown_root,
        asker.proto,
    ) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::debug!(why = %refusal.why, "a request was refused at the door");
            page::plain(refusal.status, &refusal.why).into_response()
        }
    }
}

async fn visit(
    State(door): State<Arc<Door>>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Response {
    visit::visit(&door, asker, request).await
}

#[cfg(test)]
mod tests;
