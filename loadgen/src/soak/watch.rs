//! Looks at processes while a soak runs: memory and descriptors, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use manifold_compose::Process;
use serde::{Deserialize, Serialize};

use super::flat::{self, Look, Thirds};
use crate::probe::{Account, account};

/// How long a node may take to give its account; one that is frozen gives none.
const ACCOUNT_WITHIN: Duration = Duration::from_millis(500);
/// How often descriptors that settle are looked at.
const SETTLE_TURN: Duration = Duration::from_millis(100);

/// One incarnation of a process: from a start to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// The process, e.g. `n2` or `kafka-1`.
    pub name: String,
    /// Its number.
    pub pid: u32,
    /// What was seen of it.
    pub looks: Vec<Look>,
    /// Its memory, if it lived long enough to be judged.
    pub memory: Option<Thirds>,
    /// Its descriptors, likewise.
    pub files: Option<Thirds>,
    /// Its descriptors without clients, before the load and after it, if it lived through the whole of it.
    pub rest: Option<Rest>,
    /// What it said last of those that came back to it, and of what was lost on the way to it.
    #[serde(default)]
    pub account: Option<Account>,
}

/// Open descriptors of a process that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Before the load.
    pub before: u64,
    /// After it.
    pub after: u64,
}

/// All lives of the processes around a soak.
#[derive(Debug)]
pub(super) struct Watch {
    began: Instant,
    every: Duration,
    due: Instant,
    lives: Vec<Life>,
}

impl Watch {
    /// Looks every so often, from now on.
    pub(super) fn new(every: Duration) -> Self {
        let began = Instant::now();
        Self { began, every, due: began, lives: Vec::new() }
    }

    /// The load has not begun: what there is, is at rest.
    pub(super) fn before(&mut self, processes: &[Process]) {
        self.look(processes.iter().map(|process| (process.clone(), None)));
        for life in &mut self.lives {
            life.rest = life.looks.last().map(|look| Rest { before: look.files, after: 0 });
        }
    }

    /// The load is over and its clients are gone: within `patience` descriptors come down to what they were, or they do not.
    pub(super) fn after(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for life in &mut self.lives {
            let Some(before) = life.rest.take().map(|rest| rest.before) else { continue };
            while let Some(after) = look(life.pid, 0.0).map(|look| look.files) {
                life.rest = Some(Rest { before, after });
                if after <= before + flat::REST_SLACK || Instant::now() >= deadline {
                    break;
                }
                std::thread::sleep(SETTLE_TURN);
            }
        }
    }

    /// Looks, if it is time to; asks those with an HTTP address for their account.
    pub(super) fn look(&mut self, processes: impl IntoIterator<Item = (Process, Option<String>)>) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + self.every;
        let at_s = (now - self.began).as_secs_f64();
        for (process, base) in processes.into_iter().filter(|(process, _)| process.is_running()) {
            let pid = process.pid();
            self.note(process.name(), pid, at_s);
            self.ask(pid, base.as_deref());
        }
        self.note("loadgen", std::process::id(), at_s);
    }

    /// The last word of those that live.
    pub(super) fn ask_all(&mut self, nodes: impl IntoIterator<Item = (Process, Option<String>)>) {
        for (process, base) in nodes {
            self.ask(process.pid(), base.as_deref());
        }
    }

    fn ask(&mut self, pid: u32, base: Option<&str>) {
        let Some(said) = base.and_then(|base| account(base, ACCOUNT_WITHIN)) else { return };
        if let Some(life) = self.lives.iter_mut().find(|life| life.pid == pid) {
            life.account = Some(said);
        }
    }

    fn note(&mut self, name: &str, pid: u32, at_s: f64) {
        // Gone between the question and the look.
        let Some(look) = look(pid, at_s) else { return };
        match self.lives.iter_mut().find(|life| life.pid == pid && life.name == name) {
            Some(life) => life.looks.push(look),
            None => {
                let looks = vec![look];
                self.lives.push(Life {
                    name: name.to_owned(),
                    pid,
                    looks,
                    memory: None,
                    files: None,
                    rest: None,
                    account: None,
                });
            }
        }
    }

    /// All lives, judged against a soak of that length.
    pub(super) fn finish(mut self, soak_s: f64) -> Vec<Life> {
        for life in &mut self.lives {
            life.memory = flat::memory(&life.looks, soak_s);
            life.files = flat::files(&life.looks, soak_s);
        }
        self.lives.sort_by(|one, other| one.name.cmp(&other.name));
        self.lives
    }
}

/// `None` when the process is gone.
fn look(pid: u32, at_s: f64) -> Option<Look> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let rss_kib: u64 = rss.trim().split(' ').next()?.parse().ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Look { at_s, rss_bytes: rss_kib * 1024, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_itself_and_nobody_who_is_gone() {
        let mut watch = Watch::new(Duration::from_secs(3_600));
        watch.before(&[]);
        watch.look([]);
        watch.after(Duration::ZERO);
        assert!(look(u32::MAX, 0.0).is_none());
        let lives = watch.finish(1.0);
        assert_eq!(lives.len(), 1);
        assert_eq!((lives[0].name.as_str(), lives[0].looks.len()), ("loadgen", 1));
        assert!(lives[0].looks[0].rss_bytes > 1 << 20 && lives[0].looks[0].files > 2);
        assert!(lives[0].memory.is_none() && lives[0].rest.is_some_and(|rest| rest.before > 2));
    }
}
