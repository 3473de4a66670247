//! What is refused by Redis and takes another way, on a real server.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use manifold_compose::{Environment, Purpose, RedisTopology, Request};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::interval;

use super::*;
use crate::backplane::{BoxFuture, Envelope};
use crate::clients::redis::Address;
use crate::clients::redis::connection::{Connection, Opening};
use crate::envelope::{self, View};
use crate::redis_pubsub::live::{Live, Setup};
use crate::redis_pubsub::settings::Settings;
use crate::redis_pubsub::wire::{Inbound, Wire};
use crate::stats::Stats;

/// What a strategy learns that has another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Taken,
    Refused,
    /// What was refused is settled.
    Settled,
}

#[derive(Default)]
struct Strategy(Arc<Mutex<Vec<Told>>>);

impl Wire for Strategy {
    fn encode(&self, message: &Envelope, out: &mut Vec<u8>) {
        envelope::encode(message, None, out);
    }

    fn read<'a>(&self, body: &'a [u8]) -> Result<View<'a>> {
        View::parse(body)
    }

    fn inbound(&self) -> Box<dyn Inbound> {
        Box::new(Nobody)
    }

    fn before_resume(&self) -> BoxFuture<'static, ()> {
        self.0.lock().push(Told::Settled);
        Box::pin(std::future::ready(()))
    }
}

struct Nobody;

impl Inbound for Nobody {
    fn message(&mut self, _: &RoomId, _: Position, _: &[u8], _: bool) {}
    fn missing(&mut self, _: &RoomId, _: u64, _: u64, _: u64) {}
    fn reconnected(&mut self) {}
    fn flush(&mut self) {}
}

fn publish(told: &Arc<Mutex<Vec<Told>>>, deadline: Duration) -> (Publish, oneshot::Receiver<()>) {
    let (sender, done) = oneshot::channel();
    let told = Arc::clone(told);
    let envelope = Envelope {
        room: RoomId::new("room"),
        id: MessageId(rand::random()),
        published_at_us: 0,
        info: Bytes::new(),
        payload: Bytes::from_static(b"text"),
    };
    let done_with = move |_, outcome: Result<Position>| {
        told.lock().push(if outcome.is_ok() { Told::Taken } else { Told::Refused });
        let _ = sender.send(());
    };
    let until = Instant::now() + deadline;
    (Publish { envelope, operation: Operation::Publish, until, done: Box::new(done_with) }, done)
}

/// Memory becomes full and free again, time after time, with many publishes on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_overtakes_what_was_refused_before_that_is_settled() -> anyhow::Result<()> {
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
    let told = Arc::clone(&strategy.0);
    let live = Live::start(Setup {
        address: Address::parse(redis)?,
        namespace: "full".to_owned(),
        node: "a".to_owned(),
        settings: Settings { resume_delay_ms: 0, ..Settings::default() },
        fail_fast: true,
        connect_retry: None,
        wire: Arc::new(strategy),
        stats: Arc::new(Stats::default()),
    });
    let live = live.await?;
    let limit = Duration::from_secs(20);
    let opening = Opening { login: Default::default(), database: 0, name: "admin".into(), timeout: limit };
    let mut admin = Connection::open(redis.trim_start_matches("redis://"), &opening).await?;
    let mut pace = interval(Duration::from_millis(2));
    let (mut outcomes, mut full, mut times_full) = (Vec::new(), false, 0);
    let until = Instant::now() + limit;
    while full || times_full < 15 {
        ensure!(Instant::now() < until, "full {times_full} times");
        pace.tick().await;
        for _ in 0..20 {
            let (publish, done) = publish(&told, limit);
            live.publish(publish)?;
            outcomes.push(done);
        }
        let last = told.lock().last().copied();
        // Free again as soon as something is refused, with more on its way.
        let (change, maxmemory): (bool, &[u8]) = match last {
            Some(Told::Taken) => (!full, b"1"),
            Some(Told::Refused) => (full, b"0"),
            _ => (false, b""),
        };
        if change {
            full = !full;
            times_full += usize::from(full);
            admin.call(&[b"CONFIG", b"SET", b"maxmemory", maxmemory], limit).await?;
        }
    }
    for outcome in outcomes {
        outcome.await?;
    }
    let told = std::mem::take(&mut *told.lock());
    let count = |wanted| told.iter().filter(|told| **told == wanted).count();
    let (taken, refused, settled) = (count(Told::Taken), count(Told::Refused), count(Told::Settled));
    ensure!(taken > 0 && refused > 0 && settled >= 14, "{taken} taken, {refused} refused, {settled}");
    let overtaken = told.windows(2).filter(|pair| *pair == [Told::Refused, Told::Taken]).count();
    ensure!(overtaken == 0, "{overtaken} times of {settled}");
    Ok(live.shutdown().await?)
}
