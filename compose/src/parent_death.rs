//! Ties the life of a child process to that of its owner. This is the crate's one place with `unsafe`.
//!
//! On Linux the kernel does it: a child asks to be killed when the thread that forked it ends. Elsewhere a small shell
//! stands by: it reads from a pipe that only the owner holds open, and kills the child's process group when the pipe
//! closes without a word.

use std::io;
use std::process::{Child, Command};

/// Arranges, before the fork, that the child dies with this thread. Call it on a thread that lives as long as the process.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn bind(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    let owner = getpid();
    let bind_to_parent = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The owner may have died between the fork and the line above; the signal would never come.
        if getppid() != Some(owner) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe work is allowed. It makes two system
    // calls (prctl and getppid, both plain kernel calls in rustix), allocates nothing, takes no lock, touches no memory
    // shared with other threads, and its error values are bare error numbers.
    unsafe {
        command.pre_exec(bind_to_parent);
    }
}

/// No kernel help here: [`Watchdog`] does it after the spawn.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bind(_command: &mut Command) {}

/// Kills a child's process group when the owner vanishes. Needed only where the kernel does not do it.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// A watchdog for the child, where this platform needs one.
    pub(crate) fn where_needed(child: u32) -> io::Result<Option<Watchdog>> {
        if cfg!(target_os = "linux") { Ok(None) } else { Watchdog::start(child).map(Some) }
    }

    /// Watches over the process group of the given leader.
    fn start(child: u32) -> io::Result<Watchdog> {
        use std::os::unix::process::CommandExt;
        use std::process::Stdio;

        // A line means that the owner has reaped the child; end of file means that the owner is gone. The pipe's write
        // end is close-on-exec, so no other child keeps it open. A group of its own spares it the terminal's Ctrl-C.
        let script = "if read -r _; then exit 0; fi; kill -s KILL -- \"-$1\"";
        Command::new("/bin/sh")
            .args(["-c", script, "manifold-watchdog", &child.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Watchdog)
    }

    /// Calls the watchdog off: the child has been reaped, its number may be reused.
    pub(crate) fn dismiss(mut self) {
        use std::io::Write;

        let told = self.0.stdin.take().is_some_and(|mut pipe| pipe.write_all(b"done\n").is_ok());
        if !told {
            // It could not be told, so it must not live to misread the closing pipe. It may have ended already.
            self.0.kill().ok();
        }
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    use super::Watchdog;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("300").stdin(Stdio::null()).process_group(0).spawn().unwrap()
    }

    #[test]
    fn a_watchdog_kills_the_group_when_its_owner_vanishes() {
        let mut child = sleeper();
        let mut watchdog = Watchdog::start(child.id()).unwrap();
        drop(watchdog.0.stdin.take()); // what the kernel does when the owner dies
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        watchdog.0.wait().unwrap();
    }

    #[test]
    fn a_dismissed_watchdog_leaves_the_group_alone() {
        let mut child = sleeper();
        Watchdog::start(child.id()).unwrap().dismiss();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
