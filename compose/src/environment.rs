//! Brokers that are up, and the processes behind them.

use std::path::Path;

use crate::error::Result;
use crate::kafka;
use crate::link::Link;
use crate::ports::Port;
use crate::process::Process;
use crate::redis;
use crate::request::{RedisTopology, Request};
use crate::run_dir::RunDir;

/// How often a start is repeated when some other program takes one of its ports in the wrong moment.
const TRIES: usize = 5;

/// Brokers of a request: those given by address, and those started here, which die with this value.
#[derive(Debug)]
pub struct Environment {
    kafka: Option<String>,
    /// Where Kafka is reached without links.
    kafka_direct: Option<String>,
    redis: Option<String>,
    /// Where each data server of Redis is reached without links; empty where a sentinel decides who is the master.
    redis_direct: Vec<String>,
    versions: Versions,
    links: Vec<Link>,
    processes: Vec<Process>,
    // Given up only after the processes have been killed in `drop`, ports first, then the folder.
    _ports: Vec<Port>,
    _folder: Option<RunDir>,
}

/// What runs, for records and reports; `None` where it was given by address or is not needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Kafka's version, e.g. `4.3.0`.
    pub kafka: Option<String>,
    /// The first line of `java -version`.
    pub java: Option<String>,
    /// The Redis program, its version and where it came from.
    pub redis: Option<String>,
}

impl Environment {
    /// Brings up what is requested and returns when all of it serves: a produce is acknowledged by every in-sync
    /// broker, Redis answers, sentinels have a quorum, cluster slots are covered. Brokers given by address are asked
    /// whether they are there, and changed in no way.
    ///
    /// Blocks; the first call on a machine fetches artefacts and takes longer.
    ///
    /// # Errors
    /// A missing tool, a corrupt artefact, or a process that does not become ready, each with what to do about it.
    pub fn start(request: &Request) -> Result<Environment> {
        Environment::start_somehow(request, false)
    }

    /// As [`start`](Environment::start), with a [`Link`] before each broker: the addresses lead over the links. Brokers
    /// given by address have none, and neither has a Redis of several servers, which tell clients where to go.
    ///
    /// # Errors
    /// As for [`start`](Environment::start).
    pub fn start_with_links(request: &Request) -> Result<Environment> {
        Environment::start_somehow(request, true)
    }

    fn start_somehow(request: &Request, linked: bool) -> Result<Environment> {
        let mut tries = 1;
        loop {
            match Environment::start_once(request, linked) {
                Err(error) if error.is_port_taken() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(request: &Request, linked: bool) -> Result<Environment> {
        let kafka_starts = request.kafka.is_some() && request.kafka_given.is_none();
        let redis_starts = request.redis.is_some() && request.redis_given.is_none();
        let folder = (kafka_starts || redis_starts).then(RunDir::new).transpose()?;
        let path = folder.as_ref().map_or(Path::new(""), RunDir::path);
        let (kafka, redis) = std::thread::scope(|scope| {
            let kafka = scope.spawn(|| start_kafka(request, path, linked));
            let redis = start_redis(request, path, linked);
            (kafka.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), redis)
        });
        let (kafka, redis) = (kafka?, redis?);
        let versions = Versions { kafka: kafka.version, java: kafka.java, redis: redis.version };
        let mut processes = kafka.processes;
        processes.extend(redis.processes);
        let mut ports = kafka.ports;
        ports.extend(redis.ports);
        let mut links = kafka.links;
        links.extend(redis.links);
        Ok(Environment {
            kafka: kafka.address,
            kafka_direct: kafka.direct,
            redis: redis.address,
            redis_direct: redis.servers,
            versions,
            links,
            processes,
            _ports: ports,
            _folder: folder,
        })
    }

    /// Kafka's addresses: `127.0.0.1:port[,127.0.0.1:port…]`.
    pub fn kafka(&self) -> Option<&str> {
        self.kafka.as_deref()
    }

    /// Redis's address: `redis://host:port`, `redis+sentinel://host:port[,…]/mymaster` or
    /// `redis+cluster://host:port[,…]`.
    pub fn redis(&self) -> Option<&str> {
        self.redis.as_deref()
    }

    pub(crate) fn kafka_direct(&self) -> Option<&str> {
        self.kafka_direct.as_deref()
    }

    pub(crate) fn redis_direct(&self) -> &[String] {
        &self.redis_direct
    }

    /// The programs behind the addresses.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The processes started here: `kafka-1`…; `redis` alone, or with `redis-replica` and `sentinel-1`…; or `redis-1`….
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The links before the brokers; none unless they were asked for.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The broker started here that leads most of Kafka's partitions; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::NotReady`](crate::Error::NotReady) where Kafka doesn't answer.
    pub fn kafka_leader(&self) -> Result<Option<&Process>> {
        let Some(address) = &self.kafka_direct else { return Ok(None) };
        let leader = kafka::busiest_leader(address)?;
        Ok(leader.and_then(|node| self.process(&format!("kafka-{node}"))))
    }

    /// The process of that name.
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name() == name)
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.processes.iter().for_each(Process::retire);
    }
}

