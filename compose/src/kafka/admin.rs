//! What an operator does to topics, rightly or by mistake.

use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::Metadata;

use super::client::{ASK_WITHIN, client_config};
use crate::error::{Error, Result};
use crate::process::POLL_INTERVAL;

/// How long a change may take until every broker tells of it.
const DONE_WITHIN: Duration = Duration::from_secs(10);

/// Doubles the partitions of every topic whose name begins with a prefix; returns their names.
pub(crate) fn grow(bootstrap: &str, prefix: &str) -> Result<Vec<String>> {
    let admin = admin(bootstrap)?;
    let before = topics(&admin, prefix)?;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let growth: Vec<(String, usize)> = before.iter().map(|(name, old)| (name.clone(), old * 2)).collect();
    let wanted: Vec<NewPartitions<'_>> =
        growth.iter().map(|(name, partitions)| NewPartitions::new(name, *partitions)).collect();
    let answers = block_on(admin.create_partitions(wanted.iter(), &options()))
        .map_err(|error| failed("growing topics", &error.to_string()))?;
    if let Some((name, error)) = answers.into_iter().find_map(std::result::Result::err) {
        return Err(failed("growing topics", &format!("{name}: {error}")));
    }
    settle(&admin, prefix, |now| now == growth)?;
    Ok(names(before))
}

/// Deletes every topic whose name begins with a prefix; returns their names.
pub(crate) fn delete(bootstrap: &str, prefix: &str) -> Result<Vec<String>> {
    let admin = admin(bootstrap)?;
    let before = names(topics(&admin, prefix)?);
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let doomed: Vec<&str> = before.iter().map(String::as_str).collect();
    let answers = block_on(admin.delete_topics(&doomed, &options()))
        .map_err(|error| failed("deleting topics", &error.to_string()))?;
    if let Some((name, error)) = answers.into_iter().find_map(std::result::Result::err) {
        return Err(failed("deleting topics", &format!("{name}: {error}")));
    }
    Ok(before)
}

fn names(topics: Vec<(String, usize)>) -> Vec<String> {
    topics.into_iter().map(|(name, _)| name).collect()
}

/// Topics and how many partitions they have, by name.
fn topics(admin: &AdminClient<DefaultClientContext>, prefix: &str) -> Result<Vec<(String, usize)>> {
    let metadata: Metadata = admin
        .inner()
        .fetch_metadata(None, ASK_WITHIN)
        .map_err(|error| failed("listing topics", &error.to_string()))?;
    let ours = metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix));
    let mut topics: Vec<(String, usize)> =
        ours.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect();
    topics.sort();
    Ok(topics)
}

fn settle(
    admin: &AdminClient<DefaultClientContext>,
    prefix: &str,
    is_done: impl Fn(&[(String, usize)]) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + DONE_WITHIN;
    while !is_done(&topics(admin, prefix)?) {
        if Instant::now() >= deadline {
            return Err(failed("changing topics", "the change does not show"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    client_config(bootstrap).create().map_err(|error| failed("making a client", &error.to_string()))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DONE_WITHIN)).operation_timeout(Some(DONE_WITHIN))
}

fn failed(what: &str, why: &str) -> Error {
    Error::State(format!("{what} of Kafka failed: {why}"))
}
