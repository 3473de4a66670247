//! What an operator, or a full machine, does to brokers that run: topics grown or deleted, Redis reconfigured, slots
//! moved to another server, files and memory that run out.

use std::collections::BTreeSet;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::environment::Environment;
use crate::error::{Error, IoContext, Result};
use crate::process::Process;
use crate::{kafka, redis};

impl Environment {
    /// Doubles the partitions of every Kafka topic whose name begins with `prefix`, and returns when that shows. Names
    /// of the topics; none where no Kafka was started here.
    ///
    /// # Errors
    /// [`Error::State`] where Kafka refuses.
    pub fn grow_kafka_topics(&self, prefix: &str) -> Result<Vec<String>> {
        self.kafka_direct().map_or(Ok(Vec::new()), |address| kafka::grow(address, prefix))
    }

    /// Deletes every Kafka topic whose name begins with `prefix`. Names of the topics; none where no Kafka was started
    /// here.
    ///
    /// # Errors
    /// [`Error::State`] where Kafka refuses.
    pub fn delete_kafka_topics(&self, prefix: &str) -> Result<Vec<String>> {
        self.kafka_direct().map_or(Ok(Vec::new()), |address| kafka::delete(address, prefix))
    }

    /// Sets a configuration key on every Redis data server that was started here (alone or in a cluster), until it
    /// restarts.
    ///
    /// # Errors
    /// [`Error::State`] where a server refuses or does not answer.
    pub fn configure_redis(&self, key: &str, value: &str) -> Result<()> {
        self.redis_direct().iter().try_for_each(|address| redis::configure(address, key, value))
    }

    /// Moves `count` hash slots, with their keys, from the first server of a Redis cluster to the second while both
    /// serve. Returns how many keys moved; `None` where no cluster was started here.
    ///
    /// # Errors
    /// [`Error::State`] where a server refuses or does not answer.
    pub fn move_redis_slots(&self, count: usize) -> Result<Option<usize>> {
        match self.redis_direct() {
            [from, to, ..] => redis::move_slots(self.redis_direct(), from, to, count).map(Some),
            _ => Ok(None),
        }
    }
}

impl Process {
    /// Limits how many files the process may have open: `Some(0)` allows no further one, `None` lifts the limit again. It
    /// ends with the process: a restart begins without it.
    ///
    /// # Errors
    /// [`Error::ProcessState`] where it does not run, [`Error::Io`] where the system refuses.
    pub fn limit_open_files(&self, further: Option<u64>) -> Result<()> {
        let folder = format!("/proc/{}/fd", self.pid());
        let entries = std::fs::read_dir(&folder).doing(|| format!("cannot list {folder}"))?;
        let open: BTreeSet<u64> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The limit is one on numbers, and a new file gets the lowest that is free.
        let lowest_free = (0..).zip(&open).take_while(|(number, open)| number == *open).count() as u64;
        self.limit(Resource::Nofile, further.map(|further| lowest_free + further))
    }

    /// Limits how large a file the process may write, in bytes, as a full disk does; `None` lifts the limit again. It ends
    /// with the process.
    ///
    /// # Errors
    /// As for [`limit_open_files`](Process::limit_open_files).
    pub fn limit_file_size(&self, bytes: Option<u64>) -> Result<()> {
        self.limit(Resource::Fsize, bytes)
    }

    fn limit(&self, resource: Resource, soft: Option<u64>) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).filter(|_| self.is_running());
        let pid =
            pid.ok_or_else(|| Error::ProcessState { name: self.name().to_owned(), state: "not running" })?;
        // The hard limit, inherited from this program, stays: the soft one can be lifted without privileges.
        let maximum = getrlimit(resource).maximum;
        let limit = Rlimit { current: soft.or(maximum), maximum };
        prlimit(Some(pid), resource, limit).doing(|| format!("cannot limit {}", self.name()))?;
        Ok(())
    }
}
