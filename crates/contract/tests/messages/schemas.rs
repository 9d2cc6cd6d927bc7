//! The committed schemas, and what they say of records.

use std::path::Path;
use std::{env, fs};

use contract::schema::{schema, text};
use contract::session::{Boundary, Failure, Isolation, Phase, ProofKey, SiteHealth, State};
use contract::{ClientConfig, ErrorCode, Receipt, SchemaName, Session};
use serde_json::{Value, json};

#[test]
fn the_committed_schemas_are_the_ones_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for name in SchemaName::ALL {
        let file = folder.join(format!("{name}.schema.json"));
        if env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&file, text(name)).expect("the schema can be written");
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == text(name),
            "schema/{name}.schema.json is out of date: run `UPDATE_SCHEMA=1 cargo test -p contract` and commit it"
        );
    }
}

#[test]
fn the_schemas_are_valid_schemas_with_a_title_and_without_an_address() {
    for name in SchemaName::ALL {
        let schema = schema(name);
        jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
            "{name}"
        );
        assert!(
            schema["title"].is_string() && schema["description"].is_string(),
            "{name}"
        );
        assert_eq!(schema.get("$id"), None, "{name}");
    }
}

/// Rust's links and paths mean nothing to a producer.
#[test]
fn no_description_speaks_rust() {
    for name in SchemaName::ALL {
        let text = text(name);
        assert!(!text.contains("[`") && !text.contains("::"), "{name}");
    }
}

#[test]
fn every_error_code_stands_in_the_schema_with_its_meaning_and_its_hint() {
    let schema = schema(SchemaName::Receipt);
    let codes = schema["$defs"]["ErrorCode"]["oneOf"]
        .as_array()
        .expect("a list of codes");
    assert_eq!(codes.len(), ErrorCode::ALL.len());
    for code in ErrorCode::ALL {
        let listed = codes
            .iter()
            .find(|listed| listed["const"] == code.as_str())
            .unwrap_or_else(|| panic!("{} is missing", code.as_str()));
        let description = listed["description"].as_str().expect("text");
        assert!(
            description.starts_with(code.meaning()) && description.ends_with(code.hint()),
            "{description}"
        );
        assert_eq!(
            serde_json::to_value(code).expect("serialises"),
            code.as_str(),
            "the same word in serde"
        );
    }
    insta::assert_snapshot!(codes[0]["description"].as_str().expect("text"), @"The message is not a valid instruction. Mend what `details` lists and send it under a new id. `edit-agent schema instruction` prints the schema.");
}

fn validator(name: SchemaName) -> jsonschema::Validator {
    jsonschema::validator_for(&schema(name)).expect("the schema is one")
}

fn assert_valid(name: SchemaName, record: &Value) {
    let validator = validator(name);
    let errors: Vec<String> = validator
        .iter_errors(record)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
}

fn receipt() -> Value {
    json!({
        "sessionId": "amelia_a",
        "instructionId": "one",
        "clientId": "amelia",
        "status": "rejected",
        "attempts": 1,
        "commit": "0123456789012345678901234567890123456789",
        "branch": "edit/local",
        "filesChanged": ["src/pages/index.astro"],
        "summary": "The text does not occur.",
        "pages": [{ "path": "/", "status": 200 }],
        "error": {
            "code": "find_not_found",
            "message": "src/pages/index.astro does not contain the text.",
            "hint": "Look at the file as it is now and send the exact text.",
            "details": [{ "path": "$.action.changes[0].find", "message": "does not occur" }],
        },
        "timings": { "queuedMs": 3, "totalMs": 12 },
        "previewUrl": "https://edit.amelia.example/session/amelia_a/",
        "acceptedAt": "2026-11-22T09:30:00.000Z",
        "updatedAt": "2026-11-22T09:30:01.000Z",
        "fingerprint": "00",
    })
}

#[test]
fn a_receipt_is_valid_to_its_schema_and_survives_a_round_trip() {
    let record: Receipt = serde_json::from_value(receipt()).expect("a receipt");
    assert_eq!(serde_json::to_value(record).expect("serialises"), receipt());
    assert_valid(SchemaName::Receipt, &receipt());

    for (pointer, wrong) in [
        ("/error/code", json!("find_nothing")),
        ("/status", json!("done")),
        ("/commit", json!("main")),
        ("/instructionId", json!("a b")),
        ("/acceptedAt", json!("yesterday")),
        ("/attempts", json!(-1)),
    ] {
        let mut record = receipt();
        *record.pointer_mut(pointer).expect("there") = wrong;
        assert!(
            !validator(SchemaName::Receipt).is_valid(&record),
            "{pointer} is not looked at by the schema"
        );
        assert!(
            serde_json::from_value::<Receipt>(record).is_err(),
            "{pointer} is not looked at by serde"
        );
    }
}

