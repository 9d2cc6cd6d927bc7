//! The site's output: always drained, never kept whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Bytes kept of one line. Longer ones are data, not messages.
pub(super) const LINE_MAX_BYTES: usize = 4096;
/// Lines kept for whoever asks what happened.
const KEPT_LINES: usize = 200;
/// Lines logged in one [`WINDOW`]; a site in trouble can print thousands.
const LINES_PER_WINDOW: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);

/// The last lines that the site printed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputLog {
    kept: Arc<Mutex<VecDeque<String>>>,
}

impl OutputLog {
    /// Reads `output` to its end.
    pub(crate) async fn drain(&self, output: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(output);
        let mut limiter = Limiter::default();
        while let Some(line) = bounded_line(&mut reader, LINE_MAX_BYTES).await {
            self.take(&line, &mut limiter, Instant::now());
        }
    }

    /// The newest `count` lines, oldest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .skip(kept.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    fn take(&self, line: &str, limiter: &mut Limiter, now: Instant) {
        let line = plain(line);
        if line.trim().is_empty() {
            return;
        }
        match limiter.judge(&line, now) {
            Judgement::Log { repeated, dropped } => {
                if repeated > 0 {
                    tracing::debug!(target: "site", repeated, "(the line before, again)");
                }
                if dropped > 0 {
                    tracing::warn!(target: "site", dropped, "the site prints too much; lines were dropped");
                }
                tracing::debug!(target: "site", "{line}");
            }
            Judgement::Repeated | Judgement::Dropped => return,
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

/// Reads a line of at most `max_bytes`; the rest of a longer one is read and forgotten. Not cancel safe.
pub(crate) async fn bounded_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    max_bytes: usize,
) -> Option<String> {
    let mut line = Vec::new();
    let limit = u64::try_from(max_bytes).expect("small");
    let read = (&mut *reader)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await
        .ok()?;
    if read == 0 {
        return None;
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read == max_bytes {
        loop {
            let buffered = reader.fill_buf().await.ok()?;
            let (used, done) = match buffered.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffered.len(), buffered.is_empty()),
            };
            reader.consume(used);
            if done {
                break;
            }
        }
    }
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// Whether a line is worth logging. Pure.
#[derive(Debug, Default)]
struct Limiter {
    last: String,
    repeated: u32,
    window: Option<(Instant, u32)>,
    dropped: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Log { repeated: u32, dropped: u32 },
    Repeated,
    Dropped,
}

impl Limiter {
    fn judge(&mut self, line: &str, now: Instant) -> Judgement {
        if line == self.last {
            self.repeated += 1;
            return Judgement::Repeated;
        }
        let count = match self.window {
            Some((start, count)) if now.duration_since(start) < WINDOW => count,
            _ => {
                self.window = Some((now, 0));
                0
            }
        };
        if count >= LINES_PER_WINDOW {
            self.dropped += 1;
            return Judgement::Dropped;
        }
        if let Some((_, count)) = &mut self.window {
            *count += 1;
        }
        line.clone_into(&mut self.last);
        Judgement::Log {
            repeated: std::mem::take(&mut self.repeated),
            dropped: std::mem::take(&mut self.dropped),
        }
    }
}

/// The line without colours and other control sequences.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            // A control sequence ends with its first letter.
            for c in characters.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if !c.is_control() || c == '\t' {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_drained_and_only_its_end_is_kept() {
        let log = OutputLog::default();
        let mut flood: Vec<u8> = vec![b'x'; 100_000];
        flood.push(b'\n');
        for number in 0..50 {
            flood.extend(format!("\u{1b}[31mline {number}\u{1b}[0m\nsame\nsame\n").bytes());
        }
        log.drain(flood.as_slice()).await;
        assert_eq!(log.newest(2), ["line 49", "same"]);
        assert_eq!(log.newest(1000)[0].len(), LINE_MAX_BYTES);
    }

    #[test]
    fn more_than_a_windows_worth_is_counted_not_logged() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        let logged = (0..500)
            .filter(|n| matches!(limiter.judge(&n.to_string(), now), Judgement::Log { .. }))
            .count();
        assert_eq!(logged, 100);
        assert_eq!(
            limiter.judge("later", now + WINDOW),
            Judgement::Log {
                repeated: 0,
                dropped: 400
            }
        );
    }
}
