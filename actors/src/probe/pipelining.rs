//! Whether a request may be sent before the last one is answered ([MS-TDS] 3.3.5.9): it saves a round trip at each replay.

use tds::packet::Status;

use super::client::{Client, Trouble};
use super::report::Said;

const LOST: &str = "The proxy must not send a client's request behind one of its own to this server.";

/// Two requests in one write.
pub(super) async fn requests(client: &mut Client) -> Result<Said, Trouble> {
    two(client, Status::NORMAL).await
}

/// The same where the first asks for a reset.
pub(super) async fn behind_a_reset(client: &mut Client) -> Result<Said, Trouble> {
    two(client, Status::RESET_CONNECTION).await
}

async fn two(client: &mut Client, status: Status) -> Result<Said, Trouble> {
    let mut both = client.batch_packets("SELECT 'first'", status);
    both.unsplit(client.batch_packets("SELECT 'second'", Status::NORMAL));
    client.write(&both).await?;
    let first = client.receive().await?.cell();
    match client.receive().await {
        Ok(second) => {
            let second = second.cell();
            let in_order = (first.as_deref(), second.as_deref()) == (Some("first"), Some("second"));
            Ok(if in_order {
                Said::good("both are answered, in order")
            } else {
                Said::unsafe_("two answers, but not those of the two requests", LOST)
            })
        }
        Err(Trouble::Silence(_)) => Ok(Said::differs("the second request is lost", LOST)),
        Err(Trouble::Closed | Trouble::Io(_)) => Ok(Said::differs("the server closes the connection", LOST)),
        Err(trouble) => Err(trouble),
    }
}
