//! Schedules are ordered, reproducible, and hold the rate that they promise.

use super::*;
use proptest::prelude::*;

fn shape(arrival: Arrival, rate_per_s: f64, seed: u64) -> Shape {
    Shape {
        rate_per_s,
        arrival,
        until_us: 10_000_000,
        surges: Vec::new(),
        weights: vec![1.0, 2.0, 1.0],
        sizes: vec![1.0],
        seed,
    }
}

fn arrivals() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        Just(Arrival::Constant),
        Just(Arrival::Poisson),
        (1_u32..40, 0_u64..50_000).prop_map(|(length, spacing_us)| Arrival::Bursts { length, spacing_us }),
    ]
}

proptest! {
    #[test]
    fn is_ordered_bounded_and_reproducible(arrival in arrivals(), rate in 1.0..5_000.0_f64, seed: u64) {
        let once: Vec<Intent> = Schedule::new(shape(arrival, rate, seed)).collect();
        let again: Vec<Intent> = Schedule::new(shape(arrival, rate, seed)).collect();
        prop_assert_eq!(&once, &again);
        prop_assert!(once.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us));
        prop_assert!(once.iter().all(|intent| intent.at_us < 10_000_000 && intent.stream < 3));
    }
}

#[test]
fn the_rate_is_held() {
    for (arrival, tolerance) in [
        (Arrival::Constant, 1.0),
        (Arrival::Poisson, 600.0),
        (Arrival::Bursts { length: 10, spacing_us: 1_000 }, 1_500.0),
    ] {
        let count = Schedule::new(shape(arrival, 2_000.0, 3)).count() as f64;
        assert!((count - 20_000.0).abs() <= tolerance, "{arrival:?}: {count}");
    }
}

#[test]
fn constant_gaps_do_not_drift() {
    let times: Vec<u64> =
        Schedule::new(shape(Arrival::Constant, 3_000.0, 1)).map(|intent| intent.at_us).collect();
    assert_eq!(times.len(), 30_000);
    assert_eq!(times[29_999], 9_999_833);
}

#[test]
fn a_surge_multiplies_the_rate_and_ends() {
    let surge = Surge { from_us: 2_000_000, to_us: 4_000_000, factor: 10.0 };
    let shape = Shape { surges: vec![surge], ..shape(Arrival::Constant, 100.0, 1) };
    let times: Vec<u64> = Schedule::new(shape).map(|intent| intent.at_us).collect();
    let within = |from: u64, to: u64| times.iter().filter(|at| (from..to).contains(at)).count();
    assert_eq!(within(0, 2_000_000), 200);
    assert!((1_990..=2_001).contains(&within(2_000_000, 4_000_000)));
    assert!((599..=601).contains(&within(4_000_000, 10_000_000)));
}

#[test]
fn a_burst_belongs_to_one_stream() {
    let bursts =
        Shape { until_us: 60_000_000, ..shape(Arrival::Bursts { length: 5, spacing_us: 10 }, 5.0, 9) };
    let intents: Vec<Intent> = Schedule::new(bursts).collect();
    assert!(intents.len() > 100);
    for burst in intents.chunks_exact(5) {
        assert!(
            burst
                .windows(2)
                .all(|pair| pair[1].stream == pair[0].stream && pair[1].at_us == pair[0].at_us + 10)
        );
    }
}
