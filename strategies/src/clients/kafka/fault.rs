//! librdkafka's errors as ours: kind, whether a retry can help, and what to do about it.

use std::error::Error as _;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::error::{Error, ErrorKind};

/// Maps an error of librdkafka. `about` says what the operation was about, e.g. the topic; for an unreachable
/// broker pass the address.
pub fn from_kafka(operation: &'static str, about: &str, source: KafkaError) -> Error {
    let code = match &source {
        KafkaError::AdminOp(code) => Some(*code),
        _ => source.rdkafka_error_code(),
    };
    let (kind, temporary, remedy) = match (&source, code) {
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_), _) => {
            (ErrorKind::Config, false, "check the `client` settings")
        }
        (KafkaError::Canceled, _) => (ErrorKind::Closed, false, "the client was closed"),
        (_, Some(code)) => classify(code),
        (_, None) => (ErrorKind::Broker, true, "see the cause"),
    };
    let detail = code.map_or_else(|| source.to_string(), |code| code.to_string());
    Error::new(kind, operation, format!("{about}: {detail}; {remedy}"))
        .with_temporary(temporary)
        .with_source(source)
}

/// What became of a record that was queued when its producer lost its identity: a first attempt may have been made.
pub fn lost_its_identity(about: &str, source: KafkaError) -> Error {
    let text = format!(
        "{about}: the producer lost its identity and is replaced; outcome unknown: retry with the same message id"
    );
    Error::new(ErrorKind::Broker, "publish", text).with_source(source)
}

/// A publish by a producer that lost its identity before.
pub fn not_sent() -> Error {
    let text =
        "the producer lost its identity and is replaced; the message was not sent: publish again later";
    Error::new(ErrorKind::Unreachable, "publish", text)
}

/// Kind, whether a retry can help, and the remedy of an error code.
fn classify(code: Code) -> (ErrorKind, bool, &'static str) {
    match code {
        Code::QueueFull => (ErrorKind::Overloaded, true, "the send queue is full: publish slower"),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            (ErrorKind::TooLarge, false, "send less at once or raise message.max.bytes on the broker")
        }
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            (ErrorKind::Timeout, true, "outcome unknown: retry with the same message id")
        }
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::NetworkException => {
            (ErrorKind::Unreachable, true, "is the broker running and the address right?")
        }
        Code::SSL
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism => {
            (ErrorKind::Config, false, "check the TLS and SASL properties in `client`")
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            (ErrorKind::Broker, false, "grant this client the right on the broker")
        }
        Code::InvalidReplicationFactor => (
            ErrorKind::Config,
            false,
            "the cluster has fewer brokers than replicas asked for: lower `replication` or add brokers",
        ),
        Code::InvalidPartitions | Code::InvalidTopic | Code::InvalidConfig | Code::PolicyViolation => {
            (ErrorKind::Config, false, "the broker does not accept these topic settings")
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            (ErrorKind::Broker, true, "the broker does not know the topic or partition (yet)")
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            (ErrorKind::Broker, true, "too few replicas are up: start the brokers that are down")
        }
        Code::KafkaStorageError => {
            (ErrorKind::Broker, true, "the broker cannot write its log: is its disk full?")
        }
        Code::Fatal => {
            (ErrorKind::Broker, true, "the producer lost its identity and is replaced; outcome unknown")
        }
        Code::PurgeQueue | Code::PurgeInflight => {
            (ErrorKind::Closed, false, "the node shut down before the broker answered; outcome unknown")
        }
        _ => (ErrorKind::Broker, true, "see the broker's log"),
    }
}

/// Whether a broker said that there is no such topic. Any other refusal proves nothing of the kind.
pub fn says_gone(error: &Error) -> bool {
    let code = match cause(error) {
        Some(KafkaError::AdminOp(code)) => Some(*code),
        cause => cause.and_then(KafkaError::rdkafka_error_code),
    };
    matches!(
        code,
        Some(
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicId
        )
    )
}

/// The same error for one more caller.
pub fn again(error: &Error) -> Error {
    let copy =
        Error::new(error.kind(), error.operation(), error.to_string()).with_temporary(error.is_temporary());
    match cause(error) {
        Some(cause) => copy.with_source(cause.clone()),
        None => copy,
    }
}

fn cause(error: &Error) -> Option<&KafkaError> {
    error.source()?.downcast_ref()
}

/// An error for a deadline of our own that passed.
pub fn timed_out(operation: &'static str, about: impl Into<String>) -> Error {
    Error::new(ErrorKind::Timeout, operation, about)
}

/// A publish to a broker that is connected and answers nothing: nothing was written.
pub fn silent(what: &str) -> Error {
    let text = format!(
        "the broker that leads {what} does not answer: is it stopped, or the network stalled? nothing was \
         written, publish again later"
    );
    Error::new(ErrorKind::Unreachable, "publish", text)
}

/// The error of every call after shutdown.
pub fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "this node's backplane was shut down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_code() {
        let cases = [
            (Code::QueueFull, ErrorKind::Overloaded, true),
            (Code::MessageTimedOut, ErrorKind::Timeout, true),
            (Code::MessageSizeTooLarge, ErrorKind::TooLarge, false),
            (Code::AllBrokersDown, ErrorKind::Unreachable, true),
            (Code::InvalidReplicationFactor, ErrorKind::Config, false),
            (Code::PurgeQueue, ErrorKind::Closed, false),
        ];
        for (code, kind, temporary) in cases {
            let error = from_kafka("publish", "topic t", KafkaError::MessageProduction(code));
            assert_eq!((error.kind(), error.is_temporary()), (kind, temporary), "{code:?}");
            assert!(error.to_string().contains("topic t"), "{error}");
        }
    }

    #[test]
    fn only_a_broker_that_says_so_proves_that_a_topic_is_gone() {
        let gone = |code| {
            let error = from_kafka("describe topic", "t", KafkaError::AdminOp(code));
            assert_eq!(says_gone(&again(&error)), says_gone(&error), "{code:?}");
            says_gone(&error)
        };
        assert!(gone(Code::UnknownTopicOrPartition));
        assert!(gone(Code::UnknownTopicId));
        for code in [Code::TopicAuthorizationFailed, Code::NotController, Code::NotCoordinator] {
            assert!(!gone(code), "{code:?}");
        }
        assert!(!says_gone(&Error::new(ErrorKind::Broker, "describe topic", "the broker's answer is empty")));
    }
}
