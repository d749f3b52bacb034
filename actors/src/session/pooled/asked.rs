//! What a request asks for, as far as it matters to whoever lends the connection: read from its bytes before they
//! are sent, and to their end while they are.

use std::sync::Arc;

use tds::packet::{PacketType, Status};
use tds::request::{AllHeaders, SqlBatch, TransactionRequest};
use tds::rpc::{Followed, ProcId, Procedure, RawParameter, RpcFollower, RpcReader};
use tds::tsql::{self, Finding, Hold, Procedures, Scope, TextScanner};
use tds::type_info::TypeInfo;
use tds::value::{self, Value};
use tds::{Dialect, Malformed};

use super::super::prepared::{self, Calls, Statement, Statements};
use super::transaction::Alone;
use super::values::Values;

/// What a request does to its session once it has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Something that holds may begin.
    Begins(Hold, Box<str>),
    /// It ends, if the request has no error.
    Ends(Hold, Box<str>),
    /// All of this kind end, under the same condition.
    EndsAll(Hold),
    /// SET, which can be replayed.
    Set(&'static str, Box<str>),
    /// A text deals in prepared handles, whose numbers are the server's.
    HandlesByText,
    /// A cursor is opened; its handle comes with the response.
    OpensCursor,
    /// The session learns its process id.
    ReadsProcessId,
}

/// What a text does to its session when it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Called {
    effects: Vec<Effect>,
    reads_process_id: bool,
    reads_previous: Values,
    sets: Values,
    leaves_values: bool,
    dirties: bool,
}

/// A request, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// In the order of the text.
    pub(crate) effects: Vec<Effect>,
    /// What the texts come to.
    pub(crate) reads_process_id: bool,
    /// Values of the previous request that are read, perhaps.
    pub(crate) reads_previous: Values,
    /// Values that it surely sets.
    pub(crate) sets: Values,
    /// It leaves values that the next request may read.
    pub(crate) leaves_values: bool,
    /// What it leaves on the connection is not known from its text: others need a reset.
    pub(crate) dirties: bool,
    /// For a transaction manager request.
    pub(crate) transaction: Option<TransactionRequest>,
    /// For a batch of one word or two.
    pub(crate) alone: Option<Alone>,
    /// Where the transaction's descriptor stands in the payload.
    pub(crate) descriptor_at: Option<usize>,
    /// The request that the first header announces.
    pub(crate) kind: Option<PacketType>,
    /// The first header's status.
    pub(crate) status: Option<Status>,
    /// What it does with prepared handles.
    pub(crate) handles: Option<Calls>,
    /// The handles that a batch drops, if it does nothing else.
    pub(crate) unprepares: Option<Vec<i32>>,
}

impl Asked {
    /// It runs what was prepared before.
    pub(crate) fn runs_prepared(&mut self, statements: &Statements) {
        let Some(handles) = self.handles.take() else { return };
        let mut last: Option<&Arc<Statement>> = None;
        for statement in handles.executed(statements) {
            match statement {
                // The same again and again, mostly.
                Some(statement) if last.is_some_and(|last| Arc::ptr_eq(last, statement)) => {}
                Some(statement) => {
                    last = Some(statement);
                    self.runs(statement);
                }
                // The session holds its connection for it.
                None => {
                    self.dirties = true;
                    self.leaves_values = true;
                    self.sets = self.sets.with(Values::OUTCOME);
                }
            }
        }
        self.handles = Some(handles);
    }

    /// A text in it deals in prepared handles.
    pub(crate) fn handles_by_text(&self) -> bool {
        self.effects.contains(&Effect::HandlesByText)
    }

    /// It runs this statement.
    pub(crate) fn runs(&mut self, statement: &Statement) {
        match statement.called() {
            Some(called) => self.calls(called),
            None => self.effects.push(Effect::Begins(Hold::DynamicText, "".into())),
        }
    }

    fn calls(&mut self, called: &Called) {
        self.effects.extend(
            called
                .effects
                .iter()
                .filter(|effect| !self.effects.contains(effect))
                .cloned()
                .collect::<Vec<_>>(),
        );
        self.reads_process_id |= called.reads_process_id;
        self.reads_previous = self.reads_previous.with(called.reads_previous);
        self.sets = self.sets.with(called.sets);
        self.leaves_values |= called.leaves_values;
        self.dirties |= called.dirties;
    }

    /// Takes out what it does, of which nothing is yet known but what a text does.
    fn called(self) -> Called {
        let Self { effects, reads_process_id, reads_previous, sets, leaves_values, dirties, .. } = self;
        Called { effects, reads_process_id, reads_previous, sets, leaves_values, dirties }
    }
}

