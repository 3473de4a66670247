//! How fast one client may send commands.

use tokio::time::Instant;

/// Refusals in a row, as a multiple of the burst, after which the client is not merely fast but does not listen.
const BURSTS_REFUSED_MAX: u32 = 2;

/// A token bucket. A rate of 0 lets everything through.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u32,
    burst: u32,
    tokens: f32,
    refused: u32,
    refilled: Option<Instant>,
}

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// It is answered with an error.
    Refuse,
    /// The connection is closed.
    Disconnect,
}

impl RateLimit {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, tokens: burst as f32, refused: 0, refilled: None }
    }

    /// Judges one command.
    pub(super) fn judge(&mut self) -> Verdict {
        if self.per_second == 0 {
            return Verdict::Pass;
        }
        if self.tokens < 1.0 || self.refilled.is_none() {
            self.refill(Instant::now());
        }
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.refused = 0;
            return Verdict::Pass;
        }
        self.refused += 1;
        if self.refused > self.burst.saturating_mul(BURSTS_REFUSED_MAX) {
            return Verdict::Disconnect;
        }
        Verdict::Refuse
    }

    fn refill(&mut self, now: Instant) {
        if let Some(before) = self.refilled.replace(now) {
            let gained = now.duration_since(before).as_secs_f32() * self.per_second as f32;
            self.tokens = (self.tokens + gained).min(self.burst as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_the_rate_counts() {
        let mut limit = RateLimit::new(10, 5);
        for _ in 0..5 {
            assert_eq!(limit.judge(), Verdict::Pass);
        }
        assert_eq!(limit.judge(), Verdict::Refuse);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(
            [limit.judge(), limit.judge(), limit.judge()],
            [Verdict::Pass, Verdict::Pass, Verdict::Refuse]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_listen_is_sent_away() {
        let mut limit = RateLimit::new(1, 3);
        let verdicts: Vec<_> = (0..10).map(|_| limit.judge()).collect();
        assert_eq!(verdicts[..3], [Verdict::Pass; 3]);
        assert_eq!(verdicts[3..9], [Verdict::Refuse; 6]);
        assert_eq!(verdicts[9], Verdict::Disconnect);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut limit = RateLimit::new(0, 0);
        assert!((0..1000).all(|_| limit.judge() == Verdict::Pass));
    }
}
