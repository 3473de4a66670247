//! A running broker or node, and the faults that can be done to it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, prlimit, waitid,
};

use crate::error::{Error, IoContext, Result};
use crate::logs;
use crate::owner::{self, Owned};

/// How often conditions are looked at while waiting for them.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A process of an [`Environment`](crate::Environment) or of [`Nodes`](crate::Nodes), and the handle to do faults to it.
///
/// Clones are handles to the same process. The process belongs to the environment or the nodes, not to the handle: once
/// they are dropped it is gone for good.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

/// How a process is started, again and again.
pub(crate) struct Spec {
    /// Unique within its environment, e.g. `kafka-1`.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Its private folder; logs lie in it.
    pub(crate) folder: PathBuf,
    /// Whether standard output goes to a file of its own, emptied at each start, rather than into the log.
    pub(crate) separate_output: bool,
    /// Returns when the process serves, or why it does not.
    pub(crate) ready: Ready,
}

/// Waits for a process to serve.
pub(crate) type Ready = Box<dyn Fn(&Process) -> Result<()> + Send + Sync>;

pub(crate) struct Inner {
    spec: Spec,
    log: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: Option<Owned>,
    pid: u32,
    last_exit: Option<ExitStatus>,
    retired: bool,
    /// Soft limits that this incarnation had before a fault lowered them.
    limits: Vec<(Resource, Option<u64>)>,
}

impl Process {
    /// Starts a process without waiting for it to be ready.
    pub(crate) fn start(spec: Spec) -> Result<Process> {
        let log = spec.folder.join(format!("{}.log", spec.name));
        let state = State { running: None, pid: 0, last_exit: None, retired: false, limits: Vec::new() };
        let process = Process(Arc::new(Inner { spec, log, state: Mutex::new(state) }));
        owner::remember(Arc::downgrade(&process.0));
        process.0.spawn()?;
        Ok(process)
    }

    /// The name within its environment, e.g. `kafka-1`, `redis-replica`, `sentinel-2`, `n1`.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// The number of the running process, or of the last one that ran.
    pub fn pid(&self) -> u32 {
        self.0.state().pid
    }

    /// Where it logs. The file is cut at 4 MiB; the last MiB before the cut is kept beside it as `<log>.old`.
    pub fn log_path(&self) -> &Path {
        &self.0.log
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        logs::tail(&self.0.log)
    }

    /// Whether it runs. A stopped process counts as running.
    pub fn is_running(&self) -> bool {
        self.0.state().is_running()
    }

    /// Kills it with SIGKILL and waits until it is gone. Does nothing where it does not run.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses.
    pub fn kill(&self) -> Result<()> {
        self.0.kill()
    }

