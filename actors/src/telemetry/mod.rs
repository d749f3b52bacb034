//! What is told of each request when it ends: metrics always, a line in the log and spans of a trace where it is worth
//! it. Which requests are traced is decided at their end: a part of all, and all that were slow or failed. So nothing is
//! recorded on the way but moments, and without a collector there is no cost beyond them.

mod clock;
mod context;
mod export;
mod span;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{SpanId, TraceId};
use tdsbouncer_config::Telemetry as Settings;
use tokio::time::Instant;
use tracing::{info, warn};

pub(crate) use clock::RequestClock;
pub(crate) use context::TraceContext;
pub(crate) use export::ExporterError;

use crate::metrics::{Metrics, Outcome, RequestTimes};
use crate::session::client_conn::{ClientConn, LoggedIn};
use clock::Ended;
use export::Exporter;
use span::Place;

/// Tells of requests; shared by all sessions.
pub(crate) struct Telemetry {
    exporter: Option<Exporter>,
    ratio: f64,
    slow: Option<Duration>,
}

/// A traced request: what later spans of it hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traced {
    trace: TraceId,
    span: SpanId,
}

impl Telemetry {
    /// Starts the exporter, if a collector is configured. Must run within the runtime.
    pub(crate) fn start(
        settings: &Settings,
        version: &'static str,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, ExporterError> {
        let exporter = match &settings.endpoint {
            Some(endpoint) => {
                Some(Exporter::start(endpoint, settings.protocol, version, Arc::clone(metrics))?)
            }
            None => None,
        };
        Ok(Self { exporter, ratio: settings.ratio, slow: settings.slow })
    }

    /// Nothing is traced and nothing is slow.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { exporter: None, ratio: 0.0, slow: None }
    }

    /// Whether it is worth looking for the client's own trace.
    pub(crate) fn is_on(&self) -> bool {
        self.exporter.is_some()
    }

    /// A session's request has ended, however. None: none was under way, or it is not traced.
    pub(crate) fn request_ended(&self, conn: &ClientConn) -> Option<Traced> {
        let ended = conn.clock.end()?;
        let login = conn.login.get()?;
        let times = times(&ended);
        let slow = self.slow.is_some_and(|slow| times.total >= slow);
        let traced = if self.is_on() { self.sample(&ended, slow) } else { None };
        let id = traced.map(|traced| traced.trace.to_string());
        login.bucket.shared().metrics.work.ended(&times, ended.outcome, slow, id.as_deref());
        tell(conn, login, &ended, &times, slow, id.as_deref());
        if let (Some(exporter), Some(traced)) = (&self.exporter, traced) {
            exporter.offer(span::of_request(&ended, traced, &place(conn, login)));
        }
        traced
    }

    /// A session gave up a server connection that it had kept since `since`, beyond the request that `traced` is.
    pub(crate) fn hold_ended(
        &self,
        conn: &ClientConn,
        reason: &'static str,
        since: Instant,
        traced: Option<Traced>,
    ) {
        let Some(login) = conn.login.get() else { return };
        login.bucket.shared().metrics.work.held(reason, since.elapsed());
        if let (Some(exporter), Some(traced)) = (&self.exporter, traced) {
            exporter.offer(vec![span::of_hold(reason, since, traced, &place(conn, login))]);
        }
    }

    /// Sends what waits, for at most this long.
    pub(crate) async fn flush(&self, patience: Duration) {
        if let Some(exporter) = &self.exporter {
            exporter.flush(patience).await;
        }
    }

    /// Whether this request is traced, and as what.
    fn sample(&self, ended: &Ended, slow: bool) -> Option<Traced> {
        let trace = match &ended.context {
            Some(context) => TraceId::from_bytes(context.trace),
            None => TraceId::from_bytes(rand::random()),
        };
        let failed = matches!(ended.outcome, Outcome::Failed(_));
        let asked_for = ended.context.and_then(|context| context.sampled);
        let sampled = slow || failed || asked_for.unwrap_or_else(|| falls_into(trace, self.ratio));
        sampled.then(|| Traced { trace, span: SpanId::from_bytes(rand::random()) })
    }
}

/// Decided by the trace's id: the same for everybody who sees it.
fn falls_into(trace: TraceId, ratio: f64) -> bool {
    let [_, _, _, _, _, _, _, _, low @ ..] = trace.to_bytes();
    #[expect(clippy::cast_precision_loss, reason = "a ratio need not be exact to 2^-53")]
    let place = (u64::from_be_bytes(low) >> 1) as f64 / (1_u64 << 63) as f64;
    place < ratio
}

fn times(ended: &Ended) -> RequestTimes {
    let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
        (Some(from), Some(to)) => to.saturating_duration_since(from),
        _ => Duration::ZERO,
    };
    let over = Some(ended.ended);
    RequestTimes {
        total: ended.ended.saturating_duration_since(ended.began),
        waited: between(ended.asked, ended.leased.or(over)),
        prepared: between(ended.preparing, ended.sent),
        server: between(ended.sent, over),
    }
}

fn place<'a>(conn: &ClientConn, login: &'a LoggedIn) -> Place<'a> {
    let settings = login.bucket.settings();
    Place {
        session: conn.id,
        peer: conn.peer,
        bucket: login.bucket.name().as_str(),
        database: &login.template.database,
        host: settings.host.clone(),
        port: settings.port,
    }
}

/// Slow requests are worth a line, and failed ones that have a trace to look at.
fn tell(
    conn: &ClientConn,
    login: &LoggedIn,
    ended: &Ended,
    times: &RequestTimes,
    slow: bool,
    trace_id: Option<&str>,
) {
    let (session, bucket) = (conn.id, login.bucket.name());
    let (outcome, error) = (ended.outcome.word(), ended.error);
    let RequestTimes { total, waited, server, .. } = times;
    if slow {
        let rows = ended.rows;
        warn!(%session, %bucket, trace_id, outcome, error, ?total, ?waited, ?server, rows, "slow request");
    } else if trace_id.is_some() && matches!(ended.outcome, Outcome::Failed(_)) {
        info!(%session, %bucket, trace_id, outcome, error, ?total, "failed request");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_takes_its_part_of_all_traces_and_the_same_everywhere() {
        let traces: Vec<TraceId> = (0..10_000).map(|_| TraceId::from_bytes(rand::random())).collect();
        let part = |ratio| traces.iter().filter(|trace| falls_into(**trace, ratio)).count();
        assert_eq!((part(0.0), part(1.0)), (0, 10_000));
        assert!((2000..3000).contains(&part(0.25)), "{}", part(0.25));
        let smaller: Vec<&TraceId> = traces.iter().filter(|trace| falls_into(**trace, 0.1)).collect();
        assert!(smaller.iter().all(|trace| falls_into(**trace, 0.2)));
    }
}
