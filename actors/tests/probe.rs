//! The probe finds each way in which a server may differ from what pooling assumes, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use Verdict::{Differs, Unknown, Unsafe};
use tdsbouncer_actors::probe::{Report, Target, Trouble, Verdict, probe};
use tdsbouncer_config::{Secret, ServerTls, ServerTlsMode};
use tdsbouncer_sim::{Encryption, Fault, Features, Leftover, ServerKind, SimHandle, SimOptions, SimServer};

/// For checks that end by an answer: longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// For those that end by silence: the time that they wait for nothing.
const SHORT: Duration = Duration::from_secs(8);

type Expected = &'static [(&'static str, Verdict)];

fn target(server: &SimHandle, patience: Duration) -> Target {
    Target {
        host: "127.0.0.1".to_owned(),
        port: server.addr().port(),
        user: "sa".to_owned(),
        password: Secret::new("Sim-passw0rd".to_owned()),
        database: String::new(),
        tls: ServerTls { trust_server_certificate: true, ..ServerTls::off() },
        patience,
    }
}

async fn report_of(options: SimOptions, fault: Option<Fault>, patience: Duration) -> Report {
    let server = SimServer::start(options).unwrap();
    if let Some(fault) = fault {
        server.faults().arm(fault);
    }
    probe(&target(&server, patience)).await.unwrap()
}

/// The rows that are not good, by name, with their verdict.
fn remarkable(report: &Report) -> Vec<(String, Verdict)> {
    let bad = report.rows.iter().filter(|row| row.verdict != Verdict::Good);
    bad.map(|row| (format!("{}: {}", row.area, row.check), row.verdict)).collect()
}

