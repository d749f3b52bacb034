//! What Redis decides about one bucket, in Rust: the same as sync.lua, line by line, for the simulation. A test holds
//! the two together.

use std::collections::BTreeMap;

use super::request::{Answer, Grant, Sync, Told, Wake};
use super::rule::{Rule, keeps};

/// One bucket as Redis remembers it. `clock` is made of the times between requests, without silences and jumps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) life: String,
    pub(crate) clock: u64,
    /// The time of day of the last request.
    pub(crate) seen: u64,
    pub(crate) epoch: u64,
    /// Until when nothing is granted because somebody may hold what is not written here; 0: no more.
    pub(crate) settle: u64,
    /// Even those who are not written here may hold something.
    pub(crate) strict: bool,
    /// Until when shares are kept for instances that are not written here.
    pub(crate) unknown: u64,
    pub(crate) hungry: bool,
    /// An operator's limit, before everybody's configuration.
    pub(crate) limit: Option<u32>,
    pub(crate) members: BTreeMap<String, Member>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) seq: u64,
    /// No fewer slots than it can be using.
    pub(crate) held: u32,
    pub(crate) want: u32,
    /// Since when its oldest client waits; 0: none does.
    pub(crate) since: u64,
    pub(crate) lease: u64,
    pub(crate) keep: u64,
    /// It has a share: whether one is kept for it when its lease ended.
    pub(crate) shares: bool,
    pub(crate) lapsed: bool,
    /// It was heard since Redis began to settle.
    pub(crate) heard: bool,
    /// Of no earlier life.
    pub(crate) fresh: bool,
    /// When it was granted something for the last time.
    pub(crate) got: u64,
    pub(crate) limit: u32,
    pub(crate) lease_ms: u64,
    pub(crate) told: Told,
}

/// The part of a member's id that is its instance's name.
fn name(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}

impl Ledger {
    /// Takes one request at the time of day `now` of a Redis that lives `life`.
    pub(crate) fn sync(&mut self, now: u64, life: &str, request: &Sync) -> (Answer, Option<Wake>) {
        self.tick(now, life, request);
        self.expire();
        if request.life != life {
            return (self.hello(), None);
        }
        if keeps(Rule::NoOldRequests) && self.clock > request.stamp + request.lease_ms {
            return (self.hello(), None);
        }
        let known = self.members.get(&request.member);
        if known.is_some_and(|known| keeps(Rule::SequenceOnly) && request.seq <= known.seq) {
            return (Answer::Stale, None);
        }
        if known.is_none() && !request.join {
            return (Answer::Unknown, None);
        }
        if request.leave {
            self.members.remove(&request.member);
        } else {
            self.note(request);
        }
        self.settle_if_all_are_known(request);
        self.deal(request)
    }

    fn hello(&self) -> Answer {
        Answer::Hello { life: self.life.clone(), clock: self.clock }
    }

    fn tick(&mut self, now: u64, life: &str, request: &Sync) {
        let lease = self.members.values().map(|member| member.lease_ms).min().unwrap_or(request.lease_ms);
        let lease = lease.min(request.lease_ms);
        if self.life != life {
            life.clone_into(&mut self.life);
            if keeps(Rule::SettleNewLife) {
                self.unsettle(lease);
                self.strict = true;
            }
            self.unknown = self.clock + request.fallback_ms;
        } else {
            // A jump of the clock counts as the longest time that may pass between two requests.
            let gap = now.saturating_sub(self.seen);
            let longest = lease * 3 / 10;
            let counted = if keeps(Rule::SettleSilence) { gap.min(longest) } else { gap };
            self.clock += counted;
            if counted < gap && !self.members.is_empty() {
                self.unsettle(lease);
            }
        }
        self.seen = now;
    }

    /// Nobody is granted anything until everybody has said what it holds, or can hold no more than its share.
    fn unsettle(&mut self, lease: u64) {
        self.epoch += 1;
        self.settle = self.clock + lease;
        for member in self.members.values_mut() {
            member.heard = false;
        }
    }

    fn expire(&mut self) {
        let clock = self.clock;
        if self.settle > 0 && clock >= self.settle {
            (self.settle, self.strict) = (0, false);
        }
        for member in self.members.values_mut() {
            if !member.lapsed && clock >= member.lease {
                (member.lapsed, member.want, member.since) = (true, 0, 0);
            }
        }
        let gone = |member: &Member| {
            member.lapsed && (!member.shares || !keeps(Rule::KeepShare) || clock >= member.keep)
        };
        self.members.retain(|_, member| !gone(member));
    }

