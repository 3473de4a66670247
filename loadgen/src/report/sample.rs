//! Generated records for tests: deterministic, shaped like real ones.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::record::*;

/// What a sample run should look like.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub strategy: &'static str,
    pub scenario: &'static str,
    pub block: u32,
    pub p50_ms: f64,
    pub spread: f64,
    pub cpu_us: [f64; 3],
    pub lost: u64,
    pub writes_per_publish: f64,
    pub fault: bool,
}

impl Sample {
    pub(crate) fn new(strategy: &'static str, scenario: &'static str, block: u32, p50_ms: f64) -> Self {
        let spread = 0.5;
        let cpu_us = [3.0, 2.0, 1.0];
        Self {
            strategy,
            scenario,
            block,
            p50_ms,
            spread,
            cpu_us,
            lost: 0,
            writes_per_publish: 1.0,
            fault: false,
        }
    }

    pub(crate) fn record(&self) -> RunRecord {
        let measured = self.measured();
        let guarantees = guarantees(self.strategy);
        let target_us = 100_000;
        let (validity, verdict) = judge(&measured, &guarantees, target_us, Rules::default());
        RunRecord {
            schema_version: SCHEMA_VERSION,
            cell: format!("{}-{}-{}", self.scenario, self.strategy, self.block),
            campaign: "sample".into(),
            started_at: format!("2026-01-02T03:04:{:02}Z", self.block),
            command: "loadgen compare --full --seed 42".into(),
            seed: 42 + u64::from(self.block),
            block: self.block,
            role: Role::Comparison,
            scenario: ScenarioRecord {
                name: self.scenario.into(),
                stands_for: stands_for(self.scenario).into(),
                digest: format!("digest-of-{}", self.scenario),
                delivery_us_p99_target: target_us,
                parameters: json!({ "rooms": { "count": 200 } }),
            },
            contender: self.contender(guarantees),
            setting: setting(self.strategy, self.fault),
            cost: self.cost(&measured),
            measured,
            validity,
            verdict,
        }
    }

    fn contender(&self, guarantees: serde_json::Value) -> Contender {
        Contender {
            strategy: self.strategy.into(),
            label: self.strategy.into(),
            summary: format!("How {} carries messages", self.strategy),
            counter_example: self.strategy == "kafka-shared-group",
            guarantees,
            settings: json!({ "linger_ms": 0, "partitions": 16 }),
            options: vec![],
            nodes: if self.strategy == "memory" { 1 } else { 3 },
            version: "0.1.0".into(),
            commit: "0123abc".into(),
            floor: self.strategy == "memory",
        }
    }

    fn measured(&self) -> Measured {
        let mut rng = SmallRng::seed_from_u64(u64::from(self.block) * 31 + self.strategy.len() as u64);
        let factor = 1.0 + rng.random_range(-0.08..0.08);
        let mut latencies = Latencies::default();
        for _ in 0..20_000 {
            let tail: f64 = -rng.random::<f64>().max(1e-9).ln();
            let us = self.p50_ms * 1e3 * factor * (1.0 + self.spread * tail.powf(1.6));
            latencies.delivery.record_us(us as u64);
            latencies.delivery_raw.record_us((us * 0.98) as u64);
            latencies.last_member.record_us((us * 1.4) as u64);
            latencies.ack.record_us((us * 0.8) as u64);
            latencies.send_lag.record_us(rng.random_range(5..60));
        }
        let expected = 50_000;
        let declared = if self.strategy == "redis-pubsub" { self.lost } else { 0 };
        let audit = Audit {
            acknowledged: 5_000,
            expected,
            delivered: expected - self.lost,
            lost_declared: declared,
            lost_silent: self.lost - declared,
            gaps_declared: declared.min(3),
            compared_rooms: 200,
            conserved: true,
            ..Audit::default()
        };
        Measured {
            warm_up_s: 2.0,
            window_s: 5.0,
            drain_s: 0.2,
            load: Load {
                connections: 2_000,
                rooms: 200,
                memberships: 2_000,
                members_max: 41,
                nodes: if self.strategy == "memory" { 1 } else { 3 },
                scheduled: 5_000,
                sent: 5_000,
                target_per_s: 1_000.0,
                offered_per_s: 1_000.0,
                delivered_per_s: 10_000.0,
                payload_bytes_mean: 233.0,
                ..Load::default()
            },
            latencies,
            audit,
            series: self.series(&mut rng),
            faults: self.faults(),
            recoveries: None,
            overtaken: Vec::new(),
            generator: Generator {
                threads: 2,
                busy_share_max: 0.3,
                queued_share_max: 0.1,
                cpu_s: 0.4,
                cpu_user_s: 0.1,
                rss_bytes_max: 40 << 20,
            },
        }
    }

