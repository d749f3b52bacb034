//! What a logged-in connection does with each message: which requests run, what a reset, an attention or a fault makes
//! of them, and how the response ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tds::Malformed;
use tds::done::DoneStatus;
use tds::message::Message;
use tds::packet::{PacketType, Status};

use crate::bulk::BulkRows;
use crate::connection::{After, End};
use crate::ending::{Acknowledgement, end};
use crate::engine::{Cancel, Outcome, Session};
use crate::execute::{read, reset_session, run, wrong_transaction};
use crate::fault::{Fault, Faults};
use crate::login::LoggedIn;
use crate::options::ServerKind;
use crate::refusal;
use crate::registry::{Entry, Seat, count};
use crate::response::{AfterCut, Cut, Format, Harm, Response, StateHarm};
use crate::server::Shared;
use crate::watcher::Watcher;
use crate::wire::{SharedWire, lock};

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    wire: SharedWire,
    seat: Seat,
    shared: Arc<Shared>,
    session: Session,
    watcher: Arc<Watcher>,
    format: Format,
    state_sequence: u32,
    /// Faults that this connection armed for itself.
    faults: Option<Box<Faults>>,
}

impl Conversation {
    pub(crate) fn new(wire: &SharedWire, seat: Seat, shared: &Arc<Shared>, login: LoggedIn) -> Self {
        Self {
            wire: wire.clone(),
            watcher: Watcher::new(wire.clone(), seat.entry.clone()),
            seat,
            shared: shared.clone(),
            session: login.session,
            format: login.format,
            state_sequence: 0,
            faults: None,
        }
    }

    pub(crate) fn entry(&self) -> Arc<Entry> {
        self.seat.entry.clone()
    }

    /// Whether the session's end may have to wait for other sessions.
    pub(crate) fn ends_slowly(&self) -> bool {
        self.session.ends_slowly()
    }

