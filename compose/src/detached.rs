//! Environments that outlive the command that started them: what `compose up`, `status` and `down` share.
//!
//! A *holder*, a program of its own, owns the environment like any other owner would, so that the same rules apply: when
//! the holder ends, all ends (after a kill -9 the data folder stays until the next start sweeps it). Per state name it keeps a lock for as long as it lives and a file that says what is up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::claim::{self, Claim};
use crate::environment::Environment;
use crate::error::{Error, IoContext, Result};
use crate::process::POLL_INTERVAL;

/// How long a holder may take to end its processes when asked.
const DOWN_WITHIN: Duration = Duration::from_secs(20);

/// How long a name may be locked without saying what is up under it.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// How long those who only look at a name may keep it from being claimed.
const LOOK_WITHIN: Duration = Duration::from_millis(200);

/// What is up under a state name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The state's name.
    pub name: String,
    /// The strategy that it was brought up for.
    pub strategy: String,
    /// The process that owns everything.
    pub holder_pid: u32,
    /// The addresses, once everything serves.
    pub addresses: Option<Addresses>,
    /// The processes, once everything serves.
    pub processes: Vec<HeldProcess>,
}

/// Where the brokers are. Those that are not used are left out of the JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Kafka's `host:port[,host:port…]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,
    /// Redis's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<String>,
}

/// A process that a holder owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldProcess {
    /// Its name, e.g. `kafka-1`.
    pub name: String,
    /// Its number when everything became ready.
    pub pid: u32,
    /// Its log.
    pub log: PathBuf,
}

impl Addresses {
    /// The addresses of an environment.
    pub fn of(environment: &Environment) -> Addresses {
        Addresses {
            kafka: environment.kafka().map(str::to_owned),
            redis: environment.redis().map(str::to_owned),
        }
    }
}

/// A state name held by this program.
#[derive(Debug)]
pub struct Hold {
    state: State,
    file: PathBuf,
    _claim: Claim,
}

impl Hold {
    /// Claims a state name for this program.
    ///
    /// # Errors
    /// [`Error::State`] where the name is malformed or something is up under it.
    pub fn new(name: &str, strategy: &str) -> Result<Hold> {
        let folder = folder()?;
        check_name(name)?;
        let lock = lock_path(&folder, name);
        let claim = claim(&lock)?.ok_or_else(|| occupied(name))?;
        let state = State {
            name: name.to_owned(),
            strategy: strategy.to_owned(),
            holder_pid: std::process::id(),
            addresses: None,
            processes: Vec::new(),
        };
        let hold = Hold { state, file: state_path(&folder, name), _claim: claim };
        hold.write()?;
        Ok(hold)
    }

    /// Publishes that the environment serves.
    ///
    /// # Errors
    /// [`Error::Io`] where the state cannot be written.
    pub fn ready(&mut self, environment: &Environment) -> Result<&State> {
        self.state.addresses = Some(Addresses::of(environment));
        let held = |process: &crate::Process| HeldProcess {
            name: process.name().to_owned(),
            pid: process.pid(),
            log: process.log_path().to_owned(),
        };
        self.state.processes = environment.processes().iter().map(held).collect();
        self.write()?;
        Ok(&self.state)
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state).doing(|| "cannot write the state".to_owned())?;
        let partial = self.file.with_extension("partial");
        fs::write(&partial, text).at("cannot write", &partial)?;
        fs::rename(&partial, &self.file).at("cannot rename to", &self.file)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Where it cannot be removed it is stale, which readers recognize by the free lock.
        fs::remove_file(&self.file).ok();
    }
}

/// Refuses early what [`Hold::new`] would refuse.
///
/// # Errors
/// [`Error::State`] where the name is malformed or something is up under it.
pub fn ensure_free(name: &str) -> Result<()> {
    match find(name)? {
        Some(_) => Err(occupied(name)),
        None => Ok(()),
    }
}

/// What is up under a name, if anything is. What a dead holder left is removed.
///
/// # Errors
/// [`Error::State`] where the name is malformed; [`Error::Io`] where the state cannot be read.
pub fn find(name: &str) -> Result<Option<State>> {
    check_name(name)?;
    find_in(&folder()?, name)
}

