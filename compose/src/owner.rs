//! The one thread that starts every child process of this program, and the list of what it started.
//!
//! The thread lives until the program ends, because the kernel ties a child's life to the *thread* that forked it. It
//! also keeps the logs bounded.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::parent_death::{self, Watchdog};
use crate::process::Inner;

/// How often logs are looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(2);

/// Processes that may be alive.
static PROCESSES: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// A started child with what ties it to us.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) child: Child,
    pub(crate) watchdog: Option<Watchdog>,
}

struct Job {
    command: Command,
    reply: Sender<io::Result<Owned>>,
}

/// Starts a command in a process group of its own; it will not outlive this program, however that ends.
pub(crate) fn spawn(command: Command) -> io::Result<Owned> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes is gone");
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let run = move || loop {
            match jobs.recv_timeout(HOUSEKEEPING_INTERVAL) {
                Ok(job) => drop(job.reply.send(spawn_here(job.command))),
                Err(RecvTimeoutError::Timeout) => trim_logs(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        // Without the thread the channel is closed, and every spawn reports that.
        drop(std::thread::Builder::new().name("compose-owner".to_owned()).spawn(run));
        sender
    });
    let (reply, answer) = mpsc::channel();
    spawner.send(Job { command, reply }).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn spawn_here(mut command: Command) -> io::Result<Owned> {
    command.process_group(0);
    parent_death::bind(&mut command);
    let mut child = command.spawn()?;
    match Watchdog::where_needed(child.id()) {
        Ok(watchdog) => Ok(Owned { child, watchdog }),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// Remembers a process for housekeeping and [`kill_all`].
pub(crate) fn remember(process: Weak<Inner>) {
    let mut processes = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    processes.retain(|known| known.strong_count() > 0);
    processes.push(process);
}

fn trim_logs() {
    for process in remembered() {
        if let Some(process) = process.upgrade() {
            process.trim_logs();
        }
    }
}

fn remembered() -> Vec<Weak<Inner>> {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Kills every process that this program has started through this crate and removes their data.
///
/// For the way out of a program that was asked to stop (Ctrl-C): call it, then exit. Whatever was waiting for one of
/// those processes fails, and none of them can be started again. An environment that another thread starts meanwhile is not
/// waited for: its processes die with the program, and its folder is removed by the next start.
pub fn kill_all() {
    for process in remembered() {
        if let Some(process) = process.upgrade() {
            process.retire();
        }
    }
    crate::run_dir::remove_all();
}
