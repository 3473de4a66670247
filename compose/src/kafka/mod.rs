//! Apache Kafka from pinned jars: fetching it, starting it quickly, knowing when it serves.

mod admin;
mod archive;
mod broker;
mod client;
mod jars;

pub(crate) use admin::{delete, grow};
pub(crate) use broker::start;
pub(crate) use client::{busiest_leader, check_given};
pub(crate) use jars::VERSION;

use std::path::PathBuf;

use crate::error::Result;
use crate::tools::{self, Java};

/// All that is needed to start a broker on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) java: Java,
    /// The jars, joined as the JVM wants them.
    pub(crate) classpath: String,
    /// The class-data archive, where this JVM can make one.
    pub(crate) archive: Option<PathBuf>,
    /// The features that the formatter writes into a fresh data folder.
    pub(crate) bootstrap: PathBuf,
}

impl Runtime {
    /// Fetches, checks and prepares whatever the cache does not hold yet; after that it takes some 50 ms.
    pub(crate) fn prepare() -> Result<Runtime> {
        let (java, jars) = std::thread::scope(|scope| {
            let java = scope.spawn(tools::java);
            let jars = jars::prepare();
            (java.join(), jars)
        });
        // A panic in the other thread goes on in this one.
        let java = java.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        archive::prepare(java, &jars?)
    }
}
