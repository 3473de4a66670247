//! Round trips in both directions, serde_json's own reader as the oracle, and no panic on any bytes.

use manifold_protocol::PublicationPrefix;
use manifold_protocol::json::{
    Json, append_command, append_reply, append_string, append_u64, commands, replies,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::generate::{command, data, reply, text};

/// Texts that look like the protocol: real frames with pieces replaced, cut, doubled.
fn almost() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\n",
            " ",
            "null",
            "true",
            "-1",
            "0",
            "1e9",
            "4294967295",
            "\\u0000",
            "\"id\":",
            "\"push\":",
            "\"pub\":",
            "\"data\":",
            "\"channel\":",
            "\"publish\":",
            "\"connect\":",
            "\"subs\":",
            "\"subscribe\":",
            "\"info\":",
            "\"error\":",
            "\"offset\":",
            "\"a\"",
            "{}",
            "\"publications\":",
            "\"ping\":",
        ])
        .prop_map(str::to_owned),
        "\\PC",
    ];
    vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn commands_round_trip(sent in vec(command(), 1..4)) {
        let mut out = Vec::new();
        for command in &sent {
            append_command(&mut out, command);
            out.push(b'\n');
        }
        let frame = String::from_utf8(out).unwrap();
        prop_assert_eq!(frame.matches('\n').count(), sent.len());
        for line in frame.lines() {
            serde_json::from_str::<&serde_json::value::RawValue>(line).unwrap();
        }
        let received = commands(&frame).collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn replies_round_trip(sent in vec(reply(), 1..4)) {
        let mut out = Vec::new();
        for (index, reply) in sent.iter().enumerate() {
            if index > 0 {
                out.push(b'\n');
            }
            append_reply(&mut out, reply);
        }
        let frame = String::from_utf8(out).unwrap();
        prop_assert_eq!(frame.matches('\n').count() + 1, sent.len());
        let received = replies(&frame).collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn the_quick_push_is_the_slow_push(
        channel in text(), data in data(), client in text(), offset: u64, epoch in text(),
    ) {
        use manifold_protocol::{ClientInfo, Publication, Push, PushBody};
        let info = ClientInfo { client, ..Default::default() };
        let data = data.unwrap_or(Json::NULL);
        let (mut encoded_info, mut quick, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        manifold_protocol::json::append_client_info(&mut encoded_info, &info);
        PublicationPrefix::new(&channel).append(&mut quick, data.as_str().as_bytes(), &encoded_info, offset, &epoch);
        let publication = Publication { data: Some(data), info: Some(info), offset, epoch, ..Default::default() };
        let push = Push { id: 0, channel: channel.clone(), body: PushBody::Publication(publication) };
        manifold_protocol::json::append_push(&mut slow, &push);
        // The quick one always names its channel.
        if !channel.is_empty() {
            prop_assert_eq!(quick, slow);
        }
    }

    #[test]
    fn strings_and_numbers_are_what_serde_json_reads(text: String, number: u64) {
        let mut out = Vec::new();
        append_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        out.clear();
        append_u64(&mut out, number);
        prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
    }

    #[test]
    fn no_text_makes_a_decoder_panic(text in prop_oneof![any::<String>(), almost()]) {
        for command in commands(&text).flatten() {
            // Whatever is understood is written so that it is understood again, the same.
            let mut out = Vec::new();
            append_command(&mut out, &command);
            let again = String::from_utf8(out).unwrap();
            prop_assert_eq!(commands(&again).next().unwrap().unwrap(), command);
        }
        for reply in replies(&text).flatten() {
            let mut out = Vec::new();
            append_reply(&mut out, &reply);
            let again = String::from_utf8(out).unwrap();
            prop_assert_eq!(replies(&again).next().unwrap().unwrap(), reply);
        }
    }
}
