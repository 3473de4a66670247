//! Presence in a room of ten thousand members.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use manifold_protocol::websocket::{Opcode, append_client_frame, handshake};

use crate::presence::{connect, join, node, present, quick, stats, subscribe, until_present};
use crate::support::Client;
use crate::test_backplane::Bus;

/// A client that costs little: a socket after handshake, connect and subscribe.
fn small_member(address: SocketAddr, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let mut request = Vec::new();
    let key = handshake::client_key([7; 16]);
    handshake::append_request(&mut request, "test", "/connection/websocket", &key, &[]);
    stream.write_all(&request).expect("the server reads");
    read_until(&mut stream, b"\r\n\r\n");
    let commands =
        format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{room}\"}}}}");
    let mut frame = Vec::new();
    append_client_frame(&mut frame, Opcode::Text, commands.as_bytes(), [1, 2, 3, 4]);
    stream.write_all(&frame).expect("the server reads");
    read_until(&mut stream, b"\"subscribe\":{}}");
    stream
}

fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(end) {
        let count = stream.read(&mut buffer).expect("an answer");
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
}

/// Clients for a giant room: 10,000, or as many as the system lets one process have both ends of.
fn giant_members() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a process may use what it is allowed");
    let files = limit.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let members = (files.saturating_sub(1_000) / 2).min(10_000);
    assert!(members >= 1_000, "too few files may be open: {files}");
    members / 2 * 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_ten_thousand_is_told_whole_and_half_of_it_goes_at_once() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let count = giant_members();
    let addresses = [one.address(), two.address()];
    let fill = move || -> Vec<TcpStream> {
        (0..count).map(|index| small_member(addresses[index % 2], "giant")).collect()
    };
    let members = tokio::task::spawn_blocking(fill).await.unwrap();
    assert_eq!(members.len(), count);
    let (mut ann, mut bob) = (Client::connect(addresses[0]).await, Client::connect(addresses[1]).await);
    for client in [&mut ann, &mut bob] {
        until_present(client, "giant", count as u64).await;
        assert_eq!(present(client, "giant").await.len(), count);
        assert_eq!(stats(client, "giant").await, (count as u64, 1));
    }
    let (mut carl, id) = connect(&one).await;
    subscribe(&mut carl, "giant", true).await;
    while carl.next().await != join("giant", &id) {}
    bus.cut(1, true);
    let mut gone = BTreeSet::new();
    while gone.len() < count / 2 {
        let push = carl.next().await;
        let left = push["push"]["leave"]["info"]["client"].as_str();
        gone.insert(left.unwrap_or_else(|| panic!("only leaves are due: {push}")).to_owned());
    }
    assert_eq!(stats(&mut carl, "giant").await, (count as u64 / 2 + 1, 1));
    let there = present(&mut carl, "giant").await;
    assert!(there.contains(&id) && there.is_disjoint(&gone));
}
