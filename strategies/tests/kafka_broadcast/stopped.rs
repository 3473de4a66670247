//! A node that is stopped for longer than its lease, expelled, and continued: it comes back by itself and has missed
//! nothing. The stopped node is a process of its own: this test binary again.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use manifold_strategies::{Backplane, Entrance, Event, Position, RoomId, Start};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::brokers::{address, shared};
use crate::node::{DEADLINE, Node, ROOM, Stream, namespace, run};

const CHILD: &str = "MANIFOLD_TEST_CHILD";
/// As the defaults, but a message's copies lie closer together, so that a short life is long enough to tell them apart.
pub(crate) const CHILD_SETTINGS: &str = "publish_timeout_ms = 1000";
/// A lease that is long enough to tell who waits for it from a slow machine.
pub(crate) const LONG_LEASE: &str = "lease_ms = 20000";
/// A pause that a slow machine may make by itself, and nobody who waits for most of that lease.
pub(crate) const OWN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Tells the parent process what arrives.
struct Teller;

impl Entrance for Teller {
    fn deliver(&self, batch: &mut Vec<Event>) {
        for event in batch.drain(..) {
            match event {
                Event::Message(message) => {
                    eprintln!("got {}", String::from_utf8_lossy(&message.envelope.payload))
                }
                Event::Reconnected => eprintln!("reconnected"),
                Event::Gap { .. } => eprintln!("gap"),
                Event::Skipped { .. } | Event::Renumbered { .. } => {}
            }
        }
    }
}

/// The child process. Run without its parent it does nothing.
#[test]
fn child() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let [kafka, namespace, settings]: [&str; 3] =
        child.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("address, namespace and settings");
    let start = Start {
        node: "child".into(),
        namespace: namespace.into(),
        kafka: Some(kafka.into()),
        redis: None,
        settings: toml::from_str(settings).expect("settings are TOML"),
        connect_retry: None,
        entrance: Arc::new(Teller),
    };
    run(async {
        let connect = manifold_strategies::kafka_broadcast::KafkaBroadcast::connect(start);
        let backplane = connect.await.expect("the child connects");
        let place = backplane.join(&RoomId::new(ROOM)).await.expect("the room is joined");
        eprintln!("stands at {} {}", place.epoch, place.offset);
        eprintln!("ready");
        // Until the parent is gone or says so.
        let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        parent.await.expect("read").expect("stdin is a pipe");
        let stats = backplane.stats();
        eprintln!("gaps {}", stats.gaps.get());
        eprintln!("repaired {}, {} messages", stats.gaps_repaired.get(), stats.gap_messages_repaired.get());
        backplane.shutdown().await.expect("the child shuts down");
    });
}

/// Starts the child process and returns when it is in the room.
pub(crate) async fn start_child(kafka: &str, namespace: &str, settings: &str) -> (Child, Arc<Told>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "stopped::child", "--nocapture"])
        .env(CHILD, format!("{kafka} {namespace} {settings}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let told = Told::listen(&mut child);
    told.wait_for("ready").await;
    (child, told)
}

/// What the child told.
#[derive(Default)]
pub(crate) struct Told {
    lines: Mutex<Vec<String>>,
    changed: Notify,
}

impl Told {
    fn listen(child: &mut Child) -> Arc<Self> {
        let told = Arc::new(Self::default());
        let (listener, stderr) = (Arc::clone(&told), child.stderr.take().expect("stderr is piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                listener.lines.lock().push(line);
                listener.changed.notify_one();
            }
        });
        told
    }

    async fn wait_for(&self, what: &str) {
        self.find(what, |line| line == what).await;
    }

    /// The first line that begins like this.
    async fn line(&self, begin: &str) -> String {
        self.find(begin, |line| line.starts_with(begin)).await
    }

    async fn find(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let wait = async {
            loop {
                if let Some(line) = self.lines.lock().iter().find(|line| is_it(line)) {
                    return line.clone();
                }
                self.changed.notified().await;
            }
        };
        let found = tokio::time::timeout(DEADLINE, wait).await;
        let last = || self.lines.lock().iter().rev().take(9).cloned().collect::<Vec<_>>();
        found.unwrap_or_else(|_| panic!("waited for {what:?}; the last lines: {:?}", last()))
    }

    /// Where the child stood when it had joined the room.
    pub(crate) fn place(&self) -> Position {
        let lines = self.lines.lock();
        let told = lines.iter().find_map(|line| line.strip_prefix("stands at ")?.split_once(' '));
        let (epoch, offset) = told.expect("the child told its place");
        Position { epoch: epoch.parse().expect("a number"), offset: offset.parse().expect("a number") }
    }

    fn numbers(&self) -> Vec<u64> {
        self.lines.lock().iter().filter_map(|line| line.strip_prefix("got ")?.parse().ok()).collect()
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill {name}");
}

#[test]
fn a_node_that_was_stopped_and_expelled_comes_back_and_missed_nothing() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", LONG_LEASE).await;
        let (mut child, told) = start_child(&kafka, &namespace, LONG_LEASE).await;
        let stream = Stream::start(&publisher);
        told.wait_for("got 200").await;

        signal(&child, "-STOP");
        let stats = publisher.backplane.stats();
        let two_writes = |writes: u64, publishes: u64| {
            let (wrote, published) = (stats.broker_writes.get() - writes, stats.publishes.get() - publishes);
            (published, wrote)
        };
        loop {
            let (writes, publishes) = (stats.broker_writes.get(), stats.publishes.get());
            publisher.inbox.wait_for(stream.next() + 50).await;
            let (published, wrote) = two_writes(writes, publishes);
            if wrote <= published + 1 {
                break;
            }
        }
        println!("expelled after message {}", stream.next());
        publisher.inbox.wait_for(stream.next() + 300).await;
        signal(&child, "-CONT");
        told.wait_for("reconnected").await;
        publisher.inbox.wait_for(stream.next() + 200).await;
        let last = stream.finish().await;
        told.wait_for(&format!("got {last}")).await;

        let got = told.numbers();
        let expected: Vec<u64> = (got[0]..=last).collect();
        let missing: Vec<_> = expected.iter().filter(|number| !got.contains(number)).take(5).collect();
        assert!(missing.is_empty(), "{} of {}; missing {missing:?}", got.len(), expected.len());
        assert!(got == expected, "duplicates or out of order: {} instead of {}", got.len(), expected.len());
        drop(child.stdin.take());
        told.wait_for("gaps 0").await;
        let repaired = told.line("repaired ").await;
        println!("{repaired}");
        let messages = repaired
            .strip_prefix("repaired 1, ")
            .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        assert!(messages.is_some_and(|messages| messages >= 300), "{repaired}");
        assert!(child.wait().expect("the child ends").success());
        let pause = publisher.inbox.longest_pause();
        assert!(pause < OWN_PAUSE_MAX, "{pause:?}: nobody waits for the stopped node");
        publisher.shutdown().await;
    });
}
