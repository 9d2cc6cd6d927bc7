//! The command line.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use contract::client_config::{OnBroken, PublishCheck};
use contract::schema::SchemaName;
use contract::{ClientId, SessionId};

use crate::content;
use crate::draft::Credentials;
use crate::failure::{Exit, Failure};
use crate::health::HealthArguments;
use crate::isolation::attempt::AttemptArguments;
use crate::isolation::confine::ConfineArguments;
use crate::isolation::ending::EndArguments;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

/// Edit environments for Astro websites.
///
/// An instruction changes a real site, live, as a commit on a draft branch.
#[derive(Debug, Parser)]
#[command(name = "edit-agent", version, styles = STYLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Say what happens inside, on stderr (`RUST_LOG` has finer control).
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an edit environment of a repository on this machine.
    Dev(DevArguments),
    /// Run the environment of a session: what a container does, from its configuration to its sleep.
    Run(RunArguments),
    /// The environment itself, which `run` starts and watches as the first process of a container.
    #[command(hide = true)]
    Daemon(RunArguments),
    /// Start a program as the first process of a container does: pass signals on, reap what it leaves, end as it ends.
    #[command(disable_help_flag = true)]
    Init(InitArguments),
    /// Ask the environment of this machine whether it is well: what a container's health check does.
    Health(HealthArguments),
    /// Become another program as another user, with nothing that it should not have.
    #[command(hide = true)]
    Confine(ConfineArguments),
    /// End everything that runs as a user.
    #[command(hide = true)]
    End(EndArguments),
    /// Try what must not work.
    #[command(hide = true)]
    Attempt(AttemptArguments),
    /// Check what `run` would be told, and whether it could work, without starting anything.
    Check(RunArguments),
    /// Send an instruction to a running environment or a queue, and follow it to its receipt.
    Send(SendArguments),
    /// List what was done on the draft of a running environment.
    Log(LogArguments),
    /// Make a repository of a plain folder, once: what `dev` does by itself, for an environment that is given a repository.
    Import(ImportArguments),
    /// Print the JSON Schema of a record or message.
    Schema {
        /// instruction, receipt, client-config or session; all of them if absent.
        name: Option<String>,
    },
}

const DEV_HELP: &str = "\
The repository is the git remote: it is cloned into a workspace of its own, and results arrive as commits on
the branch edit/<thread>. Your working tree is not touched. A plain folder, or a folder inside another
repository, is first imported into a repository of its own.

Examples:
  edit-agent dev                               the repository you stand in
  edit-agent dev ~/sites/amelia --port 0       on any free port
  edit-agent dev git@example.com:amelia.git --branch main --deploy-key file:deploy.key

Exit codes: 0 stopped, 10 repository, 11 remote or credentials, 12 Node.js, 13 port, 14 workspace or state,
15 already running, 16 dependencies, 70 unexpected, 101 a defect ended one of its loops,
130 interrupted before it was ready.";

