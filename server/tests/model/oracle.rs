//! The oracle: what each client may have seen, given what the broker accepted. It knows nothing of how nodes work: it has the
//! broker's order of every room, which messages the broker lost on which link, and what clients wrote down.

use std::collections::{BTreeMap, BTreeSet};

use manifold_strategies::{Position, RoomId};

use crate::broker::Broker;
use crate::client::Client;
use crate::record::{Entered, Seen, Sent, Told};
use crate::steps::ROOMS;

/// The offset at which a client stands after what it missed, where its new numbering has no message yet.
const NOTHING_YET: u64 = (1 << 53) - 1;

/// What is wrong, in words.
pub(crate) type Verdict = Result<(), String>;

/// A room as the broker had it.
struct Truth<'b> {
    broker: &'b Broker,
    room: RoomId,
    /// What was accepted, in order.
    tags: Vec<u64>,
    places: BTreeMap<u64, usize>,
}

/// A stretch of memberships in which nothing may be missing or come twice.
struct Chain<'t> {
    truth: &'t Truth<'t>,
    link: usize,
    epoch: Option<u64>,
    positioned: bool,
    /// The message that comes next; for members that are not told of losses, the first that they must get.
    next: usize,
    /// The last that a member without a position got.
    last: Option<usize>,
    /// The last message was not the next one: something must be said about that.
    owes: Option<String>,
}

/// Judges a case at its end, when nothing is under way any more.
pub(crate) fn judge(broker: &Broker, clients: &[Client]) -> Verdict {
    let truths: Vec<Truth<'_>> = ROOMS.iter().map(|room| Truth::of(broker, room)).collect();
    for (room, truth) in truths.iter().enumerate() {
        truth.judge_publishes(room, clients)?;
        for (number, client) in clients.iter().enumerate() {
            let seen = &client.places[room].seen;
            let verdict = truth.judge_member(seen, client.is_member(room));
            verdict.map_err(|wrong| {
                format!(
                    "client {number} in room {}: {wrong}\nit saw {seen:#?}\nof {:?}",
                    ROOMS[room], truth.tags
                )
            })?;
        }
        truth.judge_answers(room, clients)?;
    }
    Ok(())
}

impl<'b> Truth<'b> {
    fn of(broker: &'b Broker, room: &str) -> Self {
        let room = RoomId::new(room);
        let entries = broker.rooms.get(&room).map(|log| log.entries.as_slice()).unwrap_or_default();
        let tag = |payload: &[u8]| std::str::from_utf8(payload).ok()?.parse().ok();
        let tags: Vec<u64> =
            entries.iter().map(|entry| tag(&entry.envelope.payload).unwrap_or(u64::MAX)).collect();
        let places = tags.iter().enumerate().map(|(place, tag)| (*tag, place)).collect();
        Self { broker, room, tags, places }
    }

    /// Acknowledged messages are in the room once, others at most once; each connection's are in the order of sending.
    fn judge_publishes(&self, room: usize, clients: &[Client]) -> Verdict {
        let sent: BTreeMap<u64, &Sent> = clients
            .iter()
            .flat_map(|client| &client.sent)
            .filter(|sent| sent.room == room)
            .map(|sent| (sent.tag, sent))
            .collect();
        let mut found = BTreeSet::new();
        for tag in &self.tags {
            if !sent.contains_key(tag) {
                return Err(format!("message {tag} was never sent"));
            }
            if !found.insert(tag) {
                return Err(format!("message {tag} is in its room twice"));
            }
        }
        if let Some(lost) = sent.values().find(|sent| sent.acknowledged && !found.contains(&sent.tag)) {
            return Err(format!("message {} was acknowledged and is nowhere", lost.tag));
        }
        for client in clients {
            let of_room = client.sent.iter().filter(|sent| sent.room == room && !sent.keyed);
            let mut last = BTreeMap::new();
            for (sent, place) in of_room.filter_map(|sent| Some((sent, *self.places.get(&sent.tag)?))) {
                if last.insert(sent.connection, place).is_some_and(|before| before > place) {
                    return Err(format!(
                        "message {} was overtaken by a later one of its publisher",
                        sent.tag
                    ));
                }
            }
        }
        Ok(())
    }

    /// Judges what one client saw of this room.
    fn judge_member(&self, seen: &[Seen], member_at_end: bool) -> Verdict {
        let mut chain: Option<Chain<'_>> = None;
        let mut inside = false;
        for event in seen {
            match event {
                Seen::Entered(entered) => {
                    if inside {
                        return Err("it entered twice".to_owned());
                    }
                    chain = Some(self.enter(chain.take(), entered)?);
                    inside = true;
                }
                Seen::Got(told) if inside => chain.as_mut().ok_or("it never entered")?.take(*told)?,
                Seen::Got(told) => return Err(format!("it got {} outside of a membership", told.tag)),
                Seen::SentAway(code) => {
                    if *code != 2500 {
                        return Err(format!("it was sent away with code {code}"));
                    }
                    inside = false;
                }
                Seen::Left | Seen::Cut => inside = false,
            }
            if !inside && let Some(chain) = &mut chain {
                chain.owes = None;
            }
        }
        match chain {
            Some(chain) if inside && member_at_end => chain.end(),
            _ => Ok(()),
        }
    }

