//! Latencies, where and when they are taken: histograms of a thread, the slowest member of each message, silences.
//!
//! Pure: times come in as microseconds. Histograms are per thread, never per connection.

mod last_member;
mod silence;

pub use last_member::LastMember;
pub use silence::{Activity, LULL_MIN_US, Lull, room_silences_us};

use crate::record::{Histogram, Latencies};

/// Adds one thread's latencies to another's.
pub fn add(sum: &mut Latencies, other: &Latencies) {
    let pairs: [(&mut Histogram, &Histogram); 5] = [
        (&mut sum.send_lag, &other.send_lag),
        (&mut sum.ack, &other.ack),
        (&mut sum.delivery, &other.delivery),
        (&mut sum.last_member, &other.last_member),
        (&mut sum.delivery_raw, &other.delivery_raw),
    ];
    for (sum, other) in pairs {
        sum.add(other).expect("all histograms of a run have the same bounds");
    }
    if let Some(recovered) = &other.recovered {
        let sum = sum.recovered.get_or_insert_default();
        sum.add(recovered).expect("all histograms of a run have the same bounds");
    }
}
