//! The processor's counters and the kernel's, over `perf stat`, where the machine has them.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// Instructions in user space.
const USER: &str = "instructions:u";
/// Instructions of the kernel.
const KERNEL: &str = "instructions:k";
/// System calls, whichever.
const CALLS: &str = "raw_syscalls:sys_enter";
/// How long perf may take to do as it is told; it takes a millisecond, or a few on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

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

    /// Tries out what there is, on this process, in the way in which servers are counted.
    pub(super) fn probe() -> Self {
        let counts = |counters: Self| {
            let counting = counters.attach(&[std::process::id()]).and_then(Counting::begin);
            counting.map(Counting::end).unwrap_or_default()
        };
        let some = |count: Option<u64>| count.is_some_and(|count| count > 0);
        let instructions = counts(Self { instructions: true, calls: false });
        Self {
            instructions: some(instructions.user) && some(instructions.kernel),
            calls: some(counts(Self { instructions: false, calls: true }).calls),
        }
    }

    fn events(self) -> Vec<&'static str> {
        let mut events = if self.instructions { vec![USER, KERNEL] } else { Vec::new() };
        events.extend(self.calls.then_some(CALLS));
        events
    }

    /// Gets ready to count what these processes do, which takes perf a while: nothing is counted yet. `None` where there is
    /// nothing to count or perf cannot be run.
    pub(super) fn attach(self, pids: &[u32]) -> Option<Counting> {
        let events = self.events();
        if events.is_empty() || pids.is_empty() {
            return None;
        }
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut command = Command::new("perf");
        // It takes commands from its standard input, and says on its standard output when it has obeyed.
        command.args(["stat", "-x,", "--delay=-1", "--control=fd:0,1"]);
        command.args(["-e", &events.join(","), "-p", &pids.join(",")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().ok().map(Counting)
    }
}

/// A count, about to begin or under way. It ends with this value, and with the processes that it watches.
#[derive(Debug)]
pub(super) struct Counting(Child);

impl Counting {
    /// Counts from now on; `None` if perf does not.
    pub(super) fn begin(mut self) -> Option<Self> {
        self.obeys("enable").then_some(self)
    }

    /// Counts no further: what was counted. Nothing where perf did not end in time: it would be of more than was asked for.
    pub(super) fn end(mut self) -> Counts {
        if !self.obeys("disable") {
            return Counts::default();
        }
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It prints what it has when it is interrupted. One that has ended already has printed.
            let _ = kill_process(pid, Signal::INT);
        }
        let deadline = Instant::now() + PATIENCE;
        while !matches!(self.0.try_wait(), Ok(Some(_))) {
            if Instant::now() > deadline {
                return Counts::default();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            // What cannot be read was not counted.
            let _ = stderr.read_to_string(&mut text);
        }
        Counts::parse(&text)
    }

    /// Gives a command, and waits for the line that says that it was carried out.
    fn obeys(&mut self, command: &str) -> bool {
        let (Some(stdin), Some(stdout)) = (&mut self.0.stdin, &mut self.0.stdout) else { return false };
        if stdin.write_all(format!("{command}\n").as_bytes()).is_err() {
            return false;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => continue,
                Ok(1..) => {}
                _ => return false,
            }
            let mut byte = [0];
            match stdout.read(&mut byte) {
                Ok(1) if byte == *b"\n" => return true,
                Ok(1) => {}
                _ => return false,
            }
        }
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
        assert!(Counters { instructions: true, calls: true }.attach(&[]).is_none());
        assert!(Counters::NONE.attach(&[1]).is_none());
    }
}
