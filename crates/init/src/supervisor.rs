//! The loop of init: hears, reaps, asks [`Life`] what to do, and does it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::{Pid, getpid};

use crate::ending::{Ending, NotStarted};
use crate::hearing::Ears;
use crate::kernel::{self, Change, Waited};
use crate::life::{Action, Event, Life};
use crate::plan::Plan;
use crate::rest::Reach;
use crate::start::{self, Apart, Start};
use crate::terminal::Terminal;
use crate::voice::{Said, Voice};

/// Processes that are reaped before signals are listened to again: a fork bomb's end must not make init deaf.
const REAPED_AT_ONCE_MAX: usize = 1024;

/// Starts the program of `plan`, looks after it until its end, and says how it ended.
///
/// For the first thing that a process with one thread does: it blocks all signals and leaves them blocked, makes the process a
/// subreaper, goes to `/`, and takes the status of every child that the process has. The caller then ends with the ending's code.
pub fn supervise(plan: &Plan) -> Ending {
    let program = Path::new(&plan.program);
    let name = program.file_name().unwrap_or(program.as_os_str());
    let voice = Voice {
        name: plan.name,
        log: plan.log,
        program: name.to_string_lossy().into_owned(),
    };
    kernel::keep_statuses();
    match Ears::open() {
        Ok(ears) => Supervisor::new(plan, voice, ears).run(),
        Err(errno) => {
            voice.say(&Said::Broken(errno.desc()));
            Ending::NotStarted(NotStarted::NoRoom)
        }
    }
}

#[derive(Debug)]
struct Supervisor<'a> {
    plan: &'a Plan,
    voice: Voice,
    ears: Ears,
    reach: Reach,
    terminal: Option<Terminal>,
    /// Where we were started, and where every child is.
    home: Option<PathBuf>,
    /// The child, until its status is taken: so long its number is nobody else's.
    child: Option<Pid>,
    /// The group that the last child led.
    group: Option<Pid>,
}

impl<'a> Supervisor<'a> {
    fn new(plan: &'a Plan, voice: Voice, ears: Ears) -> Self {
        let (reach, handicap) = Reach::find();
        if let Some(sentence) = handicap {
            voice.say(&Said::Handicap(sentence));
        }
        Self {
            plan,
            voice,
            ears,
            reach,
            terminal: Terminal::find(),
            home: std::env::current_dir().ok(),
            child: None,
            group: None,
        }
    }

    fn run(mut self) -> Ending {
        let (mut life, actions) = Life::begin(self.plan);
        self.act(&mut life, actions);
        let mut reaped_all = true;
        loop {
            if let Some(ending) = life.ended() {
                return ending;
            }
            let now = Instant::now();
            let at_most = match life.wakes_at(now) {
                _ if !reaped_all => Some(Duration::ZERO),
                Some(at) => Some(at.saturating_duration_since(now)),
                None => None,
            };
            self.ears.wait(at_most);
            // Signals first: an end that somebody asked for is one, even if it came in the same moment.
            while let Some(signal) = self.ears.next() {
                if signal == libc::SIGCONT {
                    self.hand_over_terminal();
                }
                let actions = life.on(Event::Signal(signal), Instant::now());
                self.act(&mut life, actions);
            }
            reaped_all = self.reap(&mut life);
            let actions = life.on(Event::Time, Instant::now());
            self.act(&mut life, actions);
        }
    }

