//! What a reset (RESETCONNECTION) clears, what it leaves, and how it is acknowledged ([MS-TDS] 2.2.3.1.2).

use tds::env_change::EnvKind;
use tds::packet::Status;

use super::client::{Client, Trouble};
use super::report::Said;

const LEAVES: &str = "Clients would see each other's state: keep such clients apart (split_by, own logins) or do not share this server's connections.";

/// Something that a session sets and a reset must take back.
pub(super) struct Leftover {
    pub(super) check: &'static str,
    /// What makes it, each a batch.
    make: &'static [&'static str],
    /// One value: another one once it is made, the former once it is cleared.
    ask: &'static str,
}

/// Everything but the isolation level, which is known to survive.
pub(super) const LEFTOVERS: &[Leftover] = &[
    Leftover {
        check: "SET options",
        make: &[
            "SET DATEFIRST 3; SET LOCK_TIMEOUT 4321; SET TEXTSIZE 12345; SET ANSI_NULLS OFF; SET NOCOUNT ON",
        ],
        ask: "SELECT CAST(@@DATEFIRST AS varchar(12)) + ' ' + CAST(@@LOCK_TIMEOUT AS varchar(12)) + ' ' \
              + CAST(@@TEXTSIZE AS varchar(12)) + ' ' + CAST(@@OPTIONS AS varchar(12))",
    },
    Leftover { check: "language", make: &["SET LANGUAGE Italiano"], ask: "SELECT @@LANGUAGE" },
    Leftover {
        check: "database",
        // Whichever of the two is not the login's.
        make: &["IF DB_NAME() = 'tempdb' USE master ELSE USE tempdb"],
        ask: "SELECT DB_NAME()",
    },
    Leftover {
        check: "temporary tables",
        make: &["CREATE TABLE #tdsbouncer_probe (id int)"],
        ask: "SELECT CASE WHEN OBJECT_ID('tempdb..#tdsbouncer_probe') IS NULL THEN 'none' ELSE 'a table' END",
    },
    Leftover {
        check: "cursors",
        make: &["DECLARE tdsbouncer_probe CURSOR GLOBAL FOR SELECT 1", "OPEN tdsbouncer_probe"],
        ask: "SELECT CAST(CURSOR_STATUS('global', 'tdsbouncer_probe') AS int)",
    },
    Leftover {
        check: "application locks",
        // Shared: two probes of one server do not meet.
        make: &["EXEC sp_getapplock 'tdsbouncer_probe', 'Shared', 'Session', 0"],
        ask: "SELECT APPLOCK_MODE('public', 'tdsbouncer_probe', 'Session')",
    },
    Leftover {
        check: "CONTEXT_INFO",
        make: &["SET CONTEXT_INFO 0x746473"],
        ask: "SELECT CASE WHEN SUBSTRING(CONTEXT_INFO(), 1, 3) = 0x746473 THEN 'set' ELSE 'none' END",
    },
    Leftover {
        check: "session context",
        make: &["EXEC sp_set_session_context N'tdsbouncer_probe', N'set'"],
        ask: "SELECT ISNULL(CAST(SESSION_CONTEXT(N'tdsbouncer_probe') AS nvarchar(10)), N'none')",
    },
    Leftover {
        check: "@@IDENTITY",
        make: &[
            "CREATE TABLE #tdsbouncer_probe (id int IDENTITY, value int)",
            "INSERT INTO #tdsbouncer_probe (value) VALUES (1)",
        ],
        ask: "SELECT ISNULL(CAST(@@IDENTITY AS varchar(20)), 'none')",
    },
];

/// Makes it, resets, and looks.
pub(super) async fn clears(client: &mut Client, leftover: &Leftover) -> Result<Said, Trouble> {
    let before = client.cell(leftover.ask).await?;
    for batch in leftover.make {
        if let Some(error) = client.batch(batch).await?.error() {
            return Ok(Said::unknown(format!("cannot be tried: error {}: {}", error.number, error.text)));
        }
    }
    let made = client.cell(leftover.ask).await?;
    if made == before {
        return Ok(Said::unknown("cannot be tried: the server does not show it"));
    }
    let answer = client.batch_with(leftover.ask, Status::RESET_CONNECTION).await?;
    if let Some(error) = answer.error() {
        return Ok(Said::unsafe_(
            format!("a reset is refused: error {}: {}", error.number, error.text),
            REFUSED,
        ));
    }
    let after = answer.cell().unwrap_or_default();
    Ok(if after == before {
        Said::good("cleared")
    } else {
        Said::unsafe_(format!("left behind: {after} instead of {before}"), LEAVES)
    })
}

const REFUSED: &str =
    "Every connection would be closed instead of lent again: pooling gains nothing with this server.";

/// ENVCHANGE 18, without which the proxy discards the connection.
pub(super) async fn acknowledged(client: &mut Client) -> Result<Said, Trouble> {
    let answer = client.batch_with("SELECT 1", Status::RESET_CONNECTION).await?;
    Ok(match answer.error() {
        Some(error) => Said::unsafe_(format!("refused: error {}: {}", error.number, error.text), REFUSED),
        None if answer.reset_acknowledged() => Said::good("by ENVCHANGE 18"),
        None => Said::unsafe_(
            "no ENVCHANGE 18",
            "The proxy closes connections whose reset is not acknowledged: every client costs a login.",
        ),
    })
}

