//! One proxy's side of one bucket's ledger: what it may use, until when, and what it tells Redis. Time is an argument.
//!
//! ```text
//!            taken                 no answer for `valid`             no answer for `keep`
//! joining ─────────► normal ─────────────────────────────► fallback ─────────────────────► none
//!    ▲                 │  ▲   Redis settles: quota stays,     │           taken              │
//!    │                 ├──┘   nothing is granted              └────────► normal ◄────────────┘
//!    │ somebody wants  ▼ nothing held or wanted, no share to keep
//!    └──────────────  idle
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::allowance::{Allowance, MUSTS};
use super::request::{Answer, Grant, Sync, Told, Wake};
use super::rule::{Rule, keeps};
use super::timing::Timing;

/// What the bucket does at the moment of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// Connections opening, open or closing.
    pub(crate) used: u32,
    /// Slots that it has work for.
    pub(crate) want: u32,
    /// Clients that wait.
    pub(crate) waiting: u32,
    /// For how long the first of them does.
    pub(crate) oldest: Duration,
}

/// What a proxy is configured with.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) timing: Timing,
    /// `max_connections`.
    pub(crate) limit: u32,
    /// `expected_instances`.
    pub(crate) expected: u32,
}

/// How a proxy stands with Redis about one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Redis has not answered yet.
    Joining,
    Normal,
    /// Redis finds out who holds what, and grants nothing new.
    Reconciling,
    /// Redis does not answer: this proxy works with its share.
    Fallback,
    /// Redis has not answered for so long that even the share is gone.
    Cut,
    /// Nothing is held or wanted: this proxy took its leave until a client comes.
    Idle,
}

impl Mode {
    pub(crate) const ALL: [Self; 6] =
        [Self::Joining, Self::Normal, Self::Reconciling, Self::Fallback, Self::Cut, Self::Idle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Normal => "normal",
            Self::Reconciling => "reconciling",
            Self::Fallback => "fallback",
            Self::Cut => "cut",
            Self::Idle => "idle",
        }
    }
}

#[derive(Debug)]
struct Flight {
    seq: u64,
    sent: Instant,
    leave: bool,
}

/// One bucket's stake.
#[derive(Debug)]
pub(crate) struct Stake {
    id: String,
    terms: Terms,
    seq: u64,
    life: String,
    /// Redis' clock for this bucket, and when it showed that.
    clock: Option<(u64, Instant)>,
    join: bool,
    fresh: bool,
    flight: Option<Flight>,
    /// It took its leave, and Redis knows nothing of it any more.
    idle: bool,
    /// Its bucket is not there any more: no share is kept.
    retired: bool,
    /// No more than this is used by agreement.
    promise: u32,
    share: u32,
    /// When the last request was sent that was taken.
    proven: Option<Instant>,
    /// When the last request was sent that did not claim the share.
    unclaimed: Option<Instant>,
    /// Redis is away for so long that the whole share may be used.
    grown: bool,
    /// What must be come down to, and until when: falling values, rising ends.
    must: Vec<(u32, Instant)>,
    target: u32,
    hungry: bool,
    settled: bool,
    epoch: u64,
    limit: u32,
    twin: bool,
    told_want: u32,
    /// No request is sent before, unless something happens.
    next: Option<Instant>,
    /// Something happened.
    look: bool,
    /// Something was granted that no answer has told yet.
    granted: bool,
    round_trip: Duration,
}

