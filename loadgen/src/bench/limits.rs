//! How many connections this machine lets us hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that generator and server need beside one per connection.
const SPARE: u64 = 512;

/// Raises the limit on open files as far as it goes, for this process and for those that it starts, and says how many
/// connections fit; a server that is started here inherits it.
pub(super) fn connections_max() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, what there is must do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(u64::MAX, |files| files.saturating_sub(SPARE))
}

/// As many of the wanted connections as fit, in whole hundreds where they don't all.
pub(super) fn fitting(wanted: u64, connections_max: u64) -> u64 {
    if wanted <= connections_max { wanted } else { (connections_max / 100 * 100).max(100).min(wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_scaled_down_to_whole_hundreds() {
        assert_eq!(fitting(20_000, 100_000), 20_000);
        assert_eq!(fitting(20_000, 3_584), 3_500);
        assert_eq!(fitting(20_000, 12), 100);
        assert!(connections_max() > 0);
    }
}
