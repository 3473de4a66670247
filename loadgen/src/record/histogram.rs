//! A histogram in `run.json`: the percentiles that people look for in plain numbers, and the whole distribution in
//! the HdrHistogram project's own V2 encoding, which its tools read.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart: a minute, in microseconds. Longer ones are recorded as this.
const VALUE_US_MAX: u64 = 60_000_000;

/// A latency distribution in microseconds, 3 significant digits, 1 µs to 60 s.
#[derive(Clone)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

/// An encoded histogram that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("histogram: {0}")]
pub struct HistogramError(String);

/// The form in the file.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Samples.
    count: u64,
    /// Smallest, microseconds.
    min_us: u64,
    /// Mean, for reconciling with other tools; never ranked by.
    mean_us: f64,
    /// 50th percentile.
    p50_us: u64,
    /// 90th percentile.
    p90_us: u64,
    /// 99th percentile.
    p99_us: u64,
    /// 99.9th percentile.
    p999_us: u64,
    /// Largest.
    max_us: u64,
    /// The distribution: HdrHistogram V2 encoding, base64. The figures above are derived from it.
    hdr_v2: String,
}

impl Histogram {
    /// An empty one with the bounds that every histogram of a run has.
    pub fn new() -> Self {
        let inner = hdrhistogram::Histogram::new_with_bounds(1, VALUE_US_MAX, 3);
        Self(inner.expect("constant bounds are valid"))
    }

    /// Adds one latency.
    pub fn record_us(&mut self, value_us: u64) {
        self.0.saturating_record(value_us.max(1));
    }

    /// Adds all of another.
    ///
    /// # Errors
    /// Values that this one cannot hold (another tool's histogram with wider bounds).
    pub fn add(&mut self, other: &Self) -> Result<(), HistogramError> {
        self.0.add(&other.0).map_err(|error| HistogramError(error.to_string()))
    }

    /// Samples.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value at a quantile between 0 and 1; `None` when empty.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        (self.count() > 0).then(|| self.0.value_at_quantile(quantile))
    }

    /// The largest value; `None` when empty.
    pub fn max_us(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.0.max())
    }

    /// The distribution itself.
    pub fn inner(&self) -> &hdrhistogram::Histogram<u64> {
        &self.0
    }

    fn encode(&self) -> Result<String, HistogramError> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(|error| HistogramError(error.to_string()))?;
        Ok(STANDARD.encode(bytes))
    }

    fn decode(text: &str) -> Result<Self, HistogramError> {
        let bytes = STANDARD.decode(text).map_err(|error| HistogramError(error.to_string()))?;
        let inner = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| HistogramError(error.to_string()))?;
        Ok(Self(inner))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl From<hdrhistogram::Histogram<u64>> for Histogram {
    fn from(inner: hdrhistogram::Histogram<u64>) -> Self {
        Self(inner)
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50_us", &self.quantile_us(0.5))
            .field("p99_us", &self.quantile_us(0.99))
            .finish()
    }
}

impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = |quantile| self.quantile_us(quantile).unwrap_or(0);
        Stored {
            count: self.count(),
            min_us: if self.count() == 0 { 0 } else { self.0.min() },
            mean_us: self.0.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.max_us().unwrap_or(0),
            hdr_v2: self.encode().map_err(serde::ser::Error::custom)?,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        Self::decode(&stored.hdr_v2).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Histogram {
    fn schema_name() -> Cow<'static, str> {
        "Histogram".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Stored::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_to_the_last_bucket() {
        let mut histogram = Histogram::new();
        for value_us in [0, 1, 40, 1_000, 59_999_999, 90_000_000] {
            histogram.record_us(value_us);
        }
        let text = serde_json::to_string(&histogram).unwrap();
        let back: Histogram = serde_json::from_str(&text).unwrap();
        assert_eq!(histogram, back);
        assert_eq!(back.count(), 6);
        assert_eq!(back.quantile_us(0.0), Some(1));
    }

    #[test]
    fn an_empty_one_has_no_percentiles() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile_us(0.99), None);
        let back: Histogram = serde_json::from_str(&serde_json::to_string(&histogram).unwrap()).unwrap();
        assert_eq!(back.count(), 0);
    }
}
