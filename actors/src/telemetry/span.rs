//! A request's moments as spans, by OpenTelemetry's conventions for databases.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tds::packet::PacketType;
use tokio::time::Instant;

use super::Traced;
use super::clock::Ended;
use crate::metrics::Outcome;
use crate::session::client_conn::SessionId;

/// Where a request ran.
pub(super) struct Place<'a> {
    pub(super) session: SessionId,
    pub(super) peer: SocketAddr,
    pub(super) bucket: &'a str,
    pub(super) database: &'a str,
    pub(super) host: String,
    pub(super) port: u16,
}

/// The request's own span, and one beneath it for each part that took place.
pub(super) fn of_request(ended: &Ended, traced: Traced, place: &Place<'_>) -> Vec<SpanData> {
    let clock = Wall::now();
    let child = |name, kind, from, to| {
        let mut child = span(traced, SpanId::from_bytes(rand::random()), name, kind);
        (child.start_time, child.end_time) = (clock.at(from), clock.at(to));
        child.parent_span_id = traced.span;
        child.attributes = vec![KeyValue::new("tdsbouncer.bucket", place.bucket.to_owned())];
        child
    };
    let mut spans = vec![root(ended, traced, place, &clock)];
    if let Some(asked) = ended.asked {
        let leased = ended.leased.unwrap_or(ended.ended);
        spans.push(child("queue wait", SpanKind::Internal, asked, leased));
        if let Some(connecting) = ended.connecting {
            let began = leased.checked_sub(connecting).map_or(asked, |began| began.max(asked));
            spans.push(child("connect", SpanKind::Client, began, leased));
        }
    }
    if let (Some(preparing), Some(sent)) = (ended.preparing, ended.sent) {
        spans.push(child("reset and replay", SpanKind::Client, preparing, sent));
    }
    if let Some(sent) = ended.sent {
        let mut execute = child("execute", SpanKind::Client, sent, ended.ended);
        execute.attributes.extend(server(place));
        if let Some(answered) = ended.answered {
            let first = answered.saturating_duration_since(sent).as_secs_f64();
            execute.attributes.push(KeyValue::new("tdsbouncer.first_byte_seconds", first));
        }
        if let Outcome::Failed(label) = ended.outcome {
            execute.status = Status::error(label);
        }
        spans.push(execute);
    }
    spans
}

fn root(ended: &Ended, traced: Traced, place: &Place<'_>, clock: &Wall) -> SpanData {
    let name = operation(ended.kind);
    let mut root = span(traced, traced.span, name, SpanKind::Server);
    (root.start_time, root.end_time) = (clock.at(ended.began), clock.at(ended.ended));
    if let Some(parent) = ended.context.and_then(|context| context.parent) {
        root.parent_span_id = SpanId::from_bytes(parent);
        root.parent_span_is_remote = true;
    }
    root.attributes = server(place).into();
    root.attributes.extend([
        KeyValue::new("db.namespace", place.database.to_owned()),
        KeyValue::new("db.operation.name", name),
        KeyValue::new("db.response.returned_rows", i64::try_from(ended.rows).unwrap_or(i64::MAX)),
        KeyValue::new("client.address", place.peer.ip().to_string()),
        KeyValue::new("client.port", i64::from(place.peer.port())),
        KeyValue::new("tdsbouncer.bucket", place.bucket.to_owned()),
        KeyValue::new("tdsbouncer.session", place.session.to_string()),
        KeyValue::new("tdsbouncer.outcome", ended.outcome.word()),
    ]);
    if let Some(number) = ended.error {
        root.attributes.push(KeyValue::new("db.response.status_code", number.to_string()));
    }
    if let Outcome::Failed(label) = ended.outcome {
        root.attributes.push(KeyValue::new("error.type", label));
        root.status = Status::error(label);
    }
    root
}

/// What a session kept its server connection for, after the request that began it.
pub(super) fn of_hold(reason: &'static str, since: Instant, traced: Traced, place: &Place<'_>) -> SpanData {
    let clock = Wall::now();
    let mut hold = span(traced, SpanId::from_bytes(rand::random()), "hold", SpanKind::Internal);
    (hold.start_time, hold.end_time) = (clock.at(since), clock.at(Instant::now()));
    hold.parent_span_id = traced.span;
    hold.attributes = vec![
        KeyValue::new("tdsbouncer.hold.reason", reason),
        KeyValue::new("tdsbouncer.bucket", place.bucket.to_owned()),
        KeyValue::new("tdsbouncer.session", place.session.to_string()),
    ];
    hold
}

fn server(place: &Place<'_>) -> [KeyValue; 3] {
    [
        KeyValue::new("db.system.name", "microsoft.sql_server"),
        KeyValue::new("server.address", place.host.clone()),
        KeyValue::new("server.port", i64::from(place.port)),
    ]
}

/// Of low cardinality: no text, no procedure of the client's own.
fn operation(kind: PacketType) -> &'static str {
    match kind {
        PacketType::SQL_BATCH => "batch",
        PacketType::RPC => "call",
        PacketType::TRANSACTION_MANAGER => "transaction",
        PacketType::BULK_LOAD => "bulk load",
        _ => "request",
    }
}

fn span(traced: Traced, id: SpanId, name: &'static str, kind: SpanKind) -> SpanData {
    SpanData {
        span_context: SpanContext::new(traced.trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: kind,
        name: Cow::Borrowed(name),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("tdsbouncer").build(),
    }
}

/// Moments as times of day: both clocks are read once, so that all spans of a request fit together.
struct Wall {
    instant: Instant,
    system: SystemTime,
}

impl Wall {
    fn now() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }

    fn at(&self, moment: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(moment);
        self.system.checked_sub(ago).unwrap_or(self.system)
    }
}
