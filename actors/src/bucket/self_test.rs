//! Every bucket's server is measured on its first connection, and again when its version changes: TDS is spoken by
//! many servers, and they differ exactly where pooling depends on them.
//!
//! The test takes the connection that was just opened. When a check breaks it, another one is opened with the same
//! slot; what is handed over in the end is as good as new. Whoever dials meanwhile waits for the result.

mod answer;
mod checks;
mod fitness;
mod probe;
mod show;
#[cfg(test)]
mod tests;
mod traits;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tdsbouncer_config::{Bucket, PoolMode};
use tokio::time::Instant;
use tracing::{info, warn};

use super::BucketHandle;
use super::dial::{DialError, Dialled, dial, dial_in};
use super::key::LoginTemplate;
use super::reset::reset;
use super::slots::SlotPermit;
use checks::Check;
use probe::{NoAnswer, Probe};
use traits::Origin;

pub(crate) use fitness::{Unfit, effective};
pub(crate) use show::{name, row};
pub(crate) use traits::{ServerTraits, SessionRecovery};

/// The longest that all checks may take together; those that are left then count as failed.
const ALL_CHECKS: Duration = Duration::from_secs(10);

/// Connections that one measurement may use, one after the other, besides the one it hands over.
const MOST_CONNECTIONS: u32 = 4;

/// A measurement in which something got no answer is made again by a dial this much later.
const DOUBT: Duration = Duration::from_secs(60);

/// Versions of the server whose traits are kept: both sides of a failover, and an upgrade of each.
const KEPT: usize = 4;

/// What was measured in this process, and whose turn it is to measure.
#[derive(Debug, Default)]
pub(crate) struct SelfTests {
    turn: tokio::sync::Mutex<()>,
    /// By the server's version.
    known: Mutex<Vec<Arc<ServerTraits>>>,
}

impl SelfTests {
    /// The next connection measures again: it goes to another server.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// What is known of the server of this version and need not be measured again.
    fn of(&self, version: [u8; 4], now: Instant) -> Option<Arc<ServerTraits>> {
        let known = self.lock();
        known.iter().find(|traits| traits.program_version == version && !is_stale(traits, now)).cloned()
    }

    fn keep(&self, traits: Arc<ServerTraits>) {
        let mut known = self.lock();
        known.retain(|kept| kept.program_version != traits.program_version);
        if known.len() == KEPT {
            known.remove(0);
        }
        known.push(traits);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ServerTraits>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_stale(traits: &ServerTraits, now: Instant) -> bool {
    match traits.origin {
        Origin::Measured(at) => traits.doubtful && now.saturating_duration_since(at) >= DOUBT,
        Origin::Assumed => false,
    }
}

/// Opens a connection that can be shared; if the server was not measured yet, this one measures it first.
pub(crate) async fn open(
    bucket: &BucketHandle,
    template: &Arc<LoginTemplate>,
    permit: SlotPermit,
) -> Result<Dialled, DialError> {
    let settings = bucket.settings();
    let mut dialled = dial(bucket, template, permit).await?;
    // A login below TDS 7.2 gets no transaction signals from any server: it would measure itself.
    if settings.self_test && template.login.tds_version.is_7_2_or_later() {
        dialled = measured(bucket, template, dialled, &settings).await?;
    }
    let traits = bucket.shared().traits.load();
    dialled.conn.pipelines = traits.as_ref().is_some_and(|traits| traits.pipelining_allowed(true));
    Ok(dialled)
}

/// Has the bucket's traits be those of the server that this connection goes to.
async fn measured(
    bucket: &BucketHandle,
    template: &Arc<LoginTemplate>,
    dialled: Dialled,
    settings: &Arc<Bucket>,
) -> Result<Dialled, DialError> {
    let version = dialled.response.ack.program_version;
    let shared = bucket.shared();
    let _turn = shared.self_tests.turn.lock().await;
    if let Some(known) = shared.self_tests.of(version, Instant::now()) {
        shared.traits.store(Some(known));
        return Ok(dialled);
    }
    // If the test crashes, this is what remains: no dial after it crashes in the same way.
    let mut unfinished = ServerTraits::safe(dialled.response.ack.tds_version, version);
    unfinished.doubtful = true;
    unfinished.note("self_test", "did not end");
    shared.self_tests.keep(Arc::new(unfinished));
    let (traits, outcome) = measure(bucket, template, dialled).await;
    tell(bucket, &traits);
    let traits = Arc::new(traits);
    shared.self_tests.keep(Arc::clone(&traits));
    shared.traits.store(Some(traits));
    if !Arc::ptr_eq(settings, &bucket.settings()) {
        // A reload came in between: the next connection may go to another server.
        shared.self_tests.forget();
    }
    outcome
}

/// Measures the server over this connection, and over others of the same slot where it breaks. The connection that
/// comes back is fresh or reset; an error is that of opening it.
async fn measure(
    bucket: &BucketHandle,
    template: &Arc<LoginTemplate>,
    dialled: Dialled,
) -> (ServerTraits, Result<Dialled, DialError>) {
    let ack = &dialled.response.ack;
    let mut traits = ServerTraits::safe(ack.tds_version, ack.program_version);
    traits.session_recovery = match (template.offers_session_recovery, dialled.conn.witness.is_some()) {
        (false, _) => SessionRecovery::NotOffered,
        (true, false) => SessionRecovery::Declined,
        (true, true) => SessionRecovery::Silent,
    };
    let mut bench = Bench { bucket, template, now: Some(dialled), used: 1 };
    let over = Instant::now() + ALL_CHECKS;
    if traits.tds_version.is_7_2_or_later() {
        for check in checks::ALL {
            if !(check.wanted)(&traits) {
                continue;
            }
            if let Err(failed) = bench.check(check, &mut traits, over).await {
                traits.origin = Origin::Measured(Instant::now());
                return (traits, Err(failed));
            }
        }
    } else {
        traits.note("tds_version", "before TDS 7.2 nothing is signalled");
    }
    traits.origin = Origin::Measured(Instant::now());
    let outcome = bench.fresh(&traits).await;
    (traits, outcome)
}

/// One slot with the connection that is being tested.
struct Bench<'a> {
    bucket: &'a BucketHandle,
    template: &'a Arc<LoginTemplate>,
    now: Option<Dialled>,
    used: u32,
}

impl Bench<'_> {
    /// Makes one check. An error means that no connection is left, and none could be opened.
    async fn check(
        &mut self,
        check: &Check,
        traits: &mut ServerTraits,
        over: Instant,
    ) -> Result<(), DialError> {
        if let Some(why) = (check.pointless)(traits) {
            traits.note(check.name, format!("not checked: {why}"));
            return Ok(());
        }
        if Instant::now() >= over || self.used > MOST_CONNECTIONS {
            traits.doubtful = true;
            traits.note(check.name, "not checked: too much before it got no answer");
            return Ok(());
        }
        let Some(dialled) = &mut self.now else { return Err(DialError::Closed) };
        let mut probe = Probe::new(&mut dialled.conn);
        let asking = async {
            if check.at_once { probe.at_once(check.asks).await } else { probe.in_turn(check.asks).await }
        };
        let notes = traits.notes.len();
        let tidy = match tokio::time::timeout_at(over, asking).await {
            Ok(Ok(answers)) => {
                (check.judge)(&answers, traits);
                // As expected, it left nothing behind. Otherwise nobody knows.
                traits.notes.len() == notes
                    || matches!(probe.in_turn(checks::TIDY).await, Ok(ended) if checks::is_tidy(&ended))
            }
            Ok(Err(why)) => {
                traits.doubtful |= !(check.may_hang && matches!(why, NoAnswer::Timeout { .. }));
                traits.note(check.name, why.to_string());
                false
            }
            Err(_) => {
                traits.doubtful = true;
                traits.note(check.name, "not complete in time");
                false
            }
        };
        if tidy { Ok(()) } else { self.replace().await }
    }

