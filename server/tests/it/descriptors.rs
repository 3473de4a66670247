//! No more file descriptors.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::json;
use tokio::net::TcpStream;

use crate::command_line::Running;
use crate::support::{Client, http, within};

/// Descriptors of the node: some for itself, the rest for clients.
const LIMIT: usize = 64;

#[tokio::test]
async fn a_node_without_descriptors_refuses_says_so_and_recovers() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("sh");
    command.env_clear().arg("-c").arg(format!("ulimit -n {LIMIT}; exec \"$0\" --log-format json"));
    command.arg(env!("CARGO_BIN_EXE_chat-server"));
    let node = Running::start_logging_to(&mut command, Stdio::from(log.reopen().unwrap()));
    let address: SocketAddr = node.address.parse().unwrap();
    let mut ann = Client::in_room(address, "a").await;
    let mut bob = Client::in_room(address, "a").await;
    assert_eq!(http(address, "GET /health HTTP/1.1", "").await.0, 200);

    // Connections that say nothing take what is left.
    let mut idle = Vec::new();
    for _ in 0..2 * LIMIT {
        idle.push(TcpStream::connect(address).await.expect("the kernel's queue takes it"));
    }
    // Those beyond the limit are refused, in the order of their coming; then it is the health check's turn.
    let (status, body) = http(address, "GET /health HTTP/1.1", "").await;
    assert_eq!((status, body.trim()), (503, r#"{"unavailable":"out of file descriptors"}"#));
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("out of file descriptors")).collect();
    assert!(lines.len() == 1 && lines[0].contains("ulimit -n") && lines[0].contains("LimitNOFILE"), "{text}");

    // Who is there notices nothing.
    ann.call(json!({"publish": {"channel": "a", "data": "still here"}})).await;
    assert_eq!(
        (ann.publication().await, bob.publication().await),
        (json!("still here"), json!("still here"))
    );

    drop(idle);
    within(async {
        while http(address, "GET /health HTTP/1.1", "").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut carl = Client::in_room(address, "a").await;
    ann.call(json!({"publish": {"channel": "a", "data": "welcome"}})).await;
    assert_eq!(carl.publication().await, "welcome");
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("there are file descriptors again"), "{text}");
}
