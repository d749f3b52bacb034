//! A bucket: one SQL Server, its slots, its idle connections and its queue. This file is what others hold of it.

mod actor;
mod dial;
mod directory;
mod errand;
pub(crate) mod key;
mod place;
mod pool;
pub(crate) mod recall;
#[cfg(test)]
mod recall_test;
mod reset;
pub(crate) mod self_test;
mod server_conn;
mod slots;
mod standing;
pub(crate) mod state;
mod supervisor;
pub(crate) mod tenant;
mod turns;
pub(crate) mod witness;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::ActorRef;
use ractor::rpc::CallResult;
use tds::login_response::LoginResponse;
use tds::login7::Login7;
use tds::tsql::Procedures;
use tdsbouncer_config::{Bucket, BucketName, UnknownProcedures};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use dial::{DialError, TlsConnector, open_connection};
pub(crate) use directory::Directory;
pub(crate) use server_conn::{ConnTurn, Lease, Occupied, Rested, ServerConn};
pub(crate) use supervisor::BucketSupervisor;

use crate::admin::{PoolRow, ServerRow, WaiterRow};
use crate::auth::VerifiedLogins;
use crate::coordinator::{CoordinatorHandle, Permission, Use};
use crate::error::{AcquireError, SessionError};
use crate::metrics::BucketMetrics;
use actor::BucketMsg;
use key::{LoginTemplate, PoolKey, SubPool};
use place::Resting;
use self_test::{SelfTests, ServerTraits};
use server_conn::Wear;
use slots::{OnFree, SlotPermit, Slots};
use standing::Standing;
use state::Wish;
use tenant::{ClientShare, TenantRef, Tenants};

/// How long a waiter stays with a bucket that does not answer at all, beyond the deadline it gave the bucket.
const GRACE: Duration = Duration::from_secs(2);

/// How long an operator waits for a bucket that does not answer.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// The logins that the bucket's server accepted, with its answers.
pub(crate) type Verified = VerifiedLogins<PoolKey, LoginResponse>;

/// What of a bucket outlives its actor: held by `main`'s directory and by everybody who talks to the bucket.
pub(crate) struct BucketShared {
    name: BucketName,
    /// As the configuration in force has them, or an operator since.
    settings: ArcSwap<Bucket>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) verified: Verified,
    pub(crate) metrics: BucketMetrics,
    pub(crate) counts: Counts,
    /// Connections that stay with the sessions that used them last, until anybody needs them.
    resting: Arc<Resting<SubPool, Box<ServerConn>>>,
    tls: ArcSwap<TlsConnector>,
    /// What operators want of it now.
    pub(crate) standing: Standing,
    pub(crate) coordinator: CoordinatorHandle,
    /// What is known of procedures by their names.
    pub(crate) procedures: ArcSwap<Procedures>,
    /// What the server does where pooling depends on it; none before the first connection.
    pub(crate) traits: ArcSwapOption<ServerTraits>,
    pub(crate) self_tests: SelfTests,
    /// Why the last dial failed, until one succeeds.
    pub(crate) last_error: Mutex<Option<String>>,
    tenants: Tenants,
    clients: AtomicUsize,
    actor: ArcSwapOption<ActorRef<BucketMsg>>,
    arrived: Notify,
    resting_until: Mutex<Option<Instant>>,
}

/// What the actor last counted, for health, metrics and the admin view.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Those that the bucket has itself.
    idle: AtomicUsize,
    pub(crate) leased: AtomicUsize,
    pub(crate) opening: AtomicUsize,
    pub(crate) resetting: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    /// Others wait for slots.
    pub(crate) hungry: AtomicBool,
    /// Since when the first of those who wait does.
    pub(crate) oldest: Mutex<Option<Instant>>,
}

