//! What a client gets when its session crashed: the table of ARCHITECTURE.md, as one pure function.

/// How far a session had come. It writes this down before each step, where a crash cannot reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Until the login response is on its way.
    Handshaking = 0,
    /// No request is under way.
    Idle = 1,
    /// A request is being received, or waits for a lease. Nothing of it was sent to a server.
    Waiting = 2,
    /// Something of the request was sent. No byte of its response was handed to the client.
    Sent = 3,
    /// Some of the response may have reached the client.
    Forwarding = 4,
}

impl Phase {
    /// Each phase, in the order of its number.
    pub(crate) const ALL: [Self; 5] =
        [Self::Handshaking, Self::Idle, Self::Waiting, Self::Sent, Self::Forwarding];

    pub(crate) fn from_u8(byte: u8) -> Self {
        match byte {
            1 => Self::Idle,
            2 => Self::Waiting,
            3 => Self::Sent,
            4 => Self::Forwarding,
            _ => Self::Handshaking,
        }
    }

    /// For the admin view.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshaking => "login",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Sent => "running",
            Self::Forwarding => "answering",
        }
    }
}

/// What happens to the client of a crashed session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its connection is closed: its driver tries again, or an ERROR cannot be put into the middle of a token.
    Close,
    /// A new session goes on as if nothing had happened.
    Resume,
    /// A new session answers the request with an error that drivers retry: nothing was done.
    ResumeWithRetry,
    /// A new session answers the request with an error that drivers do not retry.
    ResumeWithUnknownOutcome,
    /// A new session says that the session's state is lost (class 20) and closes.
    FatalStateLost,
    /// A new session says that this went wrong too often (class 20) and closes.
    FatalTooOften,
}

/// Judges a crash in `phase`. `held`: the server connection carried state of the session beyond one request.
pub(crate) fn verdict(phase: Phase, held: bool, restart_allowed: bool) -> Verdict {
    match phase {
        Phase::Handshaking | Phase::Forwarding => Verdict::Close,
        _ if !restart_allowed => Verdict::FatalTooOften,
        Phase::Idle | Phase::Waiting | Phase::Sent if held => Verdict::FatalStateLost,
        Phase::Idle => Verdict::Resume,
        Phase::Waiting => Verdict::ResumeWithRetry,
        Phase::Sent => Verdict::ResumeWithUnknownOutcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crash_gets_the_verdict_of_the_table() {
        use Phase::{Forwarding, Handshaking, Idle, Sent, Waiting};
        let table = [
            (Handshaking, false, true, Verdict::Close),
            (Handshaking, false, false, Verdict::Close),
            (Idle, false, true, Verdict::Resume),
            (Idle, true, true, Verdict::FatalStateLost),
            (Waiting, false, true, Verdict::ResumeWithRetry),
            (Waiting, true, true, Verdict::FatalStateLost),
            (Sent, false, true, Verdict::ResumeWithUnknownOutcome),
            (Sent, true, true, Verdict::FatalStateLost),
            (Forwarding, false, true, Verdict::Close),
            (Forwarding, true, true, Verdict::Close),
            (Forwarding, false, false, Verdict::Close),
            (Idle, false, false, Verdict::FatalTooOften),
            (Waiting, false, false, Verdict::FatalTooOften),
            (Sent, true, false, Verdict::FatalTooOften),
        ];
        for (phase, held, allowed, expected) in table {
            assert_eq!(verdict(phase, held, allowed), expected, "{phase:?} held={held} allowed={allowed}");
        }
    }

    #[test]
    fn a_phase_survives_its_byte() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, number);
            assert_eq!(Phase::from_u8(phase as u8), phase);
        }
    }
}
