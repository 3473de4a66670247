//! What a process has used so far, from `/proc`.

use std::fs;

/// A reading of a process's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time of the process since its start, user and kernel.
    pub cpu_s: f64,
    /// Peak resident memory since its start or the last [`reset_peak`].
    pub rss_bytes_max: u64,
    /// Bytes handed to `write` and its like.
    pub written_bytes: Option<u64>,
    /// Bytes taken from `read` and its like.
    pub read_bytes: Option<u64>,
    /// Bytes that went towards a disk.
    pub disk_bytes: Option<u64>,
}

/// Reads the counters of a process; `None` when it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let io = read(pid, "io").unwrap_or_default();
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let status = read(pid, "status")?;
    let peak_kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kib = peak_kib.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    Some(Usage {
        cpu_s: cpu_s(pid)?,
        rss_bytes_max: peak_kib.unwrap_or(0) * 1024,
        written_bytes: field("wchar:"),
        read_bytes: field("rchar:"),
        disk_bytes: field("write_bytes:"),
    })
}

/// Starts the peak of resident memory anew, where the kernel allows it.
pub fn reset_peak(pid: u32) {
    // Not allowed for other users' processes; the peak then covers the whole life, which is what it says elsewhere.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// CPU seconds of all threads, ended ones included. One source at every reading: differences between two sources grow
/// with a process's age, and would swamp what a short window adds. Good to two ticks.
fn cpu_s(pid: u32) -> Option<f64> {
    let stat = read(pid, "stat")?;
    // The name may hold blanks and brackets; what follows its last bracket doesn't.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_S)
}

/// `USER_HZ`: fixed at 100 in the interface between kernel and programs on the platforms that we run on.
const TICKS_PER_S: f64 = 100.0;

fn read(pid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn counts_our_own_work_even_of_threads_that_ended() {
        let pid = std::process::id();
        let before = usage(pid).unwrap();
        let worker = std::thread::spawn(|| {
            let start = std::time::Instant::now();
            let mut sum = 0_u64;
            while start.elapsed().as_millis() < 200 {
                sum = black_box(sum.wrapping_add(1));
            }
        });
        worker.join().unwrap();
        let after = usage(pid).unwrap();
        assert!(after.cpu_s > before.cpu_s, "{before:?} {after:?}");
        assert!(after.rss_bytes_max > 1 << 20);
    }

    #[test]
    fn a_process_that_is_not_there_is_none() {
        assert_eq!(usage(u32::MAX), None);
    }
}