/// Everything that is up, by name.
///
/// # Errors
/// [`Error::Io`] where the state folder cannot be read.
pub fn list() -> Result<Vec<State>> {
    let folder = folder()?;
    let entries = fs::read_dir(&folder).at("cannot read", &folder)?;
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".json").map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.iter().filter_map(|name| find_in(&folder, name).transpose()).collect()
}

/// Ends what is up under a name and waits until it is gone.
///
/// # Errors
/// [`Error::State`] where nothing is up under that name.
pub fn down(name: &str) -> Result<State> {
    let state = find(name)?.ok_or_else(|| Error::State(format!("nothing is up under the name `{name}`")))?;
    let folder = folder()?;
    // The holder keeps its lock while it lives, so the number is still its own.
    signal(&state, Signal::TERM)?;
    let deadline = Instant::now() + DOWN_WITHIN;
    while find_in(&folder, name)?.is_some() {
        if Instant::now() >= deadline {
            // Everything that it owns dies with it.
            signal(&state, Signal::KILL)?;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(state)
}

fn find_in(folder: &Path, name: &str) -> Result<Option<State>> {
    let (file, lock) = (state_path(folder, name), lock_path(folder, name));
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        if !lock.exists() && !file.exists() {
            return Ok(None);
        }
        if !claim::is_held(&lock).at("cannot look at", &lock)? {
            // What a dead holder left. Claimed before it is removed: a new holder may be writing at this moment.
            if let Some(_claim) = Claim::try_new(&lock).at("cannot lock", &lock)? {
                fs::remove_file(&file).ok();
                return Ok(None);
            }
        }
        match fs::read(&file) {
            Ok(text) => {
                let state =
                    serde_json::from_slice(&text).doing(|| format!("cannot read {}", file.display()))?;
                return Ok(Some(state));
            }
            // Its holder is just coming or going.
            Err(_) if Instant::now() < deadline => std::thread::sleep(POLL_INTERVAL),
            Err(source) => return Err(source).at("cannot read", &file),
        }
    }
}

/// Claims a name; `None` where it stays claimed. Whoever looks whether it is free holds it for a moment.
fn claim(lock: &Path) -> Result<Option<Claim>> {
    let deadline = Instant::now() + LOOK_WITHIN;
    loop {
        let claim = Claim::try_new(lock).at("cannot lock", lock)?;
        if claim.is_some() || Instant::now() >= deadline {
            return Ok(claim);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn signal(state: &State, signal: Signal) -> Result<()> {
    let pid = i32::try_from(state.holder_pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::State(format!("the state of `{}` names no process", state.name)))?;
    match kill_process(pid, signal) {
        // It has just ended by itself.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).doing(|| format!("cannot signal process {}", state.holder_pid)),
    }
}

fn occupied(name: &str) -> Error {
    Error::State(format!(
        "something is up under the name `{name}` already; see compose status, end it with compose down"
    ))
}

fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::State(format!("`{name}` is no name for a state: 1 to 64 letters, digits, `-` and `_`")))
}

/// `$XDG_RUNTIME_DIR/manifold`, else a folder in the cache.
fn folder() -> Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let folder = match runtime {
        Some(runtime) => PathBuf::from(runtime).join("manifold"),
        None => cache::root()?.join("state"),
    };
    fs::create_dir_all(&folder).at("cannot create", &folder)?;
    Ok(folder)
}

fn state_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

fn lock_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_used_are_left_out() {
        let addresses = Addresses { kafka: None, redis: Some("redis://127.0.0.1:1".to_owned()) };
        assert_eq!(serde_json::to_string(&addresses).unwrap(), r#"{"redis":"redis://127.0.0.1:1"}"#);
        assert_eq!(serde_json::to_string(&Addresses::default()).unwrap(), "{}");
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        assert!(check_name("default").is_ok());
        for name in ["", "../x", "a b", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn those_who_look_do_not_keep_a_name_from_being_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock_path(folder.path(), "name");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        // Up without a file yet, or coming or going: not this test's matter.
                        drop(claim::is_held(&lock));
                    }
                });
            }
            let claimed = (0..200).all(|_| claim(&lock).unwrap().is_some());
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(claimed, "taken by somebody who only looked");
        });
    }

    #[test]
    fn what_a_dead_holder_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(state_path(folder.path(), "gone"), "{}").unwrap();
        assert_eq!(find_in(folder.path(), "gone").unwrap(), None);
        assert!(!state_path(folder.path(), "gone").exists());
    }
}
