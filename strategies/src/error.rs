//! One error at the boundary of every strategy.

use std::error::Error as StdError;
use std::fmt;

/// Result of a backplane operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, whether to try again, in which operation, with what context.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    temporary: bool,
    operation: &'static str,
    context: String,
    source: Option<Source>,
}

/// Kinds of failure, as labels of the error counter and for programs that react to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong or missing.
    Config,
    /// The broker cannot be reached.
    Unreachable,
    /// The broker did not answer in time. The outcome is unknown: the message may still arrive.
    Timeout,
    /// A bounded queue is full.
    Overloaded,
    /// The message is larger than the backplane carries.
    TooLarge,
    /// A write reached some of its destinations only.
    PartialWrite,
    /// Bytes from the broker are not what this version writes.
    Corrupt,
    /// The broker refused.
    Broker,
    /// The backplane was shut down.
    Closed,
}

impl ErrorKind {
    /// Every kind, for counters with one cell per kind.
    pub const ALL: [Self; 9] = [
        Self::Config,
        Self::Unreachable,
        Self::Timeout,
        Self::Overloaded,
        Self::TooLarge,
        Self::PartialWrite,
        Self::Corrupt,
        Self::Broker,
        Self::Closed,
    ];

    /// The label used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::PartialWrite => "partial_write",
            Self::Corrupt => "corrupt",
            Self::Broker => "broker",
            Self::Closed => "closed",
        }
    }

    /// Whether a retry can help, unless the operation knows better.
    const fn usually_temporary(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::Timeout | Self::Overloaded | Self::PartialWrite | Self::Broker
        )
    }
}

impl Error {
    /// A failure of `operation`. `context` names what it was about and, where there is one, the remedy.
    pub fn new(kind: ErrorKind, operation: &'static str, context: impl Into<String>) -> Self {
        Self { kind, temporary: kind.usually_temporary(), operation, context: context.into(), source: None }
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Overrides whether a retry can help.
    #[must_use]
    pub fn with_temporary(mut self, temporary: bool) -> Self {
        self.temporary = temporary;
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The operation that failed, e.g. `publish`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({}): {}", self.operation, self.kind.as_str(), self.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
