//! The verdict over one result: did it succeed, and if not, may it be sent again.

/// A response classifier's verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Counts as a success.
    Success,
    /// Counts as a failure.
    Failure {
        /// Whether a retry, within the budget, is worth while and harmless.
        retryable: bool,
    },
}

impl Class {
    /// Counts as a failure that is not retried.
    pub const FAILURE: Self = Self::Failure { retryable: false };
    /// Counts as a failure that may be retried.
    pub const RETRYABLE: Self = Self::Failure { retryable: true };

    /// Whether it counts as a success.
    pub fn is_success(self) -> bool {
        self == Self::Success
    }

    /// Whether it may be retried.
    pub fn is_retryable(self) -> bool {
        self == Self::RETRYABLE
    }
}
