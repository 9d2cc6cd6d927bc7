//! Developer mode: an edit environment of a repository on this machine, with the local adapters.
//!
//! Start-up is a chain in which each step has what the ones before it made:
//!
//! ```text
//!  config: Home (folders, lock, port) + Source (the remote)
//!    └▶ claim: Claimed (client, session, queue, receipts)         the door opens here, with a waiting page
//!         └▶ clone: Draft + WorkTree
//!              └▶ install: Node, dependencies
//!                   └▶ serve: Site; a page has answered           ready; instructions are consumed from here on
//! ```
//!
//! Stopping goes the other way, and its order is in [`Running::drain`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::client_config::Policy;
use contract::session::SiteHealth;
use relay::Relay;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod claim;
mod console;
pub(crate) mod home;
mod interrupt;
mod source;
mod suggestion;

use claim::Claimed;
use console::Console;
use home::Home;
use interrupt::Interrupt;
use source::Source;

use crate::cli::{Allowance, DevArguments};
use crate::door::{Door, Hosts, Intake, Stage};
use crate::draft::{self, Draft};
use crate::events::{Event, Events, PhaseName, PhaseState};
use crate::failure::{Exit, Failure};
use crate::pipeline::{Identity, Pipeline, PipelineView, Workshop};
use crate::site::dependencies::{Dependencies, Route};
use crate::site::node::{self, Node};
use crate::site::{self, Site, SiteError};
use crate::work_tree::Places;

/// How long a stop may take: an instruction that runs is finished within it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

/// Runs an environment until it is interrupted.
pub(crate) async fn run(arguments: DevArguments) -> Result<Exit, Failure> {
    let events = Events::new();
    let mut tasks = JoinSet::new();
    let console = Console::start(arguments.json, &events, &mut tasks);
    let mut interrupt = Interrupt::listen()?;
    let started = tokio::select! {
        started = start(&arguments, &events, &console) => started,
        () = interrupt.requested() => Err(Failure::new(Exit::Interrupted, "interrupted before the preview was ready", "Nothing is half done: what was fetched and installed is used the next time.")),
    };
    let running = match started {
        Ok(running) => running,
        Err(failure) => {
            console.phase_failed(&events);
            console.finish(&mut tasks).await;
            return Err(failure);
        }
    };
    running.announce(&events, &console);
    interrupt.requested().await;
    console.say("Stopping: what runs is finished and pushed. Press Ctrl-C again to stop at once.");
    let drained = tokio::select! {
        drained = running.drain(&events) => drained,
        () = interrupt.requested() => Err(Failure::new(Exit::Interrupted, "stopped at once", "What was not finished goes on at the next start.")),
    };
    console.finish(&mut tasks).await;
    drained.map(|()| Exit::Success)
}

/// Everything that runs.
struct Running {
    home: Home,
    claimed: Claimed,
    draft_branch: String,
    remote: String,
    address: SocketAddr,
    site: Site,
    health: SiteHealth,
    suggestion: String,
    pipeline: JoinSet<Workshop>,
    tasks: JoinSet<()>,
    stage: watch::Sender<Stage>,
    stop_pipeline: CancellationToken,
    closing: CancellationToken,
    stop_rest: CancellationToken,
}