    /// The limit in force: the operator's, or the lowest that a living member was configured with.
    fn limit(&self, request: &Sync) -> u32 {
        let living = self.members.values().filter(|member| !member.lapsed).map(|member| member.limit);
        self.limit.unwrap_or_else(|| living.min().unwrap_or(request.limit).min(request.limit))
    }

    fn share(&self, request: &Sync) -> u32 {
        self.limit(request).checked_div(request.expected).unwrap_or(0)
    }

    /// How many instances have a share, a restarted one and the one before it counted once.
    fn sharing(&self, among: impl Fn(&str) -> bool) -> u32 {
        let sharing = self.members.iter().filter(|(id, member)| member.shares && among(id.as_str()));
        let mut names: Vec<&str> = sharing.map(|(id, _)| name(id)).collect();
        names.dedup();
        u32::try_from(names.len()).unwrap_or(u32::MAX)
    }

    fn note(&mut self, request: &Sync) {
        let share = self.share(request);
        let id = &request.member;
        let of_name = |other: &String| name(other) == name(id) && other != id;
        // The same instance started anew: what the one before it may have had is its own now.
        self.members.retain(|other, member| !(of_name(other) && member.lapsed));
        let sharing = self.sharing(|other| name(other) != name(id));
        let clock = self.clock;
        let settling = self.settle > 0;
        let member = self.members.entry(id.clone()).or_default();
        member.shares = sharing < request.expected;
        let share = if member.shares { share } else { 0 };
        let before = if member.lapsed { share } else { member.held.max(share) };
        member.held = if settling { request.held } else { request.held.min(before) };
        if request.claim && keeps(Rule::ClaimShare) {
            member.held = member.held.max(share);
        }
        member.lapsed = false;
        member.seq = request.seq;
        member.want = request.want;
        member.since =
            if request.waiting_ms > 0 { clock.saturating_sub(request.waiting_ms).max(1) } else { 0 };
        member.lease = clock + request.lease_ms;
        member.keep = clock + request.fallback_ms;
        member.heard = true;
        member.fresh = request.fresh;
        member.limit = request.limit;
        member.lease_ms = request.lease_ms;
        member.told = request.told;
    }

    fn settle_if_all_are_known(&mut self, request: &Sync) {
        if self.settle == 0 {
            return;
        }
        let all = if self.strict {
            // A first start: as many as there can be, and none was there before.
            let mut names: Vec<&str> = self.members.keys().map(|id| name(id)).collect();
            names.dedup();
            let fresh = self.members.values().all(|member| member.heard && member.fresh);
            let names = u32::try_from(names.len()).unwrap_or(u32::MAX);
            fresh && request.expected > 0 && names >= request.expected
        } else {
            self.members.values().all(|member| member.heard || member.lapsed)
        };
        if all {
            (self.settle, self.strict) = (0, false);
        }
    }

    /// What is kept for a member, whatever it uses.
    fn reserved(member: &Member, share: u32) -> u32 {
        match (member.lapsed, member.shares) {
            (false, _) => member.held,
            (true, true) => share,
            (true, false) => 0,
        }
    }

    /// Grants what is free, and says who has to make room.
    fn deal(&mut self, request: &Sync) -> (Answer, Option<Wake>) {
        let (limit, share) = (self.limit(request), self.share(request));
        let sharing = self.sharing(|_| true);
        let mut kept: u32 = self
            .members
            .values()
            .filter(|member| member.lapsed)
            .map(|member| Self::reserved(member, share))
            .sum();
        if self.clock < self.unknown && keeps(Rule::KeepUnknownShares) {
            kept += share * request.expected.saturating_sub(sharing);
        }
        let room = limit.saturating_sub(kept);
        let fair = self.fair(room, request.lease_ms / 10);
        let held: u32 = self.living().map(|(_, member)| member.held).sum();
        let mut granted = Vec::new();
        if self.settle == 0 {
            let free = if keeps(Rule::OnlyWhatIsFree) { room.saturating_sub(held) } else { room };
            granted = self.grant(free, &fair);
        }
        let held: u32 = self.living().map(|(_, member)| member.held).sum();
        let deficit = held.saturating_sub(room);
        let missing: u32 =
            self.living().map(|(id, member)| fair[id].min(member.want).saturating_sub(member.held)).sum();
        let was_hungry = std::mem::replace(&mut self.hungry, missing > 0);
        // While nothing can be granted, nobody makes room for it.
        let wanted = if self.settle == 0 { missing } else { 0 };
        let (must, target) = (self.ask(deficit, &fair), self.ask(deficit + wanted, &fair));
        let begins = self.hungry && !was_hungry;
        let mut woken = Vec::new();
        for (id, member) in self.living() {
            let asked = target[id] < member.held;
            if *id != request.member && (begins || asked || granted.contains(id)) {
                woken.push((id.clone(), member.held, target[id]));
            }
        }
        let wake = (!woken.is_empty()).then_some(Wake { hungry: self.hungry, members: woken });
        let Some(member) = self.members.get(&request.member) else {
            return (Answer::Unknown, wake);
        };
        let of_name = |(other, _): &(&String, &Member)| {
            name(other) == name(&request.member) && **other != request.member
        };
        let quota = if request.claim && (deficit > 0 || self.settle > 0) {
            request.held.min(member.held)
        } else {
            member.held
        };
        let grant = Grant {
            clock: self.clock,
            quota,
            target: target[&request.member].min(quota),
            must: must[&request.member].min(quota),
            share: if member.shares { share } else { 0 },
            hungry: self.hungry,
            settled: self.settle == 0,
            epoch: self.epoch,
            limit,
            twin: self.living().any(|other| of_name(&other)),
        };
        (Answer::Taken(grant), wake)
    }