/// How to run an environment.
#[derive(Debug, Args)]
#[command(after_help = DEV_HELP)]
pub(crate) struct DevArguments {
    /// An Astro repository: a folder, or an address (https, ssh, file).
    #[arg(default_value = ".", value_name = "REPO")]
    pub(crate) repository: String,
    /// The port of the preview; 0 takes any free one.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// The address to listen on, or a host name to be known by besides localhost. Whoever can reach the address can see the site's source and edit it.
    #[arg(long, value_name = "ADDRESS|NAME")]
    pub(crate) host: Vec<String>,
    /// The published branch, from which the draft begins. Default: what the repository has checked out.
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// The conversation: instructions land on `edit/<thread>`.
    #[arg(long, default_value = "local")]
    pub(crate) thread: String,
    /// Where the clone and the work tree are kept. Default: below --state.
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Where the queue, the receipts and stored dependencies are kept.
    #[arg(long, value_name = "DIR", env = "EDIT_AGENT_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Use the dependencies that are in the workspace, and install none.
    #[arg(long)]
    pub(crate) no_install: bool,
    /// What instructions may change beyond pages, content and styles.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) allow: Vec<Allowance>,
    /// From where instructions may have the bytes behind a `contentUrl`, which continues it: `https://host/path`. This machine itself only by its address, such as `https://127.0.0.1:8443/`. Default: from nowhere.
    #[arg(long, value_name = "ADDRESS", value_parser = content::check_source)]
    pub(crate) content_source: Vec<String>,
    /// What becomes of an edit with which a page that rendered before does not render any more.
    #[arg(long, value_enum, default_value_t = BrokenEdit::Rollback, value_name = "WHAT")]
    pub(crate) on_broken: BrokenEdit,
    /// What has to succeed before something is published.
    #[arg(long, value_enum, default_value_t = BeforePublishing::Render, value_name = "CHECK")]
    pub(crate) publish_check: BeforePublishing,
    /// The key or token for the remote: `file:PATH` or `env:NAME`. Default: what your git uses.
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) deploy_key: Option<String>,
    /// With --deploy-key: a key by which the ssh server is known, as `ssh-keygen -lf` prints it. Those of GitHub, GitLab and Bitbucket are then known too, and `~/.ssh/known_hosts` does not count. Default: what `~/.ssh/known_hosts` says.
    #[arg(long, value_name = "SHA256:…", requires = "deploy_key", value_parser = host_key)]
    pub(crate) host_key: Vec<String>,
    /// The Node.js program to use. Default: the one in PATH.
    #[arg(long, value_name = "PATH")]
    pub(crate) node: Option<PathBuf>,
    /// Show the site's pages without the status bar.
    #[arg(long)]
    pub(crate) no_bar: bool,
    /// Print events on stdout, one JSON object a line: phase, ready, receipt, stopped.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to run the environment of a session. Everything else comes from variables of the environment.
#[derive(Debug, Default, Args)]
#[command(after_help = run_help())]
pub(crate) struct RunArguments {
    /// Keep records and messages in a file below --state instead of `DynamoDB` and SQS: one environment of several on a laptop.
    #[arg(long, requires = "state")]
    pub(crate) local: bool,
    /// Where records, clones and dependencies are kept. Default: `WORKSPACE_DIR`.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// The address that the door listens on. Default: 0.0.0.0, and 127.0.0.1 with --local.
    #[arg(long, value_name = "IP")]
    pub(crate) host: Option<IpAddr>,
    /// The port of the door; 0 takes any free one. Default: PORT.
    #[arg(long, value_name = "N")]
    pub(crate) port: Option<u16>,
    /// The address at which the router reaches this task. Default: what ECS says, and --host with --local.
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<IpAddr>,
    /// Which task this is. Default: what ECS says, and the process with --local.
    #[arg(long, value_name = "ARN")]
    pub(crate) task: Option<String>,
}

/// A program and its arguments. They are read by init itself, which comes before this.
#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// The program and its arguments, behind `--`. `edit-agent init --help` says more.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    words: Vec<OsString>,
}

/// Says how `init` is called. What was called rightly does not come here.
pub(crate) fn explain_init(arguments: InitArguments) -> Result<Exit, Failure> {
    match init::usage::read(arguments.words, init::Log::Text) {
        Err(sentence) => Err(Failure::new(
            Exit::Usage,
            sentence,
            "`edit-agent init --help` says how it is called.",
        )),
        Ok(_) => {
            let help = init::usage::HELP.replace("edit-init", "edit-agent init");
            // Nobody is left to tell if stdout is gone.
            write!(std::io::stdout(), "{help}").ok();
            Ok(Exit::Success)
        }
    }
}

/// What becomes a repository, and where.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The folder of the site. What its .gitignore names is left out.
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// The bare repository to be made. One that is there already is left as it is.
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repository: PathBuf,
}

