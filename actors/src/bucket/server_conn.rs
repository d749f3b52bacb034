//! An open, logged-in connection to SQL Server, the slot it occupies, and the lease a session has on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tds::edit::ResponseEditor;
use tds::exchange::Exchange;
use tds::{Dialect, TdsVersion};
use tdsbouncer_config::BucketName;
use tokio::time::Instant;

use super::BucketHandle;
use super::key::{LoginTemplate, SubPool};
use super::pool::Charged;
use super::recall::{Recall, RecallLevel};
use super::reset::{ResetError, reset};
use super::slots::SlotPermit;
use super::state::{ConnState, Settings};
use super::tenant::{LeaseShare, TenantRef};
use super::witness::Witness;
use crate::admin::ServerRow;
use crate::session::SessionId;
use crate::session::prepared::RealHandles;
use crate::wire::{IdleCheck, Link};

/// How long a closing connection waits for the server to close its side before it is reset.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Counts server connections of this process, for logs and the admin view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerConnId(pub(crate) u64);

impl ServerConnId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Display for ServerConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A connection to the server together with its slot. However it is dropped, the slot comes back only after
/// the server has seen the connection close: the server never counts one too many.
pub(crate) struct Occupied {
    link: Option<Link>,
    permit: Option<SlotPermit>,
    recall: Arc<Recall>,
}

impl Occupied {
    pub(crate) fn new(permit: SlotPermit) -> Self {
        let recall = Arc::clone(permit.recall());
        Self { link: None, permit: Some(permit), recall }
    }

    /// Raised when the connection is wanted back.
    pub(crate) fn recall(&self) -> &Arc<Recall> {
        &self.recall
    }

    /// The connection; `None` while there is none yet.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// A connection was made. One that was there before is closed first by [`Self::disconnect`].
    pub(crate) fn connected(&mut self, link: Link) {
        debug_assert!(self.link.is_none(), "one slot is one connection");
        if let Some(permit) = &self.permit {
            permit.opened();
        }
        self.link = Some(link);
    }

    /// Closes the connection and keeps the slot: the server routed us elsewhere.
    pub(crate) async fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            link.close_gracefully(CLOSE_WAIT).await;
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let (Some(link), Some(mut permit)) = (self.link.take(), self.permit.take()) else { return };
        // Outside a runtime the process is ending, and with it all connections.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        permit.closing();
        let recall = Arc::clone(&self.recall);
        runtime.spawn(async move {
            tokio::select! {
                biased;
                // The slot is not ours for so long: the link is reset as it is dropped.
                _ = recall.wanted(RecallLevel::Now) => {}
                () = link.close_gracefully(CLOSE_WAIT) => {}
            }
            drop(permit);
        });
    }
}

/// A logged-in connection that can be shared.
pub(crate) struct ServerConn {
    pub(crate) id: ServerConnId,
    pub(crate) occupied: Occupied,
    pub(crate) template: Arc<LoginTemplate>,
    /// Bytes of a packet that this server sends or takes at most.
    pub(crate) packet_size: usize,
    pub(crate) dialect: Dialect,
    /// SESSIONRECOVERY was acknowledged: SESSIONSTATE tokens come, and clients must not see them.
    pub(crate) witness: Option<Witness>,
    pub(crate) encryption: &'static str,
    pub(crate) opened: Instant,
    /// How long connecting and logging in took.
    pub(crate) connecting: Duration,
    /// When it is too old to be lent again.
    pub(crate) expires: Option<Instant>,
    pub(crate) uses: u64,
    /// What the sessions that used it have left on it.
    pub(crate) state: ConnState,
    /// Follows its responses.
    pub(crate) editor: ResponseEditor,
    /// Its server answers requests that are written back to back, also behind a reset.
    pub(crate) pipelines: bool,
    /// For whom it counts while it is lent.
    pub(crate) share: Option<LeaseShare>,
}

/// The parts of a connection that a request and its response go through.
pub(crate) struct ConnTurn<'a> {
    pub(crate) server: &'a mut Link,
    pub(crate) editor: &'a mut ResponseEditor,
    pub(crate) reals: &'a mut RealHandles,
    pub(crate) witness: Option<&'a mut Witness>,
}

impl Charged for Box<ServerConn> {
    fn charge(&mut self, share: LeaseShare) {
        self.share = Some(share);
    }
}

impl std::fmt::Debug for ServerConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerConn({})", self.id)
    }
}