    /// Stops it with SIGSTOP: it keeps its connections and does nothing. Returns when it has stopped.
    ///
    /// # Errors
    /// [`Error::ProcessState`] where it does not run.
    pub fn stop(&self) -> Result<()> {
        let mut state = self.0.state();
        let pid = self.0.signal(&mut state, Signal::STOP)?;
        let until_stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), until_stopped)
            .doing(|| format!("cannot wait for {} to stop", self.name()))?;
        Ok(())
    }

    /// Continues it with SIGCONT after [`stop`](Process::stop).
    ///
    /// # Errors
    /// [`Error::ProcessState`] where it does not run.
    pub fn cont(&self) -> Result<()> {
        self.0.signal(&mut self.0.state(), Signal::CONT).map(|_| ())
    }

    /// Asks it to leave with SIGTERM and waits; after `grace` it is killed. Returns how it ended; the status carries
    /// signal 9 where it had to be killed.
    ///
    /// # Errors
    /// [`Error::ProcessState`] where it does not run.
    pub fn terminate(&self, grace: Duration) -> Result<ExitStatus> {
        {
            let mut state = self.0.state();
            self.0.signal(&mut state, Signal::TERM)?;
            // A stopped process would never see it. One that is quick has ended by now, and needs no signal.
            let _ = self.0.signal(&mut state, Signal::CONT);
        }
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && self.is_running() {
            std::thread::sleep(POLL_INTERVAL);
        }
        self.0.kill()?;
        self.0.state().last_exit.ok_or_else(|| self.wrong_state("not running"))
    }

    /// Starts it again in the same folder and on the same ports, killing it first where it runs, and waits until it is
    /// ready. Kafka finds its log there. Redis runs without persistence, so it comes back empty; a replica or a member of a
    /// cluster finds its configuration, and what the others still hold.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::NotReady`] with the end of its log; [`Error::ProcessState`] once its environment
    /// is gone.
    pub fn restart(&self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts it again as [`restart`](Process::restart) does, without waiting for it to serve.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be started; [`Error::ProcessState`] once its environment is gone.
    pub fn launch(&self) -> Result<()> {
        self.0.kill()?;
        self.0.spawn()
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::NotReady`] with the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        (self.0.spec.ready)(self)
    }

    /// Lowers a soft limit, or gives back what the process had. The hard limit stays: the soft one can be lifted again
    /// without privileges.
    pub(crate) fn limit(&self, resource: Resource, lowered: Option<u64>) -> Result<()> {
        let mut state = self.0.state();
        let pid = state.is_running().then(|| i32::try_from(state.pid).ok().and_then(Pid::from_raw)).flatten();
        let pid = pid.ok_or_else(|| self.wrong_state("not running"))?;
        let before = state.limits.iter().position(|(known, _)| *known == resource);
        let current = match (lowered, before) {
            (Some(_), _) => lowered,
            (None, Some(place)) => state.limits[place].1,
            // Nothing was lowered.
            (None, None) => return Ok(()),
        };
        // The hard limit is the one that it inherited from this program.
        let limit = Rlimit { current, maximum: getrlimit(resource).maximum };
        let old = prlimit(Some(pid), resource, limit).doing(|| format!("cannot limit {}", self.name()))?;
        match (lowered, before) {
            (Some(_), None) => state.limits.push((resource, old.current)),
            (None, Some(place)) => {
                state.limits.swap_remove(place);
            }
            _ => {}
        }
        Ok(())
    }

    /// Kills it for good.
    pub(crate) fn retire(&self) {
        self.0.retire();
    }

    /// Where its standard output goes, if it has a file of its own.
    pub(crate) fn output_path(&self) -> PathBuf {
        self.0.output_path()
    }

    /// Repeats a check until it yields a value, the process ends, or time is up; `Err` of the check says what is missing.
    pub(crate) fn wait_until<T>(
        &self,
        limit: Duration,
        mut check: impl FnMut() -> std::result::Result<T, String>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.ensure_running()?;
            let problem = match check() {
                Ok(value) => return Ok(value),
                Err(problem) => problem,
            };
            if Instant::now() >= deadline {
                let log_tail = self.log_tail();
                return Err(Error::NotReady {
                    name: self.name().to_owned(),
                    waited: limit,
                    problem,
                    log_tail,
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn ensure_running(&self) -> Result<()> {
        let mut state = self.0.state();
        if state.is_running() {
            return Ok(());
        }
        let status = state.last_exit.map_or_else(|| "never started".to_owned(), |status| status.to_string());
        Err(Error::Exited { name: self.name().to_owned(), status, log_tail: self.log_tail() })
    }

    fn wrong_state(&self, state: &'static str) -> Error {
        Error::ProcessState { name: self.name().to_owned(), state }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("log", &self.0.log)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Reaps the process if it has ended.
    fn is_running(&mut self) -> bool {
        let Some(owned) = &mut self.running else { return false };
        match owned.child.try_wait() {
            Ok(None) => true,
            // A child that cannot be waited for has been reaped behind our back; either way it is gone.
            Ok(Some(_)) | Err(_) => {
                self.reap();
                false
            }
        }
    }

    /// Waits for the process that has ended or is about to.
    fn reap(&mut self) {
        let Some(mut owned) = self.running.take() else { return };
        self.last_exit = owned.child.wait().ok();
        if let Some(watchdog) = owned.watchdog {
            watchdog.dismiss();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> Result<()> {
        let mut state = self.state();
        if state.retired {
            return Err(Error::ProcessState {
                name: self.spec.name.clone(),
                state: "gone with its environment",
            });
        }
        let log = File::options().create(true).append(true).open(&self.log).at("cannot open", &self.log)?;
        let errors = log.try_clone().at("cannot open", &self.log)?;
        let output = if self.spec.separate_output {
            let path = self.output_path();
            // Emptied first, because what an earlier incarnation said must not pass for this one's words.
            File::create(&path).at("cannot create", &path)?;
            File::options().append(true).open(&path).at("cannot open", &path)?
        } else {
            log
        };
        let mut command = Command::new(&self.spec.program);
        command
            .args(&self.spec.args)
            .envs(self.spec.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.spec.folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let owned = owner::spawn(command).at("cannot start", &self.spec.program)?;
        state.pid = owned.child.id();
        state.limits.clear();
        state.running = Some(owned);
        Ok(())
    }

    fn output_path(&self) -> PathBuf {
        self.spec.folder.join(format!("{}.out", self.spec.name))
    }

    /// Sends a signal to the process's group. The caller holds the state, so the number cannot have been reused.
    fn signal(&self, state: &mut State, signal: Signal) -> Result<Pid> {
        let pid = state.is_running().then(|| i32::try_from(state.pid).ok().and_then(Pid::from_raw)).flatten();
        let Some(pid) = pid else {
            return Err(Error::ProcessState { name: self.spec.name.clone(), state: "not running" });
        };
        kill_process_group(pid, signal).doing(|| format!("cannot signal {}", self.spec.name))?;
        Ok(pid)
    }

    fn kill(&self) -> Result<()> {
        let mut state = self.state();
        if !state.is_running() {
            return Ok(());
        }
        self.signal(&mut state, Signal::KILL)?;
        state.reap();
        Ok(())
    }

    /// Kills the process and refuses to start it again.
    pub(crate) fn retire(&self) {
        self.state().retired = true;
        // The only way to fail is that it is gone already.
        self.kill().ok();
    }

    pub(crate) fn trim_logs(&self) {
        for path in [self.log.clone(), self.output_path()] {
            // A missing file needs no trimming; a full disk shows elsewhere.
            logs::trim(&path).ok();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.retire();
    }
}
