//! Maps that are looked into once or more per message: keyed like the standard library's, so that nobody who chooses names makes
//! them slow, and a fraction of their cost.

use ahash::RandomState;

/// A map by room or message.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
/// A set of rooms or messages.
pub(crate) type HashSet<K> = std::collections::HashSet<K, RandomState>;
