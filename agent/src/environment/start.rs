//! Builds an environment: a chain in which each step has what the ones before it made, and its own way to fail.
//!
//! ```text
//!  Plan + Seat          folders, lock, port, Node, the remote; the session is ours
//!   └▶ claim   Open         the door is open and shows a waiting page
//!       └▶ clone   Cloned       the draft and the work tree that shows it, with what was parked
//!           └▶ install  Installed   dependencies that fit this Node
//!               └▶ serve    Running     the site has answered; instructions are consumed from here on
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use contract::session::{Isolation as Proven, Parked};
use relay::Relay;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Boot, Halted, Kept, Plan, Running, Seat, TakenUpBefore, lease_lost};
use crate::activity::Activity;
use crate::content::Fetcher;
use crate::door::{Bar, Door, Intake, Opened, SeenOn, Stage};
use crate::draft::{self, Draft, Lookout};
use crate::events::{Event, Events, PhaseName};
use crate::failure::Failure;
use crate::isolation::folders;
use crate::isolation::proof::{self, Guarded};
use crate::kinds::Kinds;
use crate::loops::Loops;
use crate::pipeline::{Attempts, Ending, Pipeline, PipelineView, Workshop};
use crate::pulse::Pulse;
use crate::site::dependencies::{Dependencies, Route};
use crate::site::{self, HotMessage, Site, SiteError, Told, node};
use crate::verify::{Verifier, Visits};
use crate::work_tree::uncommitted::Uncommitted;
use crate::work_tree::{Places, WorkTree};

/// The pause before a remote that did not answer is asked again while it starts; doubled each time.
const REMOTE_PAUSE: Duration = Duration::from_secs(1);
const REMOTE_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Starts an environment; returns once its site has answered.
pub(crate) async fn start(plan: Plan, seat: Seat, boot: &Boot) -> Result<Running, Failure> {
    let open = Open::new(plan, seat, boot);
    let cloned = boot
        .phase(PhaseName::Clone, Box::pin(open.clone_draft(boot)))
        .await?;
    let installed = Box::pin(cloned.install(boot)).await?;
    Box::pin(installed.serve(boot)).await
}

/// Opens what a crash left, as an environment leaves it that has halted: the site is not started, and nothing is carried out. None if
/// there is no clone yet.
pub(crate) async fn salvage(
    plan: Plan,
    seat: Seat,
    boot: &Boot,
) -> Result<Option<Halted>, Failure> {
    let mut open = Open::new(plan, seat, boot);
    if !open.git_directory().is_dir() {
        return Ok(None);
    }
    open.offline = true;
    let cloned = boot
        .phase(PhaseName::Clone, Box::pin(open.clone_draft(boot)))
        .await?;
    cloned.salvage().await.map(Some)
}

/// The door is open.
struct Open {
    plan: Settled,
    seat: Seat,
    stage: watch::Sender<Stage>,
    pipeline_view: watch::Sender<PipelineView>,
    kinds: Kinds,
    visits: Visits,
    activity: Activity,
    life: Pulse,
    /// How the site is kept apart, once that is proven.
    isolation: Arc<OnceLock<Proven>>,
    closing: CancellationToken,
    /// The task of the door.
    door: Loops,
    /// The clone is opened as it was left, and so is what was parked before.
    offline: bool,
}

/// What of the plan is still to be carried out when the door is open.
struct Settled {
    home: super::Home,
    remote: draft::Remote,
    published_branch: Option<String>,
    address: std::net::SocketAddr,
    reached_at: std::net::IpAddr,
    node: node::Node,
    site: contract::client_config::SiteSettings,
    policy: contract::client_config::Policy,
    install: bool,
    content: Fetcher,
    guarded: Guarded,
    look_every: Duration,
}

