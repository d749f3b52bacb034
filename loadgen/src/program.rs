//! One program: it connects, works, thinks, leaves and comes back, and says what came of each step.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::client::{Client, ClientError, Target};
use crate::plan::Plan;
use crate::tally::Tally;
use crate::work::{Memory, Trouble, Worker};

/// The first pause after an error that says "try again", and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Errors after which a program goes on with the same connection.
const GOES_ON: std::ops::Range<u8> = 0..20;

pub(crate) struct Program<'a> {
    number: usize,
    plan: &'a Plan,
    tally: &'a Tally,
    /// True once the run is over.
    over: watch::Receiver<bool>,
    random: SmallRng,
    memory: Memory,
    /// Which of the plan's addresses it uses.
    at: usize,
    failures: u32,
}

impl<'a> Program<'a> {
    pub(crate) fn new(number: usize, plan: &'a Plan, tally: &'a Tally, over: watch::Receiver<bool>) -> Self {
        Self {
            number,
            plan,
            tally,
            over,
            random: rand::make_rng(),
            memory: Memory::default(),
            at: number % plan.addresses.len(),
            failures: 0,
        }
    }

    /// Works until the run is over.
    pub(crate) async fn run(mut self, id_base: i64) {
        let plan = self.plan;
        let (destination, database) = plan.place(self.number);
        let worker = Worker {
            plan,
            database,
            id: id_base + i64::try_from(self.number).unwrap_or(0),
            // As many different session states as programs of one kind have: a few.
            lock_timeout: 20_000 + 1000 * i32::try_from(self.number % 4).unwrap_or(0),
        };
        while !*self.over.borrow() {
            let target = Target {
                source: plan.sources.get(self.number % plan.sources.len().max(1)).copied(),
                tls: plan.tls,
                patience: plan.patience,
                ..Target::new(plan.addresses[self.at], &destination.user, &destination.password, database)
            };
            let began = Instant::now();
            match Client::connect(&target).await {
                Ok(client) => {
                    self.tally.login(self.number, began.elapsed());
                    self.connected(client, &worker, &destination.name).await;
                }
                Err(error) => {
                    self.tally.error(self.number, &destination.name, format!("login: {}", error.label()));
                    if matches!(error, ClientError::Connect(_) | ClientError::Lost(_)) {
                        self.at = (self.at + 1) % plan.addresses.len();
                    }
                    self.back_off().await;
                }
            }
        }
    }

    /// From login to leaving.
    async fn connected(&mut self, mut client: Client, worker: &Worker<'_>, destination: &str) {
        let plan = self.plan;
        let life = (!plan.connection_life.is_zero()).then(|| self.exponential(plan.connection_life));
        let began = Instant::now();
        let mut fresh = true;
        loop {
            if fresh {
                match worker.begin(&mut client, &mut self.memory).await {
                    Ok(()) => fresh = false,
                    Err(trouble) => match self.note(trouble, destination).await {
                        true => continue,
                        false => return,
                    },
                }
            }
            if *self.over.borrow() {
                return;
            }
            if life.is_some_and(|life| began.elapsed() > life) {
                drop(client);
                // As a load balancer would: the next proxy, if there are several.
                self.at = (self.at + 1) % plan.addresses.len();
                let away = self.exponential(plan.away);
                self.pause(away).await;
                return;
            }
            let kind = plan.mix.pick(self.random.random());
            let asked = Instant::now();
            match worker.work(kind, &mut client, &mut self.memory, &mut self.random).await {
                Ok(()) => {
                    self.failures = 0;
                    self.tally.done(self.number, destination, kind, asked.elapsed());
                }
                Err(trouble) => {
                    if !self.note(trouble, destination).await {
                        return;
                    }
                    // Whatever was prepared may be gone; the session's state may not be there.
                    fresh = true;
                }
            }
            if !plan.think.is_zero() {
                let think = self.exponential(plan.think);
                self.pause(think).await;
            }
        }
    }

    /// Writes down what went wrong. True if the connection may be used again.
    async fn note(&mut self, trouble: Trouble, destination: &str) -> bool {
        match trouble {
            Trouble::Wrong(words) => {
                self.tally.wrong(self.number, format!("program {}: {words}", self.number));
                false
            }
            Trouble::Error { number, class } => {
                self.tally.error(self.number, destination, number.to_string());
                self.back_off().await;
                GOES_ON.contains(&class) && !*self.over.borrow()
            }
            Trouble::Client(error) => {
                if matches!(error, ClientError::Lost(_)) {
                    self.at = (self.at + 1) % self.plan.addresses.len();
                }
                self.tally.error(self.number, destination, error.label());
                self.back_off().await;
                false
            }
        }
    }

    async fn back_off(&mut self) {
        let (first, longest) = BACK_OFF;
        let pause = (first * 2u32.pow(self.failures.min(8))).min(longest);
        self.failures += 1;
        let jitter = self.random.random_range(0.5..1.0);
        self.pause(pause.mul_f64(jitter)).await;
    }

    /// Sleeps, but not beyond the end of the run.
    async fn pause(&mut self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let mut over = self.over.clone();
        // The sender lives as long as the run.
        let _ = timeout(pause, over.wait_for(|over| *over)).await;
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        let chance: f64 = self.random.random_range(f64::EPSILON..1.0);
        mean.mul_f64((-chance.ln()).min(10.0))
    }
}

/// Waits for a program's turn to start.
pub(crate) async fn start_after(pause: Duration) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
}

/// The moments at which programs start.
pub(crate) fn starts(plan: &Plan) -> Vec<Duration> {
    let mut random = SmallRng::seed_from_u64(1);
    let count = plan.programs.max(1) as f64;
    let even = |n: usize| plan.ramp_up.mul_f64(n as f64 / count);
    match plan.arrival {
        crate::plan::Arrival::Even => (0..plan.programs).map(even).collect(),
        crate::plan::Arrival::Random => {
            (0..plan.programs).map(|_| plan.ramp_up.mul_f64(random.random::<f64>())).collect()
        }
    }
}
