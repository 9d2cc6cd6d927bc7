//! Whether the environment may sleep, and who keeps it awake. Pure.
//!
//! ```text
//!   an instruction runs ──────────────────────────────────────────────────────▶ awake, however long that takes
//!   the lifetime is over ─────────────────────────────────────────────────────▶ sleep
//!   instructions wait ────────────────────────────────────────────────────────▶ awake, as long as the lifetime
//!   what would be left behind (commits that are nowhere else) ────────────────▶ awake, as long as the lifetime
//!   who was there (a page, a touch, a hand at work, the wake itself) ─────────▶ awake, for the idle time
//!   none of it ───────────────────────────────────────────────────────────────▶ sleep
//! ```
//!
//! Work by hand is no reason for ever: whoever left it an idle time ago is gone, and it is parked like whatever else cannot be
//! pushed. The lifetime cuts short everything but the instruction that runs: what waits is the next environment's, or who sends
//! without end would keep this one for ever.
//!
//! The same facts that say sleep say it later too: what has not been renewed only grows older. So whoever has decided may
//! act on it after a while, as long as no fact is newer (`Activity::watch`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use contract::Timestamp;
use serde::Serialize;

use crate::activity::{Last, Moment, Navigation};
use crate::pipeline::PipelineView;

/// When an environment sleeps by itself. On a developer's machine there are none: it never does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How long nobody has to be there.
    pub(crate) idle_timeout: Duration,
    /// How old it gets, whoever is there.
    pub(crate) lifetime: Duration,
    /// When it was started.
    pub(crate) born: Moment,
}

/// All that the decision depends on.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The present moment.
    pub(crate) now: Moment,
    /// Since when it is there for people; none while it starts.
    pub(crate) woken: Option<Moment>,
    /// The last page that a person was given.
    pub(crate) last_navigation: Option<Navigation>,
    /// When a person was last known to use one.
    pub(crate) last_presence: Option<Moment>,
    /// Since when the instruction runs that does.
    pub(crate) running: Option<Timestamp>,
    /// Instructions that wait. Who cannot ask must not say none.
    pub(crate) queued: u64,
    /// Commits that were not seen on the remote.
    pub(crate) unpushed: usize,
    /// Files that are changed by hand and not committed.
    pub(crate) uncommitted: usize,
    /// When a hand was last seen at work on them.
    pub(crate) changed_by_hand: Option<Moment>,
}

impl Facts {
    /// What is known now.
    pub(crate) fn of(now: Moment, last: Last, pipeline: &PipelineView, queued: u64) -> Self {
        Self {
            now,
            woken: last.woken,
            last_navigation: last.navigation,
            last_presence: last.presence,
            running: pipeline.running.as_ref().map(|running| running.since),
            queued,
            unpushed: pipeline.unpushed,
            uncommitted: pipeline.uncommitted.len(),
            changed_by_hand: pipeline.changed_by_hand,
        }
    }
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays.
    Awake {
        /// The strongest reason.
        because: AwakeBecause,
        /// When it would sleep if nothing happened any more; none if something has to happen first.
        until: Option<Moment>,
    },
    /// It may sleep.
    Sleep {
        /// Why.
        why: SleepReason,
    },
}

/// What keeps it awake. `Display` is for operators, [`AwakeBecause::code`] for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AwakeBecause {
    /// An instruction is being carried out.
    InstructionRunning,
    /// Instructions wait.
    InstructionsQueued(u64),
    /// Commits are nowhere else.
    Unpushed,
    /// Somebody was at work by hand.
    Uncommitted,
    /// Somebody was given a page.
    PageVisit {
        /// Which one.
        path: Arc<str>,
        /// How long ago.
        ago: Duration,
    },
    /// Somebody used a page.
    Presence {
        /// How long ago.
        ago: Duration,
    },
    /// It has only just come up: whoever it was woken for is on the way.
    JustWoken {
        /// How long ago.
        ago: Duration,
    },
    /// It is a developer's, who stops it.
    Developer,
}

impl AwakeBecause {
    /// A word that stays the same, whatever the sentence becomes.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::InstructionRunning => "instruction_running",
            Self::InstructionsQueued(_) => "instructions_queued",
            Self::Unpushed => "unpushed",
            Self::Uncommitted => "uncommitted",
            Self::PageVisit { .. } => "page_visit",
            Self::Presence { .. } => "presence",
            Self::JustWoken { .. } => "just_woken",
            Self::Developer => "developer",
        }
    }
}

