//! Metrics as text for Prometheus (OpenMetrics 1.0).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use manifold_strategies::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::histogram::{BOUNDS_US, Histogram, Totals};
use super::{Hot, Metrics};
use crate::presence::Counts;

/// What `/metrics` answers with.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Values that are measured at the moment of the scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauges {
    pub(crate) connections: usize,
    pub(crate) rooms: usize,
    pub(crate) outbox_bytes: usize,
    /// Absent where presence is off.
    pub(crate) presence: Option<Counts>,
}

/// One scrape.
#[derive(Debug)]
struct Snapshot {
    metrics: Arc<Metrics>,
    gauges: Gauges,
    backplane: Arc<dyn manifold_strategies::Backplane>,
}

/// Renders everything.
///
/// # Errors
/// Only when a metric contradicts the format.
pub(crate) fn render(
    metrics: &Arc<Metrics>,
    gauges: Gauges,
    backplane: &Arc<dyn manifold_strategies::Backplane>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let snapshot = Snapshot { metrics: Arc::clone(metrics), gauges, backplane: Arc::clone(backplane) };
    registry.register_collector(Box::new(snapshot));
    let mut text = String::with_capacity(8 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_node(&mut encoder)?;
        self.encode_presence(&mut encoder)?;
        self.encode_recoveries(&mut encoder)?;
        self.encode_backplane(&mut encoder, self.backplane.stats())?;
        encode_process(&mut encoder)
    }
}

impl Snapshot {
    fn encode_node(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { metrics, gauges, .. } = self;
        gauge(encoder, "manifold_connections", "WebSocket connections", gauges.connections as i64)?;
        gauge(encoder, "manifold_rooms", "Rooms that this node is in", gauges.rooms as i64)?;
        gauge(
            encoder,
            "manifold_outbox_bytes",
            "Bytes that wait for clients to read",
            gauges.outbox_bytes as i64,
        )?;
        let publishes = metrics.sum(|hot| &hot.publishes);
        counter(encoder, "manifold_publishes", "Publishes acknowledged to clients and the API", publishes)?;
        let deliveries = metrics.sum(|hot| &hot.deliveries);
        counter(encoder, "manifold_deliveries", "Messages times members that they went to", deliveries)?;
        let accepted = metrics.accepted.load(Relaxed);
        counter(encoder, "manifold_connections_accepted", "WebSocket connections since the start", accepted)?;
        let slow = metrics.slow_consumer_closes.load(Relaxed);
        counter(
            encoder,
            "manifold_slow_consumer_closes",
            "Connections closed because the client read too slowly",
            slow,
        )?;
        let told = metrics.insufficient_state();
        counter(
            encoder,
            "manifold_insufficient_state",
            "Subscriptions ended because messages were lost",
            told,
        )?;
        labelled(encoder, "manifold_errors", "Failures by kind", "kind", metrics.errors.lock().iter())?;
        labelled(
            encoder,
            "manifold_closes",
            "Connections closed by the server, by code",
            "code",
            metrics.closes.lock().iter(),
        )?;
        let publish = totals(metrics, |hot| &hot.publish_latency);
        histogram(
            encoder,
            "manifold_publish_seconds",
            "From a publish's receipt to its acknowledgement",
            &publish,
        )?;
        let delivery = totals(metrics, |hot| &hot.delivery_latency);
        histogram(
            encoder,
            "manifold_delivery_seconds",
            "From a publish's receipt, by its node's clock, to the members' outboxes",
            &delivery,
        )
    }

