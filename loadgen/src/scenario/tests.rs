//! The shipped scenarios are sound, and broken ones are refused with words that help.

use super::*;

#[test]
fn every_shipped_scenario_is_sound_and_named_after_its_file() {
    for (name, _) in shipped() {
        let scenario = Scenario::load(name, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(scenario.name, name);
        assert!(scenario.stands_for.len() > 20 && !scenario.stands_for.contains('\n'), "{name}");
        for word in ["kafka", "redis", "pubsub", "hybrid", "broadcast", "keyed"] {
            let words = [&scenario.stands_for];
            assert!(!words.iter().any(|text| text.to_lowercase().contains(word)), "{name} names {word}");
        }
    }
}

#[test]
fn overrides_reach_any_key() {
    let overrides = ["traffic.rate_per_s=500", "rooms.count=3", "churn.share_per_min=2.5"].map(String::from);
    let scenario = Scenario::load("small-rooms", &overrides).unwrap();
    assert_eq!((scenario.traffic.rate_per_s, scenario.rooms.count), (500.0, 3));
    assert_eq!(scenario.churn.share_per_min, 2.5);
}

#[test]
fn keys_that_are_off_leave_no_trace_in_content_addresses() {
    let plain = serde_json::to_value(Scenario::load("small-rooms", &[]).unwrap()).unwrap();
    assert!(["recover", "brokers", "pings"].iter().all(|key| plain.get(key).is_none()), "{plain}");
    let killed = serde_json::to_value(Scenario::load("log-leader-killed", &[]).unwrap()).unwrap();
    assert_eq!((&killed["recover"], &killed["brokers"]["kafka"]), (&true.into(), &"three".into()));
}

#[test]
fn links_are_asked_for_by_their_faults_alone() {
    assert!(Scenario::load("log-link-cut", &[]).unwrap().needs_links());
    assert!(!Scenario::load("log-frozen", &[]).unwrap().needs_links());
    let message = refusal(&["faults=[{ at_s = 1.0, do = \"kill\", to = \"redis-link\" }]"]);
    assert!(message.contains("`faults` cannot Kill RedisLink"), "{message}");
    assert!(refusal(&["faults=[{ at_s = 1.0, do = \"roll\", to = \"kafka\" }]"]).contains("cannot Roll"));
}

fn refusal(overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(|one| (*one).to_owned()).collect();
    Scenario::load("small-rooms", &overrides).expect_err("must be refused").to_string()
}

#[test]
fn refusals_name_the_key() {
    assert!(refusal(&["traffic.rate=500"]).contains("unknown field `rate`"));
    assert!(refusal(&["rooms.count=0"]).contains("`rooms.count` is 0"));
    assert!(refusal(&["traffic.rate_per_s=fast"]).contains("invalid type"));
    assert!(refusal(&["traffic.services=2"]).contains("traffic.senders_per_room"));
    assert!(refusal(&["nonsense"]).contains("key=value"));
    assert!(refusal(&["name.deeper=1"]).contains("key=value"));
    let unknown = Scenario::load("smal-rooms", &[]).expect_err("must be refused").to_string();
    assert!(unknown.contains("small-rooms, giant-room"), "{unknown}");
    assert!(Scenario::load("/nowhere/x.toml", &[]).unwrap_err().to_string().contains("/nowhere/x.toml"));
}

#[test]
fn a_typo_in_a_file_points_at_its_line() {
    let text = "name = \"x\"\nstands_for = \"y\"\nduration_s = 1.0\nwarmup_s = 2.0\n";
    let message = Scenario::parse("x.toml", text, &[]).expect_err("must be refused").to_string();
    assert!(message.contains("warmup_s") && message.contains("line 4"), "{message}");
    for broken in ["", "name = 3", "[rooms", "faults = [{ at_s = 1.0, do = \"explode\", to = \"node\" }]"] {
        assert!(Scenario::parse("x.toml", broken, &[]).is_err(), "{broken}");
    }
}
