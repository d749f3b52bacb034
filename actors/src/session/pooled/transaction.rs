//! Whether the session is in a transaction, for its client and for its server.
//!
//! Many drivers begin the next transaction in the moment the last one ends ("commit and begin again"), so their
//! sessions are never outside one. Such a beginning is virtual: the client is told a descriptor of ours, and the
//! server hears of the transaction with the first request in it.
//!
//! ```text
//!        begin, alone or behind a commit           the first request
//! None ───────────────────────────────▶ Virtual ───────────────────▶ Open
//!  ▲   ◀───────────────────────────────       │                       │
//!  │        commit, rollback: answered here    │                       │
//!  └───────────────────────────────────────────┴──── ENVCHANGE 9, 10 ──┘
//! ```

use bytes::BytesMut;
use tds::TdsVersion;
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::request::{AllHeaders, BeginTransaction, IsolationLevel, TransactionRequest};

/// DONE's current command of BEGIN TRANSACTION.
const BEGIN: u16 = 0xD4;
/// The same of COMMIT.
const COMMIT: u16 = 0xD5;
/// The same of ROLLBACK.
const ROLLBACK: u16 = 0xD2;

/// Descriptors of ours begin with these bytes, read as a number: real ones count from small numbers.
const OURS: u64 = 0x7464_7362_0000_0000;

/// Where the session stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// Outside.
    #[default]
    None,
    /// The client believes to be in one; no server knows.
    Virtual {
        /// What the client calls it.
        client: u64,
        /// How it is to begin.
        begin: BeginTransaction,
    },
    /// In one.
    Open {
        /// What the client calls it.
        client: u64,
        /// What the server calls it.
        server: u64,
    },
}

/// What to do about a transaction manager request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The server does it.
    Forward,
    /// The server ends the transaction by this request instead. If it does, the next one begins virtually; if it was
    /// nested, so is the next one.
    EndAndBegin { instead: TransactionRequest, begin: BeginTransaction },
    /// These tokens are the answer; no server hears of it.
    Answer(BytesMut),
}

/// Makes descriptors that no transaction of the session had.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(u32);

impl Descriptors {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        OURS | u64::from(self.0)
    }
}

impl Transaction {
    /// Decides about a transaction manager request; what is answered here has happened then.
    pub(crate) fn step(&mut self, request: &TransactionRequest, descriptors: &mut Descriptors) -> Step {
        match (&*self, request) {
            (Self::None, TransactionRequest::Begin(begin)) => {
                let mut tokens = BytesMut::new();
                self.begin(begin.clone(), descriptors, &mut tokens);
                done(&mut tokens, BEGIN);
                Step::Answer(tokens)
            }
            (Self::Virtual { client, .. }, TransactionRequest::Commit { begin, .. }) => {
                let ended = EnvChange::CommitTransaction(*client);
                self.end(&ended, COMMIT, begin.clone(), descriptors)
            }
            (Self::Virtual { client, .. }, TransactionRequest::Rollback { name, begin })
                if name.is_empty() =>
            {
                let ended = EnvChange::RollbackTransaction(*client);
                self.end(&ended, ROLLBACK, begin.clone(), descriptors)
            }
            (Self::Open { .. }, TransactionRequest::Commit { name, begin: Some(begin) }) => {
                let instead = TransactionRequest::Commit { name: name.clone(), begin: None };
                Step::EndAndBegin { instead, begin: begin.clone() }
            }
            (Self::Open { .. }, TransactionRequest::Rollback { name, begin: Some(begin) })
                if name.is_empty() =>
            {
                let instead = TransactionRequest::Rollback { name: String::new(), begin: None };
                Step::EndAndBegin { instead, begin: begin.clone() }
            }
            _ => Step::Forward,
        }
    }

    /// A batch that is BEGIN TRANSACTION and nothing else.
    pub(crate) fn begin_by_text(&mut self, descriptors: &mut Descriptors) -> Option<BytesMut> {
        if *self != Self::None {
            return None;
        }
        let mut tokens = BytesMut::new();
        self.begin(BeginTransaction::default(), descriptors, &mut tokens);
        done(&mut tokens, BEGIN);
        Some(tokens)
    }

    /// A batch that is COMMIT or ROLLBACK and nothing else, in a transaction that no server knows.
    pub(crate) fn end_by_text(&mut self, commit: bool, descriptors: &mut Descriptors) -> Option<BytesMut> {
        let Self::Virtual { client, .. } = *self else { return None };
        let (ended, command) = if commit {
            (EnvChange::CommitTransaction(client), COMMIT)
        } else {
            (EnvChange::RollbackTransaction(client), ROLLBACK)
        };
        match self.end(&ended, command, None, descriptors) {
            Step::Answer(tokens) => Some(tokens),
            _ => None,
        }
    }

