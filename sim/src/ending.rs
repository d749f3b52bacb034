//! How a response ends: as its request ended, as an attention wants it, or as a fault does.

use tds::done::DoneStatus;

use crate::connection::{After, End};
use crate::engine::Outcome;
use crate::fault::{Fault, Faults};
use crate::refusal;
use crate::response::Response;
use crate::server::Shared;
use crate::watcher::Watcher;

/// Where an attention is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// In a message behind the response that it ends, as SQL Server does.
    OfItsOwn,
    /// The same, and once more.
    Twice,
    /// By the last DONE of the response that it ends.
    InResponse,
    /// Nowhere.
    Never,
}

impl Acknowledgement {
    /// As the armed faults say.
    pub(crate) fn by(own: Option<&Faults>, everywhere: &Faults) -> Self {
        let strikes = |fault| own.is_some_and(|faults| faults.strikes(fault)) || everywhere.strikes(fault);
        if strikes(&Fault::AttentionIgnored) {
            Self::Never
        } else if strikes(&Fault::AttentionInResponse) {
            Self::InResponse
        } else if strikes(&Fault::AttentionTwice) {
            Self::Twice
        } else {
            Self::OfItsOwn
        }
    }
}

/// Ends a response as its request ended.
pub(crate) fn end(
    mut response: Response<'_>,
    outcome: Outcome,
    watcher: &Watcher,
    shared: &Shared,
    acknowledgement: impl FnOnce() -> Acknowledgement,
) -> Result<After, End> {
    if watcher.gone() {
        return Err(End::Closed);
    }
    if let Some(cut) = response.harmed() {
        response.finish()?;
        return Ok(cut.into());
    }
    if watcher.attention() {
        let acknowledgement = acknowledgement();
        match acknowledgement {
            Acknowledgement::Never => return Ok(After::Silence),
            Acknowledgement::InResponse => {
                response.acknowledge_attention();
                response.finish()?;
            }
            Acknowledgement::OfItsOwn | Acknowledgement::Twice => {
                if outcome != Outcome::Finished {
                    response.plain_done(DoneStatus::ERROR, 0);
                }
                response
                    .finish_and_acknowledge(1 + usize::from(acknowledgement == Acknowledgement::Twice))?;
            }
        }
        return Ok(if matches!(outcome, Outcome::Killed | Outcome::Fatal) {
            After::Close
        } else {
            After::Continue
        });
    }
    let after = match outcome {
        Outcome::Finished => After::Continue,
        Outcome::Fatal => After::Close,
        Outcome::Killed => {
            response.refuse(&refusal::killed(&shared.options));
            After::Close
        }
        // Nobody asked for it: the engine produced something that has no form on the wire.
        Outcome::Cancelled | Outcome::Stopped => {
            response.refuse(&refusal::cannot_be_sent(&shared.options, response.unfit()));
            After::Continue
        }
    };
    let harmed = response.harmed_at_end();
    response.finish()?;
    Ok(harmed.map_or(after, After::from))
}
