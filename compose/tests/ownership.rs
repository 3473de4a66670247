//! Nothing outlives its owner, however the owner ends.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use manifold_compose::{Environment, Process, Request};

use support::{eventually, is_gone};

/// Set for the copy of this test program that plays the owner; says how it is to end.
const ROLE: &str = "MANIFOLD_TEST_OWNER";

/// Not a test by itself: the owner, in a program of its own.
#[test]
fn owner() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let environment = Environment::start(&Request::for_strategy("hybrid").unwrap()).unwrap();
    let pids: Vec<String> = environment.processes().iter().map(|process| process.pid().to_string()).collect();
    let folder = environment.processes()[0].log_path().ancestors().nth(2).unwrap();
    println!("\nowned {} {}", folder.display(), pids.join(" "));
    match role.as_str() {
        "panic" => panic!("as asked"),
        "exit" => std::process::exit(3), // runs no destructor
        _ => loop {
            std::thread::park();
        },
    }
}

struct Owned {
    owner: Child,
    folder: PathBuf,
    pids: Vec<u32>,
}

/// Starts an owner and returns once it has said what it owns.
fn start_owner(role: &str) -> Owned {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["owner", "--exact", "--nocapture"]).env(ROLE, role);
    let mut owner = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("owned ")).expect("the owner speaks");
    let mut words = line.split(' ').skip(1);
    let folder = PathBuf::from(words.next().unwrap());
    let pids: Vec<u32> = words.map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    Owned { owner, folder, pids }
}

impl Owned {
    fn all_gone(&mut self) {
        self.owner.wait().unwrap();
        for pid in &self.pids {
            eventually("a process of a dead owner dies", || is_gone(*pid));
        }
    }
}

#[test]
fn a_killed_owner_leaves_no_process_and_its_folder_is_swept() {
    let mut owned = start_owner("wait");
    assert!(owned.pids.iter().all(|pid| !is_gone(*pid)) && owned.folder.is_dir());
    owned.owner.kill().unwrap(); // SIGKILL
    owned.all_gone();
    // Nobody was left to remove the folder; the next start does it.
    let next = Environment::start(&Request::redis()).unwrap();
    assert!(!owned.folder.exists());
    drop(next);
}

#[test]
fn an_interrupted_owner_leaves_no_process() {
    let mut owned = start_owner("wait");
    let pid = rustix::process::Pid::from_raw(i32::try_from(owned.owner.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    owned.all_gone();
}

#[test]
fn an_owner_that_exits_without_cleaning_up_leaves_no_process() {
    start_owner("exit").all_gone();
}

#[test]
fn a_panicking_owner_leaves_nothing() {
    let mut owned = start_owner("panic");
    owned.all_gone();
    assert!(!owned.folder.exists());
}

#[test]
fn a_thread_that_starts_an_environment_may_end_before_it() {
    let start = || Environment::start(&Request::redis()).unwrap();
    let environment = std::thread::spawn(start).join().unwrap();
    // The kernel ties a child to the thread that forked it, which must not have been that one.
    let pids: Vec<u32> = environment.processes().iter().map(Process::pid).collect();
    assert!(pids.iter().all(|pid| !is_gone(*pid)) && environment.processes()[0].is_running());
}
