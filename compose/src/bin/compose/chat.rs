//! `compose chat`: brokers and nodes of one strategy in the foreground.

use std::time::Duration;

use manifold_compose::{Environment, Error, NodeSpec, Nodes, Result, chat_server_binary};

use crate::interrupt;
use crate::options::Chat;

/// How long nodes may take to drain after Ctrl-C; a second Ctrl-C cuts it short.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Brings it all up, prints the addresses, and stays until a signal comes.
pub(crate) fn chat(options: &Chat) -> Result<()> {
    let request = options.brokers.request()?;
    let alone = request.kafka.is_none() && request.redis.is_none();
    let count = options.nodes.unwrap_or(if alone { 1 } else { 3 });
    if alone && count > 1 {
        let strategy = &options.brokers.strategy;
        return Err(Error::State(format!("`{strategy}` carries nothing between nodes: use --nodes 1")));
    }
    let spec = NodeSpec {
        binary: chat_server_binary(options.binary.as_deref())?,
        strategy: options.brokers.strategy.clone(),
        nodes: usize::from(count),
        namespace: "chat".to_owned(),
        strategy_options: options.strategy_options.clone(),
        extra_args: Vec::new(),
        listen_base_port: Some(options.listen_base_port),
    };
    let interrupt = interrupt::watch();
    let environment = Environment::start(&request)?;
    let nodes = Nodes::start(&spec, &environment)?;
    interrupt.listen();
    println!("{} is up. Open in a browser, one tab per node:", spec.strategy);
    for (process, address) in nodes.processes().iter().zip(nodes.http()) {
        println!("  {}  {address}/    log: {}", process.name(), process.log_path().display());
    }
    for process in environment.processes() {
        println!("  {}  pid {}  log: {}", process.name(), process.pid(), process.log_path().display());
    }
    println!("Ctrl-C ends it.");
    interrupt.wait();
    println!("Ending.");
    nodes.terminate(DRAIN_WITHIN)?.iter().for_each(|said| eprintln!("{said}"));
    Ok(())
}
