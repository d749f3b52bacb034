//! Puts another configuration in force while clients are there, and says what of it needs a restart.

use std::sync::Arc;

use tdsbouncer_config::Config;

use super::Reloading;
use crate::admin::DoneRow;
use crate::build;
use crate::proxy::StartError;

/// When another value of a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// From this moment on.
    AtOnce,
    /// For sessions that begin from now on; those that are there go on as they began.
    NewSessions,
    /// For server connections that are opened from now on.
    NewConnections,
    /// Only after a restart: sockets are bound, memories made and threads started once.
    Restart,
}

/// The effect of each key, by the beginning of its name: the longest that fits counts. A test goes through all keys, so that
/// a new one has to be thought of here.
const EFFECTS: &[(&str, Effect)] = &[
    ("listeners.", Effect::Restart),
    // Read by each new client's handshake. The rest is the socket's.
    ("listeners.tls.certificate", Effect::NewSessions),
    ("listeners.tls.key", Effect::NewSessions),
    ("listeners.tls.self_signed", Effect::NewSessions),
    // Which bucket a client gets is decided at its login.
    ("buckets.databases", Effect::NewSessions),
    ("buckets.server_names", Effect::NewSessions),
    ("buckets.users", Effect::NewSessions),
    ("buckets.default", Effect::NewSessions),
    ("buckets.pool_mode", Effect::NewSessions),
    ("buckets.auth", Effect::NewSessions),
    ("buckets.service_user", Effect::NewSessions),
    ("buckets.service_password", Effect::NewSessions),
    ("buckets.split_by", Effect::NewSessions),
    ("buckets.max_clients", Effect::NewSessions),
    ("buckets.tenants.by", Effect::NewSessions),
    ("buckets.tenants.max_clients", Effect::NewSessions),
    ("buckets.tenants.max_connections", Effect::AtOnce),
    ("buckets.tenants.queue_limit", Effect::AtOnce),
    ("buckets.tenants.weights", Effect::NewSessions),
    ("buckets.holding_procedures", Effect::NewSessions),
    ("buckets.harmless_procedures", Effect::NewSessions),
    ("buckets.unknown_procedures", Effect::NewSessions),
    ("buckets.spid_reads", Effect::AtOnce),
    // Those that are open are replaced as soon as nobody uses them.
    ("buckets.host", Effect::AtOnce),
    ("buckets.port", Effect::AtOnce),
    ("buckets.server_tls.", Effect::AtOnce),
    ("buckets.keepalive.", Effect::AtOnce),
    ("buckets.self_test", Effect::NewConnections),
    ("buckets.max_lifetime", Effect::NewConnections),
    ("buckets.lifetime_jitter", Effect::NewConnections),
    ("buckets.connect_timeout", Effect::NewConnections),
    ("buckets.login_timeout", Effect::NewConnections),
    ("buckets.max_connections", Effect::AtOnce),
    ("buckets.min_idle", Effect::AtOnce),
    ("buckets.queue_limit", Effect::AtOnce),
    ("buckets.acquire_timeout", Effect::AtOnce),
    ("buckets.pause_timeout", Effect::AtOnce),
    ("buckets.idle_timeout", Effect::AtOnce),
    ("buckets.reset_timeout", Effect::AtOnce),
    ("buckets.reset", Effect::AtOnce),
    ("buckets.affinity", Effect::AtOnce),
    ("buckets.linger", Effect::AtOnce),
    ("buckets.idle_in_transaction_timeout", Effect::AtOnce),
    ("buckets.hold_timeout", Effect::AtOnce),
    ("buckets.reconnect_backoff.", Effect::AtOnce),
    ("limits.max_clients", Effect::AtOnce),
    ("limits.max_login_bytes", Effect::NewSessions),
    ("limits.max_packet", Effect::NewSessions),
    ("limits.relay_chunk", Effect::NewSessions),
    ("limits.max_handshakes", Effect::Restart),
    ("limits.max_cached_logins", Effect::Restart),
    ("limits.max_tracked_failures", Effect::Restart),
    ("limits.max_password_checks", Effect::Restart),
    ("timeouts.", Effect::NewSessions),
    ("timeouts.drain", Effect::AtOnce),
    ("auth.users_file", Effect::NewSessions),
    ("auth.cache_ttl", Effect::Restart),
    ("auth.failed_login_delay", Effect::Restart),
    ("auth.max_delay", Effect::Restart),
    ("auth.forget_failures_after", Effect::Restart),
    ("coordinator.", Effect::Restart),
    ("admin.socket", Effect::Restart),
    ("admin.mode", Effect::Restart),
    ("admin.address", Effect::Restart),
    ("admin.token", Effect::Restart),
    ("admin.view_token", Effect::Restart),
    ("admin.database", Effect::NewSessions),
    ("admin.users", Effect::NewSessions),
    ("admin.viewers", Effect::NewSessions),
    ("health.", Effect::Restart),
    ("metrics.", Effect::Restart),
    ("telemetry.", Effect::Restart),
    ("log.format", Effect::Restart),
    ("log.filter", Effect::AtOnce),
    ("runtime.", Effect::Restart),
];

