//! Brokers of a campaign: started for figures, warmed before anything counts, replaced before they fill up.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use manifold_compose::{Environment, Process, Purpose, Request, Topology};

use super::plan::Entrant;
use crate::record::{Broker, ComponentKind};
use crate::scenario::{KafkaShape, RedisShape, Scenario};

/// A JVM's tail settles only after a while: nothing that counts runs against younger shared brokers. Those of a run that
/// strikes a broker are private and younger, which its report says.
pub const AGE_MIN: Duration = Duration::from_secs(30);

/// Brokers that are up.
#[derive(Debug)]
pub struct Brokers {
    environment: Environment,
    started: Instant,
    /// Messages that Kafka and Redis carried.
    messages: [AtomicU64; 2],
    given: bool,
}

impl Brokers {
    /// Starts what these contenders need, or takes what `KAFKA_BOOTSTRAP` and `REDIS_URL` name.
    ///
    /// # Errors
    /// What the launcher says: a missing tool, a port, a broker that doesn't come up.
    pub fn start<'a>(entrants: impl IntoIterator<Item = &'a Entrant>) -> Result<Self> {
        let mut request = Request::default().with_purpose(Purpose::Figures);
        for entrant in entrants {
            let needs = Request::for_strategy(&entrant.strategy)?;
            request.kafka = request.kafka.or(needs.kafka);
            request.redis = request.redis.or(needs.redis);
        }
        Self::start_request(request.with_environment(), false)
    }

    /// Brokers of its own for a run that will break them, cold, in the shape that its scenario asks for: never those that
    /// somebody else runs.
    ///
    /// # Errors
    /// As for [`Brokers::start`].
    pub fn start_private(entrant: &Entrant, scenario: &Scenario) -> Result<Self> {
        Self::start_own(entrant, scenario, Purpose::Figures)
    }

    /// The same, small: several beside each other, whose latencies nobody reads.
    ///
    /// # Errors
    /// As for [`Brokers::start`].
    pub fn start_small(entrant: &Entrant, scenario: &Scenario) -> Result<Self> {
        Self::start_own(entrant, scenario, Purpose::Tests)
    }

    fn start_own(entrant: &Entrant, scenario: &Scenario, purpose: Purpose) -> Result<Self> {
        let mut request = Request::for_strategy(&entrant.strategy)?.with_purpose(purpose);
        if request.kafka.is_some() && scenario.brokers.kafka == KafkaShape::Three {
            request = request.with_topology(Topology::Kafka3)?;
        }
        if request.redis.is_some() {
            request = request.with_topology(match scenario.brokers.redis {
                RedisShape::One => Topology::Redis,
                RedisShape::Sentinel => Topology::RedisSentinel,
                RedisShape::Cluster => Topology::RedisCluster,
            })?;
        }
        Self::start_request(request, scenario.needs_links())
    }

    /// Whether the environment names brokers that somebody else runs.
    pub fn are_given() -> bool {
        is_given(&Request::default().with_environment())
    }

    fn start_request(request: Request, linked: bool) -> Result<Self> {
        let given = is_given(&request);
        let start = if linked { Environment::start_with_links } else { Environment::start };
        let environment = start(&request).context("brokers did not start")?;
        Ok(Self { environment, started: Instant::now(), messages: Default::default(), given })
    }

    /// The processes and addresses.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Age of the youngest.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Messages that the brokers of a kind have carried.
    pub fn messages(&self, kind: ComponentKind) -> u64 {
        self.counter(kind).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts messages that a contender sent through what it uses.
    pub fn carried(&self, entrant: &Entrant, messages: u64) {
        let needs = entrant.brokers();
        let uses = [
            (ComponentKind::Kafka, needs.is_none_or(|needs| needs.kafka)),
            (ComponentKind::Redis, needs.is_none_or(|needs| needs.redis)),
        ];
        for (kind, _) in uses.into_iter().filter(|(_, uses)| *uses) {
            if let Some(counter) = self.counter(kind) {
                counter.fetch_add(messages, Ordering::Relaxed);
            }
        }
    }

    fn counter(&self, kind: ComponentKind) -> Option<&AtomicU64> {
        match kind {
            ComponentKind::Kafka => Some(&self.messages[0]),
            ComponentKind::Redis => Some(&self.messages[1]),
            ComponentKind::Node | ComponentKind::Generator => None,
        }
    }

    /// The processes that a contender uses, and what they are.
    pub fn used_by(&self, entrant: &Entrant) -> Vec<(Process, ComponentKind)> {
        let needs = entrant.brokers();
        let uses = |kind| match kind {
            ComponentKind::Kafka => needs.is_none_or(|needs| needs.kafka),
            ComponentKind::Redis => needs.is_none_or(|needs| needs.redis),
            ComponentKind::Node | ComponentKind::Generator => false,
        };
        let known =
            self.environment.processes().iter().map(|process| (process.clone(), kind_of(process.name())));
        known.filter(|(_, kind)| uses(*kind)).collect()
    }

    /// Descriptions for the record.
    pub fn describe(&self, entrant: &Entrant) -> Vec<Broker> {
        let mut brokers: Vec<Broker> = self
            .used_by(entrant)
            .iter()
            .map(|(process, kind)| self.describe_process(process, *kind))
            .collect();
        if self.given {
            let needs = entrant.brokers();
            let addresses = [
                ("kafka", self.environment.kafka().filter(|_| needs.is_none_or(|needs| needs.kafka))),
                ("redis", self.environment.redis().filter(|_| needs.is_none_or(|needs| needs.redis))),
            ];
            for (name, address) in addresses {
                let ours = brokers.iter().any(|broker| broker.name.starts_with(name));
                if let Some(address) = address.filter(|_| !ours) {
                    brokers.push(self.describe_given(name, address));
                }
            }
        }
        brokers
    }

    fn describe_process(&self, process: &Process, kind: ComponentKind) -> Broker {
        let versions = self.environment.versions();
        let version = match kind {
            ComponentKind::Kafka => {
                let kafka = versions.kafka.as_deref().unwrap_or("unknown");
                format!("Apache Kafka {kafka}, {}", versions.java.as_deref().unwrap_or("Java unknown"))
            }
            _ => versions.redis.clone().unwrap_or_else(|| "unknown".to_owned()),
        };
        let command = command_line(process.pid());
        Broker {
            name: process.name().to_owned(),
            version,
            configuration: configuration(&command),
            command: without_paths(&command.join(" ")),
            age_s: self.age().as_secs_f64(),
            messages_before: self.messages(kind),
            given: false,
        }
    }

    fn describe_given(&self, name: &str, address: &str) -> Broker {
        // An address may carry credentials; what comes before an @ is nobody's business.
        let address = address.rsplit('@').next().unwrap_or(address);
        Broker {
            name: name.to_owned(),
            version: "unknown: given by address".to_owned(),
            command: address.to_owned(),
            configuration: String::new(),
            age_s: self.age().as_secs_f64(),
            messages_before: self.messages(kind_of(name)),
            given: true,
        }
    }
}