fn run_help() -> String {
    format!(
        "\
Variables (an empty one is not set):
{}
The AWS SDK reads its own: AWS_REGION, AWS_ENDPOINT_URL, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, …

Examples (with CLIENT_ID=amelia and SESSION_ID=amelia_4f2k set):
  edit-agent run                                      in a container of ECS
  edit-agent check                                    would it work?
  edit-agent run --local --state ~/edit --host 127.0.0.2 --port 0

Exit codes: 0 asleep, everything saved; 2 not told what it needs; 10 repository, 11 remote or
credentials, 12 Node.js, 13 port, 14 workspace, 16 dependencies; 18 another environment has
the session, nothing was touched; 20 configuration, 21 client suspended, 22 a table, queue
or secret, 23 a phase took too long, 24 something could only be kept in the workspace;
25 the site cannot be kept apart from the agent, 26 the clock is wrong; 70 unexpected, 101 a defect ended one
of its loops (as PID 1 it starts anew), 130 stopped before it was ready.",
        crate::run::explain()
    )
}

/// What instructions may change beyond pages, content and styles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Allowance {
    /// Configuration: astro.config, tsconfig, .env, CI.
    Config,
    /// package.json and lock files.
    Dependencies,
}

/// What becomes of an edit that breaks a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BrokenEdit {
    /// It is taken back before anybody sees it, and refused.
    Rollback,
    /// It stays, and its receipt says so.
    Keep,
}

impl From<BrokenEdit> for OnBroken {
    fn from(word: BrokenEdit) -> Self {
        match word {
            BrokenEdit::Rollback => Self::Rollback,
            BrokenEdit::Keep => Self::Keep,
        }
    }
}

/// What has to succeed before something is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BeforePublishing {
    /// Every page that was touched since the last time renders.
    Render,
    /// That, and `astro build` succeeds in a copy.
    Build,
}

impl From<BeforePublishing> for PublishCheck {
    fn from(word: BeforePublishing) -> Self {
        match word {
            BeforePublishing::Render => Self::Render,
            BeforePublishing::Build => Self::Build,
        }
    }
}

