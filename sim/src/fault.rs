//! What can be made to go wrong on demand, and for how long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Leftover;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// New connections are closed at once, before a byte is read.
    RefuseConnections,
    /// New connections are accepted and never answered.
    HangAtAccept,
    /// LOGIN7 is never answered.
    HangAtLogin,
    /// The connection closes instead of an answer to LOGIN7.
    DropAtLogin,
    /// LOGIN7 is refused with this error.
    ErrorAtLogin {
        /// The error's number.
        number: i32,
        /// Its class.
        class: u8,
    },
    /// A request is read and never answered, nor is an attention.
    HangOnRequest,
    /// On each connection, requests after so many others are read and never answered.
    HangAfterRequests {
        /// Requests that are still answered.
        requests: u64,
    },
    /// A request is read, not executed, and the connection closes.
    DropOnRequest,
    /// On each connection, the request after so many others is read, not executed, and the connection closes.
    DropAfterRequests {
        /// Requests that are still answered.
        requests: u64,
    },
    /// A request is executed and the connection closes before a byte of its response.
    DropAfterExecution,
    /// The response ends after this many bytes of tokens and the connection closes: in the middle of a token unless
    /// you know better.
    DropInResponse {
        /// Bytes of token stream that still arrive.
        after: usize,
    },
    /// The response stops after this many bytes of tokens; the connection stays open.
    HangInResponse {
        /// Bytes of token stream that still arrive.
        after: usize,
    },
    /// After this many bytes of tokens comes 0x00, which is no token; then the connection closes.
    GarbageInResponse {
        /// Bytes of token stream that are still right.
        after: usize,
    },
    /// Each packet of a response waits this long before it is sent.
    SlowPackets {
        /// The wait.
        delay: Duration,
    },
    /// Responses are sent at this pace.
    SlowBytes {
        /// Bytes in one second.
        per_second: u32,
    },
    /// A request is answered with this error and is not executed. Class 20 and more also closes the connection.
    ErrorOnRequest {
        /// The error's number.
        number: i32,
        /// Its class.
        class: u8,
    },
    /// A reset is done but not acknowledged by ENVCHANGE 18.
    ResetNotAcknowledged,
    /// A reset is acknowledged but nothing is cleared.
    ResetLeavesEverything,
    /// A reset is answered with error 18056 (class 20) and the connection closes.
    ResetFails,
    /// A reset is acknowledged but leaves one thing as it was.
    ResetLeaves(Leftover),
    /// A reset also sets the isolation level back, which SQL Server's does not.
    ResetClearsIsolation,
    /// A DONE comes before the acknowledgement of a reset.
    ResetAcknowledgedLate,
    /// Bytes that arrive together with a resetting request are lost.
    ResetLosesInput,
    /// RESETCONNECTIONSKIPTRAN is an error.
    SkipTransactionRefused,
    /// Bytes that arrive together with a request are lost.
    RequestLosesInput,
    /// Transactions begin and end without ENVCHANGE 8, 9 and 10.
    NoTransactionEnvChange,
    /// The same, for transactions that a statement begins by itself (SET IMPLICIT_TRANSACTIONS ON).
    NoImplicitEnvChange,
    /// The same, for transactions that an error rolls back.
    NoErrorRollbackEnvChange,
    /// An inner COMMIT sends ENVCHANGE 9, a rollback to a savepoint 10, although the transaction stays open.
    InnerEndsSignalled,
    /// SESSIONSTATE calls everything recoverable.
    EverythingRecoverable,
    /// SESSIONRECOVERY is acknowledged, and SESSIONSTATE never sent.
    NoSessionState,
    /// A row that sp_cursorfetch answers has bytes that its metadata does not announce.
    CursorRowsTooLong,
    /// A request that its client broke off is run.
    WithdrawnIsRun,
    /// An attention is acknowledged twice.
    AttentionTwice,
    /// An attention that comes when nothing runs is never acknowledged.
    LateAttentionIgnored,
    /// An attention is only looked at when the response is complete.
    AttentionLate,
    /// An attention is acknowledged by the last DONE of the response that it ends, not in a message of its own. The
    /// specification allows both; clients must not depend on either, but tiberius 0.13 only understands this one and
    /// tedious only the other.
    AttentionInResponse,
    /// An attention is never acknowledged.
    AttentionIgnored,
    /// The connection closes as soon as it is idle: a server that dies between requests.
    DropWhenIdle,
    /// A stray DONE arrives after the complete response: unread bytes on an idle connection.
    StrayBytes,
}

