//! Reads what a response says about the session, and keeps from the client what is not for it.

use bytes::BytesMut;
use tds::TdsVersion;
use tds::done::{Done, DoneStatus};
use tds::edit::Edit;
use tds::env_change::EnvChange;
use tds::request::BeginTransaction;
use tds::scan::{Event, RawReturnValue, Scanned};
use tds::value::Value;

use super::transaction::{Descriptors, Transaction};
use super::values::Values;
use crate::bucket::witness::{StateIds, Witness};

/// What the response to a client's request said.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Some statement failed.
    pub(crate) error: bool,
    /// The number of the last error.
    pub(crate) number: Option<i32>,
    /// An attention was acknowledged in the message that ended last.
    pub(crate) attention: bool,
    /// The client broke it off.
    pub(crate) withdrawn: bool,
    /// The reset that the client had asked for was acknowledged.
    pub(crate) reset: bool,
    /// The current database, if it changed.
    pub(crate) database: Option<String>,
    /// The language before the response and behind it.
    pub(crate) language: Option<(String, String)>,
    /// A transaction ended: by a commit?
    pub(crate) ended: Option<bool>,
    /// The handle of the cursor that was opened.
    pub(crate) cursor: Option<i32>,
    /// States that got other values, by SESSIONSTATE.
    pub(crate) changed: StateIds,
    /// What the server says of the session, if it says anything; known when the response has ended.
    pub(crate) told: Option<Told>,
    /// It could not be followed.
    pub(crate) lost: bool,
    /// Rows that the statements counted.
    pub(crate) rows: u64,
    pub(crate) begins: bool,
}

impl Reply {
    /// The server tells whatever was left by a text that nobody has read. Of one that was broken off it may be silent.
    pub(crate) fn is_told_of_everything(&self) -> bool {
        self.told.is_some_and(|told| told.everything) && !self.withdrawn && !self.lost
    }

    /// Which values the next request may read, if this one `sets` these when all goes well.
    pub(super) fn leaves(&self, sets: Values) -> Values {
        // What the server itself reset is as after a login.
        let kept = if self.reset { Values::ALL } else { Values::NONE };
        kept.with(match (self.withdrawn, self.error) {
            (true, _) => Values::NONE,
            (false, true) => Values::OUTCOME,
            (false, false) => sets,
        })
    }
}

/// What the server says of its session when a response has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// It could be restored on another connection.
    pub(crate) recoverable: bool,
    /// Its context (CONTEXT_INFO, session context) is not as after the login.
    pub(crate) has_context: bool,
    /// The states that the context is in.
    pub(crate) context: StateIds,
    /// Nothing is left by a text or procedure that it would not tell of.
    pub(crate) everything: bool,
}

/// Follows one response.
pub(crate) struct Observer<'a> {
    pub(crate) version: TdsVersion,
    pub(crate) transaction: &'a mut Transaction,
    pub(crate) descriptors: &'a mut Descriptors,
    pub(crate) reply: &'a mut Reply,
    /// Of the connection, if its server tells of its session.
    pub(crate) witness: Option<&'a mut Witness>,
    /// The client asked for a reset and waits for its acknowledgement.
    pub(crate) client_resets: bool,
    /// What begins virtually once the transaction has ended.
    pub(crate) begin: Option<&'a BeginTransaction>,
    /// A cursor's handle is among the return values.
    pub(crate) opens_cursor: bool,
}

