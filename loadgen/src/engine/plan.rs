//! Who is who: rooms, clients, senders and their places on threads, worked out from a scenario before anything starts.

use super::RunError;
use crate::scenario::{ArrivalKind, Scenario};
use crate::schedule::{Arrival, Shape, Surge, mix, zipf};

/// Audit windows (16 bytes each) that one run may need.
const WINDOWS_MAX: u64 = 64 << 20;
/// Rooms and senders per room fit the stamp's 24 bits.
const ROOMS_MAX: usize = 1 << 24;

/// A room.
#[derive(Debug)]
pub(super) struct Room {
    /// Channel name on the wire.
    pub(super) channel: String,
    /// First of its streams.
    pub(super) first_stream: u32,
    /// Senders, hence streams.
    pub(super) streams: u32,
    /// Members.
    pub(super) members: u32,
    /// Threads that hold members of it.
    pub(super) threads: u32,
}

/// A client: one connection at a time.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Rooms that it is a member of, rising.
    pub(super) rooms: Vec<u32>,
    /// Whether it sends.
    pub(super) sends: bool,
}

/// A stream: one sender in one room, with a sequence of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    /// Its room.
    pub(super) room: u32,
    /// Its client.
    pub(super) client: u32,
    /// Its place among the streams of its client's thread.
    pub(super) local: u32,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rooms: Vec<Room>,
    pub(super) clients: Vec<Client>,
    pub(super) streams: Vec<Stream>,
    /// Streams of each thread.
    pub(super) streams_by_thread: Vec<u32>,
    pub(super) threads: usize,
    /// Tag of this run, in every payload.
    pub(super) run: u32,
}

impl Plan {
    /// Works it out. `nonce` tells runs of the same seed apart: it goes into room names and payloads.
    pub(super) fn new(
        scenario: &Scenario,
        prefix: &str,
        nonce: u64,
        threads: usize,
    ) -> Result<Self, RunError> {
        let sizes = room_sizes(scenario);
        if sizes.len() > ROOMS_MAX {
            return Err(RunError::TooLarge(format!("{} rooms, at most {ROOMS_MAX}", sizes.len())));
        }
        let run = mix(nonce) as u32;
        let memberships: u64 = sizes.iter().map(|&size| u64::from(size)).sum();
        let largest = sizes.iter().copied().max().unwrap_or(0);
        // A client is in no room twice, so there are at least as many clients as the largest room has members.
        let members = memberships.div_ceil(u64::from(scenario.rooms.per_client)).max(u64::from(largest));
        let services = scenario.traffic.services;
        let total = usize::try_from(members + u64::from(services)).unwrap_or(usize::MAX);
        let mut clients: Vec<Client> = Vec::new();
        clients.resize_with(total, Client::default);
        let mut rooms = Vec::with_capacity(sizes.len());
        let mut streams = Vec::new();
        let mut next_member = 0;
        let mut windows = 0;
        for (index, &size) in sizes.iter().enumerate() {
            let room = index as u32;
            let first_stream = streams.len() as u32;
            let senders = if services > 0 { 1 } else { scenario.traffic.senders_per_room.min(size) };
            for place in 0..u64::from(size) {
                let client = ((next_member + place) % members) as u32;
                clients[client as usize].rooms.push(room);
                if services == 0 && place < u64::from(senders) {
                    streams.push(Stream { room, client, local: 0 });
                }
            }
            if services > 0 {
                streams.push(Stream { room, client: members as u32 + room % services, local: 0 });
            }
            windows += u64::from(size) * u64::from(senders);
            next_member = (next_member + u64::from(size)) % members;
            let channel = format!("{prefix}{}-{run:08x}-{index}", scenario.name);
            rooms.push(Room { channel, first_stream, streams: senders, members: size, threads: 0 });
        }
        if windows > WINDOWS_MAX {
            let problem = format!("{windows} (member, sender) pairs to audit, at most {WINDOWS_MAX}");
            return Err(RunError::TooLarge(problem));
        }
        let mut plan = Self { rooms, clients, streams, streams_by_thread: vec![0; threads], threads, run };
        plan.place();
        Ok(plan)
    }

    /// Assigns places on threads.
    fn place(&mut self) {
        for stream in &mut self.streams {
            let thread = stream.client as usize % self.threads;
            stream.local = self.streams_by_thread[thread];
            self.streams_by_thread[thread] += 1;
            self.clients[stream.client as usize].sends = true;
        }
        let mut on: Vec<u64> = vec![0; self.rooms.len()];
        for (client, one) in self.clients.iter_mut().enumerate() {
            one.rooms.sort_unstable();
            one.rooms.iter().for_each(|&room| on[room as usize] |= 1 << (client % self.threads % 64));
        }
        self.rooms.iter_mut().zip(on).for_each(|(room, threads)| room.threads = threads.count_ones());
    }

