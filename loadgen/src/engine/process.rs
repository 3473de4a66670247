//! This process, as the kernel sees it: CPU time, memory, limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::RunError;

/// CPU seconds of this process so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    pub(super) user_s: f64,
    pub(super) system_s: f64,
}

/// Kernel ticks per second in `/proc`: the same on every Linux that Rust runs on.
const TICKS_PER_S: f64 = 100.0;

impl Cpu {
    /// Reads it; zero where `/proc` doesn't tell.
    pub(super) fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field, the name in parentheses, may hold anything; user and system time are fields 14 and 15.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut seconds =
            || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_S;
        Self { user_s: seconds(), system_s: seconds() }
    }

    /// What was used between `earlier` and this.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s }
    }
}

/// What the scheduler has counted for the calling thread so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ThreadTime {
    on_core_ns: u64,
    queued_ns: u64,
}

/// Shares of a stretch of wall time that a thread was on a core, and that it was ready and waited for one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Occupied {
    pub(super) busy: f64,
    pub(super) queued: f64,
}

impl ThreadTime {
    /// Reads it. Kernels without scheduler statistics still tell the first figure.
    pub(super) fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut fields = text.split_ascii_whitespace().map_while(|field| field.parse().ok());
        match (fields.next(), fields.next()) {
            (Some(on_core_ns), Some(queued_ns)) => Self { on_core_ns, queued_ns },
            _ => {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                Self { on_core_ns: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64, queued_ns: 0 }
            }
        }
    }

    /// How the `wall_us` between `earlier` and this were spent.
    pub(super) fn shares_since(&self, earlier: &Self, wall_us: u64) -> Occupied {
        let wall_ns = wall_us.max(1) as f64 * 1e3;
        let share = |later: u64, earlier: u64| (later.saturating_sub(earlier) as f64 / wall_ns).min(1.0);
        Occupied {
            busy: share(self.on_core_ns, earlier.on_core_ns),
            queued: share(self.queued_ns, earlier.queued_ns),
        }
    }
}

/// Peak resident bytes of this process; 0 where `/proc` doesn't tell.
pub(super) fn rss_bytes_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Raises the limit on open files so that `connections` fit, or says what to do.
pub(super) fn allow_files(connections: u64) -> Result<(), RunError> {
    let wanted = connections + 128;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let refused = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_err();
        if refused || raised < wanted {
            return Err(RunError::TooLarge(format!(
                "{connections} connections need {wanted} open files, this process may have {raised}: raise `ulimit -n`"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        assert!(rss_bytes_max() > 1 << 20);
        let before = Cpu::now();
        let mut sum = 0_u64;
        while Cpu::now().since(&before).user_s < 0.02 {
            sum = (0..100_000).fold(sum, |sum, value| sum.wrapping_mul(31) ^ value);
        }
        assert_ne!(sum, 0);
        let thread = ThreadTime::now();
        let spent = thread.shares_since(&ThreadTime::default(), 1_000_000);
        assert!(thread.on_core_ns > 0 && spent.busy > 0.0);
        assert!(allow_files(10).is_ok());
        assert!(allow_files(1 << 40).expect_err("too many").to_string().contains("ulimit -n"));
    }
}