    /// The transaction ended on the server; the next one begins virtually. Writes what tells the client so.
    pub(crate) fn begin(
        &mut self,
        begin: BeginTransaction,
        descriptors: &mut Descriptors,
        tokens: &mut BytesMut,
    ) {
        let client = descriptors.next();
        EnvChange::BeginTransaction(client).write(tokens);
        *self = Self::Virtual { client, begin };
    }

    fn end(
        &mut self,
        ended: &EnvChange,
        command: u16,
        begin: Option<BeginTransaction>,
        descriptors: &mut Descriptors,
    ) -> Step {
        let mut tokens = BytesMut::new();
        ended.write(&mut tokens);
        *self = Self::None;
        if let Some(begin) = begin {
            self.begin(begin, descriptors, &mut tokens);
        }
        done(&mut tokens, command);
        Step::Answer(tokens)
    }

    /// The server began what was virtual.
    pub(crate) fn began(&mut self, server: u64) {
        if let Self::Virtual { client, .. } = *self {
            *self = Self::Open { client, server };
        }
    }

    /// The server says that a transaction began or was joined.
    pub(crate) fn opened(&mut self, server: u64) {
        *self = Self::Open { client: server, server };
    }

    /// What tells the client that it was rolled back.
    pub(crate) fn rolled_back(&self) -> BytesMut {
        let mut tokens = BytesMut::new();
        if let Self::Open { client, .. } | Self::Virtual { client, .. } = self {
            EnvChange::RollbackTransaction(*client).write(&mut tokens);
        }
        tokens
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// The headers of a request in it, as the client would send them.
    pub(crate) fn client_headers(&self) -> AllHeaders {
        AllHeaders::in_transaction(match self {
            Self::None => 0,
            Self::Virtual { client, .. } | Self::Open { client, .. } => *client,
        })
    }

    /// The same, as the server wants them.
    pub(crate) fn server_headers(&self) -> AllHeaders {
        AllHeaders::in_transaction(match self {
            Self::Open { server, .. } => *server,
            Self::None | Self::Virtual { .. } => 0,
        })
    }

    /// The descriptor that the server knows for what the client calls this.
    pub(crate) fn to_server(&self, descriptor: u64) -> u64 {
        match self {
            Self::Open { client, server, .. } if *client == descriptor => *server,
            // Not even begun, or over: the server must not see a number of ours.
            _ if descriptor >> 32 == OURS >> 32 => 0,
            _ => descriptor,
        }
    }

    /// What the client calls the transaction that the server calls this.
    pub(crate) fn to_client(&self, descriptor: u64) -> u64 {
        match self {
            Self::Open { client, server, .. } if *server == descriptor => *client,
            _ => descriptor,
        }
    }

    /// The isolation level that the session has from a virtual beginning on, as T-SQL says it.
    pub(crate) fn isolation(begin: &BeginTransaction) -> Option<&'static str> {
        match begin.isolation {
            IsolationLevel::READ_UNCOMMITTED => Some("read uncommitted"),
            IsolationLevel::READ_COMMITTED => Some("read committed"),
            IsolationLevel::REPEATABLE_READ => Some("repeatable read"),
            IsolationLevel::SERIALIZABLE => Some("serializable"),
            IsolationLevel::SNAPSHOT => Some("snapshot"),
            _ => None,
        }
    }
}

/// How the transaction begins that a request begins.
pub(crate) fn begins(request: &TransactionRequest) -> Option<&BeginTransaction> {
    match request {
        TransactionRequest::Begin(begin) => Some(begin),
        TransactionRequest::Commit { begin, .. } | TransactionRequest::Rollback { begin, .. } => {
            begin.as_ref()
        }
        _ => None,
    }
}

fn done(tokens: &mut BytesMut, command: u16) {
    // Transactions are virtual from TDS 7.2 on only: before, there are no descriptors.
    let version = TdsVersion::V7_4;
    Done { kind: DoneKind::Done, status: DoneStatus::FINAL, current_command: command, rows: 0 }
        .write(tokens, version);
}

/// What a batch is that says nothing but one word or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    Begin,
    Commit,
    Rollback,
}

