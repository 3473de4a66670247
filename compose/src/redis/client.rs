//! The few questions that are put to Redis servers.

use std::time::Duration;

use redis::{Client, Cmd, Connection, FromRedisValue};

use crate::error::{Error, Result};

/// How long one question may take; an unready server is simply asked again.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// How long a Redis that the user gave may take to answer.
const GIVEN_WITHIN: Duration = Duration::from_secs(5);

/// What is missing, in words.
pub(crate) type Answer<T> = std::result::Result<T, String>;

/// Opens a connection to `host:port` or to a `redis://` URL.
pub(crate) fn connect(address: &str) -> Answer<Connection> {
    let url = if address.contains("://") { address.to_owned() } else { format!("redis://{address}") };
    let open = || {
        let connection = Client::open(url)?.get_connection_with_timeout(ASK_WITHIN)?;
        connection.set_read_timeout(Some(ASK_WITHIN))?;
        connection.set_write_timeout(Some(ASK_WITHIN))?;
        Ok(connection)
    };
    open().map_err(|error: redis::RedisError| format!("{address}: {error}"))
}

/// Sends one command, given as its words.
pub(crate) fn ask<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> Answer<T> {
    let mut command = Cmd::new();
    command.arg(words);
    command.query(connection).map_err(|error| format!("{}: {error}", words.join(" ")))
}

/// Whether a server answers PING; while it loads its data it does not.
pub(crate) fn ping(address: &str) -> Answer<()> {
    let mut connection = connect(address)?;
    ask::<String>(&mut connection, &["PING"]).map(|_| ())
}

/// A line of `INFO` or `CLUSTER INFO`.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// Checks that a Redis which the user gave answers: one of its servers or sentinels.
pub(crate) fn check_given(url: &str) -> Result<()> {
    let mut problem = "the address names no server".to_owned();
    for server in server_urls(url) {
        match ping(&server) {
            Ok(()) => return Ok(()),
            Err(error) => problem = error,
        }
    }
    // The address may carry a password, so only the problem is told.
    let name = "the given Redis".to_owned();
    Err(Error::NotReady { name, waited: GIVEN_WITHIN, problem, log_tail: String::new() })
}

/// One plain URL per server of an address of any shape.
fn server_urls(url: &str) -> Vec<String> {
    let shaped =
        ["redis+sentinel://", "redis+cluster://"].into_iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = shaped else { return vec![url.to_owned()] };
    let authority = rest.split('/').next().unwrap_or_default();
    let (credentials, hosts) =
        authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if credentials.is_empty() { "" } else { "@" };
    hosts
        .split(',')
        .filter(|host| !host.is_empty())
        .map(|host| format!("redis://{credentials}{at}{host}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_shape_yield_their_servers() {
        assert_eq!(server_urls("redis://h:1/0"), ["redis://h:1/0"]);
        assert_eq!(server_urls("redis+sentinel://a:1,b:2/mymaster"), ["redis://a:1", "redis://b:2"]);
        assert_eq!(server_urls("redis+cluster://u:p@a:1,b:2"), ["redis://u:p@a:1", "redis://u:p@b:2"]);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = "cluster_state:ok\r\ncluster_slots_ok:16384\r\n";
        assert_eq!(field(info, "cluster_state"), Some("ok"));
        assert_eq!(field(info, "cluster_slots"), None);
    }
}
