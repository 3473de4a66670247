//! Where Redis is: one server, a Sentinel group, or a cluster.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// A parsed address. Its `Debug` and `Display` leave passwords out.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// What stands behind the hosts.
    pub kind: Kind,
    /// `host:port` of the server, of each sentinel, or of some cluster nodes.
    pub hosts: Vec<String>,
    /// Number of the database; always 0 in a cluster.
    pub database: u32,
    /// How to log in to the servers.
    pub login: Login,
    /// How to log in to the sentinels.
    pub sentinel_login: Login,
}

/// What stands behind the hosts of an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One server.
    Plain,
    /// Sentinels that know the master of this name.
    Sentinel {
        /// The name under which the sentinels watch the master.
        master: String,
    },
    /// Nodes of a cluster; the others are found through them.
    Cluster,
}

/// A user and a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user; `default` if only a password is given.
    pub user: Option<String>,
    /// The password; no login at all without one.
    pub password: Option<String>,
}

impl Address {
    /// Reads `redis://[user:password@]host[:port][/database]`, `redis+sentinel://[user:password@]host[:port][,…]/master`
    /// (with `?sentinel_user=…&sentinel_password=…` if the sentinels ask for them, `&database=…` if it is not 0) or
    /// `redis+cluster://[user:password@]host[:port][,…]`. User and password may be percent-encoded.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Login::parse(login)?, hosts),
            None => (Login::default(), authority),
        };
        let (kind, port, mut database) = match scheme {
            "redis" => (Kind::Plain, DEFAULT_PORT, number(path)?),
            "redis+cluster" if path.is_empty() || path == "0" => (Kind::Cluster, DEFAULT_PORT, 0),
            "redis+cluster" => return Err(wrong("a cluster has database 0 only")),
            "redis+sentinel" if path.is_empty() => {
                return Err(wrong("the master's name is missing: redis+sentinel://host:port/master-name"));
            }
            "redis+sentinel" => (Kind::Sentinel { master: decoded(path)? }, DEFAULT_SENTINEL_PORT, 0),
            "rediss" => {
                return Err(wrong("rediss:// is not supported: put a TLS tunnel next to the node (stunnel)"));
            }
            _ => return Err(wrong("its scheme is none of redis, redis+sentinel, redis+cluster")),
        };
        let hosts: Vec<String> = hosts.split(',').map(|host| with_port(host, port)).collect::<Result<_>>()?;
        if kind == Kind::Plain && hosts.len() > 1 {
            return Err(wrong("several hosts need redis+sentinel:// or redis+cluster://"));
        }
        let mut sentinel_login = Login::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, &kind) {
                ("database", Kind::Sentinel { .. }) => database = number(value)?,
                ("sentinel_user", Kind::Sentinel { .. }) => sentinel_login.user = Some(decoded(value)?),
                ("sentinel_password", Kind::Sentinel { .. }) => {
                    sentinel_login.password = Some(decoded(value)?);
                }
                _ => return Err(wrong(format!("{key:?} is no parameter of {scheme}://"))),
            }
        }
        Ok(Self { kind, hosts, database, login, sentinel_login })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.join(",");
        match &self.kind {
            Kind::Plain if self.database == 0 => write!(f, "redis://{hosts}"),
            Kind::Plain => write!(f, "redis://{hosts}/{}", self.database),
            Kind::Sentinel { master } => write!(f, "redis+sentinel://{hosts}/{master}"),
            Kind::Cluster => write!(f, "redis+cluster://{hosts}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self> {
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, password),
            None => return Err(wrong("a user without a password: write user:password@")),
        };
        let user = (!user.is_empty()).then(|| decoded(user)).transpose()?;
        Ok(Self { user, password: Some(decoded(password)?) })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

fn with_port(host: &str, port: u16) -> Result<String> {
    let name_end = host.rfind(']').map_or(0, |at| at + 1);
    match host[name_end..].rsplit_once(':') {
        _ if host.is_empty() => Err(wrong("a host is empty")),
        Some((_, given)) if given.parse::<u16>().is_ok_and(|given| given != 0) => Ok(host.to_owned()),
        Some(_) => Err(wrong("a port is no number from 1 to 65535")),
        None => Ok(format!("{host}:{port}")),
    }
}

fn number(text: &str) -> Result<u32> {
    match text {
        "" => Ok(0),
        text => text.parse().map_err(|_| wrong("the database is no number")),
    }
}

fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(wrong("a % is not followed by two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("a percent-encoded part is not UTF-8"))
}

/// The URL itself stays out of the message: it may hold a password.
fn wrong(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, "connect", format!("the Redis address is wrong: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_read() {
        let plain = Address::parse("redis://localhost").unwrap();
        assert_eq!((plain.kind, plain.hosts), (Kind::Plain, vec!["localhost:6379".to_owned()]));
        let plain = Address::parse("redis://ann:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!((plain.hosts, plain.database), (vec!["[::1]:7000".to_owned()], 3));
        assert_eq!(plain.login, Login { user: Some("ann".into()), password: Some("p@ss".into()) });
        let sentinel =
            Address::parse("redis+sentinel://:pw@a:1,b/mymaster?sentinel_password=x&database=2").unwrap();
        assert_eq!(sentinel.kind, Kind::Sentinel { master: "mymaster".into() });
        assert_eq!(sentinel.hosts, ["a:1", "b:26379"]);
        assert_eq!(sentinel.database, 2);
        assert_eq!(sentinel.sentinel_login.password.as_deref(), Some("x"));
        let cluster = Address::parse("redis+cluster://a:1,b:2").unwrap();
        assert_eq!((cluster.kind, cluster.hosts.len()), (Kind::Cluster, 2));
    }

    #[test]
    fn mistakes_are_refused_without_telling_the_secret() {
        for url in [
            "localhost:6379",
            "http://:secret@a",
            "rediss://:secret@a",
            "redis://:secret@a:0",
            "redis://:secret@a,b",
            "redis://secret@a",
            "redis://:secret@a?x=1",
            "redis://:secret@/0",
            "redis+sentinel://:secret@a:1",
            "redis+cluster://:secret@a:1/2",
            "redis://:secret%zz@a",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let address = Address::parse("redis+sentinel://u:secret@a:1/m?sentinel_password=secret").unwrap();
        assert!(!format!("{address:?} {address} {:?}", address.login).contains("secret"));
    }
}