impl ServerConn {
    /// The connection's socket; gone only while it is being dropped.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.occupied.link()
    }

    /// What works with its responses: socket and editor, what is prepared on it, and what it tells of its session.
    pub(crate) fn turn(&mut self) -> Option<ConnTurn<'_>> {
        let Self { occupied, editor, state, witness, .. } = self;
        let (server, reals, witness) = (occupied.link()?, &mut state.reals, witness.as_mut());
        Some(ConnTurn { server, editor, reals, witness })
    }

    /// Raised when the connection is wanted back; whoever it is lent to looks here.
    pub(crate) fn recall(&self) -> &Arc<Recall> {
        self.occupied.recall()
    }

    /// What is known of it while somebody has it.
    pub(crate) fn about(&self) -> About {
        About {
            id: self.id,
            template: Arc::clone(&self.template),
            version: self.dialect.version,
            encryption: self.encryption,
            opened: self.opened,
            uses: self.uses,
        }
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether it may go on lying idle. Never waits. A connection that died, or on which the server said something unasked, may
    /// not.
    pub(crate) fn is_usable(&mut self, now: Instant) -> bool {
        !self.is_expired(now) && self.link().is_some_and(|link| link.check_idle() == IdleCheck::Quiet)
    }

    /// The same for who is about to use it, by what the runtime knows of its socket: it hears of a close before the request
    /// that comes after it.
    pub(crate) fn is_still_usable(&mut self, now: Instant) -> bool {
        !self.is_expired(now) && self.link().is_some_and(|link| link.glance_idle() == IdleCheck::Quiet)
    }
}

/// What is shown of a server connection.
#[derive(Clone)]
pub(crate) struct About {
    id: ServerConnId,
    pub(crate) template: Arc<LoginTemplate>,
    version: TdsVersion,
    encryption: &'static str,
    pub(crate) opened: Instant,
    uses: u64,
}

impl About {
    /// For the admin view.
    pub(crate) fn row(&self, bucket: &BucketName, state: &'static str) -> ServerRow {
        ServerRow {
            id: self.id.0,
            bucket: bucket.to_string(),
            state,
            user: self.template.login.user_name.clone(),
            database: self.template.database.clone(),
            application: self.template.application.clone(),
            tds: self.version.to_string(),
            age: self.opened.elapsed(),
            uses: self.uses,
            encryption: self.encryption,
            ..ServerRow::default()
        }
    }
}

/// What a lease did to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wear {
    /// Nothing was sent on it: it may be lent again at once.
    Untouched,
    /// It is quiet, and what is left on it is written down in its [`ConnState`]: it may be lent again at once.
    Known,
    /// It is quiet, and state of its session may be left on it: a reset first.
    Used,
    /// Something is under way on it or nobody knows: it is closed.
    Tainted,
}

/// Where a leased connection may rest.
pub(crate) type Place = super::place::Place<SubPool, Box<ServerConn>>;

/// One session's use of one server connection. It goes home when dropped: tainted if it was used, unless
/// [`Self::settle`] said otherwise.
pub(crate) struct Lease {
    conn: Option<Box<ServerConn>>,
    home: BucketHandle,
    place: Arc<Place>,
    wear: Wear,
    since: Instant,
}

impl Lease {
    pub(crate) fn new(conn: Box<ServerConn>, home: BucketHandle, place: Arc<Place>, since: Instant) -> Self {
        Self { conn: Some(conn), home, place, wear: Wear::Untouched, since }
    }

    /// The connection, to be used: from now on it needs [`Self::settle`].
    pub(crate) fn conn(&mut self) -> Option<&mut ServerConn> {
        self.wear = Wear::Tainted;
        self.conn.as_deref_mut()
    }

    /// When the connection was opened, and how long that took.
    pub(crate) fn opened(&self) -> Option<(Instant, Duration)> {
        self.conn.as_ref().map(|conn| (conn.opened, conn.connecting))
    }