/// One broker's part of an environment. It kills what it holds unless that has moved on.
#[derive(Default)]
struct Part {
    address: Option<String>,
    direct: Option<String>,
    /// Redis's data servers.
    servers: Vec<String>,
    links: Vec<Link>,
    version: Option<String>,
    java: Option<String>,
    processes: Vec<Process>,
    ports: Vec<Port>,
}

fn start_kafka(request: &Request, folder: &Path, linked: bool) -> Result<Part> {
    let Some(topology) = request.kafka else { return Ok(Part::default()) };
    if let Some(given) = &request.kafka_given {
        kafka::check_given(given)?;
        return Ok(Part { address: Some(given.clone()), ..Part::default() });
    }
    let runtime = kafka::Runtime::prepare()?;
    let mut cluster = kafka::start(&runtime, topology, request.purpose, folder, linked)?;
    Ok(Part {
        address: Some(std::mem::take(&mut cluster.bootstrap)),
        direct: Some(std::mem::take(&mut cluster.direct)),
        links: std::mem::take(&mut cluster.links),
        servers: Vec::new(),
        version: Some(kafka::VERSION.to_owned()),
        java: runtime.java.version.lines().next().map(str::to_owned),
        processes: std::mem::take(&mut cluster.processes),
        ports: std::mem::take(&mut cluster.ports),
    })
}

fn start_redis(request: &Request, folder: &Path, linked: bool) -> Result<Part> {
    let Some(topology) = request.redis else { return Ok(Part::default()) };
    if let Some(given) = &request.redis_given {
        redis::check_given(given)?;
        return Ok(Part { address: Some(given.clone()), ..Part::default() });
    }
    let binary = redis::find()?;
    let mut servers = redis::start(&binary, topology, folder)?;
    let direct = match topology {
        RedisTopology::Single => servers.url.strip_prefix("redis://"),
        RedisTopology::Cluster => servers.url.strip_prefix("redis+cluster://"),
        RedisTopology::Sentinel => None,
    };
    let direct: Vec<String> =
        direct.into_iter().flat_map(|hosts| hosts.split(',')).map(str::to_owned).collect();
    let mut links = Vec::new();
    if let (true, RedisTopology::Single, [port]) = (linked, topology, servers.ports.as_slice()) {
        let link = Link::start("link-redis".to_owned(), Port::claim()?, port.address())?;
        servers.url = format!("redis://{}", link.address());
        links.push(link);
    }
    Ok(Part {
        address: Some(std::mem::take(&mut servers.url)),
        direct: None,
        servers: direct,
        links,
        version: Some(binary.description),
        java: None,
        processes: std::mem::take(&mut servers.processes),
        ports: std::mem::take(&mut servers.ports),
    })
}
