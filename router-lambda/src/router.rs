//! The router: asks what has to be known, decides, and answers whatever it can answer itself.
//!
//! ```text
//!                    ┌─ directory: whose host?
//!  Head ─▶ Asked ────┤                            ─▶ route ─▶ Decision ─┬─▶ Answer   (pages, 303, wake, state, 404 …)
//!                    └─ registry: which session?                        └─▶ Forward  (a door, and how to know it)
//! ```
//!
//! Both front ends ask it. What is forwarded is theirs to carry: the gateway streams it, the Lambda fetches what fits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::proof::Proof;
use contract::session::State;
use contract::{ClientConfig, ClientId, Generation, Session, SessionId, ThreadId, Timestamp};
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderValue, Response, StatusCode};
use platform::Sessions;
use relay::{PoolKey, Proto, RelayError};
use tokio::time::Instant;

use crate::ask::Head;
use crate::cookie;
use crate::directory::{Directory, Whose};
use crate::host::{Host, Place};
use crate::link::{Entrance, Link, LinkKeys, LinkRefused, token};
use crate::metrics::Metrics;
use crate::page::{self, Form, Standing, Waiting};
use crate::path::landing;
use crate::policy::Policy;
use crate::registry::{Lookup, Registry, Trust};
use crate::reply;
use crate::rollout::Away;
use crate::route::{Asked, Decision, Seen, Why, route, standing, unread};
use crate::threads::Threads;
use crate::wake::{Waker, Woken};

/// How long the step from an edit host to a session's own may take.
const ENTRANCE_SECONDS: i64 = 30;
/// Where a waiting page asks how it stands.
const STATE: &str = "/_edit/session";
/// Who began a session where a link names nobody.
const SOMEBODY: &str = "somebody";

/// What a router is made of.
#[derive(Debug)]
pub struct Parts {
    /// What holds for all clients.
    pub policy: Policy,
    /// The keys that sign links.
    pub keys: LinkKeys,
    /// Which client a host belongs to.
    pub directory: Directory,
    /// What is known of sessions.
    pub registry: Registry,
    /// The sessions' table, for what is used once.
    pub sessions: Arc<dyn Sessions>,
    /// Makes sessions.
    pub threads: Threads,
    /// Wakes them.
    pub waker: Waker,
    /// How long an answer about a session may be held back until there is something new; not at all in a Lambda, which is paid
    /// for while it waits.
    pub hold: Duration,
    /// What is counted.
    pub metrics: Metrics,
}

/// The router. Cheap to clone; the clones are one router.
#[derive(Debug, Clone)]
pub struct Router(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    estimates: reply::Estimates,
}

/// What a request gets.
#[derive(Debug)]
pub enum Outcome {
    /// This answer. It may carry a [`Left`] among its extensions, and carries a [`Told`].
    Answer(Response<Bytes>),
    /// What the door of a session answers.
    Forward(Box<Forward>),
}

/// The door of a session, and how to know that it is that.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Whose session.
    pub client: ClientId,
    /// Which one.
    pub session: SessionId,
    /// In which generation.
    pub generation: Generation,
    /// Where its door should be.
    pub address: std::net::SocketAddr,
    /// The connections that may be shared: those to this task in this generation.
    pub pool: PoolKey,
    /// What both sides know.
    pub proof: Proof,
}

/// The browser has left this session's sockets behind: those of this pool are to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left(pub PoolKey);

/// Whose request it was and why it was answered so, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Whose host.
    pub client: Option<ClientId>,
    /// The first characters of the session's id.
    pub session: Option<String>,
    /// Why, in a word.
    pub why: &'static str,
}

/// Everything that an answer is made from.
struct Visit<'v> {
    head: &'v Head<'v>,
    config: &'v ClientConfig,
    form: Form,
    now: Timestamp,
}

