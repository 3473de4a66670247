//! Looks at what surrounds a run: the machine, processes, a server's own words at `/info` and `/metrics`.
//!
//! Everything here reads; nothing starts, stops or sends load.

mod checkout;
mod hardware;
mod http;
mod metrics;
mod process;
mod server;

pub use checkout::tool;
pub use hardware::{Steal, hardware};
pub use http::{HttpError, get};
pub use metrics::{Counters, parse_metrics};
pub use process::{Usage, reset_peak, usage};
pub use server::{Account, Info, account, info};
