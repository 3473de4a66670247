//! Every option, once: its name, its default, what it means. The flag, the environment variable and the TOML key
//! follow from it.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

/// Declares [`Layer`] (what one source says) and [`Config`] (what is in effect).
macro_rules! options {
    (
        given: { $($(#[doc = $doc:literal])+ $(#[arg $arg:tt])? $env:literal $name:ident: $type:ty = $default:expr;)* }
        optional: { $($(#[doc = $odoc:literal])+ $oenv:literal $oname:ident;)* }
    ) => {
        /// What one source says: the command line with the environment, or the file.
        #[derive(Clone, Default, Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct Layer {
            $($(#[doc = $doc])+ #[arg(long, env = $env)] $(#[arg $arg])? pub(super) $name: Option<$type>,)*
            $($(#[doc = $odoc])+ #[arg(long, env = $oenv)] pub(super) $oname: Option<String>,)*
            /// Settings of the strategy.
            #[arg(skip)]
            pub(super) strategy_option: toml::Table,
        }

        /// The settings in effect. Names carry their units.
        #[derive(Clone, Serialize)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $type,)*
            $($(#[doc = $odoc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $oname: Option<String>,)*
            /// Settings of the strategy.
            pub strategy_option: toml::Table,
        }

        /// Secrets masked: what is formatted for a look ends up in logs.
        impl fmt::Debug for Config {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown = self.masked();
                let mut out = f.debug_struct("Config");
                $(out.field(stringify!($name), &shown.$name);)*
                $(out.field(stringify!($oname), &shown.$oname);)*
                out.field("strategy_option", &shown.strategy_option).finish()
            }
        }

        impl Default for Config {
            fn default() -> Self {
                Layer::default().resolve()
            }
        }

        impl Layer {
            /// Fills in from `below` what this layer leaves open.
            pub(super) fn over(self, below: Self) -> Self {
                let mut strategy_option = below.strategy_option;
                strategy_option.extend(self.strategy_option);
                Self {
                    $($name: self.$name.or(below.$name),)*
                    $($oname: self.$oname.or(below.$oname),)*
                    strategy_option,
                }
            }

            /// Fills in the defaults.
            pub(super) fn resolve(self) -> Config {
                Config {
                    $($name: self.$name.unwrap_or_else(|| $default),)*
                    $($oname: self.$oname,)*
                    strategy_option: self.strategy_option,
                }
            }
        }
    };
}

options! {
    given: {
        /// How messages travel between nodes.
        "MANIFOLD_STRATEGY" strategy: String = "memory".to_owned();
        /// Address and port to listen on; port 0 takes a free one, which is printed.
        "MANIFOLD_LISTEN" listen: String = "127.0.0.1:8000".to_owned();
        /// Name of this node, unique in the cluster: 1 to 64 of A-Z a-z 0-9 . _ - (default: random).
        "MANIFOLD_NODE" node: String = super::random_node_name();
        /// Prefix of everything at the brokers: clusters with different namespaces never meet. As the node's name.
        "MANIFOLD_NAMESPACE" namespace: String = "manifold".to_owned();
        /// How long an absent broker is tried at start; 0 gives up after one attempt.
        "MANIFOLD_CONNECT_RETRY_MS" connect_retry_ms: u64 = 30_000;
        /// Form of the log on stderr: human or json.
        "MANIFOLD_LOG_FORMAT" log_format: LogFormat = LogFormat::Human;
        /// What is logged, as tracing's filter directives.
        "MANIFOLD_LOG" log: String = "info".to_owned();
        /// Threads that serve; 0 is one per core.
        "MANIFOLD_WORKER_THREADS" worker_threads: u64 = 0;

        /// Origins that may connect, as globs (`https://*.example.org`, `*` for all). A page of this server always may, and so
        /// may clients that send no Origin.
        #[arg(value_delimiter = ',')]
        "MANIFOLD_ALLOWED_ORIGINS" allowed_origins: Vec<String> = Vec::new();
        /// Serve the chat page at `/`.
        #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        "MANIFOLD_PAGE" page: bool = true;
        /// Bytes of an API request at most.
        "MANIFOLD_API_BODY_BYTES_MAX" api_body_bytes_max: u64 = 1024 * 1024;

        /// Let clients without a token connect, as user "".
        #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        "MANIFOLD_ALLOW_ANONYMOUS" allow_anonymous: bool = true;
        /// Let a client publish only into rooms that it is subscribed to.
        #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        "MANIFOLD_PUBLISH_REQUIRES_SUBSCRIPTION" publish_requires_subscription: bool = false;
        /// Accept room names beyond ASCII.
        #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        "MANIFOLD_UNICODE_ROOM_NAMES" unicode_room_names: bool = false;

        /// WebSocket connections at most; further ones are refused with status 503.
        "MANIFOLD_CONNECTIONS_MAX" connections_max: u64 = 100_000;
        /// Bytes of a client's message (WebSocket message, and payload) at most.
        "MANIFOLD_MESSAGE_BYTES_MAX" message_bytes_max: u32 = 64 * 1024;
        /// Bytes of a room's name at most.
        "MANIFOLD_ROOM_NAME_BYTES_MAX" room_name_bytes_max: u32 = 255;
        /// Rooms that one connection is in at most.
        "MANIFOLD_ROOMS_PER_CONNECTION_MAX" rooms_per_connection_max: u32 = 128;
        /// Bytes that wait for one client at most; then it is closed as slow.
        "MANIFOLD_OUTBOX_BYTES_MAX" outbox_bytes_max: u64 = 1024 * 1024;
        /// Commands per second and connection; 0 is unlimited.
        "MANIFOLD_INBOUND_RATE_MAX" inbound_rate_max: u32 = 10_000;
        /// Commands at once, before the rate counts.
        "MANIFOLD_INBOUND_BURST_MAX" inbound_burst_max: u32 = 20_000;
        /// Commands of one connection that wait for the backplane or behind a join at most; joins and recoveries count, but `rooms_per_connection_max` bounds them.
        "MANIFOLD_PENDING_COMMANDS_MAX" pending_commands_max: u32 = 1024;
        /// A node at which whoever has something to do waits for so long, twice in a row, refuses publishes of clients until that is less than half of it; looked at every 50 ms, 0 is never.
        "MANIFOLD_OVERLOAD_MS" overload_ms: u64 = 250;
        /// Rooms with this many members are served by a task of their own, in turns.
        "MANIFOLD_GIANT_MEMBERS_MIN" giant_members_min: u64 = 512;
        /// Bytes that wait in a giant room's queue at most; then who delivers helps to empty it.
        "MANIFOLD_GIANT_QUEUE_BYTES_MAX" giant_queue_bytes_max: u64 = 4 * 1024 * 1024;

        /// Missed messages that a client that comes back gets at most; who missed more is told that it cannot recover.
        "MANIFOLD_RECOVERY_MESSAGES_MAX" recovery_messages_max: u32 = 300;
        /// Bytes of live messages that a room holds back at most while history is read for those who come back to it.
        "MANIFOLD_RECOVERY_HOLD_BYTES_MAX" recovery_hold_bytes_max: u64 = 1024 * 1024;
        /// Time for the backplane to read history, as a client waits for it.
        "MANIFOLD_RECOVERY_TIMEOUT_MS" recovery_timeout_ms: u64 = 10_000;
        /// Messages of one answer to a history request at most.
        "MANIFOLD_HISTORY_MESSAGES_MAX" history_messages_max: u32 = 300;
        /// How often the position of a quiet room is compared with the backplane's, for members that are told of losses; 0 is never.
        "MANIFOLD_POSITION_CHECK_MS" position_check_ms: u64 = 2_000;

        /// Know who is in which room, on all nodes: presence, join and leave.
        #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        "MANIFOLD_PRESENCE" presence: bool = true;
        /// Time in which nodes gather who came and went, before they tell each other.
        "MANIFOLD_PRESENCE_BATCH_MS" presence_batch_ms: u64 = 50;
        /// Time between a node's signs of life to the others.
        "MANIFOLD_PRESENCE_HEARTBEAT_MS" presence_heartbeat_ms: u64 = 1_000;
        /// After how much silence of a node its clients count as gone.
        "MANIFOLD_PRESENCE_SILENCE_MS" presence_silence_ms: u64 = 5_000;

        /// Time between pings to a client.
        "MANIFOLD_PING_INTERVAL_MS" ping_interval_ms: u64 = 25_000;
        /// Time for the answer to a ping.
        "MANIFOLD_PONG_TIMEOUT_MS" pong_timeout_ms: u64 = 8_000;
        /// Time that an HTTP connection is kept for further requests, and again for the last of them to be read and answered.
        "MANIFOLD_REQUEST_TIMEOUT_MS" request_timeout_ms: u64 = 30_000;
        /// Time for a client's `connect` command.
        "MANIFOLD_CONNECT_TIMEOUT_MS" connect_timeout_ms: u64 = 10_000;
        /// Time for a client's answer to a close.
        "MANIFOLD_CLOSE_TIMEOUT_MS" close_timeout_ms: u64 = 5_000;
        /// Time for the backplane to join a room, as a subscriber waits for it.
        "MANIFOLD_JOIN_TIMEOUT_MS" join_timeout_ms: u64 = 10_000;
        /// How long a room without members stays joined.
        "MANIFOLD_LEAVE_LINGER_MS" leave_linger_ms: u64 = 1_000;
        /// Over how long a node that goes down spreads its goodbyes.
        "MANIFOLD_DRAIN_WINDOW_MS" drain_window_ms: u64 = 5_000;
        /// Time for the backplane to answer what it has accepted, and again to flush and leave, at the end.
        "MANIFOLD_SHUTDOWN_TIMEOUT_MS" shutdown_timeout_ms: u64 = 10_000;
    }
    optional: {
        /// Kafka: host:port[,host:port…] (also KAFKA_BOOTSTRAP).
        "MANIFOLD_KAFKA" kafka;
        /// Redis: redis://host:port, redis+sentinel://… or redis+cluster://… (also REDIS_URL).
        "MANIFOLD_REDIS" redis;
        /// Key of the HTTP API; without one every API request is refused.
        "MANIFOLD_API_KEY" api_key;
    }
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}
