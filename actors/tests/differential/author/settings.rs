//! Requests that change what a session has beside data, and requests that show it.

use super::Author;
use crate::request::{Arg, Ask, Invocation};
use crate::script::{Check, Step};

const FLAGS: &[&str] = &[
    "ANSI_NULLS",
    "ANSI_PADDING",
    "ANSI_WARNINGS",
    "ARITHABORT",
    "ARITHIGNORE",
    "CONCAT_NULL_YIELDS_NULL",
    "CURSOR_CLOSE_ON_COMMIT",
    "QUOTED_IDENTIFIER",
    "NUMERIC_ROUNDABORT",
    "NOCOUNT",
    "XACT_ABORT",
    "XACT_ABORT",
    "ANSI_NULL_DFLT_ON",
    "ANSI_NULL_DFLT_OFF",
    "IMPLICIT_TRANSACTIONS",
];

const LEVELS: &[&str] =
    &["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "SNAPSHOT"];

/// What shows some state that a connection may have left over from somebody else.
const PROBES: &[&str] = &[
    "SELECT @@OPTIONS",
    "SELECT @@TRANCOUNT, XACT_STATE()",
    "SELECT @@OPTIONS & 512, @@DATEFIRST, @@LANGUAGE, @@LANGID, @@TEXTSIZE, @@LOCK_TIMEOUT",
    "SELECT DB_NAME(), SCHEMA_NAME(), ORIGINAL_DB_NAME()",
    "SELECT CONTEXT_INFO()",
    "SELECT SESSION_CONTEXT(N'k1'), SESSION_CONTEXT(N'k2'), SESSION_CONTEXT(N'k3')",
    "SELECT SESSIONPROPERTY('ANSI_NULLS'), SESSIONPROPERTY('QUOTED_IDENTIFIER'), SESSIONPROPERTY('ARITHABORT')",
    "SELECT SESSIONPROPERTY('ANSI_PADDING'), SESSIONPROPERTY('ANSI_WARNINGS'), SESSIONPROPERTY('CONCAT_NULL_YIELDS_NULL'), SESSIONPROPERTY('NUMERIC_ROUNDABORT')",
    "SELECT USER_NAME(), SUSER_SNAME(), ORIGINAL_LOGIN()",
    "SELECT CASE WHEN OBJECT_ID('tempdb..#a') IS NULL THEN 'gone' ELSE 'there' END",
    "SELECT * FROM #a",
    "SELECT * FROM #b",
    "SELECT 'a' + NULL, CAST('02/03/2024' AS datetime)",
    "SELECT DATEPART(weekday, CAST('2024-05-06' AS date)), DATENAME(month, CAST('2024-05-06' AS date))",
    "DBCC USEROPTIONS",
    "DBCC USEROPTIONS",
    "SELECT n FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8)) v(n)",
    "SELECT CAST(REPLICATE(CAST('x' AS varchar(max)), 100) AS varchar(max))",
    "FETCH NEXT FROM c1",
    "SELECT CURSOR_STATUS('global', 'c1')",
];

/// The text, made at run time.
fn made(text: &str) -> String {
    format!("DECLARE @t nvarchar(1000) = N'{}'; EXEC(@t)", text.replace('\'', "''"))
}

impl Author {
    pub(super) fn change_setting(&mut self) {
        let text = match self.random.below(20) {
            0..8 => self.flag(),
            8..10 => format!("SET TRANSACTION ISOLATION LEVEL {}", self.pick(LEVELS)),
            10 => format!("SET DATEFIRST {}", 1 + self.number(7)),
            11 => format!("SET DATEFORMAT {}", self.pick(&["mdy", "dmy", "ymd", "ydm"])),
            12 => format!("SET LANGUAGE {}", self.pick(&["us_english", "German", "Français", "British"])),
            13 => format!("SET LOCK_TIMEOUT {}", 100_000 + self.number(1000)),
            14 => format!("SET TEXTSIZE {}", self.pick(&[10, 100, 4096, 64_512, 2_147_483_647])),
            15 => format!("SET ROWCOUNT {}", self.pick(&[0, 0, 1, 3])),
            16..18 => format!("USE {}", self.pick(&["shop", "shop", "depot", "master", "nowhere"])),
            18 => format!("SET DEADLOCK_PRIORITY {}", self.pick(&["LOW", "NORMAL", "HIGH", "5"])),
            _ => self.several(),
        };
        match self.random.below(10) {
            0 => self.inside(&text),
            1 => {
                let probe = self.probe_text();
                self.batch(format!("{text}; {probe}"));
            }
            _ => self.batch(text),
        }
    }

    fn probe_text(&mut self) -> &'static str {
        self.pick(PROBES)
    }

    fn flag(&mut self) -> String {
        let name = self.pick(FLAGS);
        // Implicit transactions turn everything into one: not too often.
        let on =
            if name == "IMPLICIT_TRANSACTIONS" { self.random.chance(35) } else { self.random.chance(50) };
        format!("SET {name} {}", if on { "ON" } else { "OFF" })
    }

    fn several(&mut self) -> String {
        self.pick(&[
            "SET ANSI_NULLS, QUOTED_IDENTIFIER ON",
            "SET ANSI_DEFAULTS OFF; SET QUOTED_IDENTIFIER ON",
            "SET NOCOUNT ON; SET XACT_ABORT ON; SET ARITHABORT ON",
            "SET ANSI_NULLS OFF SET ANSI_WARNINGS OFF SET NOCOUNT OFF",
            "DECLARE @x int; SET @x = 1; IF @x = 1 SET DATEFIRST 3 ELSE SET DATEFIRST 4",
            "SET FMTONLY ON; SELECT 1 AS one; SET FMTONLY OFF",
            "SET NOEXEC ON; SELECT 1; SET NOEXEC OFF",
        ])
        .to_owned()
    }

    /// A setting whose scope ends with the text or the procedure that makes it.
    fn inside(&mut self, text: &str) {
        let quoted = text.replace('\'', "''");
        match self.random.below(4) {
            3 => self.batch(made(text)),
            0 => self.batch(format!("EXEC('{quoted}'); SELECT @@OPTIONS, DB_NAME(), @@LANGUAGE")),
            1 => self.batch(format!("EXEC sp_executesql N'{quoted}'")),
            _ => {
                let call = Invocation::id(tds::rpc::ProcId::EXECUTE_SQL, vec![Arg::text(text)]);
                self.step(Step::ask(Ask::call(call)));
            }
        }
    }

    pub(super) fn probe(&mut self) {
        let step = self.probe_step();
        self.step(step);
    }

    pub(super) fn probe_step(&mut self) -> Step {
        let (client, lock) = (self.client, self.lock_name());
        match self.random.below(12) {
            0 => Step::batch(format!("SELECT APPLOCK_MODE('public', 'lock{lock}', 'Session')")),
            1 => Step::batch(format!("SELECT COUNT(*), MAX(n) FROM t{client}")),
            2 => {
                let call = Invocation::id(
                    tds::rpc::ProcId::EXECUTE_SQL,
                    vec![Arg::text("SELECT @@OPTIONS, DB_NAME()")],
                );
                Step::ask(Ask::call(call))
            }
            _ => Step::batch(self.pick(PROBES)),
        }
    }

    /// State that a procedure leaves to its caller, or takes away, or that ends with it; or a text that nobody can read.
    fn change_by_procedure(&mut self) {
        let (id, n, lock) = (self.client, self.number(1000), self.lock_name());
        let text = match self.random.below(9) {
            0..2 => format!("EXEC takes{id} N'lock{lock}'"),
            2 => format!("EXEC gives{id} N'lock{lock}'"),
            3..5 => format!("EXEC remembers{id} N'value {n}'"),
            5 => format!("EXEC remembers{id} NULL"),
            6 => format!("EXEC marks{id}"),
            7 => format!("EXEC opens{id}"),
            _ => format!("EXEC sets{id}"),
        };
        match self.random.below(6) {
            0 => self.batch(made(&text)),
            1 => self.batch(format!("SET NOCOUNT OFF; {text}; SELECT @@DATEFIRST")),
            _ => self.batch(text),
        }
    }

    /// State that no SET makes.
    pub(super) fn change_context(&mut self) {
        if self.random.chance(40) {
            return self.change_by_procedure();
        }
        let (client, n, lock) = (self.client, self.number(1000), self.lock_name());
        let key = self.pick(&["k1", "k2", "k3"]);
        let text = match self.random.below(12) {
            0..3 => format!("SET CONTEXT_INFO 0x{n:04}"),
            3..6 => format!("EXEC sp_set_session_context N'{key}', N'value {client} {n}'"),
            6 => format!("EXECUTE AS USER = 'user{client}'"),
            7 => "EXECUTE AS LOGIN = 'sa'".to_owned(),
            8 => "REVERT".to_owned(),
            9 => format!("EXEC sp_getapplock 'lock{lock}', 'Exclusive', 'Session', 1000"),
            10 => format!("EXEC sp_releaseapplock 'lock{lock}', 'Session'"),
            _ => {
                let resource = Arg::text(format!("lock{lock}"));
                let args = vec![
                    resource.named("@Resource"),
                    Arg::text("Shared").named("@LockMode"),
                    Arg::text("Session").named("@LockOwner"),
                ];
                return self.step(Step::ask(Ask::call(Invocation::name("sp_getapplock", args))));
            }
        };
        self.batch(text);
    }

    /// The server may still be ending the session before when the client is there again.
    fn lock_name(&self) -> String {
        format!("{}_{}", self.client, self.session)
    }

    /// Values that the batch before left.
    pub(super) fn read_previous(&mut self) {
        let text = self.pick(&[
            "SELECT @@ROWCOUNT",
            "SELECT @@ERROR",
            "SELECT @@ROWCOUNT AS r, @@ERROR AS e",
            "SELECT ROWCOUNT_BIG()",
            "SELECT @@IDENTITY",
            "SELECT SCOPE_IDENTITY()",
        ]);
        self.step(Step::batch(text).checked(Check::OrValuesGone));
    }

    /// What Microsoft's ODBC driver asks at every connect.
    pub(super) fn odbc_greeting(&mut self) {
        let call =
            Invocation::name("[sys].sp_datatype_info_100", vec![Arg::Int(0), Arg::Int(4).named("@ODBCVer")]);
        self.step(Step::ask(Ask::call(call)));
    }
}
