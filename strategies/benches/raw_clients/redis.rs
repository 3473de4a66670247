//! One publisher and some subscribers of rooms of their own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context as _, Result, bail, ensure};
use manifold_strategies::clients::redis::connection::{Connection, Opening};
use manifold_strategies::clients::redis::{Address, Kind, Value, resp};

use crate::{LOOK, Order, PATIENCE, ROOMS, Reader, Shared, runtime};

/// Publishes and subscribes as ordered.
pub(crate) fn run(order: &Order, shared: &Arc<Shared>) -> Result<()> {
    let address = Address::parse(&order.address)?;
    ensure!(address.kind == Kind::Plain, "the bare loop needs a single Redis, redis://…");
    let opening = Opening {
        login: address.login.clone(),
        database: address.database,
        name: order.name.clone(),
        timeout: PATIENCE,
    };
    let host = address.hosts.first().context("the address names no host")?.clone();
    let rooms: Vec<String> = (0..ROOMS).map(|number| order.room(number)).collect();
    let readers = (0..order.consumers)
        .map(|_| reader(host.clone(), opening.clone(), rooms.clone(), Arc::clone(shared)))
        .collect::<Result<Vec<_>>>()?;
    let runtime = runtime()?;
    let mut connection = runtime.block_on(Connection::open(&host, &opening))?;
    let mut unanswered = 0;
    order.perform("redis", shared, readers, &mut |number, payload| {
        let room = rooms[(number % ROOMS) as usize].as_bytes();
        resp::put_command(connection.outbox(), &[b"PUBLISH", room, payload]);
        unanswered += 1;
        runtime.block_on(pass(&mut connection))?;
        unanswered -= answers(&mut connection)?;
        Ok(())
    })?;
    runtime.block_on(async {
        while unanswered > 0 {
            tokio::time::timeout(PATIENCE, connection.turn()).await.context("Redis does not answer")??;
            unanswered -= answers(&mut connection)?;
        }
        Ok(())
    })
}

/// Writes what waits and reads what is there, as the strategy does, which waits for no answer before it sends the next message.
async fn pass(connection: &mut Connection) -> Result<()> {
    // The runtime looks at the sockets when it is yielded to.
    tokio::task::yield_now().await;
    let mut turn = pin!(connection.turn());
    match poll_fn(|context| Poll::Ready(turn.as_mut().poll(context))).await {
        Poll::Ready(outcome) => Ok(outcome?),
        Poll::Pending => Ok(()),
    }
}

/// Takes the answers that have come: how many.
fn answers(connection: &mut Connection) -> Result<u64> {
    let mut count = 0;
    while let Some(answer) = connection.received()? {
        if let Value::Error(text) = answer {
            bail!("Redis says {}", String::from_utf8_lossy(&text));
        }
        count += 1;
    }
    Ok(count)
}

/// A subscriber of every room. Returns once all subscriptions are confirmed.
fn reader(host: String, opening: Opening, rooms: Vec<String>, shared: Arc<Shared>) -> Result<Reader> {
    let runtime = runtime()?;
    let mut connection = runtime.block_on(async {
        let mut connection = Connection::open(&host, &opening).await?;
        let mut command: Vec<&[u8]> = vec![b"SUBSCRIBE"];
        command.extend(rooms.iter().map(|room| room.as_bytes()));
        resp::put_command(connection.outbox(), &command);
        let mut confirmed = 0;
        while confirmed < rooms.len() {
            match connection.received()? {
                Some(Value::Error(text)) => bail!("Redis says {}", String::from_utf8_lossy(&text)),
                Some(_) => confirmed += 1,
                None => connection.turn().await?,
            }
        }
        Ok(connection)
    })?;
    Ok(std::thread::spawn(move || {
        let mut latencies = Vec::new();
        while !shared.stopped() {
            match connection.received()? {
                Some(Value::Push(parts)) => {
                    let payload = parts.get(2).and_then(Value::text);
                    payload.into_iter().for_each(|payload| shared.take(payload, &mut latencies));
                }
                Some(_) => {}
                None => {
                    let turn = async { tokio::time::timeout(LOOK, connection.turn()).await };
                    // Nothing for a while is no failure.
                    runtime.block_on(turn).unwrap_or(Ok(()))?;
                }
            }
        }
        Ok(latencies)
    }))
}