impl Observer<'_> {
    pub(crate) fn see(&mut self, scanned: &Scanned<'_>) -> Edit {
        if let Some(witness) = &mut self.witness {
            self.reply.changed = self.reply.changed.and(witness.hear(&scanned.event));
        }
        match &scanned.event {
            Event::Done(done) => self.done(*done),
            Event::EnvChange(change) => self.env_change(change),
            Event::Message { is_error: true, number, .. } => {
                self.reply.error = true;
                self.reply.number = Some(*number);
                Edit::Keep
            }
            // To no client was SESSIONRECOVERY acknowledged, and some fail on it.
            Event::SessionState(_) => Edit::Drop,
            Event::ReturnValue(value) => {
                if self.opens_cursor && self.reply.cursor.is_none() {
                    self.reply.cursor = handle(value);
                }
                Edit::Keep
            }
            Event::Lost(_) => {
                self.reply.lost = true;
                Edit::Keep
            }
            _ => Edit::Keep,
        }
    }

    fn done(&mut self, done: Done) -> Edit {
        self.reply.error |=
            done.status.contains(DoneStatus::ERROR) || done.status.contains(DoneStatus::SERVER_ERROR);
        self.reply.attention |= done.status.contains(DoneStatus::ATTENTION);
        if done.status.contains(DoneStatus::COUNT) {
            self.reply.rows = self.reply.rows.saturating_add(done.rows);
        }
        let last = !done.status.contains(DoneStatus::MORE);
        if let Some(begin) = self.begin.filter(|_| last && self.begins_now()) {
            self.reply.begins = true;
            let mut tokens = BytesMut::new();
            self.transaction.begin(begin.clone(), self.descriptors, &mut tokens);
            done.write(&mut tokens, self.version);
            return Edit::Replace(tokens.freeze());
        }
        Edit::Keep
    }

    /// The transaction has ended without an error: what the client wants next begins.
    fn begins_now(&self) -> bool {
        self.reply.ended.is_some() && !self.reply.error && !self.reply.attention && !self.reply.begins
    }

    fn env_change(&mut self, change: &EnvChange) -> Edit {
        match change {
            EnvChange::Database { new, .. } => self.reply.database = Some(new.clone()),
            EnvChange::Language { new, old } => {
                let before = self.reply.language.take().map_or_else(|| old.clone(), |(before, _)| before);
                self.reply.language = Some((before, new.clone()));
            }
            EnvChange::BeginTransaction(descriptor) | EnvChange::EnlistTransaction(descriptor) => {
                self.transaction.opened(*descriptor);
            }
            EnvChange::CommitTransaction(old) => {
                return self.ended(*old, true, EnvChange::CommitTransaction);
            }
            EnvChange::RollbackTransaction(old) => {
                return self.ended(*old, false, EnvChange::RollbackTransaction);
            }
            EnvChange::DefectTransaction(old) => {
                return self.ended(*old, false, EnvChange::DefectTransaction);
            }
            EnvChange::TransactionEnded(old) => return self.ended(*old, false, EnvChange::TransactionEnded),
            EnvChange::ResetDone => {
                self.reply.reset = true;
                // The session it tells of begins anew, without the states of the old one.
                self.reply.changed = StateIds::NONE;
                return if self.client_resets { Edit::Keep } else { Edit::Drop };
            }
            _ => {}
        }
        Edit::Keep
    }

    fn ended(&mut self, old: u64, committed: bool, token: impl Fn(u64) -> EnvChange) -> Edit {
        let client = self.transaction.to_client(old);
        *self.transaction = Transaction::None;
        self.reply.ended = Some(committed);
        if client == old {
            return Edit::Keep;
        }
        let mut tokens = BytesMut::new();
        token(client).write(&mut tokens);
        Edit::Replace(tokens.freeze())
    }
}

fn handle(value: &RawReturnValue<'_>) -> Option<i32> {
    match value.read()?.ok()?.value {
        Value::Int(handle) => Some(handle),
        _ => None,
    }
}

/// What a response to a request of the proxy's own said.
#[derive(Debug, Default)]
pub(crate) struct OwnReply {
    /// ENVCHANGE 18 was in it.
    pub(crate) reset: bool,
    /// A transaction began.
    pub(crate) began: Option<u64>,
    /// One ended.
    pub(crate) ended: bool,
    pub(crate) error: Option<i32>,
    pub(crate) lost: bool,
}

