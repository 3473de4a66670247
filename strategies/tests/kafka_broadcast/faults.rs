//! Brokers that fail.
