//! Statements and what they answer: each line of a table is a batch, on one session after the other.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tds::col_metadata::Column;
use tds::done::Done;
use tds::env_change::EnvChange;
use tds::server_message::ServerMessage;
use tds::type_info::TypeInfo;
use tds::value::Value;

use super::{
    Cancel, Engine, EngineOptions, Outcome, Output, Param, Procedure, Session, SessionOptions,
    SessionStateChange,
};

/// Writes down everything as one line: rows `1|a`, results and messages separated by `; `.
#[derive(Default)]
struct Transcript {
    parts: Vec<String>,
    env: Vec<String>,
    dones: Vec<Done>,
    types: Vec<TypeInfo>,
    rows: usize,
    stop_after: Option<usize>,
    returned: Vec<Value>,
    status: Option<i32>,
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Bit(b) => i64::from(*b).to_string(),
        Value::TinyInt(n) => n.to_string(),
        Value::SmallInt(n) => n.to_string(),
        Value::Int(n) => n.to_string(),
        Value::BigInt(n) => n.to_string(),
        Value::Real(f) => f.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Decimal(d) => super::decimal::to_text(
            if d.negative { -(d.magnitude as i128) } else { d.magnitude as i128 },
            d.scale,
        ),
        Value::Money(n) => super::decimal::to_text(i128::from(*n), 4),
        Value::String(text) | Value::Xml(text) => text.clone(),
        Value::Bytes(bytes) => format!("0x{}", bytes.iter().map(|b| format!("{b:02X}")).collect::<String>()),
        Value::Variant(inner) => shown(&inner.value),
        other => format!("{other:?}"),
    }
}