impl Alone {
    /// Reads UTF-16LE text: BEGIN, COMMIT or ROLLBACK, perhaps TRAN, TRANSACTION or WORK, perhaps a semicolon.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        /// The longest that can be one, in characters, with some white space.
        const LONGEST: usize = 48;
        if text.len() > 2 * LONGEST || !text.len().is_multiple_of(2) {
            return None;
        }
        let mut ascii = [0u8; LONGEST];
        for (to, from) in ascii.iter_mut().zip(text.chunks_exact(2)) {
            if from[1] != 0 || !from[0].is_ascii() {
                return None;
            }
            *to = from[0].to_ascii_lowercase();
        }
        let words = std::str::from_utf8(&ascii[..text.len() / 2]).ok()?;
        let words = words.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == ';');
        let mut words = words.split_ascii_whitespace();
        let (first, second) = (words.next()?, words.next());
        if words.next().is_some() {
            return None;
        }
        match (first, second) {
            ("begin", Some("tran" | "transaction")) => Some(Self::Begin),
            ("commit", None | Some("tran" | "transaction" | "work")) => Some(Self::Commit),
            ("rollback", None | Some("tran" | "transaction" | "work")) => Some(Self::Rollback),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> BeginTransaction {
        BeginTransaction::default()
    }

    fn commit(next: bool) -> TransactionRequest {
        TransactionRequest::Commit { name: String::new(), begin: next.then(begin) }
    }

    fn answered(step: Step) -> BytesMut {
        let Step::Answer(tokens) = step else { panic!("not answered here: {step:?}") };
        tokens
    }

    #[test]
    fn a_transaction_that_nobody_uses_is_never_seen_by_a_server() {
        let (mut transaction, mut descriptors) = (Transaction::None, Descriptors::default());
        answered(transaction.step(&TransactionRequest::Begin(begin()), &mut descriptors));
        let Transaction::Virtual { client: first, .. } = transaction else { panic!("{transaction:?}") };
        let tokens = answered(transaction.step(&commit(true), &mut descriptors));
        let Transaction::Virtual { client: second, .. } = transaction else { panic!("{transaction:?}") };
        assert_ne!(first, second);
        let mut expected = BytesMut::new();
        EnvChange::CommitTransaction(first).write(&mut expected);
        EnvChange::BeginTransaction(second).write(&mut expected);
        done(&mut expected, COMMIT);
        assert_eq!(tokens, expected);
        answered(transaction.step(&commit(false), &mut descriptors));
        assert_eq!(transaction, Transaction::None);
    }

    #[test]
    fn descriptors_are_translated_while_it_is_open_and_hidden_otherwise() {
        let (mut transaction, mut descriptors) = (Transaction::None, Descriptors::default());
        answered(transaction.step(&TransactionRequest::Begin(begin()), &mut descriptors));
        let Transaction::Virtual { client, .. } = transaction else { panic!("{transaction:?}") };
        assert_eq!(transaction.to_server(client), 0);
        transaction.began(0x1234);
        assert_eq!((transaction.to_server(client), transaction.to_client(0x1234)), (0x1234, client));
        assert_eq!(transaction.to_server(0), 0);
        transaction = Transaction::None;
        assert_eq!(transaction.to_server(client), 0);
    }

    #[test]
    fn commit_and_begin_again_is_split_and_a_savepoint_is_not() {
        let mut descriptors = Descriptors::default();
        let mut transaction = Transaction::None;
        transaction.opened(7);
        let step = transaction.step(&commit(true), &mut descriptors);
        assert_eq!(step, Step::EndAndBegin { instead: commit(false), begin: begin() });
        let rollback =
            |name: &str| TransactionRequest::Rollback { name: name.to_owned(), begin: Some(begin()) };
        assert!(matches!(transaction.step(&rollback(""), &mut descriptors), Step::EndAndBegin { .. }));
        assert_eq!(transaction.step(&rollback("savepoint"), &mut descriptors), Step::Forward);
        assert_eq!(transaction.step(&commit(false), &mut descriptors), Step::Forward);
    }

    #[test]
    fn a_batch_that_says_nothing_else_is_recognised() {
        let table = [
            ("BEGIN TRAN", Some(Alone::Begin)),
            (" begin\ttransaction ; ", Some(Alone::Begin)),
            ("COMMIT", Some(Alone::Commit)),
            ("commit tran", Some(Alone::Commit)),
            ("ROLLBACK WORK;", Some(Alone::Rollback)),
            ("BEGIN", None),
            ("BEGIN TRAN t1", None),
            ("BEGIN TRAN SELECT 1", None),
            ("ROLLBACK savepoint", None),
            ("COMMIT -- x", None),
            ("", None),
            ("BEGIN TRÄN", None),
        ];
        for (text, expected) in table {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(Alone::read(&utf16), expected, "{text}");
        }
    }
}
