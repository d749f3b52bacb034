//! Whether the server tells, by ENVCHANGE, when transactions begin and end: the proxy lends a connection on by it.

use tds::request::{BeginTransaction, TransactionRequest};

use super::answer::Answer;
use super::client::{Client, Trouble};
use super::report::Said;

const BEGIN: u8 = 8;
const COMMIT: u8 = 9;
const ROLLBACK: u8 = 10;

const UNSEEN: &str = "A transaction would not be seen and its connection lent on in the middle: use pool_mode = \"session\" for this server.";
const EARLY: &str =
    "A transaction would be taken for ended while it is open: use pool_mode = \"session\" for this server.";

/// The first step whose signals are not those expected.
fn compare(steps: &[(&str, Answer, &[u8])], advice: &'static str, good: &str) -> Result<Said, Trouble> {
    for (step, answer, expected) in steps {
        let signals = answer.transaction_signals();
        if signals != *expected {
            return Ok(Said::unsafe_(
                format!("{step}: {} instead of {}", show(&signals), show(expected)),
                advice,
            ));
        }
        if let Some(error) = answer.error() {
            return Err(Trouble::Error { number: error.number, text: error.text.clone() });
        }
    }
    Ok(Said::good(good))
}

fn show(signals: &[u8]) -> String {
    let numbers: Vec<String> = signals.iter().map(u8::to_string).collect();
    if numbers.is_empty() { "no ENVCHANGE".to_owned() } else { format!("ENVCHANGE {}", numbers.join(", ")) }
}

/// BEGIN, COMMIT and ROLLBACK as text.
pub(super) async fn text(client: &mut Client) -> Result<Said, Trouble> {
    let steps = [
        ("BEGIN TRANSACTION", client.batch("BEGIN TRANSACTION").await?, &[BEGIN][..]),
        ("COMMIT", client.batch("COMMIT").await?, &[COMMIT][..]),
        ("BEGIN TRANSACTION", client.batch("BEGIN TRANSACTION").await?, &[BEGIN][..]),
        ("ROLLBACK", client.batch("ROLLBACK").await?, &[ROLLBACK][..]),
    ];
    compare(&steps, UNSEEN, "ENVCHANGE 8, 9 and 10")
}

fn commit() -> TransactionRequest {
    TransactionRequest::Commit { name: String::new(), begin: None }
}

/// The same as transaction manager requests.
pub(super) async fn manager(client: &mut Client) -> Result<Said, Trouble> {
    let begin = TransactionRequest::Begin(BeginTransaction::default());
    let rollback = TransactionRequest::Rollback { name: String::new(), begin: None };
    let steps = [
        ("TM_BEGIN_XACT", client.transaction(&begin).await?, &[BEGIN][..]),
        ("TM_COMMIT_XACT", client.transaction(&commit()).await?, &[COMMIT][..]),
        ("TM_BEGIN_XACT", client.transaction(&begin).await?, &[BEGIN][..]),
        ("TM_ROLLBACK_XACT", client.transaction(&rollback).await?, &[ROLLBACK][..]),
    ];
    compare(&steps, UNSEEN, "ENVCHANGE 8, 9 and 10")
}

/// A transaction that a statement begins under SET IMPLICIT_TRANSACTIONS ON.
pub(super) async fn implicit(client: &mut Client) -> Result<Said, Trouble> {
    client.run("CREATE TABLE #tdsbouncer_probe (id int)").await?;
    client.run("SET IMPLICIT_TRANSACTIONS ON").await?;
    let steps = [
        ("INSERT", client.batch("INSERT INTO #tdsbouncer_probe (id) VALUES (1)").await?, &[BEGIN][..]),
        ("COMMIT", client.batch("COMMIT").await?, &[COMMIT][..]),
    ];
    compare(&steps, UNSEEN, "ENVCHANGE 8 and 9")
}

/// An inner COMMIT ends nothing, whichever way it is asked for.
pub(super) async fn inner_commit(client: &mut Client) -> Result<Said, Trouble> {
    client.run("BEGIN TRANSACTION").await?;
    client.run("BEGIN TRANSACTION").await?;
    client.run("BEGIN TRANSACTION").await?;
    let inner = client.batch("COMMIT").await?;
    let inner_tm = client.transaction(&commit()).await?;
    let steps = [("an inner COMMIT", inner, &[][..]), ("an inner TM_COMMIT_XACT", inner_tm, &[][..])];
    let said = compare(&steps, EARLY, "told only when the outermost ends")?;
    if !said.found.starts_with("told") {
        return Ok(said);
    }
    let open = client.cell("SELECT @@TRANCOUNT").await?;
    let last = client.batch("COMMIT").await?;
    Ok(match (open.as_str(), last.transaction_signals() == [COMMIT]) {
        ("1", true) => said,
        ("1", false) => Said::unsafe_("the outermost COMMIT is not told", UNSEEN),
        _ => Said::unsafe_(format!("@@TRANCOUNT is {open} and not 1 after two inner commits"), EARLY),
    })
}

/// A rollback to a savepoint ends nothing.
pub(super) async fn savepoint(client: &mut Client) -> Result<Said, Trouble> {
    client.run("BEGIN TRANSACTION").await?;
    client.run("SAVE TRANSACTION here").await?;
    let text = client.batch("ROLLBACK TRANSACTION here").await?;
    let back = TransactionRequest::Rollback { name: "here".to_owned(), begin: None };
    let manager = client.transaction(&back).await?;
    let steps =
        [("ROLLBACK to a savepoint", text, &[][..]), ("TM_ROLLBACK_XACT to a savepoint", manager, &[][..])];
    let said = compare(&steps, EARLY, "told only when all is rolled back")?;
    // Told as ended or not: the connection is closed next, and the transaction with it.
    Ok(said)
}

/// A transaction that the server rolls back by itself because of an error.
pub(super) async fn by_error(client: &mut Client) -> Result<Said, Trouble> {
    client.run("SET XACT_ABORT ON").await?;
    client.run("BEGIN TRANSACTION").await?;
    let answer = client.batch("SELECT 1 / 0").await?;
    let told = answer.transaction_signals() == [ROLLBACK];
    // In autocommit mode or not: the descriptor follows what was told, so ask in the other way if need be.
    let open = client.batch("SELECT @@TRANCOUNT").await?;
    Ok(match (told, open.cell().as_deref()) {
        (true, Some("0")) => Said::good("told by ENVCHANGE 10"),
        (true, _) => Said::unsafe_("told as rolled back, but open", EARLY),
        (false, Some("0") | None) => Said::unsafe_(
            "rolled back, but not told",
            "The proxy would keep the connection until the client leaves: no harm to data, but it is not shared.",
        ),
        (false, Some(_)) => Said::unknown("the error does not roll back here"),
    })
}
