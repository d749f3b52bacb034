//! The process's limit of open files: raised as far as allowed, and compared with what the configuration needs.

use tdsbouncer_config::Config;

/// Beside clients and servers: listeners, log, admin, health, the runtime's own.
const SPARE: u64 = 200;

/// Raises the limit and warns when it is below what the configuration may need.
pub(crate) fn raise(config: &Config) {
    let servers: u64 = config.buckets.iter().map(|bucket| u64::from(bucket.max_connections)).sum();
    let clients = config.limits.max_clients as u64;
    let needed = clients + servers + SPARE;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(allowed) if allowed < needed => {
            tracing::warn!(
                allowed,
                needed,
                clients,
                servers,
                "the limit of open files is lower than the configured limits"
            );
        }
        Ok(_) => {}
        Err(why) => tracing::warn!(%why, "the limit of open files cannot be raised"),
    }
}
