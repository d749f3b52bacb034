//! Traces arrive at a real OTLP receiver, over gRPC and HTTP, with the right parents; a receiver that is away harms
//! nothing.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod client;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::stage::Stage;
use client::{Client, Who};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tdsbouncer_config::{Config, OtlpProtocol, PoolMode, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector: what it was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens with gRPC until the test ends.
    fn grpc(address: SocketAddr) -> Self {
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(async move {
            tonic::transport::Server::builder().add_service(service).serve(address).await.unwrap();
        });
        collector
    }

    /// Listens with HTTP until the test ends.
    async fn http(address: SocketAddr) -> Self {
        let collector = Self::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let taker = collector.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let taker = taker.clone();
                tokio::spawn(async move {
                    let mut input = Vec::new();
                    while let Some(body) = next_body(&mut stream, &mut input).await {
                        taker.0.lock().unwrap().push(ExportTraceServiceRequest::decode(&*body).unwrap());
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        collector
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits for as many spans of this name; returns all of them.
    async fn until(&self, name: &str, count: usize) -> Vec<Span> {
        let over = Instant::now() + Duration::from_secs(60);
        loop {
            let spans = self.spans();
            let named: Vec<Span> = spans.iter().filter(|span| span.name == name).cloned().collect();
            if named.len() >= count {
                return named;
            }
            assert!(Instant::now() < over, "{count} of {name} in {spans:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The body of one request of a connection that is kept open.
async fn next_body(stream: &mut tokio::net::TcpStream, input: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]).to_lowercase();
            assert!(head.starts_with("post /v1/traces "), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let (start, length) = (end + 4, length.trim().parse::<usize>().unwrap());
            if input.len() >= start + length {
                let body = input[start..start + length].to_vec();
                input.drain(..start + length);
                return Some(body);
            }
        }
        if stream.read_buf(input).await.unwrap() == 0 {
            return None;
        }
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A proxy that pools by transaction and traces to this address.
async fn stage(address: SocketAddr, protocol: OtlpProtocol, ratio: f64, slow: Option<Duration>) -> Stage {
    let path = if protocol == OtlpProtocol::Http { "/v1/traces" } else { "" };
    let set = move |config: &mut Config| {
        config.telemetry =
            Telemetry { endpoint: Some(format!("http://{address}{path}")), protocol, ratio, slow };
    };
    Stage::set(1, |bucket| bucket.pool_mode = PoolMode::Transaction, set).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// A request that joins its client's trace, a transaction that is held, a failed request.
async fn load_and_look(stage: &Stage, collector: &Collector) {
    let mut client = Client::connect(stage.address, &Who::default()).await;
    let text = format!("/*traceparent='00-{TRACE}-{PARENT}-01'*/ SELECT 1");
    assert_eq!(client.batch(&text).await.number(), 1);
    client.batch("BEGIN TRANSACTION; SELECT 2").await;
    client.batch("COMMIT").await;
    assert_ne!(client.batch("SELECT * FROM nowhere").await.error(), 0);

    let roots = collector.until("batch", 4).await;
    let joined = roots.iter().find(|span| hex(&span.trace_id) == TRACE).expect("the client's own trace");
    assert_eq!(hex(&joined.parent_span_id), PARENT);
    assert_eq!(attribute(joined, "db.system.name").as_deref(), Some("microsoft.sql_server"));
    assert_eq!(attribute(joined, "db.namespace").as_deref(), Some("shop"));
    assert_eq!(attribute(joined, "tdsbouncer.bucket").as_deref(), Some("b1"));
    assert_eq!(attribute(joined, "db.response.returned_rows").as_deref(), Some("1"));
    let spans = collector.spans();
    for name in ["queue wait", "execute"] {
        let child = spans.iter().find(|span| span.name == name && span.parent_span_id == joined.span_id);
        let child = child.unwrap_or_else(|| panic!("{name} in {spans:#?}"));
        assert_eq!(child.trace_id, joined.trace_id);
        let inside = joined.start_time_unix_nano..=joined.end_time_unix_nano;
        assert!(inside.contains(&child.start_time_unix_nano) && inside.contains(&child.end_time_unix_nano));
    }
    let held = collector.until("hold", 1).await;
    assert_eq!(attribute(&held[0], "tdsbouncer.hold.reason").as_deref(), Some("transaction"));
    let began =
        roots.iter().find(|span| span.span_id == held[0].parent_span_id).expect("the request that began it");
    assert!(began.end_time_unix_nano <= held[0].end_time_unix_nano);
    let failed = roots.iter().find(|span| span.status.as_ref().is_some_and(|status| status.code == 2));
    assert_eq!(attribute(failed.expect("a failed one"), "db.response.status_code").as_deref(), Some("208"));
    let texts = format!("{spans:?}");
    assert!(!texts.contains("nowhere") && !texts.contains("SELECT"), "no SQL text is in a span");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_load_arrive_over_grpc_with_the_right_parents() {
    let address = free_address();
    let collector = Collector::grpc(address);
    let stage = stage(address, OtlpProtocol::Grpc, 1.0, None).await;
    load_and_look(&stage, &collector).await;
    let metrics = stage.proxy.metrics_text();
    let exemplar = metrics
        .lines()
        .any(|line| line.starts_with("tdsbouncer_request_seconds_bucket") && line.contains("# {trace_id=\""));
    assert!(exemplar, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_load_arrive_over_http_with_the_right_parents() {
    let address = free_address();
    let collector = Collector::http(address).await;
    let stage = stage(address, OtlpProtocol::Http, 1.0, None).await;
    load_and_look(&stage, &collector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_for_another_session_has_a_span_of_its_own() {
    let address = free_address();
    let collector = Collector::grpc(address);
    let stage = stage(address, OtlpProtocol::Grpc, 1.0, None).await;
    let mut first = Client::connect(stage.address, &Who::default()).await;
    let mut second = Client::connect(stage.address, &Who::default()).await;
    first.batch("SET DATEFIRST 3").await;
    second.batch("SET DATEFIRST 5").await;
    first.batch("SELECT @@DATEFIRST").await;
    let replayed = collector.until("reset and replay", 1).await;
    let roots = collector.until("batch", 3).await;
    assert!(replayed.iter().all(|span| roots.iter().any(|root| root.span_id == span.parent_span_id)));
    assert!(stage.proxy.metrics_text().contains("tdsbouncer_replays_total{bucket=\"b1\",result=\"ok\"}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ratio_only_failed_and_slow_requests_are_traced() {
    let address = free_address();
    let collector = Collector::grpc(address);
    let stage = stage(address, OtlpProtocol::Grpc, 0.0, Some(Duration::from_millis(400))).await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    for _ in 0..20 {
        client.batch("SELECT 1").await;
    }
    client.batch("SELECT * FROM nowhere").await;
    client.batch("WAITFOR DELAY '00:00:00.500'").await;
    let roots = collector.until("batch", 2).await;
    assert_eq!(roots.len(), 2, "{roots:#?}");
    let metrics = stage.proxy.metrics_text();
    assert!(metrics.contains("tdsbouncer_slow_requests_total{bucket=\"b1\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("tdsbouncer_failed_requests_total{bucket=\"b1\",type=\"server\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_harms_nothing_and_gets_spans_when_it_is_back() {
    let address = free_address();
    let stage = stage(address, OtlpProtocol::Grpc, 1.0, None).await;
    let mut client = Client::connect(stage.address, &Who::default()).await;
    for n in 0..50 {
        assert_eq!(client.batch(&format!("SELECT {n}")).await.number(), n);
    }
    let failed = |stage: &Stage| {
        stage.proxy.metrics_text().contains("tdsbouncer_trace_spans_total{result=\"failed\"}")
    };
    stage.until("some are lost", failed).await;
    let collector = Collector::grpc(address);
    let over = Instant::now() + Duration::from_secs(60);
    while collector.spans().is_empty() {
        assert!(Instant::now() < over, "{}", stage.proxy.metrics_text());
        assert_eq!(client.batch("SELECT 1").await.number(), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stage.proxy.metrics_text().contains("tdsbouncer_trace_spans_total{result=\"exported\"}"));
}
