//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use contract::{ClientId, SessionId, ThreadId};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

/// The router of edit environments: finds the environment of a session, wakes it when it sleeps, and shows it.
///
/// Without a command it is the function of a Lambda, if a Lambda's runtime started it.
#[derive(Debug, Parser)]
#[command(name = "edit-router", version, styles = STYLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve HTTP and WebSockets: the gateway in the cloud, and the whole system on a laptop.
    Serve(ServeArguments),
    /// Make a signed link that opens a session of a client, once.
    Link(LinkArguments),
    /// Say in words what a request for a session would get, and why.
    Inspect(InspectArguments),
    /// Look once after what nobody asks for: lost tasks, wakes that never ended, messages that wait, sessions that expired.
    Sweep(LocalArguments),
    /// Ask the gateway of this machine whether it is well: what a container's health check does.
    Health(HealthArguments),
    /// Be the function of a Lambda: what is done without a command where a Lambda's runtime is.
    Lambda,
}

/// Where everything is kept on a laptop.
#[derive(Debug, Clone, Args)]
pub struct LocalArguments {
    /// On a laptop, without AWS: records and messages in a file below --state, environments as processes.
    #[arg(long)]
    pub local: bool,
    /// Where everything of a laptop is kept. Default: edit-router in the folder where programs keep their state.
    #[arg(long, value_name = "DIR", requires = "local")]
    pub state: Option<PathBuf>,
}

/// How to serve.
#[derive(Debug, Clone, Args)]
#[command(after_help = serve_help())]
pub struct ServeArguments {
    /// Where everything of a laptop is kept.
    #[command(flatten)]
    pub place: LocalArguments,
    /// The port; 0 takes any free one. Default: 8080, and 8787 with --local.
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// The address to listen on. Default: 0.0.0.0, and 127.0.0.1 with --local.
    #[arg(long, value_name = "IP")]
    pub host: Option<IpAddr>,
    /// A folder with a configuration for each client, `<clientId>.json`. Default: fixtures/clients.
    #[arg(long, value_name = "DIR", requires = "local")]
    pub clients: Option<PathBuf>,
    /// The program edit-agent. Default: the one beside this program, else the one in PATH; `cargo run` builds it.
    #[arg(long, value_name = "FILE", requires = "local")]
    pub agent: Option<PathBuf>,
    /// Sessions share the edit host of their client, one in a browser at a time, instead of a host each.
    #[arg(long, requires = "local")]
    pub shared_host: bool,
    /// Say what happens inside (`LOG_LEVEL=debug`).
    #[arg(short, long)]
    pub verbose: bool,
}

/// Whom to ask.
#[derive(Debug, Clone, Args)]
pub struct HealthArguments {
    /// Its port.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub port: u16,
}

/// What link to make.
#[derive(Debug, Clone, Args)]
#[command(after_help = LINK_HELP)]
pub struct LinkArguments {
    /// Where everything of a laptop is kept.
    #[command(flatten)]
    pub place: LocalArguments,
    /// Whose site.
    #[arg(long, value_name = "ID")]
    pub client: ClientId,
    /// The conversation to go on with; a new one if absent.
    #[arg(long, value_name = "ID")]
    pub thread: Option<ThreadId>,
    /// Who is invited.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// For how many hours the link can be used.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=24 * 90))]
    pub hours: u32,
}

/// What to look at.
#[derive(Debug, Clone, Args)]
pub struct InspectArguments {
    /// Where everything of a laptop is kept.
    #[command(flatten)]
    pub place: LocalArguments,
    /// The session: its id, or the beginning of it as logs show it, with --client.
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Whose session, where only the beginning of its id is known.
    #[arg(long, value_name = "ID")]
    pub client: Option<ClientId>,
}

impl InspectArguments {
    /// The whole id, if that is what was said.
    pub fn id(&self) -> Option<SessionId> {
        self.session.parse().ok()
    }
}

const LINK_HELP: &str = "\
The link is printed on stdout and nothing else is. It can be used once, until it expires; a GET of it makes and wakes
nothing, so that programs that look at mail do no harm.

Examples:
  edit-router link --client amelia --thread spring --user amelia@ameliastamps.com
  edit-router link --local --client amelia           while `serve --local` runs";

fn serve_help() -> String {
    format!(
        "\
Variables of the gateway and of the Lambda (an empty one is not set; `--local` needs none):
{}
The AWS SDK reads its own: AWS_REGION, AWS_ENDPOINT_URL, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, …

Examples:
  edit-router serve --local                     several clients on a laptop, a link for each
  edit-router serve --local --port 0 --clients ~/clients --state ~/edit
  edit-router serve                             the gateway, in a container behind a load balancer",
        crate::settings::explain()
    )
}
