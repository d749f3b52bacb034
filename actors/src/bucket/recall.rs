//! How a lent server connection is asked back: whoever uses it looks here at its next clean boundary, or at once.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

/// How urgently a connection is wanted back, in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecallLevel {
    /// It is not.
    #[default]
    None,
    /// At the next moment at which nothing of its user is left on it: no request, no transaction, no hold.
    WhenClean,
    /// Now, whatever runs on it. It is closed.
    Now,
}

/// Why a connection is wanted back: the client may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecallReason {
    /// Other proxies wait for connections, or the bucket's limit was lowered.
    #[error("its connection is needed elsewhere")]
    QuotaShrank,
    /// This proxy cannot prove any more that the slot is its own.
    #[error("this proxy lost contact with the coordinator and must close connections")]
    LeaseEnds,
    /// An operator's `kill server`.
    #[error("an operator closed the server connection")]
    Killed,
    /// An operator's `reconnect`.
    #[error("an operator had the server connections opened anew")]
    Reconnect,
    /// An operator's `pause`.
    #[error("an operator paused the bucket")]
    Paused,
}

/// Raised by the bucket, looked at by whoever the connection is lent to: one task at a time.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    asked: Mutex<(RecallLevel, Option<RecallReason>)>,
    changed: AtomicWaker,
}

impl Recall {
    /// Asks for the connection. A weaker wish than the present one changes nothing.
    pub(crate) fn raise(&self, level: RecallLevel, reason: RecallReason) {
        {
            let mut asked = self.asked();
            if level <= asked.0 {
                return;
            }
            *asked = (level, Some(reason));
        }
        self.changed.wake();
    }

    /// Takes back a wish for this reason that was not urgent: it has become unnecessary.
    pub(crate) fn withdraw(&self, reason: RecallReason) {
        let mut asked = self.asked();
        if *asked == (RecallLevel::WhenClean, Some(reason)) {
            *asked = (RecallLevel::None, None);
        }
    }

    /// How urgently the connection is wanted back.
    pub(crate) fn level(&self) -> RecallLevel {
        self.asked().0
    }

    /// Returns once the connection is wanted at least so urgently; says why. Cancel safe.
    pub(crate) async fn wanted(&self, level: RecallLevel) -> RecallReason {
        poll_fn(|cx| self.poll_wanted(cx, level)).await
    }

    fn poll_wanted(&self, cx: &mut Context<'_>, level: RecallLevel) -> Poll<RecallReason> {
        // Before the look: what is raised after it wakes.
        self.changed.register(cx.waker());
        match *self.asked() {
            (asked, Some(reason)) if asked >= level => Poll::Ready(reason),
            _ => Poll::Pending,
        }
    }

    fn asked(&self) -> MutexGuard<'_, (RecallLevel, Option<RecallReason>)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn urgency_only_grows_and_the_more_urgent_reason_counts() {
        let recall = Recall::default();
        assert_eq!(*recall.asked(), (RecallLevel::None, None));
        recall.raise(RecallLevel::WhenClean, RecallReason::QuotaShrank);
        recall.raise(RecallLevel::WhenClean, RecallReason::Paused);
        assert_eq!(recall.asked().1, Some(RecallReason::QuotaShrank));
        recall.raise(RecallLevel::Now, RecallReason::LeaseEnds);
        recall.raise(RecallLevel::WhenClean, RecallReason::Paused);
        assert_eq!(*recall.asked(), (RecallLevel::Now, Some(RecallReason::LeaseEnds)));
    }

    #[test]
    fn a_wish_that_became_unnecessary_is_withdrawn_and_an_urgent_one_or_anothers_is_not() {
        let recall = Recall::default();
        recall.raise(RecallLevel::WhenClean, RecallReason::QuotaShrank);
        recall.withdraw(RecallReason::Paused);
        assert_eq!(recall.level(), RecallLevel::WhenClean);
        recall.withdraw(RecallReason::QuotaShrank);
        assert_eq!(*recall.asked(), (RecallLevel::None, None));
        recall.raise(RecallLevel::Now, RecallReason::QuotaShrank);
        recall.withdraw(RecallReason::QuotaShrank);
        assert_eq!(recall.level(), RecallLevel::Now);
    }

    #[tokio::test]
    async fn who_waits_for_urgency_is_woken_by_no_less() {
        let recall = Arc::new(Recall::default());
        let waiting = tokio::spawn({
            let recall = Arc::clone(&recall);
            async move { recall.wanted(RecallLevel::Now).await }
        });
        recall.raise(RecallLevel::WhenClean, RecallReason::QuotaShrank);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        recall.raise(RecallLevel::Now, RecallReason::Killed);
        assert_eq!(waiting.await.unwrap(), RecallReason::Killed);
        assert_eq!(recall.wanted(RecallLevel::WhenClean).await, RecallReason::Killed);
    }
}