#[test]
fn a_session_is_valid_to_its_schema_and_survives_a_round_trip() {
    let session = Session {
        session_id: "amelia_a".parse().expect("valid"),
        client_id: "amelia".parse().expect("valid"),
        user_id: "amelia".to_owned(),
        thread_id: "local".parse().expect("valid"),
        state: State::Failed,
        site: SiteHealth::Degraded,
        phase: Some(Phase::Install),
        phase_since: Some("2026-11-22T09:30:00.000Z".parse().expect("valid")),
        generation: contract::Generation(3),
        task_arn: Some("task".to_owned()),
        container_id: Some("container".to_owned()),
        container_ip: Some("10.0.0.1".to_owned()),
        port: Some(8080),
        lease_until: Some("2026-11-22T09:30:00.000Z".parse().expect("valid")),
        isolation: Some(Isolation {
            users: true,
            boundary: Boundary::None,
            attempts: 60,
        }),
        proof_key: Some(ProofKey("00".to_owned())),
        preview_url: "https://edit.amelia.example/session/amelia_a/".to_owned(),
        draft_branch: "edit/local".to_owned(),
        queue_url: "queue".to_owned(),
        last_activity_at: Some("2026-11-22T09:30:00.000Z".parse().expect("valid")),
        awake_because: Some("a person is there".to_owned()),
        created_at: "2026-11-22T09:30:00.000Z".parse().expect("valid"),
        expires_at: Some(1_795_339_800),
        failure: Some(Failure {
            code: "x".to_owned(),
            message: "y".to_owned(),
            retryable: false,
        }),
        woken_at: Some("2026-11-22T09:30:00.000Z".parse().expect("valid")),
        wakes_ms: vec![31_000, 28_000],
        failed_at: Some("2026-11-22T09:30:00.000Z".parse().expect("valid")),
        failed_wakes: 2,
        parked: vec![contract::session::Parked {
            place: contract::session::ParkedAt::Ref("refs/edit/rescue/local/3".to_owned()),
            commit: "0123456789012345678901234567890123456789"
                .parse()
                .expect("valid"),
            commits: 1,
            files: vec!["src/pages/index.astro".to_owned()],
            at: "2026-11-22T09:30:00.000Z".parse().expect("valid"),
        }],
    };
    let record = serde_json::to_value(&session).expect("serialises");
    assert_valid(SchemaName::Session, &record);
    assert_eq!(
        serde_json::from_value::<Session>(record.clone()).expect("reads what it wrote"),
        session
    );

    for pointer in [
        "/sessionId",
        "/clientId",
        "/state",
        "/generation",
        "/createdAt",
    ] {
        let mut broken = record.clone();
        *broken.pointer_mut(pointer).expect("there") = json!("A b");
        assert!(
            !validator(SchemaName::Session).is_valid(&broken),
            "{pointer} is not looked at by the schema"
        );
        assert!(
            serde_json::from_value::<Session>(broken).is_err(),
            "{pointer} is not looked at by serde"
        );
    }
}

#[test]
fn what_the_schema_of_a_client_refuses_the_parser_refuses() {
    let valid = json!({
        "clientId": "amelia-astro",
        "domains": { "production": "a.example", "edit": "edit.a.example", "api": "api.a.example", "aliases": ["b.example"] },
        "repository": { "url": "git@github.com:amelia/site.git", "branch": "main", "deployKey": "env:DEPLOY_KEY" },
        "infrastructure": {},
        "settings": { "containerSize": "small", "idleTimeoutMinutes": 7.5, "maxConcurrentSessions": 2 },
        "status": "active",
        "site": null,
        "policy": { "maxFiles": 5, "maxFileBytes": 1 },
        "brand": { "name": "Amelia", "colours": { "accent": "#8a1c2b" } },
        "rollout": { "mode": "percent", "legacyOrigin": "https://old.example", "percent": 25 },
    });
    assert_valid(SchemaName::ClientConfig, &valid);
    assert!(ClientConfig::parse(&valid).is_ok());

    let validator = validator(SchemaName::ClientConfig);
    for (pointer, wrong) in [
        ("/clientId", json!("A")),
        ("/domains/edit", json!("https://edit.a.example")),
        ("/domains/aliases/0", json!("*.example")),
        ("/repository/url", json!("")),
        ("/repository/url", json!("-uorigin")),
        (
            "/repository/url",
            json!("https://hunter2@github.com/amelia/site.git"),
        ),
        (
            "/repository/url",
            json!("ssh://git:hunter2@github.com/amelia/site.git"),
        ),
        ("/repository/branch", json!("")),
        ("/repository/branch", json!("edit")),
        ("/repository/branch", json!("edit/local")),
        ("/repository/branch", json!("refs/heads/main")),
        ("/repository/branch", json!("a b")),
        ("/repository/branch", json!("a..b")),
        ("/repository/deployKey", json!("-----BEGIN")),
        ("/settings/containerSize", json!("huge")),
        ("/settings/idleTimeoutMinutes", json!(0)),
        ("/settings/idleTimeoutMinutes", json!(1441)),
        ("/settings/maxConcurrentSessions", json!(0)),
        ("/settings/maxConcurrentSessions", json!(101)),
        ("/status", json!("gone")),
        ("/policy/maxFiles", json!(0)),
        ("/policy/maxFiles", json!(501)),
        ("/policy/maxFileBytes", json!(0)),
        ("/brand/name", json!("")),
        ("/brand/name", json!("a".repeat(81))),
        ("/brand/colours/accent", json!("red")),
        ("/rollout/mode", json!("half")),
        ("/rollout/legacyOrigin", json!("https://old.example/")),
        ("/rollout/legacyOrigin", json!("http://old.example")),
        ("/rollout/legacyOrigin", json!("https://user@old.example")),
        ("/rollout/percent", json!(101)),
    ] {
        let mut broken = valid.clone();
        *broken.pointer_mut(pointer).expect("there") = wrong;
        assert!(
            !validator.is_valid(&broken),
            "{pointer} is not looked at by the schema"
        );
        let problems = ClientConfig::parse(&broken).expect_err(pointer);
        assert_eq!(problems.0.len(), 1, "{pointer}: {problems}");
    }
}