impl Open {
    fn new(plan: Plan, seat: Seat, boot: &Boot) -> Self {
        let (stage, stage_view) = watch::channel(Stage::Starting {
            phase: PhaseName::Clone,
        });
        let (pipeline_view, pipeline) = watch::channel(PipelineView::default());
        let (closing, visits) = (CancellationToken::new(), Visits::default());
        let (kinds, activity) = (Kinds::default(), Activity::default());
        let (isolation, life) = (Arc::default(), Pulse::default());
        let door = Door {
            intake: Intake {
                identity: seat.identity.clone(),
                queue: seat.queue.clone(),
                receipts: seat.receipts.clone(),
                events: boot.events.clone(),
                kinds: kinds.clone(),
            },
            stage: stage_view,
            pipeline,
            events: boot.events.clone(),
            visits: visits.clone(),
            opened: Opened::default(),
            seen_on: SeenOn::default(),
            hosts: plan.hosts,
            shown_root: plan.home.tree(),
            relay: Relay::new(relay::Settings::default()),
            bar: plan.bar.then(Bar::new),
            developer: plan.developer,
            proof: seat.proof.clone(),
            isolation: Arc::clone(&isolation),
            activity: activity.clone(),
            life: life.clone(),
            idle: plan.idle,
            closing: closing.clone(),
        };
        let mut serving = Loops::new();
        serving.spawn(door.serve(plan.listener));
        Self {
            plan: Settled {
                home: plan.home,
                remote: plan.remote,
                published_branch: plan.published_branch,
                address: plan.address,
                reached_at: plan.reached_at,
                node: plan.node,
                site: plan.site,
                policy: plan.policy,
                install: plan.install,
                content: plan.content,
                guarded: plan.guarded,
                look_every: plan.look_every,
            },
            seat,
            stage,
            pipeline_view,
            kinds,
            visits,
            activity,
            life,
            isolation,
            closing,
            door: serving,
            offline: false,
        }
    }

    fn git_directory(&self) -> PathBuf {
        self.plan.home.workspace.join("draft.git")
    }
}

/// The draft is here, and the work tree shows it.
struct Cloned {
    open: Open,
    draft: Draft,
    taken_up: Vec<TakenUpBefore>,
    settings: draft::Settings,
    places: Places,
    work_tree: WorkTree,
}

impl Open {
    async fn clone_draft(mut self, boot: &Boot) -> Result<(Cloned, Option<String>), Failure> {
        let workspace = &self.plan.home.workspace;
        let places = Places {
            root: self.plan.home.tree(),
            staging: workspace.join("staging"),
            journal: workspace.join("journal.json"),
        };
        let settings = draft::Settings {
            git_directory: self.git_directory(),
            staging: places.staging.clone(),
            remote: self.plan.remote.clone(),
            published_branch: self.plan.published_branch.clone(),
            draft_branch: self.seat.identity.branch.clone(),
            site_root: self.plan.site.root.clone().unwrap_or_default(),
            offline: self.offline,
        };
        let (draft, work_tree) = open_draft(&settings, &places, boot).await?;
        let (draft, work_tree, taken_up) = match self.seat.parked.take() {
            // Whoever crashed had taken it up, or had not come to that: it stays parked for the next.
            Some(kept) if self.offline => {
                let before = kept.into_iter().map(|Kept { parked, .. }| TakenUpBefore {
                    parked,
                    whole: false,
                });
                (draft, work_tree, before.collect())
            }
            Some(kept) => take_up(draft, work_tree, kept).await?,
            None => (draft, work_tree, Vec::new()),
        };
        let behind = match draft.behind_published()? {
            0 => String::new(),
            count => format!("; the draft is {count} commits behind it"),
        };
        let detail = format!(
            "{} of {}{behind}",
            draft.published_branch(),
            self.plan.remote
        );
        let cloned = Cloned {
            open: self,
            draft,
            taken_up,
            settings,
            places,
            work_tree,
        };
        Ok((cloned, Some(detail)))
    }
}

