//! The `compose` command: brings up what a strategy needs, in the foreground or until told otherwise.

mod chat;
mod interrupt;
mod options;
mod up;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use manifold_compose::{Environment, KafkaTopology, Purpose, RedisTopology, Request, Result};

use crate::options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
    let outcome = match &options.command {
        Command::Up(up) => up::up(up),
        Command::Hold(up) => return up::hold(up),
        Command::Status(status) => up::status(status),
        Command::Down(down) => up::down(down),
        Command::Chat(chat) => chat::chat(chat),
        Command::Warm => warm(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere to say it if standard error is closed.
            writeln!(std::io::stderr(), "compose: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

/// Fetches and prepares everything, and proves it by bringing it up once.
fn warm() -> Result<()> {
    interrupt::watch();
    let request = Request {
        kafka: Some(KafkaTopology::Single),
        redis: Some(RedisTopology::Single),
        purpose: Purpose::Tests,
        ..Request::default()
    };
    let environment = Environment::start(&request)?;
    let versions = environment.versions();
    for (what, version) in [("Kafka", &versions.kafka), ("Java", &versions.java), ("Redis", &versions.redis)]
    {
        println!("{what}: {}", version.as_deref().unwrap_or("not used"));
    }
    Ok(())
}
