//! Proof that each case can fail: memory with one fault must be caught by the case that looks for it, while healthy
//! memory passes. Memory stands on several nodes here (the [`bus`](crate::bus)), for the cases that need them.

use libtest_mimic::{Failed, Trial};
use manifold_strategies::faulty::Fault;

use crate::bus::{self, BUS};
use crate::cases::{CASES, Case};
use crate::cluster::Subject;
use crate::run;

/// A fault, and the cases that must notice it. `None`: the healthy bus, which those cases refuse for what it lacks.
const CAUGHT_BY: &[(Option<Fault>, &[&str])] = &[
    (
        Some(Fault::Drop),
        &[
            "reaches_all_members_and_only_them",
            "reaches_each_member_exactly_once",
            "serves_two_hundred_rooms_at_once",
            "grows_from_one_to_four_nodes",
            "a_node_that_leaves_does_not_disturb",
        ],
    ),
    (Some(Fault::Duplicate), &["reaches_each_member_exactly_once", "a_node_that_leaves_does_not_disturb"]),
    (Some(Fault::Swap), &["keeps_each_publishers_order"]),
    (Some(Fault::Diverge), &["shows_all_members_one_order"]),
    (Some(Fault::Leak), &["reaches_all_members_and_only_them"]),
    (Some(Fault::Corrupt), &["carries_every_kind_of_room_and_payload"]),
    (Some(Fault::FalseAck), &["reaches_each_member_exactly_once", "shutdown_flushes_and_closes"]),
    (Some(Fault::EarlyJoin), &["a_join_is_effective", "grows_from_one_to_four_nodes"]),
    (Some(Fault::DeafLeave), &["a_leave_ends_delivery"]),
    (Some(Fault::StuckPosition), &["positions_are_what_was_declared"]),
    (Some(Fault::SilentSkip), &["positions_are_what_was_declared", "a_retry_leaves_positions_as_declared"]),
    (Some(Fault::EndlessShutdown), &["shutdown_flushes_and_closes"]),
    (Some(Fault::OpenAfterShutdown), &["shutdown_flushes_and_closes"]),
    (Some(Fault::FreshId), &["a_retry_is_idempotent", "a_retry_is_kept_once"]),
    (Some(Fault::Lenient), &["refuses_what_is_too_large"]),
    (Some(Fault::LenientSettings), &["unknown_settings_are_refused"]),
    (
        Some(Fault::ForgetHistory),
        &[
            "resumes_with_all_that_was_missed",
            "resumes_on_another_node",
            "a_resume_races_with_publishing",
            "a_node_that_has_just_started_answers",
            "a_part_is_never_passed_off_as_all",
            "pages_are_as_asked",
        ],
    ),
    (
        Some(Fault::RepeatHistory),
        &["resumes_with_all_that_was_missed", "a_resume_races_with_publishing", "a_retry_is_kept_once"],
    ),
    (Some(Fault::SwapHistory), &["resumes_with_all_that_was_missed", "pages_are_as_asked"]),
    (Some(Fault::StaleHistory), &["resumes_with_all_that_was_missed", "resumes_on_another_node"]),
    (
        Some(Fault::OwnHistory),
        &[
            "resumes_on_another_node",
            "a_node_that_has_just_started_answers",
            "a_room_that_nobody_is_in_has_history",
        ],
    ),
    (
        Some(Fault::BoastfulHistory),
        &[
            "a_part_is_never_passed_off_as_all",
            "a_position_that_never_was_is_incomplete",
            "removed_history_is_gone",
        ],
    ),
    (Some(Fault::BoundlessHistory), &["too_much_is_incomplete", "pages_are_as_asked"]),
    (Some(Fault::InclusiveHistory), &["resumes_with_all_that_was_missed", "pages_are_as_asked"]),
    (Some(Fault::OneWayHistory), &["pages_are_as_asked"]),
    (Some(Fault::ToplessHistory), &["pages_are_as_asked"]),
    (Some(Fault::KeptHistory), &["removed_history_is_gone"]),
    (None, &["a_room_is_fragmented", "an_absent_broker_is_refused", "an_absent_broker_is_retried"]),
];

