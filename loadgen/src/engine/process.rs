//! This process, as the kernel sees it: CPU time, memory, limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
        assert!(allow_files(10).is_ok());
        assert!(allow_files(1 << 40).expect_err("too many").to_string().contains("ulimit -n"));
    }
}
