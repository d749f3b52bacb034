//! Proxies and Redis in virtual time, with everything going wrong that can: the limit holds after every step.
//!
//! A step is one event: a request or answer that arrives, a moment in a proxy's life, a fault. Every run is made from
//! its seed alone. For each rule the simulation runs without it, and must notice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::request::{Answer, Sync, Wake};
use super::rule::{Rule, keeps, with_broken};
use super::stake::{Stake, Terms, Use};
use super::timing::Timing;

const LEASE: u64 = 10_000;
const TIMING: Timing =
    Timing { lease: Duration::from_millis(LEASE), fallback: Duration::from_millis(8 * LEASE) };

/// Steps of the run that must hold; `SIMULATION_STEPS` says another number.
const STEPS: u64 = 1_000_000;

enum Event {
    Moment { proxy: usize, born: u64 },
    Request { server: usize, proxy: usize, request: Box<Sync> },
    Answer { proxy: usize, member: String, seq: u64, answer: Box<Answer>, confirmed: bool },
    Wake { proxy: usize, wake: Wake },
    Fault,
}

/// One Redis process, from its start to its end.
struct Server {
    alive: bool,
    /// Cut off from its replicas: another one was made master in its place.
    isolated: bool,
    life: String,
    ledger: Ledger,
    /// Its time of day, apart from the true time.
    offset: i64,
}

struct Proxy {
    name: String,
    /// `None`: not running.
    stake: Option<Stake>,
    born: u64,
    open: u32,
    demand: u32,
    /// Its clients keep their connections for long.
    stubborn: bool,
    waits_since: u64,
    /// Its clock: when true time was 0, and how much faster it runs.
    base: Instant,
    rate: f64,
    asleep_until: u64,
    fence: Option<Instant>,
    /// What it believed at its last moment awake.
    believed: u32,
    to_redis_cut: bool,
    from_redis_cut: bool,
    server: usize,
    starts_again: u64,
}

impl Proxy {
    fn clock(&self, now: u64) -> Instant {
        self.base + Duration::from_micros((now as f64 * 1000.0 * self.rate) as u64)
    }

    /// Connections that are open, or that it may open this moment.
    fn counts(&self, now: u64) -> u32 {
        let Some(stake) = &self.stake else { return 0 };
        let usable = if now < self.asleep_until { 0 } else { stake.usable(self.clock(now)) };
        self.open.max(usable)
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
}

struct World {
    now: u64,
    random: SmallRng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    order: u64,
    servers: Vec<Server>,
    master: usize,
    saved: Ledger,
    proxies: Vec<Proxy>,
    limit: u32,
    expected: u32,
    calm: bool,
    weather: Weather,
    requests: u64,
    /// Somebody had no time to close what it must not use any more.
    late: Option<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = random.random_range(2..=4usize);
        let limit = random.random_range(1..=20);
        let expected = if random.random_bool(0.8) { count as u32 } else { 0 };
        let weather = Weather {
            old: [0, 2, 10, 25][random.random_range(0..4)],
            slow: [0, 10, 40][random.random_range(0..3)],
            moody: [1, 5, 25][random.random_range(0..3)],
        };
        let mut world = Self {
            now: 0,
            random,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            order: 0,
            servers: Vec::new(),
            master: 0,
            saved: Ledger::default(),
            proxies: Vec::new(),
            limit,
            expected,
            calm: false,
            weather,
            requests: 0,
            late: None,
        };
        world.start_server(Ledger::default());
        for number in 0..count {
            let rate = world.random.random_range(0.96..1.04);
            world.proxies.push(Proxy {
                name: format!("p{number}"),
                stake: None,
                born: 0,
                open: 0,
                demand: 0,
                stubborn: false,
                waits_since: 0,
                base: Instant::now() + Duration::from_secs(number as u64 * 1_000),
                rate,
                asleep_until: 0,
                fence: None,
                believed: 0,
                to_redis_cut: false,
                from_redis_cut: false,
                server: 0,
                starts_again: 0,
            });
            world.start_proxy(number);
        }
        world.at(world.now + 1000, Event::Fault);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.order += 1;
        // The order of arrival decides between events of the same moment.
        self.queue.push(Reverse((time << 20 | (self.order & 0xF_FFFF), slot as u64)));
    }

    fn start_server(&mut self, ledger: Ledger) {
        let life = format!("life{}", self.servers.len());
        let offset = self.random.random_range(0..1_000_000_000);
        self.servers.push(Server { alive: true, isolated: false, life, ledger, offset });
        self.master = self.servers.len() - 1;
    }

