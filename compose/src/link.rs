//! A link between nodes and a broker that can be made bad: slow, stalled or cut.
//!
//! A small TCP proxy on a thread of its own. It exists only where somebody asked for links
//! ([`Environment::start_with_links`](crate::Environment::start_with_links)): it costs a hop.

use std::io;
use std::net::TcpListener as StdListener;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::{IoContext, Result};
use crate::ports::Port;

/// Bytes that are carried at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Chunks of one direction of a connection that are under way at most; beyond, the sender's kernel makes it wait.
const CHUNKS_MAX: usize = 64;

/// How a link treats what passes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Everything passes at once.
    #[default]
    Open,
    /// Everything passes later and in its order, and no faster than a rate.
    Slow {
        /// How much later, in each direction.
        delay: Duration,
        /// Bytes per second of each direction of each connection.
        bytes_per_s: u64,
    },
    /// Nothing passes and nobody is told: connections stay open, as when a switch drops every packet. What was sent
    /// meanwhile passes afterwards.
    Stalled,
    /// Connections are reset, and new ones too.
    Cut,
}

impl Condition {
    fn delay(self) -> Duration {
        match self {
            Condition::Slow { delay, .. } => delay,
            _ => Duration::ZERO,
        }
    }

    /// How long so many bytes take.
    fn time_for(self, bytes: usize) -> Duration {
        match self {
            Condition::Slow { bytes_per_s, .. } => {
                Duration::from_secs_f64(bytes as f64 / bytes_per_s.max(1) as f64)
            }
            _ => Duration::ZERO,
        }
    }
}

/// A link to one broker. It ends, with all connections over it, when its environment does.
#[derive(Debug)]
pub struct Link {
    name: String,
    address: String,
    condition: Option<watch::Sender<Condition>>,
    thread: Option<JoinHandle<()>>,
    _port: Port,
}

impl Link {
    /// Listens on `port` and carries whatever comes there to `target` (`host:port`) and back.
    pub(crate) fn start(name: String, port: Port, target: String) -> Result<Link> {
        let address = port.address();
        let listen = || -> io::Result<(StdListener, tokio::runtime::Runtime)> {
            let listener = StdListener::bind(&address)?;
            listener.set_nonblocking(true)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok((listener, runtime))
        };
        let (listener, runtime) = listen().doing(|| format!("cannot listen on {address} for {name}"))?;
        let (condition, watched) = watch::channel(Condition::Open);
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                // The runtime goes with the thread, and every connection with the runtime.
                runtime.block_on(serve(listener, target, watched));
            })
            .doing(|| format!("cannot start a thread for {name}"))?;
        Ok(Link { name, address, condition: Some(condition), thread: Some(thread), _port: port })
    }

    /// `link-` and the broker's name, e.g. `link-kafka-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is entered: `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes how it treats what passes, from now on.
    pub fn set(&self, condition: Condition) {
        if let Some(sender) = &self.condition {
            sender.send_replace(condition);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without a sender the thread ends.
        self.condition = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and nothing is left that could suffer from it.
            thread.join().ok();
        }
    }
}

async fn serve(listener: StdListener, target: String, mut condition: watch::Receiver<Condition>) {
    // Fails only outside a runtime.
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    tokio::spawn(carry(client, target.clone(), condition.clone()));
                }
                // The peer gave up, or descriptors ran out for a moment.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            () = is_over(&mut condition) => return,
        }
    }
}

/// Returns once nobody can change the condition any more.
async fn is_over(condition: &mut watch::Receiver<Condition>) {
    while condition.changed().await.is_ok() {}
}

/// Returns once the condition is such, or nobody can change it any more.
async fn until(condition: &mut watch::Receiver<Condition>, such: fn(Condition) -> bool) {
    let _ = condition.wait_for(|now| such(*now)).await;
}

/// Carries one connection until both sides have ended it, or the link is cut.
async fn carry(mut client: TcpStream, target: String, condition: watch::Receiver<Condition>) {
    let mut cut = condition.clone();
    let mut open = condition.clone();
    let connected = tokio::select! {
        () = until(&mut cut, |now| now == Condition::Cut) => None,
        server = async {
            until(&mut open, |now| now != Condition::Stalled).await;
            TcpStream::connect(&target).await
        } => server.ok(),
    };
    let Some(mut server) = connected else { return reset(&client) };
    // Where the kernel refuses, small writes are later than they need be.
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pass(from_client, to_server, condition.clone());
        let back = pass(from_server, to_client, condition);
        tokio::select! {
            _ = async { tokio::join!(there, back) } => false,
            () = until(&mut cut, |now| now == Condition::Cut) => true,
        }
    };
    if was_cut {
        reset(&client);
        reset(&server);
    }
}

