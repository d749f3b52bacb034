//! Statements and what the scan makes of them; and that spelling them differently changes nothing.

use std::fmt::Write;

use proptest::prelude::*;

use super::{Finding, Procedures, Scope, TextScanner, Verdict};

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn scan_in(scanner: &mut TextScanner, text: &str, chunk: usize) -> (String, Verdict) {
    let procedures = Procedures::new().holding("p_holds");
    let mut seen = String::new();
    let mut note = |finding: Finding<'_>| {
        let _ = match finding {
            Finding::Begins(hold, name) => write!(seen, "+{hold:?} {name}"),
            Finding::Ends(hold, name) => write!(seen, "-{hold:?} {name}"),
            Finding::EndsAll(hold) => write!(seen, "-{hold:?} *"),
            Finding::Use(name) => write!(seen, "use {name}"),
            Finding::Set { option, value } => write!(seen, "{option}={value}"),
            Finding::ReadsPrevious { value, surely } => {
                write!(seen, "{value:?}{}", if surely { "!" } else { "?" })
            }
            Finding::ExecutesHandle => write!(seen, "handle"),
            Finding::ReadsProcessId => write!(seen, "spid"),
            Finding::Calls(name) => write!(seen, "call {name}"),
            Finding::Unsure(_) => write!(seen, "unsure"),
        };
        seen = seen.trim_end().to_owned() + "|";
    };
    for piece in utf16(text).chunks(chunk) {
        scanner.feed(piece, &procedures, &mut note);
    }
    let verdict = scanner.finish(&procedures, &mut note);
    (seen.trim_end_matches('|').to_owned(), verdict)
}

fn scan(text: &str) -> (String, Verdict) {
    scan_in(&mut TextScanner::new(Scope::Batch), text, usize::MAX)
}

