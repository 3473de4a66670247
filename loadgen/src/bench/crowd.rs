//! A crowd that joins and does nothing: what its connections take of a server.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::counters::Counters;
use super::found::Found;
use super::meter::Reading;
use super::rig::{Edges, Rig};
use super::shapes::{clients, shape};
use super::subject::Subject;
use crate::scenario::Scenario;

/// Pings so often that everybody has had one within [`GLANCE_S`].
pub(super) const QUICK_PINGS: [&str; 4] = ["--ping-interval-ms", "3000", "--pong-timeout-ms", "2500"];
/// A window for a look at memory, in seconds.
pub(super) const GLANCE_S: f64 = 3.5;

/// Connections in one room each, ten to a room.
pub(super) fn idle(connections: u64, window_s: f64) -> Result<Scenario> {
    let rooms = (connections as f64 / 10.0).ceil();
    shape("idle", &format!("idle-{connections}"), &[("rooms.count", rooms), ("duration_s", window_s)])
}

/// What a crowd took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd {
    /// Connections.
    pub(super) clients: f64,
    /// Resident memory at the window's end, above that of the bare server, KiB.
    pub(super) kib: f64,
    /// CPU from before the first came until all had joined and settled, microseconds.
    pub(super) joining_us: f64,
    /// Share of a core in the window, percent.
    pub(super) cpu_percent: f64,
}

impl Crowd {
    /// Resident memory per connection, KiB.
    pub(super) fn kib_each(&self) -> f64 {
        self.kib / self.clients.max(1.0)
    }
}

/// A server of one process to which nobody has come yet.
pub(super) fn bare(server: &Subject) -> Result<Reading> {
    Reading::now(pid(server)?).context("the server has ended")
}

fn pid(server: &Subject) -> Result<u32> {
    Ok(server.servers().next().context("no server")?.pid())
}

/// Has a crowd join; `None` where its window may not be used.
pub(super) fn gather(
    rig: &Rig,
    found: &mut Found,
    server: &Subject,
    scenario: &Scenario,
    bare: &Reading,
    block: u32,
) -> Result<Option<Crowd>> {
    let what = format!("block {block}, {}, {}", scenario.name, server.name);
    rig.progress.note(&what);
    let pid = pid(server)?;
    let before = Reading::now(pid).context("the server has ended")?;
    let edges = Edges::new(server, Counters::NONE, Arc::clone(&rig.cancel));
    let taken = found.or_note(&what, rig.run(server, scenario, block, &edges))?;
    let Some(taken) = taken else { return Ok(None) };
    let window = found.keep(&what, taken).window;
    let joined = edges.at_opening(pid).filter(|_| window.is_usable());
    Ok(joined.map(|joined| Crowd {
        clients: clients(scenario),
        kib: window.server_resident_bytes.saturating_sub(bare.resident_bytes) as f64 / 1024.0,
        joining_us: joined.since(&before).cpu_s * 1e6,
        cpu_percent: window.server_cpu_s / window.window_s * 100.0,
    }))
}
