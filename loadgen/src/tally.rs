//! What came of the work: latencies by kind, errors by number, second by second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::plan::Kind;

/// Parts that programs write to without waiting for each other.
const PARTS: usize = 32;

/// The shortest and the longest latency that are told apart, in microseconds.
const BOUNDS: (u64, u64) = (1, 600_000_000);

/// Wrong answers that are kept word for word.
const KEPT: usize = 20;

/// One second of a run.
#[derive(Clone, Debug)]
pub struct Second {
    /// Pieces of work done.
    pub done: u64,
    /// Errors of any kind.
    pub errors: u64,
    /// Latencies in microseconds.
    pub latencies: Histogram<u64>,
}

impl Default for Second {
    fn default() -> Self {
        Self { done: 0, errors: 0, latencies: histogram(2) }
    }
}

/// Everything that was counted.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Latencies of work by kind, in microseconds.
    pub latencies: [Histogram<u64>; 5],
    /// Latencies by destination, in microseconds.
    pub by_destination: BTreeMap<String, Histogram<u64>>,
    /// Latencies of logins, in microseconds.
    pub logins: Histogram<u64>,
    /// Errors by their number or nature.
    pub errors: BTreeMap<String, u64>,
    /// Errors by destination.
    pub errors_by_destination: BTreeMap<String, u64>,
    /// Answers that were not those of their request. There must be none.
    pub wrong: u64,
    /// The first of them, in words.
    pub wrong_words: Vec<String>,
    /// By second since the run began.
    pub seconds: Vec<Second>,
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, digits).expect("these bounds are allowed")
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            latencies: std::array::from_fn(|_| histogram(3)),
            by_destination: BTreeMap::new(),
            logins: histogram(3),
            errors: BTreeMap::new(),
            errors_by_destination: BTreeMap::new(),
            wrong: 0,
            wrong_words: Vec::new(),
            seconds: Vec::new(),
        }
    }
}

impl Counts {
    /// Work of all kinds together.
    pub fn all(&self) -> Histogram<u64> {
        let mut all = histogram(3);
        for one in &self.latencies {
            all.add(one).expect("equal bounds");
        }
        all
    }

    /// Pieces of work done.
    pub fn done(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }

    /// How many errors there were, but for those named here.
    pub fn errors_but(&self, allowed: &[&str]) -> u64 {
        let other = self.errors.iter().filter(|(label, _)| !allowed.contains(&label.as_str()));
        other.map(|(_, count)| count).sum()
    }

    fn second(&mut self, at: usize) -> &mut Second {
        if self.seconds.len() <= at {
            self.seconds.resize_with(at + 1, Second::default);
        }
        &mut self.seconds[at]
    }

    fn add(&mut self, other: &Self) {
        for (one, more) in self.latencies.iter_mut().zip(&other.latencies) {
            one.add(more).expect("equal bounds");
        }
        for (name, more) in &other.by_destination {
            self.by_destination
                .entry(name.clone())
                .or_insert_with(|| histogram(3))
                .add(more)
                .expect("equal bounds");
        }
        self.logins.add(&other.logins).expect("equal bounds");
        for (label, more) in &other.errors {
            *self.errors.entry(label.clone()).or_default() += more;
        }
        for (label, more) in &other.errors_by_destination {
            *self.errors_by_destination.entry(label.clone()).or_default() += more;
        }
        self.wrong += other.wrong;
        self.wrong_words
            .extend(other.wrong_words.iter().take(KEPT - self.wrong_words.len().min(KEPT)).cloned());
        for (at, more) in other.seconds.iter().enumerate() {
            let second = self.second(at);
            second.done += more.done;
            second.errors += more.errors;
            second.latencies.add(&more.latencies).expect("equal bounds");
        }
    }
}

/// Where programs write.
pub(crate) struct Tally {
    began: Instant,
    parts: Vec<Mutex<Counts>>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }

    fn part(&self, program: usize) -> std::sync::MutexGuard<'_, Counts> {
        self.parts[program % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> usize {
        usize::try_from(self.began.elapsed().as_secs()).unwrap_or(usize::MAX)
    }

    pub(crate) fn done(&self, program: usize, destination: &str, kind: Kind, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (mut part, now) = (self.part(program), self.now());
        part.latencies[kind as usize].saturating_record(micros);
        match part.by_destination.get_mut(destination) {
            Some(one) => one.saturating_record(micros),
            None => {
                let mut one = histogram(3);
                one.saturating_record(micros);
                part.by_destination.insert(destination.to_owned(), one);
            }
        }
        let second = part.second(now);
        second.done += 1;
        second.latencies.saturating_record(micros);
    }

    pub(crate) fn login(&self, program: usize, took: Duration) {
        self.part(program).logins.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn error(&self, program: usize, destination: &str, label: String) {
        let (mut part, now) = (self.part(program), self.now());
        *part.errors.entry(label).or_default() += 1;
        *part.errors_by_destination.entry(destination.to_owned()).or_default() += 1;
        part.second(now).errors += 1;
    }

    pub(crate) fn wrong(&self, program: usize, words: String) {
        let mut part = self.part(program);
        part.wrong += 1;
        if part.wrong_words.len() < KEPT {
            part.wrong_words.push(words);
        }
    }

    /// How much was done so far, and how many errors there were.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        let of = |part: &Mutex<Counts>| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            (part.done(), part.errors.values().sum::<u64>() + part.wrong)
        };
        self.parts.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for part in &self.parts {
            all.add(&part.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }
}
