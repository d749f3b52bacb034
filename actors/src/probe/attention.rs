//! How the server answers a cancel (ATTENTION), whenever it comes ([MS-TDS] 2.2.1.7, 3.3.5.9).

use std::time::Duration;

use tds::packet::Status;
use tokio::time::Instant;

use super::client::{Client, Trouble};
use super::report::Said;

/// How long the request would run that is to be cancelled.
const RUN: &str = "WAITFOR DELAY '00:00:05'";
/// An answer before this was given because of the attention.
const PROMPT: Duration = Duration::from_secs(4);
/// Time for the request to begin.
const BEGIN: Duration = Duration::from_millis(200);

const NEVER: &str = "The proxy closes a connection whose cancel is not acknowledged (timeouts.attention): each cancel costs a login.";
const MIXED: &str =
    "A client could read the last one's acknowledgement: use pool_mode = \"session\" for this server.";

/// A running request ends at once.
pub(super) async fn running(client: &mut Client) -> Result<Said, Trouble> {
    let packets = client.batch_packets(RUN, Status::NORMAL);
    client.write(&packets).await?;
    tokio::time::sleep(BEGIN).await;
    let asked = Instant::now();
    client.write(&client.attention_packets()).await?;
    let mut answer = client.receive().await;
    let mut own = false;
    if matches!(&answer, Ok(first) if first.acknowledged_attentions() == 0) {
        own = true;
        answer = client.receive().await;
    }
    let took = asked.elapsed();
    let answer = match answer {
        Err(Trouble::Silence(_) | Trouble::Closed | Trouble::Io(_)) => {
            return Ok(Said::unsafe_("not acknowledged", NEVER));
        }
        other => other?,
    };
    let acknowledged = answer.acknowledged_attentions();
    let next = next_is_its_own(client).await?;
    if next.verdict != super::Verdict::Good {
        return Ok(next);
    }
    let whole = if own { "in a message of its own" } else { "inside the response" };
    Ok(if acknowledged != 1 {
        Said::unsafe_("not acknowledged exactly once", MIXED)
    } else if took > PROMPT {
        Said::differs(
            "acknowledged only after the whole response",
            "A cancel frees the connection no sooner than the request ends; raise timeouts.attention if clients cancel long requests.",
        )
    } else if own {
        Said::good(format!("acknowledged after {} ms, {whole}", took.as_millis()))
    } else {
        Said::differs(
            format!("acknowledged after {} ms, {whole}", took.as_millis()),
            "Allowed, and understood by the proxy; some drivers (tedious) do not understand it, directly or through the proxy.",
        )
    })
}

/// A cancel that comes after the response is acknowledged all the same.
pub(super) async fn late(client: &mut Client) -> Result<Said, Trouble> {
    client.run("SELECT 1").await?;
    client.write(&client.attention_packets()).await?;
    match client.receive().await {
        Ok(answer) if answer.is_only_an_acknowledgement() => next_is_its_own(client).await,
        Ok(_) => Ok(Said::unsafe_("answered with something else", MIXED)),
        Err(Trouble::Silence(_) | Trouble::Closed | Trouble::Io(_)) => {
            Ok(Said::unsafe_("not acknowledged", NEVER))
        }
        Err(trouble) => Err(trouble),
    }
}

/// A request and its cancel in one write: whichever wins, there is one acknowledgement, and the next answer is the next
/// request's own.
pub(super) async fn race(client: &mut Client) -> Result<Said, Trouble> {
    for _ in 0..10 {
        let mut both = client.batch_packets("SELECT 1", Status::NORMAL);
        both.unsplit(client.attention_packets());
        client.write(&both).await?;
        let mut acknowledged = 0;
        while acknowledged == 0 {
            acknowledged += match client.receive().await {
                Ok(answer) => answer.acknowledged_attentions(),
                Err(Trouble::Silence(_) | Trouble::Closed | Trouble::Io(_)) => {
                    return Ok(Said::unsafe_("not acknowledged", NEVER));
                }
                Err(trouble) => return Err(trouble),
            };
        }
        let said = next_is_its_own(client).await?;
        if said.verdict != super::Verdict::Good {
            return Ok(said);
        }
    }
    Ok(Said::good("acknowledged once, ten times out of ten"))
}

async fn next_is_its_own(client: &mut Client) -> Result<Said, Trouble> {
    let answer = client.batch("SELECT 'next'").await?;
    Ok(if answer.cell().as_deref() == Some("next") {
        Said::good("acknowledged once")
    } else {
        Said::unsafe_("something more comes before the next answer", MIXED)
    })
}

/// A request that is broken off while it is sent is not run.
pub(super) async fn withdrawn(client: &mut Client) -> Result<Said, Trouble> {
    client.run("CREATE TABLE #tdsbouncer_probe (id int)").await?;
    let packets = client.withdrawn_packets("INSERT INTO #tdsbouncer_probe (id) VALUES (1)");
    client.write(&packets).await?;
    client.receive().await?;
    Ok(match client.cell("SELECT COUNT(*) FROM #tdsbouncer_probe").await?.as_str() {
        "0" => Said::good("not run"),
        _ => Said::differs(
            "run all the same",
            "The proxy closes the connection where a client breaks a request off, and does not withdraw it; nothing to do.",
        ),
    })
}
