//! Plays a script at one address and writes down what was answered, with the server's own numbers for transactions and
//! handles replaced by the order in which they came.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use tds::done::{Done, DoneStatus};
use tds::env_change::EnvChange;
use tds::packet::{PacketType, Status};
use tds::server_message::ServerMessage;
use tds::value::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::line::Line;
use super::random::Random;
use super::request::{Ask, Slot};
use super::script::{Deed, Reset, Script, Step};
use super::token::{self, Token};

/// What came of one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Whole messages, token by token.
    Said(Vec<Vec<Token>>),
    /// Left, and logged in again: the new login's database and language.
    Joined(String, String),
    /// The connection ended, with these messages before.
    Closed(Vec<Vec<Token>>),
}

/// A handle as the server numbers it. An ended one may still be tried.
struct Handle {
    number: i32,
    live: bool,
}

/// A handle that no server gives.
const NO_HANDLE: i32 = 7_000_000;

/// An error that names a handle.
const NO_SUCH_HANDLE: i32 = 8179;

pub struct Player<'a> {
    script: &'a Script,
    address: SocketAddr,
    random: Random,
    line: Option<Line>,
    /// The open transaction, as ALL_HEADERS wants it.
    transaction: u64,
    handles: HashMap<Slot, Handle>,
    /// Descriptors by their first appearance.
    transactions: Vec<u64>,
    /// Whether the server may say SESSIONSTATE.
    recovery: bool,
}

impl<'a> Player<'a> {
    pub fn new(script: &'a Script, address: SocketAddr) -> Self {
        Self {
            script,
            address,
            random: Random::new(script.seed),
            line: None,
            transaction: 0,
            handles: HashMap::new(),
            transactions: Vec::new(),
            recovery: false,
        }
    }

    /// Plays all steps and tells what came of each, or of what failed.
    pub async fn play(mut self, tell: UnboundedSender<Result<Told, String>>) {
        if let Err(error) = self.join().await {
            let _nobody_compares = tell.send(Err(error.to_string()));
            return;
        }
        for step in &self.script.steps {
            let told = self.step(step).await.map_err(|error| error.to_string());
            let failed = told.is_err();
            if tell.send(told).is_err() || failed {
                return;
            }
        }
    }

    async fn join(&mut self) -> io::Result<Told> {
        let profile = self.script.profile;
        let login = profile.login(self.script.client, &self.script.application, &mut self.random);
        let mut tries = 0;
        let line = loop {
            match Line::connect(self.address, &login, profile.without_prelogin).await {
                Ok(line) => break line,
                // A burst of connections may overrun a listener's backlog.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && tries < 3 => tries += 1,
                Err(error) => return Err(error),
            }
        };
        self.recovery = line.login.features.iter().any(|f| f.id == tds::feature::FeatureId::SESSION_RECOVERY);
        let joined = Told::Joined(line.login.database.clone(), line.login.language.clone());
        self.line = Some(line);
        self.transaction = 0;
        self.handles.clear();
        self.transactions.clear();
        Ok(joined)
    }

    async fn step(&mut self, step: &Step) -> io::Result<Told> {
        if let Deed::Leave(during) = &step.deed {
            if let (Some((ask, wait)), Some(_)) = (during, &self.line) {
                self.send(ask, Reset::No).await.or_else(broken)?;
                tokio::time::sleep(*wait).await;
            }
            self.line = None;
            return self.join().await;
        }
        if self.line.is_none() {
            return Ok(Told::Closed(Vec::new()));
        }
        let mut messages = Vec::new();
        match self.converse(&step.deed, &mut messages).await {
            Ok(()) => Ok(Told::Said(messages)),
            Err(error) if is_end(&error) => {
                self.line = None;
                Ok(Told::Closed(messages))
            }
            Err(error) => Err(error),
        }
    }

