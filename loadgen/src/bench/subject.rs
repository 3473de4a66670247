//! Who is measured: server processes that stay up from one window to the next, so that subjects can take turns.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use manifold_compose::{NodeSpec, Nodes, Process, Served};

use crate::campaign::{Brokers, Entrant, namespace};
use crate::record::ComponentKind;

/// The yardstick: the null server.
pub(super) const FLOOR: &str = "floor";
/// A node without a backplane and without history.
pub(super) const MEMORY: &str = "memory";
/// The same as it is by default: with history, its members positioned and ready to recover.
pub(super) const HISTORY: &str = "memory, history";

/// Keeps no history: what the peers were measured with, and the floor has none.
pub(super) const NO_HISTORY: &str = "history_messages=0";

/// A server, or several, with the brokers that they use.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) urls: Vec<String>,
    /// Processes whose cost is counted, nodes and brokers.
    pub(super) parts: Vec<(ComponentKind, Process)>,
    _holder: Holder,
}

/// What keeps the processes alive.
enum Holder {
    One { _served: Served },
    Several { _nodes: Box<Nodes> },
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("name", &self.name).field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Subject {
    /// The null server, in a process of its own. With `coalesce` it gathers what is due to a connection into one write.
    pub(super) fn floor(generator: &Path, coalesce: bool) -> Result<Self> {
        let mut args = vec!["null-server".to_owned(), "--listen".to_owned(), "127.0.0.1:0".to_owned()];
        args.extend(coalesce.then(|| "--coalesce".to_owned()));
        Self::one(FLOOR, generator, &args)
    }

    /// One node on the memory strategy.
    pub(super) fn memory(server: &Path, name: &str, options: &[&str], extra: &[&str]) -> Result<Self> {
        Self::one(name, server, &memory_arguments(options, extra))
    }

    fn one(name: &str, program: &Path, args: &[String]) -> Result<Self> {
        let served = Served::start("n1", program, args).with_context(|| format!("{name} did not start"))?;
        Ok(Self {
            name: name.to_owned(),
            urls: vec![served.url()],
            parts: vec![(ComponentKind::Node, served.process().clone())],
            _holder: Holder::One { _served: served },
        })
    }

    /// Nodes of a strategy on brokers that are up.
    pub(super) fn nodes(
        server: &Path,
        name: &str,
        entrant: &Entrant,
        count: usize,
        brokers: &Brokers,
    ) -> Result<Self> {
        let spec = NodeSpec {
            binary: server.to_owned(),
            strategy: entrant.strategy.clone(),
            nodes: count,
            namespace: namespace(),
            strategy_options: entrant.options.clone(),
            extra_args: quiet(),
            ..NodeSpec::default()
        };
        let nodes = Nodes::start(&spec, brokers.environment())
            .with_context(|| format!("the nodes of {name} did not start"))?;
        let own = nodes.processes().iter().map(|process| (ComponentKind::Node, process.clone()));
        let used = brokers.used_by(entrant).into_iter().map(|(process, kind)| (kind, process));
        Ok(Self {
            name: name.to_owned(),
            urls: nodes.urls(),
            parts: own.chain(used).collect(),
            _holder: Holder::Several { _nodes: Box::new(nodes) },
        })
    }

    /// The nodes' processes, brokers left out.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Process> {
        self.parts.iter().filter(|(kind, _)| *kind == ComponentKind::Node).map(|(_, process)| process)
    }
}

/// The command line of a node on the memory strategy.
pub(super) fn memory_arguments(options: &[&str], extra: &[&str]) -> Vec<String> {
    let mut args =
        ["--strategy", "memory", "--listen", "127.0.0.1:0", "--node", "n1"].map(str::to_owned).to_vec();
    args.extend(options.iter().flat_map(|option| ["--strategy-option".to_owned(), (*option).to_owned()]));
    args.extend(quiet());
    args.extend(extra.iter().map(|word| (*word).to_owned()));
    args
}

/// Warnings alone: ten thousand clients that go are ten thousand lines otherwise.
fn quiet() -> Vec<String> {
    ["--log", "warn"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_what_it_is() {
        let args = memory_arguments(&[NO_HISTORY], &["--ping-interval-ms", "10000"]).join(" ");
        assert_eq!(
            args,
            "--strategy memory --listen 127.0.0.1:0 --node n1 --strategy-option history_messages=0 --log warn --ping-interval-ms 10000"
        );
    }
}
