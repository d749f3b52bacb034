//! The scenarios by name: how large the stage is, what the programs do, what happens when.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::stage::{Redis, Spec, Stage};
use crate::plan::{Destination, Kind, Mix, Plan};

/// One of the ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// 200 programs over 50 connections.
    Baseline,
    /// 500 programs within five seconds.
    Burst,
    /// Half an hour of the same.
    Steady,
    /// A proxy is killed and comes back.
    ProxyFailure,
    /// Redis is killed and comes back.
    RedisFailure,
    /// One bucket gets far more than it can do.
    Uneven,
    /// Two proxies are added.
    ScaleOut,
    /// Some transactions stay open for seconds.
    LongTransactions,
    /// Everybody prepares all the time.
    PreparedStorm,
    /// One tenant of a bucket storms.
    Fairness,
}

impl Scenario {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::Baseline,
        Self::Burst,
        Self::Steady,
        Self::ProxyFailure,
        Self::RedisFailure,
        Self::Uneven,
        Self::ScaleOut,
        Self::LongTransactions,
        Self::PreparedStorm,
        Self::Fairness,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Burst => "burst",
            Self::Steady => "steady",
            Self::ProxyFailure => "proxy-failure",
            Self::RedisFailure => "redis-failure",
            Self::Uneven => "uneven",
            Self::ScaleOut => "scale-out",
            Self::LongTransactions => "long-transactions",
            Self::PreparedStorm => "prepared-storm",
            Self::Fairness => "fairness",
        }
    }

    /// What it is about, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Baseline => "200 programs a bucket share 50 server connections",
            Self::Burst => "500 programs come within 5 seconds",
            Self::Steady => "the same load for long: nothing grows, nothing is left behind",
            Self::ProxyFailure => "one of three proxies is killed without a word and comes back",
            Self::RedisFailure => "Redis is killed and comes back; the limit holds, nobody is cut off",
            Self::Uneven => {
                "one bucket gets 80 % of all programs, more than it can serve; the others notice nothing"
            }
            Self::ScaleOut => "two proxies join the first; the limit holds over all three",
            Self::LongTransactions => {
                "transactions that stay open for seconds take connections, and others go on"
            }
            Self::PreparedStorm => "500 programs prepare, execute and unprepare all the time",
            Self::Fairness => "one tenant of a bucket storms; the other one waits no longer than a turn",
        }
    }

    /// The stage of our own that it plays on.
    pub fn spec(self, program: PathBuf, pool_mode: &str, redis: Option<String>, scale: f64) -> Spec {
        let redis = match redis {
            Some(url) => Redis::At(url),
            None if self == Self::RedisFailure => Redis::Own,
            None => Redis::None,
        };
        let (buckets, proxies, running, limit) = match self {
            Self::Baseline => (3, 1, 1, 50),
            Self::Burst | Self::Steady | Self::PreparedStorm | Self::LongTransactions => (1, 1, 1, 50),
            Self::ProxyFailure => (2, 3, 3, 48),
            Self::RedisFailure => (1, 3, 3, 48),
            Self::Uneven => (3, 1, 1, 20),
            Self::ScaleOut => (1, 3, 1, 48),
            Self::Fairness => (1, 1, 1, 10),
        };
        // A smaller load over as many connections would never wait.
        let limit =
            ((f64::from(limit) * scale.min(1.0)).ceil() as u32).max(2 * u32::try_from(proxies).unwrap_or(1));
        Spec {
            program,
            buckets,
            proxies,
            running,
            limit,
            pool_mode: pool_mode.to_owned(),
            defaults: String::new(),
            redis,
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.iter().map(|scenario| scenario.name()).collect();
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| format!("is none of {}", names.join(", ")))
    }
}

/// Something that happens on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    /// A proxy is killed.
    KillProxy(usize),
    /// It is started.
    StartProxy(usize),
    /// Redis is killed.
    StopRedis,
    /// It is started.
    StartRedis,
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillProxy(n) => write!(f, "proxy {} was killed", n + 1),
            Self::StartProxy(n) => write!(f, "proxy {} was started", n + 1),
            Self::StopRedis => f.write_str("Redis was killed"),
            Self::StartRedis => f.write_str("Redis was started"),
        }
    }
}

impl IncidentKind {
    /// Makes it happen; says what happened.
    pub(super) fn happen(self, stage: &mut Stage) -> io::Result<String> {
        match self {
            Self::KillProxy(n) => stage.kill_proxy(n)?,
            Self::StartProxy(n) => stage.start_proxy(n)?,
            Self::StopRedis => stage.stop_redis()?,
            Self::StartRedis => stage.start_redis()?,
        }
        Ok(self.to_string())
    }
}

/// An incident and its moment.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    /// Since the run began.
    pub at: Duration,
    /// What.
    pub kind: IncidentKind,
}

/// A scenario cut to a stage and a scale.
pub struct Profile {
    /// The load that the report is about.
    pub plan: Plan,
    /// Further load at the same time.
    pub side: Option<Plan>,
    /// Load to run alone before, to compare with.
    pub reference: Option<Plan>,
    /// What happens, in order.
    pub incidents: Vec<Incident>,
}

