//! Nodes: chat-server processes of one strategy, on the brokers of an environment.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::environment::Environment;
use crate::error::{Error, IoContext, Result};
use crate::ports::Port;
use crate::process::{Process, Spec};
use crate::run_dir::RunDir;

/// How long a node may take to listen. It covers the time that it retries an absent broker.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The start of the line by which a node says that it serves.
pub(crate) const LISTENING: &str = "listening on ";

/// What nodes to start.
#[derive(Debug, Clone, Default)]
pub struct NodeSpec {
    /// The chat-server program; see [`chat_server_binary`].
    pub binary: PathBuf,
    /// The strategy's name.
    pub strategy: String,
    /// How many nodes to start with.
    pub nodes: usize,
    /// Prefix of topics, keys and channels: clusters with different namespaces never meet.
    pub namespace: String,
    /// Settings of the strategy, each `key=value`.
    pub strategy_options: Vec<String>,
    /// Further arguments, passed on as they are.
    pub extra_args: Vec<String>,
    /// The first node listens on this port of 127.0.0.1 and each further one on the next; `None` takes free ports.
    pub listen_base_port: Option<u16>,
}

/// Chat-server processes named `n1`, `n2`, …; they die with this value, in the same ways as an [`Environment`].
#[derive(Debug)]
pub struct Nodes {
    spec: NodeSpec,
    kafka: Option<String>,
    redis: Option<String>,
    processes: Vec<Process>,
    http: Vec<String>,
    // Dropped after the processes have been killed.
    _ports: Vec<Port>,
    folder: RunDir,
}

/// Bounds the arenas of the C library's allocator, unless the environment has a bound of its own: every client of a broker's
/// library brings threads, each thread takes an arena, and what is free in one is not given to another, nor back to the system.
pub(crate) fn allocator() -> Vec<(OsString, OsString)> {
    const ARENAS_MAX: &str = "MALLOC_ARENA_MAX";
    match std::env::var_os(ARENAS_MAX) {
        Some(_) => Vec::new(),
        None => vec![(ARENAS_MAX.into(), "2".into())],
    }
}

impl Nodes {
    /// Starts the nodes at once and returns when each of them listens.
    ///
    /// # Errors
    /// [`Error::Exited`] or [`Error::NotReady`], with the end of the node's log, where a node does not come to listen.
    pub fn start(spec: &NodeSpec, environment: &Environment) -> Result<Nodes> {
        let mut nodes = Nodes {
            spec: spec.clone(),
            kafka: environment.kafka().map(str::to_owned),
            redis: environment.redis().map(str::to_owned),
            processes: Vec::new(),
            http: Vec::new(),
            _ports: Vec::new(),
            folder: RunDir::new()?,
        };
        for _ in 0..spec.nodes {
            nodes.spawn()?;
        }
        for process in &nodes.processes {
            process.wait_ready()?;
        }
        Ok(nodes)
    }

    /// Starts one more node and returns when it listens. A node that fails to is removed again.
    ///
    /// # Errors
    /// As for [`Nodes::start`].
    pub fn add(&mut self) -> Result<&Process> {
        let index = self.processes.len();
        self.spawn()?;
        if let Err(error) = self.processes[index].wait_ready() {
            self.processes.remove(index).retire();
            self.http.remove(index);
            return Err(error);
        }
        Ok(&self.processes[index])
    }

    /// The WebSocket addresses, in the order of the nodes: `ws://127.0.0.1:port/connection/websocket`.
    pub fn urls(&self) -> Vec<String> {
        let websocket = |http: &String| format!("{}/connection/websocket", http.replacen("http", "ws", 1));
        self.http.iter().map(websocket).collect()
    }

    /// The HTTP addresses, in the order of the nodes: `http://127.0.0.1:port`.
    pub fn http(&self) -> Vec<String> {
        self.http.clone()
    }