/// Opens the draft. Where somebody waits for a phase that has a budget, a remote that does not answer is asked again until
/// the budget is used up; a developer is told at once.
async fn open_draft(
    settings: &draft::Settings,
    places: &Places,
    boot: &Boot,
) -> Result<(Draft, WorkTree), Failure> {
    let patient = boot.budget.is_some();
    let mut pause = REMOTE_PAUSE;
    loop {
        let transfer = Arc::clone(&boot.progress.transfer);
        let (draft_settings, tree_places) = (settings.clone(), places.clone());
        let opened = tokio::task::spawn_blocking(move || -> Result<_, Failure> {
            let draft = Draft::open(&draft_settings, &mut |received, all| {
                transfer(received, all);
            })?;
            let work_tree = Workshop::open_work_tree(&draft, &tree_places)?;
            Ok((draft, work_tree))
        });
        let opened = opened
            .await
            .map_err(|error| Failure::internal("open the draft", &error))?;
        match opened {
            Err(failure) if patient && failure.retryable => {
                tracing::warn!(why = %failure.message, "the draft could not be opened; it is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(REMOTE_PAUSE_MAX);
            }
            opened => return opened,
        }
    }
}

/// Takes up what environments before parked: what the record tells of, and what is on the remote though its record was lost. What
/// does not fit any more stays parked, and is said; it is no reason not to start.
async fn take_up(
    mut draft: Draft,
    work_tree: WorkTree,
    told: Vec<Kept>,
) -> Result<(Draft, WorkTree, Vec<TakenUpBefore>), Failure> {
    let work = tokio::task::spawn_blocking(move || {
        let mut all = told;
        match Workshop::parked_on_remote(&draft) {
            Ok(found) => {
                for parked in found {
                    if all.iter().all(|known| known.parked.commit != parked.commit) {
                        all.push(Kept {
                            parked,
                            bundle: None,
                        });
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "the remote does not say what is parked there");
            }
        }
        let taken = all
            .into_iter()
            .map(|Kept { parked, bundle }| {
                let whole = take_up_one(&mut draft, &work_tree, &parked, bundle.as_deref());
                TakenUpBefore { parked, whole }
            })
            .collect();
        (draft, work_tree, taken)
    });
    work.await
        .map_err(|error| Failure::internal("take up what was parked", &error))
}

/// Returns whether all of it came back.
fn take_up_one(
    draft: &mut Draft,
    work_tree: &WorkTree,
    parked: &Parked,
    bundle: Option<&[u8]>,
) -> bool {
    match Workshop::take_up_parked(draft, work_tree, parked, bundle) {
        Ok(taken) => {
            tracing::info!(
                commits = taken.commits,
                files = taken.files.len(),
                "what was parked is taken up"
            );
            for left in &taken.left {
                tracing::error!(what = left.what, why = left.why, place = ?parked.place, "it does not fit any more, and stays parked");
            }
            taken.left.is_empty()
        }
        Err(error) => {
            tracing::error!(error = %crate::chain(&error), place = ?parked.place, "what was parked could not be taken up, and stays there");
            false
        }
    }
}

/// The dependencies are in place.
struct Installed {
    cloned: Cloned,
    /// How they are put in place when the lock file changes; not at all if absent.
    dependencies: Option<Dependencies>,
}

impl Cloned {
    /// The folder with the site's `package.json`.
    fn site_root(&self) -> PathBuf {
        let root = self.work_tree.root();
        match &self.open.plan.site.root {
            Some(folder) => root.join(folder),
            None => root.to_owned(),
        }
    }

    async fn salvage(self) -> Result<Halted, Failure> {
        let site = Site::down();
        // Only what was ready can go to sleep, and nobody is to be sent here.
        self.open.register(&site).await?;
        let drained = self.open.seat.lease.drain_whoever_is_there().await;
        drained.map_err(lease_lost)?;
        let Self {
            open,
            draft,
            taken_up,
            settings,
            places,
            work_tree,
        } = self;
        let workshop = Workshop::open(
            draft,
            settings,
            places,
            work_tree,
            Verifier::new(site, open.visits),
            open.plan.node,
            CancellationToken::new(),
        );
        let mut halted = Halted::with(open.plan.home, open.seat, taken_up, Ok(workshop)).await;
        halted.may_push = false;
        Ok(halted)
    }

    async fn install(self, boot: &Boot) -> Result<Installed, Failure> {
        self.open.stage.send_replace(Stage::Starting {
            phase: PhaseName::Install,
        });
        let root = self.site_root();
        let dependencies = self.open.plan.install.then(|| Dependencies {
            node: self.open.plan.node.clone(),
            store: self.open.plan.home.store(),
            staging: self.places.staging.clone(),
            scripts: self.open.plan.site.install_scripts,
            command: self.open.plan.site.install_words(),
            output: site::OutputLog::default(),
        });
        let node = &self.open.plan.node;
        let proven = proof::prove(&node.isolation, &self.open.plan.guarded);
        let say = |words: String| (boot.progress.say)(&words);
        let put = async {
            refuse_no_astro(&root)?;
            // The install is the first that runs what is the client's.
            if let Some(proven) = proven.await? {
                self.open.isolation.get_or_init(|| proven);
            }
            let route = match &dependencies {
                Some(dependencies) => Some(dependencies.put_in_place(&root, &say).await?),
                None if node::astro_version(&root).is_none() => {
                    return Err(SiteError::NotInstalled { root: root.clone() }.into());
                }
                None => None,
            };
            node::check(&root, node)?;
            Ok(((), Some(route_words(route).to_owned())))
        };
        boot.phase(PhaseName::Install, put).await?;
        Ok(Installed {
            cloned: self,
            dependencies,
        })
    }
}

impl Installed {
    async fn serve(self, boot: &Boot) -> Result<Running, Failure> {
        let root = self.cloned.site_root();
        let cloned = self.cloned;
        let plan = &cloned.open.plan;
        let site_settings = site::Settings {
            root: root.clone(),
            runner: plan.home.workspace.join("runner.mjs"),
            compile_cache: plan.home.compile_cache(),
            node: plan.node.clone(),
            dependencies: self.dependencies,
            variables: plan.site.env.clone(),
        };
        cloned.open.stage.send_replace(Stage::Starting {
            phase: PhaseName::Serve,
        });
        let (mut tasks, stop_rest) = (cloned.open.door.beside(), CancellationToken::new());
        tasks.spawn(cloned.work_tree.clone().run(stop_rest.clone()));
        let answered = cloned.open.answered(site_settings, &mut tasks);
        let site = boot.phase(PhaseName::Serve, answered).await?;
        // The record's phase has been written by now: a late write of it would be refused, and take us for another.
        cloned.open.register(&site).await?;
        tasks.spawn(report_site(
            site.clone(),
            boot.events.clone(),
            stop_rest.clone(),
        ));
        Ok(cloned.run(site, root, tasks, stop_rest, boot))
    }
}

impl Open {
    /// Says where the door is.
    async fn register(&self, site: &Site) -> Result<(), Failure> {
        let (plan, health) = (&self.plan, site.view().health());
        let registered = self.seat.lease.register(
            plan.reached_at.to_string(),
            plan.address.port(),
            health,
            self.isolation.get().cloned(),
        );
        registered.await.map(drop).map_err(lease_lost)
    }

    /// Starts the site; returns once it has answered.
    async fn answered(
        &self,
        settings: site::Settings,
        tasks: &mut Loops,
    ) -> Result<(Site, Option<String>), Failure> {
        let astro = node::astro_version(&settings.root).unwrap_or_default();
        let site = Site::start(settings, tasks)?;
        let answer = site.first_answer().await;
        self.stage
            .send_replace(Stage::Serving { site: site.clone() });
        let detail = match &answer.problem {
            None => format!("Astro {astro}, Node {}", self.plan.node.version),
            Some(problem) => {
                let words = problem.message.lines().next().unwrap_or_default();
                format!("Astro {astro}; the site is not well: {words}")
            }
        };
        Ok((site, Some(detail)))
    }
}

impl Cloned {
    /// From here on instructions are consumed.
    fn run(
        self,
        site: Site,
        site_root: PathBuf,
        mut tasks: Loops,
        stop_rest: CancellationToken,
        boot: &Boot,
    ) -> Running {
        let Self {
            open,
            draft,
            taken_up,
            settings,
            places,
            work_tree,
        } = self;
        let (plan, seat) = (open.plan, open.seat);
        let remote = draft.remote_name();
        let lookout = Lookout::start(
            settings.clone(),
            draft.published_branch().to_owned(),
            plan.look_every,
            &mut tasks,
            stop_rest.clone(),
        );
        let hands = Uncommitted::start(&work_tree, &mut tasks, stop_rest.clone());
        let ending = Ending::default();
        let workshop = Workshop::open(
            draft,
            settings,
            places,
            work_tree,
            Verifier::new(site.clone(), open.visits),
            plan.node,
            ending.stop(),
        );
        let indoors = workshop.indoors(plan.home.folders());
        let view = open.pipeline_view.subscribe();
        let pipeline = Pipeline {
            identity: seat.identity.clone(),
            lease: seat.lease.clone(),
            policy: plan.policy,
            queue: seat.queue.clone(),
            dead: seat.dead.clone(),
            receipts: seat.receipts.clone(),
            results: seat.results.clone(),
            workshop,
            indoors,
            lookout,
            followed: None,
            attempts: Attempts::default(),
            content: plan.content,
            hands,
            events: boot.events.clone(),
            kinds: open.kinds,
            view: open.pipeline_view,
        };
        let mut pipelines = JoinSet::new();
        pipelines.spawn(pipeline.run(ending.clone()));
        Running {
            home: plan.home,
            seat,
            address: plan.address,
            remote,
            health: site.view().health(),
            site,
            site_root,
            view,
            activity: open.activity,
            life: open.life,
            taken_up,
            pipeline: pipelines,
            door: open.door,
            tasks,
            stage: open.stage,
            ending,
            closing: open.closing,
            stop_rest,
        }
    }
}

fn refuse_no_astro(root: &Path) -> Result<(), SiteError> {
    let manifest = folders::read_small(&root.join("package.json"), node::MANIFEST_MAX_BYTES)
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
