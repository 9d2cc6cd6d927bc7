//! What an environment has around it: AWS in an emulator, a git server, and the packages of the fixture site without a registry.
//!
//! ```text
//!  10.77.n.2  git        ssh, with a deploy key and a host key that nobody had before
//!         .3  emulator   tables, queues and clients, and one session of amelia that sleeps
//!        .10… environments, routers: whoever the story puts there
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::engine::{Ended, Network, Recipe, Running, Volume, told};

/// The session that is there.
pub(crate) const SESSION: &str = "amelia_compose";
/// The first address that is nobody's.
pub(crate) const ENVIRONMENT: u8 = 10;

const GIT: u8 = 2;
const EMULATOR: u8 = 3;
/// How long the emulator may take to be there, on a machine that is building something else.
const TOWN_TIME_MAX: Duration = Duration::from_secs(120);

/// Everything around an environment.
#[derive(Debug)]
pub(crate) struct Town {
    git: Running,
    emulator: Running,
    /// Held: what is added to the site is read from it.
    _added: TempDir,
    _keys: Volume,
    pub(crate) network: Network,
}

impl Town {
    pub(crate) fn new() -> Self {
        let network = Network::new();
        let keys = Volume::new();
        let added = tempfile::tempdir().expect("there is room");
        // Children of the agent see no variable of npm's, but they read this.
        fs::write(
            added.path().join(".npmrc"),
            "cache=/packages\noffline=true\n",
        )
        .expect("there is room");
        let git = Recipe::of(told("STORIES_GIT_IMAGE"))
            .at(&network, GIT)
            .volume(&keys, "/keys")
            .folder(added.path(), "/srv/added")
            .start(&[]);
        let emulator = Recipe::of(told("STORIES_EMULATOR_IMAGE"))
            .at(&network, EMULATOR)
            .volume(&keys, "/keys")
            .variable("EMULATOR_HOST", "emulator")
            .variable("KEYS", "/keys")
            .variable("REPOSITORY_URL", "ssh://git@git/srv/git/{client}.git")
            .variable("SESSION", SESSION)
            .variable("THREAD", "compose")
            .start(&[]);
        emulator.line_with("everything is there", TOWN_TIME_MAX);
        Self {
            git,
            emulator,
            _added: added,
            _keys: keys,
            network,
        }
    }

    /// Whoever is in town knows where the others are, and how AWS is spoken to.
    pub(crate) fn citizen(&self, recipe: Recipe, host: u8) -> Recipe {
        recipe
            .at(&self.network, host)
            .knowing("git", &self.network, GIT)
            .knowing("emulator", &self.network, EMULATOR)
            .variable("AWS_ENDPOINT_URL", "http://emulator:4566")
            .variable("AWS_REGION", "eu-central-1")
            .variable("AWS_ACCESS_KEY_ID", "test")
            .variable("AWS_SECRET_ACCESS_KEY", "test")
            .variable("EDIT_DOMAIN", "localhost")
    }

    /// The environment of the session, as a task of Fargate.
    pub(crate) fn environment(&self) -> Recipe {
        let packages = told("STORIES_PACKAGES_FOLDER");
        self.citizen(Recipe::agent().like_on_fargate(), ENVIRONMENT)
            .shared_folder(Path::new(&packages), "/packages")
            .variable("CLIENT_ID", "amelia")
            .variable("SESSION_ID", SESSION)
    }

    /// How an environment is started outside ECS: told where it is, and as which task.
    pub(crate) fn command(&self, task: &str) -> Vec<String> {
        let address = self.network.address(ENVIRONMENT);
        ["run", "--ip", &address, "--task", task]
            .map(str::to_owned)
            .into()
    }

    /// Asks the repository of amelia with git.
    pub(crate) fn git(&self, arguments: &[&str]) -> Ended {
        let repository = [
            "git",
            "--git-dir=/srv/git/amelia.git",
            "-c",
            "safe.directory=*",
        ];
        self.git.exec(&[&repository[..], arguments].concat())
    }

    /// What the table of the sessions says of the session: the row, as `DynamoDB` writes it.
    pub(crate) fn record(&self) -> serde_json::Value {
        let program = format!(
            "import boto3, json; print(json.dumps(boto3.client('dynamodb', region_name='eu-central-1', \
             endpoint_url='http://127.0.0.1:4566', aws_access_key_id='test', aws_secret_access_key='test')\
             .get_item(TableName='webordinary-edit-sessions', Key={{'sessionId': {{'S': '{SESSION}'}}}})['Item']))"
        );
        let said = self
            .emulator
            .exec(&["/opt/emulator/bin/python", "-c", &program]);
        serde_json::from_str(&said.well()).expect("it was JSON")
    }
}
