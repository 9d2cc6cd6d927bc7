//! The few pages that the door shows itself.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::Stage;
use crate::events::PhaseName;
use crate::site::{SiteState, SiteView};
use crate::words::{self, Waiting};

/// A short answer in words.
pub(super) fn plain(status: StatusCode, words: &str) -> impl IntoResponse + use<> {
    (
        status,
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        format!("{words}\n"),
    )
}

/// What a visitor is told while the site does not answer.
///
/// What the site's own tools say of a problem is for developers, and in no page that an owner gets.
pub(super) fn waiting(
    stage: &Stage,
    site: Option<&SiteView>,
    wants_page: bool,
    developer: bool,
) -> Response {
    let (headline, words) = words::waiting(waits_for(stage, site));
    let problem = site.and_then(|view| view.problem.as_ref());
    let details = problem.filter(|_| developer).map(|problem| {
        let place = match (&problem.file, problem.line) {
            (Some(file), Some(line)) => format!("{file}:{line}\n"),
            (Some(file), None) => format!("{file}\n"),
            _ => String::new(),
        };
        let frame = problem
            .frame
            .as_deref()
            .or(problem.hint.as_deref())
            .unwrap_or_default();
        format!("{place}{}\n{frame}", problem.message)
    });
    let body = if wants_page {
        html(headline, words, details.as_deref())
    } else {
        format!("{headline}. {words}\n")
    };
    let kind = if wants_page {
        "text/html; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::RETRY_AFTER, "2"),
        (header::HeaderName::from_static("x-robots-tag"), "noindex"),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}

/// What is waited for.
fn waits_for(stage: &Stage, site: Option<&SiteView>) -> Waiting {
    match (stage, site.map(|view| view.state)) {
        (Stage::Draining, _) => Waiting::Closing,
        (Stage::Starting { phase }, _) => match phase {
            PhaseName::Config | PhaseName::Claim => Waiting::Preparing,
            PhaseName::Clone => Waiting::Fetching,
            PhaseName::Install => Waiting::Installing,
            PhaseName::Serve => Waiting::Opening,
        },
        (Stage::Serving { .. }, Some(SiteState::Broken | SiteState::CrashLoop)) => Waiting::Broken,
        (Stage::Serving { .. }, Some(SiteState::Installing)) => Waiting::Reinstalling,
        (Stage::Serving { .. }, _) => Waiting::Opening,
    }
}

fn html(headline: &str, words: &str, details: Option<&str>) -> String {
    let details = details
        .map(|text| {
            let (label, text) = (words::WAITING_DETAILS, escape(text));
            format!("<details><summary>{label}</summary><pre>{text}</pre></details>")
        })
        .unwrap_or_default();
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">
<title>{headline}</title>
<noscript><meta http-equiv="refresh" content="3"></noscript>
<style>
:root{{color-scheme:light dark}}
body{{margin:0;min-height:100vh;display:grid;place-items:center;font:1.05rem/1.6 system-ui,sans-serif;background:Canvas;color:CanvasText}}
main{{max-width:42rem;padding:2rem;text-align:center}}
h1{{font-size:1.5rem;font-weight:600;margin:0 0 .5rem}}
summary{{cursor:pointer}}
pre{{text-align:left;overflow:auto;max-height:50vh;padding:1rem;border:1px solid;border-radius:.5rem;font-size:.85rem;opacity:.85}}
</style></head>
<body><main><h1 role="status">{headline}</h1><p id="words">{words}</p>{details}</main>
<script>
(async () => {{
  for (;;) {{
    await new Promise((next) => setTimeout(next, 700));
    try {{
      const status = await (await fetch('/_edit/status', {{ cache: 'no-store' }})).json();
      if (status.site?.state === 'serving' || JSON.stringify(status.site) + status.phase !== (window.seen ??= JSON.stringify(status.site) + status.phase)) {{ location.reload(); return; }}
    }} catch {{ /* The agent is restarting; it is asked again. */ }}
  }}
}})();
</script></body></html>
"#
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::site::SiteProblem;

    async fn shown(developer: bool, wants_page: bool) -> String {
        let stage = Stage::Starting {
            phase: PhaseName::Serve,
        };
        let view = SiteView {
            state: SiteState::Starting,
            address: None,
            has_served: false,
            addresses: crate::site::Addresses::default(),
            problem: Some(SiteProblem {
                message: "Unexpected token <".to_owned(),
                file: Some("astro.config.mjs".to_owned()),
                line: Some(3),
                frame: Some("  3 | export".to_owned()),
                ..SiteProblem::default()
            }),
        };
        let answer = waiting(&stage, Some(&view), wants_page, developer);
        let body = answer.into_body().collect().await.expect("a body");
        String::from_utf8(body.to_bytes().to_vec()).expect("text")
    }

    #[tokio::test]
    async fn what_the_tools_say_is_for_developers_only() {
        let page = shown(true, true).await;
        let details = "<details><summary>For developers</summary><pre>astro.config.mjs:3\nUnexpected token &lt;\n  3 | export</pre></details>";
        assert!(page.contains(details), "{page}");
        for (developer, wants_page) in [(false, true), (false, false), (true, false)] {
            let said = shown(developer, wants_page).await;
            for theirs in ["Unexpected", "astro.config", "export", "<details>"] {
                assert!(!said.contains(theirs), "{said}");
            }
        }
    }
}
