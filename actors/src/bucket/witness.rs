//! What a server tells of its session by itself (SESSIONSTATE, [MS-TDS] 2.2.7.21): which states are not as after the
//! login, and whether the session could be recovered on another connection.

use std::hash::{DefaultHasher, Hasher};

use tds::env_change::EnvChange;
use tds::scan::Event;
use tds::session_state::{self, SessionState};

/// The sequence number that says: recovery is off for good.
const OFF: u32 = u32::MAX;

/// States by their numbers. What each means is the server's to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateIds([u64; 4]);

impl StateIds {
    pub(crate) const NONE: Self = Self([0; 4]);

    pub(crate) fn is_empty(self) -> bool {
        self == Self::NONE
    }

    pub(crate) fn contains(self, id: u8) -> bool {
        self.0[usize::from(id) / 64] & (1 << (id % 64)) != 0
    }

    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    #[must_use]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    fn insert(&mut self, id: u8) {
        self.0[usize::from(id) / 64] |= 1 << (id % 64);
    }
}

impl FromIterator<u8> for StateIds {
    fn from_iter<I: IntoIterator<Item = u8>>(ids: I) -> Self {
        let mut all = Self::NONE;
        ids.into_iter().for_each(|id| all.insert(id));
        all
    }
}

/// What was told on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    /// As after the login, and after a reset: FEATUREEXTACK ([MS-TDS] 2.2.7.11).
    initial: Vec<State>,
    now: Vec<State>,
    /// A token without states spoke of the whole session.
    unrecoverable: bool,
    is_off: bool,
}

/// The last that was told of one state.
#[derive(Clone, Copy, Debug)]
struct State {
    id: u8,
    /// A fingerprint: values can be long, as a session context is.
    value: u64,
    /// The last value that could be recovered.
    settled: u64,
    recoverable: bool,
}

/// A state that was never told of has the same value as an empty one: neither is sent to recover a session.
const EMPTY: u64 = 0;

impl Witness {
    /// `told`: the data of the acknowledged SESSIONRECOVERY feature.
    pub(crate) fn at_login(told: &[u8]) -> Self {
        let states = session_state::states(told).map_while(Result::ok);
        let initial: Vec<State> = states
            .map(|state| (state.id, fingerprint(state.value)))
            .map(|(id, value)| State { id, value, settled: value, recoverable: true })
            .collect();
        Self { now: initial.clone(), initial, ..Self::default() }
    }

    /// Takes what a response says. Yields the states that have other values now, and could be recovered: what cannot
    /// may come and go without leaving a trace.
    pub(crate) fn hear(&mut self, event: &Event<'_>) -> StateIds {
        match event {
            Event::SessionState(token) => self.take(token),
            Event::EnvChange(EnvChange::ResetDone) => {
                self.reset();
                StateIds::NONE
            }
            _ => StateIds::NONE,
        }
    }

    /// A reset goes back to the initial states ([MS-TDS] 2.2.6.4); what survives it is told anew.
    fn reset(&mut self) {
        self.now.clone_from(&self.initial);
        self.unrecoverable = false;
    }

    fn take(&mut self, token: &SessionState<'_>) -> StateIds {
        self.is_off |= token.sequence == OFF;
        let mut changed = StateIds::NONE;
        let mut any = false;
        for state in token.states() {
            any = true;
            let known = self.state(state.id);
            known.value = fingerprint(state.value);
            known.recoverable = token.recoverable;
            if token.recoverable && known.settled != known.value {
                known.settled = known.value;
                changed.insert(state.id);
            }
        }
        if !any {
            self.unrecoverable = !token.recoverable;
        }
        changed
    }

    fn state(&mut self, id: u8) -> &mut State {
        let at = self.now.iter().position(|state| state.id == id).unwrap_or_else(|| {
            self.now.push(State { id, value: EMPTY, settled: EMPTY, recoverable: true });
            self.now.len() - 1
        });
        &mut self.now[at]
    }

    /// Whether the server could restore the session on another connection.
    pub(crate) fn is_recoverable(&self) -> bool {
        !self.is_off && !self.unrecoverable && self.now.iter().all(|state| state.recoverable)
    }

