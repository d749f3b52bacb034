//! What many proxies, buckets and clients ask of Redis while nothing fails, and how long their clients wait for each
//! other. In virtual time: the figures in docs/coordinator.md are made by
//! `cargo test -p tdsbouncer-actors --lib -- --ignored --nocapture three_hundred_thousand_clients`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::super::ledger::Ledger;
use super::super::request::{Answer, Sync, Wake};
use super::super::stake::{Stake, Terms, Use};
use super::super::timing::Timing;
use super::agenda::Agenda;

const TIMING: Timing = Timing { lease: Duration::from_secs(10), fallback: Duration::from_secs(3600) };

// Microseconds. What the bucket's actor does (actors/src/bucket/actor.rs), and what a network in one building does.
const GIVE_BACK_AFTER: u64 = 200_000;
const SPEAK_EVERY: u64 = 50_000;
const TICK: u64 = 250_000;
const TO_REDIS: u64 = 250;
const DIAL: u64 = 5_000;

/// Who wants how much of what.
#[derive(Clone, Copy, Debug)]
struct Load {
    proxies: usize,
    buckets: usize,
    clients: u32,
    /// Of each bucket.
    limit: u32,
    calls_a_minute: f64,
    /// For how long a call has a server connection, on average.
    call: Duration,
    expected: u32,
}

/// What was counted after a minute of warming up.
#[derive(Debug, Default)]
struct Count {
    calls: usize,
    seconds: f64,
    /// Commands at Redis, and how many requests about one bucket they carried.
    commands: u64,
    requests: u64,
    messages: u64,
    /// Microseconds from asking to having a connection.
    waits: Vec<u64>,
    /// The same if one proxy had the whole limit, and connections to it were open.
    alone: Vec<u64>,
}

impl Count {
    fn per_thousand(&self) -> f64 {
        self.commands as f64 * 1000.0 / self.calls as f64
    }
}

fn percentile(waits: &mut [u64], of: f64) -> f64 {
    waits.sort_unstable();
    let at = ((waits.len() as f64 * of) as usize).min(waits.len() - 1);
    waits[at] as f64 / 1000.0
}

enum Event {
    Arrives { bucket: usize },
    Dialled { proxy: usize, bucket: usize },
    Done { proxy: usize, bucket: usize },
    Look { proxy: usize, bucket: usize },
    Ask { proxy: usize },
    Tick { proxy: usize },
    Request { proxy: usize, batch: Vec<(usize, Sync)> },
    Answers { proxy: usize, answers: Vec<(usize, u64, Answer)> },
    Wake { proxy: usize, bucket: usize, wake: Wake },
}

/// One bucket in one proxy.
struct Part {
    stake: Stake,
    usable: u32,
    target: u32,
    busy: u32,
    dialling: u32,
    idle: VecDeque<u64>,
    /// Since when, and how long it will have a connection.
    waiting: VecDeque<(u64, u64)>,
    spoke: Option<u64>,
    looks: bool,
}

impl Part {
    fn used(&self) -> u32 {
        self.busy + self.dialling + self.idle.len() as u32
    }

    fn of(&self, limit: u32, now: u64) -> Use {
        let waiting = self.waiting.len() as u32;
        let oldest = self.waiting.front().map_or(0, |(since, _)| now - since);
        Use {
            used: self.used(),
            want: (self.busy + waiting.max(self.dialling)).min(limit),
            waiting,
            oldest: Duration::from_micros(oldest),
        }
    }
}

struct Proxy {
    parts: Vec<Part>,
    pending: BTreeSet<usize>,
    flies: bool,
    /// No command is sent before.
    paced_until: u64,
    will_ask: bool,
}

struct Installation {
    load: Load,
    now: u64,
    start: Instant,
    random: SmallRng,
    agenda: Agenda<Event>,
    ledgers: Vec<Ledger>,
    proxies: Vec<Proxy>,
    /// When each of a bucket's connections would be free if one proxy had them all.
    alone: Vec<BinaryHeap<Reverse<u64>>>,
    warm: u64,
    count: Count,
}

