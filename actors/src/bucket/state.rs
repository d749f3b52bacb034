//! The replayable state of a session (database, language, SET options, isolation level) and the state that a server
//! connection carries now: whether the one fits the other, and what makes it fit.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::session::SessionId;
use crate::session::prepared::RealHandles;

/// The option's name as the scan reports it, and as T-SQL has it behind SET.
pub(crate) const ISOLATION: &str = "transaction isolation level";
/// What a fresh session has.
const DEFAULT_ISOLATION: &str = "read committed";
/// Setting it changes the two others.
const LANGUAGE: &str = "language";
const SET_BY_LANGUAGE: [&str; 2] = ["dateformat", "datefirst"];

/// What a session has set since its login and a replay sets again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The current database, unless it is the login's.
    database: Option<Box<str>>,
    /// Values as T-SQL text, by option. The language first: it sets others.
    options: BTreeMap<(bool, &'static str), Box<str>>,
    /// The isolation level, unless it is the default: it survives a reset, so it is always set explicitly.
    isolation: Option<Box<str>>,
}

impl Settings {
    /// `SET option value` was executed.
    pub(crate) fn set(&mut self, option: &'static str, value: &str) {
        if option == ISOLATION {
            self.isolation = (value != DEFAULT_ISOLATION).then(|| value.into());
            return;
        }
        if option == LANGUAGE {
            for changed in SET_BY_LANGUAGE {
                self.options.remove(&(true, changed));
            }
        }
        self.options.insert((option != LANGUAGE, option), value.into());
    }

    /// Whether the option is known to have this value.
    pub(crate) fn has(&self, option: &'static str, value: &str) -> bool {
        if option == ISOLATION {
            return self.isolation.as_deref().unwrap_or(DEFAULT_ISOLATION) == value;
        }
        self.options.get(&(option != LANGUAGE, option)).is_some_and(|known| **known == *value)
    }

    /// The server says which database is the current one; `home` is the login's.
    pub(crate) fn use_database(&mut self, name: &str, home: &str) {
        self.database = (name != home).then(|| name.into());
    }

    /// A reset was acknowledged: all but the isolation level is as after the login ([MS-TDS] 2.2.3.1.2).
    pub(crate) fn reset(&mut self) {
        self.database = None;
        self.options.clear();
    }

    /// What a reset leaves of them.
    pub(crate) fn after_reset(&self) -> Self {
        Self { isolation: self.isolation.clone(), ..Self::default() }
    }

    /// As after the login.
    pub(crate) fn is_default(&self) -> bool {
        self.database.is_none() && self.options.is_empty() && self.isolation.is_none()
    }

    /// As after a reset: only the isolation level may be another.
    pub(crate) fn is_reset(&self) -> bool {
        self.database.is_none() && self.options.is_empty()
    }

    /// Whether IMPLICIT_TRANSACTIONS is on: then nearly every statement begins a transaction.
    pub(crate) fn begins_implicitly(&self) -> bool {
        self.options.get(&(true, "implicit_transactions")).is_some_and(|value| **value == *"on")
    }

    /// A fingerprint of what prepared handles depend on: under another they are not valid (error 586).
    pub(crate) fn handle_context(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.database.hash(&mut hasher);
        for option in ["ansi_nulls", "quoted_identifier", "ansi_defaults"] {
            self.options.get(&(true, option)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// T-SQL that gives a connection these settings that has them reset, whatever its isolation level.
    pub(crate) fn replay(&self) -> String {
        let mut text = String::with_capacity(64);
        self.put_isolation(&mut text);
        for ((_, option), value) in &self.options {
            // Writing to a string cannot fail.
            let _ = write!(text, ";SET {option} {value}");
        }
        if let Some(database) = &self.database {
            let _ = write!(text, ";USE [{}]", database.replace(']', "]]"));
        }
        text
    }

    /// T-SQL that sets the isolation level alone.
    pub(crate) fn replay_isolation(&self) -> String {
        let mut text = String::with_capacity(64);
        self.put_isolation(&mut text);
        text
    }

    fn put_isolation(&self, text: &mut String) {
        text.push_str("SET TRANSACTION ISOLATION LEVEL ");
        text.push_str(self.isolation.as_deref().unwrap_or(DEFAULT_ISOLATION));
    }

    /// Whether a replay can fail for other reasons than a broken connection: a database can go away.
    pub(crate) fn replay_may_fail(&self) -> bool {
        self.database.is_some()
    }

    fn same_isolation(&self, other: &Self) -> bool {
        self.isolation == other.isolation
    }
}

/// The state that a server connection carries.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnState {
    pub(crate) settings: Arc<Settings>,
    /// Something may be left on it that only a reset takes away.
    pub(crate) dirty: bool,
    /// The session that used it last, and its number of uses then.
    pub(crate) last: Option<(SessionId, u64)>,
    /// What is prepared on it.
    pub(crate) reals: RealHandles,
}

/// What has to be sent before a session's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preparation {
    /// Nothing: the connection is as the session left it, or as it would have made it.
    Nothing,
    /// A batch, with or without a reset before it.
    Replay { reset: bool, text: String, may_fail: bool },
}

/// What a session looks for in an idle connection.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) session: SessionId,
    pub(crate) settings: Arc<Settings>,
    /// The connection's number of uses when this session used it last.
    pub(crate) uses: u64,
}

