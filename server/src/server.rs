//! Running a node: from a listening socket to the last goodbye.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use manifold_protocol::DisconnectCode;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::http;
use crate::node::Node;

/// Time between two goodbyes when there are few clients.
const GOODBYE_INTERVAL_MAX: Duration = Duration::from_millis(20);
/// Time for HTTP requests to be answered at the end.
const REQUESTS_PATIENCE: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted; the system may allow less.
const BACKLOG: u32 = 4096;
/// Time between two looks at how many connections are left.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How often the backplane is asked whether it has failed.
const FAILURE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A node that serves.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    /// One permit per HTTP connection.
    requests: Arc<Semaphore>,
    accepting: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    watching: JoinHandle<()>,
    /// Presence's task, unless that is turned off.
    gossiping: Option<JoinHandle<()>>,
}

/// Why a node cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is not one, or its name is not known.
    #[error("cannot resolve the address {address:?}: {source}")]
    Resolve {
        /// As it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error(
        "{address} is in use: stop what listens there, or give another --listen address (port 0 takes a free one)"
    )]
    InUse {
        /// The address.
        address: String,
    },
    /// Another failure to listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

impl Server {
    /// Binds the address of the node's settings.
    ///
    /// # Errors
    /// When the address is wrong or taken.
    pub async fn bind(address: &str) -> Result<TcpListener, ServerError> {
        let of = address.to_owned();
        let mut resolved = match tokio::net::lookup_host(address).await {
            Ok(addresses) => addresses,
            Err(source) => return Err(ServerError::Resolve { address: of, source }),
        };
        let Some(resolved) = resolved.next() else {
            return Err(ServerError::Resolve { address: of, source: io::ErrorKind::NotFound.into() });
        };
        listen(resolved).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::InUse { address: of },
            _ => ServerError::Listen { address: of, source },
        })
    }

    /// Serves on `listener`. The node's backplane must have been set.
    ///
    /// # Errors
    /// When the listener's address cannot be read.
    pub fn start(node: Arc<Node>, listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let requests = Arc::new(Semaphore::new(http::REQUESTS_MAX as usize));
        let sweeping = tokio::spawn(Arc::clone(node.sweep()).run());
        let accepting = http::serve(Arc::clone(&node), listener, Arc::clone(&requests), stopped);
        let accepting = tokio::spawn(accepting);
        let watching = tokio::spawn(Arc::clone(node.hub()).watch_positions());
        let presence = node.hub().presence().map(Arc::clone);
        let gossiping = presence.map(|presence| tokio::spawn(presence.run(Arc::clone(node.hub()))));
        Ok(Self { node, address, stop, requests, accepting, sweeping, watching, gossiping })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Serves until `stop` resolves or the backplane fails for good, then [drains](Self::drain).
    ///
    /// # Errors
    /// When the backplane failed, or did not leave in order.
    pub async fn run(self, stop: impl Future<Output = ()>) -> manifold_strategies::Result<()> {
        let failure = tokio::select! {
            error = self.backplane_failed() => Some(error),
            () = stop => None,
        };
        if let Some(error) = &failure {
            tracing::error!(%error, "the backplane failed for good; clients are told to connect elsewhere");
        }
        tracing::info!("going down; a second signal ends this at once");
        let drained = self.drain().await;
        match failure {
            // What a backplane that had failed says at the end is of no interest.
            Some(error) => Err(error),
            None => drained,
        }
    }

    /// Resolves, within a second or so, when the backplane can never work again: then the node is of no use to its clients.
    async fn backplane_failed(&self) -> manifold_strategies::Error {
        loop {
            if let Some(error) = self.node.backplane().failed() {
                return error;
            }
            tokio::time::sleep(FAILURE_LOOK_INTERVAL).await;
        }
    }

    /// Goes down in order: accepts nobody any more, tells every client to connect elsewhere, spread over the drain window,
    /// sends what waits for them, lets the backplane flush and leave.
    ///
    /// Bounded by the drain window, the close timeout, and twice the shutdown timeout (once for the answers to what the backplane
    /// has accepted, once for it to leave), and a second for presence's last words.
    ///
    /// # Errors
    /// When the backplane did not leave in order.
    pub async fn drain(self) -> manifold_strategies::Result<()> {
        let config = self.node.config();
        self.node.begin_draining();
        // Nobody is left to tell when the task is gone already.
        let _ = self.stop.send(true);
        let _ = self.accepting.await;
        let window = Duration::from_millis(config.drain_window_ms);
        say_goodbye(&self.node, window).await;
        let patience = Duration::from_millis(config.shutdown_timeout_ms + config.close_timeout_ms + 500);
        let deadline = Instant::now() + patience;
        while self.node.connection_count() > 0 && Instant::now() < deadline {
            // A session that was just opened, or just looked at, may have been passed over.
            for session in self.node.sweep().sessions() {
                session.request_close(DisconnectCode::SHUTDOWN);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.sweeping.abort();
        self.watching.abort();
        if let (Some(gossiping), Some(presence)) = (self.gossiping, self.node.hub().presence()) {
            gossiping.abort();
            let _ = gossiping.await;
            presence.say_goodbye(self.node.hub()).await;
        }
        // Requests of the API that are being answered; the rest is idle and has ended by itself.
        let _ = tokio::time::timeout(REQUESTS_PATIENCE, self.requests.acquire_many(http::REQUESTS_MAX)).await;
        let timeout = Duration::from_millis(config.shutdown_timeout_ms);
        match tokio::time::timeout(timeout, self.node.backplane().shutdown()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(manifold_strategies::Error::new(
                manifold_strategies::ErrorKind::Timeout,
                "shutdown",
                "the backplane did not leave within shutdown_timeout_ms",
            )),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A node that restarts must not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Asks all clients to go, evenly over the window at most: they come back to the other nodes one after the other.
async fn say_goodbye(node: &Node, window: Duration) {
    let sessions = node.sweep().sessions();
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
    let interval = (window / count).min(GOODBYE_INTERVAL_MAX);
    let start = Instant::now();
    tracing::info!(clients = sessions.len(), over = ?(interval * count), "telling clients to connect elsewhere");
    for (index, session) in (0_u32..).zip(sessions) {
        let due = start + interval * index;
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        session.request_close(DisconnectCode::SHUTDOWN);
    }
}
