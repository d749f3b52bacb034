//! What every session needs and none owns: configuration, routes, certificates, memories, limits.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tdsbouncer_config::{BucketName, Config, Router};

use super::relay::Patience;
use crate::admin::Source;
use crate::auth::{ProofKey, Throttle, UsersFile};
use crate::bucket::BucketHandle;
use crate::metrics::Metrics;
use crate::telemetry::Telemetry;
use crate::wire::ServerCertificates;

/// Shared by all sessions that began with the same configuration.
#[derive(Clone)]
pub(crate) struct SessionContext {
    pub(crate) config: Arc<Config>,
    pub(crate) router: Router,
    pub(crate) buckets: HashMap<BucketName, BucketHandle>,
    /// By listener name; a listener without TLS has none.
    pub(crate) certificates: HashMap<String, Arc<ServerCertificates>>,
    pub(crate) proof_key: Arc<ProofKey>,
    pub(crate) users: Arc<UsersFile>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) metrics: Arc<Metrics>,
    /// Tells of requests: metrics, log, traces.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Who answers at the SQL console.
    pub(crate) console: Weak<dyn Source>,
}

impl SessionContext {
    /// The silences that end a session.
    pub(crate) fn patience(&self) -> Patience {
        let timeouts = &self.config.timeouts;
        Patience {
            request: timeouts.request,
            client_write: timeouts.client_write,
            client_idle: timeouts.client_idle,
            attention: timeouts.attention,
        }
    }

    /// Bytes read at once.
    pub(crate) fn chunk(&self) -> usize {
        self.config.limits.relay_chunk
    }

    /// How long a client that is told something and then closed may take to read it.
    pub(crate) fn farewell(&self) -> Duration {
        Duration::from_secs(5)
    }
}
