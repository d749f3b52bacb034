//! Requests that write and read tables, temporary and permanent, and requests that fail at it.

use super::{Author, Writes};
use crate::request::Ask;
use crate::script::Step;

impl Author {
    /// The client's own tables and procedures, in both databases where that shows which one is the current.
    pub(super) fn found(&mut self) {
        let id = self.client;
        let texts = [
            format!("CREATE TABLE t{id} (id int IDENTITY(1, 1), n int NULL, s nvarchar(20) NULL)"),
            format!("CREATE TABLE k{id} (id int NOT NULL CONSTRAINT pk{id} PRIMARY KEY, n int NOT NULL)"),
            format!(
                "CREATE PROCEDURE p{id} @a int, @b int OUTPUT AS SET @b = @a + 1; SELECT @a AS a; RETURN 7"
            ),
            format!(
                "CREATE PROCEDURE q{id} @n int AS SET NOCOUNT ON; SET ANSI_NULLS OFF; SET DATEFIRST 2; CREATE TABLE #inside (n int); INSERT #inside VALUES (@n); SELECT n, @@DATEFIRST FROM #inside"
            ),
            format!("CREATE PROCEDURE s{id} @n int AS SELECT @n AS n, @@TRANCOUNT; RETURN 3"),
            format!(
                "CREATE PROCEDURE takes{id} @name nvarchar(50) AS EXEC sp_getapplock @name, 'Exclusive', 'Session', 1000"
            ),
            format!(
                "CREATE PROCEDURE gives{id} @name nvarchar(50) AS EXEC sp_releaseapplock @name, 'Session'"
            ),
            format!(
                "CREATE PROCEDURE remembers{id} @v nvarchar(20) AS EXEC sp_set_session_context N'k1', @v"
            ),
            format!("CREATE PROCEDURE marks{id} AS SET CONTEXT_INFO 0x{:04}", 7000 + id),
            format!(
                "CREATE PROCEDURE opens{id} AS DECLARE c1 CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (7), (8)) v(n); OPEN c1"
            ),
            format!(
                "CREATE PROCEDURE sets{id} AS SET DATEFIRST 4; SET LOCK_TIMEOUT 123456; SET LANGUAGE British; EXEC('SET NOCOUNT ON; SET TEXTSIZE 20'); SELECT @@DATEFIRST, @@LOCK_TIMEOUT"
            ),
            format!("CREATE PROCEDURE r{id} AS BEGIN TRANSACTION; INSERT t{id} (n) VALUES (77)"),
            "USE depot".to_owned(),
            format!("CREATE TABLE t{id} (id int, n int, s nvarchar(20))"),
            format!("INSERT t{id} VALUES (1, {id}, N'depot')"),
            "USE shop".to_owned(),
        ];
        for text in texts {
            self.batch(text);
        }
    }

    pub(super) fn use_table(&mut self) {
        if self.random.chance(55) {
            self.may_write(Writes::Temporary);
            self.use_temporary();
        } else {
            self.may_write(Writes::Permanent);
            self.use_permanent();
        }
    }

    pub(super) fn use_temporary(&mut self) {
        let (id, n, m) = (self.client, self.number(100), self.number(100));
        let table = self.pick(&["#a", "#a", "#b"]);
        let text = match self.random.below(16) {
            0..4 => format!("CREATE TABLE {table} (id int IDENTITY, n int, s nvarchar(20))"),
            4..7 => format!("INSERT {table} (n, s) VALUES ({n}, N'client {id}'), ({m}, NULL)"),
            7 => format!("SELECT id, n, s FROM {table} ORDER BY id"),
            8 => format!("UPDATE {table} SET n = n + 1, s = N'changed {id}' WHERE n > {n}"),
            9 => format!("DELETE FROM {table} WHERE n < {n}"),
            10..12 => format!("DROP TABLE {table}"),
            12 => format!("SELECT {n} AS n, N'into {id}' AS s INTO #b"),
            13 => format!("IF OBJECT_ID('tempdb..{table}') IS NOT NULL DROP TABLE {table}"),
            14 => format!(
                "DECLARE @v TABLE (n int); INSERT @v VALUES ({n}), ({m}); SELECT n FROM @v ORDER BY n; SELECT @@ROWCOUNT"
            ),
            _ => return self.load_rows(),
        };
        self.batch(text);
    }