/// Text, findings, whether the connection is held for what the batch leaves.
const TABLE: &[(&str, &str, bool)] = &[
    // Nothing.
    ("", "", false),
    (";", "", false),
    ("select 1", "", false),
    ("select * from t where a = 'drop table #t' -- exec sp_setapprole", "", false),
    ("insert into t (a) values (1)", "", false),
    ("insert into #t select 1", "", false),
    ("insert #t values (1)", "", false),
    ("update t set a = 1, rowcount = 2 where b = 3", "", false),
    ("update t set rowcount = 1", "", false),
    ("update t set context_info = 0x01", "", false),
    ("delete from #t", "", false),
    (
        "merge into t using s on t.a = s.a when matched then update set a = 1 when not matched then insert (a) values (1);",
        "",
        false,
    ),
    ("with a as (select 1 b) select * from a", "", false),
    ("select case when a = 1 then 2 else 3 end from t", "", false),
    ("if 1 = 1 begin select 1 end else begin select 2 end", "", false),
    ("declare @t table (i int); insert into @t values (1); select * from @t", "", false),
    ("grant execute on p to bob", "", false),
    ("grant create table, insert to bob", "", false),
    ("deny exec to bob", "", false),
    ("revoke grant option for execute on p from bob", "", false),
    ("create table t (i int references u on delete set null on update cascade)", "", false),
    ("create table [a#b] (i int)", "", false),
    ("alter table t drop column if exists c", "", false),
    ("drop view if exists v", "", false),
    ("alter database d set recovery simple", "", false),
    ("alter database d set quoted_identifier on", "", false),
    ("alter database scoped configuration set maxdop = 4", "", false),
    ("alter table t set (lock_escalation = auto)", "", false),
    ("waitfor delay '00:00:01'", "", false),
    ("kill 57", "", false),
    ("reconfigure", "", false),
    ("begin dialog @h from service a to service 'b' on contract c", "", false),
    ("end conversation @h", "", false),
    ("receive top (1) * from q", "", false),
    ("bulk insert t from 'f'", "", false),
    ("enable trigger r on t", "", false),
    ("print 'x'", "", false),
    ("raiserror ('x', 16, 1)", "", false),
    ("throw 50000, 'x', 1", "", false),
    ("select [@@spid], '@@spid', scope_identity from t", "", false),
    ("select @@trancount, @@version, @@options", "", false),
    // Temporary tables.
    ("create table #t (i int)", "+TempTable #t", true),
    ("CREATE TABLE ##g (i int)", "+TempTable ##g", true),
    ("create table [#a b] (i int)", "+TempTable #a b", true),
    ("create table \"#q\" (i int)", "+TempTable #q", true),
    ("create table tempdb..#t (i int)", "+TempTable #t", true),
    ("create table tempdb.dbo.[#t] (i int)", "+TempTable #t", true),
    ("select * into #t from u", "+TempTable #t", true),
    ("select 1 a into #t", "+TempTable #t", true),
    ("select * into t from u", "", false),
    ("drop table #t", "-TempTable #t", false),
    ("drop table if exists #t, dbo.u, #v", "-TempTable #t|-TempTable #v", false),
    ("if object_id('tempdb..#t') is not null drop table #t", "", false),
    ("if object_id('tempdb..#t') is not null drop table #t create table #t (i int)", "+TempTable #t", true),
    (
        "create table #t (i int) insert #t values (1) select * from #t drop table #t",
        "+TempTable #t|-TempTable #t",
        false,
    ),
    ("if 1 = 1 drop table #t; create table #t (i int); drop table #t", "+TempTable #t|-TempTable #t", false),
    ("create table #t (i int); if 1 = 1 begin drop table #t end", "+TempTable #t", true),
    ("create table #t (i int); begin try drop table #t end try begin catch end catch", "+TempTable #t", true),
    ("create table #t (i int); if 1 = 1 return; drop table #t", "+TempTable #t", true),
    (
        "create table #t (i int); if 1 = 0 begin select case when 1 = 1 then 1 end end drop table #t",
        "+TempTable #t|-TempTable #t",
        false,
    ),
    ("while 1 = 1 begin create table #t (i int) drop table #t end", "+TempTable #t", true),
    ("create procedure #p as select 1", "+TempProcedure #p", true),
    ("drop procedure #p", "-TempProcedure #p", false),
    // Bodies do not run now.
    ("create procedure p as create table #t (i int) exec sp_setapprole 'a', 'b'", "", false),
    ("create or alter proc dbo.p @a int as set nocount on", "", false),
    ("alter procedure p as select @@spid", "", false),
    ("create function f () returns int as begin return @@rowcount end", "", false),
    ("create trigger r on t for insert as select @@identity", "", false),
    ("create view v as select @@spid a", "", false),
    ("create partition function f (int) as range left for values (1); select @@spid", "spid", false),
    (
        "create table #t (i int) begin tran drop table #t rollback",
        "+TempTable #t|+Transaction|-TempTable #t|+TempTable|-Transaction *",
        true,
    ),
    ("set noexec on drop table #t set noexec off", "+Setting noexec|-Setting noexec", false),
    ("update t set a = 1 output inserted.a into u select @@identity", "Identity!", false),
    ("select * into u from t select @@identity", "", false),
    // Cursors.
    ("declare c cursor for select 1", "+Cursor c", true),
    ("declare c cursor local fast_forward for select 1", "", false),
    ("declare c insensitive scroll cursor for select 1", "+Cursor c", true),
    ("declare c cursor global static for select 1 for update of a", "+Cursor c", true),
    ("declare @c cursor; set @c = cursor for select 1", "", false),
    (
        "declare c cursor for select 1 open c fetch next from c close c deallocate c",
        "+Cursor c|-Cursor c",
        false,
    ),
    ("deallocate global c", "-Cursor c", false),
    ("deallocate @c", "", false),
    ("exec sp_cursoropen @c output, N'select 1'", "+Cursor", true),
    // Locks, contexts, documents, flags, objects.
    ("exec sp_getapplock 'a', 'exclusive', 'session'", "+ApplicationLock", true),
    ("exec @r = sys.sp_getapplock @resource = 'a'", "+ApplicationLock", true),
    ("sp_getapplock 'a'", "+ApplicationLock", true),
    ("exec sp_releaseapplock 'a'", "-ApplicationLock", false),
    ("exec mine.dbo.sp_releaseapplock 'a'", "call sp_releaseapplock", false),
    (
        "exec sp_getapplock 'a' exec sp_getapplock 'b' exec sp_releaseapplock 'a'",
        "+ApplicationLock|+ApplicationLock|-ApplicationLock",
        true,
    ),
    ("while 1 = 1 exec sp_getapplock 'a'", "unsure|+ApplicationLock", true),
    ("execute as user = 'bob'", "+SecurityContext", true),
    ("execute as login = 'bob'; select 1; revert", "+SecurityContext|-SecurityContext", false),
    ("execute as user = 'bob' with no revert", "+SecurityContext|+SecurityContextForGood", true),
    ("execute as user = 'bob' with cookie into @c", "+SecurityContext", true),
    ("setuser 'bob'", "+SecurityContext", true),
    ("exec sp_setapprole 'a', 'b'", "+ApplicationRole", true),
    ("exec [sys].[SP_SetAppRole] 'a', 'b'", "+ApplicationRole", true),
    ("{call sp_setapprole('a', 'b')}", "+ApplicationRole", true),
    ("set context_info 0x01", "+ContextInfo", true),
    ("set context_info @c", "+ContextInfo", true),
    ("exec sp_set_session_context 'a', 1", "+SessionContext", true),
    ("exec sp_xml_preparedocument @h output, @x", "+XmlDocument", true),
    (
        "exec sp_xml_preparedocument @h output, @x; select 1; exec sp_xml_removedocument @h",
        "+XmlDocument|-XmlDocument",
        false,
    ),
    ("dbcc traceon (1204, 3604)", "+TraceFlag 1204|+TraceFlag 3604", true),
    ("dbcc traceon(3604) dbcc traceoff(3604)", "+TraceFlag 3604|-TraceFlag 3604", false),
    ("dbcc useroptions", "", false),
    ("exec sp_oacreate 'a', @o output", "+OleObject", true),
    ("set identity_insert dbo.t on", "+IdentityInsert dbo.t", true),
    (
        "set identity_insert t on insert t (i) values (1) set identity_insert t off",
        "+IdentityInsert t|-IdentityInsert t",
        false,
    ),
    ("open symmetric key k decryption by password = 'x'", "+OpenKey", true),
    ("insert bulk t (i int) with (check_constraints)", "+BulkLoad", true),
    ("insert bulk #t (i int)", "+BulkLoad", true),
    ("alter database d set single_user with rollback immediate", "+SingleUser", true),
    ("exec p_holds", "+ListedProcedure p_holds", true),
    // Transactions.
    ("begin tran", "+Transaction", true),
    ("begin transaction t1 with mark", "+Transaction", true),
    ("begin distributed tran", "+Transaction", true),
    ("begin tran update t set a = 1 commit", "+Transaction|-Transaction", false),
    ("begin tran begin tran commit", "+Transaction|+Transaction|-Transaction", true),
    ("begin tran begin tran rollback", "+Transaction|+Transaction|-Transaction *", false),
    ("rollback tran s1", "", false),
    ("save tran s1", "", false),
    ("begin tran if @@error <> 0 rollback else commit", "+Transaction", true),
    ("IF @@TRANCOUNT > 0 ROLLBACK TRAN", "", false),
    ("IF @@TRANCOUNT > 0 COMMIT TRAN", "", false),
    // Replayable state.
    ("use d", "use d", false),
    ("use [my db]; select 1", "use my db", false),
    ("select 1 from t option (use hint('x'))", "", false),
    ("set nocount on", "nocount=on", false),
    ("SET ANSI_NULLS, ANSI_PADDING OFF", "ansi_nulls=off|ansi_padding=off", false),
    ("set nocount on update t set a = 1 set nocount off", "nocount=on|nocount=off", false),
    (
        "set dateformat dmy set datefirst 1 set language N'fran''ais'",
        "dateformat=dmy|datefirst=1|language=N'fran''ais'",
        false,
    ),
    ("set lock_timeout -1", "lock_timeout=-1", false),
    ("set lock_timeout @t", "+Setting lock_timeout", true),
    ("set lock_timeout @t set lock_timeout 5", "+Setting lock_timeout|lock_timeout=5", false),
    ("if 1 = 1 set nocount on", "+Setting nocount", true),
    ("set rowcount 10 select 1 set rowcount 0", "rowcount=10|rowcount=0", false),
    (
        "set transaction isolation level read uncommitted",
        "transaction isolation level=read uncommitted",
        false,
    ),
    (
        "set transaction isolation level repeatable read select 1",
        "transaction isolation level=repeatable read",
        false,
    ),
    ("set transaction isolation level snapshot", "transaction isolation level=snapshot", false),
    ("set ansi_null_dflt_on on", "ansi_null_dflt_off=off|ansi_null_dflt_on=on", false),
    ("set implicit_transactions on", "implicit_transactions=on", false),
    ("set statistics io, time on", "+Setting statistics io|+Setting statistics time", true),
    ("set fmtonly on select 1 set fmtonly off", "+Setting fmtonly|-Setting fmtonly", false),
    ("set showplan_xml on", "+Setting showplan_xml", true),
    ("set something on", "unsure", true),
    ("set @a = 1", "", false),
    // Values of the previous batch.
    ("select @@identity", "Identity!", false),
    ("select scope_identity()", "ScopeIdentity!", false),
    ("insert into t values (1); select scope_identity()", "", false),
    ("insert into t values (1) select SCOPE_IDENTITY() AS GENERATED_KEYS", "", false),
    ("insert into t select @@identity", "Identity!", false),
    ("insert into t values (scope_identity())", "ScopeIdentity!", false),
    ("if 1 = 1 insert into t values (1); select @@identity", "Identity?", false),
    ("exec p select @@identity", "call p|Identity?", false),
    ("select @@rowcount", "RowCount!", false),
    ("declare @r int; select @r = @@rowcount", "RowCount!", false),
    ("update t set a = 1 select @@rowcount, rowcount_big()", "", false),
    ("if @@error <> 0 select 1", "Error!", false),
    ("while @@fetch_status = 0 fetch next from c into @a", "FetchStatus!", false),
    ("fetch next from c into @a while @@fetch_status = 0 fetch next from c into @a", "", false),
    // Process identity.
    ("select @@spid", "spid", false),
    ("select * from sys.dm_exec_sessions where session_id = @@SPID", "spid|spid", false),
    ("exec sp_who", "spid", false),
    ("sp_who2 active", "spid", false),
    // Calls.
    ("exec p 1, @a output", "call p", false),
    ("dbo.p 'a'", "call p", false),
    ("exec d..[my p];1", "call my p", false),
    ("insert into t exec p", "call p", false),
    ("exec sp_help 't'", "", false),
    ("exec ('create table #t (i int)')", "+DynamicText", true),
    ("exec @p 1", "+DynamicText", true),
    ("exec sp_executesql N'select 1'", "+DynamicText", true),
    ("again: select 1 if 1 = 1 goto again", "", false),
    // Not understood.
    ("select 'a", "unsure", true),
    ("select 1 /* a", "unsure", true),
    ("select [a", "unsure", true),
    ("select 1\u{a0}exec p", "unsure|call p", true),
    ("end", "unsure", true),
    ("begin select 1", "unsure", true),
    // What drivers send.
    ("SET QUOTED_IDENTIFIER ON", "quoted_identifier=on", false),
    ("select cast( @@spid as numeric )", "spid", false),
    (
        "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        "transaction isolation level=read uncommitted",
        false,
    ),
    (
        "set ansi_nulls on\nset ansi_null_dflt_on on\nset ansi_padding on\nset ansi_warnings on\nset arithabort on\n\
         set concat_null_yields_null on\nset cursor_close_on_commit off\nset datefirst 7\nset dateformat mdy\n\
         set implicit_transactions off\nset language us_english\nset numeric_roundabort off\n\
         set quoted_identifier on\nset textsize 2147483647\nset transaction isolation level read committed\nset xact_abort off",
        "ansi_nulls=on|ansi_null_dflt_off=off|ansi_null_dflt_on=on|ansi_padding=on|ansi_warnings=on|arithabort=on|\
         concat_null_yields_null=on|cursor_close_on_commit=off|datefirst=7|dateformat=mdy|implicit_transactions=off|\
         language=us_english|numeric_roundabort=off|quoted_identifier=on|textsize=2147483647|\
         transaction isolation level=read committed|xact_abort=off",
        false,
    ),
    ("exec [sys].sp_datatype_info_100 0, @ODBCVer = 4", "", false),
    ("exec sp_columns N't', N'dbo', N'd', NULL, @ODBCVer = 3", "", false),
    ("EXEC sp_tables_ex_100 N's'", "", false),
    ("SET FMTONLY ON SELECT * FROM t SET FMTONLY OFF", "+Setting fmtonly|-Setting fmtonly", false),
    (
        "set implicit_transactions on SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "implicit_transactions=on|transaction isolation level=serializable",
        false,
    ),
    (
        "SELECT @@MAX_PRECISION\r\nSET TRANSACTION ISOLATION LEVEL READ COMMITTED\r\nSET IMPLICIT_TRANSACTIONS OFF\r\nSET QUOTED_IDENTIFIER ON\r\nSET TEXTSIZE 2147483647",
        "transaction isolation level=read committed|implicit_transactions=off|quoted_identifier=on|textsize=2147483647",
        false,
    ),
    ("SET TEXTSIZE 64512", "textsize=64512", false),
    ("BEGIN TRANSACTION", "+Transaction", true),
];

