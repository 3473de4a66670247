//! Who serves which key: one server, the master that the sentinels name, or the masters of a cluster.

use std::sync::LazyLock;

use super::address::{Address, Kind};
use super::connection::{Connection, Opening};
use super::resp::Value;
use crate::error::{Error, ErrorKind, Result};

/// Number of hash slots of a cluster.
pub const SLOTS: u16 = 16384;

/// A server that takes writes, and the slots that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// `host:port`.
    pub host: String,
    /// First and last slot of each range; everything outside of a cluster.
    pub slots: Vec<(u16, u16)>,
}

/// Asks who serves what now. `known` are hosts learned earlier, asked after the address' own.
pub async fn discover(address: &Address, known: &[String], opening: &Opening) -> Result<Vec<Shard>> {
    let everything = |host: String| vec![Shard { host, slots: vec![(0, SLOTS - 1)] }];
    if address.kind == Kind::Plain {
        return Ok(everything(address.hosts[0].clone()));
    }
    let mut problem = None;
    for host in address.hosts.iter().chain(known) {
        let answer = match &address.kind {
            Kind::Sentinel { master } => ask_sentinel(host, master, address, opening).await.map(everything),
            _ => ask_cluster(host, opening).await,
        };
        match answer {
            Ok(shards) => return Ok(shards),
            Err(error) => problem = Some(error),
        }
    }
    Err(problem.unwrap_or_else(|| Error::new(ErrorKind::Config, "connect", "the Redis address has no host")))
}

async fn ask_sentinel(host: &str, master: &str, address: &Address, opening: &Opening) -> Result<String> {
    let opening = Opening { login: address.sentinel_login.clone(), database: 0, ..opening.clone() };
    let mut sentinel = Connection::open(host, &opening).await?;
    let command: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", master.as_bytes()];
    match sentinel.call(&command, opening.timeout).await? {
        Value::Array(parts) => match parts.as_slice() {
            [Value::Text(host), Value::Text(port)] => Ok(joined(host, port)),
            _ => Err(unexpected("SENTINEL get-master-addr-by-name")),
        },
        Value::Null => Err(Error::new(
            ErrorKind::Config,
            "connect",
            format!("sentinel {host} knows no master {master:?}"),
        )),
        _ => Err(unexpected("SENTINEL get-master-addr-by-name")),
    }
}

/// Whether the server behind `connection` takes writes; a demoted master does not.
pub async fn is_master(connection: &mut Connection, opening: &Opening) -> Result<bool> {
    match connection.call(&[b"ROLE"], opening.timeout).await? {
        Value::Array(parts) => {
            Ok(parts.first().and_then(Value::text).is_some_and(|role| &role[..] == b"master"))
        }
        _ => Err(unexpected("ROLE")),
    }
}

/// What tells this life of the server from every other. Another process has another one, and so has the same process that was
/// made a replica and a master again: what it holds then is another master's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Drawn by the process when it starts.
    process: u64,
    /// Drawn when it becomes master; 0 from a server that does not tell.
    tenure: u64,
}

impl Life {
    /// Asks the server behind `connection`.
    pub async fn ask(connection: &mut Connection, opening: &Opening) -> Result<Self> {
        let mut read = async |section: &[u8], field| match connection
            .call(&[b"INFO", section], opening.timeout)
            .await?
        {
            Value::Text(info) => Ok(number(&info, field)),
            _ => Err(unexpected("INFO")),
        };
        let process = read(b"server", "run_id:").await?.ok_or_else(|| unexpected("INFO server"))?;
        Ok(Self { process, tenure: read(b"replication", TENURE).await?.unwrap_or_default() })
    }

    /// The two in one number.
    pub fn as_u64(self) -> u64 {
        self.process ^ self.tenure
    }

    /// Whether both are of one process, which numbers its connections.
    pub fn same_process(self, other: Self) -> bool {
        self.process == other.process
    }

    /// Whether a server that told this life is in it still. `info` is what it says about replication now.
    pub fn goes_on(self, info: &[u8]) -> bool {
        number(info, TENURE).unwrap_or_default() == self.tenure
    }
}

/// Besides on becoming master it is drawn anew with the first replica ever, and an hour after the last one left: then rooms are
/// numbered anew without need.
const TENURE: &str = "master_replid:";

/// The front of a field of 40 hexadecimal digits.
fn number(info: &[u8], field: &str) -> Option<u64> {
    let info = std::str::from_utf8(info).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix(field))?;
    u64::from_str_radix(id.get(..16)?, 16).ok()
}

