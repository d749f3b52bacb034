//! The scenarios: a stage, a load, an incident, and conditions that have to hold.

mod checks;
mod profile;
mod stage;

use std::error::Error;
use std::time::{Duration, Instant};

pub use profile::{Profile, Scenario};
pub use stage::{Redis, Spec, Stage};

use crate::report::Report;
use crate::run::{Outcome, Progress, run};
use crate::watch::{Look, Watcher, look};

/// How long everything may take to come to rest after the last program left.
const REST: Duration = Duration::from_secs(20);

/// How a scenario is to be played.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Programs and durations are multiplied by it; 1 is the full size.
    pub scale: f64,
    /// The command, for the report.
    pub command: String,
    /// The machine, for the report.
    pub machine: String,
}

/// Plays a scenario on a stage.
pub async fn play(
    scenario: Scenario,
    stage: &mut Stage,
    wishes: &Wishes,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Report, Box<dyn Error>> {
    let profile = Profile::of(scenario, stage, wishes.scale)?;
    // What the others' load is measured against.
    let reference = match &profile.reference {
        Some(plan) => Some(run(plan.clone(), &mut *on_progress).await?),
        None => None,
    };
    let watcher = Watcher::start(stage.health.clone());
    let began = Instant::now();
    let (mut incidents, mut memory) = (Vec::new(), Vec::new());
    let side = profile.side.clone();
    let playing = async {
        let mut script = profile.incidents.iter().peekable();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            while let Some(incident) = script.next_if(|incident| began.elapsed() >= incident.at) {
                let what = incident.kind.happen(stage).map_err(|why| format!("{}: {why}", incident.kind))?;
                incidents.push((began.elapsed().as_secs_f64(), what));
            }
            memory.extend(stage.memory().map(|bytes| (began.elapsed(), bytes)));
            if began.elapsed() >= profile.plan.duration {
                return Ok::<_, Box<dyn Error>>(());
            }
        }
    };
    let main = run(profile.plan.clone(), &mut *on_progress);
    let side = async {
        match side {
            Some(plan) => run(plan, |_| ()).await.map(Some),
            None => Ok(None),
        }
    };
    let (main, side, played) = tokio::join!(main, side, playing);
    played?;
    let (outcome, side) = (main?, side?);
    let last = settle(stage).await;
    let looks = watcher.looks();
    drop(watcher);
    let seen = Seen {
        outcome: &outcome,
        side: side.as_ref(),
        reference: reference.as_ref(),
        looks: &looks,
        last: &last,
        memory: &memory,
        incidents: &incidents,
    };
    let checks = checks::check(scenario, &profile, stage, &seen);
    Ok(Report {
        title: scenario.name().to_owned(),
        about: scenario.about().to_owned(),
        command: wishes.command.clone(),
        machine: wishes.machine.clone(),
        outcome,
        looks,
        incidents,
        checks,
    })
}

/// What a scenario's conditions look at.
struct Seen<'a> {
    outcome: &'a Outcome,
    side: Option<&'a Outcome>,
    reference: Option<&'a Outcome>,
    looks: &'a [Look],
    /// After everybody left.
    last: &'a Look,
    memory: &'a [(Duration, u64)],
    incidents: &'a [(f64, String)],
}

/// Waits, within bounds, until no client is left and nothing is lent.
async fn settle(stage: &Stage) -> Look {
    let over = Instant::now() + REST;
    loop {
        let now = look(&stage.health).await;
        let quiet = now.buckets.values().all(|b| b.clients == 0 && b.leased == 0 && b.waiting == 0);
        if quiet || Instant::now() > over {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