    fn start_proxy(&mut self, number: usize) {
        let terms = Terms { timing: TIMING, limit: self.limit, expected: self.expected };
        self.order += 1;
        let born = self.order;
        let proxy = &mut self.proxies[number];
        proxy.stake = Some(Stake::new(format!("{}/{born}", proxy.name), terms));
        (proxy.born, proxy.open, proxy.believed, proxy.fence) = (born, 0, 0, None);
        proxy.server = self.master;
        self.at(self.now + 1, Event::Moment { proxy: number, born });
    }

    fn kill(&mut self, number: usize) {
        let again = self.now + self.random.random_range(1..3 * LEASE);
        let proxy = &mut self.proxies[number];
        (proxy.stake, proxy.open, proxy.asleep_until, proxy.starts_again) = (None, 0, 0, again);
        self.at(again, Event::Moment { proxy: number, born: 0 });
    }

    fn step(&mut self) {
        let Some(Reverse((key, slot))) = self.queue.pop() else { return };
        self.now = key >> 20;
        self.free.push(slot as usize);
        let Some(event) = self.events[slot as usize].take() else { return };
        self.fences();
        match event {
            Event::Moment { proxy, born } => self.moment(proxy, born),
            Event::Request { server, proxy, request } => self.request(server, proxy, *request),
            Event::Answer { proxy, member, seq, answer, confirmed } => {
                self.answer(proxy, &member, seq, *answer, confirmed);
            }
            Event::Wake { proxy, wake } => {
                if let Some(stake) = &mut self.proxies[proxy].stake {
                    stake.woken(&wake);
                }
            }
            Event::Fault => self.fault(),
        }
    }

    /// What the kernel does to those who sleep.
    fn fences(&mut self) {
        for number in 0..self.proxies.len() {
            let proxy = &self.proxies[number];
            let over = proxy.fence.is_some_and(|fence| proxy.clock(self.now) >= fence);
            if proxy.stake.is_some() && over && keeps(Rule::Fence) {
                if proxy.fence >= Some(proxy.clock(proxy.asleep_until)) {
                    self.late = Some(format!("{} was awake and still had {} open", proxy.name, proxy.open));
                }
                self.kill(number);
            }
        }
    }

