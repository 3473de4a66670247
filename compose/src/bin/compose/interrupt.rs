//! Ctrl-C and its kin: nothing is left behind, at whatever moment they come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a shell expects of a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Tells of the wish to end, once the program listens for it.
pub(crate) struct Interrupt {
    wished: Receiver<()>,
}

static LISTENING: AtomicBool = AtomicBool::new(false);

/// From now on a signal ends the program and all its processes at once, until [`Interrupt::listen`].
pub(crate) fn watch() -> Interrupt {
    let (wish, wished) = mpsc::channel();
    // Without the handler a signal ends the program in the system's way, and its processes with it.
    match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                for _ in signals.forever() {
                    // The second signal finds nobody listening any more: whoever waits for a graceful end is cut short.
                    if !LISTENING.swap(false, Ordering::SeqCst) || wish.send(()).is_err() {
                        end_now();
                    }
                }
            });
        }
        Err(error) => {
            tracing::warn!(%error, "signals are not handled");
            // Dropping the sender would look like a signal.
            std::mem::forget(wish);
        }
    }
    Interrupt { wished }
}

/// Kills everything that this program started and exits.
pub(crate) fn end_now() -> ! {
    manifold_compose::kill_all();
    std::process::exit(EXIT_INTERRUPTED)
}

impl Interrupt {
    /// From now on the first signal is kept for [`Interrupt::wait`]; a second one still ends everything at once.
    pub(crate) fn listen(&self) {
        LISTENING.store(true, Ordering::SeqCst);
    }

    /// Waits for a signal. After it the program has the time to end gracefully.
    pub(crate) fn wait(&self) {
        // A closed channel means that no signal can be received; there is nothing to wait for then.
        self.wished.recv().ok();
    }
}
