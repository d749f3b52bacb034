//! The self-test against the stand-in, over real sockets, without a proxy in front.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Clock};

use tds::feature::FeatureId;
use tds::login7::{Login7, Password};
use tdsbouncer_config::{Bucket, PoolMode};
use tdsbouncer_sim::{Fault, Features, Leftover, ServerKind, SimHandle, SimOptions, SimServer};

use super::answer::Answer;
use super::*;
use crate::auth::{ProofKey, VerifiedLogins};
use crate::bucket::tenant::TenantRef;
use crate::bucket::witness::StateIds;
use crate::bucket::{BucketParts, TlsConnector};
use crate::coordinator::{CoordinatorHandle, Permission};
use crate::metrics::Metrics;
use traits::ResetClears;

/// The stand-in's states of CONTEXT_INFO and session context.
const CONTEXT: [u8; 2] = [4, 5];

fn server(options: SimOptions) -> SimHandle {
    SimServer::start(options).expect("the stand-in starts")
}

fn bucket(server: &SimHandle, change: impl FnOnce(&mut Bucket)) -> BucketHandle {
    let mut settings = Bucket::new("b1", "127.0.0.1", server.addr().port(), 1);
    change(&mut settings);
    let tls = TlsConnector::of(&settings).expect("no files to read");
    let bucket = BucketHandle::new(BucketParts {
        settings: Arc::new(settings),
        verified: VerifiedLogins::new(10, None),
        metrics: Metrics::new("test").bucket("b1"),
        tls,
        coordinator: CoordinatorHandle::default(),
    });
    bucket.shared().slots.permit(Permission::constant(1));
    bucket
}

fn template(bucket: &BucketHandle, offer: bool) -> Arc<LoginTemplate> {
    let login = Login7 {
        user_name: "sa".to_owned(),
        password: Password::new("Sim-passw0rd"),
        database: "master".to_owned(),
        ..Login7::default()
    };
    let key = ProofKey::random();
    let proof = |login: &Login7| key.proof(&login.user_name, login.password.as_utf16le());
    LoginTemplate::shared(login, &TenantRef::new("master", 1), &bucket.settings(), proof, offer)
}

