//! Builds an environment: a chain in which each step has what the ones before it made, and its own way to fail.
//!
//! ```text
//!  config   Configured   folders, lock, port, Node, the remote
//!   └▶ claim   Open          client, session, queue, receipts; the door is open and shows a waiting page
//!       └▶ clone   Cloned        the draft and the work tree that shows it
//!           └▶ install  Installed   dependencies that fit this Node
//!               └▶ serve    Running     the site has answered; instructions are consumed from here on
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use contract::client_config::Policy;
use relay::Relay;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::Claimed;
use super::console::Console;
use super::home::Home;
use super::source::Source;
use super::{Running, suggestion};
use crate::cli::{Allowance, DevArguments};
use crate::content::Fetcher;
use crate::door::{Bar, Door, Hosts, Intake, Opened, SeenOn, Stage};
use crate::draft::{self, Draft, Lookout, Remote};
use crate::events::{Event, Events, PhaseName, PhaseState};
use crate::failure::{Exit, Failure};
use crate::kinds::Kinds;
use crate::pipeline::{Attempts, Identity, Pipeline, PipelineView, Workshop};
use crate::site::dependencies::{Dependencies, Route};
use crate::site::node::{self, Node};
use crate::site::{self, HotMessage, Site, SiteError, Told};
use crate::verify::{Verifier, Visits};
use crate::work_tree::uncommitted::Uncommitted;
use crate::work_tree::{Places, WorkTree};

/// Starts an environment; returns once its site has answered.
pub(super) async fn start(
    arguments: &DevArguments,
    events: &Events,
    console: &Console,
) -> Result<Running, Failure> {
    let configured = configure(arguments, events).await?;
    let open = configured.claim(arguments, events).await?;
    let cloned = open.clone_draft(arguments, events, console).await?;
    let installed = cloned.install(arguments, events, console).await?;
    installed.serve(arguments, events).await
}

/// Everything that can be known before anything is touched.
struct Configured {
    home: Home,
    source: Source,
    remote: Remote,
    listener: TcpListener,
    address: SocketAddr,
    node: Node,
}

async fn configure(arguments: &DevArguments, events: &Events) -> Result<Configured, Failure> {
    let phase = RunningPhase::begin(events, PhaseName::Config);
    let source = Source::find(
        &arguments.repository,
        arguments.deploy_key.as_deref(),
        &arguments.host_key,
    )?;
    let home = Home::open(
        &source,
        arguments.state.as_deref(),
        arguments.workspace.as_deref(),
    )?;
    site::end_orphans(&home.tree()).await;
    let listener = listen(SocketAddr::new(arguments.address(), arguments.port)).await?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::internal("read the port", &error))?;
    let node = Node::find(arguments.node.as_deref()).await?;
    let imported = source.import(&home, arguments.branch.as_deref()).await?;
    phase.done(imported.note);
    Ok(Configured {
        home,
        source,
        remote: imported.remote,
        listener,
        address,
        node,
    })
}

/// The session is ours, and the door is open.
struct Open {
    home: Home,
    remote: Remote,
    node: Node,
    claimed: Claimed,
    address: SocketAddr,
    identity: Identity,
    stage: watch::Sender<Stage>,
    pipeline_view: watch::Sender<PipelineView>,
    kinds: Kinds,
    visits: Visits,
    closing: CancellationToken,
    tasks: JoinSet<()>,
}

