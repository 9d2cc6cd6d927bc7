//! What the agent counts and measures.
//!
//! Nothing of an instruction but its id is in a line.

use std::time::Duration;

use contract::receipt::Timings;
use contract::{ClientId, Receipt, Status, Timestamp};
use telemetry::{Embedded, Metric, Output};

use crate::events::PhaseName;

/// Counts and measures for one client. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    client: ClientId,
    embedded: Embedded,
}

impl Metrics {
    /// Metrics of this client, as lines of that output.
    pub(crate) fn new(client: ClientId, output: Output) -> Self {
        Self {
            client,
            embedded: Embedded::new(output),
        }
    }

    /// A phase of the boot took so long.
    pub(crate) fn boot_phase(&self, phase: PhaseName, took: Duration) {
        self.write(&[Metric::seconds(phase_metric(phase), took)], &[]);
    }

    /// The whole boot took so long: from the start of the process to the first answer of the site.
    pub(crate) fn booted(&self, took: Duration) {
        self.write(&[Metric::seconds("BootSeconds", took)], &[]);
    }

    /// The boot failed.
    pub(crate) fn boot_failed(&self, code: &str) {
        self.write(&[Metric::one("BootFailed")], &[("code", code)]);
    }

    /// An instruction has its receipt. One that is not final says nothing.
    pub(crate) fn receipt(&self, receipt: &Receipt) {
        let Some(outcome) = outcome(receipt.status) else {
            return;
        };
        let mut metrics = vec![Metric::one(outcome)];
        metrics.extend(stages(&receipt.timings));
        let mut properties = vec![
            ("instructionId", receipt.instruction_id.as_str()),
            ("sessionId", receipt.session_id.redacted()),
            ("status", receipt.status.as_str()),
        ];
        if let Some(error) = &receipt.error {
            properties.push(("code", error.code.as_str()));
        }
        self.write(&metrics, &properties);
    }

    /// An instruction that was begun had waited so long.
    pub(crate) fn queue_age(&self, age: Duration) {
        self.write(&[Metric::seconds("QueueAgeSeconds", age)], &[]);
    }

    /// It was awake so long, for this reason (`AwakeBecause::code`).
    pub(crate) fn awake(&self, reason: &str, lasted: Duration) {
        self.write(
            &[Metric::seconds("AwakeSeconds", lasted)],
            &[("reason", reason)],
        );
    }

    /// It went to sleep.
    pub(crate) fn slept(&self) {
        self.write(&[Metric::one("Slept")], &[]);
    }

    fn write(&self, metrics: &[Metric], properties: &[(&str, &str)]) {
        self.embedded
            .write(&self.client, Timestamp::now(), metrics, properties);
    }
}

fn phase_metric(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Config => "BootConfigSeconds",
        PhaseName::Claim => "BootClaimSeconds",
        PhaseName::Clone => "BootCloneSeconds",
        PhaseName::Install => "BootInstallSeconds",
        PhaseName::Serve => "BootServeSeconds",
    }
}

/// What is counted of a final status.
fn outcome(status: Status) -> Option<&'static str> {
    match status {
        Status::Accepted | Status::Running | Status::Applied => None,
        Status::Pushed => Some("InstructionsPushed"),
        Status::Published => Some("InstructionsPublished"),
        Status::Rejected => Some("InstructionsRejected"),
        Status::Failed => Some("InstructionsFailed"),
        Status::Cancelled => Some("InstructionsCancelled"),
        Status::Interrupted => Some("InstructionsInterrupted"),
    }
}

/// How long each stage took that there was.
fn stages(timings: &Timings) -> impl Iterator<Item = Metric> + use<> {
    let stages = [
        ("QueuedSeconds", timings.queued_ms),
        ("ApplySeconds", timings.apply_ms),
        ("VerifySeconds", timings.verify_ms),
        ("CommitSeconds", timings.commit_ms),
        ("PushSeconds", timings.push_ms),
        ("TotalSeconds", timings.total_ms),
    ];
    stages
        .into_iter()
        .filter_map(|(name, ms)| Some(Metric::seconds(name, Duration::from_millis(ms?))))
}

#[cfg(test)]
mod tests {
    use contract::receipt::ReceiptError;
    use contract::{ErrorCode, PageProblem, PageResult, Problem};

    use serde_json::Value;
    use telemetry::kept::Kept;

    use super::*;

