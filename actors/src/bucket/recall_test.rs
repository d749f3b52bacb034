//! A bucket whose quota shrinks: what is closed, what is asked for, in which order.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef};
use tds::login7::{Login7, Password};
use tdsbouncer_config::Bucket;
use tdsbouncer_sim::{SimHandle, SimOptions, SimServer};
use tokio::time::Instant;

use super::actor::{BucketActor, BucketArgs, BucketMsg};
use super::key::LoginTemplate;
use super::recall::{RecallLevel, RecallReason};
use super::tenant::TenantRef;
use super::{BucketHandle, BucketParts, Lease, TlsConnector};
use crate::auth::{ProofKey, VerifiedLogins};
use crate::coordinator::Permission;
use crate::metrics::Metrics;

struct Bench {
    server: SimHandle,
    bucket: BucketHandle,
    template: Arc<LoginTemplate>,
    actor: ActorRef<BucketMsg>,
}

impl Bench {
    async fn with_quota(quota: u32) -> Self {
        let server = SimServer::start(SimOptions::default()).unwrap();
        let settings = Arc::new(Bucket::new("b1", "127.0.0.1", server.addr().port(), 20));
        let bucket = BucketHandle::new(BucketParts {
            settings: Arc::clone(&settings),
            verified: VerifiedLogins::new(10, None),
            metrics: Metrics::new("test").bucket("b1"),
            tls: TlsConnector::of(&settings).unwrap(),
            coordinator: crate::coordinator::CoordinatorHandle::default(),
        });
        let login = Login7 {
            user_name: "sa".to_owned(),
            password: Password::new("Sim-passw0rd"),
            ..Login7::default()
        };
        let key = ProofKey::random();
        let proof = |login: &Login7| key.proof(&login.user_name, login.password.as_utf16le());
        let template = LoginTemplate::shared(login, &TenantRef::new("shop", 1), &settings, proof, false);
        let (actor, _) =
            Actor::spawn(None, BucketActor, BucketArgs { handle: bucket.clone() }).await.unwrap();
        bucket.started(actor.clone());
        bucket.permit(Permission::constant(quota));
        Self { server, bucket, template, actor }
    }

    async fn lease(&self) -> Lease {
        let deadline = Instant::now() + Duration::from_secs(60);
        self.bucket.acquire(&self.template, None, deadline).await.unwrap()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let over = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(Instant::now() < over, "{what}: {:?}", self.server.stats());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn used(&self) -> u32 {
        self.bucket.shared().slots.used()
    }
}

fn level(lease: &Lease) -> RecallLevel {
    lease.recall().unwrap().level()
}

#[tokio::test]
async fn idle_connections_are_closed_before_lent_ones_are_asked_for() {
    let bench = Bench::with_quota(3).await;
    let (first, second, idle) = (bench.lease().await, bench.lease().await, bench.lease().await);
    drop(idle);
    bench.bucket.permit(Permission::constant(2));
    bench.until("the idle one is closed", |bench| bench.used() == 2).await;
    assert_eq!((level(&first), level(&second)), (RecallLevel::None, RecallLevel::None));
    assert_eq!(bench.server.stats().open, 2);
    bench.actor.stop(None);
}

#[tokio::test]
async fn as_many_lent_connections_are_asked_for_as_are_too_many_and_the_one_lent_longest_first() {
    let bench = Bench::with_quota(3).await;
    let (first, second, third) = (bench.lease().await, bench.lease().await, bench.lease().await);
    bench.bucket.permit(Permission::constant(2));
    let recall = first.recall().unwrap();
    assert_eq!(recall.wanted(RecallLevel::WhenClean).await, RecallReason::QuotaShrank);
    assert_eq!((level(&second), level(&third)), (RecallLevel::None, RecallLevel::None));
    // Another one comes home first: that is enough, and nobody is asked any more.
    drop(second);
    bench.until("the other one is closed", |bench| bench.used() == 2).await;
    bench.until("nobody is asked", |_| level(&first) == RecallLevel::None).await;
    drop((first, third));
    bench.until("both lie idle", |bench| bench.bucket.shared().idle() == 2).await;
    bench.actor.stop(None);
}

#[tokio::test]
async fn a_recalled_connection_is_closed_when_it_comes_home() {
    let bench = Bench::with_quota(2).await;
    let lease = bench.lease().await;
    lease.recall().unwrap().raise(RecallLevel::WhenClean, RecallReason::Killed);
    drop(lease);
    bench.until("it is closed", |bench| bench.server.stats().open == 0 && bench.used() == 0).await;
    bench.actor.stop(None);
}

#[tokio::test]
async fn who_was_lent_a_bare_slot_is_asked_too() {
    let bench = Bench::with_quota(1).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let occupied = bench.bucket.acquire_slot(&bench.template, deadline).await.unwrap();
    bench.bucket.permit(Permission::constant(0));
    occupied.recall().wanted(RecallLevel::WhenClean).await;
    drop(occupied);
    bench.until("the slot is back", |bench| bench.used() == 0).await;
    bench.actor.stop(None);
}
