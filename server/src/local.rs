//! A node without a listening socket: its sessions run on sockets that the caller brings. For those who put clients and nodes
//! into one process, with whatever they like in place of a network.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::connection::Connection;
use crate::node::Node;

/// A node that serves who is brought to it. When it is dropped, everything of it ends at once and without a word, as in a crash.
#[derive(Debug)]
pub struct LocalNode {
    node: Arc<Node>,
    tasks: Vec<JoinHandle<()>>,
}

impl LocalNode {
    /// Starts what runs beside the sessions. The node's backplane must have been set. Must be called within the runtime.
    pub fn start(node: Arc<Node>) -> Self {
        let mut tasks = vec![
            tokio::spawn(Arc::clone(node.sweep()).run()),
            tokio::spawn(Arc::clone(node.hub()).watch_positions()),
        ];
        let presence = node.hub().presence().map(Arc::clone);
        tasks.extend(presence.map(|presence| tokio::spawn(presence.run(Arc::clone(node.hub())))));
        Self { node, tasks }
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Serves a client on a connected stream socket that has its WebSocket handshake behind it; `client` are 128 random bits
    /// that name it. Must be called within the runtime.
    ///
    /// # Errors
    /// When the node has no place left, or the runtime cannot watch the socket.
    pub fn serve(&mut self, socket: OwnedFd, client: u128) -> io::Result<()> {
        let admission = self.node.admit().ok_or_else(|| io::Error::other("no more connections here"))?;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        let connection = Connection::open(admission, stream, client, Vec::new())?;
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.push(tokio::spawn(connection));
        Ok(())
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