async fn start(
    arguments: &DevArguments,
    events: &Events,
    console: &Console,
) -> Result<Running, Failure> {
    // config
    let phase = Phase::begin(events, PhaseName::Config);
    let source = Source::find(&arguments.repository, arguments.deploy_key.as_deref())?;
    let home = Home::open(
        &source,
        arguments.state.as_deref(),
        arguments.workspace.as_deref(),
    )?;
    let listener = listen(SocketAddr::new(arguments.address(), arguments.port)).await?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::internal("read the port", &error))?;
    let node = Node::find(arguments.node.as_deref()).await?;
    let imported = source.import(&home, arguments.branch.as_deref()).await?;
    phase.done(imported.note);

    // claim
    let phase = Phase::begin(events, PhaseName::Claim);
    let claimed = Claimed::claim(
        &home,
        &source,
        &arguments.thread,
        address,
        arguments.branch.as_deref(),
    )
    .await?;
    phase.done(None);

    // The door opens: from here on a visitor is told what happens.
    let (stage, stage_view) = watch::channel(Stage::Starting {
        phase: PhaseName::Clone,
    });
    let (pipeline_sender, pipeline_view) = watch::channel(PipelineView::default());
    let (closing, stop_rest) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let identity = Identity {
        client_id: claimed.session.client_id.clone(),
        session_id: claimed.session.session_id.clone(),
        thread_id: claimed.session.thread_id.clone(),
        branch: claimed.session.draft_branch.clone(),
        preview_url: claimed.session.preview_url.clone(),
    };
    let door = Door {
        intake: Intake {
            identity: identity.clone(),
            queue: Arc::clone(&claimed.queue),
            receipts: Arc::clone(&claimed.receipts),
            events: events.clone(),
        },
        stage: stage_view,
        pipeline: pipeline_view,
        events: events.clone(),
        hosts: Hosts {
            names: arguments.host_names(),
        },
        shown_root: home.workspace.join("tree"),
        relay: Relay::new(relay::Settings::default()),
        closing: closing.clone(),
    };
    tasks.spawn(door.serve(listener));
    home.announce(&identity.preview_url, source.folder())?;

    // clone
    let phase = Phase::begin(events, PhaseName::Clone);
    let places = Places {
        root: home.workspace.join("tree"),
        staging: home.workspace.join("staging"),
        journal: home.workspace.join("journal.json"),
    };
    let settings = draft::Settings {
        git_directory: home.workspace.join("draft.git"),
        staging: places.staging.clone(),
        remote: imported.remote.clone(),
        published_branch: arguments.branch.clone(),
        draft_branch: identity.branch.clone(),
        site_root: String::new(),
    };
    let (draft, work_tree) = {
        let (settings, places, progress) = (settings.clone(), places.clone(), console.progress());
        let opened = tokio::task::spawn_blocking(move || -> Result<_, Failure> {
            let draft = Draft::open(&settings, &mut |received, all| progress.set(received, all))?;
            let work_tree = Workshop::open_work_tree(&draft, &places)?;
            Ok((draft, work_tree))
        });
        opened
            .await
            .map_err(|error| Failure::internal("open the draft", &error))??
    };
    let (published, remote) = (draft.published_branch().to_owned(), draft.remote_name());
    phase.done(Some(format!("{published} of {remote}")));

    // install
    stage.send_replace(Stage::Starting {
        phase: PhaseName::Install,
    });
    let phase = Phase::begin(events, PhaseName::Install);
    let root = work_tree.root().to_owned();
    refuse_no_astro(&root)?;
    let dependencies = Dependencies {
        node: node.clone(),
        store: home.store.clone(),
        staging: places.staging.clone(),
        scripts: false,
        output: Default::default(),
    };
    let route = if arguments.no_install {
        if node::astro_version(&root).is_none() {
            return Err(SiteError::NotInstalled { root }.into());
        }
        None
    } else {
        let note = |words: String| console.say(&words);
        Some(dependencies.put_in_place(&root, &note).await?)
    };
    phase.done(Some(route_words(route).to_owned()));
    node::check(&root, &node)?;

    // serve
    stage.send_replace(Stage::Starting {
        phase: PhaseName::Serve,
    });
    let phase = Phase::begin(events, PhaseName::Serve);
    let site_settings = site::Settings {
        root: root.clone(),
        runner: home.workspace.join("runner.mjs"),
        compile_cache: home.workspace.join("compile-cache"),
        node: node.clone(),
        dependencies: (!arguments.no_install).then_some(dependencies),
        variables: Default::default(),
    };
    let site = Site::start(site_settings, &mut tasks)?;
    tasks.spawn(work_tree.clone().run(stop_rest.clone()));
    let answer = site.first_answer().await;
    stage.send_replace(Stage::Serving { site: site.clone() });
    let health = answer.health();
    claimed.register(address, health).await?;
    let astro = node::astro_version(&root).unwrap_or_default();
    phase.done(Some(match &answer.problem {
        None => format!("Astro {astro}, Node {}", node.version),
        Some(problem) => format!(
            "Astro {astro}; the site is not well: {}",
            problem.message.lines().next().unwrap_or_default()
        ),
    }));

    tasks.spawn(report_site(site.clone(), events.clone(), stop_rest.clone()));
    let policy = Policy {
        allow_config: arguments.allow.contains(&Allowance::Config),
        allow_dependencies: arguments.allow.contains(&Allowance::Dependencies),
        ..Policy::default()
    };
    let suggestion = suggestion::suggest(&root, arguments.state.as_deref());
    let stop_pipeline = CancellationToken::new();
    let pipeline = Pipeline {
        identity: identity.clone(),
        policy,
        queue: Arc::clone(&claimed.queue),
        dead: Arc::clone(&claimed.dead),
        receipts: Arc::clone(&claimed.receipts),
        workshop: Workshop::open(draft, settings, places, site.clone(), work_tree),
        events: events.clone(),
        view: pipeline_sender,
    };
    let mut pipelines = JoinSet::new();
    pipelines.spawn(pipeline.run(stop_pipeline.clone()));
    Ok(Running {
        home,
        claimed,
        draft_branch: identity.branch,
        remote,
        address,
        site,
        health,
        suggestion,
        pipeline: pipelines,
        tasks,
        stage,
        stop_pipeline,
        closing,
        stop_rest,
    })
}

