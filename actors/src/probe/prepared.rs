//! Prepared handles and cursors: whose they are, and whether a reset ends them.

use tds::packet::Status;
use tds::rpc::{Parameter, ProcId};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;

use super::answer::Answer;
use super::client::{Client, Trouble};
use super::report::Said;

/// SQL Server's error for a handle that this connection does not have.
const NO_SUCH_HANDLE: i32 = 8179;

fn int(value: Option<i32>) -> Parameter {
    Parameter::new("", TypeInfo::IntN(4), value.map_or(Value::Null, Value::Int))
}

fn text(value: Option<&str>) -> Parameter {
    let type_info = TypeInfo::nvarchar(4000, Collation::LATIN1);
    Parameter::new("", type_info, value.map_or(Value::Null, |text| Value::String(text.to_owned())))
}

async fn prepare(client: &mut Client) -> Result<i32, Trouble> {
    let parameters = vec![int(None).by_ref(), text(None), text(Some("SELECT 42")), int(Some(1))];
    let answer = client.call(ProcId::PREPARE, parameters).await?;
    match (answer.error(), answer.handle()) {
        (None, Some(handle)) => Ok(handle),
        (Some(error), _) => Err(Trouble::Error { number: error.number, text: error.text.clone() }),
        (None, None) => Err(Trouble::Error { number: 0, text: "sp_prepare returned no handle".to_owned() }),
    }
}

async fn execute(client: &mut Client, handle: i32) -> Result<Answer, Trouble> {
    client.call(ProcId::EXECUTE, vec![int(Some(handle))]).await
}

/// sp_prepare, sp_execute, sp_unprepare.
pub(super) async fn handles(client: &mut Client) -> Result<Said, Trouble> {
    const ADVICE: &str = "Drivers that prepare (ODBC does by default) will not work with this server, directly or through the proxy.";
    let handle = prepare(client).await?;
    let ran = execute(client, handle).await?;
    if ran.error().is_some() || ran.cell().as_deref() != Some("42") {
        return Ok(Said::unsafe_("a prepared statement does not run", ADVICE));
    }
    client.call(ProcId::UNPREPARE, vec![int(Some(handle))]).await?;
    Ok(match execute(client, handle).await?.error() {
        Some(error) if error.number == NO_SUCH_HANDLE => Said::good("prepare, run, unprepare"),
        Some(error) => Said::differs(
            format!("an ended handle is error {} and not {NO_SUCH_HANDLE}", error.number),
            "Drivers that prepare again after 8179 will not; nothing to do for others.",
        ),
        None => Said::unsafe_("a handle lives on after sp_unprepare", ADVICE),
    })
}

/// The next owner of a connection must not meet the handles of the last.
pub(super) async fn after_reset(client: &mut Client) -> Result<Said, Trouble> {
    let handle = prepare(client).await?;
    let reset = client.batch_with("SELECT 1", Status::RESET_CONNECTION).await?;
    if let Some(error) = reset.error() {
        return Err(Trouble::Error { number: error.number, text: error.text.clone() });
    }
    Ok(match execute(client, handle).await?.error() {
        Some(_) => Said::good("dropped by a reset"),
        None => Said::unsafe_(
            "still runs after a reset",
            "Another client could run it by its number: use pool_mode = \"session\" and auth = \"passthrough\" for this server.",
        ),
    })
}

/// A cursor's rows must be as long as their metadata says: the proxy passes over them by it.
pub(super) async fn cursor_rows(client: &mut Client) -> Result<Said, Trouble> {
    client.run("CREATE TABLE #tdsbouncer_probe (id int NOT NULL, name varchar(20) NULL)").await?;
    client.run("INSERT INTO #tdsbouncer_probe (id, name) VALUES (1, 'one'), (2, NULL), (3, 'three')").await?;
    // Static, read only.
    let query = text(Some("SELECT id, name FROM #tdsbouncer_probe"));
    let parameters =
        vec![int(None).by_ref(), query, int(Some(8)).by_ref(), int(Some(1)).by_ref(), int(Some(0)).by_ref()];
    let opened = client.call(ProcId::CURSOR_OPEN, parameters).await?;
    let Some(handle) = opened.handle().filter(|_| opened.error().is_none()) else {
        return Ok(Said::unknown("cannot be tried: the server opens no cursor"));
    };
    let advice = "The proxy cannot follow such answers and closes the connection after each: avoid server cursors with this server.";
    let fetch = vec![int(Some(handle)), int(Some(2)), int(Some(0)), int(Some(10))];
    match client.call(ProcId::CURSOR_FETCH, fetch).await {
        Ok(answer) if client.lost.is_none() && answer.error().is_none() => {}
        Ok(_) => return Ok(Said::unsafe_("a fetch cannot be followed", advice)),
        Err(Trouble::Malformed(why)) => {
            return Ok(Said::unsafe_(format!("a fetch cannot be read: {why}"), advice));
        }
        Err(trouble) => return Err(trouble),
    }
    client.call(ProcId::CURSOR_CLOSE, vec![int(Some(handle))]).await?;
    Ok(Said::good("as long as their metadata says"))
}
