//! The subscribing half of a lane: one task that owns the lane's rooms, over one connection at a time.
//!
//! A connection that stays silent too long is *suspected*, not dropped: another one is opened beside it, and whichever
//! speaks first is kept. A server that was only frozen has not lost its subscriptions, so nothing is missed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep};

use super::lanes::{Lane, Session, Standing, Use};
use super::listening::{Books, Listening};
use super::live::Shared;
use super::repair::{Read, Repairs};
use super::rooms::{Joined, Room, Rooms, Waiter};
use super::wire::Inbound;
use crate::backplane::RoomId;
use crate::error::{Error, ErrorKind};

/// How often timeouts, lingering rooms and the heartbeat are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Requests taken in one go, which become one batch of subscriptions.
const BATCH_MAX: usize = 1024;

/// What the task is asked for.
pub(crate) enum Request {
    /// A room has its first local member.
    Join { room: RoomId, waiter: Waiter, until: Instant },
    /// A room lost its last local member.
    Leave { room: RoomId },
    /// Another lane hands over a room whose slot has moved.
    Adopt(Room),
    /// The lane has no slots any more, and nothing comes after this: hand the rooms over and end.
    Retire,
}

type Opening = Pin<Box<dyn Future<Output = Session> + Send>>;

/// The task.
pub(crate) struct Subscriber {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    requests: mpsc::UnboundedReceiver<Request>,
    rooms: Rooms,
    repairs: Repairs,
    link: Link,
    standing: Standing,
    /// The lane has no slots any more, and ends at this time at the latest.
    retires_at: Option<Instant>,
}

/// What the other side knows of the link: of one that breaks again before everything is subscribed it hears once.
struct Link {
    inbound: Box<dyn Inbound>,
    /// The link broke, and that it is back has not been told yet.
    interrupted: bool,
}

impl Link {
    fn new(inbound: Box<dyn Inbound>) -> Self {
        Self { inbound, interrupted: false }
    }

    fn broken(&mut self) {
        if !std::mem::replace(&mut self.interrupted, true) {
            self.inbound.interrupted();
        }
        self.inbound.flush();
    }

    /// Says whether it was broken.
    fn whole(&mut self) -> bool {
        let was_broken = std::mem::take(&mut self.interrupted);
        if was_broken {
            self.inbound.reconnected();
        }
        was_broken
    }
}

/// Why the task stopped serving a connection.
enum End {
    Closing,
    Broken(Error),
    Replaced(Session),
}

