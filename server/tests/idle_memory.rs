//! What an idle connection costs the server process.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use manifold_protocol::websocket::{Opcode, append_client_frame, handshake};

/// Connections, each of them in one of a hundred rooms.
const CONNECTIONS: usize = 2_000;
/// The bound, per connection.
const RESIDENT_BYTES_MAX: usize = 4 * 1024;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

fn connect(address: &str, room: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let key = handshake::client_key([7; 16]);
    let mut request = Vec::new();
    handshake::append_request(&mut request, address, "/connection/websocket", &key, &[]);
    // As SDKs do: first the handshake, then the commands.
    stream.write_all(&request).unwrap();
    read_until(&mut stream, b"\r\n\r\n");
    let commands =
        format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"room-{room}\"}}}}");
    let mut frame = Vec::new();
    append_client_frame(&mut frame, Opcode::Text, commands.as_bytes(), [1, 2, 3, 4]);
    stream.write_all(&frame).unwrap();
    read_until(&mut stream, b"\"subscribe\":{}}");
    stream
}

fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(end) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn an_idle_connection_costs_a_few_kib() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-server"));
    command.args(["--listen", "127.0.0.1:0"]).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    // The first ones pay for what all share.
    let warm: Vec<_> = (0..100).map(|room| connect(&address, room)).collect();
    let before = server.resident_bytes();
    let connections: Vec<_> = (0..CONNECTIONS).map(|index| connect(&address, index % 100)).collect();
    let each = server.resident_bytes().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes per idle connection, of {CONNECTIONS}");
    assert!(each <= RESIDENT_BYTES_MAX, "{each} bytes per idle connection");
    drop((warm, connections));
}