impl Fault {
    /// The fault of this name, as `EXEC sim_fault 'name', value` writes it. `value` is bytes, milliseconds, bytes per
    /// second or an error number, whatever the fault has.
    pub fn from_name(name: &str, value: Option<i64>) -> Option<Self> {
        let count = |default: usize| value.and_then(|v| usize::try_from(v).ok()).unwrap_or(default);
        let number = |default: i32| value.and_then(|v| i32::try_from(v).ok()).unwrap_or(default);
        Some(match name.to_ascii_lowercase().as_str() {
            "refuse_connections" => Self::RefuseConnections,
            "hang_at_accept" => Self::HangAtAccept,
            "hang_at_login" => Self::HangAtLogin,
            "drop_at_login" => Self::DropAtLogin,
            "error_at_login" => Self::ErrorAtLogin { number: number(18456), class: 14 },
            "hang_on_request" => Self::HangOnRequest,
            "hang_after_requests" => Self::HangAfterRequests { requests: count(0) as u64 },
            "drop_after_requests" => Self::DropAfterRequests { requests: count(0) as u64 },
            "drop_on_request" => Self::DropOnRequest,
            "drop_after_execution" => Self::DropAfterExecution,
            "drop_in_response" => Self::DropInResponse { after: count(5) },
            "hang_in_response" => Self::HangInResponse { after: count(5) },
            "garbage_in_response" => Self::GarbageInResponse { after: count(0) },
            "slow_packets" => {
                Self::SlowPackets { delay: Duration::from_millis(u64::try_from(count(100)).unwrap_or(100)) }
            }
            "slow_bytes" => {
                Self::SlowBytes { per_second: u32::try_from(count(1000)).unwrap_or(u32::MAX).max(1) }
            }
            "error_on_request" => Self::ErrorOnRequest { number: number(701), class: 17 },
            "reset_not_acknowledged" => Self::ResetNotAcknowledged,
            "reset_leaves_everything" => Self::ResetLeavesEverything,
            "reset_fails" => Self::ResetFails,
            "reset_clears_isolation" => Self::ResetClearsIsolation,
            "reset_acknowledged_late" => Self::ResetAcknowledgedLate,
            "reset_loses_input" => Self::ResetLosesInput,
            "skip_transaction_refused" => Self::SkipTransactionRefused,
            "request_loses_input" => Self::RequestLosesInput,
            "no_transaction_envchange" => Self::NoTransactionEnvChange,
            "no_implicit_envchange" => Self::NoImplicitEnvChange,
            "no_error_rollback_envchange" => Self::NoErrorRollbackEnvChange,
            "inner_ends_signalled" => Self::InnerEndsSignalled,
            "everything_recoverable" => Self::EverythingRecoverable,
            "no_session_state" => Self::NoSessionState,
            "cursor_rows_too_long" => Self::CursorRowsTooLong,
            "withdrawn_is_run" => Self::WithdrawnIsRun,
            "attention_twice" => Self::AttentionTwice,
            "late_attention_ignored" => Self::LateAttentionIgnored,
            "attention_late" => Self::AttentionLate,
            "attention_in_response" => Self::AttentionInResponse,
            "attention_ignored" => Self::AttentionIgnored,
            "drop_when_idle" => Self::DropWhenIdle,
            "stray_bytes" => Self::StrayBytes,
            other => Self::ResetLeaves(other.strip_prefix("reset_leaves_").and_then(Leftover::from_name)?),
        })
    }
}

/// The faults that are armed, of a server or of one connection. Cheap to ask while there are none.
#[derive(Debug, Default)]
pub struct Faults {
    armed: AtomicBool,
    list: Mutex<Vec<Armed>>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    /// How many times more; `None`: until cleared.
    left: Option<u32>,
}

impl Faults {
    /// Arms `fault` until it is cleared.
    pub fn arm(&self, fault: Fault) {
        self.push(fault, None);
    }

    /// Arms `fault` for the next `times` occasions.
    pub fn arm_times(&self, fault: Fault, times: u32) {
        if times > 0 {
            self.push(fault, Some(times));
        }
    }

    /// Disarms everything.
    pub fn clear(&self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.armed.store(false, Ordering::Release);
    }

    fn push(&self, fault: Fault, left: Option<u32>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(Armed { fault, left });
        self.armed.store(true, Ordering::Release);
    }

    /// The first armed fault that `pick` wants; counts as one occasion.
    pub(crate) fn strike<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, picked) = list.iter().enumerate().find_map(|(at, armed)| Some((at, pick(&armed.fault)?)))?;
        if let Some(left) = &mut list[at].left {
            *left -= 1;
            if *left == 0 {
                list.remove(at);
                self.armed.store(!list.is_empty(), Ordering::Release);
            }
        }
        Some(picked)
    }

    /// True if exactly this fault is armed; counts as one occasion.
    pub(crate) fn strikes(&self, fault: &Fault) -> bool {
        self.strike(|armed| (armed == fault).then_some(())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_armed_twice_strikes_twice() {
        let faults = Faults::default();
        assert!(!faults.strikes(&Fault::HangAtLogin));
        faults.arm_times(Fault::HangAtLogin, 2);
        assert!(faults.strikes(&Fault::HangAtLogin));
        assert!(!faults.strikes(&Fault::DropAtLogin));
        assert!(faults.strikes(&Fault::HangAtLogin));
        assert!(!faults.strikes(&Fault::HangAtLogin));
    }

    #[test]
    fn a_fault_without_a_count_strikes_until_cleared() {
        let faults = Faults::default();
        faults.arm(Fault::DropInResponse { after: 7 });
        let after = |fault: &Fault| match fault {
            Fault::DropInResponse { after } => Some(*after),
            _ => None,
        };
        assert_eq!(faults.strike(after), Some(7));
        assert_eq!(faults.strike(after), Some(7));
        faults.clear();
        assert_eq!(faults.strike(after), None);
    }
}
