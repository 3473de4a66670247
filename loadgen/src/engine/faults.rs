//! The scenario's faults, done by the surroundings on a thread of their own while the load goes on.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::RunError;
use super::shared::{Node, Shared};
use crate::record::{Fault, FaultMark, FaultOutcome};
use crate::surroundings::Surroundings;

/// Hands faults to their thread, one at a time and in order.
#[derive(Debug)]
pub(super) struct Faults<'scope> {
    orders: Option<Sender<Fault>>,
    marks: Receiver<Result<FaultMark, RunError>>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
    taken: Vec<FaultMark>,
}

impl<'scope> Faults<'scope> {
    /// Starts the thread.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        shared: &'env Shared,
        surroundings: &'env dyn Surroundings,
    ) -> Self {
        let (orders, faults) = channel::<Fault>();
        let (results, marks) = channel();
        let thread = scope.spawn(move || {
            for fault in faults {
                // Whoever waits for results may have ended on an error of its own.
                let _ = results.send(inject(fault, shared, surroundings));
            }
        });
        Self { orders: Some(orders), marks, thread: Some(thread), taken: Vec::new() }
    }

    /// Orders a fault; returns at once.
    pub(super) fn order(&self, fault: Fault) {
        if let Some(orders) = &self.orders {
            // The thread ends only when the orders do.
            let _ = orders.send(fault);
        }
    }

    /// Looks at what has been done.
    pub(super) fn check(&mut self) -> Result<(), RunError> {
        while let Ok(mark) = self.marks.try_recv() {
            self.taken.push(mark?);
        }
        Ok(())
    }

    /// Waits for those under way.
    pub(super) fn finish(mut self) -> Result<Vec<FaultMark>, RunError> {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| RunError::Thread("while injecting a fault".to_owned()))?;
        }
        self.check()?;
        Ok(self.taken)
    }
}

fn inject(fault: Fault, shared: &Shared, surroundings: &dyn Surroundings) -> Result<FaultMark, RunError> {
    let run_s = || {
        let start_us = shared.start_us().unwrap_or_default();
        shared.now_us().saturating_sub(start_us) as f64 / 1e6
    };
    let began_s = run_s();
    let outcome = surroundings
        .inject(fault.deed, fault.to)
        .map_err(|source| RunError::Fault { at_s: fault.at_s, source })?;
    let whom = match outcome {
        FaultOutcome::NotApplicable => String::new(),
        FaultOutcome::Done { whom, added_url } => {
            if let Some(url) = added_url {
                shared.add_node(Node::parse(&url)?);
            }
            whom
        }
    };
    Ok(FaultMark {
        fault,
        began_s,
        ended_s: run_s(),
        whom,
        silence_ms: 0.0,
        room_silence_ms_max: None,
        room_silence_ms_p99: None,
    })
}
