//! The checks of the self-test: what each asks, and what its answers mean. No I/O.
//!
//! Only what every login may do is asked: SET, PRINT, temp tables, transactions of nothing, session context.

use tds::env_change::EnvKind;

use super::answer::Answer;
use super::probe::Ask;
use super::traits::{ResetClears, ServerTraits, SessionRecovery};
use crate::bucket::witness::StateIds;

/// One check.
pub(super) struct Check {
    /// For notes and logs.
    pub(super) name: &'static str,
    pub(super) asks: &'static [Ask],
    /// All in one write instead of one after the other.
    pub(super) at_once: bool,
    /// What is learnt from the answers, one for each of `asks`. What is not as with SQL Server gets a note.
    pub(super) judge: fn(&[Answer], &mut ServerTraits),
    /// Why there is no point in making it, after what was found so far.
    pub(super) pointless: fn(&ServerTraits) -> Option<&'static str>,
    /// No answer is a plain "no" here, and nothing to be measured again.
    pub(super) may_hang: bool,
    /// Whether anybody asks for what it finds, after what was found so far.
    pub(super) wanted: fn(&ServerTraits) -> bool,
}

/// In this order: what may lose the connection comes last.
pub(super) const ALL: &[Check] = &[
    Check { name: "transactions by text", asks: TEXT, judge: judge_text, ..PLAIN },
    Check {
        name: "nested transactions by text",
        asks: NESTED_TEXT,
        judge: judge_nested_text,
        pointless: without_text,
        ..PLAIN
    },
    Check { name: "transaction manager requests", asks: TM, judge: judge_tm, ..PLAIN },
    Check {
        name: "nested transaction manager requests",
        asks: NESTED_TM,
        judge: judge_nested_tm,
        pointless: without_tm,
        ..PLAIN
    },
    Check { name: "implicit transactions", asks: IMPLICIT, judge: judge_implicit, ..PLAIN },
    Check { name: "session state", asks: STATE, judge: judge_state, wanted: tells_tables, ..PLAIN },
    Check { name: "reset", asks: RESET, judge: judge_reset, ..PLAIN },
    Check {
        name: "pipelining",
        asks: PIPELINE,
        judge: judge_pipeline,
        at_once: true,
        may_hang: true,
        ..PLAIN
    },
    Check {
        name: "pipelining behind a reset",
        asks: BEHIND_RESET,
        judge: judge_behind_reset,
        at_once: true,
        may_hang: true,
        pointless: without_reset,
        ..PLAIN
    },
];

const PLAIN: Check = Check {
    name: "",
    asks: &[],
    at_once: false,
    judge: |_, _| {},
    pointless: |_| None,
    may_hang: false,
    wanted: |_| true,
};

fn without_text(traits: &ServerTraits) -> Option<&'static str> {
    (!traits.text_transactions).then_some("transactions by text are not signalled")
}

fn without_tm(traits: &ServerTraits) -> Option<&'static str> {
    (!traits.tm_transactions).then_some("transaction manager requests are not signalled")
}

fn without_reset(traits: &ServerTraits) -> Option<&'static str> {
    (!traits.reset_acknowledged).then_some("a reset is not acknowledged")
}

fn tells_tables(traits: &ServerTraits) -> bool {
    traits.session_recovery == SessionRecovery::Partly
}

/// Ends what a check with an unexpected answer may have left open.
pub(super) const TIDY: &[Ask] =
    &[Ask::Batch("SET IMPLICIT_TRANSACTIONS OFF IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION"), IN_NONE];

const IN_NONE: Ask = Ask::Batch("IF @@TRANCOUNT = 0 PRINT N'yes'");
const IN_ONE: Ask = Ask::Batch("IF @@TRANCOUNT = 1 PRINT N'yes'");
const BEGIN: &[EnvKind] = &[EnvKind::BEGIN_TRANSACTION];
const COMMIT: &[EnvKind] = &[EnvKind::COMMIT_TRANSACTION];
const ROLLBACK: &[EnvKind] = &[EnvKind::ROLLBACK_TRANSACTION];

