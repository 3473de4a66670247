//! How long the machine stands still by itself: bounds of time are those of the product, and that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const TICK: Duration = Duration::from_millis(10);
/// Whoever is measured waits on several things in turn, each of which a pause may hit.
const TURNS: u32 = 3;

#[derive(Debug)]
struct Seen {
    ticked_at: Instant,
    longest: Duration,
}

/// Watches for pauses of the test's own process, from now on.
#[derive(Debug)]
pub(crate) struct Pauses {
    seen: Arc<Mutex<Seen>>,
    ticker: JoinHandle<()>,
}

impl Pauses {
    pub(crate) fn watch() -> Self {
        let seen = Arc::new(Mutex::new(Seen { ticked_at: Instant::now(), longest: Duration::ZERO }));
        let ticked = Arc::clone(&seen);
        let ticker = tokio::spawn(async move {
            loop {
                sleep(TICK).await;
                let mut seen = ticked.lock();
                seen.longest = seen.longest.max(seen.ticked_at.elapsed());
                seen.ticked_at = Instant::now();
            }
        });
        Self { seen, ticker }
    }

    /// How long something may have taken that takes `bound` at most where nothing else holds it up.
    pub(crate) fn allow(&self, bound: Duration) -> Duration {
        let seen = self.seen.lock();
        // One may be just over.
        bound + TURNS * seen.longest.max(seen.ticked_at.elapsed())
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}