async fn opened(bucket: &BucketHandle, template: &Arc<LoginTemplate>) -> Dialled {
    let slots = &bucket.shared().slots;
    // A connection of before may still be closing.
    let over = Clock::now() + Duration::from_secs(30);
    let permit = loop {
        match slots.take(Arc::new(bucket.clone())) {
            Some(permit) => break permit,
            None => assert!(Clock::now() < over, "the only slot comes back"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    open(bucket, template, permit).await.expect("it can be opened")
}

/// Measures a server on which these faults are armed, and says what was found.
async fn measured(options: SimOptions, faults: &[Fault]) -> (SimHandle, Arc<ServerTraits>) {
    let server = server(options);
    for fault in faults {
        server.faults().arm(fault.clone());
    }
    let bucket = bucket(&server, |_| {});
    let template = template(&bucket, true);
    drop(opened(&bucket, &template).await);
    let traits = bucket.shared().traits.load_full().expect("it was measured");
    (server, traits)
}

fn notes(traits: &ServerTraits) -> Vec<&'static str> {
    traits.notes.iter().map(|note| note.check).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sql_server_is_all_that_is_assumed_of_one_and_needs_one_connection() {
    let (server, traits) = measured(SimOptions::default(), &[]).await;
    let expected = ServerTraits {
        origin: traits.origin,
        program_version: [16, 0, 0x10, 0x77],
        session_recovery: SessionRecovery::Tells,
        context_states: CONTEXT.into_iter().collect(),
        ..ServerTraits::sql_server()
    };
    assert_eq!(*traits, expected);
    assert_eq!(effective(PoolMode::Transaction, Some(&traits)), (PoolMode::Transaction, None));
    assert_eq!((server.stats().logins, server.stats().peak), (1, 1));
    assert_eq!(server.stats().protocol_errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn babelfish_is_found_out_and_falls_back_to_session_pooling() {
    let options = SimOptions { kind: ServerKind::Babelfish, ..SimOptions::default() };
    let (server, traits) = measured(options, &[]).await;
    let found = ServerTraits { origin: traits.origin, notes: Vec::new(), ..(*traits).clone() };
    let expected = ServerTraits {
        origin: traits.origin,
        program_version: [12, 0, 0x07, 0xD0],
        text_transactions: false,
        tm_transactions: true,
        implicit_transactions: false,
        nested_text_right: false,
        nested_tm_right: false,
        reset_acknowledged: true,
        reset_clears: ResetClears {
            session_context: false,
            context_info: false,
            identity_insert: false,
            ..ResetClears::EVERYTHING
        },
        pipelines: true,
        pipelines_behind_reset: false,
        session_recovery: SessionRecovery::Declined,
        ..ServerTraits::sql_server()
    };
    assert_eq!(found, expected, "{:?}", traits.notes);
    let mode = effective(PoolMode::Transaction, Some(&traits));
    assert_eq!(mode, (PoolMode::Session, Some(Unfit::TextTransactions)));
    assert!(traits.pipelining_allowed(false) && !traits.pipelining_allowed(true));
    assert!(!traits.reset_is_complete());
    assert!(!traits.doubtful, "a request that is lost behind a reset is an answer");
    assert_eq!(server.stats().peak, 1, "one slot, whatever breaks");
    assert!(server.stats().logins <= u64::from(MOST_CONNECTIONS) + 1);
}

/// Each way to differ changes its own trait and nothing that it does not touch.
#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_differ_is_found_by_its_own_check() {
    type Change = fn(&mut ServerTraits);
    type Row = (Fault, Change, &'static [&'static str]);
    fn leaves(what: Leftover, change: Change, noted: &'static [&'static str]) -> Row {
        (Fault::ResetLeaves(what), change, noted)
    }
    let rows: [Row; 16] = [
        (
            Fault::NoTransactionEnvChange,
            |t| {
                t.text_transactions = false;
                t.tm_transactions = false;
                t.implicit_transactions = false;
                t.nested_text_right = false;
                t.nested_tm_right = false;
            },
            &[
                "text_transactions",
                "nested transactions by text",
                "tm_transactions",
                "nested transaction manager requests",
                "implicit_transactions",
            ],
        ),
        (
            Fault::InnerEndsSignalled,
            |t| {
                t.nested_text_right = false;
                t.nested_tm_right = false;
            },
            &["nested_signals (text)", "nested_signals (tm)"],
        ),
        (Fault::NoImplicitEnvChange, |t| t.implicit_transactions = false, &["implicit_transactions"]),
        (
            Fault::ResetNotAcknowledged,
            |t| {
                t.reset_acknowledged = false;
                t.reset_clears = ResetClears::default();
                t.pipelines_behind_reset = false;
            },
            &["reset_acknowledged", "pipelining behind a reset"],
        ),
        (
            Fault::ResetLeavesEverything,
            |t| {
                t.reset_clears = ResetClears::default();
                t.handles_dropped_by_reset = false;
            },
            &[
                "session_context",
                "context_info",
                "set_options",
                "database",
                "cursors",
                "temp_tables",
                "identity_insert",
                "handles_dropped_by_reset",
            ],
        ),
        leaves(Leftover::SessionContext, |t| t.reset_clears.session_context = false, &["session_context"]),
        leaves(Leftover::ContextInfo, |t| t.reset_clears.context_info = false, &["context_info"]),
        leaves(Leftover::Settings, |t| t.reset_clears.set_options = false, &["set_options"]),
        leaves(Leftover::Database, |t| t.reset_clears.database = false, &["database"]),
        leaves(Leftover::Cursors, |t| t.reset_clears.cursors = false, &["cursors"]),
        leaves(Leftover::TemporaryTables, |t| t.reset_clears.temp_tables = false, &["temp_tables"]),
        leaves(Leftover::IdentityInsert, |_| {}, &[]),
        leaves(Leftover::Prepared, |t| t.handles_dropped_by_reset = false, &["handles_dropped_by_reset"]),
        (
            Fault::NoSessionState,
            |t| {
                t.session_recovery = SessionRecovery::Silent;
                t.context_states = StateIds::NONE;
            },
            &["session_recovery"],
        ),
        (
            Fault::EverythingRecoverable,
            |t| {
                t.session_recovery = SessionRecovery::Silent;
                t.context_states = StateIds::NONE;
            },
            &["session_recovery"],
        ),
        (Fault::ResetLosesInput, |t| t.pipelines_behind_reset = false, &["pipelining behind a reset"]),
    ];
    for (fault, change, noted) in rows {
        let (server, traits) = measured(SimOptions::default(), std::slice::from_ref(&fault)).await;
        let mut expected = ServerTraits {
            origin: traits.origin,
            program_version: traits.program_version,
            session_recovery: SessionRecovery::Tells,
            context_states: CONTEXT.into_iter().collect(),
            notes: traits.notes.clone(),
            ..ServerTraits::sql_server()
        };
        change(&mut expected);
        let mut noted = noted.to_vec();
        // A reset that leaves anything to the next client is not trusted with what a temp table cannot show.
        if matches!(&fault, Fault::ResetLeaves(what) if *what != Leftover::Prepared) {
            expected.reset_clears.identity_insert = false;
            noted.push("identity_insert");
        }
        assert_eq!(*traits, expected, "{fault:?}");
        assert_eq!(notes(&traits), noted, "{fault:?}: {:?}", traits.notes);
        assert_eq!(server.stats().peak, 1, "{fault:?}");
        let logins = server.stats().logins;
        assert!(logins <= u64::from(MOST_CONNECTIONS) + 1, "{fault:?}: {logins}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_declines_session_recovery_is_measured_without_it() {
    let features = Features { session_recovery: false, ..Features::default() };
    let (_server, traits) = measured(SimOptions { features, ..SimOptions::default() }, &[]).await;
    assert_eq!(traits.session_recovery, SessionRecovery::Declined);
    assert_eq!(effective(PoolMode::Transaction, Some(&traits)), (PoolMode::Transaction, None));
}

/// One thing that a server does not tell is enough for not relying on its word.
#[test]
fn what_is_not_told_is_found_thing_by_thing() {
    let check = checks::ALL.iter().find(|check| check.name == "session state").expect("there is one");
    let judged = |change: fn(&mut [Answer])| {
        let mut answers = vec![Answer { recoverable: Some(false), ..Answer::default() }; check.asks.len()];
        for (at, id) in [(5, 1), (6, CONTEXT[0]), (7, CONTEXT[1])] {
            answers[at].changed = std::iter::once(id).collect();
        }
        change(&mut answers);
        let mut traits =
            ServerTraits { session_recovery: SessionRecovery::Partly, ..ServerTraits::sql_server() };
        (check.judge)(&answers, &mut traits);
        (traits.session_recovery, traits.notes.first().map(|note| note.why.clone()).unwrap_or_default())
    };
    assert_eq!(judged(|_| ()), (SessionRecovery::Tells, String::new()));
    let before_2016 = judged(|answers| (answers[7].error, answers[7].changed) = (Some(2812), StateIds::NONE));
    assert_eq!(before_2016, (SessionRecovery::Tells, String::new()));
    type Change = fn(&mut [Answer]);
    let rows: [(Change, &str); 6] = [
        (|answers| answers[1].recoverable = None, "a cursor"),
        (|answers| answers[3].recoverable = Some(true), "an application lock"),
        (|answers| answers[8].recoverable = None, "an XML document"),
        (|answers| answers[6].changed = StateIds::NONE, "the context"),
        (|answers| answers[7].changed = StateIds::NONE, "the context"),
        (|answers| answers[6].changed = answers[5].changed, "the context"),
    ];
    for (change, what) in rows {
        let why = format!("not told by SESSIONSTATE: {what}");
        assert_eq!(judged(change), (SessionRecovery::Partly, why));
    }
    let restless = judged(|answers| answers[0].changed = answers[5].changed);
    assert_eq!(restless, (SessionRecovery::Silent, "a SELECT changes a state".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_offer_of_session_recovery_is_kept_from_clients_and_does_not_split_the_pool() {
    let server = server(SimOptions::default());
    let bucket = bucket(&server, |_| {});
    let (with, without) = (template(&bucket, true), template(&bucket, false));
    assert!(with.offers_session_recovery && !without.offers_session_recovery);
    let offering = opened(&bucket, &with).await;
    assert!(offering.conn.witness.is_some());
    let told = offering.response.clone();
    drop(offering);
    let plain = opened(&bucket, &without).await;
    assert!(plain.conn.witness.is_none());
    assert_eq!(told.raw, plain.response.raw, "the client that did not ask sees nothing of it");
    assert!(told.feature(FeatureId::SESSION_RECOVERY).is_none());
    let same = LoginTemplate::shared(
        without.login.clone(),
        &TenantRef::new("master", 1),
        &bucket.settings(),
        |_| without.key.proof,
        true,
    );
    assert!(same.key == without.key, "who offers it is still interchangeable with who does not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_or_closes_in_any_check_leaves_a_good_connection_and_a_safe_answer() {
    // Whose answers transaction pooling depends on, request by request.
    let needed: Vec<bool> = checks::ALL
        .iter()
        .flat_map(|check| check.asks.iter().map(|_| !check.at_once && check.name != "session state"))
        .collect();
    for (after, needed) in needed.into_iter().enumerate().step_by(3) {
        let after = after as u64;
        let (server, traits) =
            measured(SimOptions::default(), &[Fault::DropAfterRequests { requests: after }]).await;
        assert!(traits.doubtful, "closed after {after}: {:?}", traits.notes);
        assert_eq!(server.stats().peak, 1, "closed after {after}");
        assert!(server.stats().logins <= u64::from(MOST_CONNECTIONS) + 2, "closed after {after}");
        if needed {
            assert_eq!(effective(PoolMode::Transaction, Some(&traits)).0, PoolMode::Session, "{after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_nothing_is_given_up_after_a_bounded_time() {
    let begun = Clock::now();
    let (server, traits) = measured(SimOptions::default(), &[Fault::HangAfterRequests { requests: 0 }]).await;
    assert!(traits.doubtful);
    assert_eq!(effective(PoolMode::Transaction, Some(&traits)).0, PoolMode::Session);
    assert!(!traits.reset_acknowledged && !traits.pipelines);
    assert_eq!(server.stats().peak, 1);
    assert!(begun.elapsed() < ALL_CHECKS + Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_connection_is_not_tested_again_unless_there_is_doubt() {
    let server = server(SimOptions::default());
    let bucket = bucket(&server, |_| {});
    let template = template(&bucket, false);
    drop(opened(&bucket, &template).await);
    let requests = server.stats().requests;
    assert!(requests > 30);
    drop(opened(&bucket, &template).await);
    assert_eq!(server.stats().requests, requests);
    // Long ago, something got no answer.
    let mut doubtful = (*bucket.shared().traits.load_full().unwrap()).clone();
    doubtful.doubtful = true;
    doubtful.origin = Origin::Measured(Instant::now().checked_sub(DOUBT).unwrap());
    bucket.shared().self_tests.keep(Arc::new(doubtful));
    drop(opened(&bucket, &template).await);
    assert!(server.stats().requests > requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_version_is_measured_and_the_first_one_remembered() {
    let server = server(SimOptions::default());
    let bucket = bucket(&server, |_| {});
    let template = template(&bucket, false);
    let shared = bucket.shared();
    let mut other = ServerTraits::safe(tds::TdsVersion::V7_4, [15, 0, 0, 1]);
    other.note("self_test", "of the server that was there before");
    shared.self_tests.keep(Arc::new(other.clone()));
    shared.traits.store(Some(Arc::new(other)));
    drop(opened(&bucket, &template).await);
    let now = shared.traits.load_full().unwrap();
    assert_eq!(now.program(), "16.0.4215");
    assert_eq!(now.notes, []);
    assert!(shared.self_tests.of([15, 0, 0, 1], Instant::now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_self_test_a_server_is_taken_for_a_sql_server() {
    let server = server(SimOptions { kind: ServerKind::Babelfish, ..SimOptions::default() });
    let bucket = bucket(&server, |settings| settings.self_test = false);
    assert_eq!(pooling(&bucket), (PoolMode::Transaction, None));
    drop(opened(&bucket, &template(&bucket, false)).await);
    assert_eq!(server.stats().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_before_tds_7_2_does_not_measure() {
    let server = server(SimOptions::default());
    let bucket = bucket(&server, |_| {});
    let login = Login7 {
        tds_version: tds::TdsVersion::V7_1,
        user_name: "sa".to_owned(),
        password: Password::new("Sim-passw0rd"),
        ..Login7::default()
    };
    let proof = template(&bucket, false).key.proof;
    let old =
        LoginTemplate::shared(login, &TenantRef::new("master", 1), &bucket.settings(), |_| proof, false);
    drop(opened(&bucket, &old).await);
    assert_eq!(server.stats().requests, 0);
    assert_eq!(pooling(&bucket), (PoolMode::Session, Some(Unfit::NotMeasured)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_that_speaks_7_1_only_is_fit_for_sessions_only() {
    let options = SimOptions { kind: ServerKind::SqlServer2000, ..SimOptions::default() };
    let (server, traits) = measured(options, &[]).await;
    assert_eq!(effective(PoolMode::Transaction, Some(&traits)).0, PoolMode::Session);
    assert_eq!(server.stats().requests, 0);
    assert_eq!(notes(&traits), ["tds_version"]);
    assert!(!traits.doubtful);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tested_connection_is_handed_over_clean() {
    let server = server(SimOptions::default());
    let bucket = bucket(&server, |_| {});
    let mut dialled = opened(&bucket, &template(&bucket, false)).await;
    let mut probe = Probe::new(&mut dialled.conn);
    let asks = [
        probe::Ask::Batch("IF @@TRANCOUNT = 0 PRINT N'yes'"),
        probe::Ask::Batch("IF SESSION_CONTEXT(N'tdsbouncer') IS NULL PRINT N'yes'"),
        probe::Ask::Batch("IF CONTEXT_INFO() IS NULL PRINT N'yes'"),
        probe::Ask::Batch("IF @@DATEFIRST <> 3 PRINT N'yes'"),
        probe::Ask::Batch("IF OBJECT_ID('tempdb..#tdsbouncer_3') IS NULL PRINT N'yes'"),
    ];
    let answers = probe.in_turn(&asks).await.unwrap();
    assert!(answers.iter().all(|answer| answer.said_so), "{answers:?}");
    assert_eq!(bucket.shared().clients.load(Ordering::Relaxed), 0);
}