/// Reads requests. Kept while a session is busy.
#[derive(Debug)]
pub(crate) struct RequestReader {
    dialect: Dialect,
    text: TextScanner,
    /// A batch's text goes on in the bytes that are still to come.
    in_text: bool,
    /// Follows a call whose values are too long to be looked at as a whole.
    follower: Option<Box<RpcFollower>>,
    /// Calls of it that were read, and that began.
    calls: (usize, usize),
    /// Follows a call for the sake of its prepared handles.
    pub(crate) handles: RpcFollower,
    /// What the texts of calls that prepare do, by the number of the call.
    prepared: Vec<(usize, Called)>,
}

impl RequestReader {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let (handles, prepared) = (RpcFollower::new(dialect), Vec::new());
        let text = TextScanner::new(Scope::Batch);
        Self { dialect, text, in_text: false, follower: None, calls: (0, 0), handles, prepared }
    }

    /// Reads a request's payload, or its beginning if it is not `whole`: then [`Self::more`] and [`Self::finish`]
    /// follow.
    pub(crate) fn read(
        &mut self,
        kind: PacketType,
        status: Status,
        payload: &[u8],
        whole: bool,
        procedures: &Procedures,
    ) -> Result<Asked, Malformed> {
        let mut asked = Asked { kind: Some(kind), status: Some(status), ..Asked::default() };
        self.in_text = false;
        self.follower = None;
        match kind {
            PacketType::SQL_BATCH => {
                let at = SqlBatch::text_offset(payload, self.dialect)?;
                let text = payload.get(at..).unwrap_or_default();
                asked.descriptor_at = AllHeaders::descriptor_offset(payload);
                if whole {
                    asked.alone = Alone::read(text);
                }
                self.text.restart(Scope::Batch);
                self.in_text = true;
                self.more(text, &mut asked, procedures);
                if whole {
                    self.finish(&mut asked, procedures);
                    if asked.handles_by_text() {
                        asked.unprepares = prepared::unprepares(text);
                    }
                }
            }
            PacketType::RPC => {
                asked.descriptor_at = AllHeaders::descriptor_offset(payload);
                self.read_calls(payload, whole, &mut asked, procedures)?;
                asked.handles = prepared::read(payload, whole, self.dialect, &mut self.handles);
                let prepared = std::mem::take(&mut self.prepared);
                if let Some(handles) = &asked.handles {
                    for (call, called) in prepared {
                        if let Some(statement) = handles.prepared(call) {
                            statement.does(called);
                        }
                    }
                }
                if !whole {
                    self.follower = Some(Box::new(RpcFollower::new(self.dialect)));
                    self.follow(payload);
                }
            }
            PacketType::TRANSACTION_MANAGER => {
                asked.descriptor_at = AllHeaders::descriptor_offset(payload);
                if whole {
                    let (_, request) = TransactionRequest::read(payload, self.dialect)?;
                    if matches!(
                        request,
                        TransactionRequest::GetDtcAddress(_)
                            | TransactionRequest::Propagate(_)
                            | TransactionRequest::Promote
                            | TransactionRequest::Other { .. }
                    ) {
                        // Distributed transactions outlive a reset ([MS-TDS] 2.2.3.1.2).
                        asked.effects.push(Effect::Begins(Hold::BoundSession, "".into()));
                    }
                    asked.transaction = Some(request);
                } else {
                    asked.effects.push(Effect::Begins(Hold::Unsure, "".into()));
                }
            }
            PacketType::BULK_LOAD => asked.effects.push(Effect::EndsAll(Hold::BulkLoad)),
            _ => asked.effects.push(Effect::Begins(Hold::Unsure, "".into())),
        }
        Ok(asked)
    }

    /// The next bytes of the payload.
    pub(crate) fn more(&mut self, payload: &[u8], asked: &mut Asked, procedures: &Procedures) {
        if self.in_text {
            let Asked { effects, reads_previous, dirties, .. } = asked;
            self.text
                .feed(payload, procedures, &mut |finding| note(finding, effects, reads_previous, dirties));
        }
        self.follow(payload);
    }

    fn follow(&mut self, payload: &[u8]) {
        if let Some(follower) = &mut self.follower {
            let begun = &mut self.calls.1;
            follower.feed(payload, |followed| {
                if let Followed::Call { callee, .. } = followed {
                    *begun += usize::from(!prepared::is_known_by_handle(callee));
                }
            });
        }
    }

    /// The payload has ended.
    pub(crate) fn finish(&mut self, asked: &mut Asked, procedures: &Procedures) {
        if std::mem::take(&mut self.in_text) {
            self.finish_text(asked, procedures);
        }
        // Calls that were not read may do anything.
        if let Some(follower) = self.follower.take()
            && (!follower.may_end() || self.calls.0 < self.calls.1)
        {
            asked.effects.push(Effect::Begins(Hold::Unsure, "".into()));
        }
    }

    fn finish_text(&mut self, asked: &mut Asked, procedures: &Procedures) {
        let Asked { effects, reads_previous, dirties, .. } = asked;
        let verdict =
            self.text.finish(procedures, &mut |finding| note(finding, effects, reads_previous, dirties));
        asked.reads_process_id |= verdict.reads_process_id;
        asked.leaves_values |= verdict.leaves_identity || verdict.leaves_row_count;
        asked.sets = asked.sets.with(Values::set_by(&verdict));
        asked.dirties |= verdict.calls_procedures;
    }

    fn read_calls(
        &mut self,
        payload: &[u8],
        whole: bool,
        asked: &mut Asked,
        procedures: &Procedures,
    ) -> Result<(), Malformed> {
        let mut reader = RpcReader::new(payload, self.dialect)?;
        self.calls = (0, 0);
        self.prepared.clear();
        for call in 0.. {
            let head = match reader.next_call() {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(Malformed::Truncated { .. }) if !whole => break,
                Err(error) => return Err(error),
            };
            match self.read_call(call, &head.procedure, &mut reader, asked, procedures) {
                Ok(counts) => self.calls.0 += usize::from(counts),
                Err(Malformed::Truncated { .. }) if !whole => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// False for a call of which is known what it does by its handle.
    fn read_call(
        &mut self,
        call: usize,
        procedure: &Procedure,
        reader: &mut RpcReader<'_>,
        asked: &mut Asked,
        procedures: &Procedures,
    ) -> Result<bool, Malformed> {
        let (id, name) = match procedure {
            Procedure::Id(id) => (Some(*id), id.name().unwrap_or_default()),
            Procedure::Name(name) => {
                let last = last_part(name);
                (ProcId::by_name(last), last)
            }
        };
        match id {
            Some(ProcId::EXECUTE_SQL) => self.called_text(0, reader, asked, procedures),
            Some(id @ (ProcId::PREPARE | ProcId::PREP_EXEC)) => {
                let mut prepared = Asked::default();
                self.called_text(2, reader, &mut prepared, procedures)?;
                self.prepares(call, prepared, id == ProcId::PREP_EXEC, asked);
                Ok(())
            }
            Some(ProcId::PREP_EXEC_RPC) => {
                reader.next_parameter()?;
                let name = reader.next_parameter()?.and_then(|parameter| parameter.read().ok());
                let mut prepared = Asked::default();
                named(
                    last_part(name.as_ref().and_then(Value::as_str).unwrap_or_default()),
                    &mut prepared,
                    procedures,
                );
                self.prepares(call, prepared, true, asked);
                Ok(())
            }
            // What it runs is known where the handle is.
            Some(ProcId::EXECUTE | ProcId::UNPREPARE) => return Ok(false),
            Some(ProcId::CURSOR_OPEN) => {
                asked.effects.push(Effect::OpensCursor);
                self.called_text(1, reader, asked, procedures)
            }
            Some(ProcId::CURSOR_CLOSE) => {
                if let Some(handle) = reader.next_parameter()?.and_then(|parameter| integer(&parameter)) {
                    asked.effects.push(Effect::Ends(Hold::Cursor, cursor_name(handle)));
                }
                Ok(())
            }
            Some(ProcId::CURSOR | ProcId::CURSOR_FETCH | ProcId::CURSOR_OPTION) => {
                asked.leaves_values = true;
                asked.sets = asked.sets.with(Values::OUTCOME);
                Ok(())
            }
            Some(_) => {
                asked.effects.push(Effect::Begins(Hold::Cursor, "".into()));
                asked.dirties = true;
                Ok(())
            }
            None => {
                named(name, asked, procedures);
                Ok(())
            }
        }
        .map(|()| true)
    }

    /// A text was read that is prepared, and perhaps run.
    fn prepares(&mut self, call: usize, prepared: Asked, runs: bool, asked: &mut Asked) {
        let called = prepared.called();
        if runs {
            asked.calls(&called);
        } else {
            asked.sets = asked.sets.with(Values::OUTCOME);
        }
        self.prepared.push((call, called));
    }

    /// Scans the text that the call's parameter at this place has.
    fn called_text(
        &mut self,
        place: usize,
        reader: &mut RpcReader<'_>,
        asked: &mut Asked,
        procedures: &Procedures,
    ) -> Result<(), Malformed> {
        for _ in 0..place {
            if reader.next_parameter()?.is_none() {
                return Ok(());
            }
        }
        let Some(parameter) = reader.next_parameter()? else { return Ok(()) };
        self.text.restart(Scope::Called);
        match text_of(&parameter) {
            Text::Short(text) => {
                let Asked { effects, reads_previous, dirties, .. } = asked;
                let on_finding = &mut |finding: Finding<'_>| note(finding, effects, reads_previous, dirties);
                self.text.feed(text, procedures, on_finding);
            }
            Text::Chunked(mut value) => {
                let Asked { effects, reads_previous, dirties, .. } = asked;
                let on_finding = &mut |finding: Finding<'_>| note(finding, effects, reads_previous, dirties);
                while let Some((len, rest)) = value.split_first_chunk::<4>() {
                    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX).min(rest.len());
                    self.text.feed(&rest[..len], procedures, on_finding);
                    value = &rest[len..];
                }
            }
            Text::None => {}
            Text::Odd => asked.effects.push(Effect::Begins(Hold::DynamicText, "".into())),
        }
        self.finish_text(asked, procedures);
        Ok(())
    }
}

/// The statement of a call, as its bytes have it.
enum Text<'a> {
    None,
    Short(&'a [u8]),
    /// PLP chunks, each behind its length.
    Chunked(&'a [u8]),
    /// Not Unicode: the scan cannot read it.
    Odd,
}

fn text_of<'a>(parameter: &RawParameter<'a>) -> Text<'a> {
    let value = parameter.value;
    match &parameter.type_info {
        TypeInfo::NVarChar(info) if info.max_len == tds::type_info::MAX => {
            match value.split_first_chunk::<8>() {
                Some((len, _)) if u64::from_le_bytes(*len) == value::plp::NULL => Text::None,
                Some((_, chunks)) => Text::Chunked(chunks),
                None => Text::None,
            }
        }
        TypeInfo::NVarChar(_) | TypeInfo::NChar(_) => match value.split_first_chunk::<2>() {
            Some((len, _)) if u16::from_le_bytes(*len) == u16::MAX => Text::None,
            Some((_, text)) => Text::Short(text),
            None => Text::None,
        },
        TypeInfo::NText(_) => match value.split_first_chunk::<4>() {
            Some((len, _)) if u32::from_le_bytes(*len) == u32::MAX => Text::None,
            Some((_, text)) => Text::Short(text),
            None => Text::None,
        },
        TypeInfo::Null => Text::None,
        _ => Text::Odd,
    }
}