fn is_given(request: &Request) -> bool {
    request.kafka_given.is_some() || request.redis_given.is_some()
}

fn kind_of(name: &str) -> ComponentKind {
    if name.starts_with("kafka") { ComponentKind::Kafka } else { ComponentKind::Redis }
}

fn command_line(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The configuration files that a command line names, as text.
fn configuration(command: &[String]) -> String {
    let files = command.iter().filter(|word| word.ends_with(".properties") || word.ends_with(".conf"));
    let texts: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let telling = lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    // A password in a configuration must not end up in a published record.
    let masked = telling.map(|line| match line.split_once(['=', ' ']) {
        Some((key, _))
            if ["password", "secret", "requirepass", "masterauth"].iter().any(|word| key.contains(word)) =>
        {
            format!("{key}=***")
        }
        _ => line.to_owned(),
    });
    without_paths(&masked.collect::<Vec<_>>().join("\n"))
}

/// A text whose absolute paths are cut down to their last part: where things lie on this machine says nothing.
fn without_paths(text: &str) -> String {
    let is_delimiter = |letter: char| letter.is_whitespace() || matches!(letter, '=' | ':' | ',');
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_delimiter) {
        match piece.rsplit_once('/') {
            // What begins with two slashes is the rest of an address.
            Some((_, name)) if piece.starts_with('/') && !piece.starts_with("//") => out.push_str(name),
            _ => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_files_and_not_where_they_lie() {
        let command = "/usr/bin/java -Xmx512m -XX:ErrorFile=/tmp/x/y/crash.log -cp /home/me/a-1.jar:/home/me/b.jar kafka.Kafka /tmp/x/server.properties";
        assert_eq!(
            without_paths(command),
            "java -Xmx512m -XX:ErrorFile=crash.log -cp a-1.jar:b.jar kafka.Kafka server.properties"
        );
        assert_eq!(
            without_paths("listeners=PLAINTEXT://127.0.0.1:9092\nlog.dirs=/tmp/k/data"),
            "listeners=PLAINTEXT://127.0.0.1:9092\nlog.dirs=data"
        );
    }
}
