//! What the clients of a case do, and one round of it against one rival.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hdrhistogram::Histogram;
use tds::encryption::ServerTls;
use tds::packet::PacketType;
use tds::request::{BeginTransaction, SqlBatch, TransactionRequest};
use tds::rpc::{Parameter, ProcId, Procedure, RpcRequest};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;
use tdsbouncer_loadgen::client::{Client, ClientError, Target};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::cost;

/// What a client does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A batch, one small row back.
    Batch,
    /// A parameterized statement, one small row and a return status back.
    Call,
    /// Begin, a batch, commit: three requests.
    Transaction,
    /// So many blocks (about a MiB) of rows of this shape.
    Rows(&'static str, u32),
    /// Connect, log in, leave.
    Login,
}

/// One line of the report.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) clients: usize,
    pub(crate) think: Duration,
    pub(crate) tls: ServerTls,
}

impl Case {
    pub(crate) const fn new(name: &'static str, work: Work, clients: usize) -> Self {
        Self { name, work, clients, think: Duration::ZERO, tls: ServerTls::Never }
    }
}

/// What one round found.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Units of work done in a second.
    pub(crate) rate: f64,
    /// Bytes of answers in a second.
    pub(crate) bytes: f64,
    /// Median and 99th percentile, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU time of the rival's process for each unit, in microseconds.
    pub(crate) cpu: Option<f64>,
}

/// Runs a case against one rival for about `length`.
pub(crate) async fn round(
    case: &Case,
    address: SocketAddr,
    pid: Option<u32>,
    length: Duration,
) -> Result<Round, ClientError> {
    let target = Target { tls: case.tls, ..Target::new(address, "sa", "Sim-passw0rd", "bench") };
    let (ready, go) = (Arc::new(Barrier::new(case.clients + 1)), Arc::new(Barrier::new(case.clients + 1)));
    let mut running = JoinSet::new();
    for at in 0..case.clients {
        let (case, target, ready, go) = (case.clone(), target.clone(), Arc::clone(&ready), Arc::clone(&go));
        running.spawn(async move { client(&case, &target, at, length, &ready, &go).await });
    }
    ready.wait().await;
    let before = pid.and_then(|pid| cost::cpu(pid).ok());
    let began = Instant::now();
    go.wait().await;
    let mut all = latencies();
    let mut bytes = 0;
    while let Some(done) = running.join_next().await {
        let (latencies, moved) = done.map_err(|why| ClientError::Protocol(why.to_string()))??;
        all.add(latencies).map_err(|why| ClientError::Protocol(why.to_string()))?;
        bytes += moved;
    }
    let took = began.elapsed().as_secs_f64();
    let after = pid.and_then(|pid| cost::cpu(pid).ok());
    let units = all.len() as f64;
    let cpu = before.zip(after).map(|(before, after)| (after - before).as_secs_f64() * 1e6 / units);
    Ok(Round {
        rate: units / took,
        bytes: bytes as f64 / took,
        p50: all.value_at_quantile(0.5) as f64 / 1e3,
        p99: all.value_at_quantile(0.99) as f64 / 1e3,
        cpu,
    })
}

/// Nanoseconds, from one to a minute, with three digits.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed")
}

async fn client(
    case: &Case,
    target: &Target,
    at: usize,
    length: Duration,
    ready: &Barrier,
    go: &Barrier,
) -> Result<(Histogram<u64>, u64), ClientError> {
    let mut latencies = latencies();
    let outcome = Working::begin(case, target).await;
    ready.wait().await;
    go.wait().await;
    let mut working = outcome?;
    let (began, mut bytes) = (Instant::now(), 0);
    if !case.think.is_zero() {
        // Not all in the same moment.
        tokio::time::sleep(case.think.mul_f64(at as f64 / case.clients as f64)).await;
    }
    while began.elapsed() < length {
        let asked = Instant::now();
        bytes += working.once(case, target).await?;
        latencies.saturating_record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if !case.think.is_zero() {
            tokio::time::sleep(case.think).await;
        }
    }
    Ok((latencies, bytes))
}

/// A client and the requests that it sends, made beforehand.
struct Working {
    client: Option<Client>,
    request: BytesMut,
    /// The answer's length, which is the same each time.
    expected: u64,
}

impl Working {
    async fn begin(case: &Case, target: &Target) -> Result<Self, ClientError> {
        if case.work == Work::Login {
            return Ok(Self { client: None, request: BytesMut::new(), expected: 0 });
        }
        let mut client = Client::connect(target).await?;
        let mut payload = BytesMut::new();
        let batch = |text: String| SqlBatch { headers: Some(client.headers()), ..SqlBatch::new(text) };
        let kind = match case.work {
            Work::Call => {
                call()
                    .write(&mut payload, client.dialect())
                    .map_err(|why| ClientError::Protocol(why.to_string()))?;
                PacketType::RPC
            }
            Work::Rows(shape, blocks) => {
                batch(format!("ROWS {shape} {blocks}")).write(&mut payload, client.dialect());
                PacketType::SQL_BATCH
            }
            _ => {
                batch("SELECT 1".to_owned()).write(&mut payload, client.dialect());
                PacketType::SQL_BATCH
            }
        };
        if !matches!(case.work, Work::Rows(..)) {
            // The answer is looked at once; later ones have to be as long as this one.
            let answer = client.request(kind, &payload).await?;
            if !answer.is_row(&[Value::Int(1)]) || !answer.errors.is_empty() {
                return Err(ClientError::Protocol(format!("a wrong answer: {:?}", answer.errors)));
            }
        }
        let request = client.packets(kind, &payload);
        let expected = client.exchange(&request).await?;
        Ok(Self { client: Some(client), request, expected })
    }

    /// One unit of work: how many bytes came back.
    async fn once(&mut self, case: &Case, target: &Target) -> Result<u64, ClientError> {
        let Some(client) = &mut self.client else {
            drop(Client::connect(target).await?);
            return Ok(0);
        };
        if case.work == Work::Transaction {
            let begin = TransactionRequest::Begin(BeginTransaction::default());
            client.transaction(&begin).await?;
            if !client.in_transaction() {
                return Err(ClientError::Protocol("no transaction began".to_owned()));
            }
            let answer = client.batch("SELECT 1").await?;
            let commit = TransactionRequest::Commit { name: String::new(), begin: None };
            client.transaction(&commit).await?;
            if client.in_transaction() || !answer.is_row(&[Value::Int(1)]) {
                return Err(ClientError::Protocol("a wrong answer".to_owned()));
            }
            return Ok(answer.bytes as u64);
        }
        let length = client.exchange(&self.request).await?;
        if length != self.expected {
            return Err(ClientError::Protocol(format!("an answer of {length} bytes, not {}", self.expected)));
        }
        Ok(length)
    }
}

fn call() -> RpcRequest {
    let text = |text: &str| Value::String(text.to_owned());
    let nvarchar = || TypeInfo::nvarchar(100, Collation::LATIN1);
    let parameters = vec![
        Parameter::new("", nvarchar(), text("SELECT n FROM t WHERE id = @id")),
        Parameter::new("", nvarchar(), text("@id int")),
        Parameter::new("@id", TypeInfo::IntN(4), Value::Int(42)),
    ];
    RpcRequest::one(Procedure::Id(ProcId::EXECUTE_SQL), parameters)
}