impl ConnState {
    /// Whether this session used the connection last, and nobody since; `uses` as it noted it then.
    pub(crate) fn is_last_of(&self, session: SessionId, uses: u64) -> bool {
        self.last == Some((session, uses))
    }

    /// How well the connection serves the wish; less is better.
    pub(crate) fn distance(&self, wish: &Wish) -> u8 {
        match () {
            () if self.last == Some((wish.session, wish.uses)) => 0,
            () if !self.dirty && self.settings == wish.settings => 1,
            () if !self.dirty && self.settings.is_default() => 2,
            () => 3,
        }
    }

    /// Whether it is as after the login.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.dirty && self.settings.is_default() && self.reals.is_empty()
    }

    /// What makes the connection fit a session with these settings that is not the one that used it last.
    /// `client_resets`: the session's request brings a reset of its own. `always`: reset at each change of hands.
    pub(crate) fn prepare(&self, target: &Settings, client_resets: bool, always: bool) -> Preparation {
        if client_resets {
            // The reset leaves the isolation level.
            return if self.settings.same_isolation(target) {
                Preparation::Nothing
            } else {
                Preparation::Replay { reset: false, text: target.replay_isolation(), may_fail: false }
            };
        }
        let dirty = self.dirty || self.reals.want_reset();
        let reset = dirty || always || !self.settings.is_default();
        if !dirty && !always && *self.settings == *target {
            return Preparation::Nothing;
        }
        Preparation::Replay { reset, text: target.replay(), may_fail: target.replay_may_fail() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&'static str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (option, value) in set {
            settings.set(option, value);
        }
        settings
    }

    fn conn(settings: Settings, dirty: bool) -> ConnState {
        ConnState {
            settings: Arc::new(settings),
            dirty,
            last: Some((SessionId(1), 7)),
            ..ConnState::default()
        }
    }

    #[test]
    fn the_language_comes_first_and_takes_its_date_formats_along() {
        let set = settings(&[("datefirst", "1"), ("nocount", "on"), ("language", "N'Deutsch'")]);
        assert_eq!(
            set.replay(),
            "SET TRANSACTION ISOLATION LEVEL read committed;SET language N'Deutsch';SET nocount on"
        );
        let set = settings(&[("language", "N'Deutsch'"), ("datefirst", "1")]);
        assert!(set.replay().ends_with("SET language N'Deutsch';SET datefirst 1"));
    }

    #[test]
    fn the_default_isolation_level_is_no_setting() {
        let mut set = settings(&[(ISOLATION, "serializable")]);
        assert!(!set.is_default() && set.has(ISOLATION, "serializable"));
        set.reset();
        assert!(set.is_reset() && !set.is_default(), "a reset leaves the isolation level");
        set.set(ISOLATION, "read committed");
        assert!(set.is_default());
    }

    #[test]
    fn a_database_is_quoted() {
        let mut set = Settings::default();
        set.use_database("odd]name", "home");
        assert!(set.replay().ends_with(";USE [odd]]name]") && set.replay_may_fail());
        set.use_database("home", "home");
        assert!(set.is_default());
    }

    #[test]
    fn what_is_sent_before_a_request() {
        let (plain, set) = (Settings::default(), settings(&[("nocount", "on")]));
        let isolated = settings(&[(ISOLATION, "snapshot")]);
        let replay = |reset, of: &Settings| Preparation::Replay { reset, text: of.replay(), may_fail: false };
        let table = [
            // carried, dirty, wanted, the client resets, always
            (&plain, false, &plain, false, false, Preparation::Nothing),
            (&set, false, &set, false, false, Preparation::Nothing),
            (&set, true, &set, false, false, replay(true, &set)),
            (&set, false, &set, false, true, replay(true, &set)),
            (&plain, false, &set, false, false, replay(false, &set)),
            (&set, false, &plain, false, false, replay(true, &plain)),
            (&isolated, false, &plain, false, false, replay(true, &plain)),
            (&set, true, &plain, true, false, Preparation::Nothing),
            (
                &isolated,
                true,
                &plain,
                true,
                false,
                Preparation::Replay { reset: false, text: plain.replay_isolation(), may_fail: false },
            ),
        ];
        for (at, (carried, dirty, wanted, resets, always, expected)) in table.into_iter().enumerate() {
            assert_eq!(conn(carried.clone(), dirty).prepare(wanted, resets, always), expected, "row {at}");
        }
    }

    #[test]
    fn the_connection_used_last_is_the_nearest_then_one_with_equal_settings() {
        let wish =
            |uses, set: &Settings| Wish { session: SessionId(1), settings: Arc::new(set.clone()), uses };
        let (plain, set) = (Settings::default(), settings(&[("nocount", "on")]));
        assert_eq!(conn(plain.clone(), true).distance(&wish(7, &set)), 0);
        assert_eq!(conn(set.clone(), false).distance(&wish(6, &set)), 1);
        assert_eq!(conn(plain, false).distance(&wish(6, &set)), 2);
        assert_eq!(conn(set.clone(), true).distance(&wish(6, &set)), 3);
    }
}