    fn encode_recoveries(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let recoveries = self.metrics.recoveries();
        let outcomes: Vec<_> = recoveries.outcomes().collect();
        let help = "Subscriptions that asked for what they missed, by how that ended";
        let values = outcomes.iter().map(|(outcome, count)| (outcome, count));
        labelled(encoder, "manifold_recoveries", help, "outcome", values)?;
        let counters = [
            (
                "manifold_recovered_publications",
                "Missed messages delivered by recoveries",
                &recoveries.publications,
            ),
            (
                "manifold_recovery_reads",
                "Questions to the backplane for those who come back; one may be for many",
                &recoveries.reads,
            ),
            ("manifold_history_reads", "History requests answered", &recoveries.history_reads),
            (
                "manifold_position_checks",
                "Comparisons of a quiet room's position with the backplane's",
                &recoveries.position_checks,
            ),
            (
                "manifold_positions_behind",
                "Such comparisons that showed a loss",
                &recoveries.positions_behind,
            ),
        ];
        counters.iter().try_for_each(|(name, help, value)| counter(encoder, name, help, value.load(Relaxed)))
    }

    fn encode_presence(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(Counts { entries, nodes, resyncs }) = self.gauges.presence else { return Ok(()) };
        gauge(
            encoder,
            "manifold_presence_entries",
            "Clients times rooms that they are in, on all nodes",
            entries as i64,
        )?;
        gauge(encoder, "manifold_presence_nodes", "Nodes that presence hears, and this one", nodes as i64)?;
        counter(
            encoder,
            "manifold_presence_resyncs",
            "Times that a node was asked for all that it knows",
            resyncs,
        )
    }

    fn encode_backplane(&self, encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
        gauge(
            encoder,
            "manifold_backplane_lag_messages",
            "Messages at the broker not read yet; negative is unknown",
            stats.lag_messages.get(),
        )?;
        gauge(
            encoder,
            "manifold_backplane_links_down",
            "Broker links that are broken or silent right now",
            stats.links_down.get(),
        )?;
        let counters = [
            ("manifold_backplane_gaps", "Gaps declared", &stats.gaps),
            ("manifold_backplane_gap_messages", "Messages known to be lost", &stats.gap_messages),
            (
                "manifold_backplane_gaps_repaired",
                "Losses made good from what the broker keeps, before members noticed",
                &stats.gaps_repaired,
            ),
            (
                "manifold_backplane_gap_messages_repaired",
                "Messages delivered late by that",
                &stats.gap_messages_repaired,
            ),
            ("manifold_backplane_duplicates_removed", "Envelopes seen before", &stats.duplicates_removed),
            ("manifold_backplane_reconnects", "Times that a broken broker link came back", &stats.reconnects),
            ("manifold_backplane_envelopes_received", "Envelopes decoded", &stats.envelopes_received),
            (
                "manifold_backplane_envelopes_wanted",
                "Envelopes of rooms with members here",
                &stats.envelopes_wanted,
            ),
            (
                "manifold_backplane_broker_writes",
                "Records or commands written to a broker",
                &stats.broker_writes,
            ),
            ("manifold_backplane_publishes", "Publishes accepted by the backplane", &stats.publishes),
            ("manifold_backplane_corrupt", "Envelopes that could not be decoded", &stats.corrupt),
        ];
        counters.iter().try_for_each(|(name, help, value)| counter(encoder, name, help, value.get()))
    }
}

fn totals(metrics: &Metrics, of: impl Fn(&Hot) -> &Histogram) -> Totals {
    metrics.hot.iter().fold(Totals::default(), |mut totals, hot| {
        totals.add(of(hot));
        totals
    })
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn labelled<'v, L: fmt::Display + 'v>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'v L, &'v u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        let labels = [(label.to_owned(), value.to_string())];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn histogram(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, totals: &Totals) -> fmt::Result {
    let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(totals.buckets).collect();
    let sum_seconds = totals.sum_us as f64 / 1e6;
    encoder
        .encode_descriptor(name, help, None, MetricType::Histogram)?
        .encode_histogram::<[(String, String); 0]>(sum_seconds, totals.count(), &buckets, None)
}

/// What the operating system knows of this process, where it tells.
fn encode_process(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if let Some(bytes) = resident_bytes() {
        gauge(encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(encoder, "process_open_fds", "Open file descriptors", files.count() as i64)?;
    }
    if let Some(seconds) = cpu_seconds() {
        let help = "User and system time";
        let descriptor = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(seconds).encode(descriptor)?;
    }
    Ok(())
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the command, may hold spaces; it ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}