impl Stake {
    /// A member that Redis knows nothing of; `id` is `instance/incarnation`, never used before.
    pub(crate) fn new(id: String, terms: Terms) -> Self {
        let limit = terms.limit;
        Self {
            id,
            terms,
            seq: 0,
            life: String::new(),
            clock: None,
            join: true,
            fresh: true,
            flight: None,
            idle: false,
            retired: false,
            promise: 0,
            share: 0,
            proven: None,
            unclaimed: None,
            grown: false,
            must: Vec::new(),
            target: 0,
            hungry: false,
            settled: false,
            epoch: 0,
            limit,
            twin: false,
            told_want: 0,
            next: None,
            look: true,
            granted: false,
            round_trip: Duration::ZERO,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn mode(&self, now: Instant) -> Mode {
        let Some(proven) = self.proven else { return if self.idle { Mode::Idle } else { Mode::Joining } };
        let age = now.saturating_duration_since(proven);
        match self.settled {
            _ if age >= self.terms.timing.keep().max(self.terms.timing.valid()) => Mode::Cut,
            _ if age >= self.terms.timing.valid() => Mode::Fallback,
            true => Mode::Normal,
            false => Mode::Reconciling,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The limit in force, as far as is known.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Somebody waits for slots: what is not needed is given back.
    pub(crate) fn is_hungry(&self, now: Instant) -> bool {
        self.hungry && self.mode(now) != Mode::Fallback
    }

    /// Another proxy uses the same instance name.
    pub(crate) fn has_twin(&self) -> bool {
        self.twin
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// How many slots the bucket should come down to, to make room for others. Without Redis nobody else can have them.
    pub(crate) fn target(&self, now: Instant) -> u32 {
        let usable = self.usable(now);
        if self.mode(now) == Mode::Fallback { usable } else { self.target.min(usable) }
    }

    /// How many slots may be used now.
    pub(crate) fn usable(&self, now: Instant) -> u32 {
        self.allowance().at(now)
    }

    /// How many slots may be used from now on, if Redis is never heard of again.
    pub(crate) fn allowance(&self) -> Allowance {
        let Some(proven) = self.proven else { return Allowance::constant(0) };
        let timing = self.terms.timing;
        let (valid, keep) = (proven + timing.valid(), proven + timing.keep().max(timing.valid()));
        let mut promise = self.promise;
        let mut steps = [None; MUSTS + 2];
        for (step, (must, until)) in steps.iter_mut().zip(&self.must).filter(|_| keeps(Rule::MustShrink)) {
            if *must < promise {
                *step = Some((*until, promise));
                promise = *must;
            }
        }
        let share = if self.grown { self.share } else { self.share.min(promise) };
        if !keeps(Rule::LeaseEnds) {
            return Allowance { steps, last: promise };
        }
        steps[MUSTS] = Some((valid, promise));
        if !keeps(Rule::KeepEnds) {
            return Allowance { steps, last: share };
        }
        steps[MUSTS + 1] = Some((keep, share));
        Allowance { steps, last: 0 }
    }

    /// Something happened that may need a request: clients wait, connections were closed.
    pub(crate) fn look(&mut self) {
        self.look = true;
    }

    /// Others were told something, and this member is among them or not.
    pub(crate) fn woken(&mut self, wake: &Wake) {
        self.hungry = wake.hungry;
        let mine = wake.members.iter().find(|(id, ..)| *id == self.id);
        if let Some((_, held, target)) = mine {
            // A hint only: what may be used is known from answers.
            self.target = self.target.min(*target);
            self.look = true;
            self.granted |= *held > self.promise;
        }
    }

    /// `max_connections` as it is configured now.
    pub(crate) fn configured(&mut self, limit: u32) {
        self.terms.limit = limit;
    }

    /// Redis may live another life: who is idle looks, so that it settles before a client comes.
    pub(crate) fn rouse(&mut self) {
        self.idle = false;
    }

    /// It is time to renew.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let flies =
            self.flight.as_ref().is_some_and(|flight| now < flight.sent + self.terms.timing.patience());
        !self.idle && !flies && self.next.is_none_or(|next| now >= next)
    }

    /// Whether its bucket is gone, by a reload.
    pub(crate) fn retired(&mut self, retired: bool) {
        self.retired = retired;
    }

    /// What is to be told to Redis now, if anything. The caller sends it at once. With `beat` another stake's renewal
    /// is sent: what would be due soon goes along.
    pub(crate) fn request(&mut self, now: Instant, of: Use, beat: bool) -> Option<Sync> {
        let timing = self.terms.timing;
        if let Some(flight) = &self.flight {
            if now < flight.sent + timing.patience() {
                return None;
            }
            self.failed(now);
        }
        let needs_nothing = of.want == 0 && (of.used == 0 || !keeps(Rule::LeaveWithNothing));
        if self.idle && needs_nothing {
            return None;
        }
        self.idle = false;
        let usable = self.usable(now);
        let held = of.used.max(self.target(now).min(of.want));
        let more = of.want > usable && (self.told_want <= usable || of.want / 2 > self.told_want);
        // Others wait, and there is something to give them.
        let less = held < self.promise && (self.hungry || self.target < self.promise);
        let early = if beat { timing.early() } else { Duration::ZERO };
        let due = self.next.is_none_or(|next| now + early >= next);
        let news = self.granted || (self.look && (more || less));
        self.look = false;
        if !due && !news {
            return None;
        }
        self.granted = false;
        // A share is kept only for those who renew; without one there is nothing to come back for.
        let unbound = self.settled && self.share == 0 && self.mode(now) == Mode::Normal;
        if needs_nothing && (unbound || self.retired) {
            return Some(self.leave(now));
        }
        Some(self.send(now, of, held, false))
    }

    /// The last request, for now or for ever: nothing is used any more. The caller made sure of it.
    pub(crate) fn leave(&mut self, now: Instant) -> Sync {
        self.send(now, Use::default(), 0, true)
    }

    fn send(&mut self, now: Instant, of: Use, mut held: u32, leave: bool) -> Sync {
        let timing = self.terms.timing;
        let claim = self.mode(now) == Mode::Fallback && self.share > 0;
        if claim {
            // The others had time to make room. Grown before asking, so that the answer takes nothing back.
            let late = self.unclaimed.is_none_or(|sent| now >= sent + timing.grow());
            self.grown |= late || !keeps(Rule::GrowLate);
            held = held.max(self.usable(now));
        } else {
            self.unclaimed = Some(now);
        }
        self.seq += 1;
        self.flight = Some(Flight { seq: self.seq, sent: now, leave });
        self.next = Some(now + timing.renew());
        self.told_want = of.want;
        if keeps(Rule::PromiseBeforeSending) {
            self.promise = self.promise.min(held);
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Sync {
            member: self.id.clone(),
            seq: self.seq,
            life: self.life.clone(),
            stamp: self.clock.map_or(0, |(clock, at)| clock + millis(now.saturating_duration_since(at))),
            join: self.join,
            fresh: self.fresh,
            leave,
            held,
            claim,
            want: of.want,
            waiting_ms: if of.waiting > 0 { millis(of.oldest).max(1) } else { 0 },
            limit: self.terms.limit,
            expected: self.terms.expected,
            lease_ms: millis(timing.lease),
            fallback_ms: millis(timing.fallback),
            told: Told {
                used: of.used,
                waiting: of.waiting,
                round_trip_us: u64::try_from(self.round_trip.as_micros()).unwrap_or(u64::MAX),
            },
        }
    }

    /// The request could not be sent or was not answered in time.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.flight.take().is_some() {
            self.next = Some(now);
            // Nobody knows what was understood.
            self.told_want = 0;
        }
    }

    /// The request could not even be sent: it is tried again after a while.
    pub(crate) fn unsent(&mut self, seq: u64, now: Instant) {
        if self.flight.as_ref().is_some_and(|flight| flight.seq == seq) {
            self.failed(now);
            self.next = Some(now + self.terms.timing.patience());
        }
    }

    /// Redis answered the request of this number. True if it lives another life than before.
    pub(crate) fn answered(&mut self, seq: u64, answer: Answer, now: Instant) -> bool {
        let Some(Flight { sent, leave, .. }) = self.flight.take_if(|flight| flight.seq == seq) else {
            if !keeps(Rule::OwnAnswersOnly)
                && let Answer::Taken(grant) = answer
            {
                self.taken(grant, now, now);
            }
            return false;
        };
        let mut new_life = false;
        match answer {
            Answer::Taken(grant) => {
                self.round_trip = now.saturating_duration_since(sent);
                let from = if keeps(Rule::LeaseFromSending) { sent } else { now };
                self.taken(grant, from, now);
            }
            Answer::Hello { life, clock } => {
                if life != self.life {
                    new_life = !self.life.is_empty();
                    self.fresh &= self.life.is_empty();
                    self.join = true;
                    self.life = life;
                    self.settled = false;
                }
                self.clock = Some((clock, now));
                self.next = Some(now);
            }
            Answer::Unknown if leave => self.left(),
            Answer::Unknown => {
                self.join = true;
                self.next = Some(now);
            }
            Answer::Stale => self.next = Some(now),
        }
        new_life
    }

    fn taken(&mut self, grant: Grant, proven: Instant, now: Instant) {
        self.must_shrink(&grant, proven, now);
        self.proven = Some(proven);
        self.grown = false;
        self.clock = Some((grant.clock, now));
        self.join = false;
        self.promise = grant.quota;
        self.share = grant.share;
        self.target = grant.target;
        self.hungry = grant.hungry;
        self.settled = grant.settled;
        self.epoch = grant.epoch;
        self.limit = grant.limit;
        self.twin = grant.twin;
        self.look = true;
    }

    /// Redis knows nothing of it any more, and it uses nothing.
    fn left(&mut self) {
        (self.idle, self.join, self.grown, self.hungry) = (true, true, false, false);
        (self.promise, self.target, self.told_want) = (0, 0, 0);
        self.must.clear();
        (self.proven, self.next) = (None, None);
    }

    /// What must go is used no longer than the lease before this one lasts, or than it takes to close it in good
    /// order; a share needed no lease.
    fn must_shrink(&mut self, grant: &Grant, proven: Instant, now: Instant) {
        let timing = self.terms.timing;
        let before = self.proven.map(|before| before + timing.valid()).filter(|end| now < *end);
        let mut until = before.unwrap_or(proven + timing.valid()).max(now + timing.notice());
        // What was asked for earlier keeps its end, as far as it still is.
        while let Some((_, end)) = self.must.pop_if(|(value, _)| *value <= grant.must) {
            until = end;
        }
        if self.must.len() == MUSTS
            && let Some((_, end)) = self.must.pop()
        {
            until = end;
        }
        if grant.must < grant.quota {
            self.must.push((grant.must, until));
        } else {
            self.must.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    #[test]
    fn without_redis_a_share_is_grown_to_although_others_were_to_have_the_slots_before() {
        let timing = Timing { lease: LEASE, fallback: 100 * LEASE };
        let mut stake = Stake::new("a".to_owned(), Terms { timing, limit: 20, expected: 3 });
        let start = Instant::now();
        let of = Use { used: 0, want: 6, waiting: 6, oldest: Duration::ZERO };
        let asked = stake.request(start, of, false).expect("it joins");
        // All slots are in use elsewhere when Redis goes away.
        let grant = Grant {
            clock: 1,
            quota: 0,
            target: 0,
            must: 0,
            share: 6,
            hungry: true,
            settled: true,
            epoch: 1,
            limit: 20,
            twin: false,
        };
        stake.answered(asked.seq, Answer::Taken(grant), start);
        assert!(stake.is_hungry(start));
        let mut now = start;
        while now < start + 6 * LEASE {
            now += timing.renew();
            stake.request(now, of, false);
            if now < start + timing.grow() {
                assert_eq!(stake.usable(now), 0);
            }
        }
        assert_eq!((stake.mode(now), stake.usable(now), stake.target(now)), (Mode::Fallback, 6, 6));
        assert!(!stake.is_hungry(now), "nobody could have what it gives back");
    }
}