    fn series(&self, rng: &mut SmallRng) -> Series {
        let interval_ms = if self.fault { 250 } else { 1_000 };
        let count = 7_000 / interval_ms;
        let points = (0..count).map(|index| {
            let at_s = (index * interval_ms) as f64 / 1e3;
            let silent = self.fault && (4.0..4.75).contains(&at_s);
            let p99 = (self.p50_ms * 3e3 * rng.random_range(0.8..1.2)) as u64;
            let after = if self.fault && (4.75..5.25).contains(&at_s) { 8 } else { 1 };
            Point {
                scheduled: interval_ms,
                sent: interval_ms,
                delivered: if silent { 0 } else { 10 * interval_ms * (1 + u64::from(after > 1)) },
                connections: 2_000,
                delivery_us_p50: (!silent).then_some(p99 / 3),
                delivery_us_p99: (!silent).then_some(p99 * after),
                delivery_us_max: (!silent).then_some(p99 * after * 2),
                ..Point::default()
            }
        });
        Series { interval_ms, points: points.collect() }
    }

    fn faults(&self) -> Vec<FaultMark> {
        if !self.fault {
            return vec![];
        }
        let to = if self.scenario == "redis-restart" { Target::Redis } else { Target::Kafka };
        vec![FaultMark {
            fault: Fault { at_s: 2.0, deed: Deed::Restart, to },
            began_s: 4.0,
            ended_s: 4.6,
            whom: if to == Target::Redis { "redis" } else { "kafka-1" }.into(),
            silence_ms: 700.0 + self.p50_ms * 10.0,
            room_silence_ms_max: Some(700.0 + self.p50_ms * 10.0),
            room_silence_ms_p99: Some(690.0 + self.p50_ms * 10.0),
        }]
    }

    fn cost(&self, measured: &Measured) -> Cost {
        let deliveries = measured.load.delivered_per_s * measured.window_s;
        let component = |name: &str, kind, us: f64| ComponentCost {
            name: name.into(),
            kind,
            cpu_s: us * deliveries / 1e6 * (1.0 + 0.01 * f64::from(self.block)),
            rss_bytes_max: 30 << 20,
            written_bytes: Some((deliveries * 250.0) as u64),
            read_bytes: None,
            disk_bytes: Some((deliveries * 20.0) as u64),
        };
        let mut components = vec![component("n1", ComponentKind::Node, self.cpu_us[0])];
        if self.strategy.contains("kafka") || self.strategy == "hybrid" {
            components.push(component("kafka-1", ComponentKind::Kafka, self.cpu_us[1]));
        }
        if self.strategy.contains("redis") || self.strategy == "hybrid" {
            components.push(component("redis", ComponentKind::Redis, self.cpu_us[2]));
        }
        components.push(component("loadgen", ComponentKind::Generator, 2.0));
        let amplification = Amplification {
            envelopes_received: 15_000,
            envelopes_wanted: 14_000,
            publishes: 5_000,
            broker_writes: (5_000.0 * self.writes_per_publish) as u64,
            lag_messages_max: Some(12),
            ..Amplification::default()
        };
        Cost { components, unmeasured: Vec::new(), amplification: Some(amplification) }
    }
}

fn stands_for(scenario: &str) -> &'static str {
    match scenario {
        "small-rooms" => "Team chat: many small rooms",
        "giant-room" => "Live stream: one room, a thousand viewers",
        "redis-restart" => "Redis dies under load and comes back empty",
        "broker-restart" => "Kafka dies under load and comes back",
        _ => "Something else",
    }
}

