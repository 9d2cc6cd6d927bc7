//! Who has a session: we, or the system that was there before. Pure.
//!
//! A client's `rollout` says which share of its sessions is ours. A session is always on the same side of it, because its id
//! decides; and a larger share only brings more over. An operator changes the row, and the next request goes by it.
//!
//! Where it leads is made of the origin that an operator wrote and of ids that were parsed, and of nothing that a visitor wrote.

use contract::client_config::{Rollout, RolloutMode};
use contract::{ClientConfig, SessionId};
use sha2::{Digest as _, Sha256};

/// To the old system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away<'a> {
    /// Its host's name, in lower case: nothing may be sent there if it is one of ours.
    pub host: &'a str,
    /// The whole address.
    pub address: String,
}

/// Where a link leads that makes a session: none is made here while the old system has all of them.
pub fn all(config: &ClientConfig) -> Option<Away<'_>> {
    let rollout = config.rollout.as_ref()?;
    (rollout.mode == RolloutMode::Legacy).then(|| away(rollout, "/"))
}

/// Where a session of ours leads that is not ours to serve.
pub fn session<'a>(config: &'a ClientConfig, session: &SessionId) -> Option<Away<'a>> {
    let rollout = config.rollout.as_ref()?;
    (place(session) >= rollout.ours()).then(|| away(rollout, &format!("/session/{session}/")))
}

/// Where a session leads that is none of ours, and may be one of the old system's.
pub fn stranger<'a>(config: &'a ClientConfig, session: &str) -> Option<Away<'a>> {
    let rollout = config.rollout.as_ref()?;
    if rollout.mode == RolloutMode::New {
        return None;
    }
    let session: SessionId = session.parse().ok()?;
    Some(away(rollout, &format!("/session/{session}/")))
}

fn away<'a>(rollout: &'a Rollout, path: &str) -> Away<'a> {
    let origin = &rollout.legacy_origin;
    Away {
        host: origin.host(),
        address: format!("{}{path}", origin.as_str()),
    }
}

/// Where a session stands among a hundred: sessions below a client's share are ours.
fn place(session: &SessionId) -> u8 {
    let digest = Sha256::digest(session.as_str().as_bytes());
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    u8::try_from(number % 100).expect("less than a hundred")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(rollout: serde_json::Value) -> ClientConfig {
        ClientConfig::parse(&json!({
            "clientId": "amelia",
            "domains": { "production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com" },
            "repository": { "url": "https://git.example/amelia.git", "branch": "main" },
            "infrastructure": {},
            "settings": { "containerSize": "small", "idleTimeoutMinutes": 30, "maxConcurrentSessions": 2 },
            "status": "active",
            "rollout": rollout,
        }))
        .expect("valid")
    }

    fn ids() -> Vec<SessionId> {
        let client = "amelia".parse().expect("an id");
        (0..1000_u128)
            .map(|number| SessionId::new(&client, (number * 0x1234_5678_9abc_def1).to_be_bytes()))
            .collect()
    }

    #[test]
    fn a_larger_share_only_brings_more_over() {
        let ours = |percent: u8| -> Vec<bool> {
            let config = config(
                json!({ "mode": "percent", "percent": percent, "legacyOrigin": "https://old.example" }),
            );
            ids()
                .iter()
                .map(|id| session(&config, id).is_none())
                .collect()
        };
        let shares: Vec<Vec<bool>> = [0, 10, 50, 100].into_iter().map(ours).collect();
        for pair in shares.windows(2) {
            for (before, after) in pair[0].iter().zip(&pair[1]) {
                assert!(*after || !*before, "a session that was ours went back");
            }
        }
        let counted: Vec<usize> = shares
            .iter()
            .map(|share| share.iter().filter(|ours| **ours).count())
            .collect();
        assert_eq!((counted[0], counted[3]), (0, 1000));
        assert!(
            (60..140).contains(&counted[1]) && (430..570).contains(&counted[2]),
            "{counted:?}"
        );
    }

    #[test]
    fn whoever_is_sent_away_goes_to_the_old_origin_and_to_a_parsed_id() {
        let legacy =
            config(json!({ "mode": "legacy", "legacyOrigin": "https://old.example:8443" }));
        let new = config(json!({ "mode": "new", "legacyOrigin": "https://old.example" }));
        let address = |away: Option<Away<'_>>| away.map(|away| away.address);
        assert_eq!(
            address(all(&legacy)).as_deref(),
            Some("https://old.example:8443/")
        );
        assert_eq!(
            address(stranger(&legacy, "s1")).as_deref(),
            Some("https://old.example:8443/session/s1/")
        );
        assert_eq!(
            address(session(&legacy, &"amelia_a".parse().expect("an id"))).as_deref(),
            Some("https://old.example:8443/session/amelia_a/")
        );
        for invented in ["", "..", "@evil.com", "S1", "a%2f", "a?b", "a#b"] {
            assert_eq!(stranger(&legacy, invented), None, "{invented}");
        }
        for id in ids() {
            assert_eq!(session(&new, &id), None);
        }
        assert_eq!(all(&new), None);
        assert_eq!(stranger(&new, "s1"), None);
    }
}