impl Router {
    /// A router of these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            estimates: reply::Estimates::default(),
        }))
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// Makes the connections that a first visitor needs, by looking for what is not there.
    pub async fn warm(&self, host: &str) {
        let parts = self.parts();
        drop(parts.directory.find(Place::of(host, &parts.policy)).await);
        drop(parts.registry.get("nobody", Timestamp::now()).await);
    }

    /// Decides what a request gets. Takes as long as a wake takes to be ordered, or as an answer may be held back, and for
    /// everything else two reads at the most.
    pub async fn handle(&self, head: &Head<'_>, now: Timestamp) -> Outcome {
        let began = Instant::now();
        let host = match Host::of(head.headers) {
            Ok(host) => host,
            Err(refused) => {
                let form = Form::of(head.headers);
                let (answer, why) = reply::plain(&unread(head, refused), form);
                return Outcome::Answer(tell(answer, None, None, why));
            }
        };
        let parts = self.parts();
        let asked = Asked::of(head, &host, &parts.policy);
        let form = Form::of(head.headers);
        let config = match parts.directory.find(asked.place).await {
            Whose::Client(config) => Some(config),
            Whose::Nobody => None,
            Whose::Down => {
                let (answer, why) = reply::plain(&Decision::RecordsDown, form);
                return Outcome::Answer(tell(answer, None, None, why));
            }
        };
        let lookup = match asked.session() {
            Some(id) if config.is_some() => parts.registry.get(id.as_str(), now).await,
            _ => Lookup::Unknown,
        };
        let seen = match &lookup {
            Lookup::Known(session) => Seen::Known(session),
            Lookup::Unknown => Seen::Unknown,
            Lookup::Down => Seen::Down,
        };
        let decision = route(head, &asked, config.as_deref(), seen, &parts.policy, now);
        let Some(config) = config.as_deref() else {
            let (answer, why) = reply::plain(&decision, form);
            return Outcome::Answer(tell(answer, None, None, why));
        };
        parts.metrics.routed(&config.client_id, began.elapsed());
        let visit = Visit {
            head,
            config,
            form,
            now,
        };
        self.carry_out(&visit, decision).await
    }

    async fn carry_out(&self, visit: &Visit<'_>, decision: Decision<'_>) -> Outcome {
        let Visit {
            config, head, now, ..
        } = *visit;
        let client = Some(&config.client_id);
        let (answer, session, why) = match decision {
            Decision::Proxy { session, address } => {
                if let Some(why) = self.doubt(session) {
                    let answer = self.waiting(visit, session, Some(why)).await;
                    (answer, Some(session), why.code())
                } else if let Some(forward) = forward(config, session, address) {
                    return Outcome::Forward(Box::new(forward));
                } else {
                    tracing::error!(client = %config.client_id, session = session.session_id.redacted(), "the record of a session has no key to know its door by");
                    (
                        self.waiting(visit, session, Some(Why::Nowhere)).await,
                        Some(session),
                        Why::Nowhere.code(),
                    )
                }
            }
            Decision::Wait { session, why } => (
                self.waiting(visit, session, Some(why)).await,
                Some(session),
                why.code(),
            ),
            Decision::State { session, .. } => {
                (self.state(visit, session).await, Some(session), "state")
            }
            Decision::Wake { session, why } => {
                (self.wake(visit, session, why).await, Some(session), "wake")
            }
            Decision::Link => (self.link(visit), None, "link"),
            Decision::Make => {
                let (answer, why) = self.make(visit).await;
                (answer, None, why)
            }
            Decision::Enter { session } => {
                let (answer, why) = self.enter(visit, session).await;
                (answer, Some(session), why)
            }
            Decision::Settle { session, to, left } => {
                let mut answer = see_other(&to);
                let cookie = cookie::set(head.proto, &session.session_id);
                answer.headers_mut().insert(SET_COOKIE, cookie);
                if let Some(left) = left
                    && let Lookup::Known(left) = self.parts().registry.get(left.as_str(), now).await
                {
                    answer.extensions_mut().insert(Left(pool(&left)));
                }
                (answer, Some(session), "entry")
            }
            Decision::ToHost { session, host, to } => (
                self.to_host(visit, session, &host, to),
                Some(session),
                "to_host",
            ),
            Decision::Second { session, .. } => {
                let post = head.target();
                (
                    page::second_session(config, &post, "/"),
                    Some(session),
                    "second_session",
                )
            }
            Decision::Legacy { away } => {
                let (answer, why) = self.away(visit, &away).await;
                (answer, None, why)
            }
            Decision::Static(name) => {
                let found = page::asset(&format!("/_edit/static/{name}"));
                (
                    found.unwrap_or_else(|| page::not_found(visit.form)),
                    None,
                    "static",
                )
            }
            plain => {
                let (answer, why) = reply::plain(&plain, visit.form);
                self.parts().metrics.refused(&config.client_id, why);
                (answer, None, why)
            }
        };
        let session = session.map(|session| &session.session_id);
        Outcome::Answer(tell(answer, client, session, why))
    }

    /// The door did not prove itself. Its row is taken for stale, for a while; this is what the visitor gets instead.
    pub async fn unproven(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        now: Timestamp,
    ) -> Response<Bytes> {
        let Forward {
            client,
            session,
            generation,
            ..
        } = forward;
        tracing::warn!(%client, session = session.redacted(), generation = generation.0, address = %forward.address, "what answers at the address of a session did not prove to be its door");
        self.parts().metrics.refused(client, Why::Unproven.code());
        self.instead(head, forward, now).await
    }

    /// The door could not be reached, or broke off before it answered.
    pub async fn unreachable(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        error: &RelayError,
        now: Timestamp,
    ) -> Response<Bytes> {
        let Forward {
            client,
            session,
            generation,
            ..
        } = forward;
        let gone = matches!(
            error,
            RelayError::Connect { .. }
                | RelayError::Timeout {
                    wait: relay::Wait::Connect,
                    ..
                }
        );
        tracing::info!(%client, session = session.redacted(), generation = generation.0, address = %forward.address, error = %telemetry::chain(error), "a door did not answer");
        if !gone {
            return tell(
                page::refused(error.status(), &reply::relay_words(error)),
                Some(client),
                Some(session),
                "upstream",
            );
        }
        self.parts().metrics.refused(client, "unreachable");
        self.instead(head, forward, now).await
    }

    /// The waiting page, in place of a door that is none.
    async fn instead(&self, head: &Head<'_>, forward: &Forward, now: Timestamp) -> Response<Bytes> {
        let parts = self.parts();
        parts
            .registry
            .distrust(&forward.session, forward.generation);
        let form = Form::of(head.headers);
        let nothing = || page::unavailable(reply::RECORDS_DOWN, form);
        let (Whose::Client(config), Lookup::Known(session)) = (
            parts.directory.client(forward.client.as_str()).await,
            parts.registry.get(forward.session.as_str(), now).await,
        ) else {
            return tell(
                nothing(),
                Some(&forward.client),
                Some(&forward.session),
                "records_down",
            );
        };
        let visit = Visit {
            head,
            config: &config,
            form,
            now,
        };
        // By now the record may say where it really is.
        let why = standing(&config, &session, &parts.policy, now).err();
        let why = why.or_else(|| self.doubt(&session));
        let answer = self.waiting(&visit, &session, why).await;
        let code = why.map_or("moved", Why::code);
        tell(answer, Some(&forward.client), Some(&forward.session), code)
    }

    /// Why the door of a session is not asked, though its record says where it is; none if it is.
    fn doubt(&self, session: &Session) -> Option<Why> {
        match self
            .parts()
            .registry
            .trust(&session.session_id, session.generation)
        {
            Trust::Given => None,
            Trust::Lately => Some(Why::Unproven),
            Trust::Lost => Some(Why::Unreachable),
        }
    }

    /// Whether a socket that was opened to this door may stay open.
    pub async fn still(&self, forward: &Forward, now: Timestamp) -> bool {
        let parts = self.parts();
        let Whose::Client(config) = parts.directory.client(forward.client.as_str()).await else {
            return false;
        };
        match parts.registry.get(forward.session.as_str(), now).await {
            Lookup::Known(session) => {
                let there = standing(&config, &session, &parts.policy, now);
                session.generation == forward.generation
                    && (there == Ok(forward.address) || there == Err(Why::Draining))
            }
            Lookup::Unknown | Lookup::Down => false,
        }
    }

    /// The page of somebody who waits, or the same for a program.
    async fn waiting(
        &self,
        visit: &Visit<'_>,
        session: &Session,
        why: Option<Why>,
    ) -> Response<Bytes> {
        if why == Some(Why::Nowhere) {
            tracing::error!(client = %session.client_id, session = session.session_id.redacted(), ip = session.container_ip, port = session.port, "the record of a session leads to where no container may be (ALLOWED_CIDRS)");
        }
        let cared_for = self.look_after(visit, session).await;
        let (session, why) = self.latest(visit, session, why, cared_for.as_ref());
        let here = visit.head.target();
        let here = if visit.head.is_navigation() {
            here.as_str()
        } else {
            "/"
        };
        self.show(visit, session, why, here, page_or_text).await
    }

    async fn show(
        &self,
        visit: &Visit<'_>,
        session: &Session,
        why: Option<Why>,
        here: &str,
        form: fn(&Waiting<'_>, Form) -> Response<Bytes>,
    ) -> Response<Bytes> {
        let parts = self.parts();
        let estimate = self
            .0
            .estimates
            .of(&*parts.sessions, &session.client_id)
            .await;
        let wake = reply::wake_address(here);
        let waiting = Waiting {
            client: visit.config,
            standing: reply::standing_of(session, why, visit.now),
            elapsed: reply::elapsed(session, visit.now),
            estimate,
            wake: &wake,
            state: STATE,
            here,
            by_itself: true,
        };
        form(&waiting, visit.form)
    }

    /// Everybody who waits sees to it that what he waits for can still come.
    async fn look_after(&self, visit: &Visit<'_>, session: &Session) -> Option<Session> {
        if session.state != State::Waking {
            return None;
        }
        let parts = self.parts();
        let changed = parts
            .waker
            .look_after(visit.config, session, visit.now)
            .await?;
        parts.registry.put(changed.clone());
        Some(changed)
    }

    fn latest<'s>(
        &self,
        visit: &Visit<'_>,
        session: &'s Session,
        why: Option<Why>,
        changed: Option<&'s Session>,
    ) -> (&'s Session, Option<Why>) {
        match changed {
            Some(changed) => (
                changed,
                standing(visit.config, changed, &self.parts().policy, visit.now).err(),
            ),
            None => (session, why),
        }
    }

    /// How it stands, held back until that is something new to whoever asks.
    async fn state(&self, visit: &Visit<'_>, session: &Session) -> Response<Bytes> {
        let parts = self.parts();
        let seen = visit
            .head
            .query
            .unwrap_or_default()
            .split('&')
            .find_map(|pair| pair.strip_prefix("seen="));
        let until = Instant::now() + parts.hold;
        let mut session = Arc::new(session.clone());
        loop {
            // Waiting takes time, and leases end meanwhile.
            let now = if parts.hold.is_zero() {
                visit.now
            } else {
                visit.now.max(Timestamp::now())
            };
            let visit = Visit { now, ..*visit };
            if let Some(changed) = self.look_after(&visit, &session).await {
                session = Arc::new(changed);
            }
            let why = standing(visit.config, &session, &parts.policy, now).err();
            let why = why.or_else(|| self.doubt(&session));
            let mark = reply::standing_of(&session, why, now).mark();
            if why.is_none()
                && seen.is_some_and(|seen| seen.starts_with("waking"))
                && let Some(ms) = session.wakes_ms.last()
            {
                let woke = (&session.client_id, &session.session_id, session.generation);
                parts.metrics.woke(woke, Duration::from_millis(*ms));
            }
            if seen != Some(mark) || Instant::now() >= until {
                return self
                    .show(&visit, &session, why, "/", |waiting, _| {
                        page::state(waiting)
                    })
                    .await;
            }
            parts.registry.tick().await;
            match parts.registry.get(session.session_id.as_str(), now).await {
                Lookup::Known(newer) => session = newer,
                Lookup::Unknown => return page::not_found(visit.form),
                Lookup::Down => return page::unavailable(reply::RECORDS_DOWN, visit.form),
            }
        }
    }

    /// A person wants it awake.
    async fn wake(
        &self,
        visit: &Visit<'_>,
        session: &Session,
        why: Option<Why>,
    ) -> Response<Bytes> {
        let parts = self.parts();
        let (session, why, standing) = match why.or_else(|| self.doubt(session)) {
            None => (session.clone(), None, None),
            Some(Why::Nowhere | Why::Unreachable) => {
                // It renews its lease, so that nobody could wake another one: it is given up first, and steps down.
                let given_up = parts
                    .waker
                    .fail(session, reply::UNREACHABLE.clone(), visit.now)
                    .await;
                let session = given_up.as_ref().unwrap_or(session);
                self.rouse(visit, session).await
            }
            Some(_) => self.rouse(visit, session).await,
        };
        // A browser without a script sent a form: it goes back to where it wanted to be, and finds there how it stands. What
        // cannot be seen in the record is said here, or nobody would say it.
        if visit.form == Form::Page && standing.is_none() {
            return see_other(&reply::wanted(visit.head.query));
        }
        match standing {
            None => {
                self.show(visit, &session, why, "/", |waiting, _| page::state(waiting))
                    .await
            }
            Some(standing) => {
                let here = reply::wanted(visit.head.query);
                let wake = reply::wake_address(&here);
                let waiting = Waiting {
                    client: visit.config,
                    standing,
                    elapsed: None,
                    estimate: None,
                    wake: &wake,
                    state: STATE,
                    here: &here,
                    by_itself: false,
                };
                if visit.form == Form::Page {
                    return page::waiting(&waiting, Form::Page);
                }
                page::state(&waiting)
            }
        }
    }

    /// Wakes a session. What comes back is how it is then, or what cannot be seen in its record.
    async fn rouse(
        &self,
        visit: &Visit<'_>,
        session: &Session,
    ) -> (Session, Option<Why>, Option<Standing<'static>>) {
        let parts = self.parts();
        let Visit { config, now, .. } = *visit;
        let woken = parts
            .waker
            .wake(config, &session.session_id, session.generation, now)
            .await;
        tracing::info!(client = %config.client_id, session = session.session_id.redacted(), outcome = woken.as_str(), "a person asked for it");
        parts.metrics.woken(&config.client_id, woken.as_str());
        let fresh = |session: Session| {
            parts.registry.put(session.clone());
            let why = standing(config, &session, &parts.policy, now).err();
            (session, why, None)
        };
        match woken {
            Woken::Begun(session)
            | Woken::Going(session)
            | Woken::Ready(session)
            | Woken::Failed(session) => fresh(session),
            Woken::Held { until } => {
                let standing = Standing::Held {
                    again_in: until.since(now),
                };
                (session.clone(), Some(Why::Unproven), Some(standing))
            }
            Woken::Full { limit } => (
                session.clone(),
                Some(Why::Asleep),
                Some(Standing::Full { limit }),
            ),
            Woken::Suspended => (
                session.clone(),
                Some(Why::Suspended),
                Some(Standing::Suspended),
            ),
            Woken::NoSession => (
                session.clone(),
                Some(Why::Asleep),
                Some(Standing::RecordsDown),
            ),
            Woken::Unavailable(error) => {
                tracing::warn!(client = %config.client_id, error = %telemetry::chain(&*error), "a session could not be woken");
                (
                    session.clone(),
                    Some(Why::Asleep),
                    Some(Standing::RecordsDown),
                )
            }
        }
    }

    fn read_link(&self, visit: &Visit<'_>) -> Result<Link, LinkRefused> {
        let token = token(visit.head.query).ok_or(LinkRefused::Forged)?;
        let link: Link = self.parts().keys.read(token, visit.now)?;
        // Another client's link is as good as none.
        if link.client_id != visit.config.client_id {
            return Err(LinkRefused::Forged);
        }
        Ok(link)
    }

    fn link(&self, visit: &Visit<'_>) -> Response<Bytes> {
        match self.read_link(visit) {
            // Whoever looks through mail may have a browser and press whatever presses itself; on a laptop there is nobody but its owner.
            Ok(_) => page::link(
                visit.config,
                &visit.head.target(),
                self.parts().policy.public.proto == Proto::Http,
            ),
            Err(LinkRefused::Expired) => page::link_expired(),
            Err(LinkRefused::Forged) => page::link_refused(),
        }
    }

    /// Makes the session of a link, or goes on with the one that its thread has, and wakes it: whoever pressed the button is a
    /// person.
    async fn make(&self, visit: &Visit<'_>) -> (Response<Bytes>, &'static str) {
        let parts = self.parts();
        let Visit { config, now, .. } = *visit;
        let link = match self.read_link(visit) {
            Ok(link) => link,
            Err(LinkRefused::Expired) => return (page::link_expired(), "link_expired"),
            Err(LinkRefused::Forged) => return (page::link_refused(), "link_refused"),
        };
        if config.status == contract::client_config::ClientStatus::Suspended {
            return (
                page::unavailable(reply::SUSPENDED, visit.form),
                Why::Suspended.code(),
            );
        }
        let thread = link
            .thread_id
            .clone()
            .or_else(|| format!("link-{}", link.nonce).parse::<ThreadId>().ok());
        let Some(thread) = thread else {
            return (page::link_refused(), "link_refused");
        };
        let user = link.user_id.as_deref().unwrap_or(SOMEBODY);
        // The session first: a link that is spent while the records do not answer would be lost. Whoever uses it twice finds
        // the session that there is.
        let opened = async {
            let session = parts.threads.open(config, &thread, user, now).await?;
            let spent = parts
                .sessions
                .spend(
                    &format!("link-{}", link.nonce),
                    Timestamp::from_unix_ms(link.exp.saturating_mul(1000)),
                )
                .await?;
            Ok::<_, platform::PortError>((session, spent))
        };
        let session = match opened.await {
            Ok((session, true)) => session,
            Ok((_, false)) => return (page::link_used(), "link_used"),
            Err(error) => {
                tracing::warn!(client = %config.client_id, error = %telemetry::chain(&error), "a session could not be made");
                return (
                    page::unavailable(reply::RECORDS_DOWN, visit.form),
                    "records_down",
                );
            }
        };
        tracing::info!(client = %config.client_id, session = session.session_id.redacted(), user, "a link was used");
        let (session, ..) = self.rouse(visit, &session).await;
        (
            see_other(&format!("/session/{}/", session.session_id)),
            "made",
        )
    }

    /// From an edit host to the session's own, in one step that cannot be repeated.
    fn to_host(
        &self,
        visit: &Visit<'_>,
        session: &Session,
        host: &str,
        to: String,
    ) -> Response<Bytes> {
        let entrance = Entrance {
            session_id: session.session_id.clone(),
            to,
            exp: visit.now.unix_ms().div_euclid(1000) + ENTRANCE_SECONDS,
            nonce: reply::nonce(),
        };
        let token = self.parts().keys.sign(&entrance);
        let address = self
            .parts()
            .policy
            .public
            .address(host, &format!("/_edit/enter?t={token}"));
        let mut answer = see_other(&address);
        // The next host learns from the address what it has to know, and nobody else should.
        let none = HeaderValue::from_static("no-referrer");
        answer.headers_mut().insert(REFERRER_POLICY, none);
        answer
    }

    async fn enter(&self, visit: &Visit<'_>, session: &Session) -> (Response<Bytes>, &'static str) {
        let parts = self.parts();
        let read = token(visit.head.query)
            .ok_or(LinkRefused::Forged)
            .and_then(|token| parts.keys.read::<Entrance>(token, visit.now));
        let entrance = match read {
            Ok(entrance) if entrance.session_id == session.session_id => entrance,
            Err(LinkRefused::Expired) => return (page::link_expired(), "link_expired"),
            Ok(_) | Err(LinkRefused::Forged) => return (page::not_found(visit.form), "not_found"),
        };
        let (path, query) = match entrance.to.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (entrance.to.as_str(), None),
        };
        let to = landing(path, query).unwrap_or_else(|| "/".to_owned());
        let until = Timestamp::from_unix_ms(entrance.exp.saturating_mul(1000));
        match parts
            .sessions
            .spend(&format!("enter-{}", entrance.nonce), until)
            .await
        {
            Ok(true) => {}
            Ok(false) => return (page::link_used(), "link_used"),
            Err(error) => {
                tracing::warn!(client = %session.client_id, error = %telemetry::chain(&error), "an entrance could not be spent");
                return (
                    page::unavailable(reply::RECORDS_DOWN, visit.form),
                    "records_down",
                );
            }
        }
        let mut answer = see_other(&to);
        let cookie = cookie::set(visit.head.proto, &session.session_id);
        answer.headers_mut().insert(SET_COOKIE, cookie);
        (answer, "entered")
    }

    /// To the old system, unless that is one of ours: it would come back for ever.
    async fn away(&self, visit: &Visit<'_>, away: &Away<'_>) -> (Response<Bytes>, &'static str) {
        let parts = self.parts();
        if parts
            .directory
            .is_ours(Place::of(away.host, &parts.policy))
            .await
        {
            tracing::error!(client = %visit.config.client_id, host = away.host, "rollout.legacyOrigin is a host of ours: nobody is sent there");
            return (page::not_found(visit.form), "legacy_is_ours");
        }
        parts.metrics.refused(&visit.config.client_id, "legacy");
        let mut answer = see_other(&away.address);
        // A POST stays a POST: the old system knows what it is about.
        *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        (answer, "legacy")
    }
}