impl fmt::Display for AwakeBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstructionRunning => f.write_str("an instruction is being carried out"),
            Self::InstructionsQueued(1) => f.write_str("an instruction waits"),
            Self::InstructionsQueued(count) => write!(f, "{count} instructions wait"),
            Self::Unpushed => f.write_str("commits wait to be pushed"),
            Self::Uncommitted => f.write_str("files are changed by hand and not committed"),
            Self::PageVisit { path, ago } => write!(f, "somebody looked at {path} {}", Ago(*ago)),
            Self::Presence { ago } => write!(f, "somebody used a page {}", Ago(*ago)),
            Self::JustWoken { ago } => write!(f, "it was woken {}", Ago(*ago)),
            Self::Developer => f.write_str("it runs on a developer's machine"),
        }
    }
}

/// Why it may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SleepReason {
    /// Nobody was there, and nothing is to be done.
    Idle {
        /// For how long.
        quiet: Duration,
    },
    /// It is as old as it gets.
    LifetimeOver {
        /// How old.
        age: Duration,
    },
}

impl SleepReason {
    /// A word that stays the same, whatever the sentence becomes.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Idle { .. } => "idle",
            Self::LifetimeOver { .. } => "lifetime",
        }
    }
}

impl fmt::Display for SleepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle { quiet } => write!(f, "nobody was there for {}", Length(*quiet)),
            Self::LifetimeOver { age } => {
                write!(
                    f,
                    "it has run for {}, and its lifetime is over",
                    Length(*age)
                )
            }
        }
    }
}

/// How long ago something was.
struct Ago(Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(60) {
            f.write_str("just now")
        } else {
            write!(f, "{} ago", Length(self.0))
        }
    }
}

/// How long something was, as exactly as anybody wants to know it.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60) {
            (0, 0) => write!(f, "{seconds} s"),
            (0, minutes) => write!(f, "{minutes} min"),
            (hours, 0) => write!(f, "{hours} h"),
            (hours, minutes) => write!(f, "{hours} h {minutes} min"),
        }
    }
}

/// One thing that keeps it awake, for the record.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reason {
    /// What.
    #[serde(rename = "reason", serialize_with = "as_code")]
    pub(crate) because: AwakeBecause,
    /// Since when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// Until when, if nothing happens any more; none if something has to happen first.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_time")]
    pub(crate) until: Option<Moment>,
}

fn as_code<S: serde::Serializer>(because: &AwakeBecause, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(because.code())
}

#[expect(clippy::ref_option, reason = "serde names the shape of this function")]
fn as_time<S: serde::Serializer>(until: &Option<Moment>, to: S) -> Result<S::Ok, S::Error> {
    until.map(|until| until.at).serialize(to)
}

/// All that keeps it awake, the strongest first. Nothing, if it may sleep.
pub(crate) fn reasons(facts: &Facts, settings: Option<&Settings>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(since) = facts.running {
        reasons.push(Reason {
            because: AwakeBecause::InstructionRunning,
            since: Some(since),
            until: None,
        });
    }
    let over = settings.is_some_and(|settings| facts.now.since(settings.born) >= settings.lifetime);
    if facts.queued > 0 && !over {
        reasons.push(Reason {
            because: AwakeBecause::InstructionsQueued(facts.queued),
            since: None,
            until: None,
        });
    }
    let Some(settings) = settings else {
        for (there, because) in [
            (facts.unpushed > 0, AwakeBecause::Unpushed),
            (facts.uncommitted > 0, AwakeBecause::Uncommitted),
            (true, AwakeBecause::Developer),
        ] {
            reasons.extend(there.then_some(Reason {
                because,
                since: None,
                until: None,
            }));
        }
        return reasons;
    };
    let end = settings.born.plus(settings.lifetime);
    if over {
        return reasons;
    }
    if facts.unpushed > 0 {
        reasons.push(Reason {
            because: AwakeBecause::Unpushed,
            since: None,
            until: Some(end),
        });
    }
    let mut recent = recent(facts);
    recent.retain(|(at, _)| facts.now.since(*at) < settings.idle_timeout);
    // Who was there last keeps it awake longest.
    recent.sort_by_key(|(at, _)| std::cmp::Reverse(at.instant));
    reasons.extend(recent.into_iter().map(|(at, because)| {
        let until = at.plus(settings.idle_timeout);
        Reason {
            because,
            since: Some(at.at),
            until: Some(if until.instant < end.instant {
                until
            } else {
                end
            }),
        }
    }));
    reasons
}

/// What somebody did, and when.
fn recent(facts: &Facts) -> Vec<(Moment, AwakeBecause)> {
    let ago = |at: Moment| facts.now.since(at);
    let presence = facts
        .last_presence
        .map(|at| (at, AwakeBecause::Presence { ago: ago(at) }));
    let visit = facts.last_navigation.as_ref().map(|navigation| {
        let because = AwakeBecause::PageVisit {
            path: Arc::clone(&navigation.path),
            ago: ago(navigation.at),
        };
        (navigation.at, because)
    });
    let hand = facts
        .changed_by_hand
        .filter(|_| facts.uncommitted > 0)
        .map(|at| (at, AwakeBecause::Uncommitted));
    // Until it has come up, it is being woken.
    let woken = facts.woken.unwrap_or(facts.now);
    let woken = (woken, AwakeBecause::JustWoken { ago: ago(woken) });
    let mut recent = vec![woken];
    recent.extend(presence.into_iter().chain(visit).chain(hand));
    recent
}