impl Installation {
    fn new(load: Load, seed: u64) -> Self {
        let part = |proxy: usize| Part {
            stake: Stake::new(
                format!("p{proxy}/1"),
                Terms { timing: TIMING, limit: load.limit, expected: load.expected },
            ),
            usable: 0,
            target: 0,
            busy: 0,
            dialling: 0,
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            spoke: None,
            looks: false,
        };
        let proxy = |number| Proxy {
            parts: (0..load.buckets).map(|_| part(number)).collect(),
            pending: (0..load.buckets).collect(),
            flies: false,
            paced_until: 0,
            will_ask: false,
        };
        let alone = (0..load.limit).map(|_| Reverse(0)).collect::<BinaryHeap<_>>();
        let mut all = Self {
            load,
            now: 0,
            start: Instant::now(),
            random: SmallRng::seed_from_u64(seed),
            agenda: Agenda::new(),
            ledgers: vec![Ledger::default(); load.buckets],
            proxies: (0..load.proxies).map(proxy).collect(),
            alone: vec![alone; load.buckets],
            warm: 60_000_000,
            count: Count::default(),
        };
        for proxy in 0..load.proxies {
            // They did not start at the same moment.
            let first = all.random.random_range(0..TICK);
            all.at(first, Event::Tick { proxy });
        }
        for bucket in 0..load.buckets {
            let first = 15_000_000 + all.until_next_call();
            all.at(first, Event::Arrives { bucket });
        }
        all
    }

    fn clock(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn at(&mut self, time: u64, event: Event) {
        self.agenda.put(time, event);
    }

    /// Calls come independently of each other.
    fn exponential(&mut self, mean: f64) -> u64 {
        let uniform: f64 = self.random.random_range(f64::EPSILON..1.0);
        (-uniform.ln() * mean) as u64
    }

    fn until_next_call(&mut self) -> u64 {
        let of_bucket = f64::from(self.load.clients) / self.load.buckets as f64;
        self.exponential(60_000_000.0 / self.load.calls_a_minute / of_bucket)
    }

    fn run(mut self, seconds: u64) -> Count {
        let over = self.warm + seconds * 1_000_000;
        while let Some((time, event)) = self.agenda.next() {
            self.now = time;
            if self.now >= over {
                break;
            }
            self.happens(event);
        }
        self.count.seconds = seconds as f64;
        self.count
    }

    fn counts(&self) -> bool {
        self.now >= self.warm
    }

    fn happens(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrives { bucket } => {
                let next = now + self.until_next_call();
                self.at(next, Event::Arrives { bucket });
                let proxy = self.random.random_range(0..self.load.proxies);
                let lasts = self.exponential(self.load.call.as_micros() as f64);
                self.proxies[proxy].parts[bucket].waiting.push_back((now, lasts));
                let free = &mut self.alone[bucket];
                let begins = free.pop().map_or(now, |Reverse(free)| free.max(now));
                free.push(Reverse(begins + lasts));
                if self.counts() {
                    self.count.alone.push(begins - now);
                }
                self.proceed(proxy, bucket);
            }
            Event::Dialled { proxy, bucket } => {
                let part = &mut self.proxies[proxy].parts[bucket];
                part.dialling -= 1;
                part.idle.push_back(now);
                self.proceed(proxy, bucket);
            }
            Event::Done { proxy, bucket } => {
                let part = &mut self.proxies[proxy].parts[bucket];
                part.busy -= 1;
                part.idle.push_back(now);
                self.proceed(proxy, bucket);
            }
            Event::Look { proxy, bucket } => {
                self.proxies[proxy].parts[bucket].looks = false;
                self.proceed(proxy, bucket);
            }
            Event::Ask { proxy } => {
                self.proxies[proxy].will_ask = false;
                self.ask_pending(proxy);
            }
            Event::Tick { proxy } => {
                self.at(now + TICK, Event::Tick { proxy });
                let clock = self.clock();
                let beat = self.proxies[proxy].parts.iter().any(|part| part.stake.is_due(clock));
                if self.may_ask(proxy) {
                    self.ask(proxy, (0..self.load.buckets).collect(), beat);
                }
            }
            Event::Request { proxy, batch } => self.request(proxy, batch),
            Event::Answers { proxy, answers } => {
                self.proxies[proxy].flies = false;
                let clock = self.clock();
                for (bucket, seq, answer) in answers {
                    let of = &mut self.proxies[proxy];
                    of.parts[bucket].stake.answered(seq, answer, clock);
                    of.pending.insert(bucket);
                    self.permit(proxy, bucket);
                }
                self.ask_pending(proxy);
            }
            Event::Wake { proxy, bucket, wake } => {
                let of = &mut self.proxies[proxy];
                of.parts[bucket].stake.woken(&wake);
                of.pending.insert(bucket);
                self.permit(proxy, bucket);
                self.ask_pending(proxy);
            }
        }
    }

