//! The bucket's actor: it carries out what the pool decides, and never waits for I/O itself.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use rand::RngExt;
use tds::login_response::LoginResponse;
use tdsbouncer_config::BucketAuth;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::dial::{DialError, Dialled};
use super::errand;
use super::key::{LoginTemplate, SubPool};
use super::place::Places;
use super::pool::{Action, Charged, Pool, Room, SubPoolCounts, Waiting, Want};
use super::recall::{Recall, RecallLevel, RecallReason};
use super::reset::{ResetError, reset};
use super::self_test;
use super::server_conn::{About, Place, ServerConnId, Wear};
use super::slots::SlotPermit;
use super::state::{ConnState, Wish};
use super::{BucketHandle, Lease, ServerConn};
use crate::admin::{PoolRow, ServerRow, WaiterRow};
use crate::error::AcquireError;
use crate::panics;
use crate::policy::BackOff;

/// How often idle connections are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Others wait: a connection that was idle for so long will not be needed the next moment.
const GIVE_BACK_AFTER: Duration = Duration::from_millis(200);

/// How often the coordinator is told at most, while slots are missing or not needed.
const SPEAK_EVERY: Duration = Duration::from_millis(50);

/// How long a sub-pool without connections is remembered, for [`Pool::warm`].
const FORGET_SUB_POOL: Duration = Duration::from_secs(600);

/// Sent by sessions (at most one `Acquire`, `Verify` or `AcquireSlot` each, and one `Return` for each lease),
/// by the bucket's own errands (one outcome each), by the coordinator and by dropped slots.
pub(crate) enum BucketMsg {
    // asked
    Acquire {
        template: Arc<LoginTemplate>,
        /// What the session would like to find on the connection.
        wish: Option<Wish>,
        since: Instant,
        deadline: Instant,
        reply: RpcReplyPort<Result<Lease, AcquireError>>,
    },
    Verify {
        template: Arc<LoginTemplate>,
        since: Instant,
        deadline: Instant,
        reply: RpcReplyPort<Result<Arc<LoginResponse>, AcquireError>>,
    },
    AcquireSlot {
        template: Arc<LoginTemplate>,
        since: Instant,
        deadline: Instant,
        reply: RpcReplyPort<Result<SlotPermit, AcquireError>>,
    },
    List(RpcReplyPort<Vec<ServerRow>>),
    Pools(RpcReplyPort<(Vec<PoolRow>, Vec<WaiterRow>)>),
    Close {
        id: u64,
        reply: RpcReplyPort<bool>,
    },
    Drain,
    // happened
    Return {
        conn: Box<ServerConn>,
        wear: Wear,
    },
    Dialled {
        key: SubPool,
        outcome: Result<Box<Dialled>, DialError>,
    },
    Reset {
        conn: Box<ServerConn>,
        outcome: Result<(), ResetError>,
    },
    SlotFreed,
    PermissionChanged,
    /// An operator or a reload said something: it stands in the bucket's settings and standing.
    StandingChanged,
    /// A pause that began then is over.
    Resumed {
        since: Instant,
    },
    Tick,
}

/// Whom the bucket answers once it can.
enum Waiter {
    Borrow(RpcReplyPort<Result<Lease, AcquireError>>, Option<Wish>),
    Verify(RpcReplyPort<Result<Arc<LoginResponse>, AcquireError>>),
    Slot(RpcReplyPort<Result<SlotPermit, AcquireError>>),
}

impl Waiter {
    fn is_gone(&self) -> bool {
        match self {
            Self::Borrow(reply, _) => reply.is_closed(),
            Self::Verify(reply) => reply.is_closed(),
            Self::Slot(reply) => reply.is_closed(),
        }
    }

    /// How well the connection serves the waiter; less is better.
    fn distance(&self, conn: &ServerConn) -> u8 {
        match self {
            Self::Borrow(_, Some(wish)) => conn.state.distance(wish),
            _ => 0,
        }
    }

    /// A waiter that is gone needs no answer.
    fn refuse(self, error: AcquireError) {
        match self {
            Self::Borrow(reply, _) => drop(reply.send(Err(error))),
            Self::Verify(reply) => drop(reply.send(Err(error))),
            Self::Slot(reply) => drop(reply.send(Err(error))),
        }
    }
}

type BucketPool = Pool<SubPool, Box<ServerConn>, Waiter>;

pub(crate) struct BucketActor;

pub(crate) struct BucketArgs {
    pub(crate) handle: BucketHandle,
}