/// Whether [`TIDY`] worked.
pub(super) fn is_tidy(answers: &[Answer]) -> bool {
    matches!(answers, [ended, none] if ended.is_fine() && none.said_so)
}

const TEXT: &[Ask] = &[
    Ask::Batch("BEGIN TRANSACTION"),
    Ask::Batch("COMMIT TRANSACTION"),
    Ask::Batch("BEGIN TRANSACTION"),
    Ask::Batch("ROLLBACK TRANSACTION"),
];

fn judge_text(answers: &[Answer], traits: &mut ServerTraits) {
    let wanted = [
        ("BEGIN TRANSACTION", 0, BEGIN),
        ("COMMIT TRANSACTION", 1, COMMIT),
        ("the second BEGIN TRANSACTION", 2, BEGIN),
        ("ROLLBACK TRANSACTION", 3, ROLLBACK),
    ];
    let wrong = first_wrong(answers, &wanted);
    traits.text_transactions = wrong.is_none();
    note_if(traits, "text_transactions", wrong);
}

const NESTED_TEXT: &[Ask] = &[
    Ask::Batch("BEGIN TRANSACTION"),
    Ask::Batch(
        "SAVE TRANSACTION tdsbouncer BEGIN TRANSACTION COMMIT TRANSACTION ROLLBACK TRANSACTION tdsbouncer",
    ),
    IN_ONE,
    Ask::Batch("ROLLBACK TRANSACTION"),
];

fn judge_nested_text(answers: &[Answer], traits: &mut ServerTraits) {
    let wrong = first_wrong(answers, &[("an inner COMMIT and ROLLBACK to a savepoint", 1, &[])])
        .or_else(|| (!answers[2].said_so).then(|| "they ended the transaction".to_owned()));
    traits.nested_text_right = wrong.is_none();
    note_if(traits, "nested_signals (text)", wrong);
}

const TM: &[Ask] = &[Ask::Begin, Ask::Commit, Ask::Begin, Ask::Rollback];

fn judge_tm(answers: &[Answer], traits: &mut ServerTraits) {
    let wanted = [
        ("TM_BEGIN_XACT", 0, BEGIN),
        ("TM_COMMIT_XACT", 1, COMMIT),
        ("the second TM_BEGIN_XACT", 2, BEGIN),
        ("TM_ROLLBACK_XACT", 3, ROLLBACK),
    ];
    let wrong = first_wrong(answers, &wanted);
    traits.tm_transactions = wrong.is_none();
    note_if(traits, "tm_transactions", wrong);
}

const NESTED_TM: &[Ask] =
    &[Ask::Begin, Ask::Begin, Ask::Commit, Ask::Save, Ask::RollbackToSave, IN_ONE, Ask::Rollback];

fn judge_nested_tm(answers: &[Answer], traits: &mut ServerTraits) {
    let wanted = [
        ("an inner TM_COMMIT_XACT", 2, &[][..]),
        ("TM_SAVE_XACT", 3, &[]),
        ("TM_ROLLBACK_XACT to a savepoint", 4, &[]),
    ];
    let wrong = first_wrong(answers, &wanted)
        .or_else(|| (!answers[5].said_so).then(|| "they ended the transaction".to_owned()));
    traits.nested_tm_right = wrong.is_none();
    note_if(traits, "nested_signals (tm)", wrong);
}

const IMPLICIT: &[Ask] = &[
    Ask::Batch("CREATE TABLE #tdsbouncer_1 (n int)"),
    Ask::Batch("SET IMPLICIT_TRANSACTIONS ON"),
    Ask::Batch("INSERT INTO #tdsbouncer_1 (n) VALUES (1)"),
    Ask::Batch("COMMIT TRANSACTION"),
    Ask::Batch("SET IMPLICIT_TRANSACTIONS OFF"),
    Ask::Batch("DROP TABLE #tdsbouncer_1"),
];