/// Whether the response to a resetting request begins with the acknowledgement.
pub(super) async fn acknowledged_first(client: &mut Client) -> Result<Said, Trouble> {
    let answer = client.batch_with("SELECT 1", Status::RESET_CONNECTION).await?;
    Ok(if !answer.reset_acknowledged() {
        Said::unknown("the reset is not acknowledged")
    } else if answer.done_before_acknowledgement() {
        Said::differs(
            "a DONE comes before ENVCHANGE 18",
            "The proxy waits for the end of the message; nothing to do.",
        )
    } else {
        Said::good("before everything else")
    })
}

/// The isolation level is known to survive; the proxy sets it back itself.
pub(super) async fn isolation(client: &mut Client) -> Result<Said, Trouble> {
    const ASK: &str =
        "SELECT CAST(transaction_isolation_level AS int) FROM sys.dm_exec_sessions WHERE session_id = @@SPID";
    client.run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await?;
    let made = client.cell(ASK).await?;
    if made != "4" {
        return Ok(Said::unknown("cannot be tried: the server does not show it"));
    }
    let answer = client.batch_with(ASK, Status::RESET_CONNECTION).await?;
    Ok(match answer.cell().as_deref() {
        Some("4") => Said::good("survives a reset, as the specification says; the proxy sets it back"),
        Some(_) => Said::differs("is cleared by a reset", "Harmless: the proxy sets it anyway."),
        None => Said::unknown("the server does not answer"),
    })
}

/// An open transaction is rolled back, and the client told.
pub(super) async fn transaction(client: &mut Client) -> Result<Said, Trouble> {
    client.run("BEGIN TRANSACTION").await?;
    let answer = client.batch_with("SELECT @@TRANCOUNT", Status::RESET_CONNECTION).await?;
    let told = answer.transaction_signals().contains(&EnvKind::ROLLBACK_TRANSACTION.0);
    Ok(match (answer.error(), answer.cell().as_deref()) {
        (Some(error), _) => {
            Said::unsafe_(format!("left open: error {}: {}", error.number, error.text), LEAVES)
        }
        (None, Some("0")) if told => Said::good("rolled back, told by ENVCHANGE 10"),
        (None, Some("0")) => Said::differs(
            "rolled back, but not told by ENVCHANGE 10",
            "The proxy never resets a connection with an open transaction that it knows of; nothing to do.",
        ),
        _ => Said::unsafe_("left open", LEAVES),
    })
}

/// RESETCONNECTIONSKIPTRAN keeps the transaction.
pub(super) async fn skip_transaction(client: &mut Client) -> Result<Said, Trouble> {
    client.run("BEGIN TRANSACTION").await?;
    let answer = client.batch_with("SELECT @@TRANCOUNT", Status::RESET_CONNECTION_SKIP_TRAN).await?;
    Ok(match (answer.error(), answer.cell().as_deref()) {
        (None, Some("1")) => Said::good("RESETCONNECTIONSKIPTRAN keeps it"),
        (Some(error), _) => Said::differs(
            format!("RESETCONNECTIONSKIPTRAN is refused: error {}", error.number),
            "Drivers that reset inside a distributed transaction get this error directly too; the proxy itself never asks for it.",
        ),
        _ => Said::differs(
            "RESETCONNECTIONSKIPTRAN ends the transaction",
            "Drivers that reset inside a distributed transaction lose it directly too; the proxy itself never asks for it.",
        ),
    })
}

/// IDENTITY_INSERT belongs to one table of a session at a time: a second table shows whether the first was let go.
pub(super) async fn identity_insert(client: &mut Client) -> Result<Said, Trouble> {
    let make =
        "CREATE TABLE #tdsbouncer_a (id int IDENTITY, value int); SET IDENTITY_INSERT #tdsbouncer_a ON";
    if let Some(error) = client.batch(make).await?.error() {
        return Ok(Said::unknown(format!("cannot be tried: error {}: {}", error.number, error.text)));
    }
    let ask = "CREATE TABLE #tdsbouncer_b (id int IDENTITY, value int); SET IDENTITY_INSERT #tdsbouncer_b ON";
    let answer = client.batch_with(ask, Status::RESET_CONNECTION).await?;
    Ok(match answer.error() {
        None => Said::good("cleared"),
        Some(error) => Said::unsafe_(format!("left behind: error {}: {}", error.number, error.text), LEAVES),
    })
}

/// EXECUTE AS: taken back, or the connection ends, which is as safe.
pub(super) async fn impersonation(client: &mut Client) -> Result<Said, Trouble> {
    const ASK: &str = "SELECT USER_NAME()";
    let before = client.cell(ASK).await?;
    if let Some(error) = client.batch("EXECUTE AS USER = 'guest'").await?.error() {
        return Ok(Said::unknown(format!("cannot be tried: error {}: {}", error.number, error.text)));
    }
    match client.batch_with(ASK, Status::RESET_CONNECTION).await {
        Ok(answer) => Ok(match (answer.error(), answer.cell()) {
            (Some(error), _) => Said::good(format!(
                "the reset is refused: error {}; nobody gets the connection",
                error.number
            )),
            (None, Some(after)) if after == before => Said::good("taken back"),
            (None, after) => {
                Said::unsafe_(format!("left behind: still {}", after.unwrap_or_default()), LEAVES)
            }
        }),
        Err(Trouble::Closed | Trouble::Io(_)) => {
            Ok(Said::good("the server ends the connection; nobody gets it"))
        }
        Err(trouble) => Err(trouble),
    }
}