impl Output for Transcript {
    fn columns(&mut self, columns: &[Column]) -> ControlFlow<()> {
        self.types = columns.iter().map(|c| c.type_info.clone()).collect();
        ControlFlow::Continue(())
    }
    fn row(&mut self, values: &[Value]) -> ControlFlow<()> {
        self.rows += 1;
        if self.rows <= 20 {
            self.parts.push(values.iter().map(shown).collect::<Vec<_>>().join("|"));
        }
        if self.stop_after == Some(self.rows) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
    fn order(&mut self, _: &[u16]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn done(&mut self, done: Done) -> ControlFlow<()> {
        self.dones.push(done);
        ControlFlow::Continue(())
    }
    fn message(&mut self, message: &ServerMessage) -> ControlFlow<()> {
        self.parts.push(if message.number == 0 {
            message.text.clone()
        } else if message.is_error {
            format!("E{}", message.number)
        } else {
            format!("I{}", message.number)
        });
        ControlFlow::Continue(())
    }
    fn env_change(&mut self, change: &EnvChange) -> ControlFlow<()> {
        self.env.push(match change {
            EnvChange::Database { new, .. } => format!("db {new}"),
            EnvChange::Language { new, .. } => format!("lang {new}"),
            EnvChange::BeginTransaction(_) => "begin".into(),
            EnvChange::CommitTransaction(_) => "commit".into(),
            EnvChange::RollbackTransaction(_) => "rollback".into(),
            other => format!("{other:?}"),
        });
        ControlFlow::Continue(())
    }
    fn return_status(&mut self, status: i32) -> ControlFlow<()> {
        self.status = Some(status);
        ControlFlow::Continue(())
    }
    fn return_value(&mut self, _: u16, _: &str, _: &TypeInfo, value: &Value) -> ControlFlow<()> {
        self.returned.push(value.clone());
        ControlFlow::Continue(())
    }
    fn session_state(&mut self, _: &SessionStateChange) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

fn engine() -> Engine {
    let options = EngineOptions {
        databases: vec!["app".into(), "other".into()],
        lock_wait: Duration::from_secs(2),
        ..EngineOptions::default()
    };
    Engine::new(options).unwrap()
}

fn open(engine: &Engine) -> Session {
    engine.open_session(SessionOptions {
        database: "app".into(),
        host_name: "box".into(),
        program_name: "tests".into(),
        ..SessionOptions::default()
    })
}

fn run(session: &mut Session, text: &str) -> Transcript {
    let mut out = Transcript::default();
    assert_eq!(session.batch(text, &mut out, &Cancel::new()), Outcome::Finished, "{text}");
    let last = out.dones.last().expect("a final DONE");
    assert!(last.is_final(), "{text}: {:?}", out.dones);
    assert!(out.dones[..out.dones.len() - 1].iter().all(|d| !d.is_final()), "{text}: {:?}", out.dones);
    out
}

fn says(session: &mut Session, text: &str) -> String {
    run(session, text).parts.join("; ")
}

fn table(cases: &[(&str, &str)]) {
    let engine = engine();
    let mut session = open(&engine);
    let mut wrong = Vec::new();
    for (text, expect) in cases {
        let got = says(&mut session, text);
        if got != *expect {
            wrong.push(format!("{text}\n   expected: {expect}\n   got:      {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn expressions_have_sql_servers_values() {
    table(&[
        ("SELECT 1", "1"),
        ("SELECT 1, 'x', N'y', 1.5, NULL, 0xABCD", "1|x|y|1.5|NULL|0xABCD"),
        ("SELECT 7/2, 7%3, 7.0/2, 1+2*3, -5, 10/4.0", "3|1|3.500000|7|-5|2.500000"),
        ("SELECT 'a' + 'b', 'a' + NULL, '1' + 2", "ab|NULL|3"),
        (
            "SELECT CAST('12.345' AS decimal(10,2)), CAST(1 AS bit), CAST('abc' AS char(5)) + '|'",
            "12.35|1|abc  |",
        ),
        (
            "SELECT CONVERT(varchar(10), CAST('2024-02-29' AS datetime), 120), CONVERT(varchar, CAST('2024-01-02 03:04:05.678' AS datetime), 121)",
            "2024-02-29|2024-01-02 03:04:05.677",
        ),
        ("SELECT TRY_CAST('x' AS int), TRY_CONVERT(int, '5')", "NULL|5"),
        (
            "SELECT ISNULL(NULL, 'd'), COALESCE(NULL, NULL, 3), NULLIF(1, 1), IIF(1 = 1, 'y', 'n'), CHOOSE(2, 'a', 'b')",
            "d|3|NULL|y|b",
        ),
        (
            "SELECT LEN('ab  '), DATALENGTH(N'ab'), SUBSTRING('hello', 2, 3), LEFT('hello', 2), RIGHT('hello', 2)",
            "2|4|ell|he|lo",
        ),
        (
            "SELECT UPPER('a'), LOWER('B'), LTRIM('  a'), RTRIM('a  '), TRIM('  a '), REPLACE('aXa', 'x', 'b'), REPLICATE('ab', 2)",
            "A|b|a|a|a|aba|abab",
        ),
        (
            "SELECT CHARINDEX('l', 'hello'), STUFF('hello', 1, 1, 'j'), CONCAT('a', NULL, 1), STR(3.14159, 6, 2)",
            "3|jello|a1|  3.14",
        ),
        (
            "SELECT ABS(-3), ROUND(2.567, 2), FLOOR(2.7), CEILING(2.1), POWER(2, 10), SQRT(16), SIGN(-2)",
            "3|2.570|2|3|1024|4|-1",
        ),
        (
            "SELECT DATEADD(month, 1, CAST('2024-01-31' AS date)), DATEDIFF(day, '2024-01-01', '2024-03-01'), YEAR('2024-05-06'), DATENAME(month, '2024-05-06')",
            "Date(738944)|60|2024|May",
        ),
        ("SELECT CASE WHEN 1 = 2 THEN 'a' WHEN 'A' = 'a  ' THEN 'b' ELSE 'c' END", "b"),
        ("SELECT CASE 3 WHEN 1 THEN 'a' WHEN 3 THEN 'c' END", "c"),
        ("SELECT 5 & 3, 5 | 3, 5 ^ 3, ~5", "1|7|6|-6"),
        ("IF 'hello' LIKE 'h[a-f]%' PRINT 'yes' ELSE PRINT 'no'", "yes"),
        ("SELECT 99999999999, 1e3, $1.50", "99999999999|1000|1.5000"),
        ("SELECT CAST(1 AS money) / 3, CAST(2 AS decimal(5,2)) * CAST(3 AS decimal(5,2))", "0.3333|6.0000"),
        ("SELECT CAST(NEWID() AS varchar(36)) WHERE 1 = 0", ""),
        ("SELECT 1 UNION SELECT 2 UNION ALL SELECT 2 ORDER BY 1", "1; 2; 2"),
        ("SELECT TOP 2 value FROM (VALUES (3), (1), (2)) AS v(value) ORDER BY value DESC", "3; 2"),
        (
            "WITH n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT SUM(i), COUNT(*), AVG(i * 1.0) FROM n",
            "10|4|2.500000",
        ),
        ("SELECT COUNT(*), MIN(id), MAX(id) FROM dbo.generate_rows(1000, 10)", "1000|1|1000"),
        ("SELECT value FROM STRING_SPLIT('a,b', ',')", "a; b"),
        ("SELECT \"x\" FROM (SELECT 1 AS x) AS t", "1"),
        ("SET QUOTED_IDENTIFIER OFF; SELECT \"x\"; SET QUOTED_IDENTIFIER ON", "x"),
    ]);
}

#[test]
fn errors_have_sql_servers_numbers_and_the_session_goes_on() {
    table(&[
        ("SELEC 1", "E2812"),
        ("SELECT * FORM t", "E102"),
        ("SELECT 1 +", "E102"),
        ("SELECT x FROM missing", "E208"),
        ("CREATE TABLE e (a int NOT NULL PRIMARY KEY, b varchar(3))", ""),
        ("SELECT nope FROM e", "E207"),
        ("SELECT @x", "E137"),
        ("SELECT 1/0; SELECT 'on'", "E8134; I3621; on"),
        ("SELECT CAST('x' AS int); SELECT 'not reached'", "E245"),
        ("INSERT e VALUES (NULL, 'a'); SELECT 'on'", "E515; I3621; on"),
        ("INSERT e VALUES (1, 'a'); INSERT e VALUES (1, 'b'); SELECT COUNT(*) FROM e", "E2627; I3621; 1"),
        ("INSERT e VALUES (2, 'long')", "E2628; I3621"),
        ("EXEC nothing", "E2812"),
        ("EXEC sp_execute 77", "E8179"),
        ("USE nowhere", "E911"),
        ("COMMIT", "E3902"),
        ("ROLLBACK", "E3903"),
        ("RAISERROR('oh %s %d', 16, 1, 'no', 5)", "E50000"),
        ("RAISERROR('info', 10, 1) PRINT 'p'", "I50000; p"),
        ("THROW 50001, 'x', 1; SELECT 1", "E50001"),
        (
            "BEGIN TRY SELECT 1/0 END TRY BEGIN CATCH SELECT ERROR_NUMBER(), ERROR_MESSAGE(), ERROR_SEVERITY() END CATCH",
            "8134|Divide by zero error encountered.|16",
        ),
        (
            "BEGIN TRY THROW 51000, 'x', 2 END TRY BEGIN CATCH SELECT ERROR_NUMBER(), ERROR_STATE(); THROW END CATCH",
            "51000|2; E51000",
        ),
        ("SELECT @@ERROR; SELECT @@ERROR", "51000; 0"),
        ("FETCH NEXT FROM nocursor", "E16916"),
        ("SELECT a FROM e GROUP BY b", "E8120"),
        ("SELECT 'the end'", "the end"),
    ]);
}

#[test]
fn tables_keep_what_is_written_to_them() {
    table(&[
        (
            "CREATE TABLE t (id int IDENTITY(1,1) PRIMARY KEY, name varchar(20) DEFAULT 'none', price decimal(10,2), at datetime2(3), flag bit, guid uniqueidentifier)",
            "",
        ),
        (
            "INSERT INTO t (name, price) VALUES ('a', 1.5), ('B', 2.25); SELECT @@ROWCOUNT, SCOPE_IDENTITY(), @@IDENTITY",
            "2|2|2",
        ),
        ("INSERT INTO t DEFAULT VALUES; SELECT @@IDENTITY, IDENT_CURRENT('t')", "3|3"),
        ("INSERT t (name) OUTPUT inserted.id, inserted.name VALUES ('c')", "4|c"),
        ("SELECT id, name, price FROM t ORDER BY name DESC", "3|none|NULL; 4|c|NULL; 2|B|2.25; 1|a|1.50"),
        ("SELECT name FROM t WHERE name = 'b'", "B"),
        (
            "UPDATE t SET price = price * 2, name = name + '!' OUTPUT deleted.price, inserted.price WHERE id <= 2",
            "1.50|3.00; 2.25|4.50",
        ),
        ("SELECT SUM(price), AVG(price), COUNT(price), COUNT(*) FROM t", "7.50|3.750000|2|4"),
        ("DELETE FROM t WHERE id = 3; SELECT @@ROWCOUNT", "1"),
        ("SELECT 1 WHERE 1 = 1; RAISERROR('a warning', 10, 1); SELECT @@ROWCOUNT", "1; I50000; 0"),
        ("UPDATE t SET id = 9", "E8102"),
        ("CREATE TABLE c (tid int REFERENCES t(id), n int CHECK (n > 0))", ""),
        ("INSERT c VALUES (99, 1)", "E547; I3621"),
        ("INSERT c VALUES (1, 0)", "E547; I3621"),
        ("INSERT c VALUES (1, 5), (2, 7)", ""),
        ("DELETE t WHERE id = 1", "E547; I3621"),
        ("SELECT t.name, c.n FROM t LEFT JOIN c ON c.tid = t.id ORDER BY t.id", "a!|5; B!|7; c|NULL"),
        (
            "SELECT name, (SELECT SUM(n) FROM c WHERE c.tid = t.id) FROM t WHERE EXISTS (SELECT 1 FROM c WHERE tid = t.id)",
            "a!|5; B!|7",
        ),
        (
            "UPDATE t SET price = c.n FROM t JOIN c ON c.tid = t.id; SELECT price FROM t WHERE price IS NOT NULL",
            "5.00; 7.00",
        ),
        ("SELECT id, ROW_NUMBER() OVER (ORDER BY id DESC) FROM t ORDER BY id", "1|3; 2|2; 4|1"),
        ("SELECT id FROM t ORDER BY id OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY", "2"),
        ("CREATE VIEW v AS SELECT id, name FROM t WHERE id < 3", ""),
        ("SELECT COUNT(*) FROM v", "2"),
        (
            "SELECT name INTO t2 FROM t; SELECT COUNT(*) FROM t2; TRUNCATE TABLE t2; SELECT COUNT(*) FROM t2; DROP TABLE t2",
            "3; 0",
        ),
        (
            "SET IDENTITY_INSERT t ON; INSERT t (id, name) VALUES (50, 'fifty'); SET IDENTITY_INSERT t OFF; INSERT t (name) VALUES ('next'); SELECT MAX(id) FROM t",
            "51",
        ),
        ("ALTER TABLE c ADD extra varchar(5) NULL; SELECT * FROM c ORDER BY tid", "1|5|NULL; 2|7|NULL"),
        (
            "SELECT COUNT(*) FROM sys.tables; SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'c'",
            "2; tid|int; n|int; extra|varchar",
        ),
        (
            "SELECT CASE WHEN OBJECT_ID('t') IS NULL THEN 0 ELSE 1 END, OBJECT_ID('nothing'), COL_LENGTH('t', 'name')",
            "1|NULL|20",
        ),
        ("DECLARE @s varchar(100) = ''; SELECT @s = @s + name FROM v; SELECT @s", "a!B!"),
    ]);
}

#[test]
fn control_flow_runs_and_procedures_return() {
    table(&[
        (
            "DECLARE @i int = 0, @s int = 0; WHILE @i < 10 BEGIN SET @i += 1; IF @i = 3 CONTINUE; IF @i = 6 BREAK; SET @s = @s + @i END SELECT @s",
            "12",
        ),
        (
            "CREATE PROCEDURE p @a int, @b int = 5, @c int OUTPUT AS BEGIN SET @c = @a + @b; SELECT @a AS a; RETURN 7 END",
            "",
        ),
        ("DECLARE @r int, @o int; EXEC @r = p 1, @c = @o OUTPUT; SELECT @r, @o", "1; 7|6"),
        ("EXEC p", "E201"),
        ("EXEC p 1, 2, 3, 4", "E8144"),
        ("EXEC sp_executesql N'SELECT @x + 1', N'@x int', @x = 4", "5"),
        (
            "DECLARE @o int; EXEC sp_executesql N'SET @y = 3', N'@y int OUTPUT', @y = @o OUTPUT; SELECT @o",
            "3",
        ),
        ("EXEC('SELECT 1; SELECT 2')", "1; 2"),
        (
            "DECLARE c CURSOR FOR SELECT value FROM (VALUES (1), (2)) v(value); OPEN c; DECLARE @v int; FETCH NEXT FROM c INTO @v; WHILE @@FETCH_STATUS = 0 BEGIN PRINT @v; FETCH NEXT FROM c INTO @v END; CLOSE c; DEALLOCATE c",
            "1; 2",
        ),
        ("DECLARE @t TABLE (a int, b varchar(5)); INSERT @t VALUES (1, 'x'); SELECT * FROM @t", "1|x"),
        (
            "CREATE PROCEDURE q AS CREATE TABLE #inner (a int); SET NOCOUNT ON; INSERT #inner VALUES (1); SELECT COUNT(*) FROM #inner",
            "",
        ),
        ("EXEC q; SELECT OBJECT_ID('tempdb..#inner')", "1; NULL"),
        ("SELECT SESSIONPROPERTY('ANSI_NULLS'), @@OPTIONS & 512", "1|0"),
        ("CREATE TABLE #m (spid int, n int); INSERT #m EXEC('SELECT 1, 2'); SELECT * FROM #m", "1|2"),
        ("BEGIN TRAN; EXEC('COMMIT'); SELECT @@TRANCOUNT", "0"),
        ("SELECT @@NESTLEVEL, @@SPID - @@SPID", "0|0"),
    ]);
}

#[test]
fn transactions_count_and_signal() {
    let engine = engine();
    let mut session = open(&engine);
    run(&mut session, "CREATE TABLE t (a int)");
    let out =
        run(&mut session, "BEGIN TRAN; BEGIN TRAN; INSERT t VALUES (1); SELECT @@TRANCOUNT; COMMIT; COMMIT");
    assert_eq!((out.parts.join(";"), out.env), ("2".into(), vec!["begin".to_string(), "commit".into()]));
    let out = run(
        &mut session,
        "BEGIN TRAN; INSERT t VALUES (2); SAVE TRAN s; INSERT t VALUES (3); ROLLBACK TRAN s; SELECT COUNT(*), XACT_STATE() FROM t; ROLLBACK; SELECT COUNT(*), @@TRANCOUNT FROM t",
    );
    assert_eq!(
        (out.parts.join(";"), out.env),
        ("2|1;1|0".into(), vec!["begin".to_string(), "rollback".into()])
    );
    let out = run(&mut session, "SET IMPLICIT_TRANSACTIONS ON; SELECT a FROM t");
    assert_eq!(out.env, ["begin"]);
    assert!(session.transaction().is_some());
    let out = run(&mut session, "ROLLBACK; SET IMPLICIT_TRANSACTIONS OFF");
    assert_eq!(out.env, ["rollback"]);
    let out =
        run(&mut session, "SET XACT_ABORT ON; BEGIN TRAN; INSERT t VALUES (5); SELECT 1/0; SELECT 'no'");
    assert_eq!(out.env, ["begin", "rollback"]);
    assert_eq!(says(&mut session, "SET XACT_ABORT OFF; SELECT COUNT(*) FROM t"), "1");
    let mut out = Transcript::default();
    session.begin(super::IsolationLevel(0), "", &mut out, &Cancel::new());
    session.batch("CREATE TABLE #x (a int); INSERT #x VALUES (1)", &mut out, &Cancel::new());
    session.rollback("", None, &mut out, &Cancel::new());
    assert_eq!(out.env, ["begin", "rollback"]);
    assert_eq!(says(&mut session, "SELECT OBJECT_ID('tempdb..#x')"), "NULL");
    assert_eq!(
        says(
            &mut session,
            "BEGIN TRY BEGIN TRAN; SELECT CAST('x' AS int) END TRY BEGIN CATCH SELECT XACT_STATE(); ROLLBACK END CATCH"
        ),
        "-1"
    );
}

#[test]
fn sessions_are_apart() {
    let engine = engine();
    let (mut a, mut b) = (open(&engine), open(&engine));
    run(&mut a, "CREATE TABLE shared (x int); CREATE TABLE #own (x int); CREATE TABLE ##all (x int)");
    assert_eq!(says(&mut b, "SELECT COUNT(*) FROM #own"), "E208");
    assert_eq!(says(&mut b, "SELECT COUNT(*) FROM ##all"), "0");
    run(&mut a, "BEGIN TRAN; INSERT shared VALUES (1)");
    assert_eq!(says(&mut b, "SELECT COUNT(*) FROM shared"), "0");
    assert_eq!(says(&mut b, "SET LOCK_TIMEOUT 50; INSERT shared VALUES (2)"), "E1222");
    run(&mut a, "COMMIT");
    assert_eq!(says(&mut b, "INSERT shared VALUES (2); SELECT COUNT(*) FROM shared"), "2");
    assert_eq!(
        says(&mut a, "DECLARE @r int; EXEC @r = sp_getapplock 'k', 'Exclusive', 'Session', 0; SELECT @r"),
        "0"
    );
    assert_eq!(
        says(&mut b, "DECLARE @r int; EXEC @r = sp_getapplock 'k', 'Exclusive', 'Session', 20; SELECT @r"),
        "-1"
    );
    drop(a);
    assert_eq!(
        says(&mut b, "DECLARE @r int; EXEC @r = sp_getapplock 'k', 'Exclusive', 'Session', 20; SELECT @r"),
        "0"
    );
    assert_eq!(says(&mut b, "SELECT COUNT(*) FROM ##all"), "E208");
}

#[test]
fn a_reset_clears_everything_but_the_isolation_level() {
    let engine = engine();
    let mut session = open(&engine);
    let clean = session.state_summary();
    assert!(clean.recoverable);
    run(
        &mut session,
        "USE other; SET NOCOUNT ON; SET LANGUAGE German; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET CONTEXT_INFO 0x1234; EXEC sp_set_session_context 'k', 'v'; EXECUTE AS USER = 'bob'; CREATE TABLE #t (a int); BEGIN TRAN",
    );
    assert_eq!(
        says(&mut session, "SELECT DB_NAME(), USER_NAME(), SESSION_CONTEXT(N'k'), @@LANGUAGE"),
        "other|bob|v|Deutsch"
    );
    assert!(!session.state_summary().recoverable);
    let report = session.reset(false, &Cancel::new());
    assert!(report.rolled_back.is_some());
    assert_eq!(
        says(
            &mut session,
            "SELECT DB_NAME(), USER_NAME(), SESSION_CONTEXT(N'k'), CONTEXT_INFO(), @@LANGUAGE, @@TRANCOUNT, OBJECT_ID('tempdb..#t')"
        ),
        "app|dbo|NULL|NULL|us_english|0|NULL"
    );
    assert_eq!(
        says(
            &mut session,
            "SELECT transaction_isolation_level FROM sys.dm_exec_sessions WHERE session_id = @@SPID"
        ),
        "4"
    );
    run(&mut session, "BEGIN TRAN; CREATE TABLE kept (a int)");
    assert_eq!(session.reset(true, &Cancel::new()).rolled_back, None);
    assert_eq!(says(&mut session, "SELECT @@TRANCOUNT"), "1");
}

#[test]
fn set_inside_sp_executesql_ends_with_it() {
    let engine = engine();
    let mut session = open(&engine);
    let out = run(
        &mut session,
        "EXEC sp_executesql N'SET NOCOUNT ON; USE other; SELECT DB_NAME()'; SELECT DB_NAME(), @@OPTIONS & 512",
    );
    assert_eq!(out.parts.join(";"), "I5701;other;app|0");
    assert_eq!(out.env, ["db other", "db app"]);
}

#[test]
fn a_procedures_tables_end_with_it_also_when_it_is_called_by_rpc() {
    let engine = engine();
    let mut session = open(&engine);
    says(&mut session, "CREATE PROCEDURE p AS CREATE TABLE #t (n int)");
    let mut out = Transcript::default();
    session.call(&Procedure::Name("p".to_owned()), Vec::new(), true, &mut out, &Cancel::new());
    assert_eq!(says(&mut session, "SELECT n FROM #t"), "E208");
}

#[test]
fn prepared_statements_live_until_unprepared() {
    let engine = engine();
    let mut session = open(&engine);
    let text = |s: &str| Param {
        name: String::new(),
        by_ref: false,
        default: false,
        type_info: super::wire_types::type_info(super::types::SqlType::nvarchar(4000), true),
        value: Value::String(s.into()),
    };
    let int = |n: Option<i32>, by_ref| Param {
        name: String::new(),
        by_ref,
        default: false,
        type_info: TypeInfo::IntN(4),
        value: n.map_or(Value::Null, Value::Int),
    };
    let mut out = Transcript::default();
    let call = |session: &mut Session, out: &mut Transcript, id, params| {
        session.call(&Procedure::Id(id), params, true, out, &Cancel::new())
    };
    assert_eq!(
        call(
            &mut session,
            &mut out,
            13,
            vec![int(None, true), text("@a int"), text("SELECT @a * 2"), int(Some(4), false)]
        ),
        Outcome::Finished
    );
    assert_eq!(out.parts, ["8"]);
    let Some(Value::Int(handle)) = out.returned.first().cloned() else { panic!("no handle") };
    let mut out = Transcript::default();
    call(&mut session, &mut out, 12, vec![int(Some(handle), false), int(Some(5), false)]);
    assert_eq!(out.parts, ["10"]);
    call(&mut session, &mut out, 15, vec![int(Some(handle), false)]);
    call(&mut session, &mut out, 12, vec![int(Some(handle), false), int(Some(5), false)]);
    assert_eq!(out.parts, ["10", "E8179"]);
    let mut out = Transcript::default();
    session.batch("CREATE PROCEDURE doubled @a int AS SELECT @a * 2", &mut out, &Cancel::new());
    call(&mut session, &mut out, 14, vec![int(None, true), text("doubled"), int(Some(6), false)]);
    let Some(Value::Int(handle)) = out.returned.first().cloned() else { panic!("no handle") };
    call(&mut session, &mut out, 12, vec![int(Some(handle), false), int(Some(7), false)]);
    assert_eq!(out.parts, ["12", "14"]);
    let mut out = Transcript::default();
    call(
        &mut session,
        &mut out,
        2,
        vec![
            int(None, true),
            text("SELECT id FROM dbo.generate_rows(5)"),
            int(Some(1), true),
            int(Some(1), true),
            int(Some(0), true),
        ],
    );
    let Some(Value::Int(cursor)) = out.returned.first().cloned() else { panic!("no cursor") };
    let mut out = Transcript::default();
    call(
        &mut session,
        &mut out,
        7,
        vec![int(Some(cursor), false), int(Some(2), false), int(Some(0), false), int(Some(3), false)],
    );
    call(
        &mut session,
        &mut out,
        7,
        vec![int(Some(cursor), false), int(Some(2), false), int(Some(0), false), int(Some(3), false)],
    );
    assert_eq!(out.parts, ["1", "2", "3", "4", "5"]);
    call(&mut session, &mut out, 9, vec![int(Some(cursor), false)]);
    assert_eq!(out.parts.len(), 5);
}

#[test]
fn a_cancel_ends_a_wait_and_a_long_result() {
    let engine = engine();
    let mut session = open(&engine);
    let cancel = Cancel::new();
    let remote = cancel.clone();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        remote.cancel();
    });
    let begun = Instant::now();
    assert_eq!(
        session.batch("WAITFOR DELAY '00:00:30'", &mut Transcript::default(), &cancel),
        Outcome::Cancelled
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    killer.join().unwrap();
    let mut out = Transcript { stop_after: Some(1000), ..Transcript::default() };
    assert_eq!(
        session.batch("SELECT * FROM dbo.generate_rows(1000000000, 100)", &mut out, &Cancel::new()),
        Outcome::Stopped
    );
    assert_eq!(out.rows, 1000);
    assert_eq!(says(&mut session, "SELECT 1"), "1");
}

#[test]
fn a_killed_session_hears_of_it() {
    let engine = engine();
    let (mut a, mut b) = (open(&engine), open(&engine));
    let spid = b.spid();
    assert_eq!(says(&mut a, &format!("KILL {spid}")), "");
    assert_eq!(b.batch("SELECT 1", &mut Transcript::default(), &Cancel::new()), Outcome::Killed);
    assert_eq!(says(&mut a, "KILL 9999"), "E6106");
}

#[test]
fn bulk_rows_arrive_in_the_table() {
    let engine = engine();
    let mut session = open(&engine);
    run(
        &mut session,
        "CREATE TABLE b (id int NOT NULL, name nvarchar(10) NULL); INSERT BULK b ([id] int, [name] nvarchar(10)) WITH (CHECK_CONSTRAINTS)",
    );
    let columns = session.bulk_target().expect("a target").columns.clone();
    let mut rows = (0..1000).map(|n| vec![Value::Int(n), Value::String(format!("n{n}"))]);
    let mut out = Transcript::default();
    assert_eq!(session.bulk_insert(&columns, &mut rows, &mut out, &Cancel::new()), Outcome::Finished);
    assert_eq!(out.dones.last().map(|d| d.rows), Some(1000));
    assert_eq!(
        says(&mut session, "SELECT COUNT(*), MAX(id) FROM b; SELECT name FROM b WHERE id = 7"),
        "1000|999; n7"
    );
}

#[test]
fn drivers_questions_at_connect_are_answered() {
    table(&[
        ("SELECT @@MAX_PRECISION", "38"),
        (
            "SELECT CAST(SERVERPROPERTY('ProductVersion') AS varchar(20)), SERVERPROPERTY('EngineEdition')",
            "16.0.1000.6|3",
        ),
        ("select cast( @@spid as numeric ) - @@spid", "0"),
        (
            "SET TEXTSIZE 2147483647; SET ARITHABORT ON; SELECT DATABASEPROPERTYEX('app', 'Collation')",
            "SQL_Latin1_General_CP1_CI_AS",
        ),
        (
            "set ansi_nulls on set ansi_padding on set quoted_identifier on set transaction isolation level read committed set xact_abort off",
            "",
        ),
        (
            "SELECT HOST_NAME(), APP_NAME(), SUSER_SNAME(), ORIGINAL_LOGIN(), DB_NAME(), DB_ID('app')",
            "box|tests|sa|sa|app|5",
        ),
        ("SELECT name FROM sys.databases WHERE database_id > 4", "app; other"),
        (
            "SELECT program_name, date_format, quoted_identifier FROM sys.dm_exec_sessions WHERE session_id = @@SPID",
            "tests|mdy|1",
        ),
        ("EXEC sp_pkeys 'none'", ""),
        ("CREATE TABLE bc (id int, name nvarchar(5))", ""),
        (
            "SET FMTONLY ON; SELECT * FROM bc; INSERT bc VALUES (1, 'x'); SET FMTONLY OFF; SELECT COUNT(*) FROM bc",
            "0",
        ),
        (
            "USE other; EXEC app..sp_tablecollations_100 N'.[dbo].[bc]'; SELECT DB_NAME()",
            "I5701; 1|id|NULL|NULL; 2|name|0x0904D00034|SQL_Latin1_General_CP1_CI_AS; other",
        ),
        ("SELECT COUNT(*) FROM sys.dm_exec_connections", "1"),
        (
            "IF EXISTS (SELECT * FROM sys.objects WHERE object_id = OBJECT_ID(N'[dbo].[x]') AND type IN (N'U')) DROP TABLE [dbo].[x]",
            "",
        ),
    ]);
    let engine = engine();
    let mut session = open(&engine);
    assert_eq!(run(&mut session, "EXEC [sys].sp_datatype_info_100 0, @ODBCVer = 4").rows, 31);
    assert!(run(&mut session, "DBCC USEROPTIONS").rows > 8);
}

#[test]
fn a_session_that_takes_over_anothers_storage_sees_nothing_of_it() {
    let engine = engine();
    let mut first = open(&engine);
    run(
        &mut first,
        "CREATE TABLE #t (a int); SELECT RAND(7); SET DATEFORMAT dmy; BEGIN TRAN; INSERT #t VALUES (1)",
    );
    drop(first);
    let mut second = open(&engine);
    assert_eq!(
        says(
            &mut second,
            "SELECT OBJECT_ID('tempdb..#t'), @@TRANCOUNT, CONVERT(varchar(10), CAST('02/01/2024' AS date), 120)"
        ),
        "NULL|0|2024-02-01"
    );
    assert!(second.state_summary().recoverable);
}

#[test]
fn a_reset_behind_a_cancelled_request_drops_the_temporary_tables() {
    let engine = engine();
    let mut session = open(&engine);
    run(&mut session, "CREATE TABLE #t (a int)");
    let cancel = Cancel::new();
    cancel.cancel();
    let mut out = Transcript::default();
    assert_eq!(
        session.batch("SELECT id FROM dbo.generate_rows(1000000)", &mut out, &cancel),
        Outcome::Cancelled
    );
    session.reset(false, &Cancel::new());
    assert_eq!(says(&mut session, "SELECT OBJECT_ID('tempdb..#t')"), "NULL");
    run(&mut session, "CREATE TABLE #t (a int)");
    assert_eq!(
        session.batch("SELECT id FROM dbo.generate_rows(1000000)", &mut out, &cancel),
        Outcome::Cancelled
    );
    drop(session);
    assert_eq!(says(&mut open(&engine), "SELECT OBJECT_ID('tempdb..#t')"), "NULL");
}
