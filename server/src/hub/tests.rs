//! What two threads do to a room at once, one step after the other.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};

use manifold_strategies::{Entrance, Event, Message, Resumed, Start};

use super::*;

const POSITIONED: Grant = Grant { positioned: true, recoverable: false, join_leave: false };

async fn hub() -> Arc<Hub> {
    let settings = HubSettings {
        leave_linger: Duration::ZERO,
        giant_members_min: 2,
        giant_queue_bytes_max: 64 * 1024,
        recovery_hold_bytes_max: 64 * 1024,
        position_check: Duration::ZERO,
    };
    let hub = Hub::new(settings, Arc::default());
    let start = Start {
        node: "n1".to_owned(),
        namespace: "test".to_owned(),
        kafka: None,
        redis: None,
        settings: toml::Table::new(),
        connect_retry: None,
        entrance: Arc::clone(&hub) as Arc<dyn Entrance>,
    };
    let memory = manifold_strategies::find("memory").expect("memory is always there");
    hub.set_backplane((memory.connect)(start).await.expect("memory needs no broker"));
    hub
}

/// A session, and the client's end of it.
fn session() -> (Arc<Session>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    (Arc::new(Session::new(stream, 1, 64 * 1024).unwrap()), client)
}

fn ticket(hub: &Arc<Hub>) -> Ticket {
    match hub.reserve("a") {
        Reservation::Ready(ticket) => ticket,
        other => panic!("memory joins at once: {other:?}"),
    }
}

fn gap() -> Vec<Event> {
    vec![Event::Gap { room: RoomId::new("a"), from: 1, to: 3 }]
}

#[tokio::test]
async fn a_member_sent_away_before_its_ticket_is_gone_leaves_no_interest_behind() {
    let hub = hub().await;
    let (session, _client) = session();
    let (first, second) = (ticket(&hub), ticket(&hub));
    let (room, slot) = hub.attach(first, &session, POSITIONED, None, |_, _| {});
    hub.deliver(&mut gap());
    assert!(!room.holds(slot, &session), "it asked to be told");
    assert_eq!(hub.room_count(), 1, "somebody else is on the way");
    drop(second);
    assert_eq!(hub.room_count(), 0);
    // The same within one `attach`: the gap comes between the membership and the end of its ticket.
    let ticket = ticket(&hub);
    let room = Arc::clone(&ticket.room);
    let member = Member {
        session,
        joined_serial: 0,
        positioned: true,
        recoverable: false,
        void: false,
        join_leave: false,
        _stay: None,
    };
    room.lock().members.insert(member);
    hub.deliver(&mut gap());
    assert_eq!((room.len(), hub.room_count()), (0, 1));
    drop(ticket);
    assert_eq!(hub.room_count(), 0);
}

#[tokio::test]
async fn nobody_is_sent_away_in_the_middle_of_a_turn() {
    let hub = hub().await;
    let (session, _client) = session();
    let (room, slot) = hub.attach(ticket(&hub), &session, POSITIONED, None, |_, _| {});
    let jump = |offset: u64| {
        let envelope = manifold_strategies::Envelope {
            room: RoomId::new("a"),
            id: manifold_strategies::MessageId(offset.into()),
            published_at_us: 0,
            info: bytes::Bytes::new(),
            payload: bytes::Bytes::from_static(b"1"),
        };
        let position = Position { epoch: 7, offset };
        vec![Event::Message(manifold_strategies::Message { envelope, position })]
    };
    for mut batch in [gap(), jump(100)] {
        let (slot, room) = match room.holds(slot, &session) {
            true => (slot, Arc::clone(&room)),
            false => {
                let (room, slot) = hub.attach(ticket(&hub), &session, POSITIONED, None, |_, _| {});
                (slot, room)
            }
        };
        // A turn has taken note of its members, and sends.
        let turn = room.turn.lock();
        let (done, finished) = mpsc::channel();
        let delivering = Arc::clone(&hub);
        let thread = std::thread::spawn(move || {
            delivering.deliver(&mut batch);
            done.send(()).unwrap();
        });
        let early = finished.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "the goodbye waits for the turn's end");
        assert!(room.holds(slot, &session));
        drop(turn);
        finished.recv_timeout(Duration::from_secs(20)).expect("the turn is over");
        thread.join().unwrap();
        assert!(!room.holds(slot, &session));
    }
}

/// Those who came back to a giant room wait for their turn like all others: nobody is served on the delivering thread.
#[tokio::test]
async fn who_trails_in_a_giant_room_is_served_in_its_turn() {
    use std::io::{ErrorKind, Read};

    let hub = hub().await;
    let message = |id: u128, offset: u64| Message {
        envelope: manifold_strategies::Envelope {
            room: RoomId::new("a"),
            id: manifold_strategies::MessageId(id),
            published_at_us: 0,
            info: bytes::Bytes::new(),
            payload: format!("\"<{id}>\"").into(),
        },
        position: Position { epoch: 7, offset },
    };
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (session, mut client) = session();
        let recovery = hub.begin_recovery(ticket(&hub));
        let messages = vec![message(8, 0)];
        let answer = Answer::new(Resumed::Complete { messages, top: Position { epoch: 7, offset: 4 } });
        assert!(hub.finish_recovery(recovery, &session, Grant::default(), &answer, None, |_| true).is_some());
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        sockets.push((session, client));
    }
    let batch = [message(5, 5), message(8, 6), message(7, 7)];
    hub.deliver(&mut batch.map(Event::Message).into());
    for (_, client) in &mut sockets {
        assert_eq!(client.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    // This thread is the runtime's own: the room's task has had no turn so far.
    let room = hub.find("a").unwrap();
    while room.take_turn(&hub.metrics) {}
    for (_, client) in &mut sockets {
        let mut bytes = vec![0; 4096];
        let length = client.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let order = ["<5>", "<7>"].map(|data| text.find(data).unwrap_or_else(|| panic!("{data}: {text}")));
        assert!(order[0] < order[1] && !text.contains("<8>"), "{text}");
    }
}
