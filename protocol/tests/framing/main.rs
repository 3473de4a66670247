//! The JSON framing: captured exchanges, the rules about zero values, properties.
#![allow(clippy::unwrap_used)]

mod cases;
mod generate;
mod properties;
