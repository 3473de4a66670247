//! `chat-server`: reads the settings, starts a node, serves until it is told to stop.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use manifold_server::config::{self, Config, ConfigError};
use manifold_server::{Node, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Time for the runtime's threads to end, after all was done in order.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let invocation = match config::from_command_line(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(ConfigError::CommandLine(error)) => error.exit(),
        Err(error) => return fail(&error.into()),
    };
    let outcome = if invocation.print_config { print(&invocation.config) } else { run(invocation.config) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("chat-server: {error:#}");
    ExitCode::FAILURE
}

fn print(config: &Config) -> anyhow::Result<()> {
    let text = toml::to_string_pretty(&config.effective()?)?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn run(config: Config) -> anyhow::Result<()> {
    manifold_server::init_logging(&config)?;
    raise_file_limit();
    let runtime = manifold_server::runtime(usize::try_from(config.worker_threads)?)?;
    let outcome = runtime.block_on(serve(config));
    // A broker's library may block a thread of the runtime for as long as its broker is silent.
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Bound first: a port that is taken is known before the cluster hears of this node.
    let listener = Server::bind(&config.listen).await?;
    let strategy = config.strategy.clone();
    let node = Node::new(config)?;
    tokio::select! {
        connected = node.connect() => connected.with_context(|| format!("cannot start strategy {strategy}"))?,
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    }
    let server = Server::start(node, listener)?;
    announce(&server)?;
    let node = Arc::clone(server.node());
    let (first_signal, mut signalled) = tokio::sync::watch::channel(false);
    let stop = async move {
        // Its sender lives until the signals were waited for.
        let _ = signalled.wait_for(|signalled| *signalled).await;
    };
    let ended = tokio::select! {
        ended = server.run(stop) => ended,
        () = two_signals(&mut terminate, &mut interrupt, &first_signal) => {
            eprintln!("chat-server: ended by a second signal");
            // At once: nothing is dropped, because that may wait for a broker.
            std::process::exit(1);
        }
    };
    // The node goes on a thread that can be given up, for the same reason.
    drop(tokio::task::spawn_blocking(move || drop(node)));
    ended.context("the backplane failed, or did not leave in order")?;
    tracing::info!("down");
    Ok(())
}

/// Says when the first signal comes, and resolves with the second.
async fn two_signals(
    terminate: &mut Signal,
    interrupt: &mut Signal,
    first: &tokio::sync::watch::Sender<bool>,
) {
    either(terminate, interrupt).await;
    first.send_replace(true);
    either(terminate, interrupt).await;
}

/// The one line on stdout, for whoever started this.
fn announce(server: &Server) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on http://{}", server.address())?;
    stdout.flush()?;
    let config = server.node().config();
    tracing::info!(node = %config.node, strategy = %config.strategy, address = %server.address(), "serving");
    Ok(())
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// Every client is an open file: take all that the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
