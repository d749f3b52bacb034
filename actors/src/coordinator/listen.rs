//! The wake channel: hears when there is something to do, so that nobody has to ask.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{PushInfo, PushKind, Value};
use ractor::ActorRef;
use tokio::sync::mpsc;
use tracing::debug;

use super::CoordinatorMsg;
use super::estate::SharedEstate;
use super::redis::RedisFailure;

/// How long nothing is heard at most before the other side is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(20);

/// Keeps a subscription to the wake channel, for ever. What is missed is found at the next renewal.
pub(super) async fn listen(estate: Arc<SharedEstate>, coordinator: ActorRef<CoordinatorMsg>) {
    loop {
        if let Err(why) = hear(&estate, &coordinator).await {
            debug!(%why, "not listening");
        }
        tokio::time::sleep(estate.timing.patience()).await;
    }
}

/// Returns when the subscription is lost.
async fn hear(estate: &SharedEstate, coordinator: &ActorRef<CoordinatorMsg>) -> Result<(), RedisFailure> {
    let (to, mut messages) = mpsc::unbounded_channel();
    let listening = estate.redis.listen(to).await;
    estate.count("listen", &listening);
    let mut connection = listening?;
    // It may be another Redis than the one before.
    drop(coordinator.cast(CoordinatorMsg::Listening));
    loop {
        match tokio::time::timeout(estate.timing.lease.min(SILENCE), messages.recv()).await {
            Ok(Some(push)) if push.kind == PushKind::Disconnection => return Ok(()),
            Ok(Some(push)) => {
                if let Some(payload) = payload(&push) {
                    drop(coordinator.cast(CoordinatorMsg::Woken(payload)));
                }
            }
            Ok(None) => return Ok(()),
            // A connection that leads nowhere is as silent as one without news. And who has nothing else to ask shows
            // here that it lives.
            Err(_) => {
                let ping = deadpool_redis::redis::cmd("PING");
                let alive = ping.query_async::<Value>(&mut connection);
                let alive = match tokio::time::timeout(estate.redis.patience(), alive).await {
                    Ok(alive) => alive.map_err(RedisFailure::from),
                    Err(_) => Err(RedisFailure::Timeout(estate.redis.patience())),
                };
                estate.count("ping", &alive);
                alive?;
            }
        }
    }
}

fn payload(push: &PushInfo) -> Option<String> {
    match (&push.kind, push.data.last()) {
        (PushKind::Message, Some(Value::BulkString(bytes))) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}