    /// Whether one of these states is not as after the login.
    pub(crate) fn has_changed(&self, ids: StateIds) -> bool {
        let initially =
            |id| self.initial.iter().find(|state| state.id == id).map_or(EMPTY, |state| state.value);
        self.now.iter().any(|state| ids.contains(state.id) && state.value != initially(state.id))
    }
}

fn fingerprint(value: &[u8]) -> u64 {
    if value.is_empty() {
        return EMPTY;
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: u8 = 4;

    fn data(states: &[(u8, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (id, value) in states {
            session_state::State { id: *id, value }.write(&mut data);
        }
        data
    }

    fn witness() -> Witness {
        Witness::at_login(&data(&[(0, &[1, 2]), (9, &[7])]))
    }

    /// Tells the witness; which states changed.
    fn tell(witness: &mut Witness, recoverable: bool, states: &[(u8, &[u8])]) -> StateIds {
        let data = data(states);
        witness.hear(&Event::SessionState(SessionState { sequence: 3, recoverable, data: &data }))
    }

    fn ids(ids: &[u8]) -> StateIds {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_state_has_changed_when_its_value_has() {
        let mut witness = witness();
        assert_eq!(tell(&mut witness, true, &[(0, &[1, 2]), (9, &[8])]), ids(&[9]));
        assert_eq!(tell(&mut witness, true, &[(9, &[8])]), StateIds::NONE);
        assert!(witness.has_changed(ids(&[0, 9])) && !witness.has_changed(ids(&[0])));
        assert_eq!(tell(&mut witness, true, &[(9, &[7])]), ids(&[9]));
        assert!(!witness.has_changed(ids(&[9])), "it is as after the login again");
    }

    #[test]
    fn a_state_that_was_not_there_is_as_an_empty_one() {
        let mut witness = witness();
        assert_eq!(tell(&mut witness, true, &[(CONTEXT, &[])]), StateIds::NONE);
        assert_eq!(tell(&mut witness, true, &[(CONTEXT, &[5; 300])]), ids(&[CONTEXT]));
        assert!(witness.has_changed(ids(&[CONTEXT])));
        assert_eq!(tell(&mut witness, true, &[(CONTEXT, &[])]), ids(&[CONTEXT]));
        assert!(!witness.has_changed(ids(&[CONTEXT])));
    }

    #[test]
    fn a_session_is_recoverable_when_each_of_its_states_is() {
        let mut witness = witness();
        tell(&mut witness, false, &[(9, &[7])]);
        tell(&mut witness, true, &[(0, &[3])]);
        assert!(!witness.is_recoverable(), "each state counts by itself");
        tell(&mut witness, true, &[(9, &[7])]);
        assert!(witness.is_recoverable());
        tell(&mut witness, false, &[]);
        assert!(!witness.is_recoverable());
        tell(&mut witness, true, &[]);
        assert!(witness.is_recoverable());
    }

    #[test]
    fn what_comes_and_goes_while_nothing_can_be_recovered_is_no_change() {
        let mut witness = witness();
        assert_eq!(tell(&mut witness, false, &[(9, &[8]), (CONTEXT, &[1])]), StateIds::NONE);
        assert!(witness.has_changed(ids(&[CONTEXT])), "but it is there");
        assert_eq!(tell(&mut witness, true, &[(9, &[7]), (CONTEXT, &[2])]), ids(&[CONTEXT]));
    }

    #[test]
    fn a_reset_goes_back_to_the_login() {
        let mut witness = witness();
        tell(&mut witness, false, &[(9, &[8]), (CONTEXT, &[1])]);
        witness.hear(&Event::EnvChange(EnvChange::ResetDone));
        assert!(witness.is_recoverable() && !witness.has_changed(ids(&[0, CONTEXT, 9])));
        assert_eq!(tell(&mut witness, true, &[(9, &[7])]), StateIds::NONE);
    }

    #[test]
    fn recovery_that_is_off_stays_off() {
        let mut witness = witness();
        witness.hear(&Event::SessionState(SessionState { sequence: OFF, recoverable: true, data: &[] }));
        witness.hear(&Event::EnvChange(EnvChange::ResetDone));
        assert!(!witness.is_recoverable());
    }

    #[test]
    fn sets_of_states() {
        let (low, high) = (ids(&[0, 63]), ids(&[64, 255]));
        assert!(low.and(high).without(low) == high && low.without(low).is_empty());
        assert!(high.contains(255) && !high.contains(63));
    }
}
