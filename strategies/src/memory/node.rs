//! The backplane within one process.
//!
//! Locks are taken in this order: the table of rooms, a room, the rings. The entrance is called under a room's lock alone.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::settings::Settings;
use crate::backplane::{
    Backplane, BoxFuture, Entrance, Envelope, Event, History, Message, Page, PageQuery, Position, Resumed,
    RoomId,
};
use crate::dedup::DedupWindow;
use crate::envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::{Guarantees, Positions};
use crate::hash::HashMap;
use crate::ring::{Feed, Rings};
use crate::stats::Stats;

/// Message ids that a room remembers: enough for a publisher that retries, at most 20 KiB per busy room.
const REMEMBERED_IDS: usize = 256;

/// A backplane within one process.
pub struct Memory {
    entrance: Arc<dyn Entrance>,
    settings: Settings,
    rooms: RwLock<HashMap<RoomId, Arc<Mutex<Room>>>>,
    rings: Mutex<Rings>,
    next_epoch: AtomicU64,
    closed: AtomicBool,
    stats: Stats,
}

/// A room that has members or history, and the batch buffer that its deliveries reuse.
struct Room {
    joined: bool,
    /// It was taken out of the table: whoever still holds it looks again.
    gone: bool,
    position: Position,
    seen: DedupWindow,
    batch: Vec<Event>,
}

impl Memory {
    /// A backplane that delivers to `entrance`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the system has no random numbers: epochs must differ from those of an earlier process.
    pub fn start(entrance: Arc<dyn Entrance>, settings: Settings) -> Result<Self> {
        let seed = getrandom::u64().map_err(|source| {
            Error::new(ErrorKind::Config, "connect", "the system has no random numbers").with_source(source)
        })?;
        let rings = Rings::new(Feed::Begun, Positions::Dense, settings.limits(), Instant::now());
        Ok(Self {
            entrance,
            settings,
            rooms: RwLock::default(),
            rings: Mutex::new(rings),
            // Never 0, which means that there is none, and far from the largest number.
            next_epoch: AtomicU64::new((seed >> 1) | 1),
            closed: AtomicBool::new(false),
            stats: Stats::default(),
        })
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(SeqCst) {
            return Err(Error::new(ErrorKind::Closed, operation, "the backplane was shut down"));
        }
        Ok(())
    }

    fn publish_now(&self, envelope: Envelope) -> Result<Position> {
        self.check_open("publish")?;
        envelope::check(&envelope)?;
        self.stats.publishes.add(1);
        let id = envelope.room.clone();
        let position =
            self.with_room(&id, self.settings.keeps_history(), |room| self.publish_in(room, envelope));
        self.sweep();
        // Without history, what nobody hears goes nowhere.
        Ok(position.unwrap_or_default())
    }

    fn publish_in(&self, room: &mut Room, envelope: Envelope) -> Position {
        if !room.seen.insert(envelope.id) {
            self.stats.duplicates_removed.add(1);
            return self.rings.lock().position_of(&envelope.room, envelope.id).unwrap_or_default();
        }
        room.position.offset += 1;
        let position = room.position;
        let message = Message { envelope, position };
        if self.settings.keeps_history() {
            self.rings.lock().push(&message, Instant::now());
        }
        if room.joined {
            self.stats.envelopes_received.add(1);
            self.stats.envelopes_wanted.add(1);
            room.batch.push(Event::Message(message));
            self.entrance.deliver(&mut room.batch);
        }
        position
    }

    fn join_now(&self, id: &RoomId) -> Result<Position> {
        self.check_open("join")?;
        let position = self.with_room(id, true, |room| {
            room.joined = true;
            room.position
        });
        self.sweep();
        Ok(position.unwrap_or_default())
    }

    fn leave_now(&self, id: &RoomId) {
        let keeps = self.settings.keeps_history();
        let gone = self.with_room(id, false, |room| {
            room.joined = false;
            room.gone = !keeps;
            self.rings.lock().touch(id, Instant::now());
            room.gone
        });
        if gone == Some(true) {
            self.take_out(id);
        }
        self.sweep();
    }