    async fn converse(&mut self, deed: &Deed, messages: &mut Vec<Vec<Token>>) -> io::Result<()> {
        match deed {
            Deed::Ask(ask, reset) => {
                if *reset != Reset::No {
                    self.handles.values_mut().for_each(|handle| handle.live = false);
                }
                self.send(ask, *reset).await?;
                messages.push(self.receive(ask.yields()).await?);
            }
            Deed::Stop(ask, wait) => {
                self.send(ask, Reset::No).await?;
                if !wait.is_zero() {
                    tokio::time::sleep(*wait).await;
                }
                self.attention().await?;
                self.until_acknowledged(messages).await?;
            }
            Deed::StopNothing => {
                self.attention().await?;
                self.until_acknowledged(messages).await?;
            }
            Deed::Withdraw(ask) => {
                let payload = self.payload(ask, self.transaction);
                let line = self.line()?;
                line.send_withdrawn(ask.kind(), &payload).await?;
                messages.push(self.receive(None).await?);
            }
            Deed::Leave(_) => {}
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<&mut Line> {
        self.line.as_mut().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn payload(&self, ask: &Ask, transaction: u64) -> bytes::BytesMut {
        let handle = |slot: Slot| {
            let unknown = NO_HANDLE + i32::try_from(slot).unwrap_or(0);
            match self.handles.get(&slot) {
                Some(handle) if handle.live || !self.is_live(handle.number) => handle.number,
                // A server may use an ended handle's number again.
                _ => unknown,
            }
        };
        let dialect = self.line.as_ref().map_or(self.script.profile.version.into(), |line| line.dialect);
        ask.payload(dialect, transaction, handle)
    }

    fn is_live(&self, number: i32) -> bool {
        self.handles.values().any(|handle| handle.live && handle.number == number)
    }

    async fn send(&mut self, ask: &Ask, reset: Reset) -> io::Result<()> {
        // A client that resets has forgotten its transaction.
        let transaction = if reset == Reset::Yes { 0 } else { self.transaction };
        let payload = self.payload(ask, transaction);
        for slot in ask.ends() {
            if let Some(handle) = self.handles.get_mut(&slot) {
                handle.live = false;
            }
        }
        // Whether it is gone when the call fails is not documented.
        for slot in ask.replaces() {
            self.handles.remove(&slot);
        }
        self.line()?.send(ask.kind(), reset.status(), &payload).await
    }

    async fn attention(&mut self) -> io::Result<()> {
        self.line()?.send(PacketType::ATTENTION, Status::NORMAL, &[]).await
    }

    async fn until_acknowledged(&mut self, messages: &mut Vec<Vec<Token>>) -> io::Result<()> {
        loop {
            let message = self.receive(None).await?;
            let acknowledged = message.iter().any(is_acknowledgement);
            messages.push(message);
            if acknowledged {
                return Ok(());
            }
        }
    }

    async fn receive(&mut self, yields: Option<Slot>) -> io::Result<Vec<Token>> {
        let line = self.line()?;
        let payload = line.receive().await?;
        let tokens = token::read(&payload, line.dialect);
        let mut wanted = yields;
        let mut told = Vec::with_capacity(tokens.len());
        for token in tokens {
            if let Token::State(_) = token {
                // What a client gets that did not ask, or was told no, is an error in itself.
                if !self.recovery {
                    told.push(token);
                }
                continue;
            }
            told.push(self.anonymous(token, &mut wanted));
        }
        Ok(told)
    }

    fn anonymous(&mut self, token: Token, wanted: &mut Option<Slot>) -> Token {
        match token {
            Token::Env(change) => Token::Env(self.change(change)),
            Token::Value(mut value) => {
                if let (Some(slot), 0, Value::Int(handle)) = (*wanted, value.ordinal, &value.value) {
                    *wanted = None;
                    value.value = Value::Int(self.learn(slot, *handle));
                }
                Token::Value(value)
            }
            // Which statement a DONE without a count is of depends on NOCOUNT, and has no meaning ([MS-TDS] 2.2.7.6).
            Token::Done(done) if !done.status.contains(DoneStatus::COUNT) => {
                Token::Done(Done { current_command: 0, ..done })
            }
            Token::Message(message) if message.number == NO_SUCH_HANDLE => {
                let text: String = message.text.chars().filter(|c| !c.is_ascii_digit()).collect();
                Token::Message(ServerMessage { text, ..message })
            }
            other => other,
        }
    }

    fn change(&mut self, change: EnvChange) -> EnvChange {
        match change {
            EnvChange::BeginTransaction(descriptor) => {
                self.transaction = descriptor;
                EnvChange::BeginTransaction(self.known_transaction(descriptor))
            }
            EnvChange::CommitTransaction(descriptor) => {
                self.transaction = 0;
                EnvChange::CommitTransaction(self.known_transaction(descriptor))
            }
            EnvChange::RollbackTransaction(descriptor) => {
                self.transaction = 0;
                EnvChange::RollbackTransaction(self.known_transaction(descriptor))
            }
            EnvChange::TransactionEnded(descriptor) => {
                self.transaction = 0;
                EnvChange::TransactionEnded(self.known_transaction(descriptor))
            }
            other => other,
        }
    }

    fn known_transaction(&mut self, descriptor: u64) -> u64 {
        place(&mut self.transactions, descriptor) as u64
    }

    /// Takes a new handle; how many others that still live have the same number.
    fn learn(&mut self, slot: Slot, number: i32) -> i32 {
        let same =
            |(known, handle): (&Slot, &Handle)| *known != slot && handle.live && handle.number == number;
        let namesakes = self.handles.iter().filter(|entry| same(*entry)).count();
        self.handles.insert(slot, Handle { number, live: true });
        i32::try_from(namesakes).unwrap_or(i32::MAX)
    }
}

/// Where the number stands among those seen, from the end so that a server may use a number again.
fn place<T: PartialEq>(seen: &mut Vec<T>, number: T) -> usize {
    match seen.iter().rposition(|known| *known == number) {
        Some(at) => at,
        None => {
            seen.push(number);
            seen.len() - 1
        }
    }
}

pub fn is_acknowledgement(token: &Token) -> bool {
    matches!(token, Token::Done(done) if done.status.contains(DoneStatus::ATTENTION))
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn broken(error: io::Error) -> io::Result<()> {
    if is_end(&error) { Ok(()) } else { Err(error) }
}