    /// Which thread drives a client.
    pub(super) fn thread_of(&self, client: u32) -> usize {
        client as usize % self.threads
    }

    /// Sum over rooms of their members.
    pub(super) fn memberships(&self) -> u64 {
        self.rooms.iter().map(|room| u64::from(room.members)).sum()
    }

    /// The schedule's shape for this plan.
    pub(super) fn shape(&self, scenario: &Scenario, seed: u64) -> Shape {
        let traffic = &scenario.traffic;
        let warm_up_us = seconds_us(scenario.warm_up_s);
        let by_room: Vec<f64> = zipf(self.rooms.len(), traffic.room_skew).collect();
        let mut weights = Vec::with_capacity(self.streams.len());
        for (room, share) in self.rooms.iter().zip(by_room) {
            let of_senders: Vec<f64> = zipf(room.streams as usize, traffic.sender_skew).collect();
            let sum: f64 = of_senders.iter().sum();
            weights.extend(of_senders.iter().map(|sender| share * sender / sum));
        }
        Shape {
            rate_per_s: traffic.rate_per_s,
            arrival: match traffic.arrival {
                ArrivalKind::Constant => Arrival::Constant,
                ArrivalKind::Poisson => Arrival::Poisson,
                ArrivalKind::Bursts => Arrival::Bursts {
                    length: traffic.burst_length,
                    spacing_us: traffic.burst_spacing_ms * 1_000,
                },
            },
            until_us: warm_up_us + seconds_us(scenario.duration_s),
            surges: traffic
                .surges
                .iter()
                .map(|surge| Surge {
                    from_us: warm_up_us + seconds_us(surge.at_s),
                    to_us: warm_up_us + seconds_us(surge.at_s + surge.for_s),
                    factor: surge.factor,
                })
                .collect(),
            weights,
            sizes: traffic.payload.iter().map(|size| size.share).collect(),
            seed,
        }
    }
}

/// Seconds as microseconds.
pub(super) fn seconds_us(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// Members of each room, largest first, with the mean that the scenario asks for.
fn room_sizes(scenario: &Scenario) -> Vec<u32> {
    let rooms = &scenario.rooms;
    let weights: Vec<f64> = zipf(rooms.count as usize, rooms.size_skew).collect();
    let sum: f64 = weights.iter().sum();
    let members = rooms.members * f64::from(rooms.count);
    let size = |weight: f64| ((weight / sum * members).round() as u32).max(rooms.members_min);
    weights.into_iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, threads: usize) -> (Scenario, Plan) {
        let scenario = Scenario::load(name, &[]).unwrap();
        let plan = Plan::new(&scenario, "", 7, threads).unwrap();
        (scenario, plan)
    }

    #[test]
    fn members_are_distinct_and_counted() {
        for (name, _) in crate::scenario::shipped() {
            let (_, plan) = plan(name, 2);
            let mut members = vec![0; plan.rooms.len()];
            for client in &plan.clients {
                assert!(client.rooms.windows(2).all(|pair| pair[0] < pair[1]), "{name}");
                client.rooms.iter().for_each(|&room| members[room as usize] += 1);
            }
            assert!(members.iter().zip(&plan.rooms).all(|(&count, room)| count == room.members), "{name}");
            assert_eq!(plan.streams.len() as u32, plan.streams_by_thread.iter().sum::<u32>());
        }
    }

    #[test]
    fn sizes_keep_their_mean_and_skew() {
        let (scenario, plan) = plan("small-rooms", 1);
        let mean = plan.memberships() as f64 / plan.rooms.len() as f64;
        assert!((mean - scenario.rooms.members).abs() < 1.0, "{mean}");
        assert!(plan.rooms[0].members > 4 * plan.rooms[199].members);
    }

    #[test]
    fn a_subscriber_follows_as_many_rooms_as_asked() {
        let (scenario, plan) = plan("ticker", 2);
        let subscribers = plan.clients.iter().filter(|client| !client.rooms.is_empty());
        assert!(subscribers.clone().all(|client| client.rooms.len() == scenario.rooms.per_client as usize));
        assert_eq!(plan.clients.len(), 302);
        assert!(plan.clients[300..].iter().all(|service| service.sends && service.rooms.is_empty()));
    }

    #[test]
    fn more_than_can_be_audited_is_refused() {
        let sets = ["rooms.members=100000", "traffic.senders_per_room=1000"].map(String::from);
        let scenario = Scenario::load("giant-room", &sets).unwrap();
        let message = Plan::new(&scenario, "", 7, 2).expect_err("too large").to_string();
        assert!(message.contains("100000000"), "{message}");
    }
}
