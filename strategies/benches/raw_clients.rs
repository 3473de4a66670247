//! The broker's client library on its own: one producer and as many consumers as there would be nodes, with the settings
//! that the strategies use. Prints what it saw as one line of JSON, for `loadgen bench`, which holds the strategies against it.
//!
//! `raw_clients kafka|redis --address ADDRESS --rate PER_S --consumers N --warm-up S --seconds S`
//!
//! The loop's CPU is that of the whole process, less what its pacing (sleeping until a message is due) was seen to cost on
//! its own. Latency is from when a message was due to its hand-over to a consumer, on one clock.

#[path = "raw_clients/kafka.rs"]
mod kafka;
#[path = "raw_clients/redis.rs"]
mod redis;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::runtime::Runtime;

/// Bytes of a message.
const PAYLOAD_BYTES: usize = 200;
/// Rooms that messages go round, as in the load that the strategies get.
const ROOMS: u64 = 53;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the pacing alone is watched.
const CALIBRATION_S: f64 = 0.5;
/// Longest wait of a consumer, so that the end is seen.
const LOOK: Duration = Duration::from_millis(100);

/// What was asked for.
struct Order {
    address: String,
    rate: f64,
    consumers: usize,
    warm_up: u64,
    messages: u64,
    /// Names of this run: nobody has used them before.
    name: String,
}

/// What all threads share.
struct Shared {
    origin: Instant,
    /// Messages of the counted window that were received.
    received: AtomicU64,
    stop: AtomicBool,
    warm_up: u64,
}

/// Sends one message; returns when it is on its way, and waits for no answer.
type Sending<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;
/// Latencies of the counted window, microseconds.
type Reader = JoinHandle<Result<Vec<u64>>>;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let client = words.next().unwrap_or_default();
    let order = Order::parse(words)?;
    let shared = Arc::new(Shared {
        origin: Instant::now(),
        received: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        warm_up: order.warm_up,
    });
    match client.as_str() {
        "kafka" => kafka::run(&order, &shared),
        "redis" => redis::run(&order, &shared),
        _ => bail!("say kafka or redis, then --address, --rate, --consumers, --warm-up and --seconds"),
    }
}

impl Order {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self> {
        let words: Vec<String> = words.collect();
        let given: HashMap<&str, &str> =
            words.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        let text = |flag: &str| given.get(flag).copied().with_context(|| format!("{flag} is missing"));
        let number = |flag: &str| -> Result<f64> {
            text(flag)?.parse::<f64>().with_context(|| format!("{flag} is no number"))
        };
        let (rate, seconds) = (number("--rate")?, number("--seconds")?);
        ensure!(rate >= 1.0 && seconds > 0.0, "--rate must be at least 1, --seconds above 0");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            address: text("--address")?.to_owned(),
            rate,
            consumers: number("--consumers")? as usize,
            warm_up: (number("--warm-up")? * rate) as u64,
            messages: (seconds * rate).ceil() as u64,
            name: format!("bare-{}-{:x}", std::process::id(), since.as_micros()),
        })
    }

    fn room(&self, number: u64) -> String {
        format!("{}.{}", self.name, number % ROOMS)
    }

    /// Paces the messages, waits for the last of them, and prints what was seen.
    fn perform(
        &self,
        client: &str,
        shared: &Shared,
        readers: Vec<Reader>,
        send: &mut Sending<'_>,
    ) -> Result<()> {
        let pacing_us = calibrate(self.rate)?;
        let gap = Duration::from_secs_f64(1.0 / self.rate);
        let begin = Instant::now() + Duration::from_millis(20);
        let (mut cpu_ns, mut lag) = (0, Duration::ZERO);
        for number in 0..self.warm_up + self.messages {
            if number == self.warm_up {
                cpu_ns = process_ns()?;
            }
            let due = begin + gap.mul_f64(number as f64);
            sleep_until(due);
            let due_ns = due.duration_since(shared.origin).as_nanos() as u64;
            let mut payload = [b'.'; PAYLOAD_BYTES];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            // As everywhere: from when it was to be sent, whenever it was.
            payload[8..16].copy_from_slice(&due_ns.to_be_bytes());
            send(number, &payload)?;
            if number >= self.warm_up {
                lag = lag.max(due.elapsed());
            }
        }
        let sending = (begin + gap.mul_f64(self.warm_up as f64)).elapsed();
        let expected = self.messages * self.consumers as u64;
        let deadline = Instant::now() + PATIENCE;
        while shared.received.load(Ordering::Acquire) < expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
        let cpu_ns = process_ns()?.saturating_sub(cpu_ns);
        shared.stop.store(true, Ordering::Release);
        let mut latencies = Vec::new();
        for reader in readers {
            latencies.extend(reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        latencies.sort_unstable();
        let at = |quantile: f64| {
            let last = latencies.len().saturating_sub(1);
            latencies.get((quantile * last as f64).round() as usize).copied().unwrap_or(0)
        };
        let cpu_us = cpu_ns as f64 / 1e3 / self.messages as f64;
        println!(
            "{}",
            serde_json::json!({
                "client": client,
                "sent": self.messages,
                "received": latencies.len(),
                "sending_s": sending.as_secs_f64(),
                "send_lag_us_max": lag.as_micros() as u64,
                "cpu_us_per_message": (cpu_us - pacing_us).max(0.0),
                "pacing_us_per_message": pacing_us,
                "delivery_us_p50": at(0.5),
                "delivery_us_p99": at(0.99),
            })
        );
        Ok(())
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// A message came: its latency, if it counts.
    fn take(&self, payload: &[u8], latencies: &mut Vec<u64>) {
        let word = |at: usize| {
            payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
        };
        let (Some(number), Some(due_ns)) = (word(0), word(8)) else { return };
        if number >= self.warm_up {
            latencies.push(self.now_ns().saturating_sub(due_ns) / 1_000);
            self.received.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Sleeps, and sleeps on where it woke too soon.
fn sleep_until(due: Instant) {
    while let Some(rest) = due.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::sleep(rest);
    }
}

/// What the pacing of one message costs, microseconds of CPU.
fn calibrate(rate: f64) -> Result<f64> {
    let rounds = (rate * CALIBRATION_S).ceil().max(1.0);
    let gap = Duration::from_secs_f64(1.0 / rate);
    let (begin, before) = (Instant::now(), on_core_ns("/proc/thread-self/schedstat")?);
    for round in 0..rounds as u64 {
        sleep_until(begin + gap.mul_f64(round as f64));
    }
    let spent = on_core_ns("/proc/thread-self/schedstat")? - before;
    Ok(spent as f64 / 1e3 / rounds)
}

fn on_core_ns(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).context("no scheduler statistics")
}

/// Time on a core of all threads of this process.
fn process_ns() -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        // One of the runtime's helpers may end just now; what it did was before the window.
        sum += on_core_ns(&thread?.path().join("schedstat").to_string_lossy()).unwrap_or(0);
    }
    Ok(sum)
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