    fn permit(&mut self, proxy: usize, bucket: usize) {
        let clock = self.clock();
        let part = &mut self.proxies[proxy].parts[bucket];
        (part.usable, part.target) = (part.stake.usable(clock), part.stake.target(clock));
        self.proceed(proxy, bucket);
    }

    /// What the bucket's actor does after each message.
    fn proceed(&mut self, proxy: usize, bucket: usize) {
        let now = self.now;
        let counts = self.counts();
        loop {
            let part = &mut self.proxies[proxy].parts[bucket];
            if part.used() > part.target && part.idle.pop_front().is_some() {
                continue;
            }
            if !part.waiting.is_empty() && part.idle.pop_back().is_some() {
                let (since, lasts) = part.waiting.pop_front().unwrap_or_default();
                part.busy += 1;
                self.at(now + lasts, Event::Done { proxy, bucket });
                if counts {
                    self.count.calls += 1;
                    self.count.waits.push(now - since);
                }
                continue;
            }
            let needed = part.waiting.len() as u32 > part.dialling;
            if needed && part.used() < part.target.min(part.usable) {
                part.dialling += 1;
                self.at(now + DIAL, Event::Dialled { proxy, bucket });
                continue;
            }
            break;
        }
        let used: u32 = self.proxies.iter().map(|proxy| proxy.parts[bucket].used()).sum();
        assert!(used <= self.load.limit, "{used} connections to bucket {bucket}");
        let clock = self.clock();
        let part = &mut self.proxies[proxy].parts[bucket];
        if part.stake.is_hungry(clock) && part.waiting.is_empty() {
            while part.idle.front().is_some_and(|since| now - since >= GIVE_BACK_AFTER) {
                part.idle.pop_front();
            }
            if let Some(since) = part.idle.front()
                && !std::mem::replace(&mut part.looks, true)
            {
                let then = since + GIVE_BACK_AFTER;
                self.at(then, Event::Look { proxy, bucket });
            }
        }
        self.tell(proxy, bucket);
    }

    fn tell(&mut self, proxy: usize, bucket: usize) {
        let (now, clock, limit) = (self.now, self.clock(), self.load.limit);
        let part = &mut self.proxies[proxy].parts[bucket];
        let of = part.of(limit, now);
        let unneeded = part.usable > of.used.max(of.want);
        if of.want <= part.usable && !(unneeded && part.stake.is_hungry(clock)) {
            part.spoke = None;
        } else if part.spoke.is_none_or(|spoke| now - spoke >= SPEAK_EVERY) {
            part.spoke = Some(now);
            part.stake.look();
            self.proxies[proxy].pending.insert(bucket);
            self.ask_pending(proxy);
        }
    }

    fn ask_pending(&mut self, proxy: usize) {
        if self.may_ask(proxy) {
            let pending = std::mem::take(&mut self.proxies[proxy].pending);
            return self.ask(proxy, pending, false);
        }
        let of = &mut self.proxies[proxy];
        if !of.flies && !std::mem::replace(&mut of.will_ask, true) {
            let then = of.paced_until;
            self.at(then, Event::Ask { proxy });
        }
    }

    fn may_ask(&self, proxy: usize) -> bool {
        let of = &self.proxies[proxy];
        !of.flies && self.now >= of.paced_until
    }

