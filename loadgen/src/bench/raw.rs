//! The bare clients beside which a strategy is held: a program of its own, so that nothing here depends on a broker's client
//! library.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// A loop that takes so many times as long as it should was not driven at the rate that was asked for.
const LATE_MAX: f64 = 1.01;
/// The program's name, in the folder of examples beside this one.
const NAME: &str = "raw_clients";

/// What one bare loop did.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bare {
    /// `kafka` or `redis`.
    pub(super) client: String,
    /// Messages sent in the counted window.
    pub(super) sent: u64,
    /// Messages received of those, by all consumers.
    pub(super) received: u64,
    /// From when the first of them was due until the last was sent.
    pub(super) sending_s: f64,
    /// How far behind its time the latest of them was sent.
    pub(super) send_lag_us_max: u64,
    /// CPU of the whole loop per message, without what its pacing costs.
    pub(super) cpu_us_per_message: f64,
    /// What the pacing costs per message.
    pub(super) pacing_us_per_message: f64,
    /// Median of intended send → received.
    pub(super) delivery_us_p50: u64,
    /// 99th percentile of the same.
    pub(super) delivery_us_p99: u64,
}

/// What a bare loop is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loop<'a> {
    /// `kafka` or `redis`.
    pub(super) client: &'a str,
    /// The broker's address, as nodes are given it.
    pub(super) address: &'a str,
    pub(super) rate_per_s: f64,
    /// As many as there are nodes: each of them reads.
    pub(super) consumers: usize,
    pub(super) warm_up_s: f64,
    pub(super) window_s: f64,
}

/// The program: the one given, else the one built beside this one.
pub(super) fn find(given: Option<&Path>) -> Option<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("examples").join(NAME));
    given.map(Path::to_owned).or_else(beside).filter(|path| path.is_file())
}

impl Loop<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self, program: &Path) -> Result<Bare> {
        let numbers = [
            ("--rate", self.rate_per_s),
            ("--consumers", self.consumers as f64),
            ("--warm-up", self.warm_up_s),
            ("--seconds", self.window_s),
        ];
        let mut command = Command::new(program);
        command.args([self.client, "--address", self.address]);
        for (flag, value) in numbers {
            command.args([flag, &value.to_string()]);
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the bare {} loop failed: {}", self.client, complaint.trim());
        let bare: Bare = serde_json::from_slice(&output.stdout).context("the bare loop printed no result")?;
        ensure!(
            bare.client == self.client,
            "asked for a bare {} loop, got one of {}",
            self.client,
            bare.client
        );
        let expected = bare.sent * self.consumers as u64;
        ensure!(bare.received == expected, "the bare loop received {} of {expected}", bare.received);
        Ok(bare)
    }

    /// Runs it to its end, for a figure: it must have kept up with its rate.
    pub(super) fn measure(&self, program: &Path) -> Result<Bare> {
        let bare = self.run(program)?;
        bare.in_time(self.rate_per_s)?;
        Ok(bare)
    }
}

impl Bare {
    /// An error where it did not keep up with its rate.
    fn in_time(&self, rate_per_s: f64) -> Result<()> {
        let meant_s = self.sent as f64 / rate_per_s;
        ensure!(
            self.sending_s <= LATE_MAX * meant_s,
            "the bare loop took {:.3} s to send what was to be sent in {meant_s:.3} s, up to {:.1} ms late",
            self.sending_s,
            self.send_lag_us_max as f64 / 1e3
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints_is_read() {
        let text = r#"{"client":"redis","sent":3000,"received":6000,"sending_s":3.02,"send_lag_us_max":20500,
            "cpu_us_per_message":21.5,"pacing_us_per_message":4.0,"delivery_us_p50":35,"delivery_us_p99":140}"#;
        let bare: Bare = serde_json::from_str(text).unwrap();
        assert_eq!((bare.client.as_str(), bare.delivery_us_p99), ("redis", 140));
        assert!(bare.in_time(1_000.0).is_ok());
        assert!(format!("{}", bare.in_time(1_010.0).unwrap_err()).contains("up to 20.5 ms late"));
        assert!(find(Some(Path::new("/no/such/program"))).is_none());
    }
}
