//! Brings up what Manifold needs: brokers and chat-server nodes, as plain processes of the caller.
//!
//! [`Environment::start`] takes a [`Request`] and returns when the brokers really serve: a produce is acknowledged,
//! `PING` answers, sentinels agree, cluster slots are covered. [`Nodes`] starts chat-server processes on top of it.
//! Every process belongs to the program that started it and dies with it: on drop, on panic, on Ctrl-C, and when the
//! program is killed with -9. Their private folders go with them, except after a kill -9: then nobody is left to remove
//! them, and the next start of anybody does. [`Process`] is the handle for faults: kill, stop, continue, terminate, restart
//! in the same folder; [`Link`] is the one for faults to a network between nodes and a broker.
//!
//! What does not live here: the strategies (only their names and needs, in [`STRATEGIES`]), the server, and any load.

mod administration;
mod cache;
mod claim;
pub mod detached;
mod environment;
mod error;
mod kafka;
mod link;
mod logs;
mod nodes;
mod owner;
mod parent_death;
mod ports;
mod process;
mod redis;
mod request;
mod run_dir;
mod served;
mod tools;

pub use environment::{Environment, Versions};
pub use error::{Error, Result};
pub use link::{Condition, Link};
pub use nodes::{NodeSpec, Nodes, chat_server_binary};
pub use owner::kill_all;
pub use process::Process;
pub use request::{KafkaTopology, Purpose, RedisTopology, Request, STRATEGIES, StrategyBrokers, Topology};
pub use served::Served;
