//! A cluster of three masters without replicas.

use std::path::Path;

use redis::Connection;

use super::client::{self, Answer, ask, field};
use super::server::{DATA_SETTINGS, READY_WITHIN, spawn};
use super::{Binary, Servers};
use crate::error::Result;
use crate::ports::Port;
use crate::process::Process;

const MASTERS: usize = 3;

/// The number of hash slots of any Redis cluster.
const SLOTS: usize = 16_384;

/// Starts `redis-1` to `redis-3`, joins them, and returns the cluster's URL.
pub(crate) fn start(binary: &Binary, folder: &Path, servers: &mut Servers) -> Result<String> {
    let mut nodes = Vec::new();
    for number in 1..=MASTERS {
        let bus = Port::claim()?;
        let settings = format!(
            "{DATA_SETTINGS}cluster-enabled yes\n\
             cluster-config-file nodes.conf\n\
             cluster-node-timeout 2000\n\
             cluster-announce-ip 127.0.0.1\n\
             cluster-port {}\n",
            bus.number()
        );
        let name = format!("redis-{number}");
        let address = spawn(binary, folder, servers, &name, &[], &settings, covers_all_slots)?;
        nodes.push(Node { address, bus: bus.number() });
        servers.ports.push(bus);
    }
    for (process, node) in servers.processes.iter().zip(&nodes) {
        process.wait_until(READY_WITHIN, || client::ping(&node.address))?;
    }
    // Whoever knows another node is refused an epoch of its own: so nobody meets anybody before all have theirs.
    for introduce in [claim_slots, meet_the_next] {
        for (index, process) in servers.processes.iter().enumerate() {
            process.wait_until(READY_WITHIN, || {
                introduce(&mut client::connect(&nodes[index].address)?, index, &nodes)
            })?;
        }
    }
    servers.processes.iter().try_for_each(Process::wait_ready)?;
    let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    Ok(format!("redis+cluster://{}", addresses.join(",")))
}

struct Node {
    address: String,
    bus: u16,
}

/// Gives a node its share of the slots and an epoch of its own. A reply that comes too late is asked for again, so what was done
/// the first time is no error.
fn claim_slots(connection: &mut Connection, index: usize, _: &[Node]) -> Answer<()> {
    let (first, past) = (SLOTS * index / MASTERS, SLOTS * (index + 1) / MASTERS);
    let slots: Vec<String> = (first..past).map(|slot| slot.to_string()).collect();
    let add: Vec<&str> =
        ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
    done(ask::<String>(connection, &add), "already busy").map_err(|error| brief(&error))?;
    // Distinct from the start, so that the nodes need not settle a collision of epochs.
    let epoch = (index + 1).to_string();
    done(ask::<String>(connection, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "already non-zero")
}

/// Makes a node known to those that follow it. May be repeated.
fn meet_the_next(connection: &mut Connection, index: usize, nodes: &[Node]) -> Answer<()> {
    for node in &nodes[index + 1..] {
        let (host, port) = node.address.split_once(':').unwrap_or_default();
        ask::<String>(connection, &["CLUSTER", "MEET", host, port, &node.bus.to_string()])?;
    }
    Ok(())
}

/// Takes an error that says `before` for what it means to a new cluster: an earlier try did it.
fn done(answer: Answer<String>, before: &str) -> Answer<()> {
    match answer {
        Err(error) if !error.contains(before) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a node sees all its peers and every slot served.
fn covers_all_slots(address: &str) -> Answer<()> {
    let mut connection = client::connect(address)?;
    let info: String = ask(&mut connection, &["CLUSTER", "INFO"])?;
    let (state, known) = (field(&info, "cluster_state"), field(&info, "cluster_known_nodes"));
    if state == Some("ok") && known == Some("3") {
        return Ok(());
    }
    Err(format!(
        "cluster_state is {}, {} of {MASTERS} nodes known",
        state.unwrap_or("?"),
        known.unwrap_or("?")
    ))
}

/// Five thousand slot numbers help nobody.
fn brief(error: &str) -> String {
    let end = error.rsplit(": ").next().unwrap_or(error);
    format!("CLUSTER ADDSLOTS: {end}")
}