impl DevArguments {
    /// The address to listen on: the one given, else loopback.
    pub(crate) fn address(&self) -> IpAddr {
        self.host
            .iter()
            .find_map(|host| host.parse().ok())
            .unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// The host names given.
    pub(crate) fn host_names(&self) -> Vec<String> {
        self.host
            .iter()
            .filter(|host| host.parse::<IpAddr>().is_err())
            .map(|host| host.to_ascii_lowercase())
            .collect()
    }
}

fn host_key(text: &str) -> Result<String, String> {
    if Credentials::is_host_key(text) {
        Ok(text.to_owned())
    } else {
        Err("must be SHA256: and 43 characters, as `ssh-keygen -lf` prints it".to_owned())
    }
}

const SEND_HELP: &str = "\
Several changes in one call are one instruction: all of them happen, or none. Every change can be
taken back with --undo, also an undo and a discard.

Examples:
  edit-agent send --replace src/pages/index.astro \"Rare stamps\" \"Rare & old stamps\"
  edit-agent send --write public/logo.svg=@logo.svg --delete public/old-logo.svg
  echo '# Hello' | edit-agent send --write src/pages/hello.md=@-
  git diff | edit-agent send --patch -
  edit-agent send instruction.json
  edit-agent send --undo last                  take the newest change back, keep all others
  edit-agent send --undo send-9 --undo send-7  two, the later first (`edit-agent log` has the ids)
  edit-agent send --sync                       bring in what was published meanwhile
  edit-agent send --publish                    put the draft on the published branch
  edit-agent send --publish --up-to send-7     only up to this one; the rest stays a draft
  edit-agent send --cancel send-9              call off what has not begun

To a queue of SQS, whether or not an environment runs (docs/producers.md), with the standard
variables of AWS (AWS_REGION, AWS_PROFILE, …):
  edit-agent send --queue https://sqs.eu-central-1.amazonaws.com/1/webordinary-intake.fifo \\
      --client amelia --thread spring --write src/pages/hello.md=@hello.md

Exit codes: 0 it landed (or, with --no-wait, was accepted; or was called off in time), 1 it did not,
2 usage, 17 no running environment, 22 the queue or the table does not answer, 130 interrupted while
it waited.";

/// The options that are changes of one `edit`.
const CHANGES: [&str; 5] = ["write", "replace", "delete", "move_", "patch"];
/// The options that are actions of their own.
const ACTIONS: [&str; 6] = [
    "undo",
    "publish",
    "sync",
    "discard",
    "commit_mine",
    "cancel",
];

/// What to send, and where.
#[derive(Debug, Args)]
#[command(after_help = SEND_HELP)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line, and clap knows which exclude each other"
)]
#[command(group = ArgGroup::new("action").conflicts_with_all(CHANGES).conflicts_with("file"))]
pub(crate) struct SendArguments {
    /// A file with an instruction or an array of them; - for stdin. What such an instruction leaves out (version, ids, time) is filled in.
    #[arg(value_name = "FILE.json|-", conflicts_with_all = CHANGES, required_unless_present_any = CHANGES.iter().chain(&ACTIONS))]
    pub(crate) file: Option<PathBuf>,
    /// Make a file of the site have the content of a local file (- for stdin), or, without @, this text.
    #[arg(long, value_name = "PATH=@FILE")]
    pub(crate) write: Vec<String>,
    /// Replace a text that occurs exactly once.
    #[arg(long, num_args = 3, value_names = ["PATH", "FIND", "NEW"], allow_hyphen_values = true)]
    pub(crate) replace: Vec<String>,
    /// Remove a file.
    #[arg(long, value_name = "PATH")]
    pub(crate) delete: Vec<String>,
    /// Give a file another path.
    #[arg(long = "move", id = "move_", num_args = 2, value_names = ["A", "B"])]
    pub(crate) move_: Vec<String>,
    /// Apply a git patch; - for stdin.
    #[arg(long, value_name = "FILE.diff")]
    pub(crate) patch: Vec<PathBuf>,
    /// Take an instruction back with a new commit, and keep all later ones; `last` is the newest that stands. Several are taken back in the order given.
    #[arg(long, value_name = "ID|last", group = "action")]
    pub(crate) undo: Vec<String>,
    /// Put the draft on the published branch, if the pages that it changes render.
    #[arg(long, group = "action")]
    pub(crate) publish: bool,
    /// With --publish: only up to and with this instruction.
    // That others conflict follows from `requires`, but clap does not require what would conflict.
    #[arg(long, value_name = "ID", requires = "publish", conflicts_with_all = ["undo", "sync", "discard", "commit_mine", "cancel"])]
    pub(crate) up_to: Option<String>,
    /// Bring what was published meanwhile into the draft.
    #[arg(long, group = "action")]
    pub(crate) sync: bool,
    /// Make the draft what is published, with a new commit that can be undone.
    #[arg(long, group = "action")]
    pub(crate) discard: bool,
    /// Commit everything that was changed by hand in the workspace. Nothing else ever does.
    #[arg(long, group = "action")]
    pub(crate) commit_mine: bool,
    /// Do not carry out an instruction that waits or has not changed anything yet. It overtakes what waits.
    #[arg(long, value_name = "ID", group = "action")]
    pub(crate) cancel: Option<String>,
    /// The idempotency key: the same id is carried out once. Default: a new one.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The conversation. Default: that of the running environment.
    #[arg(long)]
    pub(crate) thread: Option<String>,
    /// The author of the commit, as `Name <e-mail>`. Default: what git says of you.
    #[arg(long, value_name = "NAME <E-MAIL>")]
    pub(crate) author: Option<String>,
    /// The environment. Default: the one that runs; if several do, the one of the folder you stand in.
    #[arg(long, value_name = "http://127.0.0.1:PORT")]
    pub(crate) url: Option<String>,
    /// Send to this queue of SQS instead of an environment that runs: the intake, or the session's own.
    #[arg(long, value_name = "URL", conflicts_with = "url")]
    pub(crate) queue: Option<String>,
    /// With --queue: whose site. Default: `CLIENT_ID`.
    #[arg(long, value_name = "ID", requires = "queue")]
    pub(crate) client: Option<ClientId>,
    /// With --queue: which session, instead of a thread. Default: that whose own queue it is, else `SESSION_ID`.
    #[arg(long, value_name = "ID", requires = "queue", conflicts_with = "thread")]
    pub(crate) session: Option<SessionId>,
    /// With --queue: the table in which receipts are looked for. Default: `RECEIPTS_TABLE`, else `webordinary-edit-receipts`.
    #[arg(long, value_name = "NAME", requires = "queue")]
    pub(crate) receipts_table: Option<String>,
    /// Where `dev` keeps its state, if that was given there.
    #[arg(long, value_name = "DIR", env = "EDIT_AGENT_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Print the receipt as JSON (an array if several instructions were sent).
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not wait for the receipt.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

const LOG_HELP: &str = "\
Newest first, with who asked for it, when, and the id that `edit-agent send --undo ID` takes. Below
it: what is not published, and what was changed by hand and is in no commit.";

/// What to list, and of which environment.
#[derive(Debug, Args)]
#[command(after_help = LOG_HELP)]
pub(crate) struct LogArguments {
    /// The environment. Default: the one that runs; if several do, the one of the folder you stand in.
    #[arg(long, value_name = "http://127.0.0.1:PORT")]
    pub(crate) url: Option<String>,
    /// Where `dev` keeps its state, if that was given there.
    #[arg(long, value_name = "DIR", env = "EDIT_AGENT_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Print it as JSON, with the receipts.
    #[arg(long)]
    pub(crate) json: bool,
    /// How many instructions. Default: 20, or with --json all of them.
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<usize>,
}

/// Which changes stand in which order on the command line: clap groups them by option, and order matters.
pub(crate) fn change_options(arguments: impl IntoIterator<Item = OsString>) -> Vec<&'static str> {
    const OPTIONS: [&str; 5] = ["--write", "--replace", "--delete", "--move", "--patch"];
    let mut order = Vec::new();
    let mut skip = 0;
    for argument in arguments {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let text = argument.to_string_lossy();
        let (name, attached) = text
            .split_once('=')
            .map_or((text.as_ref(), false), |(name, _)| (name, true));
        if let Some(option) = OPTIONS.iter().find(|option| **option == name) {
            order.push(*option);
            let values = match *option {
                "--replace" => 3,
                "--move" => 2,
                _ => 1,
            };
            skip = values - usize::from(attached);
        }
    }
    order
}

/// Prints one schema, or all of them as one object.
pub(crate) fn print_schema(name: Option<&str>) -> Result<Exit, Failure> {
    let document = match name {
        Some(name) => {
            let name: SchemaName = name.parse().map_err(|_| {
                Failure::new(
                    Exit::Usage,
                    format!("there is no schema `{name}`"),
                    "Name instruction, receipt, client-config or session.",
                )
            })?;
            contract::schema::schema(name)
        }
        None => SchemaName::ALL
            .iter()
            .map(|name| (name.to_string(), contract::schema::schema(*name)))
            .collect(),
    };
    let text = serde_json::to_string_pretty(&document).expect("a schema is JSON");
    // A closed pipe (`| head`) is no failure.
    writeln!(std::io::stdout(), "{text}").ok();
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn changes_keep_the_order_of_the_command_line() {
        let line = [
            "send",
            "--delete",
            "--write",
            "--replace",
            "a",
            "--move",
            "b",
            "--write=x=@y",
            "--move",
            "a",
            "b",
        ];
        assert_eq!(
            change_options(line.iter().map(OsString::from)),
            ["--delete", "--replace", "--write", "--move"]
        );
    }
}
