//! Asks a server connection one thing after the other, or two at once, with a bounded wait for each answer.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tds::Dialect;
use tds::message::write_message;
use tds::packet::{MAX_PACKET_SIZE, PacketType, PacketWalker, Status};
use tds::request::{AllHeaders, BeginTransaction, SqlBatch, TransactionRequest};
use tds::rpc::{Parameter, ProcId, Procedure, RpcRequest};
use tds::scan::ResponseScanner;
use tds::type_info::{CharInfo, Collation, TypeInfo};
use tds::value::Value;

use super::answer::Answer;
use crate::bucket::{ConnTurn, ServerConn};

/// The longest wait for one answer. None of what is asked takes a server a hundredth of it.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// More than all answers together are long.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Bytes read at once.
const CHUNK: usize = 1024;

/// The savepoint that is rolled back to.
const SAVEPOINT: &str = "tdsbouncer";

/// One request of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Batch(&'static str),
    /// With RESETCONNECTION.
    ResetBatch(&'static str),
    // Transaction manager requests.
    Begin,
    Commit,
    Save,
    Rollback,
    RollbackToSave,
    /// sp_prepare of something that needs no rights.
    Prepare,
    /// sp_execute of what was prepared last.
    Execute,
}

/// Why a check got no answer; its connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("no answer within {waited:?}")]
    Timeout { waited: Duration },
    #[error("the answer is no response: {0}")]
    Malformed(#[from] tds::Malformed),
    #[error("the answer could not be followed")]
    Lost,
    #[error("the answer is longer than {LONGEST_ANSWER} bytes")]
    TooLong,
    #[error("more was answered than asked")]
    Unasked,
}