    fn resume_now(&self, id: &RoomId, since: Position, limit: usize) -> Result<Resumed> {
        self.check_open("resume")?;
        let answer = self.with_room(id, true, |room| {
            let answer = self.rings.lock().after(id, since, room.position, limit, Instant::now());
            answer.unwrap_or(Resumed::Incomplete { top: room.position })
        });
        self.sweep();
        Ok(answer.unwrap_or(Resumed::Incomplete { top: Position::default() }))
    }

    fn page_now(&self, id: &RoomId, query: PageQuery) -> Result<Page> {
        self.check_open("history")?;
        let page = self.with_room(id, true, |room| {
            self.rings.lock().page(id, query, room.position, Instant::now()).page
        });
        self.sweep();
        Ok(page.unwrap_or_default())
    }

    fn remove_now(&self, id: &RoomId) -> Result<()> {
        self.check_open("history")?;
        self.with_room(id, false, |_| self.rings.lock().clear(id));
        Ok(())
    }

    /// Does something with a room, under its lock. `None` if there is no such room and none shall be made.
    fn with_room<T>(&self, id: &RoomId, make: bool, act: impl FnOnce(&mut Room) -> T) -> Option<T> {
        loop {
            let found = self.rooms.read().get(id).cloned();
            let shared = match found {
                Some(shared) => shared,
                None if make => self.make(id),
                None => return None,
            };
            let mut room = shared.lock();
            if !room.gone {
                return Some(act(&mut room));
            }
            drop(room);
            self.take_out(id);
        }
    }

    fn make(&self, id: &RoomId) -> Arc<Mutex<Room>> {
        let mut rooms = self.rooms.write();
        let room = rooms.entry(id.clone()).or_insert_with(|| {
            let position = Position { epoch: self.next_epoch.fetch_add(1, Relaxed), offset: 0 };
            let mut rings = self.rings.lock();
            rings.begin(id, position, 0);
            // Whatever it is made for, it is kept for a while.
            rings.touch(id, Instant::now());
            let seen = DedupWindow::new(REMEMBERED_IDS);
            Arc::new(Mutex::new(Room { joined: false, gone: false, position, seen, batch: Vec::new() }))
        });
        Arc::clone(room)
    }

    /// Takes a room out of the table, if it is gone.
    fn take_out(&self, id: &RoomId) {
        let mut rooms = self.rooms.write();
        // Locked by nobody for long: what is gone delivers nothing. A new room of that name may be busy, and stays.
        if rooms.get(id).is_some_and(|room| room.try_lock().is_some_and(|room| room.gone)) {
            rooms.remove(id);
        }
    }

    /// Forgets rooms that nobody is in and whose history is too old, some of them if there are many.
    fn sweep(&self) {
        if !self.settings.keeps_history() {
            return;
        }
        let emptied = self.rings.lock().sweep(Instant::now());
        for id in emptied {
            let gone = self.with_room(&id, false, |room| {
                let mut rings = self.rings.lock();
                if !room.joined && !rings.holds(&id) {
                    rings.end(&id);
                    room.gone = true;
                }
                room.gone
            });
            if gone == Some(true) {
                self.take_out(&id);
            }
        }
    }
}

impl Backplane for Memory {
    fn guarantees(&self) -> Guarantees {
        self.settings.guarantees()
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        Box::pin(ready(self.publish_now(envelope)))
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        Box::pin(ready(self.join_now(room)))
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        self.leave_now(room);
        Box::pin(ready(Ok(())))
    }

    fn history(&self) -> Option<&dyn History> {
        self.settings.keeps_history().then_some(self as &dyn History)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.store(true, SeqCst);
        Box::pin(ready(Ok(())))
    }
}

impl History for Memory {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        Box::pin(ready(self.resume_now(room, since, limit)))
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        Box::pin(ready(self.page_now(room, query)))
    }

    fn remove(&self, room: &RoomId) -> Option<BoxFuture<'static, Result<()>>> {
        Some(Box::pin(ready(self.remove_now(room))))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("rooms", &self.rooms.read().len()).finish_non_exhaustive()
    }
}
