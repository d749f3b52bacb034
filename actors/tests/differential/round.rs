//! One round: scripts of several clients, each run at a server directly and, at another, through the proxy.

use std::net::SocketAddr;

use tds::TdsVersion;
use tdsbouncer_config::PoolMode;
use tdsbouncer_sim::{Fault, Features, ServerKind, SimHandle, SimOptions, SimServer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::author::{Author, LEAVING, Leaves};
use super::client::stage::Stage;
use super::compare::{Answered, Count, Difference};
use super::line::PATIENCE;
use super::player::Player;
use super::profile::{PROFILES, Profile};
use super::random::Random;
use super::script::Script;

/// How a round is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub world: World,
    pub clients: usize,
    /// Steps of each client.
    pub length: usize,
    /// The rule that the proxy breaks, as actors/src/mutant.rs calls it: it must be found.
    pub mutant: Option<&'static str>,
}

/// What the scripts run at.
#[derive(Clone, Debug)]
pub struct World {
    pub mode: PoolMode,
    pub kind: ServerKind,
    /// What is wrong with the server behind the proxy.
    pub fault: Option<Fault>,
    /// The same is wrong with the other one: the proxy has to find it out and to live with it.
    pub is_measured: bool,
    /// It tells its sessions' state (SESSIONSTATE).
    pub tells: bool,
}

/// What a plan makes of its seed.
pub struct Round {
    pub world: World,
    pub connections: u32,
    /// Connections change hands after every request, and do not stay with who used them last.
    pub gives_back: bool,
    pub scripts: Vec<Script>,
}

impl World {
    pub fn of(mode: PoolMode) -> Self {
        Self { mode, kind: ServerKind::SqlServer2022, fault: None, is_measured: false, tells: true }
    }

    fn leaves(&self) -> Leaves {
        let is_babelfish = self.kind == ServerKind::Babelfish;
        let resets = match &self.fault {
            Some(Fault::ResetLeaves(_)) => self.is_measured,
            Some(
                Fault::ResetLeavesEverything
                | Fault::ResetClearsIsolation
                | Fault::ResetAcknowledgedLate
                | Fault::SkipTransactionRefused,
            ) => true,
            _ => is_babelfish,
        };
        let breaks = matches!(&self.fault, Some(Fault::AttentionLate | Fault::RequestLosesInput));
        Leaves { resets, breaks: breaks || is_babelfish }
    }

    /// Whether the proxy knows that the server tells what is left to a session of this version.
    fn tells(&self, version: TdsVersion) -> bool {
        let is_silent = matches!(self.fault, Some(Fault::NoSessionState | Fault::EverythingRecoverable));
        let may_tell = self.kind == ServerKind::SqlServer2022 && version == TdsVersion::V7_4;
        self.tells && self.is_measured && may_tell && !is_silent
    }

    fn server(&self, fault: Option<&Fault>) -> SimHandle {
        let databases = vec!["shop".to_owned(), "depot".to_owned()];
        let faults = fault.into_iter().cloned().collect();
        let features = Features { session_recovery: self.tells, ..Features::default() };
        let options = SimOptions { kind: self.kind, databases, faults, features, ..SimOptions::default() };
        SimServer::start(options).expect("the stand-in starts")
    }
}

impl Plan {
    pub fn new(seed: u64, world: World) -> Self {
        Self { seed, world, clients: 8, length: 120, mutant: None }
    }

    pub fn round(&self) -> Round {
        let mut random = Random::new(self.seed);
        // Few kinds of login, so that clients share connections and the sub-pools compete for them.
        let mut profiles: Vec<Profile> = PROFILES.to_vec();
        random.shuffle(&mut profiles);
        profiles.truncate(1 + usize::try_from(random.below(3)).unwrap_or(0));
        let connections = 2 + u32::try_from(random.below(4)).unwrap_or(0);
        let gives_back = random.below(2) == 0;
        let mut scripts: Vec<Script> = (0..self.clients)
            .map(|client| {
                let profile = *random.pick(&profiles);
                Author::write(client, profile, self.length, self.world.leaves(), &mut random)
            })
            .collect();
        if let Some(mutant) = self.mutant {
            scripts.iter_mut().for_each(|script| script.application = format!("mutant:{mutant}"));
        }
        Round { world: self.world.clone(), connections, gives_back, scripts }
    }
}

impl Round {
    /// What an operator has to list: the server does not tell that it leaves something.
    fn untold_procedures(&self) -> Vec<String> {
        let untold = self.scripts.iter().filter(|script| !self.world.tells(script.profile.version));
        untold.flat_map(|script| LEAVING.map(|name| format!("{name}{}", script.client))).collect()
    }

    /// Runs everything at once; the first difference that is seen, if there is one.
    pub async fn run(&self) -> Result<Count, Box<Difference>> {
        let world = &self.world;
        let direct = world.server(world.fault.as_ref().filter(|_| world.is_measured));
        // Shorter than the client's, so that it is the proxy who tells of a wait without end.
        let patience = PATIENCE - std::time::Duration::from_secs(60);
        let stage = Stage::on(
            world.server(world.fault.as_ref()),
            self.connections,
            |bucket| {
                bucket.pool_mode = world.mode;
                bucket.self_test = world.is_measured;
                bucket.holding_procedures = self.untold_procedures();
                bucket.acquire_timeout = patience;
                if self.gives_back {
                    bucket.affinity = std::time::Duration::ZERO;
                }
            },
            |_| {},
        )
        .await;
        let mut clients = JoinSet::new();
        for script in &self.scripts {
            clients.spawn(examine(script.clone(), [direct.addr(), stage.address]));
        }
        let mut count = Count::default();
        while let Some(examined) = clients.join_next().await {
            let examined = examined.expect("to compare does not panic");
            count.add(examined.map_err(|difference| {
                let pool = format!("{:?}", stage.proxy.health().buckets);
                Box::new(Difference { pool, ..*difference })
            })?);
        }
        stage.until_everybody_left().await;
        Ok(count)
    }
}

/// Runs a client's script at both addresses, each at its own pace, and compares step by step.
async fn examine(script: Script, addresses: [SocketAddr; 2]) -> Result<Count, Box<Difference>> {
    let mut runs = JoinSet::new();
    let [mut direct, mut proxied] = addresses.map(|address| {
        let (tell, told) = mpsc::unbounded_channel::<Answered>();
        let script = script.clone();
        runs.spawn(async move { Player::new(&script, address).play(tell).await });
        told
    });
    let mut count = Count::default();
    for (at, step) in script.steps.iter().enumerate() {
        let (left, right) = (direct.recv().await, proxied.recv().await);
        let agree = match (&left, &right) {
            (Some(Ok(left)), Some(Ok(right))) => count.agree(step.check, left, right),
            _ => false,
        };
        if !agree {
            return Err(Box::new(Difference::new(script.client, at, left.as_ref(), right.as_ref())));
        }
    }
    Ok(count)
}
