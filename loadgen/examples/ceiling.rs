//! The generator's own ceiling: drives a null server in a process of its own, and prints what that took.
//!
//! `cargo run --release -p manifold-loadgen --example ceiling -- [--coalesce] [KEY=VALUE…]`
//! where the overrides are those of a scenario, e.g. `traffic.rate_per_s=100000`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use manifold_loadgen::engine::{self, RunSpec};
use manifold_loadgen::null_server::{NullServer, NullSettings};
use manifold_loadgen::scenario::Scenario;
use manifold_loadgen::surroundings::Alone;

/// 200 rooms of 10, 200 bytes, 20,000 messages per second: 200,000 deliveries per second.
const SCENARIO: &str = r#"
name = "ceiling"
stands_for = "as much as the generator itself can do"
duration_s = 5.0
warm_up_s = 1.0
rooms = { count = 200, members = 10.0 }
traffic = { rate_per_s = 20000.0, senders_per_room = 1, payload = [{ bytes = 200 }] }
"#;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let coalesce = arguments.iter().any(|argument| argument == "--coalesce");
    if arguments.iter().any(|argument| argument == "--serve") {
        let server = NullServer::start(NullSettings { coalesce, ..NullSettings::default() })?;
        println!("{}", server.url());
        // Ends when the parent closes its end of the pipe, however it dies.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--serve").args(coalesce.then_some("--coalesce"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut url)?;
    }
    let overrides: Vec<String> = arguments.into_iter().filter(|argument| argument.contains('=')).collect();
    let scenario = Scenario::parse("ceiling", SCENARIO, &overrides)?;
    let spec = RunSpec {
        scenario,
        urls: vec![url.trim().to_owned()],
        seed: 1,
        threads: None,
        room_prefix: String::new(),
    };
    let outcome = engine::run(&spec, &Alone);
    drop(child.stdin.take());
    child.wait()?;
    let run = outcome?;
    let ms = |quantile| run.latencies.delivery.quantile_us(quantile).unwrap_or(0) as f64 / 1e3;
    let delivered = run.load.delivered_per_s * run.window_s;
    println!("offered        {:>12.0} msg/s of {:.0}", run.load.offered_per_s, run.load.target_per_s);
    println!("delivered      {:>12.0} /s", run.load.delivered_per_s);
    println!("delivery       p50 {:.3}  p99 {:.3}  max {:.3} ms", ms(0.5), ms(0.99), ms(1.0));
    let lag_us = run.latencies.send_lag.quantile_us(0.99).unwrap_or(0);
    println!("send lag       p99 {:.3} ms", lag_us as f64 / 1e3);
    println!("user CPU       {:>12.3} µs per delivery", run.generator.cpu_user_s * 1e6 / delivered);
    println!("all CPU        {:>12.3} µs per delivery", run.generator.cpu_s * 1e6 / delivered);
    println!("busiest thread {:>12.1} %", run.generator.busy_share_max * 100.0);
    println!("memory         {:>12.1} MB", run.generator.rss_bytes_max as f64 / 1e6);
    println!("audit clean    {:>12}  conserved {}", run.audit.is_clean(), run.audit.conserved);
    Ok(())
}
