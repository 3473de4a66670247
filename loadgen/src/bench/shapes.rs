//! The load shapes of the bench: scenarios of their own, in `scenarios/bench`, and how long a run of one takes.

use anyhow::Result;

use crate::scenario::Scenario;

macro_rules! shapes {
    ($($name:literal),+ $(,)?) => {
        /// Name and text.
        const SHAPES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/bench/", $name, ".toml")))),+];
    };
}

shapes!(
    "small", "big", "pressure", "overload", "cross", "idle", "burst", "giant", "beside", "storm", "growth"
);

/// Connections per second that generator and server manage beside each other on two cores; for estimates.
const JOINS_PER_S: f64 = 3_000.0;
/// What a run takes beside connecting and its load: the lead, the drain, closing.
const AROUND_S: f64 = 0.8;

/// A shape with overrides, under the name by which windows are told apart.
pub(super) fn shape(name: &str, as_name: &str, overrides: &[(&str, f64)]) -> Result<Scenario> {
    let (_, text) = SHAPES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| anyhow::anyhow!("the bench has no shape `{name}`"))?;
    let overrides: Vec<String> = overrides.iter().map(|(key, value)| assignment(key, *value)).collect();
    let mut scenario = Scenario::parse(name, text, &overrides)?;
    as_name.clone_into(&mut scenario.name);
    Ok(scenario)
}

/// Whole numbers as such: counts are no floats.
fn assignment(key: &str, value: f64) -> String {
    if value.fract() == 0.0 { format!("{key}={value:.0}") } else { format!("{key}={value}") }
}

/// Members that ask for positions and would recover: what a room with history is used with.
pub(super) fn recovering(mut scenario: Scenario) -> Scenario {
    scenario.positioned = true;
    scenario.recover = true;
    scenario
}

/// Clients of a scenario, roughly where rooms are skewed.
pub(super) fn clients(scenario: &Scenario) -> f64 {
    let memberships = f64::from(scenario.rooms.count) * scenario.rooms.members;
    memberships / f64::from(scenario.rooms.per_client) + f64::from(scenario.traffic.services)
}

/// How long a run of it takes, in seconds, roughly.
pub(super) fn run_s(scenario: &Scenario) -> f64 {
    clients(scenario) / JOINS_PER_S + scenario.warm_up_s + scenario.duration_s + AROUND_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_scenario_and_calls_itself_so() {
        for (name, _) in SHAPES {
            let scenario = shape(name, name, &[]).unwrap();
            assert_eq!(&scenario.name, name);
            assert_eq!(scenario.nodes, if *name == "cross" { 2 } else { 1 });
            assert!(run_s(&scenario) < 20.0, "{name} takes {} s", run_s(&scenario));
        }
        assert!(shape("nothing", "nothing", &[]).is_err());
    }

    #[test]
    fn overrides_are_whole_where_counts_are() {
        let scenario =
            shape("growth", "5000 rooms", &[("rooms.count", 5_000.0), ("traffic.rate_per_s", 0.5)]).unwrap();
        assert_eq!((scenario.rooms.count, scenario.name.as_str()), (5_000, "5000 rooms"));
        assert!((scenario.traffic.rate_per_s - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_first_two_shapes_deliver_alike() {
        for name in ["small", "big"] {
            let scenario = shape(name, name, &[]).unwrap();
            assert!((scenario.traffic.rate_per_s * scenario.rooms.members - 20_000.0).abs() < 1e-6, "{name}");
        }
    }

    /// Clients are dealt to nodes in turn, members before services; room k is written by service k.
    #[test]
    fn every_message_of_cross_changes_the_node() {
        for nodes in [2_u32, 4] {
            let scenario = shape("cross", "cross", &[("traffic.services", f64::from(nodes))]).unwrap();
            let members = scenario.rooms.count;
            for room in 0..members {
                let service = members + room % scenario.traffic.services;
                assert_ne!(room % nodes, service % nodes, "room {room} on {nodes} nodes");
            }
        }
    }
}
