//! One round: scripts of several clients, each run at a server directly and, at another, through the proxy.

use tdsbouncer_config::PoolMode;
use tdsbouncer_sim::{Fault, SimHandle, SimOptions, SimServer};

use super::author::Author;
use super::client::stage::Stage;
use super::compare::{Count, Difference, compare};
use super::player::{Player, Told};
use super::profile::{PROFILES, Profile};
use super::random::Random;
use super::script::Script;

/// How a round is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub mode: PoolMode,
    pub clients: usize,
    /// Steps of each client.
    pub length: usize,
    /// What is wrong with the server behind the proxy, and must be found.
    pub fault: Option<Fault>,
}

/// What a plan makes of its seed.
pub struct Round {
    pub mode: PoolMode,
    pub connections: u32,
    pub fault: Option<Fault>,
    pub scripts: Vec<Script>,
}

impl Plan {
    pub fn round(&self) -> Round {
        let mut random = Random::new(self.seed);
        // Few kinds of login, so that clients share connections and the sub-pools compete for them.
        let mut profiles: Vec<Profile> = PROFILES.to_vec();
        random.shuffle(&mut profiles);
        profiles.truncate(1 + usize::try_from(random.below(3)).unwrap_or(0));
        let connections = 2 + u32::try_from(random.below(4)).unwrap_or(0);
        let scripts = (0..self.clients)
            .map(|client| {
                let profile = *random.pick(&profiles);
                Author::write(client, profile, self.length, &mut random)
            })
            .collect();
        Round { mode: self.mode, connections, fault: self.fault.clone(), scripts }
    }
}

impl Round {
    /// Runs everything at once; the difference, if there is one.
    pub async fn run(&self) -> Result<Count, Box<Difference>> {
        let direct = server(None);
        // Shorter than the client's, so that it is the proxy who tells of a wait without end.
        let patience = std::time::Duration::from_secs(170);
        let stage = Stage::on(
            server(self.fault.clone()),
            self.connections,
            |bucket| {
                bucket.pool_mode = self.mode;
                bucket.acquire_timeout = patience;
            },
            |_| {},
        )
        .await;
        let mut runs = Vec::new();
        for script in &self.scripts {
            for address in [direct.addr(), stage.address] {
                let script = script.clone();
                runs.push(tokio::spawn(async move { Player::new(&script, address).play().await }));
            }
        }
        let mut told: Vec<Result<Vec<Told>, String>> = Vec::new();
        for run in runs {
            told.push(match run.await {
                Ok(played) => played.map_err(|error| error.to_string()),
                Err(panicked) => Err(panicked.to_string()),
            });
        }
        let mut count = Count::default();
        for (script, answers) in self.scripts.iter().zip(told.chunks(2)) {
            match answers {
                [Ok(direct), Ok(proxied)] => match compare(script, direct, proxied, &mut count) {
                    None => {}
                    Some(difference) => return Err(Box::new(difference)),
                },
                broken => return Err(Box::new(Difference::broken(script, broken))),
            }
        }
        stage.until_everybody_left().await;
        Ok(count)
    }
}

fn server(fault: Option<Fault>) -> SimHandle {
    let databases = vec!["shop".to_owned(), "depot".to_owned()];
    let options = SimOptions { databases, faults: fault.into_iter().collect(), ..SimOptions::default() };
    SimServer::start(options).expect("the stand-in starts")
}