#[test]
fn every_statement_has_its_verdict() {
    let mut wrong = String::new();
    for (text, findings, held) in TABLE {
        let (seen, verdict) = scan(text);
        if seen != *findings || verdict.holds.is_empty() == *held {
            let _ =
                writeln!(wrong, "{text}\n   wanted {findings} {held}\n   got    {seen} {:?}", verdict.holds);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_chunking_gives_the_same_result_and_nothing_is_left_for_the_next_text() {
    let mut scanner = TextScanner::new(Scope::Batch);
    for (text, ..) in TABLE {
        for chunk in 1..8 {
            scanner.restart(Scope::Batch);
            assert_eq!(scan_in(&mut scanner, text, chunk), scan(text), "{text}");
        }
    }
}

#[test]
fn what_a_called_text_does_to_its_own_state_ends_with_it() {
    let texts = [
        ("create table #t (i int) set nocount on use d select scope_identity()", ""),
        ("create table ##t (i int)", "+TempTable ##t"),
        ("set context_info 0x01 select @@identity", "+ContextInfo|Identity?"),
        ("select @@spid", "spid"),
    ];
    for (text, findings) in texts {
        let (seen, _) = scan_in(&mut TextScanner::new(Scope::Called), text, usize::MAX);
        // @@IDENTITY is the session's, and SET does not change it.
        assert_eq!(seen.replace("Identity!", "Identity?"), findings, "{text}");
    }
}

#[test]
fn what_surely_sets_the_outcome() {
    for (text, sets) in [("select 1", true), ("set nocount on", true), ("dbcc useroptions", false)] {
        assert_eq!(scan(text).1.sets_outcome, sets, "{text}");
    }
}

#[test]
fn a_load_that_is_announced_has_set_no_identity() {
    for (text, sets) in [
        ("insert t values (1)", true),
        ("select a into #t from t", true),
        ("insert bulk t (i int)", false),
        ("merge t using u on 1 = 1 when matched then delete;", false),
        ("if 1 = 1 insert t values (1)", false),
    ] {
        assert_eq!(scan(text).1.sets_identity, sets, "{text}");
    }
}

#[test]
fn the_verdict_says_what_the_next_batch_may_read() {
    assert!(scan("insert t values (1)").1.leaves_identity);
    assert!(scan("insert t values (1)").1.leaves_row_count);
    assert!(!scan("insert t values (1) set nocount on").1.leaves_row_count);
    assert!(!scan("select * from t").1.leaves_row_count, "nobody asks for what its client counts itself");
    assert!(!scan("set nocount on").1.leaves_identity);
}

/// The same words, each in upper or lower case, the same word always alike (names may be case-sensitive).
fn recased(text: &str, seed: u64) -> String {
    let flip = |word: &str| {
        let letters = word.trim_end_matches([' ', ',', ';', '(', ')', '.', '=', '\r', '\n']);
        let sum =
            letters.bytes().fold(seed, |sum, byte| sum.rotate_left(9) ^ u64::from(byte.to_ascii_lowercase()));
        if sum.count_ones() % 2 == 0 { word.to_ascii_uppercase() } else { word.to_ascii_lowercase() }
    };
    text.split_inclusive(|c: char| !(c.is_alphanumeric() || "_#@".contains(c))).map(flip).collect()
}

/// White space and comments between words.
fn separators(hidden: &str) -> [String; 6] {
    let line = hidden.replace(['\r', '\n'], " ");
    let block = hidden.replace("/*", "").replace("*/", "");
    [
        "\t \r\n".into(),
        "\u{1}\u{c}".into(),
        format!("/*{block}*/"),
        format!("/* /*{block}*/ ' */"),
        format!("--{line}\r\n"),
        format!(" --{line}\n/**/"),
    ]
}

fn row() -> impl Strategy<Value = usize> {
    0..TABLE.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn white_space_comments_and_case_change_nothing(
        row in row(), hidden in row(), seed: u64, choices in prop::collection::vec(0..6usize, 40),
    ) {
        let (text, ..) = TABLE[row];
        prop_assume!(!text.contains(['\'', '"', '[', '/']) && !text.contains("--"));
        let separators = separators(TABLE[hidden].0);
        let mut choices = choices.iter().cycle();
        let spelled: String = recased(text, seed)
            .chars()
            .map(|c| if c == ' ' { separators[*choices.next().unwrap()].clone() } else { c.to_string() })
            .collect();
        let (seen, verdict) = scan(&spelled);
        let (wanted, plain) = scan(text);
        prop_assert_eq!(seen.to_lowercase(), wanted.to_lowercase(), "{}", spelled);
        prop_assert_eq!(verdict, plain, "{}", spelled);
    }

    #[test]
    fn text_hidden_in_quotes_changes_nothing(row in row(), hidden in row()) {
        let hidden = TABLE[hidden].0;
        let around = |inside: &str| {
            let (single, double, bracket) =
                (inside.replace('\'', "''"), inside.replace('"', "\"\""), inside.replace(']', "]]"));
            scan(&format!("select '{single}', N'{single}', a [. {bracket}], \". {double}\" from t; {}", TABLE[row].0))
        };
        prop_assert_eq!(around(hidden), around("x"));
    }

    #[test]
    fn any_chunking_of_any_text_gives_the_same_result(text in "[a-c@#'\"\\[\\]/*\\- \\r\\n.0x(),;=]{0,40}", chunk in 1..9usize) {
        prop_assert_eq!(scan_in(&mut TextScanner::new(Scope::Batch), &text, chunk), scan(&text));
    }

    #[test]
    fn any_row_behind_any_other_keeps_its_beginnings(first in row(), second in row()) {
        let (first, second) = (TABLE[first].0, TABLE[second].0);
        let whole = |text: &str| !scan(text).0.contains("unsure") && ![" procedure", " proc ", " function ", " trigger ", " view "].iter().any(|body| text.contains(body)) && !text.contains("--");
        prop_assume!(whole(first) && whole(second) && !second.starts_with("sp_") && !second.starts_with("dbo.") && !second.starts_with('{'));
        let (seen, _) = scan(&format!("{first}; {second}"));
        for finding in scan(second).0.split('|').filter(|finding| finding.starts_with('+')) {
            prop_assert!(seen.contains(finding), "{first}; {second}: {seen}");
        }
    }
}
