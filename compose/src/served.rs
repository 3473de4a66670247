//! One program of any make that says on its standard output where it listens, as a chat-server does.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::nodes::{LISTENING, allocator, wait_listening};
use crate::process::{Process, Spec};
use crate::run_dir::RunDir;

/// A server process that needs no broker: a chat-server on its own, a yardstick beside it, or either under an instrument.
/// It dies with this value, in the same ways as an [`Environment`](crate::Environment).
#[derive(Debug)]
pub struct Served {
    process: Process,
    http: String,
    // Dropped after the process has been killed.
    folder: RunDir,
}

impl Served {
    /// Starts `program`, which must lie at an absolute path, in a private folder, and returns when it has printed
    /// `listening on http://…`.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::NotReady`], with the end of its log, where it does not come to listen.
    pub fn start(name: &str, program: &Path, args: &[String]) -> Result<Served> {
        let folder = RunDir::new()?;
        let process = Process::start(Spec {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.iter().map(OsString::from).collect(),
            environment: allocator(),
            folder: folder.path().to_owned(),
            separate_output: true,
            ready: Box::new(wait_listening),
        })?;
        // From here on the process goes with the value, whatever fails.
        let mut served = Served { process, http: String::new(), folder };
        served.process.wait_ready()?;
        let said = fs::read_to_string(served.process.output_path()).unwrap_or_default();
        let address = said.lines().find_map(|line| line.strip_prefix(LISTENING));
        served.http = address
            .map(|address| address.trim().to_owned())
            .ok_or_else(|| Error::State(format!("{name} did not say where it listens")))?;
        Ok(served)
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its HTTP address: `http://127.0.0.1:port`.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Its WebSocket address: `ws://127.0.0.1:port/connection/websocket`.
    pub fn url(&self) -> String {
        format!("{}/connection/websocket", self.http.replacen("http", "ws", 1))
    }

    /// Its private folder, in which it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.process.retire();
    }
}