impl Running {
    fn announce(&self, events: &Events, console: &Console) {
        events.publish(Event::Ready {
            preview_url: self.claimed.session.preview_url.clone(),
            port: self.address.port(),
            draft_branch: self.draft_branch.clone(),
            workspace: self.home.workspace.display().to_string(),
            remote: self.remote.clone(),
            site: self.health,
        });
        console.ready(
            &self.claimed.session.preview_url,
            &self.draft_branch,
            &self.remote,
            &self.suggestion,
        );
    }

    /// Stops, in this order: nothing new is taken on; the instruction that runs is finished and pushed; the files it
    /// put off are written; the site stops; the door closes; the session sleeps.
    async fn drain(mut self, events: &Events) -> Result<(), Failure> {
        self.stage.send_replace(Stage::Draining);
        self.stop_pipeline.cancel();
        let workshop = tokio::time::timeout(DRAIN_TIME_MAX, self.pipeline.join_next()).await;
        let (mut commit, mut unpushed) = (None, 0);
        match workshop {
            Ok(Some(Ok(mut workshop))) => {
                workshop.settled().await?;
                let (tip, waiting) = workshop.summary().await?;
                commit = Some(tip.to_string());
                unpushed = waiting;
            }
            Ok(Some(Err(error))) => tracing::error!(%error, "the pipeline broke"),
            Ok(None) => {}
            Err(_) => tracing::warn!(
                "the running instruction did not end in time; it goes on at the next start"
            ),
        }
        self.stop_rest.cancel();
        self.site.stop().await;
        self.closing.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task broke");
            }
        }
        self.claimed.sleep().await?;
        let queued = self
            .claimed
            .queue
            .depth()
            .await
            .map_or(0, |depth| depth.waiting + depth.in_flight);
        events.publish(Event::Stopped {
            commit,
            unpushed,
            queued,
        });
        self.home.withdraw();
        Ok(())
    }
}

/// A phase that has begun. It is done, or it was the one that failed.
struct Phase<'a> {
    events: &'a Events,
    phase: PhaseName,
    began: Instant,
}

impl<'a> Phase<'a> {
    fn begin(events: &'a Events, phase: PhaseName) -> Self {
        events.publish(Event::Phase {
            phase,
            state: PhaseState::Started,
            ms: None,
            detail: None,
        });
        Self {
            events,
            phase,
            began: Instant::now(),
        }
    }

    fn done(self, detail: Option<String>) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).ok();
        self.events.publish(Event::Phase {
            phase: self.phase,
            state: PhaseState::Done,
            ms,
            detail,
        });
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "Stop what listens there, or choose another one with --port (0 takes any)."
            }
            std::io::ErrorKind::PermissionDenied => {
                "Choose a port above 1023 with --port (0 takes any)."
            }
            _ => "Choose an address of this machine with --host.",
        };
        Failure::new(
            Exit::Port,
            format!("could not listen on {address}: {error}"),
            hint,
        )
    })
}

fn refuse_no_astro(root: &std::path::Path) -> Result<(), SiteError> {
    let manifest = std::fs::read(root.join("package.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let named = |manifest: &serde_json::Value| {
        ["dependencies", "devDependencies"]
            .iter()
            .any(|kind| manifest[*kind]["astro"].is_string())
    };
    if manifest.as_ref().is_some_and(named) {
        Ok(())
    } else {
        Err(SiteError::NoAstro {
            root: PathBuf::from(root),
        })
    }
}

fn route_words(route: Option<Route>) -> &'static str {
    match route {
        None => "skipped",
        Some(Route::InPlace) => "in place",
        Some(Route::Store) => "from the store",
        Some(Route::Installed) => "installed",
        Some(Route::None) => "none",
    }
}

/// Tells listeners how the site is.
async fn report_site(site: Site, events: Events, stop: CancellationToken) {
    let mut view = site.watch();
    let mut hot = site.hot_messages();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = view.changed() => match changed {
                Ok(()) => {
                    let now = view.borrow_and_update().clone();
                    events.publish(Event::Site { state: now.state, problem: now.problem });
                }
                Err(_) => return,
            },
            message = hot.recv() => match message {
                Ok(message) => if let Some(problem) = message.problem {
                    tracing::debug!(kind = ?message.kind, problem = %problem.message, "the site told the browsers of a problem");
                    events.publish(Event::Site { state: view.borrow().state, problem: Some(problem) });
                },
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}