    /// The connection's socket, to wait at: nothing is sent or read.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.conn.as_deref_mut().and_then(ServerConn::link)
    }

    /// Whether something is prepared on it.
    pub(crate) fn has_handles(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| !conn.state.reals.is_empty())
    }

    /// Whether the connection has these settings now.
    pub(crate) fn has_settings(&self, settings: &Settings) -> bool {
        self.conn.as_ref().is_some_and(|conn| *conn.state.settings == *settings)
    }

    /// Whether this session used the connection last, and nobody since; `uses` as it found it then.
    pub(crate) fn is_continued(&self, session: SessionId, uses: u64) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.state.is_last_of(session, uses))
    }

    /// Makes the connection as it was after its login. Not cancel safe: the lease is to be dropped then.
    pub(crate) async fn freshen(&mut self) -> Result<(), ResetError> {
        let Some(conn) = self.conn.as_deref_mut().filter(|conn| !conn.state.is_fresh()) else {
            return Ok(());
        };
        self.wear = Wear::Tainted;
        let waited = self.home.settings().reset_timeout;
        match tokio::time::timeout(waited, reset(conn)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(ResetError::Timeout { waited }),
        }
        conn.state = ConnState::default();
        Ok(())
    }

    /// Ends the lease at a clean boundary: what is on the connection stands in its [`ConnState`].
    pub(crate) fn keep(mut self) {
        self.wear = Wear::Known;
    }

    /// Ends the lease at a clean boundary, as [`Self::keep`] does; but where nobody needs the connection it rests, and the
    /// session may take it up again.
    pub(crate) fn rest(mut self, now: Instant) -> Option<Rested> {
        self.wear = Wear::Known;
        let mut conn = self.conn.take()?;
        if conn.recall().level() > RecallLevel::None {
            self.conn = Some(conn);
            return None;
        }
        let tenant = conn.share.take().map(|share| share.tenant().clone());
        let shared = self.home.shared();
        // Counted first, so that it is never counted as both.
        shared.counts.leased.fetch_sub(1, Ordering::Relaxed);
        match self.place.rest(conn, now) {
            Ok(()) => {
                shared.metrics.returned(now.saturating_duration_since(self.since));
                Some(Rested { place: Arc::clone(&self.place), home: self.home.clone(), tenant })
            }
            Err(conn) => {
                shared.counts.leased.fetch_add(1, Ordering::Relaxed);
                self.conn = Some(conn);
                None
            }
        }
    }

    /// Ends the lease at a clean boundary: what is on the connection is taken away by a reset.
    pub(crate) fn reset(mut self) {
        self.wear = Wear::Used;
    }

    /// Raised when the connection is wanted back.
    pub(crate) fn recall(&self) -> Option<Arc<Recall>> {
        self.conn.as_ref().map(|conn| Arc::clone(conn.recall()))
    }

    /// The connection's number.
    pub(crate) fn id(&self) -> Option<ServerConnId> {
        self.conn.as_ref().map(|conn| conn.id)
    }

    /// Ends the lease. If nothing is under way in the exchange that went over it, the connection may serve
    /// others after a reset; in any doubt it is closed.
    pub(crate) fn settle(mut self, exchange: &Exchange) {
        let resettable = self.conn.as_ref().is_some_and(|conn| {
            // Before TDS 7.2 a reset is not acknowledged, so nobody can know what it left behind.
            !exchange.outlives_reset() && conn.template.login.tds_version.is_7_2_or_later()
        });
        if exchange.is_quiet() && resettable && self.wear == Wear::Tainted {
            self.wear = Wear::Used;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.home.shared().metrics.returned(self.since.elapsed());
            self.home.give_back(conn, self.wear);
        }
    }
}

/// A connection that rests between two requests of a session. Dropped, it goes home if it still rests.
pub(crate) struct Rested {
    place: Arc<Place>,
    home: BucketHandle,
    tenant: Option<TenantRef>,
}

impl Rested {
    /// The lease goes on. `None`: the bucket has taken the connection, or it is not to be used any more.
    pub(crate) fn resume(self, now: Instant) -> Option<Lease> {
        let mut conn = self.place.resume()?;
        let shared = self.home.shared();
        conn.share = self.tenant.as_ref().map(TenantRef::lease);
        shared.counts.leased.fetch_add(1, Ordering::Relaxed);
        let (home, place) = (self.home.clone(), Arc::clone(&self.place));
        let usable = conn.recall().level() == RecallLevel::None && conn.is_still_usable(now);
        let wear = if usable { Wear::Untouched } else { Wear::Known };
        let lease = Lease { conn: Some(conn), home, place, wear, since: now };
        usable.then_some(lease)
    }
}

impl Drop for Rested {
    fn drop(&mut self) {
        if let Some(conn) = self.place.resume() {
            self.home.shared().counts.leased.fetch_add(1, Ordering::Relaxed);
            self.home.give_back(conn, Wear::Known);
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?})", self.conn)
    }
}
