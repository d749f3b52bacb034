//! The bucket's actor: it carries out what the pool decides, and never waits for I/O itself.

mod dialling;
mod homecoming;
mod shown;
mod upkeep;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tds::login_response::LoginResponse;
use tokio::time::Instant;
use tracing::debug;

use super::dial::{DialError, Dialled};
use super::key::{LoginTemplate, SubPool};
use super::place::Places;
use super::pool::{Action, Charged, Pool, Room, Want};
use super::recall::{Recall, RecallReason};
use super::reset::ResetError;
use super::server_conn::{About, Place, ServerConnId, Wear};
use super::slots::SlotPermit;
use super::state::Wish;
use super::{BucketHandle, Lease, ServerConn};
use crate::admin::{PoolRow, ServerRow, WaiterRow};
use crate::error::AcquireError;
use crate::panics;

/// How often idle connections are looked at.
const TICK: Duration = Duration::from_secs(1);

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
        let settings = self.handle.settings();
        let limit = settings.queue_limit;
        let of_tenant = settings.tenants.queue_limit.unwrap_or(usize::MAX);
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
}