#[track_caller]
fn assert_finds(report: &Report, expected: Expected, what: &str) {
    let expected: Vec<_> = expected.iter().map(|(row, verdict)| ((*row).to_owned(), *verdict)).collect();
    assert_eq!(remarkable(report), expected, "{what}: {report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_as_sql_server_does_is_good_in_every_row() {
    let report = report_of(SimOptions::default(), None, PATIENCE).await;
    assert_finds(&report, &[], "SQL Server 2022");
    assert!(report.rows.len() > 35, "{}", report.rows.len());
    assert!(report.server.contains("16.0."), "{}", report.server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reset_that_leaves_something_is_found() {
    use Leftover as L;
    let one: [(L, Expected); 13] = [
        // The language is a setting too.
        (L::Settings, &[("reset: SET options", Unsafe), ("reset: language", Unsafe)]),
        (L::Language, &[("reset: language", Unsafe)]),
        (L::Database, &[("reset: database", Unsafe)]),
        (L::TemporaryTables, &[("reset: temporary tables", Unsafe)]),
        (L::Cursors, &[("reset: cursors", Unsafe)]),
        (L::ApplicationLocks, &[("reset: application locks", Unsafe)]),
        (L::ContextInfo, &[("reset: CONTEXT_INFO", Unsafe)]),
        (L::SessionContext, &[("reset: session context", Unsafe)]),
        (L::LastIdentity, &[("reset: @@IDENTITY", Unsafe)]),
        (L::IdentityInsert, &[("reset: IDENTITY_INSERT", Unsafe)]),
        (L::Impersonation, &[("reset: EXECUTE AS", Unsafe)]),
        (L::Transaction, &[("reset: transaction", Unsafe)]),
        (L::Prepared, &[("prepared: after a reset", Unsafe)]),
    ];
    for (left, expected) in one {
        let report = report_of(SimOptions::default(), Some(Fault::ResetLeaves(left)), PATIENCE).await;
        assert_finds(&report, expected, &format!("{left:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_other_fault_of_a_reset_is_found() {
    let table: [(Fault, Expected); 4] = [
        (
            Fault::ResetNotAcknowledged,
            &[("reset: acknowledged", Unsafe), ("reset: acknowledged first", Unknown)],
        ),
        (Fault::ResetAcknowledgedLate, &[("reset: acknowledged first", Differs)]),
        (Fault::ResetClearsIsolation, &[("reset: isolation level", Differs)]),
        (Fault::SkipTransactionRefused, &[("reset: transaction kept", Differs)]),
    ];
    for (fault, expected) in table {
        let report = report_of(SimOptions::default(), Some(fault.clone()), PATIENCE).await;
        assert_finds(&report, expected, &format!("{fault:?}"));
    }
    let report = report_of(SimOptions::default(), Some(Fault::ResetFails), PATIENCE).await;
    let found = remarkable(&report);
    assert!(found.contains(&("reset: acknowledged".to_owned(), Unsafe)), "{found:?}");
    assert!(found.contains(&("reset: temporary tables".to_owned(), Unsafe)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_transaction_that_is_not_told_or_told_wrongly_is_found() {
    let table: [(Fault, Expected); 4] = [
        (
            Fault::NoTransactionEnvChange,
            &[
                ("reset: transaction", Differs),
                ("reset: transaction kept", Differs),
                ("transaction: by text", Unsafe),
                ("transaction: by request", Unsafe),
                ("transaction: implicit", Unsafe),
                ("transaction: inner commit", Unknown),
                ("transaction: savepoint", Unknown),
                ("transaction: ended by an error", Unsafe),
            ],
        ),
        (Fault::NoImplicitEnvChange, &[("transaction: implicit", Unsafe)]),
        (Fault::NoErrorRollbackEnvChange, &[("transaction: ended by an error", Unsafe)]),
        (
            Fault::InnerEndsSignalled,
            &[("transaction: inner commit", Unsafe), ("transaction: savepoint", Unsafe)],
        ),
    ];
    for (fault, expected) in table {
        let report = report_of(SimOptions::default(), Some(fault.clone()), PATIENCE).await;
        assert_finds(&report, expected, &format!("{fault:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_recovery_that_is_not_there_or_says_too_little_is_found() {
    let untold: Expected = &[
        ("recovery: temporary table reported", Differs),
        ("recovery: cursor reported", Differs),
        ("recovery: transaction reported", Differs),
        ("recovery: application lock reported", Differs),
        ("recovery: XML document reported", Differs),
    ];
    let report = report_of(SimOptions::default(), Some(Fault::EverythingRecoverable), PATIENCE).await;
    assert_finds(&report, untold, "everything recoverable");
    let report = report_of(SimOptions::default(), Some(Fault::NoSessionState), PATIENCE).await;
    let context =
        [("recovery: CONTEXT_INFO reported", Differs), ("recovery: session context reported", Differs)];
    let silent = [&[("recovery: SET options reported", Differs)], untold, &context].concat();
    let silent: Vec<_> = silent.into_iter().map(|(row, verdict)| (row.to_owned(), verdict)).collect();
    assert_eq!(remarkable(&report), silent);
    let features = Features { session_recovery: false, ..Features::default() };
    let report = report_of(SimOptions { features, ..SimOptions::default() }, None, PATIENCE).await;
    assert_finds(
        &report,
        &[
            ("recovery: acknowledged", Differs),
            ("recovery: SET options reported", Unknown),
            ("recovery: temporary table reported", Unknown),
            ("recovery: cursor reported", Unknown),
            ("recovery: transaction reported", Unknown),
            ("recovery: application lock reported", Unknown),
            ("recovery: XML document reported", Unknown),
            ("recovery: CONTEXT_INFO reported", Unknown),
            ("recovery: session context reported", Unknown),
        ],
        "no session recovery",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_break_their_own_metadata_are_found() {
    let report = report_of(SimOptions::default(), Some(Fault::CursorRowsTooLong), PATIENCE).await;
    let expected: Expected = &[("prepared: cursor rows", Unsafe), ("connection: responses followed", Unsafe)];
    assert_finds(&report, expected, "cursor rows too long");
    let report = report_of(SimOptions::default(), Some(Fault::StrayBytes), PATIENCE).await;
    assert!(remarkable(&report).iter().any(|(_, verdict)| *verdict == Unsafe), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_to_a_cancel_that_is_not_as_usual_is_found() {
    let table: [(Fault, Expected); 4] = [
        (Fault::AttentionLate, &[("attention: running request", Differs)]),
        (Fault::AttentionInResponse, &[("attention: running request", Differs)]),
        (Fault::WithdrawnIsRun, &[("attention: withdrawn request", Differs)]),
        (
            Fault::AttentionTwice,
            &[
                ("attention: running request", Unsafe),
                ("attention: after the response", Unsafe),
                ("attention: race", Unsafe),
            ],
        ),
    ];
    for (fault, expected) in table {
        let report = report_of(SimOptions::default(), Some(fault.clone()), PATIENCE).await;
        assert_finds(&report, expected, &format!("{fault:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_acknowledges_a_cancel_is_found() {
    let report = report_of(SimOptions::default(), Some(Fault::AttentionIgnored), SHORT).await;
    let expected: Expected = &[
        ("attention: running request", Unsafe),
        ("attention: after the response", Unsafe),
        ("attention: race", Unsafe),
    ];
    assert_finds(&report, expected, "attention ignored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_a_late_cancel_is_found() {
    let report = report_of(SimOptions::default(), Some(Fault::LateAttentionIgnored), SHORT).await;
    let expected: Expected = &[("attention: after the response", Unsafe), ("attention: race", Unsafe)];
    assert_finds(&report, expected, "late attention ignored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_what_is_sent_behind_a_request_is_found() {
    let report = report_of(SimOptions::default(), Some(Fault::ResetLosesInput), SHORT).await;
    assert_finds(&report, &[("pipelining: behind a reset", Differs)], "a reset loses input");
    let report = report_of(SimOptions::default(), Some(Fault::RequestLosesInput), SHORT).await;
    let found = remarkable(&report);
    assert!(found.contains(&("pipelining: requests".to_owned(), Differs)), "{found:?}");
    assert!(found.contains(&("attention: race".to_owned(), Unsafe)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_down_is_never_called_good() {
    // Nobody has to wait for what never comes.
    let hasty = Duration::from_millis(100);
    for fault in [
        Fault::RefuseConnections,
        Fault::HangAtAccept,
        Fault::HangAtLogin,
        Fault::DropAtLogin,
        Fault::ErrorAtLogin { number: 4060, class: 11 },
        Fault::HangOnRequest,
        Fault::HangAfterRequests { requests: 1 },
        Fault::DropOnRequest,
        Fault::DropAfterRequests { requests: 1 },
        Fault::DropAfterExecution,
        Fault::DropInResponse { after: 7 },
        Fault::HangInResponse { after: 7 },
        Fault::GarbageInResponse { after: 0 },
        Fault::ErrorOnRequest { number: 701, class: 17 },
    ] {
        let server = SimServer::start(SimOptions::default()).unwrap();
        server.faults().arm(fault.clone());
        if let Ok(report) = probe(&target(&server, hasty)).await {
            let found = remarkable(&report);
            assert!(found.iter().any(|(_, verdict)| *verdict != Differs), "{fault:?}: {found:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_babelfish_is_told_from_a_sql_server() {
    let options = SimOptions { kind: ServerKind::Babelfish, ..SimOptions::default() };
    let found = remarkable(&report_of(options, None, SHORT).await);
    for (row, verdict) in [
        ("reset: acknowledged first", Differs),
        ("reset: transaction kept", Differs),
        ("transaction: by text", Unsafe),
        ("transaction: implicit", Unsafe),
        ("recovery: acknowledged", Differs),
        ("pipelining: behind a reset", Differs),
        ("attention: running request", Differs),
        ("attention: withdrawn request", Differs),
    ] {
        assert!(found.contains(&(row.to_owned(), verdict)), "{row}: {found:?}");
    }
    assert!(!found.iter().any(|(row, _)| row == "transaction: by request"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_and_one_without_encryption_say_so() {
    let options = SimOptions { kind: ServerKind::SqlServer2008R2, ..SimOptions::default() };
    let found = remarkable(&report_of(options, None, PATIENCE).await);
    assert!(found.contains(&("connection: TDS versions".to_owned(), Differs)), "{found:?}");
    assert!(found.contains(&("connection: strict encryption".to_owned(), Differs)), "{found:?}");
    let options = SimOptions { encryption: Encryption::NotSupported, ..SimOptions::default() };
    let found = remarkable(&report_of(options, None, PATIENCE).await);
    assert!(found.contains(&("connection: encryption".to_owned(), Differs)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_and_strict_servers_are_probed_too() {
    for (encryption, mode, expected) in
        [(Encryption::On, ServerTlsMode::On, &[][..]), (Encryption::Strict, ServerTlsMode::Strict, &[][..])]
    {
        let server = SimServer::start(SimOptions { encryption, ..SimOptions::default() }).unwrap();
        let mut target = target(&server, PATIENCE);
        target.tls.mode = mode;
        assert_finds(&probe(&target).await.unwrap(), expected, &format!("{mode:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_tried_once() {
    let server = SimServer::start(SimOptions::default()).unwrap();
    let password = Secret::new("wrong".to_owned());
    let failed = probe(&Target { password, ..target(&server, PATIENCE) }).await.unwrap_err();
    assert!(matches!(&failed, Trouble::Refused(messages) if messages[0].number == 18456), "{failed}");
    assert!(!failed.to_string().contains("wrong"), "{failed}");
    assert_eq!(server.stats().failed_logins, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_on_the_server() {
    let server = SimServer::start(SimOptions::default()).unwrap();
    probe(&target(&server, PATIENCE)).await.unwrap();
    let over = tokio::time::Instant::now() + PATIENCE;
    while server.stats().open > 0 {
        assert!(tokio::time::Instant::now() < over, "connections stay open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
