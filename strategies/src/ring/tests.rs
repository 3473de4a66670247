//! Rings against a naive history.