pub(crate) struct BucketState {
    handle: BucketHandle,
    myself: ActorRef<BucketMsg>,
    pool: BucketPool,
    /// What each running errand is for, to know what to undo if it crashes.
    errands: HashMap<ActorId, Errand>,
    /// What was lent and has not come home.
    lent: HashMap<ServerConnId, Lent>,
    /// Where some of that rests.
    places: Places<SubPool, Box<ServerConn>>,
    /// Slots lent without a connection of ours, while their user lives, oldest first.
    lent_slots: Vec<Weak<Recall>>,
    /// Lent connections are being asked for because the quota shrank.
    recalling: bool,
    /// When the coordinator was told last that slots are missing or not needed, while they are.
    spoke: Option<Instant>,
    failures: u32,
    backed_off_until: Option<Instant>,
    draining: bool,
    /// The moment of the timer that is set, if one is.
    wakes: Option<Instant>,
}

/// A connection that was lent, as the admin view shows it, and how it is asked back.
struct Lent {
    about: About,
    recall: Arc<Recall>,
    place: Arc<Place>,
    since: Instant,
}

impl Drop for Lent {
    /// The bucket does not know of it any more: what rests is closed, what is used comes home.
    fn drop(&mut self) {
        drop(self.place.close());
    }
}

enum Errand {
    Dial(SubPool),
    Reset(SubPool),
}

