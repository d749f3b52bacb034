//! What each command of an operator does.

use tdsbouncer_config::BucketName;

use crate::admin::{DoneRow, Order};
use crate::bucket::BucketHandle;
use crate::host::Shutdown;
use crate::session::client_conn::{ClientConn, Wish};
use crate::view::{View, tenant_of};

/// Carries an order out.
pub(crate) async fn perform(view: &View, order: Order) -> Result<Vec<DoneRow>, String> {
    match order {
        Order::Pause(bucket) => {
            each(view, bucket, |bucket| told(bucket.pause(), "paused", "was paused already"))
        }
        Order::Resume(bucket) => {
            each(view, bucket, |bucket| told(bucket.resume(), "resumed", "was not paused"))
        }
        Order::Disable(bucket) => each(view, bucket, |bucket| {
            told(bucket.shared().standing.disable(true), "disabled", "was disabled already")
        }),
        Order::Enable(bucket) => each(view, bucket, |bucket| {
            told(bucket.shared().standing.disable(false), "enabled", "was enabled already")
        }),
        Order::Reconnect(bucket) => each(view, bucket, |bucket| {
            bucket.reconnect();
            "every connection is replaced as soon as nobody uses it".to_owned()
        }),
        Order::Drain(bucket) => drain(view, bucket),
        Order::KillSession(id) => kill_session(view, id),
        Order::KillServer(id) => kill_server(view, id).await,
        Order::KillTenant(tenant) => kill_tenant(view, &tenant),
        Order::SetMaxConnections { bucket, max_connections } => {
            let bucket = find(view, &bucket)?;
            let before = bucket.settings().max_connections;
            bucket.set_max_connections(max_connections);
            let key = format!("{}.max_connections", bucket.name());
            Ok(vec![DoneRow::new(key, format!("{before} -> {max_connections}, until the next reload"))])
        }
        Order::Reload => match view.reload.reload().await? {
            rows if rows.is_empty() => Ok(vec![DoneRow::new("configuration", "nothing changed")]),
            rows => Ok(rows),
        },
        Order::Shutdown { wait } => {
            let (how, outcome) = if wait {
                (Shutdown::WaitForClients, "ends when the last client has left")
            } else {
                (Shutdown::Drain, "drains and ends")
            };
            view.host.shut_down(how);
            Ok(vec![DoneRow::new("tdsbouncer", outcome)])
        }
        Order::LogLevel(filter) => {
            view.host.set_log(&filter)?;
            Ok(vec![DoneRow::new("log.filter", format!("{filter}, until the next change"))])
        }
    }
}

fn told(changed: bool, now: &str, already: &str) -> String {
    if changed { now.to_owned() } else { already.to_owned() }
}

fn find(view: &View, name: &str) -> Result<BucketHandle, String> {
    view.directory.find(name).ok_or_else(|| {
        let all = view.directory.all();
        let known: Vec<&str> = all.iter().map(|bucket| bucket.name().as_str()).collect();
        format!("no such bucket: {name} (there are {})", known.join(", "))
    })
}

fn each(
    view: &View,
    bucket: Option<String>,
    command: impl Fn(&BucketHandle) -> String,
) -> Result<Vec<DoneRow>, String> {
    let buckets = match bucket {
        Some(name) => vec![find(view, &name)?],
        None => view.directory.all().to_vec(),
    };
    Ok(buckets.iter().map(|bucket| DoneRow::new(bucket.name(), command(bucket))).collect())
}

fn drain(view: &View, bucket: Option<String>) -> Result<Vec<DoneRow>, String> {
    each(view, bucket, |bucket| {
        bucket.shared().standing.drain();
        let sessions = raise(view, Wish::Drain, |conn| is_of(conn, bucket.name()));
        format!("takes no new clients; {sessions} end when nothing of theirs is under way")
    })
}

fn is_of(conn: &ClientConn, bucket: &BucketName) -> bool {
    conn.login.get().is_some_and(|login| login.bucket.name() == bucket)
}

fn kill_session(view: &View, id: u64) -> Result<Vec<DoneRow>, String> {
    match raise(view, Wish::End, |conn| conn.id.0 == id) {
        0 => Err(format!("no such session: {id}")),
        _ => Ok(vec![DoneRow::new(format!("c{id}"), "ended")]),
    }
}

/// Connections that sessions have for themselves are not the bucket's to close: those sessions end.
async fn kill_server(view: &View, id: u64) -> Result<Vec<DoneRow>, String> {
    let what = format!("s{id}");
    for bucket in &*view.directory.all() {
        if bucket.close(id).await {
            return Ok(vec![DoneRow::new(what, "closed")]);
        }
    }
    let uses = |conn: &ClientConn| conn.server.load(std::sync::atomic::Ordering::Relaxed) == id && id != 0;
    match raise(view, Wish::End, uses) {
        0 => Err(format!("no such server connection: {id}")),
        _ => Ok(vec![DoneRow::new(what, "closed with the session that used it")]),
    }
}

fn kill_tenant(view: &View, tenant: &str) -> Result<Vec<DoneRow>, String> {
    match raise(view, Wish::End, |conn| tenant_of(conn).is_some_and(|name| name == tenant)) {
        0 => Err(format!("no session of tenant {tenant}")),
        ended => Ok(vec![DoneRow::new(tenant, format!("{ended} sessions ended"))]),
    }
}

/// Returns how many sessions were told.
fn raise(view: &View, wish: Wish, whom: impl Fn(&ClientConn) -> bool) -> usize {
    let all = view.doors.table.all();
    all.iter().filter(|conn| whom(conn)).map(|conn| conn.control.raise(wish)).count()
}
