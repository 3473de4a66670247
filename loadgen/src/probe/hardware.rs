//! The machine, from `/proc`.

use std::fs;

use crate::record::Hardware;

/// Describes the machine. What can't be found out is empty or zero.
pub fn hardware() -> Hardware {
    let cpuinfo = read("/proc/cpuinfo");
    let line = |name: &str| {
        let found = cpuinfo.lines().find(|line| line.starts_with(name));
        found.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    Hardware {
        cpu: line("model name")
            .or_else(|| line("Model"))
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        memory_bytes: memory_bytes(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        os: os(),
        virtual_machine: line("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        load_average_1m: read("/proc/loadavg")
            .split(' ')
            .next()
            .and_then(|load| load.parse().ok())
            .unwrap_or(0.0),
        steal_share: 0.0,
    }
}

/// CPU time that the host took away, between two readings.
#[derive(Debug, Clone, Copy)]
pub struct Steal {
    stolen: u64,
    all: u64,
}

impl Steal {
    /// Reads the counters.
    pub fn now() -> Self {
        let stat = read("/proc/stat");
        let fields: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or("")
            .split_ascii_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest times are part of user.
        Self { stolen: fields.get(7).copied().unwrap_or(0), all: fields.iter().take(8).sum() }
    }

    /// Share of all processors' time since `self`, 0 to 1.
    pub fn share_since(&self) -> f64 {
        let now = Self::now();
        let all = now.all.saturating_sub(self.all);
        if all == 0 { 0.0 } else { now.stolen.saturating_sub(self.stolen) as f64 / all as f64 }
    }
}

fn memory_bytes() -> u64 {
    let meminfo = read("/proc/meminfo");
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    kib.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn os() -> String {
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name_memory_and_cores() {
        let hardware = hardware();
        assert!(!hardware.cpu.is_empty() && !hardware.kernel.is_empty());
        assert!(hardware.cores >= 1 && hardware.memory_bytes > 1 << 20);
        assert!((0.0..=1.0).contains(&Steal::now().share_since()));
    }
}
