//! Loopback ports for servers.
//!
//! They come from below the range that systems use for outgoing connections: a client that keeps dialling a dead
//! server's port from that range can end up connected to itself and so block the restart. Each port stays claimed for
//! as long as its value lives, so no other environment of this user takes it while its server is down. A foreign
//! program still may: starts that fail on a taken port are repeated with others.

use std::fs;
use std::net::TcpListener;

use rand::Rng;

use crate::claim::Claim;
use crate::error::{Error, IoContext, Result};
use crate::run_dir;

/// Ports to choose from: below Linux's 32768 and macOS's 49152.
const CHOICE: std::ops::Range<u16> = 20_000..32_768;

/// How many ports are tried before giving up.
const TRIES: usize = 1000;

/// A port of 127.0.0.1 that nobody else will be given.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _claim: Claim,
}

impl Port {
    /// Claims a free port.
    pub(crate) fn claim() -> Result<Port> {
        let folder = run_dir::root()?.join("ports");
        fs::create_dir_all(&folder).at("cannot create", &folder)?;
        for _ in 0..TRIES {
            let number = rand::rng().random_range(CHOICE);
            let path = folder.join(number.to_string());
            let Some(claim) = Claim::try_new(&path).at("cannot claim", &path)? else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Port { number, _claim: claim });
            }
        }
        Err(Error::State(format!("found no free port between {} and {}", CHOICE.start, CHOICE.end)))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_ports_are_distinct_and_free() {
        let ports: Vec<Port> = (0..50).map(|_| Port::claim().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.iter().all(|number| TcpListener::bind(("127.0.0.1", *number)).is_ok()));
    }
}
