//! Starting brokers: settings, folders, JVM flags, and a cluster of them.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Runtime, client};
use crate::error::{IoContext, Result};
use crate::link::Link;
use crate::ports::Port;
use crate::process::{Process, Ready, Spec};
use crate::request::{KafkaTopology, Purpose};

/// How long a broker may take to serve. Generous: a laden machine is slow, and a killed broker waits for its old
/// session to expire.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The settings that do not differ between brokers. The session and heartbeat intervals decide how long a killed broker
/// is missed, the election timeouts how long a fresh cluster takes to agree on a controller; the group minimums let
/// clients ask for sessions shorter than the defaults allow.
const COMMON_SETTINGS: &str = "\
process.roles=broker,controller
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
controller.quorum.election.timeout.ms=300
controller.quorum.election.backoff.max.ms=300
num.network.threads=2
num.io.threads=4
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
auto.create.topics.enable=false
";

/// A running cluster, or one broker.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where nodes reach it: over the links, where there are any.
    pub(crate) bootstrap: String,
    /// Where it is reached without links.
    pub(crate) direct: String,
    pub(crate) links: Vec<Link>,
    pub(crate) processes: Vec<Process>,
    pub(crate) ports: Vec<Port>,
}

/// The ports of a broker.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) client: Port,
    pub(crate) controller: Port,
    /// With a link: a second listener for clients behind it, and the address at which the link is entered. Brokers tell
    /// clients where to go, so a link works only if they tell those that came over it to come over it again; the
    /// brokers among themselves, and whoever looks whether they serve, use the first listener and no link.
    pub(crate) linked: Option<(Port, String)>,
}

impl Ports {
    pub(crate) fn claim(linked: bool) -> Result<Ports> {
        let linked = linked.then(Port::claim).transpose()?.map(|port| (port, String::new()));
        Ok(Ports { client: Port::claim()?, controller: Port::claim()?, linked })
    }

    /// Starts the link to the listener that is meant for it, if there is one.
    fn link(&mut self, node: usize) -> Result<Option<Link>> {
        let Some((port, entrance)) = &mut self.linked else { return Ok(None) };
        let link = Link::start(format!("link-kafka-{node}"), Port::claim()?, port.address())?;
        link.address().clone_into(entrance);
        Ok(Some(link))
    }
}

/// Starts all brokers at once and returns when each of them serves.
pub(crate) fn start(
    runtime: &Runtime,
    topology: KafkaTopology,
    purpose: Purpose,
    folder: &Path,
    linked: bool,
) -> Result<Cluster> {
    let mut ports = (0..topology.nodes()).map(|_| Ports::claim(linked)).collect::<Result<Vec<_>>>()?;
    let mut links = Vec::new();
    for (ports, node) in ports.iter_mut().zip(1..) {
        links.extend(ports.link(node)?);
    }
    let direct = ports.iter().map(|ports| ports.client.address()).collect::<Vec<_>>().join(",");
    let entrances = links.iter().map(Link::address).collect::<Vec<_>>().join(",");
    let bootstrap = if linked { entrances } else { direct.clone() };
    let cluster_id = random_uuid();
    let (processes, no_ports) = (Vec::new(), Vec::new());
    let mut cluster = Cluster { bootstrap, direct: direct.clone(), links, processes, ports: no_ports };
    for node in 1..=topology.nodes() {
        let name = format!("kafka-{node}");
        let folder = folder.join(&name);
        lay_out(runtime, node, topology, &ports, &cluster_id, &folder)?;
        cluster.processes.push(Process::start(Spec {
            program: runtime.java.program.clone(),
            args: jvm_arguments(runtime, purpose, &folder),
            environment: Vec::new(),
            separate_output: false,
            ready: readiness(node, ports[node - 1].client.address(), direct.clone(), topology),
            folder,
            name,
        })?);
    }
    for Ports { client, controller, linked } in ports {
        cluster.ports.extend([client, controller]);
        cluster.ports.extend(linked.map(|(port, _)| port));
    }
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            cluster.processes.iter().map(|process| scope.spawn(|| process.wait_ready())).collect();
        waiting
            .into_iter()
            .try_for_each(|wait| wait.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(cluster)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.processes.iter().for_each(Process::retire);
    }
}

/// Waits until a broker serves: its port is open, it is in sync, and a produce is acknowledged by all.
pub(crate) fn readiness(node: usize, address: String, bootstrap: String, topology: KafkaTopology) -> Ready {
    Box::new(move |process| {
        // A client that starts before the port opens is slow to come back to it.
        process.wait_until(READY_WITHIN, || {
            std::net::TcpStream::connect(&address).map(drop).map_err(|error| format!("{address}: {error}"))
        })?;
        let probe = client::Probe::new(&bootstrap)?;
        process.wait_until(READY_WITHIN, || probe.check(node, topology.nodes()))
    })
}

/// Makes a formatted data folder and the settings of one broker.
pub(crate) fn lay_out(
    runtime: &Runtime,
    node: usize,
    topology: KafkaTopology,
    ports: &[Ports],
    cluster_id: &str,
    folder: &Path,
) -> Result<()> {
    let data = data_folder(folder);
    for path in [&data, &temporary_folder(folder)] {
        fs::create_dir_all(path).at("cannot create", path)?;
    }
    let write = |path: PathBuf, text: String| fs::write(&path, text).at("cannot write", &path);
    write(folder.join("server.properties"), properties(node, topology, ports, folder))?;
    let directory_id = random_uuid();
    let meta = format!("version=1\ncluster.id={cluster_id}\nnode.id={node}\ndirectory.id={directory_id}\n");
    write(data.join("meta.properties"), meta)?;
    fs::copy(&runtime.bootstrap, data.join("bootstrap.checkpoint")).at("cannot copy", &runtime.bootstrap)?;
    Ok(())
}

