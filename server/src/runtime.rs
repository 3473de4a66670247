//! The runtime that a node runs best on.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::hub::{begin_shift, end_shift, flush_thread};

/// A runtime with so many worker threads (0: one per core), which write what they have kept back before they pause. On any other
/// runtime a node does the same work, and writes after every batch. Nothing may block its threads, least of all with
/// `block_in_place`: they would take what they keep back with them.
///
/// # Errors
/// When the system gives no threads or no event queue.
pub fn runtime(worker_threads: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if worker_threads > 0 {
        builder.worker_threads(worker_threads);
    }
    builder.enable_all();
    builder.on_thread_park(flush_thread).on_thread_unpark(begin_shift).on_thread_stop(end_shift);
    builder.build()
}
