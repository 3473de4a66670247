//! What makes a broker start quickly: an archive of its classes, and the content of a formatted data folder.
//!
//! Both are made once per Java build and jar list. A broker is formatted the official way, run with some traffic and
//! stopped; the JVM writes the archive as it exits. Later starts map the archive and skip the formatter, which would
//! cost a JVM start of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Runtime, broker, client, jars};
use crate::cache;
use crate::error::{Error, IoContext, Result};
use crate::ports::Port;
use crate::process::{Process, Spec};
use crate::request::{KafkaTopology, Purpose};
use crate::tools::{self, Java};

const ARCHIVE: &str = "classes.jsa";
const BOOTSTRAP: &str = "bootstrap.checkpoint";

/// How long the JVM may take to write the archive.
const DUMP_WITHIN: Duration = Duration::from_secs(60);

/// The runtime for this Java and these jars, with the archive made if it is not there yet.
pub(crate) fn prepare(java: Java, jars_folder: &Path) -> Result<Runtime> {
    let classpath = jars::classpath(jars_folder);
    let program = java.program.to_string_lossy();
    let key = cache::key(&[&program, &java.version, &classpath]);
    let runtime = |folder: &Path, archive: Option<PathBuf>| Runtime {
        java: java.clone(),
        classpath: classpath.clone(),
        archive,
        bootstrap: folder.join(BOOTSTRAP),
    };
    let folder = cache::install(&format!("kafka-start-{key}"), |folder| {
        tracing::info!("preparing Kafka for quick starts");
        format(&runtime(folder, None), folder)?;
        match train(&runtime(folder, None), folder) {
            // A JVM without class-data archives runs Kafka just as well, only a second slower.
            Err(error) => {
                tracing::warn!(%error, "no class-data archive: Kafka will start slower");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    })?;
    let archive = Some(folder.join(ARCHIVE)).filter(|path| path.is_file());
    Ok(runtime(&folder, archive))
}

/// Formats a data folder the official way and keeps the file in it that does not depend on the node.
fn format(runtime: &Runtime, folder: &Path) -> Result<()> {
    let work = folder.join("format");
    fs::create_dir(&work).at("cannot create", &work)?;
    let ports = broker::Ports::claim(false)?;
    let properties = work.join("server.properties");
    let settings = broker::properties(1, KafkaTopology::Single, std::slice::from_ref(&ports), &work);
    fs::write(&properties, settings).at("cannot write", &properties)?;
    let mut command = Command::new(&runtime.java.program);
    command
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
        .args(["-cp", &runtime.classpath, "kafka.tools.StorageTool", "format"])
        .args(["-t", &broker::random_uuid(), "-c"])
        .arg(&properties);
    tools::run(command, "formatting Kafka's data folder")?;
    let formatted = broker::data_folder(&work).join(BOOTSTRAP);
    fs::copy(&formatted, folder.join(BOOTSTRAP)).at("cannot copy", &formatted)?;
    fs::remove_dir_all(&work).at("cannot remove", &work)
}

/// Runs a broker through what brokers do, and has the JVM archive the classes that this loaded.
fn train(runtime: &Runtime, folder: &Path) -> Result<()> {
    let work = folder.join("train");
    fs::create_dir(&work).at("cannot create", &work)?;
    let ports = broker::Ports::claim(false)?;
    let address = ports.client.address();
    broker::lay_out(
        runtime,
        1,
        KafkaTopology::Single,
        std::slice::from_ref(&ports),
        &broker::random_uuid(),
        &work,
    )?;
    let archive = folder.join(ARCHIVE);
    let mut args = broker::jvm_arguments(runtime, Purpose::Tests, &work);
    args.insert(0, format!("-XX:ArchiveClassesAtExit={}", archive.display()).into());
    let process = Process::start(Spec {
        name: "kafka-training".to_owned(),
        program: runtime.java.program.clone(),
        args,
        environment: Vec::new(),
        folder: work.clone(),
        separate_output: false,
        ready: broker::readiness(1, address.clone(), address.clone(), KafkaTopology::Single),
    })?;
    let trained = process.wait_ready().and_then(|()| client::traffic(&address));
    let ended = trained.and_then(|()| process.terminate(DUMP_WITHIN));
    process.retire();
    let ended = ended?;
    let log_tail = process.log_tail();
    drop::<Port>(ports.client);
    fs::remove_dir_all(&work).at("cannot remove", &work)?;
    if archive.is_file() {
        return Ok(());
    }
    Err(Error::Exited { name: "kafka-training".to_owned(), status: ended.to_string(), log_tail })
}
