//! The function: what is built before the first event, because then nobody waits for it.

use std::time::Duration;

use telemetry::{Embedded, Output};

use crate::assembly::Assembly;
use crate::failure::{Exit, Failure};
use crate::lambda::{self, Front};
use crate::serve::cloud;
use crate::settings::Settings;

/// How long connections may take that are made beforehand. Whoever comes then makes them anew.
const WARM_TIME_MAX: Duration = Duration::from_secs(2);

/// Serves the events of a Lambda until AWS ends the process.
pub async fn serve(settings: Settings, output: Output) -> Result<Exit, Failure> {
    // Nothing is held back: a Lambda is paid for while it waits, and one that waits serves nobody else.
    let (assembly, _) = cloud(&settings, Duration::ZERO).await;
    warm(&assembly, &settings).await;
    let front = Front {
        rooms: assembly,
        forwards: !settings.gateway,
        embedded: Some(Embedded::new(output)),
    };
    lambda::serve(front).await.map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("the runtime of the Lambda has ended: {error}"),
            "",
        )
    })?;
    Ok(Exit::Success)
}

/// Makes the connections that the first visitor needs: names, keys and TLS take longer than everything else.
async fn warm(assembly: &Assembly, settings: &Settings) {
    let probe = format!("edit.warm-up.{}", settings.policy.edit_domain);
    let warmed = tokio::time::timeout(WARM_TIME_MAX, assembly.router.warm(&probe)).await;
    if warmed.is_err() {
        tracing::warn!("the connections to the records could not be made beforehand");
    }
}
