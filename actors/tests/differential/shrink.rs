//! Makes a failing round smaller while it still fails: fewer clients, then fewer steps.

use std::time::{Duration, Instant};

use super::compare::Difference;
use super::round::Round;

/// Shrinking is worth no more time than this.
const LIMIT: Duration = Duration::from_secs(60);

/// A run that differs only sometimes gets more than one chance.
const TRIES: usize = 3;

/// The smallest failing round found, with its difference.
pub async fn shrink(round: Round, difference: Difference) -> (Round, Difference) {
    let over = Instant::now() + LIMIT;
    let mut best = (round, difference);
    // Nothing behind the difference matters to the client that saw it.
    let at = best.1.at;
    let failing = best.1.client;
    if let Some(script) = best.0.scripts.iter_mut().find(|script| script.client == failing) {
        script.steps.truncate(at + 1);
    }
    let mut chunk = best.0.scripts.len().div_ceil(2);
    while chunk > 0 && Instant::now() < over {
        let found = smaller(&best.0, (0..best.0.scripts.len()).step_by(chunk), |round, from| {
            let others =
                |(at, s): (usize, _)| (at < from || at >= from + chunk || is(failing, s)).then(|| s.clone());
            round.scripts.iter().enumerate().filter_map(others).collect()
        })
        .await;
        match found {
            Some(found) => best = found,
            None => chunk /= 2,
        }
    }
    let mut chunk = 64;
    while chunk > 0 && Instant::now() < over {
        let mut places: Vec<(usize, usize)> = Vec::new();
        for (client, script) in best.0.scripts.iter().enumerate() {
            places.extend((0..script.steps.len()).step_by(chunk).map(|from| (client, from)));
        }
        let mut found = None;
        for (client, from) in places {
            if Instant::now() > over {
                break;
            }
            let mut scripts = best.0.scripts.clone();
            let end = (from + chunk).min(scripts[client].steps.len());
            scripts[client].steps.drain(from..end);
            found = fails(&best.0, scripts).await;
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(found) => best = found,
            None => chunk /= 2,
        }
    }
    best
}

fn is(client: usize, script: &super::script::Script) -> bool {
    script.client == client
}

async fn smaller(
    round: &Round,
    places: impl Iterator<Item = usize>,
    without: impl Fn(&Round, usize) -> Vec<super::script::Script>,
) -> Option<(Round, Difference)> {
    for from in places {
        let scripts = without(round, from);
        if scripts.len() == round.scripts.len() {
            continue;
        }
        if let Some(found) = fails(round, scripts).await {
            return Some(found);
        }
    }
    None
}

async fn fails(like: &Round, scripts: Vec<super::script::Script>) -> Option<(Round, Difference)> {
    let Round { world, connections, gives_back, .. } = like;
    let round = Round { world: world.clone(), connections: *connections, gives_back: *gives_back, scripts };
    for _ in 0..TRIES {
        // Without the steps that end transactions a script may run into the stand-in's own limits.
        if let Err(difference) = round.run().await
            && !difference.is_deadlock()
        {
            return Some((round, *difference));
        }
    }
    None
}
