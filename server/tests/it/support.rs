//! A server in this process, and clients of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use manifold_server::config::Config;
use manifold_server::{Node, Server};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Settings for tests: any port, no waiting at the end.
pub(crate) fn config() -> Config {
    Config {
        listen: "127.0.0.1:0".to_owned(),
        drain_window_ms: 100,
        close_timeout_ms: 1_000,
        leave_linger_ms: 0,
        // The machine that runs the tests may be.
        overload_ms: 0,
        ..Config::default()
    }
}

/// Starts a server on the memory backplane.
pub(crate) async fn serve(config: Config) -> Server {
    let listener = Server::bind(&config.listen).await.expect("a free port");
    let node = Node::new(config).expect("settings that hold");
    node.connect().await.expect("memory needs no broker");
    Server::start(node, listener).expect("a bound listener")
}

/// Starts a server on a backplane that `build` makes around the node's entrance.
pub(crate) async fn serve_on(
    config: Config,
    build: impl FnOnce(Arc<dyn manifold_strategies::Entrance>) -> Arc<dyn manifold_strategies::Backplane>,
) -> Server {
    let listener = Server::bind(&config.listen).await.expect("a free port");
    let node = Node::new(config).expect("settings that hold");
    node.set_backplane(build(node.entrance()));
    Server::start(node, listener).expect("a bound listener")
}

/// Waits for something, for [`PATIENCE`] at most.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

/// Waits until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// One reply or push, or the end.
#[derive(Debug, PartialEq)]
pub(crate) enum Received {
    Reply(Value),
    Close(u16, String),
    /// The socket ended without a close frame.
    End,
}

/// A client that speaks the protocol word by word.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    waiting: VecDeque<Value>,
    next_id: u32,
}

impl Client {
    /// Opens a WebSocket, nothing more.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        Self::on(stream, address).await
    }

    /// Opens a WebSocket on a socket.
    pub(crate) async fn on(stream: TcpStream, address: SocketAddr) -> Self {
        let url = format!("ws://{address}/connection/websocket");
        let (socket, _) = within(tokio_tungstenite::client_async(url, stream)).await.expect("an upgrade");
        Self { socket, waiting: VecDeque::new(), next_id: 1 }
    }

    /// Opens and connects.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::open(address).await;
        let reply = client.call(json!({"connect": {}})).await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// Opens, connects, and subscribes.
    pub(crate) async fn in_room(address: SocketAddr, room: &str) -> Self {
        let mut client = Self::connect(address).await;
        let reply = client.call(json!({"subscribe": {"channel": room}})).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        client
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        within(self.socket.send(Message::text(text.into()))).await.expect("an open connection");
    }

    /// Sends a command under the next id, which it returns.
    pub(crate) async fn send(&mut self, mut command: Value) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = json!(id);
        self.send_text(command.to_string()).await;
        id
    }

    /// Sends a command and waits for its reply; pushes that come before are kept for later.
    pub(crate) async fn call(&mut self, command: Value) -> Value {
        let id = self.send(command).await;
        let mut before = VecDeque::new();
        loop {
            let reply = self.next().await;
            if reply["id"] == json!(id) {
                before.append(&mut self.waiting);
                self.waiting = before;
                return reply;
            }
            before.push_back(reply);
        }
    }

    /// The next reply or push.
    pub(crate) async fn next(&mut self) -> Value {
        match self.receive().await {
            Received::Reply(reply) => reply,
            end => panic!("the connection ended: {end:?}"),
        }
    }

    /// The data of the next publication.
    pub(crate) async fn publication(&mut self) -> Value {
        let push = self.next().await;
        assert!(push["push"]["pub"].is_object(), "{push}");
        push["push"]["pub"]["data"].clone()
    }

    /// The next reply, push, or the end. Pings come as `{}`.
    pub(crate) async fn receive(&mut self) -> Received {
        loop {
            if let Some(reply) = self.waiting.pop_front() {
                return Received::Reply(reply);
            }
            match within(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a JSON line"));
                    self.waiting.extend(lines);
                }
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Received::Close(code.into(), reason.to_string());
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Received::End,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The close frame that ends the connection; what comes before it is dropped.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            match self.receive().await {
                Received::Reply(_) => {}
                Received::Close(code, _) => return code,
                Received::End => panic!("no close frame came"),
            }
        }
    }
}

/// A minimal HTTP request; status and body of the answer.
pub(crate) async fn http(address: SocketAddr, head: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let length = body.len();
    let request =
        format!("{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// A client whose socket takes in little by itself.
pub(crate) async fn small_client(address: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    Client::on(socket.connect(address).await.expect("the server listens"), address).await
}

/// The value of a metric without labels.
pub(crate) async fn metric(address: SocketAddr, name: &str) -> f64 {
    metric_in(&http(address, "GET /metrics HTTP/1.1", "").await.1, name)
}

/// The value of a metric without labels in the text of a scrape.
pub(crate) fn metric_in(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}")).parse().expect("a number")
}