    fn ask(&mut self, proxy: usize, buckets: BTreeSet<usize>, beat: bool) {
        let (now, clock, limit) = (self.now, self.clock(), self.load.limit);
        let of = &mut self.proxies[proxy];
        let request = |bucket: usize| {
            let part = &mut of.parts[bucket];
            let used = part.of(limit, now);
            let request = part.stake.request(clock, used, beat);
            (part.usable, part.target) = (part.stake.usable(clock), part.stake.target(clock));
            Some((bucket, request?))
        };
        let batch: Vec<_> = buckets.into_iter().filter_map(request).collect();
        if !batch.is_empty() {
            of.flies = true;
            of.paced_until = now + TIMING.pace().as_micros() as u64;
            self.at(now + TO_REDIS, Event::Request { proxy, batch });
        }
    }

    fn request(&mut self, proxy: usize, batch: Vec<(usize, Sync)>) {
        let now = self.now;
        if self.counts() {
            self.count.commands += 1;
            self.count.requests += batch.len() as u64;
        }
        let mut answers = Vec::new();
        for (bucket, request) in batch {
            let (answer, wake) = self.ledgers[bucket].sync(now / 1000, "life", &request);
            answers.push((bucket, request.seq, answer));
            if let Some(wake) = wake {
                self.count.messages += u64::from(self.counts());
                for proxy in 0..self.load.proxies {
                    self.at(now + TO_REDIS, Event::Wake { proxy, bucket, wake: wake.clone() });
                }
            }
        }
        self.at(now + TO_REDIS, Event::Answers { proxy, answers });
    }
}

fn report(load: Load, seconds: u64) -> Count {
    let mut count = Installation::new(load, 7).run(seconds);
    let a_second = |number: u64| number as f64 / count.seconds;
    println!(
        "{} proxies, {} buckets of {}, {} clients, calls of {:?}: {:.0} calls/s; at Redis {:.1} commands/s for {:.0} \
         buckets/s, {:.1} messages/s, {:.2} commands per 1,000 calls",
        load.proxies,
        load.buckets,
        load.limit,
        load.clients,
        load.call,
        count.calls as f64 / count.seconds,
        a_second(count.commands),
        a_second(count.requests),
        a_second(count.messages),
        count.per_thousand(),
    );
    let line = |name: &str, waits: &mut Vec<u64>| {
        let [half, most, nearly, all] = [0.5, 0.9, 0.99, 0.999].map(|of| percentile(waits, of));
        println!("  {name}: wait of 50% {half:.1} ms, 90% {most:.1}, 99% {nearly:.1}, 99.9% {all:.1}");
    };
    line("shared", &mut count.waits);
    line("alone ", &mut count.alone);
    count
}

const WHOLE: Load = Load {
    proxies: 8,
    buckets: 120,
    clients: 300_000,
    limit: 100,
    calls_a_minute: 10.0,
    call: Duration::from_millis(20),
    expected: 9,
};

#[test]
fn a_tenth_of_the_installation_shares_its_limits_and_asks_redis_seldom() {
    let tenth = Load { buckets: 12, clients: 30_000, ..WHOLE };
    // Enough for all: renewals, whatever the clients do.
    let count = report(tenth, 20);
    let renewals = count.commands as f64 / count.seconds / tenth.proxies as f64;
    assert!(count.calls > 50_000 && renewals < 2.0, "{renewals} commands a second and proxy");
    // Too few: slots go to and fro, as often as is worth it, and nobody is forgotten.
    let mut count = report(Load { limit: 20, call: Duration::from_millis(40), ..tenth }, 20);
    let commands = count.commands as f64 / count.seconds / tenth.proxies as f64;
    assert!(commands < 10.5, "{commands} commands a second and proxy");
    assert!(percentile(&mut count.waits, 1.0) < 20_000.0);
}

#[test]
#[ignore = "a table for the documentation, of minutes"]
fn three_hundred_thousand_clients() {
    for (limit, call) in [(100, 20), (100, 100), (50, 100), (20, 20), (20, 40)] {
        report(Load { limit, call: Duration::from_millis(call), ..WHOLE }, 30);
    }
}
