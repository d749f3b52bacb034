//! What SESSIONSTATE reports for each kind of state: where the server says what cannot be restored, the proxy need not
//! find it in the text ([MS-TDS] 2.2.7.21).

use super::client::{Client, Trouble};
use super::report::Said;

/// Something that a session may have.
pub(super) struct Kind {
    pub(super) check: &'static str,
    make: &'static [&'static str],
    /// Whether a server should still call the session recoverable.
    recoverable: bool,
}

pub(super) const KINDS: &[Kind] = &[
    Kind { check: "SET options reported", make: &["SET DATEFIRST 3"], recoverable: true },
    Kind {
        check: "temporary table reported",
        make: &["CREATE TABLE #tdsbouncer_probe (id int)"],
        recoverable: false,
    },
    Kind {
        check: "cursor reported",
        make: &["DECLARE tdsbouncer_probe CURSOR GLOBAL FOR SELECT 1", "OPEN tdsbouncer_probe"],
        recoverable: false,
    },
    Kind { check: "transaction reported", make: &["BEGIN TRANSACTION"], recoverable: false },
    Kind {
        check: "application lock reported",
        make: &["EXEC sp_getapplock 'tdsbouncer_probe', 'Shared', 'Session', 0"],
        recoverable: false,
    },
    Kind {
        check: "XML document reported",
        make: &["DECLARE @handle int EXEC sp_xml_preparedocument @handle OUTPUT, N'<a/>'"],
        recoverable: false,
    },
    Kind { check: "CONTEXT_INFO reported", make: &["SET CONTEXT_INFO 0x746473"], recoverable: true },
    Kind {
        check: "session context reported",
        make: &["EXEC sp_set_session_context N'tdsbouncer', N'yes'"],
        recoverable: true,
    },
];

/// Makes it and reads what the server says.
pub(super) async fn reports(client: &mut Client, kind: &Kind) -> Result<Said, Trouble> {
    let mut told = None;
    for batch in kind.make {
        let answer = client.batch(batch).await?;
        if let Some(error) = answer.error() {
            return Ok(Said::unknown(format!("cannot be tried: error {}: {}", error.number, error.text)));
        }
        told = answer.session_state().or(told);
    }
    let scan = "Only the reading of the SQL text finds it: what procedures do of this kind must be listed by the operator, and texts put together at run time hold their connection.";
    Ok(match (told, kind.recoverable) {
        (Some((states, true)), true) => Said::good(format!("recoverable, {states} states told")),
        (Some((_, false)), false) => Said::good("told as not recoverable"),
        (Some((_, true)), false) => Said::differs("told as recoverable", scan),
        (None, false) => Said::differs("not told", scan),
        (None, true) if kind.check.starts_with("SET") => {
            Said::differs("not told", "The proxy follows settings by itself; nothing to do.")
        }
        (None, true) => Said::differs("not told", scan),
        (Some((_, false)), true) => {
            Said::differs("told as not recoverable", "Clients that change settings keep their connection.")
        }
    })
}
