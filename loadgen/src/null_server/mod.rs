//! A server without a backplane: it copies a ready frame to each member and does nothing else.
//!
//! Driven by the same load as a real server it shows the generator's ceiling and noise floor: whatever a run against
//! it shows is the tool's and the machine's doing. It speaks as much of the client protocol as the generator needs.
//!
//! It can also misbehave on purpose, so that tests can show that every kind of misbehaviour is caught.

mod greeting;
mod history;
mod misbehaviour;
mod rooms;
mod serve;
mod session;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub use misbehaviour::Misbehaviour;

/// How a null server behaves.
#[derive(Debug, Clone, Copy)]
pub struct NullSettings {
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Gather what one turn of the loop has for a connection into one write, instead of one write per delivery.
    pub coalesce: bool,
    /// Messages that it remembers of each room, for members that come back; 0 for none, and no positions then.
    pub history: usize,
    /// What it does wrong.
    pub misbehaviour: Option<Misbehaviour>,
}

impl Default for NullSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            coalesce: false,
            history: 0,
            misbehaviour: None,
        }
    }
}

impl NullSettings {
    /// How often it says that it pings, seconds; it never does, which matters only to clients of one that stands still.
    fn promised_pings_s(&self) -> u32 {
        u32::from(matches!(self.misbehaviour, Some(Misbehaviour::Stall { .. })))
    }
}

/// A null server on a thread of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct NullServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl NullServer {
    /// Binds, listens, and serves from then on.
    ///
    /// # Errors
    /// The address cannot be bound, or the kernel refuses epoll.
    pub fn start(settings: NullSettings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let server = serve::Server::new(listener, settings, Arc::clone(&stop))?;
        let thread = std::thread::Builder::new().name("null-server".to_owned()).spawn(|| server.run())?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect to.
    pub fn url(&self) -> String {
        format!("ws://{}/connection/websocket", self.address)
    }

    /// Serves until `stop` says so, looking every 50 ms, or until the server ends by itself.
    ///
    /// # Errors
    /// What ended it.
    pub fn wait(mut self, stop: impl Fn() -> bool) -> io::Result<()> {
        while !stop() && self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the null server's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.end();
    }
}