    /// Opens another connection in the place of this one.
    async fn replace(&mut self) -> Result<(), DialError> {
        let Some(Dialled { conn, .. }) = self.now.take() else { return Err(DialError::Closed) };
        let mut occupied = conn.occupied;
        occupied.disconnect().await;
        self.now = Some(dial_in(self.bucket, self.template, occupied).await?);
        self.used += 1;
        Ok(())
    }

    /// The connection to hand over.
    async fn fresh(mut self, traits: &ServerTraits) -> Result<Dialled, DialError> {
        let timeout = self.bucket.settings().reset_timeout;
        let is_reset = match &mut self.now {
            Some(dialled) if traits.reset_is_complete() => {
                let reset = reset(&mut dialled.conn);
                matches!(tokio::time::timeout(timeout, reset).await, Ok(Ok(())))
            }
            _ => false,
        };
        if !is_reset {
            self.replace().await?;
        }
        self.now.ok_or(DialError::Closed)
    }
}

/// One line for each measurement.
fn tell(bucket: &BucketHandle, traits: &ServerTraits) {
    let wanted = bucket.settings().pool_mode;
    let (mode, unfit) = effective(wanted, Some(traits));
    let (bucket, version, tds) = (bucket.name(), traits.program(), traits.tds_version);
    let differs: Vec<String> =
        traits.notes.iter().map(|note| format!("{}: {}", note.check, note.why)).collect();
    match unfit {
        None => info!(%bucket, version, %tds, ?mode, ?differs, "measured the server"),
        Some(why) => {
            warn!(%bucket, version, %tds, ?mode, %why, ?differs, "measured the server: session pooling instead");
        }
    }
}

/// Whether a reset leaves nothing behind on this bucket's server; false while nobody knows.
pub(crate) fn reset_is_complete(bucket: &BucketHandle) -> bool {
    bucket.shared().traits.load().as_ref().is_some_and(|traits| traits.reset_is_complete())
}

/// Whether the bucket pools transactions, or may turn out to be fit for it.
pub(crate) fn may_share(bucket: &BucketHandle) -> bool {
    matches!(pooling(bucket), (PoolMode::Transaction, _) | (_, Some(Unfit::NotMeasured)))
}

/// How a bucket pools, for whoever asks: the mode that is in force and why it is not the one that was asked for.
pub(crate) fn pooling(bucket: &BucketHandle) -> (PoolMode, Option<Unfit>) {
    effective(bucket.settings().pool_mode, bucket.shared().traits.load().as_deref())
}
