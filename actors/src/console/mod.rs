//! The SQL console: an operator who logs in to the console's database with any SQL client gives the commands as SQL
//! text and gets the answers as result sets. It needs no bucket and no server.

mod answer;
mod statement;

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tds::Dialect;
use tds::env_change::EnvChange;
use tds::handshake::LoginRequest;
use tds::login_response::{LoginAck, LoginResponse};
use tds::login7::AuthKind;
use tds::message::{Message, MessageReader, write_message};
use tds::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, MAX_PACKET_SIZE, PacketType, Status};
use tds::request::{SqlBatch, TransactionRequest};
use tds::rpc::{ProcId, Procedure, RpcRequest};
use tds::server_message::ServerMessage;
use tds::type_info::Collation;
use tracing::{debug, info};

use crate::admin::{Role, Source, carry_out};
use crate::error::{Answer, SERVER_NAME, SessionError};
use crate::session::client_conn::{ClientConn, ClientIo, Wish};
use crate::session::context::SessionContext;
use crate::wire::Link;
use answer::Tokens;
use statement::Statement;

/// The longest message of an operator's, in bytes: commands are short.
const MAX_MESSAGE: usize = 256 * 1024;

/// The handle of whatever a client prepares: the text comes again with each execution, or not at all.
const HANDLE: i32 = 1;

/// What LOGINACK says. Drivers choose by the version what they may use, and the console needs none of it.
const VERSION: [u8; 4] = [16, 0, 0x0F, 0xA0];

/// How the console's session ended before it began.
pub(crate) enum Refused {
    /// The operator is told.
    Told(SessionError),
    /// The password or the name was wrong.
    Unknown,
    /// The connection broke.
    Gone,
}

/// Logs an operator in and serves it until it leaves.
pub(crate) async fn serve(
    conn: &ClientConn,
    context: &SessionContext,
    io: &mut ClientIo,
    request: Box<LoginRequest>,
) -> Result<(), Refused> {
    let login = &request.login;
    if request.mars || login.auth_kind() != AuthKind::Sql || login.changes_password() {
        return Err(Refused::Told(SessionError::ConsoleLogin));
    }
    let role = Role::of_user(&context.config.admin, &login.user_name);
    // The password is looked at in any case: the time does not tell who is an operator.
    let known = context.users.verify(&login.user_name, login.password.as_utf16le()).await;
    let Some(role) = role.filter(|_| known) else { return Err(Refused::Unknown) };
    let Some(source) = context.console.upgrade() else { return Err(Refused::Gone) };
    info!(session = %conn.id, peer = %conn.peer, user = login.user_name, ?role, "an operator at the console");
    let database = context.config.admin.database.clone();
    let mut out = BytesMut::new();
    login_response(login.tds_version, &database).replay(&mut out, 0, DEFAULT_PACKET_SIZE, &[]);
    io.link.queue(&out);
    if io.link.flush().await.is_err() {
        return Err(Refused::Gone);
    }
    let dialect = Dialect::of(login.tds_version);
    let console = Console { source, role, user: login.user_name.clone(), database, dialect };
    console.answer_all(conn, &mut io.link).await;
    Ok(())
}

fn login_response(version: tds::TdsVersion, database: &str) -> LoginResponse {
    let ack = LoginAck {
        interface: 1,
        tds_version: version,
        program_name: "Microsoft SQL Server".to_owned(),
        program_version: VERSION,
    };
    let mut response = LoginResponse::new(ack, database, "us_english");
    response.collation = Some(Collation::LATIN1.0);
    let greeting = "tdsbouncer: the console. SHOW HELP lists the commands.";
    response.messages = vec![ServerMessage::info(5701, greeting, SERVER_NAME)];
    response.build()
}

struct Console {
    source: Arc<dyn Source>,
    role: Role,
    user: String,
    database: String,
    dialect: Dialect,
}

impl Console {
    async fn answer_all(&self, conn: &ClientConn, link: &mut Link) {
        let mut reader = MessageReader::new(MAX_PACKET_SIZE, MAX_MESSAGE);
        loop {
            let message = tokio::select! {
                message = next_message(&mut reader, link) => message,
                () = conn.control.wanted(Wish::Drain) => {
                    let mut tokens = Tokens::new(self.dialect);
                    tokens.errors(&SessionError::Killed.messages());
                    link.queue(&packets(&tokens.finish()));
                    return link.say_last_words(std::time::Duration::from_secs(1)).await;
                }
            };
            let Some(message) = message else { return };
            let answer = self.answer(&message).await;
            link.queue(&packets(&answer));
            if let Err(why) = link.flush().await {
                debug!(session = %conn.id, %why, "the operator left");
                return;
            }
        }
    }

