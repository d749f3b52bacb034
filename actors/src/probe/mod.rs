//! The self-test of a server: each assumption that pooling makes, tried on a connection of its own. Harmless: it reads,
//! makes temporary objects only, and leaves nothing behind.

mod answer;
mod attention;
mod client;
mod connecting;
mod pipelining;
mod prepared;
mod recovery;
mod report;
mod reset;
mod transaction;

pub use client::{Target, Trouble};
pub use report::{Report, Row, Verdict};

use client::{Client, Tls, Wish};
use report::Said;

/// Tries everything. Fails only where not even the first login succeeds: then there is nothing to say about the rest.
pub async fn probe(target: &Target) -> Result<Report, Trouble> {
    let tls = Tls::of(&target.tls)?;
    let first = Client::log_in(target, &tls, Wish::default()).await?;
    let mut probe = Probe { target, tls, rows: Vec::new(), lost: None };
    let server = connecting::describe(&first);
    drop(first);
    probe.connection().await;
    probe.reset().await;
    probe.transactions().await;
    probe.recovery().await;
    probe.prepared().await;
    probe.pipelining_and_attention().await;
    let followed = match probe.lost.take() {
        None => Said::good("all"),
        Some(why) => Said::unsafe_(
            format!("the proxy cannot follow one: {why}"),
            "Such a response ends its connection. Please report it with the server's version.",
        ),
    };
    probe.rows.push(followed.row("connection", "responses followed"));
    Ok(Report { server, rows: probe.rows })
}

struct Probe<'a> {
    target: &'a Target,
    tls: Tls,
    rows: Vec<Row>,
    /// The first response that the proxy's own scanner could not follow.
    lost: Option<String>,
}

/// What a failed check says.
fn outcome(said: Result<Said, Trouble>) -> Said {
    match said {
        Ok(said) => said,
        // The server said no: nothing about its behaviour follows from that.
        Err(Trouble::Error { number, text }) => Said::unknown(format!("error {number}: {text}")),
        Err(trouble) => Said::unsafe_(
            trouble.to_string(),
            "The check broke off: the server did something that neither the probe nor the proxy expects.",
        ),
    }
}

impl Probe<'_> {
    /// Runs one check on a new connection.
    async fn on(
        &mut self,
        area: &'static str,
        check: &'static str,
        wish: Wish,
        work: impl AsyncFnOnce(&mut Client) -> Result<Said, Trouble>,
    ) {
        let said = match Client::log_in(self.target, &self.tls, wish).await {
            Ok(mut client) => {
                let said = work(&mut client).await;
                if let Some(lost) = client.lost {
                    self.lost.get_or_insert(lost);
                }
                said
            }
            Err(trouble) => Err(trouble),
        };
        self.rows.push(outcome(said).row(area, check));
    }

    async fn connection(&mut self) {
        let versions = outcome(connecting::versions(self.target, &self.tls).await);
        self.rows.push(versions.row("connection", "TDS versions"));
        let encryption = outcome(connecting::encryption(self.target).await);
        self.rows.push(encryption.row("connection", "encryption"));
        let strict = outcome(connecting::strict(self.target).await);
        self.rows.push(strict.row("connection", "strict encryption"));
    }

    async fn reset(&mut self) {
        let plain = Wish::default();
        self.on("reset", "acknowledged", plain, async |client| reset::acknowledged(client).await).await;
        self.on("reset", "acknowledged first", plain, async |client| reset::acknowledged_first(client).await)
            .await;
        for leftover in reset::LEFTOVERS {
            self.on("reset", leftover.check, plain, async |client| reset::clears(client, leftover).await)
                .await;
        }
        self.on("reset", "IDENTITY_INSERT", plain, async |client| reset::identity_insert(client).await).await;
        self.on("reset", "EXECUTE AS", plain, async |client| reset::impersonation(client).await).await;
        self.on("reset", "transaction", plain, async |client| reset::transaction(client).await).await;
        self.on("reset", "transaction kept", plain, async |client| reset::skip_transaction(client).await)
            .await;
        self.on("reset", "isolation level", plain, async |client| reset::isolation(client).await).await;
    }

    async fn transactions(&mut self) {
        let plain = Wish::default();
        self.on("transaction", "by text", plain, async |client| transaction::text(client).await).await;
        self.on("transaction", "by request", plain, async |client| transaction::manager(client).await).await;
        self.on("transaction", "implicit", plain, async |client| transaction::implicit(client).await).await;
        self.on("transaction", "inner commit", plain, async |client| transaction::inner_commit(client).await)
            .await;
        self.on("transaction", "savepoint", plain, async |client| transaction::savepoint(client).await).await;
        self.on("transaction", "ended by an error", plain, async |client| {
            transaction::by_error(client).await
        })
        .await;
    }

    async fn recovery(&mut self) {
        let wish = Wish { session_recovery: true, ..Wish::default() };
        self.on("recovery", "acknowledged", wish, async |client| Ok(connecting::recovery(client))).await;
        for kind in recovery::KINDS {
            self.on("recovery", kind.check, wish, async |client| {
                if connecting::recovery(client).verdict != Verdict::Good {
                    return Ok(Said::unknown("session recovery is not acknowledged"));
                }
                recovery::reports(client, kind).await
            })
            .await;
        }
    }

    async fn prepared(&mut self) {
        let plain = Wish::default();
        self.on("prepared", "handles", plain, async |client| prepared::handles(client).await).await;
        self.on("prepared", "after a reset", plain, async |client| prepared::after_reset(client).await).await;
        self.on("prepared", "cursor rows", plain, async |client| prepared::cursor_rows(client).await).await;
    }

    async fn pipelining_and_attention(&mut self) {
        let plain = Wish::default();
        self.on("pipelining", "requests", plain, async |client| pipelining::requests(client).await).await;
        self.on("pipelining", "behind a reset", plain, async |client| {
            pipelining::behind_a_reset(client).await
        })
        .await;
        self.on("attention", "running request", plain, async |client| attention::running(client).await).await;
        self.on("attention", "after the response", plain, async |client| attention::late(client).await).await;
        self.on("attention", "race", plain, async |client| attention::race(client).await).await;
        self.on("attention", "withdrawn request", plain, async |client| attention::withdrawn(client).await)
            .await;
    }
}