    /// A bulk load into a temporary table: the announcement, and the rows behind it.
    fn load_rows(&mut self) {
        let count = 1 + self.random.below(30);
        let rows = (0..count).map(|_| self.number(1000)).collect();
        self.batch("IF OBJECT_ID('tempdb..#bulk') IS NULL CREATE TABLE #bulk (n int, s nvarchar(20))");
        self.batch("INSERT BULK #bulk (n int, s nvarchar(20))");
        self.step(Step::ask(Ask::Rows(rows)));
        self.batch("SELECT COUNT(*), SUM(n), MAX(s) FROM #bulk");
        if self.random.chance(60) {
            self.batch("DROP TABLE #bulk");
        }
    }

    pub(super) fn use_permanent(&mut self) {
        let (id, session, n, m) = (self.client, self.session, self.number(100), self.number(100));
        let text = match self.random.below(16) {
            0..4 => format!("INSERT t{id} (n, s) VALUES ({n}, N'row {m}')"),
            // Not @@IDENTITY: behind an INSERT that fails it is an earlier one's, wherever that was (README, limits).
            4 => format!("INSERT t{id} (n) VALUES ({n}); SELECT SCOPE_IDENTITY(), @@ROWCOUNT"),
            5 => format!("INSERT t{id} (n) OUTPUT inserted.id, inserted.n VALUES ({n}), ({m})"),
            6 => format!("UPDATE t{id} SET n = {n} WHERE id % 3 = {}", m % 3),
            7 => format!("DELETE FROM t{id} WHERE id % 5 = {}", m % 5),
            8 => format!("SELECT TOP (5) id, n, s FROM t{id} ORDER BY id DESC"),
            9 => format!("INSERT k{id} VALUES ({}, {n})", m % 20),
            10 => format!("DELETE FROM k{id} WHERE id = {}", m % 20),
            11 => format!("SET IDENTITY_INSERT t{id} ON"),
            12 => format!("INSERT t{id} (id, n) VALUES ({}, {n})", 100_000 + m),
            13 => format!("SET IDENTITY_INSERT t{id} OFF"),
            14 => format!("CREATE TABLE ##g{id}_{session} (n int); INSERT ##g{id}_{session} VALUES ({n})"),
            _ => format!("SELECT n FROM ##g{id}_{session}"),
        };
        self.batch(text);
    }

    /// Requests that fail, with what they leave of their batch and transaction.
    pub(super) fn fail(&mut self) {
        let id = self.client;
        let in_permanent = self.random.chance(40);
        if in_permanent {
            self.may_write(Writes::Permanent);
            let text = match self.random.below(4) {
                0 => format!(
                    "INSERT k{id} VALUES (500, 1); INSERT k{id} VALUES (500, 2); SELECT COUNT(*) FROM k{id}"
                ),
                1 => format!("INSERT k{id} VALUES (501, NULL); SELECT @@ERROR"),
                2 => format!(
                    "BEGIN TRY INSERT k{id} VALUES (502, 1); INSERT k{id} VALUES (502, 2) END TRY BEGIN CATCH SELECT ERROR_NUMBER(), XACT_STATE(), @@TRANCOUNT; IF @@TRANCOUNT > 0 ROLLBACK END CATCH"
                ),
                _ => format!("DELETE FROM k{id} WHERE id >= 500; SELECT 1/0; SELECT @@ROWCOUNT"),
            };
            return self.batch(text);
        }
        let text = self.pick(&[
            "SELECT 1/0",
            "SELECT 1; SELECT CAST('x' AS int); SELECT 2",
            "SELECT * FROM no_such_table; SELECT 3",
            "SELEC 1",
            "RAISERROR('a warning', 10, 1)",
            "RAISERROR('an error', 16, 1); SELECT @@ERROR",
            "THROW 50001, 'thrown', 1; SELECT 4",
            "EXEC no_such_procedure",
            "BEGIN TRY SELECT CAST('y' AS int) END TRY BEGIN CATCH SELECT ERROR_NUMBER(), XACT_STATE() END CATCH",
            "PRINT 'hello'",
            "COMMIT",
            "ROLLBACK",
            "DROP TABLE no_such_table",
        ]);
        self.batch(text);
    }
}