fn judge_implicit(answers: &[Answer], traits: &mut ServerTraits) {
    let wanted = [
        ("CREATE TABLE", 0, &[][..]),
        ("SET IMPLICIT_TRANSACTIONS ON", 1, &[]),
        ("INSERT", 2, BEGIN),
        ("COMMIT TRANSACTION", 3, COMMIT),
        ("SET IMPLICIT_TRANSACTIONS OFF", 4, &[]),
        ("DROP TABLE", 5, &[]),
    ];
    let wrong = first_wrong(answers, &wanted);
    traits.implicit_transactions = wrong.is_none();
    note_if(traits, "implicit_transactions", wrong);
    if traits.session_recovery == SessionRecovery::Silent {
        if answers[0].recoverable == Some(false) {
            traits.session_recovery = SessionRecovery::Partly;
        } else {
            traits.note("session_recovery", "a temp table is not told by SESSIONSTATE");
        }
    }
}

const STATE: &[Ask] = &[
    Ask::Batch("SELECT 1"),
    Ask::Batch("DECLARE tdsbouncer CURSOR GLOBAL STATIC FOR SELECT 1 OPEN tdsbouncer"),
    Ask::Batch("CLOSE tdsbouncer DEALLOCATE tdsbouncer"),
    Ask::Batch("EXEC sp_getapplock N'tdsbouncer', N'Shared', N'Session', 0"),
    Ask::Batch("EXEC sp_releaseapplock N'tdsbouncer', N'Session'"),
    Ask::Batch("SET DATEFIRST 3"),
    Ask::Batch("SET CONTEXT_INFO 0x746473626F756E636572"),
    Ask::Batch("EXEC sp_set_session_context N'tdsbouncer', N'yes'"),
    // Its handle is of no use here: it ends with the next reset.
    Ask::Batch("DECLARE @handle int EXEC sp_xml_preparedocument @handle OUTPUT, N'<a/>'"),
];

/// Whether the server tells what a text or procedure may leave to its session. Not asked, as it takes rights that few
/// have: EXECUTE AS, trace flags, OLE objects.
fn judge_state(answers: &[Answer], traits: &mut ServerTraits) {
    if !answers[0].changed.is_empty() {
        traits.session_recovery = SessionRecovery::Silent;
        return traits.note("session_recovery", "a SELECT changes a state");
    }
    traits.context_states = context_states(&answers[5], &answers[6], &answers[7]);
    let untold = [
        (answers[1].recoverable != Some(false), "a cursor"),
        (answers[3].recoverable != Some(false), "an application lock"),
        (answers[8].recoverable != Some(false), "an XML document"),
        (traits.context_states.is_empty(), "the context"),
    ];
    let untold: Vec<&str> = untold.iter().filter(|(untold, _)| *untold).map(|(_, what)| *what).collect();
    if untold.is_empty() {
        traits.session_recovery = SessionRecovery::Tells;
    } else {
        traits.note("session_recovery", format!("not told by SESSIONSTATE: {}", untold.join(", ")));
    }
}

/// The states that change with the context, if these are not such that change with settings, too.
fn context_states(setting: &Answer, info: &Answer, session: &Answer) -> StateIds {
    let there_is_none = session.error == Some(NO_SUCH_PROCEDURE);
    let both = session.changed.and(info.changed);
    let told = !info.changed.is_empty() && (there_is_none || !session.changed.is_empty());
    if told && both.without(setting.changed) == both { both } else { StateIds::NONE }
}

const SESSION_CONTEXT: usize = 0;
const CONTEXT_INFO: usize = 1;
const DATE_FIRST: usize = 2;
const DATABASE: usize = 3;
const CURSOR: usize = 4;
const TEMP_TABLE: usize = 5;
const IDENTITY_INSERT: usize = 6;
const PREPARE: usize = 7;
const ACKNOWLEDGE: usize = 8;
/// What is asked behind the reset stands as far behind its counterpart.
const LATER: usize = 9;
const IDENTITY_INSERT_AGAIN: usize = IDENTITY_INSERT + LATER;
const EXECUTE: usize = PREPARE + LATER;