    /// Does what is to be done, and what comes of it.
    fn act(&mut self, life: &mut Life, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Start(which) => {
                    let event = self.start(which);
                    actions.extend(life.on(event, Instant::now()));
                }
                Action::Forward(signal) => self.forward(signal),
                Action::Suspend => self.suspend(),
                Action::AskTheRest => self.reach.ask(self.group),
                Action::KillTheRest => self.reach.kill(self.group),
                Action::Say(said) => self.voice.say(&said),
            }
        }
    }

    fn start(&mut self, which: Start) -> Event {
        if which.restart > 0
            && let Some(home) = &self.home
            && let Err(error) = std::env::set_current_dir(home)
        {
            let sentence = format!(
                "{} is started in / because {:?} is not there any more: {}.",
                self.voice.program,
                home.to_string_lossy(),
                error.kind()
            );
            self.voice.say(&Said::Handicap(sentence));
        }
        let apart = match self.terminal {
            Some(_) => Apart::Group,
            None => Apart::Session,
        };
        let started = start::start(self.plan, which, apart, &self.ears.blocked_before);
        // There is always a root.
        std::env::set_current_dir("/").ok();
        match started {
            Ok(child) => {
                (self.child, self.group) = (Some(child), Some(child));
                self.hand_over_terminal();
                let terminal = self.terminal.as_ref().is_some_and(Terminal::is_handed_over);
                if which.restart > 0 {
                    self.voice.say(&Said::Restarted(which.restart));
                }
                Event::Started {
                    own_session: apart == Apart::Session,
                    terminal,
                }
            }
            Err(refusal) => {
                self.voice.say(&Said::Refused(refusal.sentence));
                Event::Ended {
                    ending: Ending::NotStarted(refusal.why),
                    anything_left: false,
                }
            }
        }
    }

    /// Takes the status of every process that ended, and says whether that were all.
    fn reap(&mut self, life: &mut Life) -> bool {
        let mut ending = None;
        let mut children = true;
        let mut all = false;
        for _ in 0..REAPED_AT_ONCE_MAX {
            match kernel::wait() {
                Waited::Changed(pid, change) if Some(pid) == self.child => match change {
                    Change::Exited(code) => ending = Some(Ending::Exited(code)),
                    Change::Signalled(signal) => ending = Some(Ending::Signalled(signal)),
                    Change::Stopped(signal) => self.on_stop(signal),
                },
                Waited::Changed(..) => {}
                Waited::AllLive => {
                    all = true;
                    break;
                }
                Waited::NoneLeft => {
                    (children, all) = (false, true);
                    break;
                }
            }
            if ending.is_some() {
                self.child = None;
                self.take_back_terminal();
            }
        }
        let anything_left = || self.reach.anything_left(children, self.group);
        let event = match ending {
            Some(ending) => Event::Ended {
                ending,
                anything_left: anything_left(),
            },
            None if self.child.is_none() && !anything_left() => Event::NothingLeft,
            None => return all,
        };
        let actions = life.on(event, Instant::now());
        self.act(life, actions);
        all
    }

    /// Sends a signal to the child's group, or to the child alone if it left its group.
    fn forward(&self, signal: i32) {
        let Some(child) = self.child else { return };
        if kernel::send(-child.as_raw(), signal).is_err() {
            kernel::send(child.as_raw(), signal).ok();
        }
    }

    /// Gives the child the terminal, if there is one and it is ours to give.
    fn hand_over_terminal(&mut self) {
        let (Some(terminal), Some(child)) = (&mut self.terminal, self.child) else {
            return;
        };
        terminal.hand_over(child);
    }

    fn take_back_terminal(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.take_back();
        }
    }

    /// The child was stopped. Who started us from a terminal must see that its job is.
    fn on_stop(&mut self, signal: i32) {
        let (Some(terminal), Some(child)) = (&self.terminal, self.child) else {
            return;
        };
        match signal {
            // It asked for the terminal a moment before it had it.
            libc::SIGTTIN | libc::SIGTTOU if terminal.is_of(child) => self.forward(libc::SIGCONT),
            libc::SIGTSTP => self.suspend(),
            _ => {}
        }
    }

    /// Stops until somebody continues us. PID 1 cannot be stopped, and nobody waits for it to be.
    fn suspend(&mut self) {
        let own = getpid();
        if own == Pid::from_raw(1) {
            return;
        }
        self.take_back_terminal();
        kernel::send(own.as_raw(), libc::SIGSTOP).ok();
    }
}
