//! What an operator, or a full machine, does to brokers that run: topics grown or deleted, Redis reconfigured, slots
//! moved to another server, files and memory that run out.

use rustix::process::Resource;

use crate::environment::Environment;
use crate::error::Result;
use crate::process::Process;
use crate::{kafka, redis};

impl Environment {
    /// Doubles the partitions of every Kafka topic whose name begins with `prefix`, and returns when that shows. Names
    /// of the topics; none where no Kafka was started here.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where Kafka refuses.
    pub fn grow_kafka_topics(&self, prefix: &str) -> Result<Vec<String>> {
        self.kafka_direct().map_or(Ok(Vec::new()), |address| kafka::grow(address, prefix))
    }

    /// Deletes every Kafka topic whose name begins with `prefix`. Names of the topics; none where no Kafka was started
    /// here.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where Kafka refuses.
    pub fn delete_kafka_topics(&self, prefix: &str) -> Result<Vec<String>> {
        self.kafka_direct().map_or(Ok(Vec::new()), |address| kafka::delete(address, prefix))
    }

    /// Sets a configuration key on every Redis data server that was started here (alone or in a cluster), until it
    /// restarts. Returns how many servers that were: none behind sentinels.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where a server refuses or does not answer.
    pub fn configure_redis(&self, key: &str, value: &str) -> Result<usize> {
        self.redis_direct().iter().try_for_each(|address| redis::configure(address, key, value))?;
        Ok(self.redis_direct().len())
    }

    /// Moves `count` hash slots, with their keys, from the first server of a Redis cluster to the second while both
    /// serve. Returns how many keys moved; `None` where no cluster was started here.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where a server refuses or does not answer.
    pub fn move_redis_slots(&self, count: usize) -> Result<Option<usize>> {
        match self.redis_direct() {
            [from, to, ..] => redis::move_slots(self.redis_direct(), from, to, count).map(Some),
            _ => Ok(None),
        }
    }
}

impl Process {
    /// Limits which descriptors the process may open: with `Some(limit)` no further one gets a number of `limit` or above,
    /// so that with a limit below everything that it has open nothing can be opened or accepted, also in place of what is
    /// closed meanwhile. Not 0: `poll` with more descriptors than the limit fails. `None` gives back what it had. It ends
    /// with the process: a restart begins without it.
    ///
    /// # Errors
    /// [`Error::ProcessState`](crate::Error::ProcessState) where it does not run, [`Error::Io`](crate::Error::Io) where
    /// the system refuses.
    pub fn limit_open_files(&self, limit: Option<u64>) -> Result<()> {
        self.limit(Resource::Nofile, limit)
    }

    /// Limits how large a file the process may write, in bytes, as a full disk does; `None` gives back what it had. It ends
    /// with the process.
    ///
    /// # Errors
    /// As for [`limit_open_files`](Process::limit_open_files).
    pub fn limit_file_size(&self, bytes: Option<u64>) -> Result<()> {
        self.limit(Resource::Fsize, bytes)
    }

    /// How many lines of its log contain `words`, as far as the log is kept.
    pub fn count_logged(&self, words: &str) -> usize {
        let old = self.log_path().with_extension("log.old");
        let logs = [old.as_path(), self.log_path()];
        // A log is bytes, and need not be there yet.
        let texts = logs.iter().filter_map(|path| std::fs::read(path).ok());
        texts
            .map(|text| String::from_utf8_lossy(&text).lines().filter(|line| line.contains(words)).count())
            .sum()
    }
}
