//! Bounds what a node has accepted and nobody has acknowledged yet, wherever it waits.
//!
//! A message is admitted before it takes its first step, and whole: what the log would have no room for is not shown live
//! either.

use std::sync::Arc;

use parking_lot::Mutex;

use super::settings::Settings;
use crate::backplane::Envelope;
use crate::error::{Error, ErrorKind, Result};

/// What a message costs beside its bytes, roughly.
const OVERHEAD_BYTES: usize = 256;

/// The publishes under way.
pub(super) struct UnderWay {
    messages_max: usize,
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    messages: usize,
    bytes: usize,
}

/// A publish under way, until it is dropped.
pub(super) struct Permit {
    under_way: Arc<UnderWay>,
    bytes: usize,
}

impl UnderWay {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            messages_max: settings.queue_messages_max,
            bytes_max: settings.queue_bytes_max,
            held: Mutex::default(),
        })
    }

    /// Makes room for a message.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] where there is none.
    pub(super) fn admit(self: &Arc<Self>, message: &Envelope) -> Result<Permit> {
        let bytes = OVERHEAD_BYTES + message.room.as_str().len() + message.info.len() + message.payload.len();
        let mut held = self.held.lock();
        if held.messages >= self.messages_max || held.bytes + bytes > self.bytes_max {
            let problem = format!(
                "{} publishes ({} bytes) are under way; the bounds are {} and {}",
                held.messages, held.bytes, self.messages_max, self.bytes_max
            );
            return Err(Error::new(ErrorKind::Overloaded, "publish", problem));
        }
        held.messages += 1;
        held.bytes += bytes;
        drop(held);
        Ok(Permit { under_way: Arc::clone(self), bytes })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.under_way.held.lock();
        held.messages -= 1;
        held.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::{MessageId, RoomId};

    fn message(bytes: usize) -> Envelope {
        Envelope {
            room: RoomId::new("room"),
            id: MessageId(1),
            published_at_us: 0,
            info: bytes::Bytes::new(),
            payload: vec![0; bytes].into(),
        }
    }

    #[test]
    fn messages_and_bytes_are_bounded_until_they_have_their_outcome() {
        let settings = Settings { queue_messages_max: 3, queue_bytes_max: 200 * 1024, ..Settings::default() };
        let under_way = UnderWay::new(&settings);
        let large = [64, 64, 64].map(|kib| under_way.admit(&message(kib * 1024)));
        assert!(large.iter().all(Result::is_ok));
        assert_eq!(under_way.admit(&message(0)).err().unwrap().kind(), ErrorKind::Overloaded);
        drop(large);
        let _held = [100, 99].map(|kib| under_way.admit(&message(kib * 1024)).unwrap());
        let refused = under_way.admit(&message(1024)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        assert!(under_way.admit(&message(10)).is_ok(), "smaller ones still fit");
    }
}