    /// The first armed fault that `pick` wants, of this connection or of the whole server.
    fn strike<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.faults
            .as_ref()
            .and_then(|faults| faults.strike(&pick))
            .or_else(|| self.shared.faults.strike(&pick))
    }

    fn strikes(&self, fault: &Fault) -> bool {
        self.strike(|armed| (armed == fault).then_some(())).is_some()
    }

    /// True if a fault closes the idle connection now.
    pub(crate) fn faults_when_idle(&self) -> bool {
        self.strikes(&Fault::DropWhenIdle)
    }

    fn babelfish(&self) -> bool {
        self.shared.options.kind == ServerKind::Babelfish
    }

    /// What faults and the imitated product do to the next response.
    fn harm(&self, kind: PacketType) -> Harm {
        let cut = self.strike(|fault| match fault {
            Fault::DropInResponse { after } => Some(Cut { after: *after, then: AfterCut::Close }),
            Fault::HangInResponse { after } => Some(Cut { after: *after, then: AfterCut::Silence }),
            Fault::GarbageInResponse { after } => Some(Cut { after: *after, then: AfterCut::Garbage }),
            _ => None,
        });
        let babelfish_text = self.babelfish() && kind != PacketType::TRANSACTION_MANAGER;
        Harm {
            cut,
            packet_delay: self.strike(|fault| match fault {
                Fault::SlowPackets { delay } => Some(*delay),
                _ => None,
            }),
            pace: self.strike(|fault| match fault {
                Fault::SlowBytes { per_second } => Some(*per_second),
                _ => None,
            }),
            hide_transactions: babelfish_text
                || self.strikes(&Fault::NoTransactionEnvChange)
                || (self.session.begins_implicitly() && self.strikes(&Fault::NoImplicitEnvChange)),
            hide_error_rollbacks: self.strikes(&Fault::NoErrorRollbackEnvChange),
            signal_inner_ends: self
                .session
                .transaction()
                .filter(|_| self.babelfish() && !babelfish_text || self.strikes(&Fault::InnerEndsSignalled)),
            session_state: if self.strikes(&Fault::NoSessionState) {
                StateHarm::Silent
            } else if self.strikes(&Fault::EverythingRecoverable) {
                StateHarm::Recoverable
            } else {
                StateHarm::None
            },
            long_rows: false,
        }
    }

    /// Answers a whole message. The output is still to be flushed.
    pub(crate) fn answer(&mut self, message: Message) -> Result<After, End> {
        match message.kind {
            PacketType::ATTENTION => self.late_attention(),
            // Babelfish executes what it has of it.
            _ if message.ignored && !self.babelfish() && !self.strikes(&Fault::WithdrawnIsRun) => {
                self.withdrawn()
            }
            PacketType::SQL_BATCH | PacketType::RPC | PacketType::TRANSACTION_MANAGER => {
                self.request(message)
            }
            kind => Err(Malformed::Unexpected { what: kind.name(), state: "logged in" }.into()),
        }
    }

    /// An attention that came when nothing ran is acknowledged all the same ([MS-TDS] 3.3.5.9).
    fn late_attention(&mut self) -> Result<After, End> {
        count(&self.seat.counters().attentions);
        if self.strikes(&Fault::AttentionIgnored) || self.strikes(&Fault::LateAttentionIgnored) {
            return Ok(After::Continue);
        }
        if self.strikes(&Fault::AttentionTwice) {
            self.say(|response| response.acknowledge_attention())?;
        }
        self.say(|response| response.acknowledge_attention())
    }

    /// A request that its client broke off ([MS-TDS] 2.2.1.7).
    fn withdrawn(&mut self) -> Result<After, End> {
        count(&self.seat.counters().ignored);
        self.say(|response| response.plain_done(DoneStatus::ERROR, 0))
    }

    /// A response that needs no engine.
    fn say(&mut self, tell: impl FnOnce(&mut Response<'_>)) -> Result<After, End> {
        let mut response =
            Response::new(&self.wire, &self.watcher, self.format, Harm::default(), &mut self.state_sequence);
        tell(&mut response);
        response.finish()?;
        Ok(After::Continue)
    }

    fn begin(&self, blind: bool) -> Cancel {
        self.watcher.begin(blind);
        count(&self.seat.counters().requests);
        self.seat.entry.requests.fetch_add(1, Ordering::Relaxed);
        self.seat.entry.running(true);
        Cancel::watched(self.watcher.clone())
    }

    fn request(&mut self, message: Message) -> Result<After, End> {
        if self.strikes(&Fault::HangOnRequest) {
            return Ok(After::Silence);
        }
        let before = self.seat.entry.requests.load(Ordering::Relaxed);
        let broken = self.strike(|fault| match fault {
            Fault::HangAfterRequests { requests } if before >= *requests => Some(After::Silence),
            Fault::DropAfterRequests { requests } if before >= *requests => Some(After::Drop),
            _ => None,
        });
        if let Some(after) = broken {
            return Ok(after);
        }
        if self.strikes(&Fault::DropOnRequest) {
            return Ok(After::Drop);
        }
        let kind = message.kind;
        let cancel = self.begin(self.babelfish() || self.strikes(&Fault::AttentionLate));
        let mut harm = self.harm(kind);
        let reset = message.status.asks_for_reset().then_some(message.status);
        let reset_fault = reset.and_then(|_| self.reset_fault());
        let refusal = self.strike(|fault| match fault {
            Fault::ErrorOnRequest { number, class } => Some((*number, *class)),
            _ => None,
        });
        let read = read(&message, self.format, self.babelfish());
        drop(message);
        harm.long_rows = matches!(&read, Ok((_, request)) if request.fetches())
            && (self.babelfish() || self.strikes(&Fault::CursorRowsTooLong));
        if self.strikes(&Fault::RequestLosesInput) {
            lock(&self.wire).input.clear();
        }
        let skip_refused = self.babelfish()
            || reset.is_some_and(|status| status.contains(Status::RESET_CONNECTION_SKIP_TRAN))
                && self.strikes(&Fault::SkipTransactionRefused);
        let loses_input = self.babelfish() || reset.is_some() && self.strikes(&Fault::ResetLosesInput);
        let shared = self.shared.clone();
        let options = &shared.options;
        let mut response =
            Response::new(&self.wire, &self.watcher, self.format, harm, &mut self.state_sequence);
        if let Some(status) = reset {
            if reset_fault == Some(Fault::ResetFails) || self.session.has_application_role() {
                response.refuse(&refusal::reset_failed(options));
                response.finish()?;
                return Ok(After::Close);
            }
            if skip_refused && status.contains(Status::RESET_CONNECTION_SKIP_TRAN) {
                let text = "RESETCONNECTIONSKIPTRAN is not supported";
                response.refuse(&refusal::protocol_error(options, text));
                response.finish()?;
                return Ok(self.settle(After::Continue));
            }
            count(&self.seat.counters().resets);
            self.seat.entry.resets.fetch_add(1, Ordering::Relaxed);
            reset_session(&mut self.session, &mut response, status, reset_fault, options.kind, &cancel);
            if loses_input {
                // What came together with a resetting request is lost there.
                lock(&self.wire).input.clear();
            }
        }
        if let Some((number, class)) = refusal {
            response.refuse(&refusal::on_demand(options, number, class));
            response.finish()?;
            return Ok(self.settle(if class >= 20 { After::Close } else { After::Continue }));
        }
        let outcome = match read {
            Ok((headers, request)) => match wrong_transaction(&shared, &self.session, headers.as_ref()) {
                None => run(&mut self.session, request, &mut response, &cancel, &shared, &mut self.faults)?,
                Some(refusal) => {
                    response.refuse(&refusal);
                    Outcome::Finished
                }
            },
            Err(malformed) => {
                let told = match kind {
                    PacketType::RPC => refusal::rpc_protocol_error(options, &malformed.to_string()),
                    _ => refusal::protocol_error(options, &malformed.to_string()),
                };
                response.refuse(&told);
                response.finish()?;
                count(&self.seat.counters().protocol_errors);
                return Ok(After::Close);
            }
        };
        let own = self.faults.as_deref();
        let after =
            end(response, outcome, &self.watcher, &shared, || Acknowledgement::by(own, &shared.faults))?;
        Ok(self.settle(after))
    }

    /// The rows of a bulk load ([MS-TDS] 2.2.6.1), read as they come.
    pub(crate) fn bulk_load(&mut self) -> Result<After, End> {
        let cancel = self.begin(false);
        let harm = self.harm(PacketType::BULK_LOAD);
        let shared = self.shared.clone();
        let mut response =
            Response::new(&self.wire, &self.watcher, self.format, harm, &mut self.state_sequence);
        let wanted = self.session.bulk_target().is_some();
        let mut rows = BulkRows::new(&self.wire, &self.watcher, self.format.dialect, cancel.clone());
        let columns = rows.columns();
        let outcome = match &columns {
            Some(columns) if wanted => self.session.bulk_insert(columns, &mut rows, &mut response, &cancel),
            _ => Outcome::Cancelled,
        };
        let end_of_rows = rows.finish()?;
        if let Some(broken) = end_of_rows.malformed {
            response.refuse(&refusal::bulk_load_broken(&shared.options, &broken.to_string()));
            response.finish()?;
            return Ok(self.settle(After::Continue));
        }
        if end_of_rows.ignored {
            count(&self.seat.counters().ignored);
            response.plain_done(DoneStatus::ERROR, 0);
            response.finish()?;
            return Ok(self.settle(After::Continue));
        }
        if !wanted {
            response.refuse(&refusal::unexpected_bulk_load(&shared.options));
            response.finish()?;
            return Ok(self.settle(After::Continue));
        }
        let own = self.faults.as_deref();
        let after =
            end(response, outcome, &self.watcher, &shared, || Acknowledgement::by(own, &shared.faults))?;
        Ok(self.settle(after))
    }

    fn reset_fault(&self) -> Option<Fault> {
        self.strike(|fault| match fault {
            Fault::ResetFails
            | Fault::ResetNotAcknowledged
            | Fault::ResetLeavesEverything
            | Fault::ResetLeaves(_)
            | Fault::ResetClearsIsolation
            | Fault::ResetAcknowledgedLate => Some(fault.clone()),
            _ => None,
        })
    }

    /// After a response: what the registry shows, and what faults still do.
    fn settle(&mut self, after: After) -> After {
        if self.watcher.attention() {
            count(&self.seat.counters().attentions);
        }
        let entry = &self.seat.entry;
        entry.running(false);
        entry.in_transaction.store(self.session.transaction().is_some(), Ordering::Relaxed);
        entry.in_database(self.session.database());
        if after != After::Continue {
            return after;
        }
        if self.strikes(&Fault::DropAfterExecution) {
            return After::Drop;
        }
        if self.strikes(&Fault::StrayBytes) {
            // Into the same flush: the client finds it behind a complete response.
            let _ = self.say(|response| response.plain_done(DoneStatus::FINAL, 0));
        }
        after
    }
}
