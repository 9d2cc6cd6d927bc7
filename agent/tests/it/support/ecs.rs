//! What ECS has beside a container: the task metadata endpoint and the endpoint of the task role's credentials.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};

/// Both endpoints, on loopback. They end with the test's runtime.
#[derive(Clone)]
pub struct Ecs {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
}

/// Nobody but the agent is to learn this: whoever knows it has the task's rights.
pub const SECRET_PATH: &str = "/v2/credentials/4a2c7b1e-canary-9d3f";

impl Ecs {
    pub async fn starts() -> Self {
        let asked = Arc::new(AtomicU32::new(0));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/v4/container", get(container))
            .route("/v4/container/task", get(task))
            .route(SECRET_PATH, get(credentials))
            .with_state(Arc::clone(&asked));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// What ECS sets in a container's environment.
    pub fn variables(&self) -> Vec<(String, String)> {
        let at = self.address;
        [
            (
                "ECS_CONTAINER_METADATA_URI_V4",
                format!("http://{at}/v4/container"),
            ),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://{at}{SECRET_PATH}"),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// How often credentials were asked for.
    pub fn credentials_asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn container() -> axum::Json<Value> {
    axum::Json(json!({
        "DockerId": "ea32192c8553fbff06c9340478a2ff089b2bb5646fb718b4ee206641c9086d66",
        "Networks": [{ "NetworkMode": "awsvpc", "IPv4Addresses": ["127.0.0.1"] }],
    }))
}

async fn task() -> axum::Json<Value> {
    axum::Json(json!({
        "Cluster": "edit",
        "TaskARN": "arn:aws:ecs:eu-central-1:123456789012:task/edit/158d1c8083dd49d6b527399fd6414f5c",
        "Family": "edit-agent",
    }))
}

async fn credentials(State(asked): State<Arc<AtomicU32>>) -> axum::Json<Value> {
    asked.fetch_add(1, Ordering::Relaxed);
    axum::Json(json!({
        "RoleArn": "arn:aws:iam::123456789012:role/edit-agent",
        "AccessKeyId": "test",
        "SecretAccessKey": "test",
        "Token": "a-token-canary",
        "Expiration": contract::Timestamp::now().plus(std::time::Duration::from_secs(3600)),
    }))
}