/// An address for cases that need one. The bus connects to nothing, so that it notices no absent broker.
const NOWHERE: &str = "127.0.0.1:9";

/// One trial per fault and case.
pub fn trials() -> Vec<Trial> {
    let pairs = CAUGHT_BY.iter().flat_map(|(fault, cases)| cases.iter().map(move |case| (*fault, *case)));
    let caught = pairs.map(|(fault, case)| Trial::test(name(fault, case), move || catches(fault, case)));
    let never_caught = |case: &&Case| !CAUGHT_BY.iter().any(|(_, cases)| cases.contains(&case.name));
    let unproven = CASES.iter().filter(never_caught).map(|case| {
        Trial::test(format!("{} can fail", case.name), || Err(Failed::from("no fault proves that it can")))
    });
    let applying = CASES.iter().filter(|case| (case.applies)(&bus::GUARANTEES, false));
    let healthy = applying.map(|case| {
        Trial::test(format!("the healthy bus passes {}", case.name), || {
            run(case, subject(None)).map_err(|error| Failed::from(format!("{error:?}")))
        })
    });
    caught.chain(unproven).chain(healthy).collect()
}

fn subject(fault: Option<Fault>) -> Subject {
    Subject {
        strategy: &BUS,
        settings: toml::Table::new(),
        kafka: Some(NOWHERE.to_owned()),
        redis: None,
        fault,
    }
}

fn name(fault: Option<Fault>, case: &str) -> String {
    fault.map_or_else(
        || format!("the healthy bus is caught by {case}"),
        |fault| format!("faulty({fault:?}) is caught by {case}"),
    )
}

/// What a case says when it notices the fault, rather than failing for some other reason.
fn symptoms(fault: Option<Fault>, case: &str) -> &'static [&'static str] {
    let Some(fault) = fault else {
        return match case {
            "a_room_is_fragmented" => &["a node saw everything"],
            "an_absent_broker_is_refused" => &["an absent broker went unnoticed"],
            _ => &["connected before there was a broker"],
        };
    };
    match fault {
        Fault::Drop | Fault::EarlyJoin | Fault::FalseAck => &["waited", "missing"],
        Fault::Duplicate | Fault::FreshId | Fault::RepeatHistory | Fault::InclusiveHistory => &["duplicates"],
        Fault::Swap | Fault::SwapHistory => &["out of order"],
        Fault::ForgetHistory | Fault::StaleHistory | Fault::OwnHistory | Fault::OneWayHistory => &["missing"],
        Fault::BoastfulHistory => &["a part is passed off", "never was", "still there"],
        Fault::BoundlessHistory => &["more than", "duplicates"],
        Fault::ToplessHistory => &["the room stands at"],
        Fault::KeptHistory => &["are still there"],
        // The last message may be the one that is held back.
        Fault::Diverge => &["order", "waited"],
        Fault::Leak => &["which nobody joined"],
        Fault::Corrupt => &["came back changed"],
        Fault::DeafLeave => &["after leave"],
        Fault::StuckPosition | Fault::SilentSkip => &["not dense"],
        Fault::EndlessShutdown => &["shutdown did not end"],
        Fault::OpenAfterShutdown => &["publish after shutdown was answered"],
        Fault::Lenient => &["was answered with"],
        Fault::LenientSettings => &["misspelt setting"],
    }
}

fn catches(fault: Option<Fault>, name: &str) -> Result<(), Failed> {
    let case = CASES.iter().find(|case| case.name == name).ok_or_else(|| Failed::from("no such case"))?;
    match run(case, subject(fault)) {
        Err(error) => {
            let text = format!("{error:#}");
            let symptoms = symptoms(fault, name);
            if symptoms.iter().any(|symptom| text.contains(symptom)) {
                return Ok(());
            }
            Err(Failed::from(format!("{name} failed, but not for what it looks for ({symptoms:?}): {text}")))
        }
        Ok(()) => Err(Failed::from(format!("{name} did not notice"))),
    }
}
