//! Which task this is and where it is reached: what ECS says, at the task metadata endpoint of version 4.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::settings::Settings;
use crate::failure::{Exit, Failure};

/// How long the endpoint may take to answer. It is on this machine.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Times that it is asked: it may not be there yet in a task's first moments.
const ATTEMPTS_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);
/// Bytes of an answer.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// A task and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) arn: String,
    pub(super) ip: IpAddr,
}

/// Finds out which task this is. What the flags say goes before what ECS says.
pub(super) async fn find(settings: &Settings) -> Result<Task, Failure> {
    if let (Some(arn), Some(ip)) = (&settings.place.task, settings.place.ip) {
        return Ok(Task {
            arn: arn.clone(),
            ip,
        });
    }
    let endpoint = settings.place.metadata.as_deref().unwrap_or_default();
    let failure = |why: String| {
        Failure::new(
            Exit::Backend,
            format!("the task metadata endpoint does not say which task this is: {why}"),
            "It is at ECS_CONTAINER_METADATA_URI_V4, which ECS sets; outside ECS name --ip and --task.",
        )
        .retryable(true)
    };
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS_MAX {
        match ask(endpoint).await {
            Ok((task, container)) => {
                let found = read(&task, &container).map_err(failure)?;
                return Ok(Task {
                    arn: settings.place.task.clone().unwrap_or(found.arn),
                    ip: settings.place.ip.unwrap_or(found.ip),
                });
            }
            Err(error) => last = error,
        }
        if attempt < ATTEMPTS_MAX {
            tokio::time::sleep(PAUSE * attempt).await;
        }
    }
    Err(failure(last))
}

async fn ask(endpoint: &str) -> Result<(Value, Value), String> {
    let task = format!("{}/task", endpoint.trim_end_matches('/'));
    tokio::try_join!(get(&task), get(endpoint))
}

async fn get(url: &str) -> Result<Value, String> {
    let url: http::Uri = url
        .parse()
        .map_err(|error| format!("{url} is no address: {error}"))?;
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let answer = async {
        let answer = client
            .get(url.clone())
            .await
            .map_err(|error| crate::chain(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| format!("it answers what is no JSON: {error}"))
    };
    tokio::time::timeout(TIME_MAX, answer)
        .await
        .unwrap_or_else(|_| Err(format!("it did not answer within {} s", TIME_MAX.as_secs())))
}

/// Reads the answers of `/task` and of the container itself.
fn read(task: &Value, container: &Value) -> Result<Task, String> {
    let arn = task["TaskARN"]
        .as_str()
        .ok_or("the answer has no TaskARN")?
        .to_owned();
    let ip = container["Networks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|network| network["IPv4Addresses"].as_array())
        .flatten()
        .find_map(|address| address.as_str()?.parse().ok())
        .ok_or("the answer has no address in Networks[].IPv4Addresses")?;
    Ok(Task { arn, ip })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_answers_of_ecs_are_read() {
        // As in the AWS documentation of the endpoint, version 4.
        let task = json!({
            "Cluster": "default",
            "TaskARN": "arn:aws:ecs:us-west-2:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c",
            "Family": "curltest",
        });
        let container = json!({
            "DockerId": "ea32192c8553fbff06c9340478a2ff089b2bb5646fb718b4ee206641c9086d66",
            "Networks": [{ "NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.2.100"], "MACAddress": "0e:9e:32:c7:48:85" }],
        });
        let found = read(&task, &container).expect("all there");
        assert_eq!(found.ip, IpAddr::from([10, 0, 2, 100]));
        assert!(found.arn.ends_with("/158d1c8083dd49d6b527399fd6414f5c"));
        assert_eq!(
            read(&task, &json!({})),
            Err("the answer has no address in Networks[].IPv4Addresses".to_owned())
        );
    }
}
