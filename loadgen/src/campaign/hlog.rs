//! `delivery.hlog`: the delivery histogram in the log format of the HdrHistogram project, for the tools that people have.

use std::time::Duration;

use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::record::RunRecord;

/// One interval that spans the counted window, values in microseconds. `None` when nothing was delivered.
pub(super) fn hlog(record: &RunRecord) -> Option<String> {
    let histogram = record.measured.latencies.delivery.inner();
    if histogram.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut serializer = V2Serializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!(
            "{} {} block {}, microseconds",
            record.scenario.name, record.contender.label, record.block
        ))
        .begin_log_with(&mut bytes, &mut serializer)
        .ok()?;
    let start = Duration::try_from_secs_f64(record.measured.warm_up_s).ok()?;
    let length = Duration::try_from_secs_f64(record.measured.window_s).ok()?;
    writer.write_histogram(histogram, start, length, None).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::Sample;

    #[test]
    fn the_log_has_one_interval_with_the_whole_histogram() {
        use hdrhistogram::serialization::Deserializer;
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let record = Sample::new("hybrid", "small-rooms", 1, 0.3).record();
        let text = hlog(&record).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes()).filter_map(Result::ok).collect();
        let intervals: Vec<&str> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval.encoded_histogram()),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 1);
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, intervals[0]).unwrap();
        let back: hdrhistogram::Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(&back, record.measured.latencies.delivery.inner());
    }
}