/// A broker's `server.properties`.
pub(crate) fn properties(node: usize, topology: KafkaTopology, ports: &[Ports], folder: &Path) -> String {
    let own = &ports[node - 1];
    let voter = |(index, ports): (usize, &Ports)| format!("{}@{}", index + 1, ports.controller.address());
    let voters = ports.iter().enumerate().map(voter).collect::<Vec<_>>().join(",");
    let replicas = topology.nodes();
    let in_sync = replicas.div_ceil(2);
    let (client, controller) = (own.client.address(), own.controller.address());
    let mut listeners = format!("PLAINTEXT://{client},CONTROLLER://{controller}");
    let mut advertised = format!("PLAINTEXT://{client}");
    let mut text = COMMON_SETTINGS.to_owned();
    if let Some((port, entrance)) = &own.linked {
        // Of two lines with one key the later one counts. Writing to a string cannot fail.
        text.push_str(
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LINK:PLAINTEXT\n",
        );
        write!(listeners, ",LINK://{}", port.address()).ok();
        write!(advertised, ",LINK://{entrance}").ok();
    }
    for (key, value) in [
        ("node.id", node.to_string()),
        ("controller.quorum.voters", voters),
        ("listeners", listeners),
        ("advertised.listeners", advertised),
        ("log.dirs", data_folder(folder).to_string_lossy().into_owned()),
        ("default.replication.factor", replicas.to_string()),
        ("min.insync.replicas", in_sync.to_string()),
        ("offsets.topic.replication.factor", replicas.to_string()),
        ("transaction.state.log.replication.factor", replicas.to_string()),
        ("transaction.state.log.min.isr", in_sync.to_string()),
    ] {
        // Writing to a string cannot fail.
        writeln!(text, "{key}={value}").ok();
    }
    text
}

/// The JVM's whole command line.
pub(crate) fn jvm_arguments(runtime: &Runtime, purpose: Purpose, folder: &Path) -> Vec<OsString> {
    let flags: &[&str] = match purpose {
        Purpose::Tests => &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"],
        Purpose::Figures => &[
            "-server",
            "-XX:+UseG1GC",
            "-Xms512m",
            "-Xmx512m",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent",
        ],
    };
    let mut args: Vec<OsString> = flags.iter().map(OsString::from).collect();
    if let Some(archive) = &runtime.archive {
        args.push(format!("-XX:SharedArchiveFile={}", archive.display()).into());
    }
    // Everything that a JVM leaves behind when it is killed is kept inside the folder, which is removed.
    args.extend([
        "-XX:-UsePerfData".into(),
        "-XX:+ExitOnOutOfMemoryError".into(),
        format!("-XX:ErrorFile={}", folder.join("jvm-crash.log").display()).into(),
        format!("-Djava.io.tmpdir={}", temporary_folder(folder).display()).into(),
        "-Djava.awt.headless=true".into(),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".into(),
        "-cp".into(),
        runtime.classpath.clone().into(),
        "kafka.Kafka".into(),
        folder.join("server.properties").into(),
    ]);
    args
}

/// Where a broker in that folder keeps its data.
pub(crate) fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn temporary_folder(folder: &Path) -> PathBuf {
    folder.join("tmp")
}

/// A random identifier as Kafka writes them: 16 bytes in URL-safe base 64 without padding.
pub(crate) fn random_uuid() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Bit 127 stays clear: a leading dash would look like an option to Kafka's tools, which avoid it likewise.
    let bits = rand::random::<u128>() >> 1;
    // 22 digits of six bits hold the 128 bits and four bits of padding.
    (0..22)
        .map(|digit| {
            let shift = 122 - 6 * digit;
            let value = if shift >= 0 { bits >> shift } else { bits << -shift };
            char::from(ALPHABET[(value & 63) as usize])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_kafkas_form() {
        for _ in 0..100 {
            let text = random_uuid();
            assert_eq!(text.len(), 22);
            assert!(!text.starts_with('-'), "{text}");
            // The last digit carries two bits only.
            assert!("AQgw".contains(&text[21..]), "{text}");
        }
    }

    #[test]
    fn three_brokers_replicate_threefold_and_need_two_in_sync() {
        let ports: Vec<Ports> = (0..3).map(|_| Ports::claim(false).unwrap()).collect();
        let text = properties(2, KafkaTopology::Three, &ports, Path::new("/data"));
        assert!(text.contains("node.id=2\n"));
        assert!(text.contains("default.replication.factor=3\nmin.insync.replicas=2\n"), "{text}");
        assert!(text.contains(&format!("listeners=PLAINTEXT://{},", ports[1].client.address())));
        let voters = text.lines().find(|line| line.starts_with("controller.quorum.voters")).unwrap();
        assert_eq!(voters.matches('@').count(), 3);
        assert!(!text.contains("LINK"), "{text}");
    }

    #[test]
    fn clients_that_come_over_a_link_are_told_to_come_over_it_again() {
        let mut ports = [Ports::claim(true).unwrap()];
        let link = ports[0].link(1).unwrap().unwrap();
        assert_eq!(link.name(), "link-kafka-1");
        let text = properties(1, KafkaTopology::Single, &ports, Path::new("/data"));
        let (behind, _) = ports[0].linked.as_ref().unwrap();
        assert_ne!(behind.address(), link.address());
        assert!(text.contains(&format!(",LINK://{}\n", behind.address())), "{text}");
        let direct = ports[0].client.address();
        let advertised = format!("advertised.listeners=PLAINTEXT://{direct},LINK://{}\n", link.address());
        assert!(text.contains(&advertised) && text.contains(",LINK:PLAINTEXT\n"), "{text}");
    }
}