/// Has the connection end with a reset once it is dropped.
fn reset(socket: &TcpStream) {
    // Where the kernel refuses, it ends politely.
    socket.set_zero_linger().ok();
}

/// Carries one direction to its end.
async fn pass(from: ReadHalf<'_>, to: WriteHalf<'_>, condition: watch::Receiver<Condition>) {
    let (queue, queued) = mpsc::channel(CHUNKS_MAX);
    tokio::join!(take(from, queue, condition.clone()), give(to, queued, condition));
}

/// Bytes, and when they may leave.
type Chunk = (Instant, Vec<u8>);

async fn take(mut from: ReadHalf<'_>, queue: mpsc::Sender<Chunk>, condition: watch::Receiver<Condition>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let delay = condition.borrow().delay();
        if queue.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn give(
    mut to: WriteHalf<'_>,
    mut queued: mpsc::Receiver<Chunk>,
    mut condition: watch::Receiver<Condition>,
) {
    while let Some((due, bytes)) = queued.recv().await {
        let time = condition.borrow().time_for(bytes.len());
        if due > Instant::now() {
            sleep_until(due).await;
        }
        if !time.is_zero() {
            sleep(time).await;
        }
        until(&mut condition, |now| now != Condition::Stalled).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // Nor does a stalled link tell that a side has closed.
    until(&mut condition, |now| now != Condition::Stalled).await;
    // The other side may be gone already.
    to.shutdown().await.ok();
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as StdStream;
    use std::time::Instant as StdInstant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that sends back what it gets, for as long as somebody listens.
    fn echo() -> String {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                std::thread::spawn(move || {
                    let mut back = socket.try_clone().unwrap();
                    std::io::copy(&mut socket, &mut back).ok();
                });
            }
        });
        address
    }

    fn link() -> Link {
        Link::start("link-test".to_owned(), Port::claim().unwrap(), echo()).unwrap()
    }

    fn connect(link: &Link) -> StdStream {
        let socket = StdStream::connect(link.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn ask(socket: &mut StdStream, text: &[u8]) -> io::Result<Vec<u8>> {
        socket.write_all(text)?;
        let mut answer = vec![0; text.len()];
        socket.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn an_open_link_carries_everything_in_order() {
        let link = link();
        let mut socket = connect(&link);
        let text: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let mut writer = socket.try_clone().unwrap();
        let sent = text.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut answer = vec![0; text.len()];
        socket.read_exact(&mut answer).unwrap();
        writing.join().unwrap();
        assert!(answer == text);
    }

    #[test]
    fn a_stalled_link_passes_nothing_until_it_is_open_again() {
        let link = link();
        let mut socket = connect(&link);
        assert_eq!(ask(&mut socket, b"before").unwrap(), b"before");
        link.set(Condition::Stalled);
        socket.write_all(b"during").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 6];
        let nothing = socket.read(&mut answer).expect_err("nothing passes");
        assert!(matches!(nothing.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{nothing}");
        link.set(Condition::Open);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"during");
    }

    #[test]
    fn a_slow_link_is_late_by_its_delay_both_ways() {
        let link = link();
        let mut socket = connect(&link);
        ask(&mut socket, b"before").unwrap();
        link.set(Condition::Slow { delay: Duration::from_millis(60), bytes_per_s: 10_000_000 });
        let began = StdInstant::now();
        ask(&mut socket, b"during").unwrap();
        assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());
    }

    #[test]
    fn a_cut_link_resets_what_there_is_and_what_comes() {
        let link = link();
        let mut socket = connect(&link);
        ask(&mut socket, b"before").unwrap();
        link.set(Condition::Cut);
        assert!(socket.read(&mut [0; 1]).is_err(), "a reset, not an end");
        let refused = StdStream::connect(link.address()).and_then(|mut socket| {
            socket.set_read_timeout(Some(PATIENCE))?;
            ask(&mut socket, b"during")
        });
        assert!(refused.is_err());
        link.set(Condition::Open);
        assert_eq!(ask(&mut connect(&link), b"after").unwrap(), b"after");
    }

    #[test]
    fn a_dropped_link_is_gone() {
        let link = link();
        let mut socket = connect(&link);
        ask(&mut socket, b"before").unwrap();
        let address = link.address().to_owned();
        drop(link);
        assert!(!matches!(socket.read(&mut [0; 1]), Ok(1)));
        assert!(StdStream::connect(address).is_err());
    }
}