impl Actor for BucketActor {
    type Msg = BucketMsg;
    type State = BucketState;
    type Arguments = BucketArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<BucketMsg>,
        args: BucketArgs,
    ) -> Result<BucketState, ActorProcessingErr> {
        let places = Places::new(Arc::clone(&args.handle.shared().resting));
        Ok(BucketState {
            handle: args.handle,
            myself,
            pool: Pool::new(),
            errands: HashMap::new(),
            lent: HashMap::new(),
            places,
            lent_slots: Vec::new(),
            recalling: false,
            spoke: None,
            failures: 0,
            backed_off_until: None,
            draining: false,
            wakes: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<BucketMsg>,
        state: &mut BucketState,
    ) -> Result<(), ActorProcessingErr> {
        let shared = state.handle.shared();
        shared.coordinator.look(&state.handle);
        myself.send_interval(TICK, || BucketMsg::Tick);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<BucketMsg>,
        message: BucketMsg,
        state: &mut BucketState,
    ) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        match message {
            BucketMsg::Acquire { template, wish, since, deadline, reply } => {
                crate::crash_test::point("bucket", &template.application);
                state.queue(template, Want::Borrow, since, deadline, Waiter::Borrow(reply, wish));
            }
            BucketMsg::Verify { template, since, deadline, reply } => {
                state.verify(template, since, deadline, reply);
            }
            BucketMsg::AcquireSlot { template, since, deadline, reply } => {
                state.queue(template, Want::Slot, since, deadline, Waiter::Slot(reply));
            }
            BucketMsg::List(reply) => drop(reply.send(state.list())),
            BucketMsg::Pools(reply) => drop(reply.send((state.pool_rows(), state.waiter_rows()))),
            BucketMsg::Close { id, reply } => {
                let closed = state.close(id);
                drop(reply.send(closed));
            }
            BucketMsg::Drain => state.drain(),
            BucketMsg::Return { conn, wear } => state.take_back(conn, wear),
            BucketMsg::Dialled { key, outcome } => state.dialled(&key, outcome),
            BucketMsg::Reset { conn, outcome } => state.was_reset(conn, outcome),
            BucketMsg::PermissionChanged => state.shrink(),
            BucketMsg::SlotFreed => {}
            BucketMsg::StandingChanged => state.close_what_must_go(),
            BucketMsg::Resumed { since } => state.resumed(since),
            BucketMsg::Tick => state.tick(),
        }
        if state.handle.is_gone() {
            myself.stop(None);
        }
        state.proceed(now);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<BucketMsg>,
        event: SupervisionEvent,
        state: &mut BucketState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => {
                state.errands.remove(&who.get_id());
            }
            SupervisionEvent::ActorFailed(who, why) => {
                if let Some(errand) = state.errands.remove(&who.get_id()) {
                    state.errand_crashed(&errand, &panics::reason(&why));
                    state.proceed(Instant::now());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl BucketState {
    fn verify(
        &mut self,
        template: Arc<LoginTemplate>,
        since: Instant,
        deadline: Instant,
        reply: RpcReplyPort<Result<Arc<LoginResponse>, AcquireError>>,
    ) {
        // Who asked while the answer to an equal login was on its way needs no login of its own.
        match self.handle.shared().verified.lookup(&template.key) {
            Some(response) => drop(reply.send(Ok(response))),
            None => self.queue(template, Want::Verify, since, deadline, Waiter::Verify(reply)),
        }
    }

    fn queue(
        &mut self,
        template: Arc<LoginTemplate>,
        want: Want,
        since: Instant,
        deadline: Instant,
        waiter: Waiter,
    ) {
        if self.draining {
            return waiter.refuse(AcquireError::Draining);
        }
        if let Some(error) = self.paused_too_long().or_else(|| self.server_is_down()) {
            return waiter.refuse(error);
        }
        let tenant = template.tenant.clone();
        let key = SubPool(template);
        if want == Want::Borrow {
            self.call_in(&key, |conn| waiter.distance(conn));
        }
        let ticket = self.pool.enqueue(key, want, since, deadline, waiter);
        let now = Instant::now();
        self.carry_out_plan(now);
        self.let_rest(now);
        let limit = self.handle.settings().queue_limit;
        let of_tenant = self.handle.settings().tenants.queue_limit.unwrap_or(usize::MAX);
        if self.pool.over_limit(limit).is_none() && self.pool.over_tenant_limit(&tenant, of_tenant).is_none()
        {
            return;
        }
        drop(self.pool.leave_where(|_, _, waiter| waiter.is_gone()));
        if let Some(full) = self.pool.over_tenant_limit(&tenant, of_tenant)
            && let Some(waiter) = self.pool.leave(ticket)
        {
            let bucket = self.handle.name().clone();
            waiter.refuse(AcquireError::TenantQueueFull { bucket, waiting: full.waiting, limit: of_tenant });
        }
        if let Some(full) = self.pool.over_limit(limit)
            && let Some(waiter) = self.pool.leave(ticket)
        {
            let settings = self.handle.settings();
            waiter.refuse(AcquireError::QueueFull {
                bucket: settings.name.clone(),
                waiting: full.waiting,
                limit,
                max_connections: settings.max_connections,
            });
        }
    }

    /// A pause is a delay; one that lasts is a refusal.
    fn paused_too_long(&self) -> Option<AcquireError> {
        let paused = self.handle.shared().standing.paused()?.elapsed();
        let limit = self.handle.settings().pause_timeout;
        (paused >= limit).then(|| AcquireError::Paused { bucket: self.handle.name().clone(), paused })
    }

    fn is_paused(&self) -> bool {
        self.handle.shared().standing.paused().is_some()
    }

    /// Idle connections that a pause, a reconnect or a retirement has no use for are closed, lent ones asked back.
    fn close_what_must_go(&mut self) {
        let handle = self.handle.clone();
        let standing = &handle.shared().standing;
        let paused = standing.paused().is_some();
        let all = paused || standing.is_retired();
        self.call_in_all();
        drop(self.pool.retire(|conn, _| all || !standing.is_fresh(conn.opened)));
        for lent in self.lent.values() {
            if paused {
                lent.recall.raise(RecallLevel::WhenClean, RecallReason::Paused);
            } else if !standing.is_fresh(lent.about.opened) {
                lent.recall.raise(RecallLevel::WhenClean, RecallReason::Reconnect);
            }
        }
    }

    /// An operator wants this connection closed, whatever runs on it.
    fn close(&mut self, id: u64) -> bool {
        if let Some(lent) = self.lent.get(&ServerConnId(id)) {
            if let Some(conn) = lent.place.close() {
                drop((self.lent.remove(&conn.id), conn));
                return true;
            }
            lent.recall.raise(RecallLevel::Now, RecallReason::Killed);
            return true;
        }
        !self.pool.retire(|conn, _| conn.id.0 == id).is_empty()
    }

    /// The time that a pause took from the waiters is given back to them, and the server is as good as new.
    fn resumed(&mut self, since: Instant) {
        self.pool.postpone(since, Instant::now());
        self.lent.values().for_each(|lent| lent.recall.withdraw(RecallReason::Paused));
        self.failures = 0;
        self.backed_off_until = None;
    }

    /// While the last dial failed and nothing is open that could come home, waiting is pointless.
    fn server_is_down(&self) -> Option<AcquireError> {
        let backed_off = self.backed_off_until.is_some_and(|until| Instant::now() < until);
        let down = backed_off && self.handle.shared().slots.used() == 0 && !self.is_paused();
        down.then(|| self.unreachable())
    }

    fn unreachable(&self) -> AcquireError {
        AcquireError::Unreachable {
            bucket: self.handle.name().clone(),
            why: self.handle.shared().failure().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Does what can be done now, sets the next alarm, publishes the counts.
    fn proceed(&mut self, now: Instant) {
        self.expire(now);
        self.carry_out_plan(now);
        self.let_rest(now);
        self.give_back_idle(now);
        self.set_alarm(now);
        self.publish();
        self.tell_coordinator(now);
    }

    fn expire(&mut self, now: Instant) {
        if let Some(error) = self.paused_too_long() {
            for waiter in self.pool.leave_where(|_, _, _| true) {
                waiter.refuse(error.clone());
            }
        }
        if self.is_paused() {
            return;
        }
        if self.pool.waiting() == 0 {
            return;
        }
        let settings = self.handle.settings();
        for expired in self.pool.expire(now) {
            expired.token.refuse(AcquireError::Timeout {
                bucket: settings.name.clone(),
                waited: expired.waited,
                ahead: expired.ahead,
                max_connections: settings.max_connections,
            });
        }
    }

    fn carry_out_plan(&mut self, now: Instant) {
        if self.pool.waiting() == 0 || self.is_paused() {
            return;
        }
        let handle = self.handle.clone();
        let fresh = |conn: &ServerConn| handle.shared().standing.is_fresh(conn.opened);
        if self.backed_off_until.is_some_and(|until| now >= until) {
            self.backed_off_until = None;
        }
        loop {
            let slots = &self.handle.shared().slots;
            let room = Room {
                free: slots.free(now),
                closing: slots.closing(),
                may_dial: self.backed_off_until.is_none(),
                of_tenant: self.handle.settings().tenants.max_connections.unwrap_or(usize::MAX),
            };
            let actions = self.pool.plan(
                room,
                now,
                Waiter::is_gone,
                |waiter, conn| waiter.distance(conn),
                |conn| fresh(conn) && conn.is_still_usable(now),
            );
            let mut again = false;
            for action in actions {
                again |= self.carry_out(action);
            }
            if !again {
                return;
            }
        }
    }

    /// True if the action failed in a way that calls for a new plan.
    fn carry_out(&mut self, action: Action<SubPool, Box<ServerConn>, Waiter>) -> bool {
        match action {
            Action::Lend { token: Waiter::Borrow(reply, _), conn } => self.lend(reply, conn),
            Action::LendSlot { token: Waiter::Slot(reply), share } => match self.take_slot() {
                Some(mut permit) => {
                    permit.charge(share);
                    self.lent_slots.push(Arc::downgrade(permit.recall()));
                    drop(reply.send(Ok(permit)));
                }
                None => drop(reply.send(Err(self.unreachable()))),
            },
            Action::Dial { key } => self.dial(key),
            Action::Evict { conn } => {
                self.handle.shared().metrics.evictions.inc();
                debug!(bucket = %self.handle.name(), conn = %conn.id, "evicted");
                drop(conn);
            }
            Action::Lend { token, conn } => {
                debug_assert!(false, "a connection is lent to borrowers only");
                token.refuse(self.unreachable());
                drop(conn);
            }
            Action::LendSlot { token, .. } => {
                debug_assert!(false, "a slot is lent to those who asked for one");
                token.refuse(self.unreachable());
            }
        }
        false
    }

    fn lend(&mut self, reply: RpcReplyPort<Result<Lease, AcquireError>>, mut conn: Box<ServerConn>) {
        conn.uses += 1;
        self.handle.shared().counts.leased.fetch_add(1, Ordering::Relaxed);
        self.handle.shared().metrics.leases.inc();
        let (since, recall) = (Instant::now(), Arc::clone(conn.recall()));
        let place = self.handle.shared().resting.place(SubPool(Arc::clone(&conn.template)));
        let lent = Lent { about: conn.about(), recall, place: Arc::clone(&place), since };
        self.lent.insert(conn.id, lent);
        // If the borrower is gone in this very moment, the lease comes home untouched as it is dropped.
        drop(reply.send(Ok(Lease::new(conn, self.handle.clone(), place, since))));
    }

    fn take_slot(&self) -> Option<SlotPermit> {
        self.handle.shared().slots.take(Arc::new(self.handle.clone()))
    }

    fn dial(&mut self, key: SubPool) {
        let Some(permit) = self.take_slot() else {
            debug_assert!(false, "only the bucket takes slots, and it planned with what is free");
            self.pool.dial_ended(&key);
            return;
        };
        let (myself, handle, template) = (self.myself.clone(), self.handle.clone(), Arc::clone(&key.0));
        let (told, recall) = (key.clone(), Arc::clone(permit.recall()));
        let work = Box::pin(async move {
            let outcome = tokio::select! {
                outcome = self_test::open(&handle, &template, permit) => outcome.map(Box::new),
                why = recall.wanted(RecallLevel::Now) => Err(DialError::Recalled(why)),
            };
            drop(myself.cast(BucketMsg::Dialled { key: told, outcome }));
        });
        match errand::run(self.myself.get_cell(), work) {
            Some(id) => drop(self.errands.insert(id, Errand::Dial(key))),
            None => self.pool.dial_ended(&key),
        }
    }

    fn dialled(&mut self, key: &SubPool, outcome: Result<Box<Dialled>, DialError>) {
        self.pool.dial_ended(key);
        let shared = self.handle.shared();
        shared.metrics.dial(outcome.is_ok());
        match outcome {
            Ok(dialled) => {
                self.failures = 0;
                self.backed_off_until = None;
                shared.note_failure(None);
                let response = Arc::new(dialled.response);
                shared.verified.remember(&key.0.key, Arc::clone(&response), dialled.asked);
                shared.metrics.connected(dialled.asked.elapsed());
                for waiter in self.pool.leave_where(|of, want, _| of == key && want == Want::Verify) {
                    if let Waiter::Verify(reply) = waiter {
                        drop(reply.send(Ok(Arc::clone(&response))));
                    }
                }
                let conn = self.with_expiry(dialled.conn);
                self.put_idle(key.clone(), conn, Instant::now());
            }
            Err(error) if self.is_paused() => {
                shared.metrics.dial_failed(error.label());
                info!(bucket = %self.handle.name(), %error, "no server connection while paused");
            }
            // Clients did nothing wrong, and must not read about a login that is not theirs.
            Err(DialError::Refused { messages })
                if matches!(self.handle.settings().auth, BucketAuth::Service { .. }) =>
            {
                warn!(bucket = %self.handle.name(), ?messages, "the server refused the service login");
                shared.metrics.dial_failed("login_refused");
                self.dial_failed("it refuses the bucket's service login");
            }
            Err(DialError::Refused { messages }) => {
                shared.metrics.dial_failed("login_refused");
                self.refused(key, messages);
            }
            // The server did nothing wrong.
            Err(DialError::Recalled(why)) => {
                debug!(bucket = %self.handle.name(), %why, "a dial was given up");
            }
            Err(error) => {
                shared.metrics.dial_failed(error.label());
                self.dial_failed(&error.to_string());
            }
        }
    }

    fn with_expiry(&self, mut conn: Box<ServerConn>) -> Box<ServerConn> {
        let settings = self.handle.settings();
        conn.expires = settings.max_lifetime.map(|lifetime| {
            let early = if settings.lifetime_jitter > 0.0 {
                rand::rng().random_range(0.0..settings.lifetime_jitter)
            } else {
                0.0
            };
            conn.opened + lifetime.mul_f64(1.0 - early)
        });
        conn
    }

    /// The server does not want this login. Everybody with the same credentials would hear the same.
    fn refused(&mut self, key: &SubPool, messages: Vec<tds::server_message::ServerMessage>) {
        let shared = self.handle.shared();
        let numbers: Vec<i32> = messages.iter().map(|message| message.number).collect();
        info!(bucket = %self.handle.name(), user = %key.0.key.user, ?numbers, "the server refused a login");
        shared.verified.forget_principal(&key.0.key.user);
        let error = AcquireError::Refused(messages);
        for waiter in self.pool.leave_where(|of, want, _| of == key && want != Want::Slot) {
            waiter.refuse(error.clone());
        }
    }

    /// The server cannot be reached: back off. Whoever nothing can serve before the next attempt is told so.
    fn dial_failed(&mut self, why: &str) {
        let settings = self.handle.settings();
        let back_off =
            BackOff { first: settings.reconnect_backoff.min, most: settings.reconnect_backoff.max };
        let pause = back_off.delay(self.failures);
        warn!(bucket = %settings.name, why, ?pause, failures = self.failures + 1, "cannot open a server connection");
        self.failures = self.failures.saturating_add(1);
        self.backed_off_until = Some(Instant::now() + pause);
        self.handle.shared().note_failure(Some(why.to_owned()));
        let nothing_open = self.handle.shared().slots.used() <= self.handle.shared().slots.closing();
        let error = self.unreachable();
        if nothing_open {
            for waiter in self.pool.leave_where(|_, _, _| true) {
                waiter.refuse(error.clone());
            }
        }
    }

    fn errand_crashed(&mut self, errand: &Errand, why: &str) {
        warn!(bucket = %self.handle.name(), why, "an errand crashed");
        self.handle.shared().metrics.crash("errand", self.handle.name().as_str(), why);
        match errand {
            Errand::Dial(key) => {
                self.pool.dial_ended(key);
                self.dial_failed("internal error while connecting");
            }
            Errand::Reset(key) => self.pool.reset_ended(key),
        }
    }

    fn take_back(&mut self, conn: Box<ServerConn>, wear: Wear) {
        self.handle.shared().counts.leased.fetch_sub(1, Ordering::Relaxed);
        self.came_home(conn, wear, Instant::now());
    }

    /// A connection that rests and is near is taken from its session: a waiter is going to ask for one.
    fn call_in(&mut self, key: &SubPool, distance: impl Fn(&ServerConn) -> u8) {
        // One of the bucket's own does as well.
        if self.pool.idle_in(key) == 0
            && let Some((conn, since)) = self.places.take(key, |conn| distance(conn))
        {
            self.came_home(conn, Wear::Known, since);
        }
    }

    /// Takes everything that rests.
    fn call_in_all(&mut self) {
        self.call_in_since(Instant::now());
    }

    fn call_in_since(&mut self, before: Instant) {
        for (_, conn, since) in self.places.take_since(before) {
            self.came_home(conn, Wear::Known, since);
        }
    }

    /// Says whether connections may rest with their sessions. Where somebody waits, or connections are to be closed or given
    /// to others, they come home.
    fn let_rest(&mut self, now: Instant) {
        let settings = self.handle.settings();
        let shared = self.handle.shared();
        let allowed = self.pool.waiting() == 0
            && !self.draining
            && !settings.affinity.is_zero()
            && settings.tenants.max_connections.is_none()
            && !shared.slots.is_hungry()
            && shared.slots.surplus(now).0 == 0
            && !shared.standing.wants_connections_back()
            && self_test::reset_is_complete(&self.handle);
        if shared.resting.allow(allowed) && !allowed {
            self.call_in_all();
            self.carry_out_plan(now);
        }
    }

    fn came_home(&mut self, mut conn: Box<ServerConn>, wear: Wear, since: Instant) {
        self.lent.remove(&conn.id);
        conn.share = None;
        let recalled = conn.recall().level() > RecallLevel::None;
        let now = Instant::now();
        let over_quota = self.handle.shared().slots.surplus(now).0 > 0;
        let standing = &self.handle.shared().standing;
        let stale = standing.paused().is_some() || standing.is_retired() || !standing.is_fresh(conn.opened);
        let unwanted = self.draining || over_quota || recalled || stale || conn.is_expired(now);
        if unwanted || wear == Wear::Tainted {
            debug!(bucket = %self.handle.name(), conn = %conn.id, ?wear, "closed as it came home");
            drop(conn);
            return self.shrink_on();
        }
        let key = SubPool(Arc::clone(&conn.template));
        // What only a reset would take away must not reach the next client where a reset does not.
        let needs_reset = wear == Wear::Used || wear == Wear::Known && !conn.state.is_fresh();
        if needs_reset && !self_test::reset_is_complete(&self.handle) {
            debug!(bucket = %self.handle.name(), conn = %conn.id, "closed: the server's reset leaves too much");
            return;
        }
        if matches!(wear, Wear::Untouched | Wear::Known) {
            return self.put_idle(key, conn, since);
        }
        self.pool.reset_began(key.clone(), now);
        let (myself, timeout) = (self.myself.clone(), self.handle.settings().reset_timeout);
        let work = Box::pin(async move {
            let outcome = match tokio::time::timeout(timeout, reset(&mut conn)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(ResetError::Timeout { waited: timeout }),
            };
            drop(myself.cast(BucketMsg::Reset { conn, outcome }));
        });
        match errand::run(self.myself.get_cell(), work) {
            Some(id) => drop(self.errands.insert(id, Errand::Reset(key))),
            None => self.pool.reset_ended(&key),
        }
    }

    /// Less may be permitted than is open: closes idle connections first, then asks for lent ones; what is overdue is
    /// closed at once, what serves nobody first.
    fn shrink(&mut self) {
        let now = Instant::now();
        // What rests is as good as idle.
        self.let_rest(now);
        let slots = Arc::clone(&self.handle.shared().slots);
        let (surplus, reason) = slots.surplus(now);
        let mut idle = self.pool.idle().min(surplus as usize);
        let surplus = surplus as usize - idle;
        if idle > 0 {
            let doomed = self.pool.retire(|_, _| {
                let goes = idle > 0;
                idle -= usize::from(goes);
                goes
            });
            debug!(bucket = %self.handle.name(), closed = doomed.len(), "fewer connections are permitted");
        }
        if surplus > 0 || self.recalling {
            self.recall(surplus, reason);
        }
        let overdue = slots.overdue(now);
        if overdue > 0 {
            let left = overdue - slots.cut_short(overdue);
            warn!(bucket = %self.handle.name(), overdue, lent = left, "connections are closed: their slots are needed");
            for recall in self.lent_longest_first().take(left as usize) {
                recall.raise(RecallLevel::Now, reason);
            }
        }
    }

    /// Something was closed: fewer lent connections may be needed back.
    fn shrink_on(&mut self) {
        if self.recalling {
            self.shrink();
        }
    }

    /// Asks for this many lent connections at their next clean boundary, those lent longest ago first, and for no
    /// more.
    fn recall(&mut self, count: usize, reason: RecallReason) {
        for (nth, recall) in self.lent_longest_first().enumerate() {
            if nth < count {
                recall.raise(RecallLevel::WhenClean, reason);
            } else {
                recall.withdraw(RecallReason::QuotaShrank);
                recall.withdraw(RecallReason::LeaseEnds);
            }
        }
        self.recalling = count > 0;
    }

    fn lent_longest_first(&mut self) -> impl Iterator<Item = Arc<Recall>> + use<> {
        self.lent_slots.retain(|slot| slot.strong_count() > 0);
        let mut lent: Vec<&Lent> = self.lent.values().collect();
        lent.sort_by_key(|lent| lent.since);
        let slots = self.lent_slots.iter().filter_map(Weak::upgrade);
        let recalls: Vec<_> = lent.into_iter().map(|lent| Arc::clone(&lent.recall)).chain(slots).collect();
        recalls.into_iter()
    }

    /// Others wait: whatever has been idle for a moment is given to them.
    fn give_back_idle(&mut self, now: Instant) {
        if !self.handle.shared().slots.is_hungry() || self.pool.waiting() > 0 || self.pool.idle() == 0 {
            return;
        }
        drop(self.pool.retire(|_, since| now.duration_since(since) >= GIVE_BACK_AFTER));
    }

    /// Tells the coordinator when slots are missing or can be given back: at once when that begins, then now and then.
    fn tell_coordinator(&mut self, now: Instant) {
        let shared = self.handle.shared();
        let demand = self.handle.demand(shared.slots.used());
        let quota = shared.slots.quota(now);
        let unneeded = quota > demand.used.max(demand.want);
        let speaks = demand.want > quota || (unneeded && shared.slots.is_hungry());
        if !speaks {
            self.spoke = None;
        } else if self.spoke.is_none_or(|spoke| now.duration_since(spoke) >= SPEAK_EVERY) {
            self.spoke = Some(now);
            shared.coordinator.look(&self.handle);
        }
    }

    fn was_reset(&mut self, mut conn: Box<ServerConn>, outcome: Result<(), ResetError>) {
        let key = SubPool(Arc::clone(&conn.template));
        self.pool.reset_ended(&key);
        self.handle.shared().metrics.reset(outcome.is_ok());
        match outcome {
            Ok(()) if !self.draining && !self.is_paused() => {
                conn.state = ConnState::default();
                self.put_idle(key, conn, Instant::now());
            }
            Ok(()) => {}
            Err(why) => warn!(bucket = %self.handle.name(), conn = %conn.id, %why, "discarded: not reset"),
        }
    }

    fn put_idle(&mut self, key: SubPool, conn: Box<ServerConn>, since: Instant) {
        if self.is_paused() {
            // Opened for nobody: it came while the pause began.
            return;
        }
        self.pool.put_idle(key, conn, since);
    }

    /// Closes what died, what is too old, what was idle for too long; keeps the bucket warm.
    fn tick(&mut self) {
        let now = Instant::now();
        drop(self.pool.leave_where(|_, _, waiter| waiter.is_gone()));
        let settings = self.handle.settings();
        if let Some(before) = now.checked_sub(settings.affinity) {
            self.call_in_since(before);
        }
        let mut may_go = self.pool.idle().saturating_sub(settings.min_idle as usize);
        let retired = self.pool.retire(|conn, since| {
            if !conn.is_usable(now) {
                return true;
            }
            // What was used a moment ago will need its buffers again.
            if now.duration_since(since) >= TICK
                && let Some(link) = conn.link()
            {
                link.shrink();
            }
            let stale = settings.idle_timeout.is_some_and(|limit| now.duration_since(since) >= limit);
            let goes = stale && may_go > 0;
            may_go -= usize::from(goes);
            goes
        });
        drop(retired);
        if let Some(before) = now.checked_sub(FORGET_SUB_POOL) {
            self.pool.forget_unused(before);
        }
        if self.handle.shared().slots.quota(now) < settings.max_connections {
            // The coordinator may have been away when we asked.
            self.handle.shared().coordinator.look(&self.handle);
        }
        self.shrink();
        self.keep_warm(now);
    }

    fn keep_warm(&mut self, now: Instant) {
        let backed_off = self.backed_off_until.is_some_and(|until| now < until);
        let idle_wanted = !self.is_paused() && !self.handle.shared().standing.is_retired();
        let hungry = self.handle.shared().slots.is_hungry();
        if self.draining || backed_off || hungry || !idle_wanted || self.pool.waiting() > 0 {
            return;
        }
        let there = self.pool.idle_or_opening() + self.handle.shared().resting.count();
        let missing = (self.handle.settings().min_idle as usize).saturating_sub(there);
        for _ in 0..missing.min(self.handle.shared().slots.free(now) as usize) {
            let Some(key) = self.pool.warm() else { return };
            self.dial(key);
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.let_rest(Instant::now());
        drop(self.pool.retire(|_, _| true));
        for waiter in self.pool.leave_where(|_, _, _| true) {
            waiter.refuse(AcquireError::Draining);
        }
    }

    /// When idle connections have been idle for long enough to be given to others.
    fn idle_ends(&self, now: Instant) -> Option<Instant> {
        let gives =
            self.pool.idle() > 0 && self.pool.waiting() == 0 && self.handle.shared().slots.is_hungry();
        gives.then_some(now + GIVE_BACK_AFTER)
    }

    /// One timer for all waiters: it is set when the earliest deadline comes before it.
    fn set_alarm(&mut self, now: Instant) {
        if self.wakes.is_some_and(|wakes| wakes <= now) {
            self.wakes = None;
        }
        let Some(next) = [
            self.pool.next_deadline(),
            self.backed_off_until.filter(|_| self.pool.waiting() > 0),
            self.idle_ends(now),
        ]
        .into_iter()
        .flatten()
        .min() else {
            return;
        };
        if self.wakes.is_none_or(|wakes| next < wakes) {
            self.wakes = Some(next);
            // SlotFreed does what an alarm needs: look again.
            self.myself.send_after(next.saturating_duration_since(now), || BucketMsg::SlotFreed);
        }
    }

    fn publish(&self) {
        let shared = self.handle.shared();
        shared.counts.idle.store(self.pool.idle(), Ordering::Relaxed);
        shared.counts.waiting.store(self.pool.waiting(), Ordering::Relaxed);
        shared.counts.hungry.store(shared.slots.is_hungry(), Ordering::Relaxed);
        *shared.counts.oldest.lock().unwrap_or_else(PoisonError::into_inner) = self.pool.oldest_waiter();
        let (opening, resetting) = self.pool.arriving();
        shared.counts.opening.store(opening, Ordering::Relaxed);
        shared.counts.resetting.store(resetting, Ordering::Relaxed);
        debug_assert!(self.pool.idle() <= shared.slots.used() as usize, "an idle connection holds its slot");
    }

    fn list(&self) -> Vec<ServerRow> {
        let name = self.handle.name();
        let idle = self.pool.each_idle().map(|(conn, since)| {
            let idle_for = Some(since.elapsed());
            ServerRow { idle_for, ..conn.about().row(name, "idle") }
        });
        let lent = self.lent.values().map(|lent| match lent.place.since() {
            Some(since) => ServerRow { idle_for: Some(since.elapsed()), ..lent.about.row(name, "idle") },
            None => lent.about.row(name, "leased"),
        });
        idle.chain(lent).collect()
    }

    fn pool_rows(&self) -> Vec<PoolRow> {
        #[expect(clippy::mutable_key_type, reason = "a sub-pool's key never changes")]
        let mut counts: HashMap<SubPool, (SubPoolCounts, usize)> = HashMap::new();
        for (key, pool) in self.pool.each_sub_pool() {
            counts.entry(key.clone()).or_default().0 = pool;
        }
        for lent in self.lent.values() {
            let of = counts.entry(SubPool(Arc::clone(&lent.about.template))).or_default();
            match lent.place.since() {
                Some(_) => of.0.idle += 1,
                None => of.1 += 1,
            }
        }
        #[expect(clippy::mutable_key_type, reason = "a sub-pool's key never changes")]
        let mut waiting: HashMap<&SubPool, usize> = HashMap::new();
        for waiter in self.pool.each_waiter() {
            *waiting.entry(waiter.key).or_default() += 1;
        }
        let row = |(key, (pool, leased)): (SubPool, (SubPoolCounts, usize))| PoolRow {
            bucket: self.handle.name().to_string(),
            user: key.0.login.user_name.clone(),
            database: key.0.database.clone(),
            tds: key.0.login.tds_version.to_string(),
            idle: pool.idle,
            opening: pool.opening,
            resetting: pool.resetting,
            leased,
            waiting: waiting.get(&key).copied().unwrap_or(0),
        };
        counts.into_iter().map(row).collect()
    }

    fn waiter_rows(&self) -> Vec<WaiterRow> {
        let (bucket, now) = (self.handle.name().to_string(), Instant::now());
        let row = |(place, waiter): (usize, Waiting<'_, SubPool>)| WaiterRow {
            bucket: bucket.clone(),
            place: place + 1,
            user: waiter.key.0.login.user_name.clone(),
            database: waiter.key.0.database.clone(),
            application: waiter.key.0.application.clone(),
            wants: match waiter.want {
                Want::Borrow => "connection",
                Want::Verify => "login",
                Want::Slot => "own connection",
            },
            waiting_for: now.saturating_duration_since(waiter.since),
            time_left: (!self.is_paused()).then(|| waiter.deadline.saturating_duration_since(now)),
        };
        self.pool.each_waiter().enumerate().map(row).collect()
    }
}
