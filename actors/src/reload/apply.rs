//! Puts another configuration in force while clients are there, and says what of it needs a restart.

use std::sync::Arc;

use tdsbouncer_config::Config;

use super::Reloading;
use crate::admin::DoneRow;
use crate::build;
use crate::proxy::StartError;

/// Keys that only a restart changes, by the beginning of their path: sockets are bound, memories made and threads
/// started once.
const NEEDS_RESTART: &[&str] = &[
    "listeners.",
    "limits.max_handshakes",
    "limits.max_cached_logins",
    "limits.max_tracked_failures",
    "limits.max_password_checks",
    "auth.cache_ttl",
    "auth.failed_login_delay",
    "auth.max_delay",
    "auth.forget_failures_after",
    "coordinator.",
    "admin.socket",
    "admin.mode",
    "admin.address",
    "admin.token",
    "admin.view_token",
    "health.",
    "metrics.",
    "telemetry.",
    "log.format",
    "runtime.",
];

/// Keys that hold from a client's next login on: its session goes on as it began.
const FOR_NEW_SESSIONS: &[&str] = &["timeouts.", "limits.", "auth.", "admin."];

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
    let (old, new) = (before.in_force(), after.in_force());
    let mut rows = Vec::new();
    for settings in &after.buckets {
        if !before.buckets.iter().any(|bucket| bucket.name == settings.name) {
            rows.push(DoneRow::new(format!("buckets.{}", settings.name), "added"));
        }
    }
    for settings in &before.buckets {
        if !after.buckets.iter().any(|bucket| bucket.name == settings.name) {
            let outcome = "removed: its clients may go on, nobody new comes in";
            rows.push(DoneRow::new(format!("buckets.{}", settings.name), outcome));
        }
    }
    for (key, value) in &new {
        let Some((_, was)) = old.iter().find(|(other, _)| other == key) else { continue };
        if was != value {
            rows.push(DoneRow::new(key, format!("{was} -> {value}{}", effect(key))));
        }
    }
    for settings in &after.buckets {
        let was = before.buckets.iter().find(|bucket| bucket.name == settings.name);
        if was.is_some_and(|was| was.auth != settings.auth) {
            let key = format!("buckets.{}.auth", settings.name);
            rows.push(DoneRow::new(key, "changed, for new sessions"));
        }
    }
    if before.listeners.len() != after.listeners.len() {
        rows.push(DoneRow::new("listeners", "needs a restart"));
    }
    if (&before.admin.token, &before.admin.view_token) != (&after.admin.token, &after.admin.view_token) {
        rows.push(DoneRow::new("admin.token", "needs a restart"));
    }
    rows
}

fn effect(key: &str) -> &'static str {
    let one_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    if one_of(NEEDS_RESTART) {
        ": needs a restart"
    } else if one_of(FOR_NEW_SESSIONS) && key != "limits.max_clients" {
        ", for new sessions"
    } else {
        ""
    }
}
