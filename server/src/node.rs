//! What all parts of one node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use manifold_protocol::json;
use manifold_strategies::{Backplane, Entrance, MessageId, Start};

use crate::clock::unix_us;
use crate::config::{Config, ConfigError};
use crate::history::Reads;
use crate::hub::{Hub, HubSettings};
use crate::metrics::{Gauges, Metrics};
use crate::presence::{self, Presence};
use crate::rooms::RoomRules;
use crate::sweep::{Deadlines, Sweep};

/// One server process: its settings, its rooms, its counters.
#[derive(Debug)]
pub struct Node {
    config: Config,
    /// The settings as shown to people.
    effective: toml::Table,
    hub: Arc<Hub>,
    reads: Reads,
    sweep: Arc<Sweep>,
    metrics: Arc<Metrics>,
    connections: AtomicUsize,
    draining: AtomicBool,
    /// Message ids: random bits of this process above, a count below.
    id_prefix: u64,
    id_next: AtomicU64,
    /// What a `connect` reply tells the application: where it is connected.
    connect_data: String,
    started_at_us: u64,
}

/// A place among the connections, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Node>);

impl Admission {
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
    }
}

impl Node {
    /// A node without a backplane. Must be called within the runtime that it is to run on.
    ///
    /// # Errors
    /// When the settings do not hold, or the system has no randomness.
    pub fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        config.check()?;
        let effective = config.effective()?;
        let metrics = Arc::new(Metrics::default());
        let hub_settings = HubSettings {
            leave_linger: Duration::from_millis(config.leave_linger_ms),
            giant_members_min: usize::try_from(config.giant_members_min)?,
            giant_queue_bytes_max: usize::try_from(config.giant_queue_bytes_max)?,
            recovery_hold_bytes_max: usize::try_from(config.recovery_hold_bytes_max)?,
            position_check: Duration::from_millis(config.position_check_ms),
        };
        let deadlines = Deadlines {
            connect: Duration::from_millis(config.connect_timeout_ms),
            ping_interval: Duration::from_millis(config.ping_interval_ms),
            pong: Duration::from_millis(config.pong_timeout_ms),
            close: Duration::from_millis(config.close_timeout_ms),
            overload: Duration::from_millis(config.overload_ms),
        };
        let hub = Hub::new(hub_settings, Arc::clone(&metrics));
        if config.presence {
            let timing = presence::Timing {
                batch_ms: config.presence_batch_ms,
                heartbeat_ms: config.presence_heartbeat_ms,
                silence_ms: config.presence_silence_ms,
            };
            hub.set_presence(Presence::new(timing, Arc::clone(&metrics))?);
        }
        Ok(Arc::new(Self {
            effective,
            hub,
            reads: Reads::default(),
            sweep: Arc::new(Sweep::new(deadlines)),
            metrics,
            connections: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            id_prefix: getrandom::u64()?,
            id_next: AtomicU64::new(0),
            connect_data: connect_data(&config),
            started_at_us: unix_us(),
            config,
        }))
    }

    /// Connects the strategy that the settings name, and joins the cluster.
    ///
    /// # Errors
    /// When the strategy's settings are wrong or its broker stays absent.
    pub async fn connect(&self) -> Result<(), ConfigError> {
        let Config { node, namespace, kafka, redis, strategy_option, connect_retry_ms, .. } = &self.config;
        let start = Start {
            node: node.clone(),
            namespace: namespace.clone(),
            kafka: kafka.clone(),
            redis: redis.clone(),
            settings: strategy_option.clone(),
            connect_retry: (*connect_retry_ms > 0).then(|| Duration::from_millis(*connect_retry_ms)),
            entrance: self.entrance(),
        };
        let backplane = (self.config.strategy()?.connect)(start).await?;
        self.set_backplane(backplane);
        Ok(())
    }

    /// The node's one entrance, for a backplane that is started by other means than [`connect`](Self::connect).
    pub fn entrance(&self) -> Arc<dyn Entrance> {
        Arc::clone(&self.hub) as Arc<dyn Entrance>
    }

    /// Sets a backplane that was started with this node's [`entrance`](Self::entrance). The first one counts.
    pub fn set_backplane(&self, backplane: Arc<dyn Backplane>) {
        self.hub.set_backplane(backplane);
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// WebSocket connections now.
    pub fn connection_count(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) fn effective(&self) -> &toml::Table {
        &self.effective
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) fn backplane(&self) -> &Arc<dyn Backplane> {
        self.hub.backplane()
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    pub(crate) fn sweep(&self) -> &Arc<Sweep> {
        &self.sweep
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn rooms(&self) -> RoomRules {
        RoomRules {
            bytes_max: self.config.room_name_bytes_max as usize,
            unicode: self.config.unicode_room_names,
        }
    }

    pub(crate) fn connect_data(&self) -> &str {
        &self.connect_data
    }

    pub(crate) fn started_at_us(&self) -> u64 {
        self.started_at_us
    }

    /// An id that no other message has.
    pub(crate) fn next_message_id(&self) -> MessageId {
        let count = self.id_next.fetch_add(1, Relaxed);
        MessageId(u128::from(self.id_prefix) << 64 | u128::from(count))
    }

    /// Takes a place among the connections. `None`: there is none left, or the node is going down.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let limit = usize::try_from(self.config.connections_max).unwrap_or(usize::MAX);
        let admit = |count| (count < limit && !self.is_draining()).then_some(count + 1);
        self.connections.fetch_update(SeqCst, SeqCst, admit).ok().map(|_| Admission(Arc::clone(self)))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, SeqCst);
    }

    /// Values for a scrape.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.connection_count(),
            rooms: self.hub.room_count(),
            outbox_bytes: self.sweep.sessions().iter().map(|session| session.outbox_bytes()).sum(),
            presence: self.hub.presence().map(|presence| presence.counts()),
        }
    }
}

fn connect_data(config: &Config) -> String {
    let mut out = b"{\"node\":".to_vec();
    json::append_string(&mut out, &config.node);
    out.extend_from_slice(b",\"strategy\":");
    json::append_string(&mut out, &config.strategy);
    out.push(b'}');
    String::from_utf8(out).expect("made of strings")
}
