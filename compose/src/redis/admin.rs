//! What an operator does to Redis servers that run.

use redis::{Cmd, Connection, Value};

use super::client::{Answer, ask, connect};
use crate::error::{Error, Result};

/// Slots of the first of three servers, from the last one down, are the ones that move.
const FIRST_SERVERS_SLOTS: usize = 16_384 / 3;

/// Keys that move with one command.
const KEYS_AT_ONCE: &str = "100";

/// How long the servers may take over one command that moves keys, milliseconds.
const MOVE_WITHIN_MS: &str = "5000";

/// Sets a configuration key.
pub(crate) fn configure(address: &str, key: &str, value: &str) -> Result<()> {
    let set = || {
        let mut connection = connect(address)?;
        ask::<String>(&mut connection, &["CONFIG", "SET", key, value]).map(|_| ())
    };
    set().map_err(Error::State)
}

/// Moves slots with their keys between two servers of a cluster, slot by slot, as `redis-cli --cluster reshard` does.
/// Returns the number of keys.
pub(crate) fn move_slots(all: &[String], from: &str, to: &str, count: usize) -> Result<usize> {
    let go = || -> Answer<usize> {
        let mut connections = all.iter().map(|address| connect(address)).collect::<Answer<Vec<_>>>()?;
        let (mut source, mut target) = (connect(from)?, connect(to)?);
        let source_id: String = ask(&mut source, &["CLUSTER", "MYID"])?;
        let target_id: String = ask(&mut target, &["CLUSTER", "MYID"])?;
        let mut moved = 0;
        for slot in (0..FIRST_SERVERS_SLOTS).rev().take(count) {
            let slot = slot.to_string();
            ask::<String>(&mut target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id])?;
            ask::<String>(&mut source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id])?;
            moved += move_keys(&mut source, to, &slot)?;
            // The new owner hears of it first, so that no server sends clients to one that refuses them.
            ask::<String>(&mut target, &["CLUSTER", "SETSLOT", &slot, "NODE", &target_id])?;
            for connection in &mut connections {
                ask::<String>(connection, &["CLUSTER", "SETSLOT", &slot, "NODE", &target_id])?;
            }
        }
        Ok(moved)
    };
    go().map_err(|error| Error::State(format!("moving slots failed: {error}")))
}

fn move_keys(source: &mut Connection, to: &str, slot: &str) -> Answer<usize> {
    let (host, port) = to.split_once(':').unwrap_or_default();
    let mut moved = 0;
    loop {
        // Names of keys are bytes and need not be text.
        let keys: Vec<Vec<u8>> = ask(source, &["CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE])?;
        if keys.is_empty() {
            return Ok(moved);
        }
        let mut command = Cmd::new();
        command.arg(&["MIGRATE", host, port, "", "0", MOVE_WITHIN_MS, "KEYS"]).arg(&keys);
        // `NOKEY` where they expired meanwhile, which is as good as moved.
        command.query::<Value>(source).map_err(|error| format!("MIGRATE: {error}"))?;
        moved += keys.len();
    }
}