/// What the strategies declare.
pub(crate) fn guarantees(strategy: &str) -> serde_json::Value {
    let (ack, delivery, interest, ordering, positions) = match strategy {
        "memory" => ("node", "at-most-once", "rooms", "per-room", "dense"),
        "redis-pubsub" => ("broker", "at-most-once", "rooms", "per-room", "dense"),
        "hybrid" => ("log", "at-least-once-deduplicated", "everything", "per-room-while-healthy", "dense"),
        "kafka-broadcast" => ("log", "at-least-once-deduplicated", "everything", "per-publisher", "none"),
        "kafka-shared-group" => ("log", "at-most-once", "partitions", "per-room", "rising"),
        _ => ("log", "at-least-once-deduplicated", "everything", "per-room", "rising"),
    };
    json!({
        "ack": ack, "delivery": delivery, "interest": interest, "ordering": ordering, "positions": positions,
        "replay": "none", "idempotent-retry": strategy != "kafka-shared-group", "spans-nodes": strategy != "memory",
        "whole-rooms": strategy != "kafka-shared-group",
    })
}

fn setting(strategy: &str, fault: bool) -> Setting {
    let broker = |name: &str, version: &str, command: &str, configuration: &str| Broker {
        name: name.into(),
        version: version.into(),
        command: command.into(),
        configuration: configuration.into(),
        age_s: if fault { 4.0 } else { 60.0 },
        messages_before: if fault { 0 } else { 500_000 },
        given: false,
    };
    let mut brokers = Vec::new();
    if strategy.contains("kafka") || strategy == "hybrid" {
        let command = "java -Xmx512m kafka.Kafka server.properties";
        brokers.push(broker("kafka-1", "Apache Kafka 4.3.0", command, "num.partitions=16\nlog.dirs=data"));
    }
    if strategy.contains("redis") || strategy == "hybrid" {
        brokers.push(broker("redis", "Redis 7.0.15", "redis-server redis.conf", "save"));
    }
    Setting {
        hardware: Hardware {
            cpu: "Sample CPU 9000".into(),
            cores: 2,
            memory_bytes: 24 << 30,
            kernel: "6.1.0".into(),
            os: "Sample Linux 1".into(),
            virtual_machine: true,
            load_average_1m: 0.5,
            steal_share: 0.01,
        },
        brokers,
        tool: Tool {
            version: "0.1.0".into(),
            commit: "0123abc".into(),
            build: "89abcdef".into(),
            dirty: false,
            profile: "release".into(),
        },
    }
}

/// A whole campaign: four strategies, the floor and the counter-example, healthy and faulty scenarios.
pub(crate) fn campaign(blocks: u32) -> Vec<RunRecord> {
    let mut records = Vec::new();
    for block in 1..=blocks {
        for (scenario, slower) in [("small-rooms", 1.0), ("giant-room", 4.0)] {
            let mut add = |strategy, p50_ms: f64, cpu_us: [f64; 3], writes_per_publish| {
                let sample = Sample {
                    cpu_us,
                    writes_per_publish,
                    ..Sample::new(strategy, scenario, block, p50_ms * slower)
                };
                records.push(sample.record());
            };
            add("memory", 0.15, [2.0, 0.0, 0.0], 0.0);
            add("redis-pubsub", 0.3, [3.0, 0.0, 1.0], 1.0);
            add("hybrid", 0.31, [4.0, 3.0, 1.2], 2.0);
            add("kafka-keyed", 0.6, [3.5, 6.0, 0.0], 1.0);
            add("kafka-broadcast", 1.4, [4.5, 14.0, 0.0], 3.0);
        }
        records.push(
            Sample { lost: 30_000, ..Sample::new("kafka-shared-group", "small-rooms", block, 0.6) }.record(),
        );
        for (strategy, lost) in [("redis-pubsub", 120), ("hybrid", 0)] {
            records.push(
                Sample { lost, fault: true, ..Sample::new(strategy, "redis-restart", block, 0.5) }.record(),
            );
        }
        for strategy in ["kafka-keyed", "hybrid", "kafka-broadcast"] {
            records
                .push(Sample { fault: true, ..Sample::new(strategy, "broker-restart", block, 0.8) }.record());
        }
    }
    let mut null = Sample::new("null", "small-rooms", 0, 0.05).record();
    null.role = Role::Null;
    records.push(null);
    records
}
