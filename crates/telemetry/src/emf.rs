//! Metrics, as lines that `CloudWatch` reads out of the log (its Embedded Metric Format): no program beside ours, no call.
//!
//! The one dimension is the client: each value of a dimension is a metric that somebody pays for. Whatever else is worth
//! knowing of a number (why it was awake, how the boot failed, which instruction) is a property beside it, which Logs Insights finds.

use std::time::Duration;

use contract::{ClientId, Timestamp};
use serde_json::{Value, json};

use crate::Output;

const NAMESPACE: &str = "EditEnvironments";

/// Writes metrics as lines. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Embedded {
    output: Output,
}

/// A number and what it is of.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, in capitals as `CloudWatch` has them.
    pub name: &'static str,
    /// What it is of.
    pub unit: Unit,
    /// How much.
    pub value: f64,
}

/// What a number is of.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// A count.
    Count,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "Seconds",
            Self::Milliseconds => "Milliseconds",
            Self::Count => "Count",
        }
    }
}

impl Metric {
    /// Seconds.
    pub fn seconds(name: &'static str, took: Duration) -> Self {
        Self {
            name,
            unit: Unit::Seconds,
            value: took.as_secs_f64(),
        }
    }

    /// Milliseconds.
    pub fn milliseconds(name: &'static str, took: Duration) -> Self {
        Self {
            name,
            unit: Unit::Milliseconds,
            value: took.as_secs_f64() * 1000.0,
        }
    }

    /// One more of something.
    pub fn one(name: &'static str) -> Self {
        Self::count(name, 1)
    }

    /// So many of something.
    pub fn count(name: &'static str, number: u32) -> Self {
        Self {
            name,
            unit: Unit::Count,
            value: f64::from(number),
        }
    }
}

impl Embedded {
    /// Metrics as lines of that output.
    pub fn new(output: Output) -> Self {
        Self { output }
    }

    /// Writes these numbers of a client, with properties beside them.
    pub fn write(
        &self,
        client: &ClientId,
        now: Timestamp,
        metrics: &[Metric],
        properties: &[(&str, &str)],
    ) {
        self.output.line(render(client, now, metrics, properties));
    }
}

/// The line.
fn render(
    client: &ClientId,
    now: Timestamp,
    metrics: &[Metric],
    properties: &[(&str, &str)],
) -> String {
    let declared: Vec<Value> = metrics
        .iter()
        .map(|metric| json!({ "Name": metric.name, "Unit": metric.unit.as_str() }))
        .collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now.unix_ms(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [["client"]],
                "Metrics": declared,
            }],
        },
        "client": client,
    });
    for metric in metrics {
        line[metric.name] = Value::from(metric.value);
    }
    for (name, value) in properties {
        line[*name] = Value::from(*value);
    }
    line.to_string()
}
