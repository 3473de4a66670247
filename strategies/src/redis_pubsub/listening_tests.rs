//! Rooms whose head Redis refuses to write for the time being, on a real server.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use manifold_compose::{Environment, Purpose, RedisTopology, Request};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::interval;

use super::*;
use crate::backplane::{Envelope, MessageId};
use crate::clients::redis::Address;
use crate::clients::redis::connection::{Connection, Opening};
use crate::envelope::{self, View};
use crate::redis_pubsub::live::{Live, Setup};
use crate::redis_pubsub::settings::Settings;
use crate::redis_pubsub::wire::Wire;
use crate::redis_pubsub::work::{Operation, Publish};
use crate::stats::Stats;

const LIMIT: Duration = Duration::from_secs(20);

/// What a strategy is told of its rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Top(RoomId),
    Message(RoomId),
    Missing,
    Interrupted,
}

#[derive(Default, Clone)]
struct Strategy(Arc<Mutex<Vec<Told>>>);

impl Strategy {
    async fn is_told(&self, wanted: Told) -> anyhow::Result<()> {
        let (until, mut pace) = (Instant::now() + LIMIT, interval(Duration::from_millis(5)));
        while !self.0.lock().contains(&wanted) {
            ensure!(Instant::now() < until, "never told {wanted:?}");
            pace.tick().await;
        }
        Ok(())
    }
}

impl Wire for Strategy {
    fn encode(&self, message: &Envelope, out: &mut Vec<u8>) {
        envelope::encode(message, None, out);
    }

    fn read<'a>(&self, body: &'a [u8]) -> Result<View<'a>> {
        View::parse(body)
    }

    fn inbound(&self) -> Box<dyn Inbound> {
        Box::new(self.clone())
    }
}

impl Inbound for Strategy {
    fn message(&mut self, room: &RoomId, _: Position, _: &[u8], _: bool) {
        self.0.lock().push(Told::Message(room.clone()));
    }
    fn missing(&mut self, _: &RoomId, _: u64, _: u64, _: u64) {
        self.0.lock().push(Told::Missing);
    }
    fn top(&mut self, room: &RoomId, _: Position) {
        self.0.lock().push(Told::Top(room.clone()));
    }
    fn interrupted(&mut self) {
        self.0.lock().push(Told::Interrupted);
    }
    fn reconnected(&mut self) {}
    fn flush(&mut self) {}
}

async fn publish(live: &Live, room: &RoomId) -> anyhow::Result<Position> {
    let (sender, outcome) = oneshot::channel();
    live.publish(Publish {
        envelope: Envelope {
            room: room.clone(),
            id: MessageId(rand::random()),
            published_at_us: 0,
            info: Bytes::new(),
            payload: Bytes::from_static(b"text"),
        },
        operation: Operation::Publish,
        until: Instant::now() + LIMIT,
        done: Box::new(move |_, outcome| drop(sender.send(outcome))),
    })?;
    Ok(outcome.await??)
}

/// Where a strategy has another way it goes on without the live path, and nobody joins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_was_refused_for_the_time_being_is_live_as_soon_as_it_can() -> anyhow::Result<()> {
    let request = Request {
        kafka: None,
        redis: Some(RedisTopology::Single),
        purpose: Purpose::Tests,
        kafka_given: None,
        redis_given: None,
    };
    let servers = Environment::start(&request)?;
    let redis = servers.redis().context("it runs")?;
    let strategy = Strategy::default();
    let live = Live::start(Setup {
        address: Address::parse(redis)?,
        namespace: "full".to_owned(),
        node: "a".to_owned(),
        settings: Settings { heartbeat_ms: 60, ..Settings::default() },
        fail_fast: true,
        connect_retry: None,
        wire: Arc::new(strategy.clone()),
        stats: Arc::new(Stats::default()),
    });
    let live = live.await?;
    let opening = Opening { login: Default::default(), database: 0, name: "admin".into(), timeout: LIMIT };
    let mut admin = Connection::open(redis.trim_start_matches("redis://"), &opening).await?;
    admin.call(&[b"CONFIG", b"SET", b"maxmemory", b"1"], LIMIT).await?;
    let rooms: Vec<RoomId> = (0..300).map(|number| RoomId::new(format!("room {number}"))).collect();
    let left = &rooms[299];
    // Joined again meanwhile, it is refused again, and does not wait.
    for _ in 0..2 {
        for room in &rooms {
            let error = live.join(room).await.err().context("there is no memory")?;
            ensure!(error.is_temporary(), "it may be tried again: {error}");
        }
        live.leave(left)?;
    }
    admin.call(&[b"CONFIG", b"SET", b"maxmemory", b"0"], LIMIT).await?;
    for room in &rooms[..299] {
        strategy.is_told(Told::Top(room.clone())).await?;
        publish(&live, room).await?;
        strategy.is_told(Told::Message(room.clone())).await?;
    }
    let told = strategy.0.lock().clone();
    ensure!(!told.contains(&Told::Interrupted) && !told.contains(&Told::Missing), "it took no link");
    ensure!(live.join(&rooms[0]).await.is_ok() && live.join(left).await.is_ok(), "joins go through");
    Ok(live.shutdown().await?)
}