/// A connection being asked, and what later requests need of earlier answers.
pub(super) struct Probe<'a> {
    conn: &'a mut ServerConn,
    /// The open transaction, for ALL_HEADERS.
    descriptor: u64,
    handle: Option<i32>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(conn: &'a mut ServerConn) -> Self {
        Self { conn, descriptor: 0, handle: None }
    }

    /// Asks one after the other.
    pub(super) async fn in_turn(&mut self, asks: &[Ask]) -> Result<Vec<Answer>, NoAnswer> {
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let mut request = self.request(*ask);
            self.link()?.write_from(&mut request).await?;
            let answer = self.answer().await?;
            if !self.link()?.input.is_empty() {
                return Err(NoAnswer::Unasked);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Writes all requests at once, then reads as many answers.
    pub(super) async fn at_once(&mut self, asks: &[Ask]) -> Result<Vec<Answer>, NoAnswer> {
        let mut requests = BytesMut::new();
        for ask in asks {
            requests.extend_from_slice(&self.request(*ask));
        }
        self.link()?.write_from(&mut requests).await?;
        let mut answers = Vec::with_capacity(asks.len());
        for _ in asks {
            answers.push(self.answer().await?);
        }
        if !self.link()?.input.is_empty() {
            return Err(NoAnswer::Unasked);
        }
        Ok(answers)
    }

    fn link(&mut self) -> Result<&mut crate::wire::Link, NoAnswer> {
        self.conn.link().ok_or(NoAnswer::Closed)
    }

    fn request(&self, ask: Ask) -> BytesMut {
        let dialect = self.conn.dialect;
        let (kind, payload) = self.payload(ask, dialect);
        let status =
            if matches!(ask, Ask::ResetBatch(_)) { Status::RESET_CONNECTION } else { Status::NORMAL };
        let mut request = BytesMut::new();
        write_message(&mut request, kind, status, 0, self.conn.packet_size, &payload);
        request
    }

    fn payload(&self, ask: Ask, dialect: Dialect) -> (PacketType, BytesMut) {
        let mut payload = BytesMut::new();
        let headers = AllHeaders::in_transaction(self.descriptor);
        let transaction = match ask {
            Ask::Batch(text) | Ask::ResetBatch(text) => {
                SqlBatch { headers: Some(headers), ..SqlBatch::new(text) }.write(&mut payload, dialect);
                return (PacketType::SQL_BATCH, payload);
            }
            Ask::Prepare | Ask::Execute => {
                let call = if ask == Ask::Prepare { prepare() } else { execute(self.handle) };
                let written = RpcRequest { headers: Some(headers), ..call }.write(&mut payload, dialect);
                debug_assert!(written.is_ok(), "ints and short texts fit their types");
                return (PacketType::RPC, payload);
            }
            Ask::Begin => TransactionRequest::Begin(BeginTransaction::default()),
            Ask::Commit => TransactionRequest::Commit { name: String::new(), begin: None },
            Ask::Save => TransactionRequest::Save { name: SAVEPOINT.to_owned() },
            Ask::Rollback => TransactionRequest::Rollback { name: String::new(), begin: None },
            Ask::RollbackToSave => TransactionRequest::Rollback { name: SAVEPOINT.to_owned(), begin: None },
        };
        transaction.write(&mut payload, &headers, dialect);
        (PacketType::TRANSACTION_MANAGER, payload)
    }

    async fn answer(&mut self) -> Result<Answer, NoAnswer> {
        let answer = match tokio::time::timeout(ANSWER_WAIT, self.read()).await {
            Ok(answer) => answer?,
            Err(_) => return Err(NoAnswer::Timeout { waited: ANSWER_WAIT }),
        };
        self.descriptor = answer.descriptor.unwrap_or(self.descriptor);
        self.handle = answer.handle.or(self.handle);
        Ok(answer)
    }

    /// Reads one message. What comes behind it stays in the link.
    async fn read(&mut self) -> Result<Answer, NoAnswer> {
        let dialect = self.conn.dialect;
        let (mut walker, mut scanner) = (PacketWalker::new(MAX_PACKET_SIZE), ResponseScanner::new(dialect));
        let (mut answer, mut total) = (Answer::default(), 0);
        let Some(ConnTurn { server: link, mut witness, .. }) = self.conn.turn() else {
            return Err(NoAnswer::Closed);
        };
        loop {
            while let Some(piece) = walker.next(&link.input)? {
                scanner.feed(&link.input[piece.payload.clone()], |scanned| {
                    answer.note(&scanned.event);
                    if let Some(witness) = &mut witness {
                        answer.changed = answer.changed.and(witness.hear(&scanned.event));
                    }
                });
                total += piece.consumed;
                drop(link.input.split_to(piece.consumed));
                if answer.lost || piece.end_of_message && !scanner.is_between_tokens() {
                    return Err(NoAnswer::Lost);
                }
                if piece.end_of_message {
                    return Ok(answer);
                }
                if total > LONGEST_ANSWER {
                    return Err(NoAnswer::TooLong);
                }
            }
            // The walker has taken what is left: a part of a header.
            link.input.clear();
            if link.fill(CHUNK).await? == 0 {
                return Err(NoAnswer::Closed);
            }
        }
    }
}

fn prepare() -> RpcRequest {
    let text = TypeInfo::NVarChar(CharInfo { max_len: 200, collation: Collation::LATIN1 });
    let text = |value: &str| Parameter::new("", text.clone(), Value::String(value.to_owned()));
    let handle = Parameter::new("", TypeInfo::IntN(4), Value::Null).by_ref();
    let options = Parameter::new("", TypeInfo::IntN(4), Value::Int(1));
    let parameters = vec![handle, text(""), text("SELECT 1"), options];
    RpcRequest::one(Procedure::Id(ProcId::PREPARE), parameters)
}

fn execute(handle: Option<i32>) -> RpcRequest {
    let handle = Parameter::new("", TypeInfo::IntN(4), handle.map_or(Value::Null, Value::Int));
    RpcRequest::one(Procedure::Id(ProcId::EXECUTE), vec![handle])
}
