//! Which buckets there are: a reload adds some and retires others. It outlives every actor.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::ActorRef;
use tdsbouncer_config::{BucketName, Config};

use super::BucketHandle;
use super::supervisor::BucketSupervisorMsg;

/// All buckets, in the order of the configuration, and whoever starts their actors.
#[derive(Default)]
pub(crate) struct Directory {
    buckets: ArcSwap<Vec<BucketHandle>>,
    supervisor: ArcSwapOption<ActorRef<BucketSupervisorMsg>>,
}

impl Directory {
    pub(crate) fn new(buckets: Vec<BucketHandle>) -> Self {
        Self { buckets: ArcSwap::from_pointee(buckets), supervisor: ArcSwapOption::empty() }
    }

    /// Each bucket, those on their way out included.
    pub(crate) fn all(&self) -> Arc<Vec<BucketHandle>> {
        self.buckets.load_full()
    }

    pub(crate) fn find(&self, name: &str) -> Option<BucketHandle> {
        self.buckets.load().iter().find(|bucket| bucket.name().as_str() == name).cloned()
    }

    /// The configuration with what operators have changed of its buckets since.
    pub(crate) fn in_force(&self, config: &Config) -> Config {
        let mut config = config.clone();
        for settings in &mut config.buckets {
            if let Some(bucket) = self.find(settings.name.as_str()) {
                *settings = bucket.settings();
            }
        }
        config
    }

    /// A bucket that was not there before: its actor is started.
    pub(crate) fn add(&self, bucket: BucketHandle) {
        let name = bucket.name().clone();
        self.buckets.rcu(|buckets| {
            let mut more = (**buckets).clone();
            more.push(bucket.clone());
            more
        });
        // Without a supervisor: whoever comes next starts all that it finds here.
        if let Some(supervisor) = &*self.supervisor.load() {
            drop(supervisor.cast(BucketSupervisorMsg::Start(name)));
        }
    }

    /// A retired bucket whose actor has ended.
    pub(super) fn remove(&self, name: &BucketName) {
        self.buckets.rcu(|buckets| {
            buckets.iter().filter(|bucket| bucket.name() != name).cloned().collect::<Vec<_>>()
        });
    }

    pub(super) fn supervised_by(&self, supervisor: ActorRef<BucketSupervisorMsg>) {
        self.supervisor.store(Some(Arc::new(supervisor)));
    }
}