impl OwnReply {
    pub(crate) fn see(&mut self, scanned: &Scanned<'_>) {
        match &scanned.event {
            Event::EnvChange(EnvChange::ResetDone) => self.reset = true,
            Event::EnvChange(EnvChange::BeginTransaction(descriptor)) => self.began = Some(*descriptor),
            Event::EnvChange(change) if change.ends_transaction() => self.ended = true,
            Event::Message { is_error: true, number, .. } => self.error = Some(*number),
            Event::Lost(_) => self.lost = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tds::edit::{Passed, ResponseEditor};
    use tds::message::{MessageReader, write_message};
    use tds::packet::{PacketType, Status};
    use tds::session_state::SessionState;

    use super::*;

    const SIZE: usize = 4096;

    fn tokens(changes: &[EnvChange], status: DoneStatus) -> BytesMut {
        let mut out = BytesMut::new();
        for change in changes {
            change.write(&mut out);
        }
        Done { kind: tds::done::DoneKind::Done, status, current_command: 0xD5, rows: 0 }
            .write(&mut out, TdsVersion::V7_4);
        out
    }

    /// What the client gets of such a response, and what it told.
    fn observe(
        payload: &[u8],
        transaction: &mut Transaction,
        begin: Option<&BeginTransaction>,
    ) -> (Vec<u8>, Reply) {
        observe_with(None, payload, transaction, begin)
    }

    fn observe_with(
        witness: Option<&mut Witness>,
        payload: &[u8],
        transaction: &mut Transaction,
        begin: Option<&BeginTransaction>,
    ) -> (Vec<u8>, Reply) {
        let (mut input, mut out, mut reply) = (BytesMut::new(), BytesMut::new(), Reply::default());
        write_message(&mut input, PacketType::RESPONSE, Status::NORMAL, 0, SIZE, payload);
        let mut editor = ResponseEditor::new(TdsVersion::V7_4, SIZE, SIZE);
        let mut descriptors = Descriptors::default();
        let mut observer = Observer {
            version: TdsVersion::V7_4,
            transaction,
            descriptors: &mut descriptors,
            reply: &mut reply,
            client_resets: false,
            begin,
            opens_cursor: false,
            witness,
        };
        let passed = editor.pass(&mut input, &mut out, |scanned| observer.see(scanned)).unwrap();
        assert_eq!(passed, Passed::Ended);
        let message = MessageReader::new(SIZE, 1 << 16).read(&mut out).unwrap().unwrap();
        (message.payload.to_vec(), reply)
    }

    #[test]
    fn an_end_and_a_virtual_beginning_look_like_commit_and_begin_again() {
        let mut transaction = Transaction::Open { client: 5, server: 9 };
        let begin = BeginTransaction::default();
        let (seen, reply) = observe(
            &tokens(&[EnvChange::CommitTransaction(9)], DoneStatus::FINAL),
            &mut transaction,
            Some(&begin),
        );
        let Transaction::Virtual { client, .. } = transaction else { panic!("{transaction:?}") };
        let expected = [EnvChange::CommitTransaction(5), EnvChange::BeginTransaction(client)];
        assert_eq!(seen, tokens(&expected, DoneStatus::FINAL));
        assert_eq!(reply.ended, Some(true));
    }

    #[test]
    fn a_commit_that_fails_begins_nothing() {
        let mut transaction = Transaction::Open { client: 5, server: 9 };
        let begin = BeginTransaction::default();
        let changes = [EnvChange::RollbackTransaction(9)];
        let (seen, reply) = observe(&tokens(&changes, DoneStatus::ERROR), &mut transaction, Some(&begin));
        assert_eq!(transaction, Transaction::None);
        assert_eq!(seen, tokens(&[EnvChange::RollbackTransaction(5)], DoneStatus::ERROR));
        assert!(reply.error);
    }

    #[test]
    fn states_are_kept_from_the_client_and_remembered() {
        let mut payload = BytesMut::new();
        let data = [7, 1, 9];
        SessionState { sequence: 1, recoverable: true, data: &data }.write(&mut payload);
        payload.extend_from_slice(&tokens(&[], DoneStatus::FINAL));
        let mut witness = Witness::default();
        let (seen, reply) = observe_with(Some(&mut witness), &payload, &mut Transaction::None, None);
        assert_eq!(seen, tokens(&[], DoneStatus::FINAL));
        assert!(reply.changed.contains(7));
        let (seen, _) = observe(&payload, &mut Transaction::None, None);
        assert_eq!(seen, tokens(&[], DoneStatus::FINAL), "a server that nobody had asked");
    }

    #[test]
    fn a_language_that_is_set_and_set_back_is_the_one_before() {
        let change = |new: &str, old: &str| EnvChange::Language { new: new.to_owned(), old: old.to_owned() };
        let there_and_back =
            tokens(&[change("Deutsch", "English"), change("English", "Deutsch")], DoneStatus::FINAL);
        let (_, reply) = observe(&there_and_back, &mut Transaction::None, None);
        assert!(matches!(reply.language, Some((before, now)) if before == now));
    }
}