    /// What topics, keys and channels of these nodes begin with.
    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    /// The nodes' processes, in order. A restarted node keeps its address.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The node of that name, e.g. `n2`.
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name() == name)
    }

    /// Asks every node to drain, all at once, and waits; what is left after `grace` is killed. Returns, in words, which
    /// nodes did not end well: killed, or with a status other than 0. A node that does not run is passed over.
    ///
    /// # Errors
    /// The first failure; every node is gone nevertheless.
    pub fn terminate(&self, grace: Duration) -> Result<Vec<String>> {
        let running = || self.processes.iter().filter(|process| process.is_running());
        std::thread::scope(|scope| {
            let leaving: Vec<_> = running()
                .map(|node| scope.spawn(move || (node.name().to_owned(), node.terminate(grace))))
                .collect();
            // A panic of the waiting thread would have been one of ours; it has no state to lose.
            let left: Vec<_> = leaving.into_iter().filter_map(|leave| leave.join().ok()).collect();
            let badly = left.into_iter().filter_map(|(name, left)| match left {
                Ok(status) if status.success() => None,
                Ok(status) => {
                    Some(Ok(format!("{name} did not drain within {} s: {status}", grace.as_secs())))
                }
                Err(Error::ProcessState { .. }) => {
                    Some(Ok(format!("{name} ended just before it was asked to")))
                }
                Err(error) => Some(Err(error)),
            });
            badly.collect()
        })
    }

    fn spawn(&mut self) -> Result<()> {
        let index = self.processes.len();
        let name = format!("n{}", index + 1);
        let address = match self.spec.listen_base_port {
            Some(base) => {
                let offset = u16::try_from(index).unwrap_or(u16::MAX);
                format!("127.0.0.1:{}", base.saturating_add(offset))
            }
            None => {
                let port = Port::claim()?;
                let address = port.address();
                self._ports.push(port);
                address
            }
        };
        let folder = self.folder.path().join(&name);
        fs::create_dir_all(&folder).at("cannot create", &folder)?;
        let process = Process::start(Spec {
            args: self.arguments(&name, &address),
            program: self.spec.binary.clone(),
            environment: allocator(),
            separate_output: true,
            ready: Box::new(wait_listening),
            folder,
            name,
        })?;
        self.processes.push(process);
        self.http.push(format!("http://{address}"));
        Ok(())
    }

    fn arguments(&self, name: &str, address: &str) -> Vec<OsString> {
        let spec = &self.spec;
        let mut pairs = vec![
            ("--strategy", spec.strategy.as_str()),
            ("--listen", address),
            ("--node", name),
            ("--namespace", spec.namespace.as_str()),
        ];
        pairs.extend(self.kafka.as_deref().map(|kafka| ("--kafka", kafka)));
        pairs.extend(self.redis.as_deref().map(|redis| ("--redis", redis)));
        pairs.extend(spec.strategy_options.iter().map(|option| ("--strategy-option", option.as_str())));
        let named = pairs.into_iter().flat_map(|(flag, value)| [flag, value]);
        named.chain(spec.extra_args.iter().map(String::as_str)).map(OsString::from).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.processes.iter().for_each(Process::retire);
    }
}

pub(crate) fn wait_listening(process: &Process) -> Result<()> {
    let output = process.output_path();
    process.wait_until(READY_WITHIN, || {
        let text = fs::read_to_string(&output).unwrap_or_default();
        let said = text.lines().any(|line| line.starts_with(LISTENING)) && text.ends_with('\n');
        if said { Ok(()) } else { Err("it has not said that it listens".to_owned()) }
    })
}

/// Finds the chat-server program: the given path, else the one built beside the running program.
///
/// # Errors
/// [`Error::NoServerBinary`], which says how to build it.
pub fn chat_server_binary(given: Option<&Path>) -> Result<PathBuf> {
    const NAME: &str = "chat-server";
    if let Some(path) = given {
        let found = path.is_file().then(|| path.to_owned());
        return found.ok_or_else(|| Error::NoServerBinary { searched: path.to_owned() });
    }
    let running =
        std::env::current_exe().doing(|| "cannot find the running program's own path".to_owned())?;
    let folder = running.parent().unwrap_or(Path::new("."));
    // Test binaries lie one folder deeper.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(NAME);
    if path.is_file() { Ok(path) } else { Err(Error::NoServerBinary { searched: path }) }
}
