//! The processor's counters and the kernel's, over `perf stat`, where the machine has them.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Instructions in user space.
const USER: &str = "instructions:u";
/// Instructions of the kernel.
const KERNEL: &str = "instructions:k";
/// System calls, whichever.
const CALLS: &str = "raw_syscalls:sys_enter";

/// What can be counted here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Instructions, user and kernel.
    pub(super) instructions: bool,
    /// System calls.
    pub(super) calls: bool,
}

/// What was counted; `None` where it was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) user: Option<u64>,
    pub(super) kernel: Option<u64>,
    pub(super) calls: Option<u64>,
}

impl Counters {
    /// Nothing.
    pub(super) const NONE: Self = Self { instructions: false, calls: false };

    /// Tries out what there is.
    pub(super) fn probe() -> Self {
        let counts = |events: &[&str]| {
            let output =
                Command::new("perf").args(["stat", "-x,", "-e", &events.join(","), "--", "true"]).output();
            output.map(|output| Counts::parse(&String::from_utf8_lossy(&output.stderr))).unwrap_or_default()
        };
        let instructions = counts(&[USER, KERNEL]);
        Self {
            instructions: instructions.user.is_some_and(|count| count > 0)
                && instructions.kernel.is_some_and(|count| count > 0),
            calls: counts(&[CALLS]).calls.is_some_and(|count| count > 0),
        }
    }

    fn events(self) -> Vec<&'static str> {
        let mut events = if self.instructions { vec![USER, KERNEL] } else { Vec::new() };
        events.extend(self.calls.then_some(CALLS));
        events
    }

    /// Counts what these processes do from now on; `None` where there is nothing to count or perf cannot be run.
    pub(super) fn start(self, pids: &[u32]) -> Option<Counting> {
        let events = self.events();
        if events.is_empty() || pids.is_empty() {
            return None;
        }
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", &events.join(","), "-p", &pids.join(",")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().ok().map(Counting)
    }
}

/// A count under way. It ends with this value, and with the processes that it watches.
#[derive(Debug)]
pub(super) struct Counting(Child);

impl Counting {
    /// Ends it.
    pub(super) fn stop(mut self) -> Counts {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It prints what it has when it is interrupted. One that has ended already has printed.
            let _ = kill_process(pid, Signal::INT);
        }
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            // What cannot be read was not counted.
            let _ = stderr.read_to_string(&mut text);
        }
        Counts::parse(&text)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Counts {
    /// Reads `perf stat -x,`: value, unit, event and more on each line.
    fn parse(text: &str) -> Self {
        let value = |event: &str| {
            let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
            let fields = lines.find(|fields| fields.get(2).is_some_and(|found| *found == event))?;
            fields.first()?.parse().ok()
        };
        Self { user: value(USER), kernel: value(KERNEL), calls: value(CALLS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_says_is_read_and_what_it_could_not_count_is_not() {
        let text = "# started on today\n\n123456,,instructions:u,1000,100.00,,\n<not supported>,,instructions:k,0,100.00,,\n\
                    42,,raw_syscalls:sys_enter,1000,100.00,,\n";
        let counts = Counts::parse(text);
        assert_eq!(counts, Counts { user: Some(123_456), kernel: None, calls: Some(42) });
        assert_eq!(Counts::parse("event syntax error"), Counts::default());
    }

    #[test]
    fn nothing_is_counted_of_nobody() {
        assert!(Counters { instructions: true, calls: true }.start(&[]).is_none());
        assert!(Counters::NONE.start(&[1]).is_none());
    }
}