impl Subscriber {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lane: Arc<Lane>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        let link = Link::new(shared.wire.inbound());
        let (repairs, standing) = (Repairs::new(&shared), Standing::new(&shared));
        let rooms = Rooms::default();
        Self { shared, lane, requests, rooms, repairs, link, standing, retires_at: None }
    }

    /// Runs until the live path closes or the lane retires. `session` is the first connection, if there is one already.
    pub(crate) async fn run(mut self, mut session: Option<Session>) {
        let mut closing = self.shared.closing.subscribe();
        loop {
            let serving = match session.take() {
                Some(session) => session,
                None => match self.reconnect(&mut closing).await {
                    Some(session) => session,
                    None => break,
                },
            };
            self.rehome();
            let end = tokio::select! {
                end = self.serve(serving) => end,
                () = closed(&mut closing) => End::Closing,
            };
            if matches!(end, End::Closing) {
                break;
            }
            self.lane.listening.send_replace(false);
            self.standing.set(true);
            self.link.broken();
            for room in self.rooms.iter_mut() {
                room.confirmed = false;
            }
            match end {
                End::Closing => break,
                End::Broken(error) => tracing::warn!(%error, "listening to Redis is interrupted"),
                End::Replaced(fresh) => {
                    tracing::warn!("Redis kept silent; listening goes on over a new connection");
                    session = Some(fresh);
                }
            }
        }
        if self.retires_at.is_some() {
            self.rehome();
            // From here on the other lanes' links count.
            self.link.whole();
        }
        self.link.inbound.flush();
    }

    /// Listens over one connection until it breaks.
    async fn serve(&mut self, session: Session) -> End {
        let shared = Arc::clone(&self.shared);
        let mut listening = Listening::new(&shared, session);
        listening.subscribe_all(&mut self.rooms);
        let mut taken = Vec::with_capacity(BATCH_MAX);
        let mut tick = interval(TICK);
        let mut opening: Option<Opening> = None;
        let mut spare: Option<Session> = None;
        loop {
            if let Err(error) = listening.collect(&mut self.books()) {
                return End::Broken(error);
            }
            if listening.take_complete() {
                self.resumed();
            }
            self.link.inbound.flush();
            if !listening.is_silent() && opening.is_some() | spare.is_some() {
                (opening, spare) = (None, None);
                self.standing.set(false);
            }
            tokio::select! {
                received = listening.turn() => if let Err(error) = received {
                    return End::Broken(error);
                },
                count = self.requests.recv_many(&mut taken, BATCH_MAX) => {
                    if count == 0 {
                        return End::Closing;
                    }
                    let joined = self.take_requests(&mut taken);
                    listening.subscribe(&joined, &mut self.rooms);
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    // The server ends the subscriptions of slots that it lost, behind their last message.
                    if self.retires_at.is_some_and(|at| at <= now || self.rooms.names().next().is_none()) {
                        return End::Closing;
                    }
                    self.expire(now, false);
                    listening.unsubscribe(&self.rooms.take_left(now));
                    if listening.is_silent() {
                        // It had one more tick than its rival, and still says nothing.
                        if let Some(fresh) = spare.take() {
                            return End::Replaced(fresh);
                        }
                        self.standing.set(true);
                        opening.get_or_insert_with(|| self.open());
                    } else {
                        listening.beat(now, &self.rooms);
                    }
                }
                fresh = opened(&mut opening) => (opening, spare) = (None, Some(fresh)),
                read = self.repairs.next() => self.repair(read),
            }
        }
    }

    fn books(&mut self) -> Books<'_> {
        Books { rooms: &mut self.rooms, repairs: &mut self.repairs, inbound: self.link.inbound.as_mut() }
    }

    /// Passes on what was lost and read back.
    fn repair(&mut self, read: Read) {
        self.repairs.take(read, &mut self.rooms, self.link.inbound.as_mut());
        self.link.inbound.flush();
    }

    /// Every room is subscribed and compared.
    fn resumed(&mut self) {
        self.standing.set(false);
        if self.link.whole() {
            self.shared.stats.reconnects.add(1);
            tracing::info!("listening to Redis resumes");
        }
        // Members are told what they missed before anything is published again.
        self.link.inbound.flush();
        self.lane.listening.send_replace(true);
    }

    /// Enters requests into the books. Returns the rooms to subscribe.
    fn take_requests(&mut self, requests: &mut Vec<Request>) -> Vec<RoomId> {
        let mut joined = Vec::new();
        for request in requests.drain(..) {
            match request {
                Request::Join { room, waiter, until } => match self.rooms.join(&room, waiter, until) {
                    Joined::New => joined.push(room),
                    Joined::Coming => {}
                    Joined::Known(position, waiter) => {
                        self.link.inbound.top(&room, position);
                        let _ = waiter.send(Ok(position));
                    }
                },
                Request::Leave { room } => {
                    let now = Instant::now();
                    let adoptable = self.shared.sharded().then(|| now + self.shared.handing_over());
                    self.rooms.leave(&room, now + self.shared.settings.linger(), adoptable);
                }
                Request::Adopt(room) => {
                    let id = room.id.clone();
                    if self.rooms.adopt(room, Instant::now() + self.shared.settings.linger()) {
                        joined.push(id);
                    }
                }
                Request::Retire => {
                    self.retires_at = Some(Instant::now() + self.shared.settings.response_timeout());
                }
            }
        }
        joined
    }

    /// Fails joins whose time is up, or all of them. Without a link a strategy that fails fast keeps the rooms, so that
    /// they are subscribed as soon as there is one.
    fn expire(&mut self, now: Instant, all: bool) {
        for waiter in self.rooms.take_expired(now, all, self.shared.fail_fast) {
            let error = Error::new(ErrorKind::Unreachable, "join", "no link to Redis to subscribe over");
            let _ = waiter.send(Err(error));
        }
    }

    /// Opens connections until one stands.
    fn open(&self) -> Opening {
        let (shared, lane) = (Arc::clone(&self.shared), Arc::clone(&self.lane));
        Box::pin(async move {
            loop {
                match shared.connect(&lane, Use::Subscribe).await {
                    Ok(session) => return session,
                    Err(error) => tracing::debug!(%error, "cannot listen to Redis yet"),
                }
                sleep(shared.settings.reconnect_delay()).await;
            }
        })
    }

    /// Opens a connection again, and keeps the books meanwhile. `None` when the live path closes or the lane
    /// retires.
    async fn reconnect(&mut self, closing: &mut watch::Receiver<bool>) -> Option<Session> {
        let mut opening = self.open();
        let mut tick = interval(TICK);
        loop {
            if self.retires_at.is_some() {
                return None;
            }
            self.expire(Instant::now(), self.shared.fail_fast);
            tokio::select! {
                session = &mut opening => return Some(session),
                () = closed(closing) => return None,
                request = self.requests.recv() => drop(self.take_requests(&mut vec![request?])),
                read = self.repairs.next() => self.repair(read),
                _ = tick.tick() => {
                    // Other lanes have the slots of a master that does not come back.
                    self.rehome();
                    drop(self.rooms.take_left(Instant::now()));
                }
            }
        }
    }

    /// Hands rooms whose slot has moved to the lane that serves it now.
    fn rehome(&mut self) {
        if !self.shared.sharded() {
            return;
        }
        let elsewhere = |room: &&RoomId| !Arc::ptr_eq(&self.shared.lane_of(room), &self.lane);
        let moved: Vec<RoomId> = self.rooms.names().filter(elsewhere).cloned().collect();
        for room in moved {
            if let Some(mut entry) = self.rooms.remove(&room) {
                self.repairs.abandon(&mut entry, self.link.inbound.as_mut());
                self.link.inbound.flush();
                // Without the other lane's task the live path is closing.
                let _ = self.shared.request(&room, Request::Adopt(entry));
            }
        }
    }
}

async fn opened(opening: &mut Option<Opening>) -> Session {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// Resolves when the live path closes.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender is part of what every task shares, so it cannot be gone.
    let _ = closing.wait_for(|closing| *closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::Position;

    /// Counts as whoever merges this link with others does.
    struct Count(Arc<std::sync::atomic::AtomicIsize>);

    impl Inbound for Count {
        fn message(&mut self, _: &RoomId, _: Position, _: &[u8], _: bool) {}
        fn missing(&mut self, _: &RoomId, _: u64, _: u64, _: u64) {}
        fn interrupted(&mut self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        fn reconnected(&mut self) {
            self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
        fn flush(&mut self) {}
    }

    #[test]
    fn a_link_that_breaks_again_before_it_is_whole_is_one_interruption() {
        let down = Arc::default();
        let mut link = Link::new(Box::new(Count(Arc::clone(&down))));
        let down = || down.load(std::sync::atomic::Ordering::Relaxed);
        assert!(!link.whole(), "the first connection repairs nothing");
        link.broken();
        link.broken();
        assert_eq!(down(), 1);
        assert!(link.whole());
        assert_eq!(down(), 0);
        assert!(!link.whole());
    }
}