impl BucketShared {
    /// The last dial's failure, if none succeeded since.
    pub(crate) fn failure(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Server connections that nobody uses, wherever they are.
    pub(crate) fn idle(&self) -> usize {
        self.counts.idle.load(Ordering::Relaxed) + self.resting.count()
    }

    fn note_failure(&self, why: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// A typed handle to a bucket. It finds the bucket's actor anew for each message, so it survives restarts.
#[derive(Clone)]
pub(crate) struct BucketHandle(Arc<BucketShared>);

impl OnFree for BucketHandle {
    fn slot_freed(&self) {
        self.tell(BucketMsg::SlotFreed);
    }
}

/// What a bucket needs that outlives it.
pub(crate) struct BucketParts {
    pub(crate) settings: Arc<Bucket>,
    pub(crate) verified: Verified,
    pub(crate) metrics: BucketMetrics,
    pub(crate) tls: TlsConnector,
    pub(crate) coordinator: CoordinatorHandle,
}

impl BucketHandle {
    pub(crate) fn new(parts: BucketParts) -> Self {
        let procedures = ArcSwap::from_pointee(procedures_of(&parts.settings));
        let assumed = (!parts.settings.self_test).then(|| Arc::new(ServerTraits::sql_server()));
        Self(Arc::new(BucketShared {
            traits: ArcSwapOption::new(assumed),
            self_tests: SelfTests::default(),
            procedures,
            name: parts.settings.name.clone(),
            settings: ArcSwap::new(parts.settings),
            standing: Standing::default(),
            slots: Arc::default(),
            verified: parts.verified,
            metrics: parts.metrics,
            counts: Counts::default(),
            resting: Arc::default(),
            tls: ArcSwap::from_pointee(parts.tls),
            coordinator: parts.coordinator,
            last_error: Mutex::default(),
            tenants: Tenants::default(),
            clients: AtomicUsize::new(0),
            actor: ArcSwapOption::empty(),
            arrived: Notify::new(),
            resting_until: Mutex::default(),
        }))
    }

    pub(crate) fn name(&self) -> &BucketName {
        &self.0.name
    }

    /// The settings of this moment: a reload may put others in their place.
    pub(crate) fn settings(&self) -> Arc<Bucket> {
        self.0.settings.load_full()
    }

    /// Puts other settings in force. Server connections that were opened by settings that no longer hold are
    /// replaced as they come home.
    pub(crate) fn apply(&self, settings: Arc<Bucket>, tls: Option<TlsConnector>) {
        debug_assert_eq!(settings.name, self.0.name, "a bucket keeps its name");
        let before = self.0.settings.swap(Arc::clone(&settings));
        if let Some(tls) = tls {
            self.0.tls.store(Arc::new(tls));
        }
        let elsewhere = before.host != settings.host
            || before.port != settings.port
            || before.server_tls != settings.server_tls
            || before.keepalive != settings.keepalive;
        self.0.procedures.store(Arc::new(procedures_of(&settings)));
        if !settings.self_test {
            self.0.traits.store(Some(Arc::new(ServerTraits::sql_server())));
        }
        if elsewhere || before.self_test != settings.self_test {
            self.0.self_tests.forget();
        }
        if elsewhere {
            self.reconnect();
        }
        self.0.coordinator.look(self);
        self.tell(BucketMsg::StandingChanged);
    }

    /// Another limit, until the next reload says otherwise.
    pub(crate) fn set_max_connections(&self, max_connections: u32) {
        let settings = Bucket { max_connections, ..(*self.settings()).clone() };
        self.apply(Arc::new(settings), None);
    }

    /// No server connection is lent any more, and those that come home are closed: the server may be restarted.
    /// Who asks for one waits. False if it was so before.
    pub(crate) fn pause(&self) -> bool {
        let changed = self.0.standing.pause(Instant::now());
        self.tell(BucketMsg::StandingChanged);
        changed
    }

    /// The end of a pause: whoever waits is served.
    pub(crate) fn resume(&self) -> bool {
        let pause = self.0.standing.resume(Instant::now());
        if let Some(since) = pause {
            self.tell(BucketMsg::Resumed { since });
        }
        pause.is_some()
    }

    /// Every server connection is closed as soon as nobody uses it, and new ones take their places.
    pub(crate) fn reconnect(&self) {
        self.0.standing.reconnect(Instant::now());
        self.tell(BucketMsg::StandingChanged);
    }

    /// Closes one server connection, whatever runs on it. False if it is not this bucket's.
    pub(crate) async fn close(&self, id: u64) -> bool {
        let Some(actor) = self.0.actor.load_full() else { return false };
        let ask = |reply| BucketMsg::Close { id, reply };
        matches!(actor.call(ask, Some(ADMIN_PATIENCE)).await, Ok(CallResult::Success(true)))
    }

    /// It is no longer in the configuration: its clients may go on, nobody new comes in, and its actor ends with the
    /// last of them.
    pub(crate) fn retire(&self) {
        self.0.standing.retire();
        self.tell(BucketMsg::StandingChanged);
    }

    /// Retired, and nobody and nothing is left of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.standing.is_retired() && self.clients() == 0 && self.0.slots.used() == 0
    }

    pub(crate) fn tls(&self) -> Arc<TlsConnector> {
        self.0.tls.load_full()
    }

    pub(crate) fn shared(&self) -> &BucketShared {
        &self.0
    }

    /// A lease of a connection that `template`'s login opens. Waits in order, until `deadline` at the latest.
    /// Dropping the future leaves the queue.
    pub(crate) async fn acquire(
        &self,
        template: &Arc<LoginTemplate>,
        wish: Option<Wish>,
        deadline: Instant,
    ) -> Result<Lease, AcquireError> {
        let since = Instant::now();
        let ask = |reply| BucketMsg::Acquire {
            template: Arc::clone(template),
            wish: wish.clone(),
            since,
            deadline,
            reply,
        };
        self.ask(since, deadline, ask).await
    }

    /// The login response that `template`'s login gets, by logging in to the server with it.
    pub(crate) async fn verify(
        &self,
        template: &Arc<LoginTemplate>,
        deadline: Instant,
    ) -> Result<Arc<LoginResponse>, AcquireError> {
        let since = Instant::now();
        let ask = |reply| BucketMsg::Verify { template: Arc::clone(template), since, deadline, reply };
        self.ask(since, deadline, ask).await
    }

    /// The right to open one connection that will never be shared.
    pub(crate) async fn acquire_slot(
        &self,
        template: &Arc<LoginTemplate>,
        deadline: Instant,
    ) -> Result<Occupied, AcquireError> {
        let since = Instant::now();
        let ask = |reply| BucketMsg::AcquireSlot { template: Arc::clone(template), since, deadline, reply };
        let permit: SlotPermit = self.ask(since, deadline, ask).await?;
        Ok(Occupied::new(permit))
    }

    /// Asks the actor, and asks its successor if it crashes before it answers.
    async fn ask<T: Send + 'static>(
        &self,
        since: Instant,
        deadline: Instant,
        message: impl Fn(ractor::RpcReplyPort<Result<T, AcquireError>>) -> BucketMsg,
    ) -> Result<T, AcquireError> {
        let asking = async {
            loop {
                let arrived = self.0.arrived.notified();
                if self.is_resting() {
                    return Err(AcquireError::Resting { bucket: self.name().clone() });
                }
                if let Some(actor) = self.0.actor.load_full() {
                    if let Ok(CallResult::Success(answer)) = actor.call(&message, None).await {
                        return answer;
                    }
                    // The actor died with our request: its successor gets it, with our place in the queue.
                    if self.0.actor.load_full().is_some_and(|now| now.get_id() != actor.get_id()) {
                        continue;
                    }
                }
                arrived.await;
            }
        };
        tokio::pin!(asking);
        loop {
            // The time of a pause does not count: it is bounded by itself.
            let patience = deadline + GRACE + self.0.standing.paused_since(since, Instant::now());
            match tokio::time::timeout_at(patience, &mut asking).await {
                Ok(answer) => return answer,
                Err(_)
                    if self.0.standing.paused_since(since, Instant::now()) > patience - deadline - GRACE => {}
                Err(_) => break,
            }
        }
        Err(AcquireError::Timeout {
            bucket: self.name().clone(),
            waited: since.elapsed(),
            ahead: self.0.counts.waiting.load(Ordering::Relaxed),
            max_connections: self.settings().max_connections,
        })
    }

    fn give_back(&self, conn: Box<ServerConn>, wear: Wear) {
        // Without an actor the message comes back, and the connection closes as it is dropped.
        self.tell(BucketMsg::Return { conn, wear });
    }

    /// The coordinator says how many slots this proxy may use.
    pub(crate) fn permit(&self, permission: Permission) {
        self.0.slots.permit(permission);
        self.permission_changed();
    }

    /// What is permitted changed, or the time of something permitted runs out.
    pub(crate) fn permission_changed(&self) {
        self.tell(BucketMsg::PermissionChanged);
    }

    /// How the bucket uses its slots, for the coordinator.
    pub(crate) fn demand(&self, used: u32) -> Use {
        let count = |count: &AtomicUsize| u32::try_from(count.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let counts = &self.0.counts;
        let arriving = count(&counts.opening) + count(&counts.resetting);
        let warm = if counts.hungry.load(Ordering::Relaxed) { 0 } else { self.settings().min_idle };
        let waiting = count(&counts.waiting);
        let want = count(&counts.leased) + waiting.max(arriving).max(warm);
        let oldest = counts.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        Use {
            used,
            want: want.min(self.settings().max_connections),
            waiting,
            oldest: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// Closes idle connections and refuses everybody from now on.
    pub(crate) fn drain(&self) {
        self.tell(BucketMsg::Drain);
    }

    /// Each server connection that the bucket knows, for the admin view.
    pub(crate) async fn servers(&self) -> Vec<ServerRow> {
        let Some(actor) = self.0.actor.load_full() else { return Vec::new() };
        match actor.call(BucketMsg::List, Some(ADMIN_PATIENCE)).await {
            Ok(CallResult::Success(rows)) => rows,
            _ => Vec::new(),
        }
    }

    /// Each sub-pool, and each waiter in its order, for the admin view.
    pub(crate) async fn pools(&self) -> (Vec<PoolRow>, Vec<WaiterRow>) {
        let Some(actor) = self.0.actor.load_full() else { return Default::default() };
        match actor.call(BucketMsg::Pools, Some(ADMIN_PATIENCE)).await {
            Ok(CallResult::Success(rows)) => rows,
            _ => Default::default(),
        }
    }

    fn tell(&self, message: BucketMsg) {
        if let Some(actor) = &*self.0.actor.load() {
            // A dead actor hands the message back; dropping it is right for each of them.
            drop(actor.cast(message));
        }
    }

    /// The supervisor started the actor, anew perhaps.
    pub(crate) fn started(&self, actor: ActorRef<BucketMsg>) {
        *self.0.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.actor.store(Some(Arc::new(actor)));
        self.0.arrived.notify_waiters();
    }

    /// The bucket crashed too often and rests.
    pub(crate) fn rest(&self, until: Instant) {
        *self.0.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.0.actor.store(None);
        self.0.arrived.notify_waiters();
    }

    /// Whether the bucket rests after too many crashes.
    pub(crate) fn is_resting(&self) -> bool {
        let until = *self.0.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// One word for health and the admin view.
    pub(crate) fn state(&self) -> &'static str {
        match (self.0.standing.word(), self.is_resting(), self.0.failure()) {
            (Some(word), _, _) => word,
            (None, true, _) => "resting",
            (None, false, Some(_)) => "unreachable",
            (None, false, None) => "ok",
        }
    }

    /// Admits one more client to this bucket, if its limit, that of the client's tenant and its operator allow.
    pub(crate) fn admit(&self, login: &Login7) -> Result<BucketClient, SessionError> {
        if self.0.standing.is_closed() {
            return Err(AcquireError::Disabled { bucket: self.name().clone() }.into());
        }
        let settings = self.settings();
        let bucket = || self.name().clone();
        let tenant = self.0.tenants.of(login, &settings);
        let share = tenant
            .admit(settings.tenants.max_clients)
            .map_err(|clients| SessionError::TooManyTenantClients { bucket: bucket(), clients })?;
        let limit = settings.max_clients.unwrap_or(usize::MAX);
        let admitted = (self.0.clients)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1));
        match admitted {
            Ok(_) => Ok(BucketClient { bucket: self.clone(), share }),
            Err(clients) => Err(SessionError::TooManyBucketClients { bucket: bucket(), clients }),
        }
    }

    /// Clients that are logged in.
    pub(crate) fn clients(&self) -> usize {
        self.0.clients.load(Ordering::Acquire)
    }
}

/// One client's place among its bucket's clients, and among its tenant's.
pub(crate) struct BucketClient {
    bucket: BucketHandle,
    share: ClientShare,
}

impl BucketClient {
    /// Whose client it is.
    pub(crate) fn tenant(&self) -> &TenantRef {
        self.share.tenant()
    }
}

impl Drop for BucketClient {
    fn drop(&mut self) {
        self.bucket.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the operator says of procedures, beside what is known of the server's own.
fn procedures_of(settings: &Bucket) -> Procedures {
    let holding = settings.holding_procedures.iter();
    let known = holding.fold(Procedures::new(), |known, name| known.holding(name));
    let known = settings.harmless_procedures.iter().fold(known, |known, name| known.harmless(name));
    match settings.unknown_procedures {
        UnknownProcedures::Share => known,
        UnknownProcedures::Hold => known.unknown_hold(),
    }
}
