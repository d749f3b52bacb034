//! Proxies, Redis processes and the network between them, in virtual time and from a seed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::super::ledger::Ledger;
use super::super::request::{Answer, Asked, Sync, Wake, to_each};
use super::super::rule::{Rule, keeps};
use super::super::stake::{Stake, Terms, Use};
use super::super::timing::Timing;
use super::agenda::Agenda;

pub(super) const LEASE: u64 = 10_000;
pub(super) const TIMING: Timing =
    Timing { lease: Duration::from_millis(LEASE), fallback: Duration::from_millis(8 * LEASE) };

pub(super) enum Event {
    Moment {
        proxy: usize,
        born: u64,
    },
    /// A batch: what travels together is lost, late and doubled together.
    Request {
        server: usize,
        proxy: usize,
        born: u64,
        batch: Vec<(usize, Sync)>,
    },
    Answer {
        proxy: usize,
        born: u64,
        asked: Asked<usize>,
        answers: Vec<Answer>,
        confirmed: bool,
    },
    Wake {
        proxy: usize,
        bucket: usize,
        wake: Wake,
    },
    Fault,
}

/// One Redis process, from its start to its end.
pub(super) struct Server {
    pub(super) alive: bool,
    /// Cut off from its replicas: another one was made master in its place.
    pub(super) isolated: bool,
    pub(super) life: String,
    /// What is written about each bucket.
    pub(super) ledgers: Vec<Ledger>,
    /// Its time of day, apart from the true time.
    pub(super) offset: i64,
}

/// What a proxy has of one bucket.
pub(super) struct Part {
    pub(super) stake: Stake,
    pub(super) open: u32,
    demand: u32,
    /// Its clients keep their connections for long.
    stubborn: bool,
    waits_since: u64,
    fence: Option<Instant>,
    /// What it believed at its last moment awake.
    believed: u32,
}

pub(super) struct Proxy {
    name: String,
    /// For each bucket; empty: not running.
    pub(super) parts: Vec<Part>,
    born: u64,
    /// Its clock: when true time was 0, and how much faster it runs.
    base: Instant,
    rate: f64,
    pub(super) asleep_until: u64,
    pub(super) to_redis_cut: bool,
    pub(super) from_redis_cut: bool,
    /// When what it sends into a cut arrives.
    stuck_until: u64,
    pub(super) server: usize,
    starts_again: u64,
}

impl Proxy {
    fn clock(&self, now: u64) -> Instant {
        self.base + Duration::from_micros((now as f64 * 1000.0 * self.rate) as u64)
    }

    /// Connections of one bucket that are open, or that it may open this moment.
    fn counts(&self, bucket: usize, now: u64) -> u32 {
        let Some(part) = self.parts.get(bucket) else { return 0 };
        let usable = if now < self.asleep_until { 0 } else { part.stake.usable(self.clock(now)) };
        part.open.max(usable)
    }
}

/// What a run has more of than others.
#[derive(Debug)]
struct Weather {
    /// Percent of messages that come far too late.
    old: u32,
    /// Percent of messages that are slow.
    slow: u32,
    /// Percent of moments at which what clients want changes.
    moody: u32,
    /// What is sent into a cut is not lost but arrives long after, in its order.
    sticky: bool,
}

