//! Redis: finding or fetching a server, starting it in its shapes, knowing when it serves.

mod admin;
mod binary;
mod client;
mod cluster;
mod sentinel;
mod server;

pub(crate) use admin::{configure, move_slots};
pub(crate) use binary::{Binary, find};
pub(crate) use client::check_given;

use std::path::Path;

use crate::error::Result;
use crate::ports::Port;
use crate::process::Process;
use crate::request::RedisTopology;

/// Running servers of one shape.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) url: String,
    pub(crate) processes: Vec<Process>,
    pub(crate) ports: Vec<Port>,
}

/// Starts Redis in the given shape and returns when it serves.
pub(crate) fn start(binary: &Binary, topology: RedisTopology, folder: &Path) -> Result<Servers> {
    let mut servers = Servers { url: String::new(), processes: Vec::new(), ports: Vec::new() };
    servers.url = match topology {
        RedisTopology::Single => server::start_single(binary, folder, &mut servers)?,
        RedisTopology::Sentinel => sentinel::start(binary, folder, &mut servers)?,
        RedisTopology::Cluster => cluster::start(binary, folder, &mut servers)?,
    };
    Ok(servers)
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.processes.iter().for_each(Process::retire);
    }
}
