//! Reads what a response says about the session, and keeps from the client what is not for it.

use bytes::BytesMut;
use tds::TdsVersion;
use tds::done::{Done, DoneStatus};
use tds::edit::Edit;
use tds::env_change::EnvChange;
use tds::request::BeginTransaction;
use tds::scan::{Event, RawReturnValue, Scanned};
use tds::session_state::SessionState;
use tds::value::Value;

use super::transaction::{Descriptors, Transaction};

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
    /// The language changed.
    pub(crate) language: bool,
    /// A transaction ended: by a commit?
    pub(crate) ended: Option<bool>,
    /// The handle of the cursor that was opened.
    pub(crate) cursor: Option<i32>,
    /// States that the server told of (SESSIONSTATE).
    pub(crate) states: States,
    /// It could not be followed.
    pub(crate) lost: bool,
    /// Rows that the statements counted.
    pub(crate) rows: u64,
    pub(crate) begins: bool,
}

/// What SESSIONSTATE tokens said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct States {
    /// Some token had states in it.
    pub(crate) changed: bool,
    /// Which states cannot be recovered; one bit each.
    unrecoverable: [u64; 4],
    /// A token without states said that the session cannot be recovered.
    session: bool,
}

impl States {
    fn take(&mut self, token: &SessionState<'_>) {
        let mut any = false;
        for state in token.states() {
            any = true;
            let (word, bit) = (usize::from(state.id) / 64, 1 << (state.id % 64));
            if token.recoverable {
                self.unrecoverable[word] &= !bit;
            } else {
                self.unrecoverable[word] |= bit;
            }
        }
        if !any {
            self.session = !token.recoverable;
        }
        self.changed |= any && token.recoverable;
    }

    /// Whether the server could restore the session on another connection.
    pub(crate) fn are_recoverable(&self) -> bool {
        !self.session && self.unrecoverable == [0; 4]
    }
}

/// Follows one response.
pub(crate) struct Observer<'a> {
    pub(crate) version: TdsVersion,
    pub(crate) transaction: &'a mut Transaction,
    pub(crate) descriptors: &'a mut Descriptors,
    pub(crate) reply: &'a mut Reply,
    /// The client asked for a reset and waits for its acknowledgement.
    pub(crate) client_resets: bool,
    /// What begins virtually once the transaction has ended.
    pub(crate) begin: Option<&'a BeginTransaction>,
    /// A cursor's handle is among the return values.
    pub(crate) opens_cursor: bool,
}

impl Observer<'_> {
    pub(crate) fn see(&mut self, scanned: &Scanned<'_>) -> Edit {
        match &scanned.event {
            Event::Done(done) => self.done(*done),
            Event::EnvChange(change) => self.env_change(change),
            Event::Message { is_error: true, number, .. } => {
                self.reply.error = true;
                self.reply.number = Some(*number);
                Edit::Keep
            }
            Event::SessionState(token) => {
                self.reply.states.take(token);
                // No client asked for it, and some fail on it.
                Edit::Drop
            }
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
            EnvChange::Language { .. } => self.reply.language = true,
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
                self.reply.states = States::default();
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
        let data = [7, 1, 0];
        SessionState { sequence: 1, recoverable: false, data: &data }.write(&mut payload);
        payload.extend_from_slice(&tokens(&[], DoneStatus::FINAL));
        let (seen, mut reply) = observe(&payload, &mut Transaction::None, None);
        assert_eq!(seen, tokens(&[], DoneStatus::FINAL));
        assert!(!reply.states.are_recoverable() && !reply.states.changed);
        reply.states.take(&SessionState { sequence: 2, recoverable: true, data: &data });
        assert!(reply.states.are_recoverable() && reply.states.changed);
    }
}