/// What clients want while nothing goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calm {
    Everything,
    Nothing,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) random: SmallRng,
    agenda: Agenda<Event>,
    pub(super) servers: Vec<Server>,
    pub(super) master: usize,
    pub(super) saved: Vec<Ledger>,
    pub(super) proxies: Vec<Proxy>,
    /// Of each bucket.
    pub(super) limits: Vec<u32>,
    pub(super) expected: u32,
    pub(super) calm: Option<Calm>,
    weather: Weather,
    /// Batches sent.
    pub(super) batches: u64,
    /// Somebody had no time to close what it must not use any more.
    late: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = random.random_range(2..=4usize);
        let limits: Vec<u32> =
            (0..random.random_range(1..=3usize)).map(|_| random.random_range(1..=20)).collect();
        let expected = if random.random_bool(0.7) { count as u32 } else { 0 };
        let weather = Weather {
            old: [0, 2, 10, 25][random.random_range(0..4)],
            slow: [0, 10, 40][random.random_range(0..3)],
            moody: [1, 5, 25][random.random_range(0..3)],
            sticky: random.random_bool(0.3),
        };
        let mut world = Self {
            now: 0,
            random,
            agenda: Agenda::new(),
            servers: Vec::new(),
            master: 0,
            saved: vec![Ledger::default(); limits.len()],
            proxies: Vec::new(),
            limits,
            expected,
            calm: None,
            weather,
            batches: 0,
            late: None,
        };
        world.start_server(world.saved.clone());
        for number in 0..count {
            let rate = world.random.random_range(0.96..1.04);
            world.proxies.push(Proxy {
                name: format!("p{number}"),
                parts: Vec::new(),
                born: 0,
                base: Instant::now() + Duration::from_secs(number as u64 * 1_000),
                rate,
                asleep_until: 0,
                to_redis_cut: false,
                from_redis_cut: false,
                stuck_until: 0,
                server: 0,
                starts_again: 0,
            });
            world.start_proxy(number);
        }
        world.at(world.now + 1000, Event::Fault);
        world
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.agenda.put(time, event);
    }

    pub(super) fn start_server(&mut self, ledgers: Vec<Ledger>) {
        let life = format!("life{}", self.servers.len());
        let offset = self.random.random_range(0..1_000_000_000);
        self.servers.push(Server { alive: true, isolated: false, life, ledgers, offset });
        self.master = self.servers.len() - 1;
    }

    fn start_proxy(&mut self, number: usize) {
        let born = self.agenda.number();
        let proxy = &mut self.proxies[number];
        let part = |limit: &u32| Part {
            stake: Stake::new(
                format!("{}/{born}", proxy.name),
                Terms { timing: TIMING, limit: *limit, expected: self.expected },
            ),
            open: 0,
            demand: 0,
            stubborn: false,
            waits_since: 0,
            fence: None,
            believed: 0,
        };
        proxy.parts = self.limits.iter().map(part).collect();
        (proxy.born, proxy.server) = (born, self.master);
        self.at(self.now + 1, Event::Moment { proxy: number, born });
    }

    pub(super) fn kill(&mut self, number: usize) {
        let again = self.now + self.random.random_range(1..3 * LEASE);
        let proxy = &mut self.proxies[number];
        proxy.parts.clear();
        (proxy.asleep_until, proxy.starts_again) = (0, again);
        self.at(again, Event::Moment { proxy: number, born: 0 });
    }

    fn step(&mut self) {
        let Some((time, event)) = self.agenda.next() else { return };
        self.now = time;
        self.fences();
        match event {
            Event::Moment { proxy, born } => self.moment(proxy, born),
            Event::Request { server, proxy, born, batch } => self.request(server, proxy, born, &batch),
            Event::Answer { proxy, born, asked, answers, confirmed } => {
                self.answer(proxy, born, asked, answers, confirmed);
            }
            Event::Wake { proxy, bucket, wake } => {
                if let Some(part) = self.proxies[proxy].parts.get_mut(bucket) {
                    part.stake.woken(&wake);
                }
            }
            Event::Fault => self.fault(),
        }
    }

    /// What the kernel does to those who sleep.
    fn fences(&mut self) {
        for number in 0..self.proxies.len() {
            let proxy = &self.proxies[number];
            let fence = proxy.parts.iter().filter_map(|part| part.fence).min();
            if fence.is_some_and(|fence| proxy.clock(self.now) >= fence) && keeps(Rule::Fence) {
                if fence >= Some(proxy.clock(proxy.asleep_until)) {
                    let open: Vec<u32> = proxy.parts.iter().map(|part| part.open).collect();
                    self.late = Some(format!("{} was awake and still had {open:?} open", proxy.name));
                }
                self.kill(number);
            }
        }
    }

    fn moment(&mut self, number: usize, born: u64) {
        let now = self.now;
        let proxy = &self.proxies[number];
        if proxy.parts.is_empty() && now >= proxy.starts_again {
            return self.start_proxy(number);
        }
        if proxy.born != born || proxy.parts.is_empty() {
            return;
        }
        if now < proxy.asleep_until {
            let until = proxy.asleep_until;
            return self.at(until, Event::Moment { proxy: number, born });
        }
        let pause = self.random.random_range(20..LEASE / 25);
        self.at(now + pause, Event::Moment { proxy: number, born });
        if !self.servers[self.proxies[number].server].alive {
            self.proxies[number].server = self.master;
        }
        let clock = self.proxies[number].clock(now);
        let beat = self.proxies[number].parts.iter().any(|part| part.stake.is_due(clock));
        let buckets = 0..self.limits.len();
        let live = |bucket| Some((bucket, self.live(number, bucket, beat)?));
        let batch: Vec<(usize, Sync)> = buckets.filter_map(live).collect();
        if batch.is_empty() {
            return;
        }
        self.batches += 1;
        let (server, cut) = (self.proxies[number].server, self.proxies[number].to_redis_cut);
        if cut && self.weather.sticky && self.calm.is_none() {
            let proxy = &mut self.proxies[number];
            if proxy.stuck_until <= now {
                proxy.stuck_until = now + self.random.random_range(LEASE..7 * LEASE);
            }
            let until = proxy.stuck_until;
            return self.at(until, Event::Request { server, proxy: number, born, batch });
        }
        for _ in 0..self.copies(cut) {
            let delay = self.delay();
            let batch = batch.clone();
            self.at(now + delay, Event::Request { server, proxy: number, born, batch });
        }
    }

    /// What a bucket does: opens and closes connections as it may and must, and has something to tell Redis.
    fn live(&mut self, number: usize, bucket: usize, beat: bool) -> Option<Sync> {
        let (now, limit) = (self.now, self.limits[bucket]);
        let random = &mut self.random;
        let proxy = &mut self.proxies[number];
        let clock = proxy.clock(now);
        let Part { stake, open, demand, stubborn, waits_since, fence, believed } = &mut proxy.parts[bucket];
        match self.calm {
            Some(Calm::Everything) => *demand = limit,
            Some(Calm::Nothing) => *demand = 0,
            None if random.random_bool(f64::from(self.weather.moody) / 100.0) => {
                *demand = if random.random_bool(0.3) { 0 } else { random.random_range(0..=2 * limit) };
            }
            None => {}
        }
        let mut soft = if keeps(Rule::ClockBeforeUse) { stake.target(clock) } else { *believed };
        let soon = stake.allowance().at(clock + Duration::from_millis(LEASE / 10));
        if keeps(Rule::LeaseEnds) && keeps(Rule::ClockBeforeUse) {
            soft = soft.min(soon);
        }
        if *open > soon && keeps(Rule::LeaseEnds) && keeps(Rule::ClockBeforeUse) {
            *open = soon;
        }
        if self.calm.is_none() && random.random_bool(0.01) {
            *stubborn = random.random_bool(0.5);
        }
        let patient = *stubborn && self.calm.is_none();
        if *open > soft && random.random_bool(if patient { 0.002 } else { 0.3 }) {
            *open -= 1;
        }
        if *open > *demand && (stake.is_hungry(clock) || random.random_bool(0.02)) {
            *open -= 1;
        }
        if *open < (*demand).min(soft) {
            *open = if random.random_bool(0.5) { *open + 1 } else { (*demand).min(soft) };
        }
        let waiting = demand.saturating_sub(*open);
        if waiting == 0 {
            *waits_since = now;
        }
        stake.look();
        let oldest = Duration::from_millis(now - *waits_since);
        let request = stake.request(clock, Use { used: *open, want: *demand, waiting, oldest }, beat);
        let allowance = stake.allowance();
        *believed = allowance.at(clock);
        *fence = allowance.ends_for(*open, clock);
        request
    }

    /// How often a message arrives.
    fn copies(&mut self, cut: bool) -> usize {
        if self.calm.is_some() {
            return 1;
        }
        match self.random.random_range(0..100) {
            _ if cut => 0,
            0..3 => 0,
            3..6 => 2,
            _ => 1,
        }
    }

    fn delay(&mut self) -> u64 {
        if self.calm.is_some() {
            return self.random.random_range(1..10);
        }
        let percent = self.random.random_range(0..100);
        if percent < self.weather.old {
            self.random.random_range(LEASE / 10..5 * LEASE)
        } else if percent < self.weather.old + self.weather.slow {
            self.random.random_range(LEASE / 25..LEASE / 8)
        } else {
            self.random.random_range(1..10)
        }
    }

    fn request(&mut self, server: usize, proxy: usize, born: u64, batch: &[(usize, Sync)]) {
        let now = self.now;
        let redis = &mut self.servers[server];
        if !redis.alive {
            return;
        }
        let time = now.saturating_add_signed(redis.offset);
        let life = redis.life.clone();
        let (mut answers, mut wakes) = (Vec::new(), Vec::new());
        for (bucket, request) in batch {
            let (answer, wake) = redis.ledgers[*bucket].sync(time, &life, request);
            answers.push(answer);
            wakes.extend(wake.map(|wake| (*bucket, wake)));
        }
        let confirmed = !redis.isolated;
        if confirmed && self.random.random_bool(0.01) {
            self.saved = redis.ledgers.clone();
        }
        let cut = self.proxies[proxy].from_redis_cut;
        for _ in 0..self.copies(cut) {
            let delay = self.delay();
            let asked = batch.iter().map(|(bucket, request)| (*bucket, request.seq)).collect();
            let answers = answers.clone();
            self.at(now + delay, Event::Answer { proxy, born, asked, answers, confirmed });
        }
        for (bucket, wake) in wakes {
            for number in 0..self.proxies.len() {
                if self.proxies[number].server == server {
                    for _ in 0..self.copies(self.proxies[number].from_redis_cut) {
                        let delay = self.delay();
                        self.at(now + delay, Event::Wake { proxy: number, bucket, wake: wake.clone() });
                    }
                }
            }
        }
    }

    fn answer(
        &mut self,
        number: usize,
        born: u64,
        asked: Asked<usize>,
        answers: Vec<Answer>,
        confirmed: bool,
    ) {
        let now = self.now;
        let proxy = &mut self.proxies[number];
        let clock = proxy.clock(now);
        if !confirmed && keeps(Rule::Confirmed) {
            return;
        }
        if now < proxy.asleep_until {
            // It lies in the socket until the proxy wakes.
            let until = proxy.asleep_until;
            return self.at(until, Event::Answer { proxy: number, born, asked, answers, confirmed });
        }
        if proxy.born != born || proxy.parts.is_empty() {
            return;
        }
        let mut new_life = false;
        for (bucket, seq, answer) in to_each(asked, answers) {
            let part = &mut proxy.parts[bucket];
            new_life |= part.stake.answered(seq, answer, clock);
            part.fence = part.stake.allowance().ends_for(part.open, clock);
        }
        if new_life {
            proxy.parts.iter_mut().for_each(|part| part.stake.rouse());
        }
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm_down(&mut self, calm: Calm) {
        self.calm = Some(calm);
        let master = self.master;
        for server in &mut self.servers {
            server.alive = !server.isolated && server.alive;
        }
        for proxy in &mut self.proxies {
            (proxy.to_redis_cut, proxy.from_redis_cut, proxy.server) = (false, false, master);
        }
    }

    /// Runs `steps`; the moment at which a limit was exceeded, if one was.
    pub(super) fn run(&mut self, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            self.step();
            if let Some(late) = self.late.take() {
                return Err(format!("step {step}, {} ms: {late}", self.now));
            }
            for (bucket, limit) in self.limits.iter().enumerate() {
                let counts = |proxy: &Proxy| proxy.counts(bucket, self.now);
                if self.proxies.iter().map(counts).sum::<u32>() > *limit {
                    let all: Vec<_> = self.proxies.iter().map(|proxy| (&proxy.name, counts(proxy))).collect();
                    return Err(format!("step {step}, {} ms: {all:?} exceed {limit}", self.now));
                }
            }
        }
        Ok(())
    }
}
