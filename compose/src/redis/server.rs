//! One Redis server: its configuration file and its process.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::client::{self, Answer};
use super::{Binary, Servers};
use crate::error::{IoContext, Result};
use crate::ports::Port;
use crate::process::{Process, Ready, Spec};

/// How long a server, a sentinel group or a cluster may take to serve.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(30);

/// Settings of every data server. Nothing is kept on disk: the backplane needs what is in flight, not what was.
/// The output buffers let a subscriber fall behind by a burst without being cut off.
pub(crate) const DATA_SETTINGS: &str = "\
save \"\"
appendonly no
client-output-buffer-limit pubsub 256mb 64mb 60
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-ping-replica-period 1
";

/// Starts one server named `redis` and returns its URL.
pub(crate) fn start_single(binary: &Binary, folder: &Path, servers: &mut Servers) -> Result<String> {
    let address = spawn(binary, folder, servers, "redis", &[], DATA_SETTINGS, client::ping)?;
    servers.processes[0].wait_ready()?;
    Ok(format!("redis://{address}"))
}

/// Starts a server program on a fresh port without waiting for it; `check` says later whether it serves.
pub(crate) fn spawn(
    binary: &Binary,
    folder: &Path,
    servers: &mut Servers,
    name: &str,
    arguments: &[&str],
    settings: &str,
    check: impl Fn(&str) -> Answer<()> + Send + Sync + 'static,
) -> Result<String> {
    let port = Port::claim()?;
    let address = port.address();
    let folder = folder.join(name);
    fs::create_dir_all(&folder).at("cannot create", &folder)?;
    let config = folder.join("redis.conf");
    let head = format!("port {}\nbind 127.0.0.1\ndaemonize no\nprotected-mode no\n", port.number());
    fs::write(&config, format!("{head}{settings}")).at("cannot write", &config)?;
    let mut args: Vec<OsString> = vec![config.into()];
    args.extend(arguments.iter().map(OsString::from));
    let process = Process::start(Spec {
        name: name.to_owned(),
        program: binary.path.clone(),
        args,
        environment: Vec::new(),
        separate_output: false,
        ready: readiness(address.clone(), check),
        folder,
    })?;
    servers.processes.push(process);
    servers.ports.push(port);
    Ok(address)
}

fn readiness(address: String, check: impl Fn(&str) -> Answer<()> + Send + Sync + 'static) -> Ready {
    Box::new(move |process| process.wait_until(READY_WITHIN, || check(&address)))
}
