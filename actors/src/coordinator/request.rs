//! What a proxy tells Redis about a bucket, and what it is answered. Times are milliseconds.

use super::rule::{Rule, keeps};

/// One request: everything in it is absolute, so that repeating it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sync {
    /// `instance/incarnation`: a restarted proxy is another member of the same name.
    pub(crate) member: String,
    /// Grows with each request of a member.
    pub(crate) seq: u64,
    /// The life of Redis that it believes in; empty at first.
    pub(crate) life: String,
    /// What Redis' clock for this bucket shows, as far as the member knows.
    pub(crate) stamp: u64,
    /// A member that was not there before; otherwise one that is unknown is told so.
    pub(crate) join: bool,
    /// It never held anything of an earlier life.
    pub(crate) fresh: bool,
    /// It leaves, and never uses a slot again.
    pub(crate) leave: bool,
    /// From the moment of sending it uses no more slots than this until an answer allows it.
    pub(crate) held: u32,
    /// It may grow to its share without being allowed to.
    pub(crate) claim: bool,
    /// How many slots it could use.
    pub(crate) want: u32,
    /// For how long its oldest client waits; 0 if none does.
    pub(crate) waiting_ms: u64,
    /// `max_connections` of its configuration.
    pub(crate) limit: u32,
    /// `expected_instances` of its configuration.
    pub(crate) expected: u32,
    /// Its lease time.
    pub(crate) lease_ms: u64,
    /// How long its share is kept.
    pub(crate) fallback_ms: u64,
    /// Told to operators: slots in use, clients waiting, its last round trip in microseconds.
    pub(crate) told: Told,
}

/// What a member tells only to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) used: u32,
    pub(crate) waiting: u32,
    pub(crate) round_trip_us: u64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The request was taken.
    Taken(Grant),
    /// Redis lives another life, or the request was too long under way: ask again with these.
    Hello { life: String, clock: u64 },
    /// There is no such member: ask again as one that joins.
    Unknown,
    /// A later request was taken already.
    Stale,
}

/// Whose the answers to a batch are: for each of its requests the bucket and the request's number.
pub(crate) type Asked<B> = Vec<(B, u64)>;

/// Each answer beside what it answers: those of a batch come in the order of its requests.
pub(crate) fn to_each<B, A>(asked: Asked<B>, mut answers: Vec<A>) -> impl Iterator<Item = (B, u64, A)> {
    if !keeps(Rule::ToEachItsOwn) {
        answers.reverse();
    }
    asked.into_iter().zip(answers).map(|((bucket, seq), answer)| (bucket, seq, answer))
}

/// What a member may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) clock: u64,
    /// Slots that it may use.
    pub(crate) quota: u32,
    /// What it should come down to soon, because others wait.
    pub(crate) target: u32,
    /// What it must come down to: the rest of its lease is not renewed.
    pub(crate) must: u32,
    /// Its share, should Redis be away; 0 if it has none.
    pub(crate) share: u32,
    /// Somebody waits for slots.
    pub(crate) hungry: bool,
    /// False while Redis finds out who holds what: nothing is granted.
    pub(crate) settled: bool,
    /// How often Redis lost its memory, or heard of nobody for long.
    pub(crate) epoch: u64,
    /// The bucket's limit in force.
    pub(crate) limit: u32,
    /// Another living member has the same name: a mistake of configuration, unless one is just being replaced.
    pub(crate) twin: bool,
}

/// What is published to all proxies when somebody has to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wake {
    pub(crate) hungry: bool,
    /// Those who hold more than they should, or were granted something: member, what it holds now, its target.
    pub(crate) members: Vec<(String, u32, u32)>,
}