/// A procedure is called by its name.
fn named(name: &str, asked: &mut Asked, procedures: &Procedures) {
    match procedures.effect(name) {
        tsql::Effect::Harmless | tsql::Effect::ExecutesHandle => {}
        tsql::Effect::Begins(hold) => asked.effects.push(Effect::Begins(hold, name.into())),
        tsql::Effect::Ends(hold) => asked.effects.push(Effect::Ends(hold, name.into())),
        tsql::Effect::ReadsProcessId => {
            asked.effects.push(Effect::ReadsProcessId);
            asked.reads_process_id = true;
        }
        tsql::Effect::Unknown => asked.dirties = true,
    }
    asked.leaves_values = true;
    asked.sets = asked.sets.with(Values::OUTCOME);
}

fn integer(parameter: &RawParameter<'_>) -> Option<i32> {
    match parameter.read().ok()? {
        Value::Int(value) => Some(value),
        _ => None,
    }
}

/// The name under which a cursor with this handle is held.
pub(crate) fn cursor_name(handle: i32) -> Box<str> {
    format!("handle {handle}").into()
}

/// `[db].[dbo].[name];1` without all but the name.
pub(crate) fn last_part(name: &str) -> &str {
    let name = name.rsplit_once(';').map_or(name, |(name, number)| {
        if number.trim().chars().all(|c| c.is_ascii_digit()) { name } else { "" }
    });
    let name = name.trim();
    if let Some(quoted) = name.strip_suffix(']') {
        return quoted.rsplit_once('[').map_or("", |(_, last)| last);
    }
    if let Some(quoted) = name.strip_suffix('"') {
        return quoted.rsplit_once('"').map_or("", |(_, last)| last);
    }
    name.rsplit_once('.').map_or(name, |(_, last)| last.trim())
}