impl Effect {
    /// None: nobody has thought of the key.
    fn of(key: &str) -> Option<Self> {
        let fits =
            EFFECTS.iter().filter(|(name, _)| *name == key || name.ends_with('.') && key.starts_with(name));
        fits.max_by_key(|(name, _)| name.len()).map(|(_, effect)| *effect)
    }

    fn told(self) -> &'static str {
        match self {
            Self::AtOnce => "",
            Self::NewSessions => ", for new sessions",
            Self::NewConnections => ", for new server connections",
            Self::Restart => ": needs a restart",
        }
    }
}

/// Applies what can change. What can fail comes first: an error has changed nothing.
pub(super) fn apply(reloading: &Reloading, config: Arc<Config>) -> Result<Vec<DoneRow>, StartError> {
    let Reloading { doors, directory, coordinator, host } = reloading;
    let before = doors.context();
    let mut fresh = Vec::new();
    let mut changed = Vec::new();
    for settings in &config.buckets {
        match directory.find(settings.name.as_str()) {
            None => fresh.push(build::bucket(settings, &config, &doors.metrics, coordinator)?),
            Some(bucket) => {
                let tls = (bucket.settings().server_tls != settings.server_tls)
                    .then(|| build::tls(settings))
                    .transpose()?;
                changed.push((bucket, Arc::clone(settings), tls));
            }
        }
    }
    let in_configuration: Vec<_> =
        changed.iter().map(|(bucket, ..)| bucket.clone()).chain(fresh.clone()).collect();
    let context = build::renewed_context(&before, &config, &in_configuration)?;

    let mut done = differences(&directory.in_force(&before.config), &config);
    for bucket in fresh {
        directory.add(bucket);
    }
    for (bucket, settings, tls) in changed {
        bucket.shared().standing.reinstate();
        if *bucket.settings() != *settings {
            bucket.apply(settings, tls);
        }
    }
    for bucket in &*directory.all() {
        let stays = config.buckets.iter().any(|settings| settings.name == *bucket.name());
        if !stays && !bucket.shared().standing.is_retired() {
            bucket.retire();
        }
    }
    doors.table.set_max_clients(config.limits.max_clients);
    if before.config.log.filter != config.log.filter
        && let Err(why) = host.set_log(&config.log.filter)
    {
        done.push(DoneRow::new("log.filter", format!("not changed: {why}")));
    }
    doors.context.store(Arc::new(context));
    Ok(done)
}

/// Each key that is another now, with what becomes of it.
fn differences(before: &Config, after: &Config) -> Vec<DoneRow> {
    let mut rows = Vec::new();
    let names = |config: &Config| -> Vec<String> {
        let buckets = config.buckets.iter().map(|bucket| format!("buckets.{}", bucket.name));
        buckets
            .chain(config.listeners.iter().map(|listener| format!("listeners.{}", listener.name)))
            .collect()
    };
    let (old, new) = (names(before), names(after));
    for name in new.iter().filter(|name| !old.contains(name)) {
        let is_bucket = name.starts_with("buckets.");
        rows.push(DoneRow::new(name, if is_bucket { "added" } else { "added: needs a restart" }));
    }
    for name in old.iter().filter(|name| !new.contains(name)) {
        let is_bucket = name.starts_with("buckets.");
        let outcome = if is_bucket {
            "removed: its clients may go on, nobody new comes in"
        } else {
            "removed: needs a restart"
        };
        rows.push(DoneRow::new(name, outcome));
    }
    let old = before.in_force();
    for setting in after.in_force() {
        let Some(was) = old.iter().find(|other| other.path == setting.path && !other.is_as(&setting)) else {
            continue;
        };
        let change = if was.value == setting.value {
            "changed".to_owned()
        } else {
            format!("{} -> {}", was.value, setting.value)
        };
        let effect = Effect::of(&setting.key).map_or("", Effect::told);
        rows.push(DoneRow::new(setting.path, format!("{change}{effect}")));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known_to_count_at_once_or_not() {
        let text = r#"
            [[listeners]]
            tls = { mode = "off" }
            [[buckets]]
            name = "b"
            host = "h"
            max_connections = 1
            default = true
            server_tls = { mode = "off" }
            [coordinator]
            kind = "redis"
            urls = ["redis://a:1"]
        "#;
        let mut keys: Vec<String> =
            Config::parse(text).unwrap().in_force().into_iter().map(|setting| setting.key).collect();
        for key in &keys {
            assert!(Effect::of(key).is_some(), "{key}: when does another value of it count?");
        }
        keys.sort();
        for (name, _) in EFFECTS {
            assert!(keys.iter().any(|key| key.starts_with(name)), "{name} is no key");
            assert_eq!(
                EFFECTS.iter().filter(|(other, _)| other == name).count(),
                1,
                "{name} stands there twice"
            );
        }
    }
}