const RESET: &[Ask] = &[
    Ask::Batch("EXEC sp_set_session_context N'tdsbouncer', N'yes'"),
    Ask::Batch("SET CONTEXT_INFO 0x746473626F756E636572"),
    // No language begins its week with a Wednesday.
    Ask::Batch("SET DATEFIRST 3"),
    // The one database that every login may use and hardly any has for its own.
    Ask::Batch("USE tempdb"),
    Ask::Batch("DECLARE tdsbouncer_reset CURSOR GLOBAL FOR SELECT 1"),
    Ask::Batch("CREATE TABLE #tdsbouncer_2 (id int IDENTITY(1, 1), n int)"),
    Ask::Batch("SET IDENTITY_INSERT #tdsbouncer_2 ON"),
    Ask::Prepare,
    Ask::ResetBatch("SELECT 1"),
    Ask::Batch("IF SESSION_CONTEXT(N'tdsbouncer') IS NOT NULL PRINT N'yes'"),
    Ask::Batch("IF SUBSTRING(CONTEXT_INFO(), 1, 10) = 0x746473626F756E636572 PRINT N'yes'"),
    Ask::Batch("IF @@DATEFIRST = 3 PRINT N'yes'"),
    Ask::Batch("IF DB_NAME() = N'tempdb' PRINT N'yes'"),
    Ask::Batch("IF CURSOR_STATUS('global', 'tdsbouncer_reset') > -3 PRINT N'yes'"),
    Ask::Batch("SELECT n FROM #tdsbouncer_2"),
    Ask::Batch(
        "CREATE TABLE #tdsbouncer_3 (id int IDENTITY(1, 1), n int) SET IDENTITY_INSERT #tdsbouncer_3 ON",
    ),
    Ask::Execute,
];

/// "Could not find stored procedure": SESSION_CONTEXT came with SQL Server 2016.
const NO_SUCH_PROCEDURE: i32 = 2812;
/// "Invalid object name".
const NO_SUCH_OBJECT: i32 = 208;
/// "Could not find prepared statement with handle".
const NO_SUCH_HANDLE: i32 = 8179;

fn judge_reset(answers: &[Answer], traits: &mut ServerTraits) {
    let reset = &answers[ACKNOWLEDGE];
    traits.reset_acknowledged = reset.reset_done && reset.is_fine();
    if !traits.reset_acknowledged {
        let why = match reset.error {
            Some(number) => format!("error {number}"),
            None => "no ENVCHANGE 18".to_owned(),
        };
        return traits.note("reset_acknowledged", why);
    }
    let mut clears = ResetClears {
        session_context: answers[SESSION_CONTEXT].error == Some(NO_SUCH_PROCEDURE)
            || is_gone(answers, SESSION_CONTEXT, "session_context", traits),
        context_info: is_gone(answers, CONTEXT_INFO, "context_info", traits),
        set_options: is_gone(answers, DATE_FIRST, "set_options", traits),
        // A server without USE leaves no other database.
        database: answers[DATABASE].error.is_some() || is_gone(answers, DATABASE, "database", traits),
        cursors: is_gone(answers, CURSOR, "cursors", traits),
        temp_tables: table_is_gone(answers, traits),
        identity_insert: false,
    };
    clears.identity_insert = identity_insert_is_off(answers, clears, traits);
    traits.reset_clears = clears;
    traits.handles_dropped_by_reset = handle_is_gone(answers, traits);
}

/// What was set, is set no more behind the reset. What could not be set or asked for counts as still there.
fn is_gone(answers: &[Answer], at: usize, what: &'static str, traits: &mut ServerTraits) -> bool {
    let (set, later) = (&answers[at], &answers[at + LATER]);
    let why = match (set.error.or(later.error), later.said_so) {
        (None, false) => return true,
        (None, true) => "a reset leaves it".to_owned(),
        (Some(number), _) => format!("cannot be checked: error {number}"),
    };
    traits.note(what, why);
    false
}

