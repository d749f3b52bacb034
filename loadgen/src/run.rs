//! A run from its first program to its last answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::ClientError;
use crate::plan::Plan;
use crate::program::{Program, start_after, starts};
use crate::setup;
use crate::tally::{Counts, Tally};

/// How long after the end programs may finish what they have begun, beside their patience.
const GRACE: Duration = Duration::from_secs(5);

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Progress {
    /// Seconds since the first program started.
    pub seconds: f64,
    /// Of so many.
    pub of: f64,
    /// Pieces of work done.
    pub done: u64,
    /// Errors and wrong answers.
    pub errors: u64,
    /// Programs that have started.
    pub started: usize,
}

/// What came of a run.
pub struct Outcome {
    /// What was to be done.
    pub plan: Plan,
    /// What was.
    pub counts: Counts,
    /// How long it took from the first start to the last answer.
    pub took: Duration,
    /// Programs that had not ended when they should have.
    pub stuck: usize,
}

impl Outcome {
    /// Pieces of work in a second.
    pub fn rate(&self) -> f64 {
        self.counts.done() as f64 / self.took.as_secs_f64()
    }
}

/// Carries out a plan. `on_progress` is called a few times a second.
pub async fn run(plan: Plan, mut on_progress: impl FnMut(Progress)) -> Result<Outcome, ClientError> {
    if plan.setup {
        setup::prepare(&plan).await?;
    }
    let (plan, tally) = (Arc::new(plan), Arc::new(Tally::new()));
    let (end, over) = watch::channel(false);
    // Programs of different runs must not share rows of the ledger.
    let id_base = rand::random_range(1..1_000_000_000i64) * 1_000_000;
    let began = Instant::now();
    let mut programs = JoinSet::new();
    let starts = starts(&plan);
    for (number, start) in starts.iter().enumerate() {
        let (plan, tally, over, start) = (Arc::clone(&plan), Arc::clone(&tally), over.clone(), *start);
        programs.spawn(async move {
            start_after(start).await;
            Program::new(number, &plan, &tally, over).run(id_base).await;
        });
    }
    while began.elapsed() < plan.duration {
        sleep(Duration::from_millis(200).min(plan.duration.saturating_sub(began.elapsed()))).await;
        let (done, errors) = tally.so_far();
        let started = starts.iter().filter(|start| **start <= began.elapsed()).count();
        let (seconds, of) = (began.elapsed().as_secs_f64(), plan.duration.as_secs_f64());
        on_progress(Progress { seconds, of, done, errors, started });
    }
    end.send_replace(true);
    let ending = async { while programs.join_next().await.is_some() {} };
    let _ = timeout(plan.patience + GRACE, ending).await;
    let (stuck, took) = (programs.len(), began.elapsed());
    programs.abort_all();
    Ok(Outcome { plan: Plan::clone(&plan), counts: tally.counts(), took, stuck })
}