fn note(finding: Finding<'_>, effects: &mut Vec<Effect>, reads_previous: &mut Values, dirties: &mut bool) {
    match finding {
        Finding::Begins(hold, name) => {
            effects.extend((hold == Hold::PreparedHandle).then_some(Effect::HandlesByText));
            effects.push(Effect::Begins(hold, name.into()));
        }
        Finding::Ends(Hold::PreparedHandle, name) => {
            effects.extend([Effect::HandlesByText, Effect::Ends(Hold::PreparedHandle, name.into())]);
        }
        Finding::ExecutesHandle => effects.push(Effect::HandlesByText),
        Finding::Ends(hold, name) => effects.push(Effect::Ends(hold, name.into())),
        Finding::EndsAll(hold) => effects.push(Effect::EndsAll(hold)),
        // ENVCHANGE says where that led.
        Finding::Use(_) => {}
        Finding::Set { option, value } => effects.push(Effect::Set(option, value.into())),
        Finding::ReadsPrevious { value, .. } => reads_previous.read(value),
        Finding::ReadsProcessId => effects.push(Effect::ReadsProcessId),
        Finding::Calls(_) => *dirties = true,
        Finding::Unsure(_) => effects.push(Effect::Begins(Hold::Unsure, "".into())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tds::TdsVersion;
    use tds::rpc::{Parameter, RpcRequest};
    use tds::type_info::{CharInfo, Collation};

    use super::*;

    const DIALECT: TdsVersion = TdsVersion::V7_4;

    fn reader() -> RequestReader {
        RequestReader::new(Dialect::of(DIALECT))
    }

    fn batch(text: &str) -> BytesMut {
        let mut payload = BytesMut::new();
        SqlBatch::new(text).write(&mut payload, Dialect::of(DIALECT));
        payload
    }

    fn asked(kind: PacketType, payload: &[u8]) -> Asked {
        reader().read(kind, Status::END_OF_MESSAGE, payload, true, &Procedures::new()).unwrap()
    }

    fn text_parameter(text: &str, max: bool) -> Parameter {
        let max_len = if max { tds::type_info::MAX } else { 8000 };
        let info = CharInfo { max_len, collation: Collation([0; 5]) };
        Parameter::new("", TypeInfo::NVarChar(info), Value::String(text.to_owned()))
    }

    fn call(procedure: Procedure, parameters: Vec<Parameter>) -> Vec<u8> {
        let mut payload = Vec::new();
        RpcRequest::one(procedure, parameters).write(&mut payload, Dialect::of(DIALECT)).unwrap();
        payload
    }

    #[test]
    fn a_batch_says_the_same_in_pieces() {
        let text =
            "set nocount on; create table #t (i int); declare c cursor for select 1; select @@identity";
        let payload = batch(text);
        let whole = asked(PacketType::SQL_BATCH, &payload);
        for at in 30..payload.len() {
            let (mut reader, procedures) = (reader(), Procedures::new());
            let mut pieces = reader
                .read(PacketType::SQL_BATCH, Status::NORMAL, &payload[..at], false, &procedures)
                .unwrap();
            reader.more(&payload[at..], &mut pieces, &procedures);
            reader.finish(&mut pieces, &procedures);
            assert_eq!(pieces.effects, whole.effects);
            assert!(pieces.reads_previous != Values::NONE);
        }
        assert_eq!(
            whole.effects,
            [
                Effect::Set("nocount", "on".into()),
                Effect::Begins(Hold::TempTable, "#t".into()),
                Effect::Begins(Hold::Cursor, "c".into())
            ]
        );
    }

    #[test]
    fn the_text_of_sp_executesql_is_read_whatever_its_length_type() {
        for max in [false, true] {
            for procedure in [Procedure::Id(ProcId::EXECUTE_SQL), Procedure::Name("sys.SP_EXECUTESQL".into())]
            {
                let text = "create table #t (i int) exec sp_getapplock 'x'";
                let asked = asked(PacketType::RPC, &call(procedure, vec![text_parameter(text, max)]));
                assert_eq!(asked.effects, [Effect::Begins(Hold::ApplicationLock, "".into())]);
            }
        }
    }

    #[test]
    fn an_unknown_procedure_dirties_and_does_not_hold() {
        let asked = asked(PacketType::RPC, &call(Procedure::Name("[dbo].[book it]".into()), Vec::new()));
        assert!(asked.effects.is_empty() && asked.dirties);
    }

    #[test]
    fn the_last_part_of_a_name_is_what_counts() {
        for (name, last) in [
            ("sp_x", "sp_x"),
            ("dbo.sp_x;1", "sp_x"),
            ("[sys].[sp_datatype_info_100]", "sp_datatype_info_100"),
            ("\"a\".\"b.c\"", "b.c"),
            ("master..xp_y", "xp_y"),
            ("odd];x", ""),
        ] {
            assert_eq!(last_part(name), last, "{name}");
        }
    }
}
