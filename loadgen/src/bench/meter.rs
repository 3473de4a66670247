//! What a process has used, from `/proc`, to the nanosecond (to the clock tick where threads of it have ended meanwhile): a window
//! of a few seconds holds a few dozen clock ticks, and a ratio of 1.05 would drown in their rounding.

use std::fs;

use crate::probe;

/// A reading of a process's counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    threads: Vec<Thread>,
    /// In clock ticks, ended threads included: for processes whose threads come and go.
    whole_s: f64,
    pub(super) resident_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    id: u64,
    /// Time on a core; `None` where the kernel keeps no scheduler statistics.
    on_core_ns: Option<u64>,
    /// Times that it gave up its core of its own accord.
    sleeps: u64,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Used {
    pub(super) cpu_s: f64,
    pub(super) sleeps: u64,
}

impl Reading {
    /// Reads them; `None` when the process is gone.
    pub(super) fn now(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let file = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            threads.push(Thread {
                id,
                on_core_ns: file("schedstat").split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()),
                sleeps: field(&file("status"), "voluntary_ctxt_switches:").unwrap_or(0),
            });
        }
        Some(Self {
            threads,
            whole_s: probe::usage(pid)?.cpu_s,
            resident_bytes: field(&status, "VmRSS:").unwrap_or(0) * 1024,
        })
    }

    /// What was used since an earlier reading of the same process. Threads that ended in between took their nanoseconds with
    /// them: then the ticks of the whole process count.
    pub(super) fn since(&self, earlier: &Self) -> Used {
        let before = |id: u64| earlier.threads.iter().find(|thread| thread.id == id);
        let all_live = earlier.threads.iter().all(|one| self.threads.iter().any(|other| other.id == one.id));
        let mut used = Used::default();
        let mut on_core_ns = Some(0);
        for thread in &self.threads {
            let then = before(thread.id);
            used.sleeps += thread.sleeps.saturating_sub(then.map_or(0, |then| then.sleeps));
            let then_ns = then.map_or(Some(0), |then| then.on_core_ns);
            on_core_ns = on_core_ns
                .zip(thread.on_core_ns)
                .zip(then_ns)
                .map(|((sum, now), then)| sum + now.saturating_sub(then));
        }
        used.cpu_s = match on_core_ns {
            Some(ns) if all_live => ns as f64 / 1e9,
            _ => (self.whole_s - earlier.whole_s).max(0.0),
        };
        used
    }
}

/// The first number of a line of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(id: u64, on_core_ns: u64, sleeps: u64) -> Thread {
        Thread { id, on_core_ns: Some(on_core_ns), sleeps }
    }

    #[test]
    fn threads_are_summed_and_new_ones_count_from_zero() {
        let earlier =
            Reading { threads: vec![thread(1, 1_000, 5), thread(2, 2_000, 7)], ..Reading::default() };
        let later = Reading {
            threads: vec![thread(1, 2_500, 6), thread(2, 2_000, 7), thread(3, 500, 1)],
            whole_s: 9.0,
            ..Reading::default()
        };
        let used = later.since(&earlier);
        assert!((used.cpu_s - 2_000e-9).abs() < 1e-15);
        assert_eq!(used.sleeps, 2);
    }

    #[test]
    fn where_a_thread_has_ended_the_ticks_of_the_process_count() {
        let earlier =
            Reading { threads: vec![thread(1, 0, 0), thread(2, 0, 0)], whole_s: 1.0, ..Reading::default() };
        let later = Reading { threads: vec![thread(1, 500, 0)], whole_s: 1.25, ..Reading::default() };
        assert!((later.since(&earlier).cpu_s - 0.25).abs() < 1e-9);
    }

    #[test]
    fn our_own_process_can_be_read() {
        let reading = Reading::now(std::process::id()).unwrap();
        assert!(!reading.threads.is_empty() && reading.resident_bytes > 1 << 20);
        assert!(Reading::now(u32::MAX).is_none());
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }
}