impl Profile {
    /// Cuts a scenario; an error says what the stage lacks.
    pub fn of(scenario: Scenario, stage: &Stage, scale: f64) -> Result<Self, String> {
        let cut = Cut { stage, scale };
        let buckets = stage.destinations.len();
        let profile = match scenario {
            Scenario::Baseline => Self::plain(cut.plan(200 * buckets, 60, 1000)),
            Scenario::Burst => Self::plain(Plan { ramp_up: cut.time(5), ..cut.plan(500, 60, 1000) }),
            Scenario::Steady => Self::plain(cut.plan(200, 1800, 500)),
            Scenario::ProxyFailure => Self {
                incidents: cut.incidents(60, IncidentKind::KillProxy(0), IncidentKind::StartProxy(0)),
                ..Self::plain(cut.plan(200 * buckets, 60, 1000))
            },
            Scenario::RedisFailure => Self {
                incidents: cut.incidents(60, IncidentKind::StopRedis, IncidentKind::StartRedis),
                ..Self::plain(cut.plan(300, 60, 1000))
            },
            Scenario::Uneven => cut.uneven()?,
            Scenario::ScaleOut => {
                let life = cut.time(10);
                Self {
                    incidents: cut.incidents(60, IncidentKind::StartProxy(1), IncidentKind::StartProxy(2)),
                    ..Self::plain(Plan { connection_life: life, ..cut.plan(300, 60, 1000) })
                }
            }
            Scenario::LongTransactions => {
                let long =
                    Plan { mix: Mix::only(Kind::Transaction), hold: cut.time(5), ..cut.plan(20, 60, 1000) };
                let plan = Plan { mix: Mix([70, 20, 0, 5, 5]), ..cut.plan(180, 60, 500) };
                Self { side: Some(long), ..Self::plain(plan) }
            }
            Scenario::PreparedStorm => Self::plain(Plan {
                mix: Mix::only(Kind::Prepared),
                always_prepare: true,
                ..cut.plan(500, 60, 500)
            }),
            Scenario::Fairness => cut.fairness()?,
        };
        Ok(profile)
    }

    fn plain(plan: Plan) -> Self {
        Self { plan, side: None, reference: None, incidents: Vec::new() }
    }
}

struct Cut<'a> {
    stage: &'a Stage,
    scale: f64,
}

impl Cut<'_> {
    /// Seconds at full size; never less than a second and a half.
    fn time(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).mul_f64(self.scale).max(Duration::from_millis(1500))
    }

    fn plan(&self, programs: usize, seconds: u64, think_ms: u64) -> Plan {
        let mut plan = Plan::new(self.stage.addresses.clone(), self.stage.destinations.clone());
        plan.programs = ((programs as f64 * self.scale).round() as usize).max(6);
        plan.duration = self.time(seconds).max(Duration::from_secs(6));
        plan.ramp_up = plan.duration / 12;
        plan.think = Duration::from_millis(think_ms);
        if self.stage.pool_mode == "session" {
            // A program that stays keeps its connection: let them come and go.
            plan.connection_life = Duration::from_millis(think_ms * 2);
            plan.away = Duration::from_millis(think_ms * 6);
        }
        plan
    }

    /// The first after a third of the time, the second after two thirds.
    fn incidents(&self, seconds: u64, first: IncidentKind, second: IncidentKind) -> Vec<Incident> {
        let length = self.time(seconds).max(Duration::from_secs(6));
        vec![Incident { at: length / 3, kind: first }, Incident { at: length * 2 / 3, kind: second }]
    }

    /// The others are what the report is about; the hot bucket is beside them.
    fn uneven(&self) -> Result<Profile, String> {
        let [hot, others @ ..] = &self.stage.destinations[..] else { return Err("no bucket".to_owned()) };
        if others.is_empty() {
            return Err("needs at least two buckets".to_owned());
        }
        let calm = Plan { destinations: others.to_vec(), ..self.plan(100, 60, 1000) };
        // Long transactions take slots, not processors: it is the bucket that is overloaded, not the machine.
        let storm = Plan {
            destinations: vec![hot.clone()],
            mix: Mix([20, 0, 80, 0, 0]),
            hold: Duration::from_millis(200),
            ..self.plan(400, 60, 500)
        };
        let reference = Plan { duration: calm.duration / 2, ..calm.clone() };
        Ok(Profile { side: Some(storm), reference: Some(reference), ..Profile::plain(calm) })
    }

    /// Two tenants of one bucket: its two databases.
    fn fairness(&self) -> Result<Profile, String> {
        let bucket = self.stage.destinations.iter().find(|to| to.databases.len() > 1);
        let bucket = bucket.ok_or("needs a bucket with two databases")?;
        let of = |at: usize| Destination { databases: vec![bucket.databases[at].clone()], ..bucket.clone() };
        let quiet =
            Plan { destinations: vec![of(0)], mix: Mix::only(Kind::Simple), ..self.plan(10, 40, 200) };
        let storm = Plan {
            destinations: vec![of(1)],
            mix: Mix([20, 0, 80, 0, 0]),
            hold: Duration::from_millis(20),
            ramp_up: Duration::ZERO,
            ..self.plan(300, 40, 100)
        };
        let reference = Plan { duration: quiet.duration / 2, ..quiet.clone() };
        Ok(Profile { side: Some(storm), reference: Some(reference), ..Profile::plain(quiet) })
    }
}
