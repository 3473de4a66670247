//! A master, a replica, and three sentinels that watch them.

use std::path::Path;

use redis::Connection;

use super::client::{self, Answer, ask, field};
use super::server::{DATA_SETTINGS, spawn};
use super::{Binary, Servers};
use crate::error::Result;
use crate::process::Process;

/// The name under which sentinels know the master.
const MASTER: &str = "mymaster";

const SENTINELS: usize = 3;
const QUORUM: usize = 2;

/// Starts `redis` (the master), `redis-replica` and `sentinel-1` to `sentinel-3`; returns the sentinels' URL.
pub(crate) fn start(binary: &Binary, folder: &Path, servers: &mut Servers) -> Result<String> {
    let master = spawn(binary, folder, servers, "redis", &[], DATA_SETTINGS, client::ping)?;
    let (host, port) = master.split_once(':').unwrap_or_default();
    let settings = format!("{DATA_SETTINGS}replicaof {host} {port}\n");
    spawn(binary, folder, servers, "redis-replica", &[], &settings, replica_serves)?;
    // A sentinel that finds the replica at its first look need not wait ten seconds for the second.
    servers.processes.iter().try_for_each(Process::wait_ready)?;
    let mut sentinels = Vec::new();
    for number in 1..=SENTINELS {
        let settings = format!(
            "sentinel monitor {MASTER} {host} {port} {QUORUM}\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n\
             sentinel parallel-syncs {MASTER} 1\n"
        );
        let name = format!("sentinel-{number}");
        sentinels.push(spawn(binary, folder, servers, &name, &["--sentinel"], &settings, sentinel_serves)?);
    }
    servers.processes.iter().try_for_each(Process::wait_ready)?;
    Ok(format!("redis+sentinel://{}/{MASTER}", sentinels.join(",")))
}

/// Whether a server that was started as a replica serves: as a replica it follows its master; after a fail-over it may
/// be the master itself.
fn replica_serves(address: &str) -> Answer<()> {
    let mut connection = client::connect(address)?;
    let info: String = ask(&mut connection, &["INFO", "replication"])?;
    match (field(&info, "role"), field(&info, "master_link_status")) {
        (Some("master"), _) | (_, Some("up")) => Ok(()),
        (_, link) => Err(format!("its link to the master is {}", link.unwrap_or("unknown"))),
    }
}

/// Whether a sentinel knows master, replica and the other sentinels, and sees a quorum.
fn sentinel_serves(address: &str) -> Answer<()> {
    let mut connection = client::connect(address)?;
    let _: String = ask(&mut connection, &["SENTINEL", "CKQUORUM", MASTER])?;
    knows_the_others(&mut connection)
}

fn knows_the_others(connection: &mut Connection) -> Answer<()> {
    let pairs: Vec<String> = ask(connection, &["SENTINEL", "MASTER", MASTER])?;
    let value = |name: &str| pairs.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    let (replicas, others) = (value("num-slaves"), value("num-other-sentinels"));
    if replicas.as_deref() == Some("1") && others == Some((SENTINELS - 1).to_string()) {
        return Ok(());
    }
    let show = |count: Option<String>| count.unwrap_or_else(|| "?".to_owned());
    Err(format!(
        "it knows {} of 1 replica and {} of {} other sentinels",
        show(replicas),
        show(others),
        SENTINELS - 1
    ))
}