    async fn answer(&self, message: &Message) -> BytesMut {
        let mut tokens = Tokens::new(self.dialect);
        match message.kind {
            PacketType::SQL_BATCH => match SqlBatch::read(&message.payload, self.dialect) {
                Ok(batch) => self.run(&batch.text, &mut tokens).await,
                Err(why) => tokens.error(102, 15, &why.to_string()),
            },
            PacketType::RPC => self.call(&message.payload, &mut tokens).await,
            PacketType::TRANSACTION_MANAGER => self.transaction(&message.payload, &mut tokens),
            PacketType::ATTENTION => tokens.attention(),
            kind => tokens.error(102, 15, &format!("the console does not take a {}", kind.name())),
        }
        tokens.finish()
    }

    /// Drivers wrap texts into procedures.
    async fn call(&self, payload: &[u8], tokens: &mut Tokens) {
        let request = match RpcRequest::read(payload, self.dialect) {
            Ok(request) => request,
            Err(why) => return tokens.error(102, 15, &why.to_string()),
        };
        tokens.in_procedure();
        for call in &request.calls {
            let text =
                |place: usize| call.parameters.get(place).and_then(|one| one.value.as_str()).unwrap_or("");
            match &call.procedure {
                Procedure::Id(ProcId::EXECUTE_SQL) => self.run(text(0), tokens).await,
                Procedure::Id(ProcId::PREP_EXEC) => {
                    self.run(text(2), tokens).await;
                    tokens.handle(HANDLE);
                }
                Procedure::Id(ProcId::UNPREPARE) => {}
                Procedure::Name(name) if name.to_lowercase().contains("sp_datatype_info") => {}
                _ => tokens.error(2812, 16, "the console runs commands only (SHOW HELP lists them)"),
            }
        }
    }

    /// Drivers without autocommit begin a transaction around everything; here it means nothing.
    fn transaction(&self, payload: &[u8], tokens: &mut Tokens) {
        let Ok((_, request)) = TransactionRequest::read(payload, self.dialect) else {
            return tokens.error(102, 15, "a transaction request that cannot be read");
        };
        match request {
            TransactionRequest::Begin(_) => tokens.change(&EnvChange::BeginTransaction(1)),
            TransactionRequest::Commit { begin, .. } => {
                tokens.change(&EnvChange::CommitTransaction(1));
                if begin.is_some() {
                    tokens.change(&EnvChange::BeginTransaction(1));
                }
            }
            TransactionRequest::Rollback { begin, .. } => {
                tokens.change(&EnvChange::RollbackTransaction(1));
                if begin.is_some() {
                    tokens.change(&EnvChange::BeginTransaction(1));
                }
            }
            _ => {}
        }
    }

    async fn run(&self, text: &str, tokens: &mut Tokens) {
        for statement in statement::read(text) {
            match statement {
                Statement::Nothing => tokens.done(),
                Statement::Select(what) => match what.value(&self.user, &self.database) {
                    Some(value) => tokens.value(value),
                    None => tokens.error(
                        102,
                        15,
                        "the console selects constants only (SHOW HELP lists the commands)",
                    ),
                },
                Statement::Command(Ok(command)) => match carry_out(command, self.role, &*self.source).await {
                    Ok(table) => tokens.table(&table),
                    Err(refusal) => {
                        let number = if refusal.is_permission() { 229 } else { 50_000 };
                        tokens.error(number, 14, &refusal.to_string());
                    }
                },
                Statement::Command(Err(why)) => tokens.error(102, 15, &why.to_string()),
            }
        }
    }
}

/// None: the operator left, or sent what is no message.
async fn next_message(reader: &mut MessageReader, link: &mut Link) -> Option<Message> {
    loop {
        match reader.read(&mut link.input) {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(why) => {
                debug!(%why, "at the console");
                return None;
            }
        }
        if !matches!(link.fill(4096).await, Ok(1..)) {
            return None;
        }
    }
}

fn packets(tokens: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(tokens.len() + HEADER_LEN);
    write_message(&mut out, PacketType::RESPONSE, Status::NORMAL, 0, DEFAULT_PACKET_SIZE, tokens);
    debug_assert!(out.has_remaining(), "a response is never empty");
    out
}