    fn moment(&mut self, number: usize, born: u64) {
        let now = self.now;
        let proxy = &mut self.proxies[number];
        if proxy.stake.is_none() && now >= proxy.starts_again {
            return self.start_proxy(number);
        }
        if proxy.born != born || proxy.stake.is_none() {
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
        self.live(number);
    }

    /// What a bucket does: opens and closes connections as it may and must, and tells Redis.
    fn live(&mut self, number: usize) {
        let now = self.now;
        let (calm, limit) = (self.calm, self.limit);
        let random = &mut self.random;
        let proxy = &mut self.proxies[number];
        let clock = proxy.clock(now);
        let Some(stake) = &mut proxy.stake else { return };
        if calm {
            proxy.demand = limit;
        } else if random.random_bool(f64::from(self.weather.moody) / 100.0) {
            proxy.demand = if random.random_bool(0.3) { 0 } else { random.random_range(0..=2 * limit) };
        }
        let mut soft = if keeps(Rule::ClockBeforeUse) { stake.target(clock) } else { proxy.believed };
        let soon = stake.allowance().at(clock + Duration::from_millis(LEASE / 10));
        if keeps(Rule::LeaseEnds) && keeps(Rule::ClockBeforeUse) {
            soft = soft.min(soon);
        }
        if proxy.open > soon && keeps(Rule::LeaseEnds) && keeps(Rule::ClockBeforeUse) {
            proxy.open = soon;
        }
        if !calm && random.random_bool(0.01) {
            proxy.stubborn = random.random_bool(0.5);
        }
        if proxy.open > soft && random.random_bool(if proxy.stubborn && !calm { 0.002 } else { 0.3 }) {
            proxy.open -= 1;
        }
        if proxy.open > proxy.demand && (stake.is_hungry() || random.random_bool(0.02)) {
            proxy.open -= 1;
        }
        if proxy.open < proxy.demand.min(soft) {
            proxy.open = if random.random_bool(0.5) { proxy.open + 1 } else { proxy.demand.min(soft) };
        }
        let waiting = proxy.demand.saturating_sub(proxy.open);
        if waiting == 0 {
            proxy.waits_since = now;
        }
        stake.look();
        let oldest = Duration::from_millis(now - proxy.waits_since);
        let request = stake.request(clock, Use { used: proxy.open, want: proxy.demand, waiting, oldest });
        let allowance = stake.allowance();
        proxy.believed = allowance.at(clock);
        proxy.fence = allowance.ends_for(proxy.open, clock);
        if let Some(request) = request {
            self.requests += 1;
            let server = self.proxies[number].server;
            let cut = self.proxies[number].to_redis_cut;
            for _ in 0..self.copies(cut) {
                let delay = self.delay();
                let request = Box::new(request.clone());
                self.at(now + delay, Event::Request { server, proxy: number, request });
            }
        }
    }

    /// How often a message arrives.
    fn copies(&mut self, cut: bool) -> usize {
        if self.calm {
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
        if self.calm {
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

    fn request(&mut self, server: usize, proxy: usize, request: Sync) {
        let now = self.now;
        let redis = &mut self.servers[server];
        if !redis.alive {
            return;
        }
        let time = now.saturating_add_signed(redis.offset);
        let life = redis.life.clone();
        let (answer, wake) = redis.ledger.sync(time, &life, &request);
        let confirmed = !redis.isolated;
        if confirmed && self.random.random_bool(0.01) {
            self.saved = redis.ledger.clone();
        }
        let cut = self.proxies[proxy].from_redis_cut;
        for _ in 0..self.copies(cut) {
            let delay = self.delay();
            let (member, seq) = (request.member.clone(), request.seq);
            let answer = Box::new(answer.clone());
            self.at(now + delay, Event::Answer { proxy, member, seq, answer, confirmed });
        }
        if let Some(wake) = wake {
            for number in 0..self.proxies.len() {
                if self.proxies[number].server == server {
                    for _ in 0..self.copies(self.proxies[number].from_redis_cut) {
                        let delay = self.delay();
                        self.at(now + delay, Event::Wake { proxy: number, wake: wake.clone() });
                    }
                }
            }
        }
    }

    fn answer(&mut self, number: usize, member: &str, seq: u64, answer: Answer, confirmed: bool) {
        let now = self.now;
        let proxy = &mut self.proxies[number];
        let clock = proxy.clock(now);
        if !confirmed && keeps(Rule::Confirmed) {
            return;
        }
        if now < proxy.asleep_until {
            // It lies in the socket until the proxy wakes.
            let until = proxy.asleep_until;
            let answer = Box::new(answer);
            return self.at(
                until,
                Event::Answer { proxy: number, member: member.to_owned(), seq, answer, confirmed },
            );
        }
        let Some(stake) = proxy.stake.as_mut().filter(|stake| stake.id() == member) else { return };
        stake.answered(seq, answer, clock);
        let allowance = stake.allowance();
        proxy.fence = allowance.ends_for(proxy.open, clock);
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let next = self.random.random_range(100..LEASE);
        self.at(self.now + next, Event::Fault);
        let number = self.random.random_range(0..self.proxies.len());
        let (now, long) = (self.now, self.random.random_range(1..3 * LEASE));
        match self.random.random_range(0..16) {
            0 | 1 => self.kill(number),
            2 | 3 => {
                let proxy = &mut self.proxies[number];
                proxy.asleep_until = proxy.asleep_until.max(now + long);
            }
            4 => self.proxies[number].to_redis_cut ^= true,
            5 => self.proxies[number].from_redis_cut ^= true,
            6 => {
                let cut = self.random.random_bool(0.5);
                (self.proxies[number].to_redis_cut, self.proxies[number].from_redis_cut) = (cut, cut);
            }
            7 => self.replace_redis(Ledger::default()),
            8 => self.replace_redis(self.servers[self.master].ledger.clone()),
            9 => self.replace_redis(self.saved.clone()),
            10 => self.fail_over(),
            11 => {
                let offset = self.random.random_range(-(LEASE as i64)..LEASE as i64 * 10);
                self.servers[self.master].offset += offset;
            }
            12 => {
                // A leap that is still taken for time, and no larger.
                self.servers[self.master].offset += self.random.random_range(0..LEASE as i64 * 3 / 10);
            }
            13 => {
                // Redis is away for everybody, for long.
                let every = self.random.random_bool(0.3);
                self.proxies.iter_mut().for_each(|proxy| proxy.to_redis_cut = every);
            }
            _ => {
                for proxy in &mut self.proxies {
                    (proxy.to_redis_cut, proxy.from_redis_cut) = (false, false);
                }
            }
        }
    }

    fn replace_redis(&mut self, ledger: Ledger) {
        let master = self.master;
        self.servers[master].alive = false;
        self.start_server(ledger);
    }

    /// A replica is made master; who is left with the old one goes on asking it.
    fn fail_over(&mut self) {
        let old = self.master;
        for server in &mut self.servers {
            server.alive &= !server.isolated;
        }
        let ledger = self.servers[old].ledger.clone();
        self.servers[old].isolated = true;
        self.start_server(ledger);
        for number in 0..self.proxies.len() {
            if self.random.random_bool(0.5) {
                self.proxies[number].server = self.master;
            }
        }
    }

    /// From now on nothing goes wrong, and everybody wants everything.
    fn calm_down(&mut self) {
        self.calm = true;
        let master = self.master;
        for server in &mut self.servers {
            server.alive = !server.isolated && server.alive;
        }
        for proxy in &mut self.proxies {
            (proxy.to_redis_cut, proxy.from_redis_cut, proxy.server) = (false, false, master);
        }
    }

    fn in_use(&self) -> u32 {
        self.proxies.iter().map(|proxy| proxy.counts(self.now)).sum()
    }

    /// Runs `steps`; the moment at which the limit was exceeded, if it was.
    fn run(&mut self, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            self.step();
            if let Some(late) = self.late.take() {
                return Err(format!("step {step}, {} ms: {late}", self.now));
            }
            if self.in_use() > self.limit {
                let all: Vec<_> = (self.proxies.iter())
                    .map(|proxy| (&proxy.name, proxy.open, proxy.counts(self.now)))
                    .collect();
                return Err(format!("step {step}, {} ms: {all:?} exceed {}", self.now, self.limit));
            }
        }
        Ok(())
    }
}

const STEPS_OF_A_SEED: usize = 20_000;

#[test]
fn the_limit_holds_after_each_of_a_million_steps_and_no_slot_is_lost() {
    let said = std::env::var("SIMULATION_STEPS").ok().map(|text| text.parse().expect("a number"));
    let seeds = said.unwrap_or(STEPS) / STEPS_OF_A_SEED as u64;
    let threads: Vec<_> = (0..2)
        .map(|half| std::thread::spawn(move || (0..seeds).filter(|seed| seed % 2 == half).for_each(hold)))
        .collect();
    for thread in threads {
        thread.join().expect("the limit holds");
    }
}

fn hold(seed: u64) {
    let mut world = World::new(seed);
    if let Err(exceeded) = world.run(STEPS_OF_A_SEED) {
        panic!("seed {seed}: {exceeded}");
    }
    world.calm_down();
    let over = world.now + 25 * LEASE;
    while world.now < over {
        if let Err(exceeded) = world.run(50) {
            panic!("seed {seed}, calm: {exceeded}");
        }
    }
    let (open, ledger): (Vec<u32>, _) =
        (world.proxies.iter().map(|proxy| proxy.open).collect(), &world.servers[world.master].ledger);
    let held: u32 = ledger.members.values().map(|member| member.held).sum();
    assert_eq!(held, world.limit, "seed {seed}: slots are lost: {ledger:?}");
    let fair = world.limit / open.len() as u32;
    if fair > 0 {
        assert_eq!(open.iter().sum::<u32>(), world.limit, "seed {seed}: slots are not used: {open:?}");
        assert!(open.iter().all(|open| *open >= fair), "seed {seed}: {open:?} is not fair");
    } else {
        // Fewer slots than proxies: they go round.
        let recently = ledger.clock - 5 * LEASE;
        assert!(ledger.members.values().all(|member| member.got > recently), "seed {seed}: {ledger:?}");
    }
}

/// The seed with which a broken rule shows; `first` did when it was last looked for.
fn noticed_with(rule: Rule, first: u64) -> Option<u64> {
    std::iter::once(first)
        .chain(0..400)
        .find(|seed| with_broken(rule, || World::new(*seed).run(STEPS_OF_A_SEED).is_err()))
}

macro_rules! each_rule {
    ($($name:ident: $rule:ident, $first:literal;)*) => {
        $(#[test]
        fn $name() {
            let seed = noticed_with(Rule::$rule, $first).expect("breaking the rule is noticed");
            println!("{:?}: noticed with seed {seed}", Rule::$rule);
        })*
    };
}

each_rule! {
    a_lease_counted_from_its_answer_is_noticed: LeaseFromSending, 293;
    using_what_no_lease_covers_is_noticed: LeaseEnds, 0;
    using_something_after_a_pause_without_a_look_at_the_clock_is_noticed: ClockBeforeUse, 0;
    a_sleeper_that_nobody_ends_is_noticed: Fence, 5;
    believing_a_redis_without_its_replicas_is_noticed: Confirmed, 0;
    using_what_is_being_given_back_is_noticed: PromiseBeforeSending, 1;
    believing_answers_to_earlier_requests_is_noticed: OwnAnswersOnly, 1;
    growing_to_the_share_at_once_is_noticed: GrowLate, 0;
    growing_without_having_said_so_is_noticed: ClaimShare, 89;
    renewing_what_must_be_given_up_is_noticed: MustShrink, 278;
    using_a_share_for_ever_is_noticed: KeepEnds, 12;
    granting_at_once_after_losing_the_memory_is_noticed: SettleNewLife, 0;
    taking_a_jump_of_the_clock_for_time_is_noticed: SettleSilence, 0;
    taking_requests_out_of_order_is_noticed: SequenceOnly, 1;
    taking_requests_that_were_long_under_way_is_noticed: NoOldRequests, 146;
    giving_shares_away_is_noticed: KeepShare, 9;
    giving_away_shares_of_those_one_does_not_know_is_noticed: KeepUnknownShares, 1;
    granting_more_than_is_free_is_noticed: OnlyWhatIsFree, 0;
}
