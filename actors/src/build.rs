//! Builds what outlives the actors out of a configuration: at the start, and again at each reload.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tdsbouncer_config::{Bucket, BucketName, ClientTlsMode, Config, Listener, Router};

use crate::admin::{Command, DoneRow, Later, Order, Source, Subject, Table};
use crate::auth::{CheckLimits, ProofKey, Throttle, ThrottlePolicy, UsersFile, VerifiedLogins};
use crate::bucket::{BucketHandle, BucketParts, TlsConnector};
use crate::coordinator::CoordinatorHandle;
use crate::metrics::Metrics;
use crate::proxy::StartError;
use crate::session::context::SessionContext;
use crate::telemetry::Telemetry;
use crate::wire::ServerCertificates;

/// All buckets of the configuration.
pub(crate) fn buckets(
    config: &Config,
    metrics: &Metrics,
    coordinator: &CoordinatorHandle,
) -> Result<Vec<BucketHandle>, StartError> {
    config.buckets.iter().map(|settings| bucket(settings, config, metrics, coordinator)).collect()
}

/// One bucket; its files are read.
pub(crate) fn bucket(
    settings: &Arc<Bucket>,
    config: &Config,
    metrics: &Metrics,
    coordinator: &CoordinatorHandle,
) -> Result<BucketHandle, StartError> {
    Ok(BucketHandle::new(BucketParts {
        tls: tls(settings)?,
        settings: Arc::clone(settings),
        verified: VerifiedLogins::new(config.limits.max_cached_logins, config.auth.cache_ttl),
        metrics: metrics.bucket(settings.name.as_str()),
        coordinator: coordinator.clone(),
    }))
}

/// TLS towards a bucket's server; its files are read.
pub(crate) fn tls(settings: &Bucket) -> Result<TlsConnector, StartError> {
    TlsConnector::of(settings)
        .map_err(|source| StartError::Certificate { of: format!("bucket {}", settings.name), source })
}

/// What sessions need, at the start. Must run within the runtime.
pub(crate) fn context(
    config: &Arc<Config>,
    buckets: &[BucketHandle],
    metrics: Arc<Metrics>,
    version: &'static str,
) -> Result<SessionContext, StartError> {
    let telemetry = Telemetry::start(&config.telemetry, version, &metrics)
        .map_err(|why| StartError::Telemetry(why.to_string()))?;
    let proof_key = Arc::new(ProofKey::random());
    let throttle = Throttle::new(ThrottlePolicy {
        first: config.auth.failed_login_delay,
        max: config.auth.max_delay,
        forget_after: config.auth.forget_failures_after,
        tracked: config.limits.max_tracked_failures,
    });
    Ok(SessionContext {
        config: Arc::clone(config),
        router: Router::new(&config.buckets),
        buckets: by_name(buckets),
        certificates: certificates(config, None)?,
        users: users(config, &proof_key)?,
        proof_key,
        throttle: Arc::new(throttle),
        metrics,
        telemetry: Arc::new(telemetry),
        console: Weak::<Nobody>::new(),
    })
}

/// What sessions need from a reload on: what is remembered of logins goes on.
pub(crate) fn renewed_context(
    before: &SessionContext,
    config: &Arc<Config>,
    buckets: &[BucketHandle],
) -> Result<SessionContext, StartError> {
    let same_users = before.config.auth.users_file == config.auth.users_file;
    Ok(SessionContext {
        config: Arc::clone(config),
        router: Router::new(&config.buckets),
        buckets: by_name(buckets),
        certificates: certificates(config, Some(before))?,
        users: if same_users { Arc::clone(&before.users) } else { users(config, &before.proof_key)? },
        ..before.clone()
    })
}

fn by_name(buckets: &[BucketHandle]) -> HashMap<BucketName, BucketHandle> {
    buckets.iter().map(|bucket| (bucket.name().clone(), bucket.clone())).collect()
}

fn users(config: &Config, proof_key: &Arc<ProofKey>) -> Result<Arc<UsersFile>, StartError> {
    let checks = CheckLimits {
        at_once: config.limits.max_password_checks,
        remembered: config.limits.max_cached_logins,
        ttl: config.auth.cache_ttl,
    };
    let users = UsersFile::open(config.auth.users_file.clone(), checks, Arc::clone(proof_key))?;
    Ok(Arc::new(users))
}

/// By listener. A certificate whose settings did not change stays: a self-signed one would be another. So does one that is
/// not named any more: its listener serves until a restart, as it began.
fn certificates(
    config: &Config,
    before: Option<&SessionContext>,
) -> Result<HashMap<String, Arc<ServerCertificates>>, StartError> {
    let mut certificates = before.map_or_else(HashMap::new, |before| before.certificates.clone());
    for listener in config.listeners.iter().filter(|listener| listener.tls.mode != ClientTlsMode::Off) {
        let kept = before.and_then(|before| {
            let same = |other: &&Arc<Listener>| other.name == listener.name && other.tls == listener.tls;
            before.config.listeners.iter().find(same)?;
            before.certificates.get(&listener.name).cloned()
        });
        let shown = match kept {
            Some(kept) => kept,
            None => Arc::new(ServerCertificates::of(&listener.tls).map_err(|source| {
                StartError::Certificate { of: format!("listener {}", listener.name), source }
            })?),
        };
        certificates.insert(listener.name.clone(), shown);
    }
    Ok(certificates)
}

/// Who answers at the console before the tree stands.
struct Nobody;

impl Source for Nobody {
    fn show(&self, _: Subject) -> Later<'_, Table> {
        Box::pin(async { crate::admin::help() })
    }

    fn perform(&self, order: Order) -> Later<'_, Result<Vec<DoneRow>, String>> {
        Box::pin(async move { Err(format!("{:?}: not started yet", Command::Do(order))) })
    }
}