impl Configured {
    async fn claim(self, arguments: &DevArguments, events: &Events) -> Result<Open, Failure> {
        let phase = RunningPhase::begin(events, PhaseName::Claim);
        let branch = arguments.branch.as_deref();
        let claimed = Claimed::claim(
            &self.home,
            &self.source,
            &arguments.thread,
            self.address,
            branch,
        )
        .await?;
        let session = &claimed.session;
        let identity = Identity {
            client_id: session.client_id.clone(),
            session_id: session.session_id.clone(),
            thread_id: session.thread_id.clone(),
            branch: session.draft_branch.clone(),
            preview_url: session.preview_url.clone(),
        };
        let (stage, stage_view) = watch::channel(Stage::Starting {
            phase: PhaseName::Clone,
        });
        let (pipeline_view, pipeline) = watch::channel(PipelineView::default());
        let (closing, visits) = (CancellationToken::new(), Visits::default());
        let kinds = Kinds::default();
        let door = Door {
            intake: Intake {
                identity: identity.clone(),
                queue: Arc::clone(&claimed.queue),
                receipts: Arc::clone(&claimed.receipts),
                events: events.clone(),
                kinds: kinds.clone(),
            },
            stage: stage_view,
            pipeline,
            events: events.clone(),
            visits: visits.clone(),
            opened: Opened::default(),
            seen_on: SeenOn::default(),
            hosts: Hosts {
                names: arguments.host_names(),
            },
            shown_root: self.home.tree(),
            relay: Relay::new(relay::Settings::default()),
            bar: (!arguments.no_bar).then(Bar::new),
            developer: true,
            closing: closing.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(door.serve(self.listener));
        self.home
            .announce(&identity.preview_url, self.source.folder())?;
        phase.done(None);
        Ok(Open {
            home: self.home,
            remote: self.remote,
            node: self.node,
            claimed,
            address: self.address,
            identity,
            stage,
            pipeline_view,
            kinds,
            visits,
            closing,
            tasks,
        })
    }
}

/// The draft is here, and the work tree shows it.
struct Cloned {
    open: Open,
    draft: Draft,
    settings: draft::Settings,
    places: Places,
    work_tree: WorkTree,
}

impl Open {
    async fn clone_draft(
        self,
        arguments: &DevArguments,
        events: &Events,
        console: &Console,
    ) -> Result<Cloned, Failure> {
        let phase = RunningPhase::begin(events, PhaseName::Clone);
        let workspace = &self.home.workspace;
        let places = Places {
            root: self.home.tree(),
            staging: workspace.join("staging"),
            journal: workspace.join("journal.json"),
        };
        let settings = draft::Settings {
            git_directory: workspace.join("draft.git"),
            staging: places.staging.clone(),
            remote: self.remote.clone(),
            published_branch: arguments.branch.clone(),
            draft_branch: self.identity.branch.clone(),
            site_root: String::new(),
        };
        let progress = console.progress();
        let (draft_settings, tree_places) = (settings.clone(), places.clone());
        let opened = tokio::task::spawn_blocking(move || -> Result<_, Failure> {
            let draft = Draft::open(&draft_settings, &mut |received, all| {
                progress.set(received, all);
            })?;
            let work_tree = Workshop::open_work_tree(&draft, &tree_places)?;
            Ok((draft, work_tree))
        });
        let (draft, work_tree) = opened
            .await
            .map_err(|error| Failure::internal("open the draft", &error))??;
        let behind = match draft.behind_published()? {
            0 => String::new(),
            count => format!("; the draft is {count} commits behind it"),
        };
        phase.done(Some(format!(
            "{} of {}{behind}",
            draft.published_branch(),
            self.remote
        )));
        Ok(Cloned {
            open: self,
            draft,
            settings,
            places,
            work_tree,
        })
    }
}

/// The dependencies are in place.
struct Installed {
    cloned: Cloned,
    /// How they are put in place when the lock file changes; not at all if absent.
    dependencies: Option<Dependencies>,
}

impl Cloned {
    async fn install(
        self,
        arguments: &DevArguments,
        events: &Events,
        console: &Console,
    ) -> Result<Installed, Failure> {
        self.open.stage.send_replace(Stage::Starting {
            phase: PhaseName::Install,
        });
        let phase = RunningPhase::begin(events, PhaseName::Install);
        let root = self.work_tree.root();
        refuse_no_astro(root)?;
        let dependencies = (!arguments.no_install).then(|| Dependencies {
            node: self.open.node.clone(),
            store: self.open.home.store.clone(),
            staging: self.places.staging.clone(),
            scripts: false,
            output: site::OutputLog::default(),
        });
        let say = |words: String| console.say(&words);
        let route = match &dependencies {
            Some(dependencies) => Some(dependencies.put_in_place(root, &say).await?),
            None if node::astro_version(root).is_none() => {
                return Err(SiteError::NotInstalled {
                    root: root.to_owned(),
                }
                .into());
            }
            None => None,
        };
        node::check(root, &self.open.node)?;
        phase.done(Some(route_words(route).to_owned()));
        Ok(Installed {
            cloned: self,
            dependencies,
        })
    }
}

impl Installed {
    async fn serve(self, arguments: &DevArguments, events: &Events) -> Result<Running, Failure> {
        let Cloned {
            open,
            draft,
            settings,
            places,
            work_tree,
        } = self.cloned;
        let mut tasks = open.tasks;
        open.stage.send_replace(Stage::Starting {
            phase: PhaseName::Serve,
        });
        let phase = RunningPhase::begin(events, PhaseName::Serve);
        let root = work_tree.root().to_owned();
        let site_settings = site::Settings {
            root: root.clone(),
            runner: open.home.workspace.join("runner.mjs"),
            compile_cache: open.home.workspace.join("compile-cache"),
            node: open.node.clone(),
            dependencies: self.dependencies,
            variables: std::collections::BTreeMap::new(),
        };
        let site = Site::start(site_settings, &mut tasks)?;
        let stop_rest = CancellationToken::new();
        tasks.spawn(work_tree.clone().run(stop_rest.clone()));
        let answer = site.first_answer().await;
        open.stage
            .send_replace(Stage::Serving { site: site.clone() });
        open.claimed.register(open.address, answer.health()).await?;
        let astro = node::astro_version(&root).unwrap_or_default();
        phase.done(Some(match &answer.problem {
            None => format!("Astro {astro}, Node {}", open.node.version),
            Some(problem) => {
                let words = problem.message.lines().next().unwrap_or_default();
                format!("Astro {astro}; the site is not well: {words}")
            }
        }));

        tasks.spawn(report_site(site.clone(), events.clone(), stop_rest.clone()));
        let remote = draft.remote_name();
        let lookout = Lookout::start(
            settings.clone(),
            draft.published_branch().to_owned(),
            &mut tasks,
            stop_rest.clone(),
        );
        let hands = Uncommitted::start(&work_tree, &mut tasks, stop_rest.clone());
        let stop_pipeline = CancellationToken::new();
        let workshop = Workshop::open(
            draft,
            settings,
            places,
            work_tree,
            Verifier::new(site.clone(), open.visits),
            open.node,
            stop_pipeline.clone(),
        );
        let indoors = workshop.indoors(open.home.folders());
        let pipeline = Pipeline {
            identity: open.identity,
            policy: policy(arguments),
            queue: Arc::clone(&open.claimed.queue),
            dead: Arc::clone(&open.claimed.dead),
            receipts: Arc::clone(&open.claimed.receipts),
            workshop,
            indoors,
            lookout,
            followed: None,
            attempts: Attempts::default(),
            content: Fetcher::on_a_laptop(),
            hands,
            events: events.clone(),
            kinds: open.kinds,
            view: open.pipeline_view,
        };
        let mut pipelines = JoinSet::new();
        pipelines.spawn(pipeline.run(stop_pipeline.clone()));
        Ok(Running {
            suggestion: suggestion::suggest(&root, arguments.state.as_deref()),
            home: open.home,
            claimed: open.claimed,
            address: open.address,
            remote,
            site,
            health: answer.health(),
            pipeline: pipelines,
            tasks,
            stage: open.stage,
            stop_pipeline,
            closing: open.closing,
            stop_rest,
        })
    }
}

fn policy(arguments: &DevArguments) -> Policy {
    Policy {
        allow_config: arguments.allow.contains(&Allowance::Config),
        allow_dependencies: arguments.allow.contains(&Allowance::Dependencies),
        on_broken: arguments.on_broken.into(),
        publish_check: arguments.publish_check.into(),
        content_sources: arguments.content_source.clone(),
        ..Policy::default()
    }
}

/// A phase that has begun. It is done, or it was the one that failed.
struct RunningPhase<'a> {
    events: &'a Events,
    name: PhaseName,
    began: Instant,
}

impl<'a> RunningPhase<'a> {
    fn begin(events: &'a Events, phase: PhaseName) -> Self {
        events.publish(Event::Phase {
            phase,
            state: PhaseState::Started,
            ms: None,
            detail: None,
        });
        Self {
            events,
            name: phase,
            began: Instant::now(),
        }
    }

    fn done(self, detail: Option<String>) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).ok();
        self.events.publish(Event::Phase {
            phase: self.name,
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

fn refuse_no_astro(root: &Path) -> Result<(), SiteError> {
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
    let mut told = site.listen();
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
            heard = told.recv() => match heard {
                // What is held back is nobody's business until it has been judged.
                Ok(Told::Hot(HotMessage { kind, held: false, problem: Some(problem) })) => {
                    tracing::debug!(?kind, problem = %problem.message, "the site told the browsers of a problem");
                    events.publish(Event::Site { state: view.borrow().state, problem: Some(problem) });
                }
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}