fn table_is_gone(answers: &[Answer], traits: &mut ServerTraits) -> bool {
    let why = match (answers[TEMP_TABLE].error, answers[TEMP_TABLE + LATER].error) {
        (None, Some(NO_SUCH_OBJECT)) => return true,
        (None, None) => "a reset leaves them".to_owned(),
        (Some(number), _) | (None, Some(number)) => format!("cannot be checked: error {number}"),
    };
    traits.note("temp_tables", why);
    false
}

/// With a temp table, which the reset drops, only half of it can be seen: a server whose reset leaves anything else
/// is not trusted with the other half.
fn identity_insert_is_off(answers: &[Answer], clears: ResetClears, traits: &mut ServerTraits) -> bool {
    let error = answers[IDENTITY_INSERT].error.or(answers[IDENTITY_INSERT_AGAIN].error);
    let others = ResetClears { identity_insert: true, ..clears };
    let why = match error {
        Some(number) => format!("error {number} behind a reset"),
        None if others != ResetClears::EVERYTHING => "a reset leaves other things".to_owned(),
        None => return true,
    };
    traits.note("identity_insert", why);
    false
}

fn handle_is_gone(answers: &[Answer], traits: &mut ServerTraits) -> bool {
    let (prepared, executed) = (&answers[PREPARE], &answers[EXECUTE]);
    if !prepared.is_fine() || prepared.handle.is_none() {
        traits.note("handles_dropped_by_reset", "cannot be checked: sp_prepare gives no handle");
        return true;
    }
    match executed.error {
        Some(NO_SUCH_HANDLE) => {}
        None => {
            traits.note("handles_dropped_by_reset", "a reset leaves them");
            return false;
        }
        Some(number) => traits.note("handles_dropped_by_reset", format!("cannot be checked: error {number}")),
    }
    true
}

const PIPELINE: &[Ask] = &[Ask::Batch("SELECT 1"), Ask::Batch("SELECT 2")];

fn judge_pipeline(answers: &[Answer], traits: &mut ServerTraits) {
    let wrong = first_wrong(answers, &[("the first request", 0, &[]), ("the second request", 1, &[])]);
    traits.pipelines = wrong.is_none();
    note_if(traits, "pipelines", wrong);
}

const BEHIND_RESET: &[Ask] = &[Ask::ResetBatch("SELECT 1"), Ask::Batch("SELECT 2")];

fn judge_behind_reset(answers: &[Answer], traits: &mut ServerTraits) {
    let wrong = first_wrong(answers, &[("the reset", 0, &[]), ("the request behind it", 1, &[])])
        .or_else(|| (!answers[0].reset_done).then(|| "the reset was not acknowledged".to_owned()));
    traits.pipelines_behind_reset = wrong.is_none();
    note_if(traits, "pipelines_behind_reset", wrong);
}

/// What is wrong with the first answer that has an error or other ENVCHANGEs than wanted.
fn first_wrong(answers: &[Answer], wanted: &[(&str, usize, &[EnvKind])]) -> Option<String> {
    wanted.iter().find_map(|(what, at, signals)| {
        let answer = &answers[*at];
        match answer.error {
            Some(number) => Some(format!("{what}: error {number}")),
            None if answer.signals != *signals => {
                Some(format!("{what}: {} instead of {}", told(&answer.signals), told(signals)))
            }
            None => None,
        }
    })
}

fn told(signals: &[EnvKind]) -> String {
    match signals {
        [] => "no ENVCHANGE".to_owned(),
        _ => {
            let numbers: Vec<String> = signals.iter().map(|kind| kind.0.to_string()).collect();
            format!("ENVCHANGE {}", numbers.join(", "))
        }
    }
}

fn note_if(traits: &mut ServerTraits, check: &'static str, why: Option<String>) {
    if let Some(why) = why {
        traits.note(check, why);
    }
}
