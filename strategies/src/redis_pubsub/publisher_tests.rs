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
use crate::clients::redis::topology::{discover, slot};
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

fn servers(topology: RedisTopology) -> anyhow::Result<Environment> {
    let request = Request {
        kafka: None,
        redis: Some(topology),
        purpose: Purpose::Tests,
        kafka_given: None,
        redis_given: None,
    };
    Ok(Environment::start(&request)?)
}

async fn start(redis: &str, strategy: Strategy) -> Result<Live> {
    Live::start(Setup {
        address: Address::parse(redis)?,
        namespace: "full".to_owned(),
        node: "a".to_owned(),
        settings: Settings { resume_delay_ms: 0, ..Settings::default() },
        fail_fast: true,
        connect_retry: None,
        wire: Arc::new(strategy),
        stats: Arc::new(Stats::default()),
    })
    .await
}

/// Memory becomes full and free again, time after time, with many publishes on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_overtakes_what_was_refused_before_that_is_settled() -> anyhow::Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().context("it runs")?;
    let strategy = Strategy::default();
    let told = Arc::clone(&strategy.0);
    let live = start(redis, strategy).await?;
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

/// A slot of a cluster is set on its way, and stays there for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_its_way_is_left_alone_until_it_has_arrived() -> anyhow::Result<()> {
    let servers = servers(RedisTopology::Cluster)?;
    let redis = servers.redis().context("it runs")?;
    let strategy = Strategy::default();
    let told = Arc::clone(&strategy.0);
    let live = start(redis, strategy).await?;
    let limit = Duration::from_secs(20);
    let opening = Opening { login: Default::default(), database: 0, name: "admin".into(), timeout: limit };
    let moves = slot(b"full:room");
    let (number, mut masters) = (moves.to_string(), Vec::new());
    for shard in discover(&Address::parse(redis)?, &[], &opening).await? {
        let owns = shard.slots.iter().any(|(first, last)| (*first..=*last).contains(&moves));
        let mut admin = Connection::open(&shard.host, &opening).await?;
        let id = admin.call(&[b"CLUSTER", b"MYID"], limit).await?.text().context("an id")?.clone();
        masters.push((!owns, admin, id));
    }
    masters.sort_by_key(|(elsewhere, ..)| *elsewhere);
    let [(_, from, from_id), (_, to, to_id), ..] = &mut masters[..] else { anyhow::bail!("few masters") };
    let (first, done) = publish(&told, limit);
    live.publish(first)?;
    done.await?;
    to.call(&[b"CLUSTER", b"SETSLOT", number.as_bytes(), b"IMPORTING", from_id], limit).await?;
    from.call(&[b"CLUSTER", b"SETSLOT", number.as_bytes(), b"MIGRATING", to_id], limit).await?;
    let (mut pace, until) = (interval(Duration::from_millis(2)), Instant::now() + limit);
    let mut arrived = false;
    while !arrived || told.lock().last() != Some(&Told::Taken) {
        ensure!(Instant::now() < until, "it never goes on");
        pace.tick().await;
        let (next, done) = publish(&told, limit);
        live.publish(next)?;
        done.await?;
        if !arrived && told.lock().len() > 300 {
            arrived = true;
            for master in [&mut *to, &mut *from] {
                master.call(&[b"CLUSTER", b"SETSLOT", number.as_bytes(), b"STABLE"], limit).await?;
            }
        }
    }
    let told = std::mem::take(&mut *told.lock());
    let settled: Vec<usize> = (0..told.len()).filter(|at| told[*at] == Told::Settled).collect();
    ensure!(settled.len() == 1 && settled[0] >= 300, "goes on at {settled:?} of {}", told.len());
    ensure!(told[1..settled[0]].iter().all(|told| *told == Told::Refused), "overtaken");
    ensure!(told[settled[0] + 1..].iter().all(|told| *told == Told::Taken), "refused again");
    Ok(live.shutdown().await?)
}