/// Whether it may sleep.
pub(crate) fn verdict(facts: &Facts, settings: Option<&Settings>) -> Verdict {
    let Some(settings) = settings else {
        return Verdict::Awake {
            because: AwakeBecause::Developer,
            until: None,
        };
    };
    let reasons = reasons(facts, Some(settings));
    let all_end = reasons.iter().all(|reason| reason.until.is_some());
    let until = reasons.iter().filter_map(|reason| reason.until);
    let until = until.max_by_key(|until| until.instant).filter(|_| all_end);
    if let Some(strongest) = reasons.into_iter().next() {
        return Verdict::Awake {
            because: strongest.because,
            until,
        };
    }
    let age = facts.now.since(settings.born);
    let why = if age >= settings.lifetime {
        SleepReason::LifetimeOver { age }
    } else {
        let quiet = recent(facts)
            .into_iter()
            .map(|(at, _)| facts.now.since(at))
            .min();
        SleepReason::Idle {
            quiet: quiet.unwrap_or(age),
        }
    };
    Verdict::Sleep { why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Half an hour of idle time, in a life of eight hours.
    fn settings(born: Moment) -> Settings {
        Settings {
            idle_timeout: 30 * MINUTE,
            lifetime: 480 * MINUTE,
            born,
        }
    }

    /// Nothing has happened since it came up.
    fn quiet(born: Moment, minutes: u32) -> Facts {
        Facts {
            now: born.plus(minutes * MINUTE),
            woken: Some(born),
            last_navigation: None,
            last_presence: None,
            running: None,
            queued: 0,
            unpushed: 0,
            uncommitted: 0,
            changed_by_hand: None,
        }
    }

    /// What an operator reads, and until which minute of its life it holds.
    fn said(facts: &Facts, born: Moment) -> String {
        match verdict(facts, Some(&settings(born))) {
            Verdict::Awake { because, until } => {
                let until = until.map(|until| until.since(born).as_secs() / 60);
                format!("{}: {because}, until {until:?}", because.code())
            }
            Verdict::Sleep { why } => format!("sleep, {}: {why}", why.code()),
        }
    }

    #[test]
    fn every_reason_is_said_in_words() {
        let born = Moment::now();
        let at = |minute: u32| born.plus(minute * MINUTE);
        let mut facts = quiet(born, 3);
        facts.woken = None;
        let mut lines = vec![said(&facts, born)];
        facts = quiet(born, 29);
        lines.push(said(&facts, born));
        facts = quiet(born, 30);
        lines.push(said(&facts, born));
        facts.last_navigation = Some(Navigation {
            at: at(27),
            path: "/about/".into(),
        });
        lines.push(said(&facts, born));
        facts.last_presence = Some(at(30));
        lines.push(said(&facts, born));
        facts.now = at(59);
        facts.uncommitted = 2;
        facts.changed_by_hand = Some(at(40));
        lines.push(said(&facts, born));
        facts.now = at(100);
        lines.push(said(&facts, born));
        facts.unpushed = 1;
        lines.push(said(&facts, born));
        facts.queued = 1;
        lines.push(said(&facts, born));
        facts.queued = 3;
        lines.push(said(&facts, born));
        facts.running = Some(at(100).at);
        lines.push(said(&facts, born));
        facts.now = at(500);
        lines.push(said(&facts, born));
        (facts.running, facts.queued) = (None, 0);
        facts.last_presence = Some(at(500));
        lines.push(said(&facts, born));
        insta::assert_snapshot!(lines.join("\n"), @r"
        just_woken: it was woken just now, until Some(33)
        just_woken: it was woken 29 min ago, until Some(30)
        sleep, idle: nobody was there for 30 min
        page_visit: somebody looked at /about/ 3 min ago, until Some(57)
        presence: somebody used a page just now, until Some(60)
        uncommitted: files are changed by hand and not committed, until Some(70)
        sleep, idle: nobody was there for 1 h
        unpushed: commits wait to be pushed, until Some(480)
        instructions_queued: an instruction waits, until None
        instructions_queued: 3 instructions wait, until None
        instruction_running: an instruction is being carried out, until None
        instruction_running: an instruction is being carried out, until None
        sleep, lifetime: it has run for 8 h 20 min, and its lifetime is over
        ");
    }

    #[test]
    fn on_a_developers_machine_it_never_sleeps() {
        let born = Moment::now();
        let mut facts = quiet(born, 100_000);
        let verdict = verdict(&facts, None);
        assert_eq!(
            verdict,
            Verdict::Awake {
                because: AwakeBecause::Developer,
                until: None
            }
        );
        let words = |facts: &Facts| reasons(facts, None)[0].because.to_string();
        assert_eq!(words(&facts), "it runs on a developer's machine");
        facts.uncommitted = 1;
        assert_eq!(words(&facts), "files are changed by hand and not committed");
        facts.unpushed = 1;
        assert_eq!(words(&facts), "commits wait to be pushed");
    }

    #[test]
    fn the_record_has_codes_and_times() {
        let born = Moment {
            at: Timestamp::from_unix_ms(0),
            ..Moment::now()
        };
        let mut facts = quiet(born, 10);
        facts.last_presence = Some(born.plus(5 * MINUTE));
        facts.queued = 2;
        let record = serde_json::to_string(&reasons(&facts, Some(&settings(born))));
        insta::assert_snapshot!(record.expect("JSON"), @r#"[{"reason":"instructions_queued"},{"reason":"presence","since":"1970-01-01T00:05:00.000Z","until":"1970-01-01T00:35:00.000Z"},{"reason":"just_woken","since":"1970-01-01T00:00:00.000Z","until":"1970-01-01T00:30:00.000Z"}]"#);
    }

    prop_compose! {
        /// Anything that may have happened within a day, in minutes.
        fn anything()(
            minutes in prop::array::uniform5(0u32..1440),
            there in prop::array::uniform4(any::<bool>()),
            running in any::<bool>(),
            queued in 0u64..3,
            unpushed in 0usize..3,
            uncommitted in 0usize..3,
        ) -> (Facts, Moment) {
            let born = Moment::now();
            let at = |minute: u32| born.plus(minute * MINUTE);
            let [now, woken, navigation, presence, hand] = minutes;
            let mut facts = quiet(born, now);
            facts.woken = there[0].then(|| at(woken));
            facts.last_navigation = there[1].then(|| Navigation { at: at(navigation), path: "/".into() });
            facts.last_presence = there[2].then(|| at(presence));
            facts.changed_by_hand = there[3].then(|| at(hand));
            facts.running = running.then_some(facts.now.at);
            (facts.queued, facts.unpushed, facts.uncommitted) = (queued, unpushed, uncommitted);
            (facts, born)
        }
    }

    fn sleeps(facts: &Facts, born: Moment) -> bool {
        matches!(verdict(facts, Some(&settings(born))), Verdict::Sleep { .. })
    }

    proptest! {
        #[test]
        fn what_is_to_be_done_is_done_first((facts, born) in anything()) {
            let over = facts.now.since(born) >= settings(born).lifetime;
            let waits = facts.queued > 0 && !over;
            prop_assert!(!(sleeps(&facts, born) && (facts.running.is_some() || waits)));
        }

        #[test]
        fn nothing_unpushed_is_left_before_its_time((facts, born) in anything()) {
            let over = facts.now.since(born) >= settings(born).lifetime;
            prop_assert!(!(sleeps(&facts, born) && facts.unpushed > 0) || over);
        }

        #[test]
        fn who_may_sleep_may_sleep_later((mut facts, born) in anything(), later in 0u32..1440) {
            let now = sleeps(&facts, born);
            facts.now = facts.now.plus(later * MINUTE);
            // Until it has come up, it is woken at every moment anew.
            prop_assert!(!now || facts.woken.is_none() || sleeps(&facts, born));
        }

        #[test]
        fn whoever_is_there_keeps_it_awake_until_its_lifetime_is_over((mut facts, born) in anything(), ago in 0u32..30) {
            facts.last_presence = Some(Moment { instant: facts.now.instant.checked_sub(ago * MINUTE).unwrap_or(facts.now.instant), at: facts.now.at });
            let over = facts.now.since(born) >= settings(born).lifetime;
            prop_assert!(over || !sleeps(&facts, born));
        }

        #[test]
        fn nobody_keeps_it_awake_beyond_its_lifetime((mut facts, born) in anything()) {
            facts.running = None;
            let over = facts.now.since(born) >= settings(born).lifetime;
            prop_assert!(!over || sleeps(&facts, born));
        }

        #[test]
        fn it_sleeps_when_it_said_it_would((mut facts, born) in anything()) {
            if let Verdict::Awake { until: Some(until), .. } = verdict(&facts, Some(&settings(born))) {
                prop_assert!(until.instant > facts.now.instant);
                facts.woken = facts.woken.or(Some(facts.now));
                facts.now = until;
                prop_assert!(sleeps(&facts, born));
            }
        }
    }
}