    fn enter<'t>(&'t self, before: Option<Chain<'t>>, entered: &Entered) -> Result<Chain<'t>, String> {
        let Entered { link, positioned, recovered, epoch, offset, missed, .. } = entered;
        if *recovered && !entered.came_back {
            return Err("it recovered and had not asked to".to_owned());
        }
        if self.broker.setup.calm && entered.came_back && !recovered {
            return Err("it could not recover, and nothing was lost".to_owned());
        }
        let mut chain = Chain {
            truth: self,
            link: *link,
            epoch: None,
            positioned: *positioned,
            next: entered.stands,
            last: None,
            owes: None,
        };
        if *positioned {
            // Marked: the client is handed over from another numbering.
            let digits = epoch.strip_suffix('~').unwrap_or(epoch);
            let epoch = u64::from_str_radix(digits, 36).map_err(|_| format!("{epoch:?} is no epoch"))?;
            let position = Position { epoch, offset: *offset };
            let stands = self.broker.count_at(&self.room, position);
            chain.epoch = Some(epoch);
            chain.next = stands.ok_or_else(|| format!("the room was never at {position:?}"))?;
        }
        if *recovered {
            let before = before.ok_or("it recovered and was never here")?;
            chain.next = before.next;
            if epoch.ends_with('~') {
                chain.hand_over(missed)?;
            } else {
                missed.iter().try_for_each(|told| chain.take(*told))?;
            }
            if let Some(missing) = chain.owes.take() {
                return Err(format!("it recovered, but {missing}"));
            }
        } else if !missed.is_empty() {
            return Err("it did not recover and got messages".to_owned());
        }
        Ok(chain)
    }

    /// Judges presence and history as nodes know them at the end.
    fn judge_answers(&self, room: usize, clients: &[Client]) -> Verdict {
        let present: BTreeSet<&str> = clients
            .iter()
            .filter(|client| client.is_member(room))
            .map(|client| client.id.as_deref().unwrap_or("nobody's"))
            .collect();
        let log = self.broker.rooms.get(&self.room);
        let kept = &self.tags[log.map_or(0, |log| log.kept_from)..];
        let kept = &kept[..kept.len().min(300)];
        for (number, client) in clients.iter().enumerate() {
            let Some((named, count)) = &client.places[room].present else {
                return Err(format!("client {number} was not told who is there"));
            };
            let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
            if named != present || *count != present.len() {
                return Err(format!(
                    "client {number} was told that {named:?} ({count}) are there, and {present:?} are"
                ));
            }
            let history = client.places[room].history.as_deref().ok_or("history did not answer")?;
            if !history.iter().map(|told| told.tag).eq(kept.iter().copied()) {
                return Err(format!("client {number} was told {history:?}, and history has {kept:?}"));
            }
        }
        Ok(())
    }
}

impl Chain<'_> {
    /// What was missed comes from another numbering. Only the last message says where the client stands then.
    fn hand_over(&mut self, missed: &[Told]) -> Verdict {
        missed.iter().try_for_each(|told| self.take(Told { offset: 0, ..*told }))?;
        let stands = missed.last().map_or(0, |last| last.offset);
        let (Some(epoch), false) = (self.epoch, stands == 0 || stands == NOTHING_YET) else { return Ok(()) };
        let position = Position { epoch, offset: stands };
        if self.truth.broker.count_at(&self.truth.room, position) == Some(self.next) {
            return Ok(());
        }
        Err(format!("it was handed over to {position:?}, and does not stand there"))
    }

    fn take(&mut self, told: Told) -> Verdict {
        let Some(place) = self.truth.places.get(&told.tag).copied() else {
            return Err(format!("it got {}, which nobody published here", told.tag));
        };
        if let Some(missing) = &self.owes {
            return Err(format!("{missing}, and it was not told"));
        }
        if let Some(epoch) = self.epoch
            && told.offset > 0
        {
            let position = Position { epoch, offset: told.offset };
            let stands = self.truth.broker.count_at(&self.truth.room, position);
            let before = Position { offset: told.offset - 1, ..position };
            let before = self.truth.broker.count_at(&self.truth.room, before);
            if stands != Some(place + 1) || before != Some(place) {
                return Err(format!("message {} does not stand at {position:?}", told.tag));
            }
        }
        if self.positioned {
            if place < self.next {
                return Err(format!("{} came twice, or after what follows it", told.tag));
            }
            if place > self.next {
                self.owes =
                    Some(format!("{:?} are missing before {}", &self.truth.tags[self.next..place], told.tag));
            }
            self.next = place + 1;
            return Ok(());
        }
        self.take_unpositioned(place, told.tag)
    }

    /// What was published before the answer to its subscribe may come or not.
    fn take_unpositioned(&mut self, place: usize, tag: u64) -> Verdict {
        if self.last.replace(place).is_some_and(|before| before >= place) {
            return Err(format!("{tag} came twice, or after what follows it"));
        }
        let missing = (self.next..place).find(|place| !self.is_lost(*place));
        self.next = self.next.max(place + 1);
        match missing {
            Some(place) => Err(format!("{} is missing before {tag}", self.truth.tags[place])),
            None => Ok(()),
        }
    }

    fn is_lost(&self, place: usize) -> bool {
        self.truth.broker.links[self.link].lost.contains(&(self.truth.room.clone(), place))
    }

    /// At the end nothing may be missing.
    fn end(self) -> Verdict {
        if let Some(missing) = self.owes {
            return Err(format!("{missing}, and it was not told"));
        }
        let mut rest = self.next..self.truth.tags.len();
        match rest.find(|place| self.positioned || !self.is_lost(*place)) {
            Some(place) => Err(format!("{} never came, and it was not told", self.truth.tags[place])),
            None => Ok(()),
        }
    }
}