    fn living(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter().filter(|(_, member)| !member.lapsed)
    }

    /// Everybody's fair part of `room`: nobody gets more than it wants, and whoever wants more has as much as any
    /// other. What cannot be divided stays with those who have it; where there is less than one for each, it goes
    /// round, after a turn to who had it least recently.
    fn fair(&self, room: u32, turn: u64) -> BTreeMap<String, u32> {
        let mut wants: Vec<u32> = self.living().map(|(_, member)| member.want.min(room)).collect();
        wants.sort_unstable();
        let (mut rest, mut left) = (u64::from(room), wants.len() as u64);
        let mut level = u64::from(room);
        for want in wants {
            if u64::from(want) * left > rest {
                level = rest / left;
                break;
            }
            (rest, left) = (rest - u64::from(want), left - 1);
        }
        let mut fair = BTreeMap::new();
        let mut more = Vec::new();
        let mut given = 0;
        for (id, member) in self.living() {
            let want = u64::from(member.want.min(room));
            given += want.min(level);
            fair.insert(id.clone(), want.min(level) as u32);
            if want > level {
                let has = u64::from(member.held) > level;
                let stays = level > 0 || self.clock < member.got + turn;
                let class = if !has {
                    1
                } else if stays {
                    0
                } else {
                    2
                };
                let since = if member.since == 0 { u64::MAX } else { member.since };
                more.push((class, if level > 0 { since } else { member.got }, id.clone()));
            }
        }
        more.sort();
        for (_, _, id) in more.into_iter().take((u64::from(room) - given) as usize) {
            *fair.entry(id).or_default() += 1;
        }
        fair
    }

    /// Gives `free` slots to those who want them and have less than their part, one each in turn, who waits longest
    /// first. Returns who got something.
    fn grant(&mut self, mut free: u32, fair: &BTreeMap<String, u32>) -> Vec<String> {
        let clock = self.clock;
        let mut order: Vec<(u64, String)> = self
            .living()
            .filter(|(id, member)| member.held < fair[*id])
            .map(|(id, member)| (if member.since == 0 { u64::MAX } else { member.since }, id.clone()))
            .collect();
        order.sort();
        let mut granted = Vec::new();
        while free > 0 && !order.is_empty() {
            order.retain(|(_, id)| {
                let Some(member) = self.members.get_mut(id) else { return false };
                if free == 0 || member.held >= fair[id] {
                    return false;
                }
                free -= 1;
                member.held += 1;
                member.got = clock;
                granted.push(id.clone());
                true
            });
        }
        granted.dedup();
        granted
    }

    /// What everybody should come down to so that `needed` slots come free: those far above their part first.
    fn ask(&self, mut needed: u32, fair: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
        let mut above: Vec<(u32, &String)> =
            self.living().map(|(id, member)| (u32::MAX - member.held.saturating_sub(fair[id]), id)).collect();
        above.sort();
        let mut targets = BTreeMap::new();
        for (inverse, id) in above {
            let asked = (u32::MAX - inverse).min(needed);
            needed -= asked;
            let held = self.members.get(id).map_or(0, |member| member.held);
            targets.insert(id.clone(), held - asked);
        }
        targets
    }
}