fn page_or_text(waiting: &Waiting<'_>, form: Form) -> Response<Bytes> {
    page::waiting(waiting, form)
}

/// The connections to the task of a session in its generation.
fn pool(session: &Session) -> PoolKey {
    let task = session.task_arn.as_deref().unwrap_or_default();
    PoolKey::from(format!(
        "{task} {} {}",
        session.session_id, session.generation
    ))
}

fn forward(
    config: &ClientConfig,
    session: &Session,
    address: std::net::SocketAddr,
) -> Option<Forward> {
    let key = session.proof_key.as_ref()?;
    let proof = Proof::new(key, session.session_id.clone(), session.generation).ok()?;
    Some(Forward {
        client: config.client_id.clone(),
        session: session.session_id.clone(),
        generation: session.generation,
        address,
        pool: pool(session),
        proof,
    })
}

/// Go there with a GET.
fn see_other(to: &str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let headers = answer.headers_mut();
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    headers.insert(LOCATION, to);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    answer
}

fn tell(
    mut answer: Response<Bytes>,
    client: Option<&ClientId>,
    session: Option<&SessionId>,
    why: &'static str,
) -> Response<Bytes> {
    answer.extensions_mut().insert(Told {
        client: client.cloned(),
        session: session.map(|session| session.redacted().to_owned()),
        why,
    });
    answer
}