    /// What is written, with the time of each line taken out.
    fn written(measure: impl FnOnce(&Metrics)) -> String {
        let kept = Kept::default();
        let (output, writing) = Output::start(kept.clone(), |lines| lines.to_string());
        measure(&Metrics::new("amelia".parse().expect("an id"), output));
        assert!(writing.finish(Duration::from_secs(10)));
        let lines: Vec<String> = kept
            .text()
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).expect("JSON");
                let at = std::mem::take(&mut line["_aws"]["Timestamp"]);
                assert!(at.as_i64().is_some_and(|at| at > 1_600_000_000_000), "{at}");
                line.to_string()
            })
            .collect();
        lines.join("\n")
    }

    fn receipt(status: Status) -> Receipt {
        const WRITTEN: &str = "what a client wrote";
        let problem = PageProblem {
            message: WRITTEN.to_owned(),
            file: Some(WRITTEN.to_owned()),
            line: None,
            frame: Some(WRITTEN.to_owned()),
        };
        Receipt {
            session_id: "amelia_h7777777777777777777777777".parse().expect("an id"),
            instruction_id: "m-1".parse().expect("an id"),
            client_id: "amelia".parse().expect("an id"),
            status,
            attempts: 1,
            commit: None,
            branch: WRITTEN.to_owned(),
            files_changed: vec![WRITTEN.to_owned()],
            summary: WRITTEN.to_owned(),
            pages: vec![PageResult {
                path: WRITTEN.to_owned(),
                status: 500,
                problem: Some(problem.clone()),
            }],
            verdict: None,
            error: (!status.landed()).then(|| ReceiptError {
                code: ErrorCode::PageBroken,
                message: WRITTEN.to_owned(),
                hint: WRITTEN.to_owned(),
                details: vec![Problem {
                    path: WRITTEN.to_owned(),
                    message: WRITTEN.to_owned(),
                }],
                problem: Some(Box::new(problem)),
                conflicts: Vec::new(),
            }),
            timings: Timings {
                queued_ms: Some(40),
                apply_ms: Some(12),
                verify_ms: Some(250),
                commit_ms: None,
                push_ms: None,
                total_ms: Some(1300),
            },
            preview_url: WRITTEN.to_owned(),
            accepted_at: Timestamp::from_unix_ms(0),
            updated_at: Timestamp::from_unix_ms(0),
            fingerprint: None,
        }
    }

    #[test]
    fn the_lines_are_these() {
        let lines = written(|metrics| {
            metrics.boot_phase(PhaseName::Install, Duration::from_millis(4200));
            metrics.booted(Duration::from_secs(9));
            metrics.boot_failed("clone_failed");
            metrics.queue_age(Duration::from_millis(1500));
            metrics.awake("presence", Duration::from_secs(60));
            metrics.slept();
        });
        insta::assert_snapshot!(lines, @r#"
        {"BootInstallSeconds":4.2,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"BootInstallSeconds","Unit":"Seconds"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia"}
        {"BootSeconds":9.0,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"BootSeconds","Unit":"Seconds"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia"}
        {"BootFailed":1.0,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"BootFailed","Unit":"Count"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia","code":"clone_failed"}
        {"QueueAgeSeconds":1.5,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"QueueAgeSeconds","Unit":"Seconds"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia"}
        {"AwakeSeconds":60.0,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"AwakeSeconds","Unit":"Seconds"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia","reason":"presence"}
        {"Slept":1.0,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"Slept","Unit":"Count"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia"}
        "#);
    }

    #[test]
    fn a_receipt_is_counted_and_measured_and_not_quoted() {
        let lines = written(|metrics| {
            metrics.receipt(&receipt(Status::Pushed));
            metrics.receipt(&receipt(Status::Failed));
            for passing in [Status::Accepted, Status::Running, Status::Applied] {
                metrics.receipt(&receipt(passing));
            }
        });
        insta::assert_snapshot!(lines, @r#"
        {"ApplySeconds":0.012,"InstructionsPushed":1.0,"QueuedSeconds":0.04,"TotalSeconds":1.3,"VerifySeconds":0.25,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"InstructionsPushed","Unit":"Count"},{"Name":"QueuedSeconds","Unit":"Seconds"},{"Name":"ApplySeconds","Unit":"Seconds"},{"Name":"VerifySeconds","Unit":"Seconds"},{"Name":"TotalSeconds","Unit":"Seconds"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia","instructionId":"m-1","sessionId":"h7777777","status":"pushed"}
        {"ApplySeconds":0.012,"InstructionsFailed":1.0,"QueuedSeconds":0.04,"TotalSeconds":1.3,"VerifySeconds":0.25,"_aws":{"CloudWatchMetrics":[{"Dimensions":[["client"]],"Metrics":[{"Name":"InstructionsFailed","Unit":"Count"},{"Name":"QueuedSeconds","Unit":"Seconds"},{"Name":"ApplySeconds","Unit":"Seconds"},{"Name":"VerifySeconds","Unit":"Seconds"},{"Name":"TotalSeconds","Unit":"Seconds"}],"Namespace":"EditEnvironments"}],"Timestamp":null},"client":"amelia","code":"page_broken","instructionId":"m-1","sessionId":"h7777777","status":"failed"}
        "#);
        assert!(!lines.contains("wrote"), "{lines}");
        assert!(
            !lines.contains("h77777777"),
            "more of the session's id than its log form: {lines}"
        );
    }

    #[test]
    fn every_outcome_has_a_count_of_its_own() {
        let counted: std::collections::BTreeSet<_> = [
            Status::Pushed,
            Status::Published,
            Status::Rejected,
            Status::Failed,
            Status::Cancelled,
            Status::Interrupted,
        ]
        .into_iter()
        .map(|status| outcome(status).expect("it is final"))
        .collect();
        assert_eq!(counted.len(), 6);
    }
}