async fn ask_cluster(host: &str, opening: &Opening) -> Result<Vec<Shard>> {
    let mut node = Connection::open(host, opening).await?;
    let reply = node.call(&[b"CLUSTER", b"SLOTS"], opening.timeout).await?;
    let mut shards: Vec<Shard> = Vec::new();
    for (range, owner) in slot_ranges(&reply, host).ok_or_else(|| unexpected("CLUSTER SLOTS"))? {
        match shards.iter_mut().find(|shard| shard.host == owner) {
            Some(shard) => shard.slots.push(range),
            None => shards.push(Shard { host: owner, slots: vec![range] }),
        }
    }
    if shards.is_empty() {
        return Err(Error::new(ErrorKind::Broker, "connect", format!("no slot is served at {host} yet")));
    }
    Ok(shards)
}

/// Reads `CLUSTER SLOTS`: ranges with their masters. A node that does not know its own name is `asked`.
fn slot_ranges(reply: &Value, asked: &str) -> Option<Vec<((u16, u16), String)>> {
    let Value::Array(ranges) = reply else { return None };
    let read = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Integer(first), Value::Integer(last), Value::Array(master), ..] = range.as_slice() else {
            return None;
        };
        let port = match master.get(1)? {
            Value::Integer(port) => *port,
            _ => return None,
        };
        let host = match master.first()? {
            Value::Text(host) if !host.is_empty() && &host[..] != b"?" => {
                joined(host, port.to_string().as_bytes())
            }
            Value::Text(_) | Value::Null => format!("{}:{port}", asked.rsplit_once(':')?.0),
            _ => return None,
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        (first <= last && last < SLOTS).then_some(((first, last), host))
    };
    ranges.iter().map(read).collect()
}

fn joined(host: &[u8], port: &[u8]) -> String {
    let (host, port) = (String::from_utf8_lossy(host), String::from_utf8_lossy(port));
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn unexpected(command: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "connect", format!("Redis answered {command} in an unknown form"))
}

/// The slot of a key: CRC16 of its hash tag (what is between the first `{` and the next `}`, if not empty) or of all.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// A short text whose slot is `number`. In braces at the front of a key it puts the key there, whatever follows.
pub fn tag(number: u16) -> &'static str {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // Three letters and digits reach every slot.
    static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut tags = vec![String::new(); usize::from(SLOTS)];
        for length in 1..=3_u32 {
            for number in 0..DIGITS.len().pow(length) {
                let digit = |place: u32| char::from(DIGITS[number / DIGITS.len().pow(place) % DIGITS.len()]);
                let tag: String = (0..length).map(digit).collect();
                let free = &mut tags[usize::from(slot(tag.as_bytes()))];
                if free.is_empty() {
                    *free = tag;
                }
            }
        }
        tags
    });
    &TAGS[usize::from(number % SLOTS)]
}

/// CRC-16/XMODEM, as Redis Cluster uses it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From the Redis Cluster specification and `CLUSTER KEYSLOT`.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"foo{bar}baz"), slot(b"bar"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn every_slot_has_a_tag_that_names_can_not_spoil() {
        for number in 0..SLOTS {
            let tag = tag(number);
            assert!((1..=3).contains(&tag.len()), "{number}");
            assert_eq!(slot(format!("ns!{{{tag}}}a{{b}}c").as_bytes()), number);
        }
    }

    #[test]
    fn a_life_is_read() {
        let info = b"# Server\r\nredis_version:7.0.15\r\nrun_id:00000000000000ffa1b2c3d4e5f60718293a4b5c\r\ntcp_port:6379\r\n";
        assert_eq!(number(info, "run_id:"), Some(255));
        for wrong in [&b"run_id:12\r\n"[..], b"run_id:zzzzzzzzzzzzzzzzzz\r\n", b"tcp_port:6379", b"\xff"] {
            assert_eq!(number(wrong, "run_id:"), None);
        }
        let life = Life { process: 3, tenure: 1 };
        assert!(life.goes_on(b"role:master\r\nmaster_replid:0000000000000001a1b2\r\n"));
        assert!(!life.goes_on(b"role:master\r\nmaster_replid:0000000000000002a1b2\r\n"));
        assert!(!life.goes_on(b"role:master\r\n"));
        assert!(Life { tenure: 0, ..life }.goes_on(b"role:master\r\n"), "it never told");
    }

    #[test]
    fn ranges_are_read_and_nonsense_is_not() {
        let text = |text: &'static str| Value::Text(text.as_bytes().into());
        let range = |first, last, host| {
            Value::Array(vec![
                Value::Integer(first),
                Value::Integer(last),
                Value::Array(vec![host, Value::Integer(7001), text("id")]),
            ])
        };
        let reply = Value::Array(vec![range(0, 99, text("10.0.0.1")), range(100, 16383, Value::Null)]);
        assert_eq!(
            slot_ranges(&reply, "seed:7000").unwrap(),
            [((0, 99), "10.0.0.1:7001".to_owned()), ((100, 16383), "seed:7001".to_owned())]
        );
        assert_eq!(slot_ranges(&Value::Array(vec![range(0, 16384, text("a"))]), "s:1"), None);
        assert_eq!(slot_ranges(&Value::Null, "s:1"), None);
    }
}
