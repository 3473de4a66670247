//! What the settings must satisfy. Checked at start, so that a typo is an error and never a surprise.

use std::ops::RangeInclusive;

use super::Config;
use super::load::ConfigError;

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first setting that is out of bounds, with the bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, value, bounds) in self.numbers() {
            if !bounds.contains(&value) {
                let message = format!("{value} is not within {} and {}", bounds.start(), bounds.end());
                return Err(ConfigError::out_of_bounds(name, message));
            }
        }
        check_name("node", &self.node)?;
        check_name("namespace", &self.namespace)?;
        if self.pong_timeout_ms >= self.ping_interval_ms {
            let message = "must be shorter than ping_interval_ms".to_owned();
            return Err(ConfigError::out_of_bounds("pong_timeout_ms", message));
        }
        if self.presence_silence_ms < 3 * self.presence_heartbeat_ms {
            let message = "must be at least three times presence_heartbeat_ms".to_owned();
            return Err(ConfigError::out_of_bounds("presence_silence_ms", message));
        }
        if self.api_key.as_deref() == Some("") {
            return Err(ConfigError::out_of_bounds("api_key", "is empty".to_owned()));
        }
        // A push is longer than its payload; an outbox has to take a few of them.
        let outbox_bytes_min = 2 * u64::from(self.message_bytes_max) + 16 * 1024;
        if self.outbox_bytes_max < outbox_bytes_min {
            let message = format!("must be at least {outbox_bytes_min}: two messages of message_bytes_max");
            return Err(ConfigError::out_of_bounds("outbox_bytes_max", message));
        }
        self.strategy()?;
        Ok(())
    }

    fn numbers(&self) -> [(&'static str, u64, RangeInclusive<u64>); 31] {
        /// The sweep's wheel reaches a little further.
        const DEADLINE_MS: RangeInclusive<u64> = 100..=180_000;
        const MIB: u64 = 1024 * 1024;
        [
            ("connect_retry_ms", self.connect_retry_ms, 0..=3_600_000),
            ("worker_threads", self.worker_threads, 0..=1024),
            ("api_body_bytes_max", self.api_body_bytes_max, 1024..=64 * MIB),
            ("connections_max", self.connections_max, 1..=10_000_000),
            ("message_bytes_max", self.message_bytes_max.into(), 128..=64 * 1024),
            ("room_name_bytes_max", self.room_name_bytes_max.into(), 1..=255),
            ("rooms_per_connection_max", self.rooms_per_connection_max.into(), 1..=10_000),
            ("outbox_bytes_max", self.outbox_bytes_max, 1..=1024 * MIB),
            ("inbound_rate_max", self.inbound_rate_max.into(), 0..=10_000_000),
            ("inbound_burst_max", self.inbound_burst_max.into(), 1..=10_000_000),
            ("pending_commands_max", self.pending_commands_max.into(), 1..=1_000_000),
            ("overload_ms", self.overload_ms, 0..=60_000),
            ("giant_members_min", self.giant_members_min, 2..=10_000_000),
            ("giant_queue_bytes_max", self.giant_queue_bytes_max, 64 * 1024..=1024 * MIB),
            ("recovery_messages_max", self.recovery_messages_max.into(), 1..=100_000),
            ("recovery_hold_bytes_max", self.recovery_hold_bytes_max, 1024..=1024 * MIB),
            ("recovery_timeout_ms", self.recovery_timeout_ms, 1..=600_000),
            ("history_messages_max", self.history_messages_max.into(), 1..=100_000),
            ("position_check_ms", self.position_check_ms, 0..=3_600_000),
            ("presence_batch_ms", self.presence_batch_ms, 1..=10_000),
            ("presence_heartbeat_ms", self.presence_heartbeat_ms, 10..=60_000),
            ("presence_silence_ms", self.presence_silence_ms, 30..=600_000),
            ("ping_interval_ms", self.ping_interval_ms, DEADLINE_MS),
            ("pong_timeout_ms", self.pong_timeout_ms, 50..=180_000),
            ("request_timeout_ms", self.request_timeout_ms, 100..=3_600_000),
            ("connect_timeout_ms", self.connect_timeout_ms, DEADLINE_MS),
            ("close_timeout_ms", self.close_timeout_ms, DEADLINE_MS),
            ("join_timeout_ms", self.join_timeout_ms, 1..=600_000),
            ("leave_linger_ms", self.leave_linger_ms, 0..=3_600_000),
            ("drain_window_ms", self.drain_window_ms, 0..=600_000),
            ("shutdown_timeout_ms", self.shutdown_timeout_ms, 100..=600_000),
        ]
    }
}

fn check_name(option: &'static str, name: &str) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!("{name:?} is not 1 to 64 of A-Z a-z 0-9 . _ -");
    Err(ConfigError::out_of_bounds(option, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().expect_err("out of bounds").to_string()
    }

    #[test]
    fn errors_name_the_setting_and_the_bounds() {
        let error = error_of(|config| config.room_name_bytes_max = 256);
        assert_eq!(error, "room_name_bytes_max: 256 is not within 1 and 255");
        assert!(error_of(|config| config.namespace = "a b".to_owned()).starts_with("namespace: "));
        assert!(error_of(|config| config.pong_timeout_ms = 25_000).starts_with("pong_timeout_ms: "));
        assert!(error_of(|config| config.presence_silence_ms = 2_999).starts_with("presence_silence_ms: "));
        assert!(error_of(|config| config.outbox_bytes_max = 100_000).starts_with("outbox_bytes_max: "));
        let error = error_of(|config| config.recovery_hold_bytes_max = 0);
        assert_eq!(error, "recovery_hold_bytes_max: 0 is not within 1024 and 1073741824");
        assert!(error_of(|config| config.recovery_messages_max = 0).starts_with("recovery_messages_max: "));
        let error = error_of(|config| config.strategy = "carrier-pigeon".to_owned());
        assert!(error.contains("carrier-pigeon") && error.contains("memory"), "{error}");
    }
}
