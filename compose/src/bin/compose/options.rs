//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use manifold_compose::{Purpose, Request, Result, Topology};

/// Brings up the brokers and nodes that a strategy of Manifold needs.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring up the brokers of a strategy and leave them running until `compose down`
    Up(Up),
    /// Own the processes of an `up`
    #[command(hide = true)]
    Hold(Up),
    /// Say what is up
    Status(Status),
    /// End what `compose up` left running
    Down(Down),
    /// Bring up brokers and chat-server nodes of a strategy until Ctrl-C
    Chat(Chat),
    /// Fetch and prepare everything that later starts need
    Warm,
}

/// Options of `up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) brokers: Brokers,
    /// The name under which to find it again
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Print the addresses as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only what is up under this name; fails where nothing is
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Print one line of JSON per name
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `down`.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The name under which it is up
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
}

/// Options of `chat`.
#[derive(Debug, Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) brokers: Brokers,
    /// How many nodes; 3, or 1 for a strategy without a broker
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: Option<u16>,
    /// The first node's port; each further node takes the next one
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u16).range(1024..))]
    pub(crate) listen_base_port: u16,
    /// The chat-server program; by default the one built beside this one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// A setting of the strategy, key=value; may be repeated
    #[arg(long = "strategy-option", value_name = "KEY=VALUE")]
    pub(crate) strategy_options: Vec<String>,
}

/// Which brokers, and from where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Brokers {
    /// The strategy whose brokers are needed
    pub(crate) strategy: String,
    /// The shape of a broker: kafka, kafka3, redis, redis-sentinel or redis-cluster; may be repeated
    #[arg(long, value_delimiter = ',')]
    pub(crate) topology: Vec<String>,
    /// host:port of a Kafka that is there already
    #[arg(long, env = "KAFKA_BOOTSTRAP", hide_env_values = true)]
    pub(crate) kafka: Option<String>,
    /// URL of a Redis that is there already
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub(crate) redis: Option<String>,
    /// What the brokers are for: `tests` starts sooner, `figures` runs faster
    #[arg(long, value_enum, default_value_t = For::Figures)]
    pub(crate) purpose: For,
}

/// [`Purpose`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum For {
    /// Small heap, quick start
    Tests,
    /// Full compiler and heap
    Figures,
}

impl Brokers {
    /// The request that these options make.
    pub(crate) fn request(&self) -> Result<Request> {
        let mut request = Request::for_strategy(&self.strategy)?.with_purpose(match self.purpose {
            For::Tests => Purpose::Tests,
            For::Figures => Purpose::Figures,
        });
        for name in &self.topology {
            request = request.with_topology(name.parse::<Topology>()?)?;
        }
        // An address for a broker that the strategy does not use is no mistake: it may come from the environment.
        request.kafka_given =
            self.kafka.clone().filter(|address| request.kafka.is_some() && !address.is_empty());
        request.redis_given =
            self.redis.clone().filter(|address| request.redis.is_some() && !address.is_empty());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
