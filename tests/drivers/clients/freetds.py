"""FreeTDS' programs: `freetds.py tsql|bsqldb|freebcp`. What they print is the answer, without prompts and times.

tsql speaks TDS through libtds, bsqldb and freebcp through DB-Library. Modes: off, login ("request"), on ("require"), and
tds71..tds73, which are tsql and bsqldb at an older protocol version (login encryption).
"""

import os
import re
import subprocess
import sys
import tempfile

from canonical import MEGABYTES_16, SMOKE, Checks, RowsDigest, Target, digest, step

ENCRYPTION = {"off": "off", "on": "require"}
SERVER = "stand_in"


class Program:
    def __init__(self):
        self.place = tempfile.mkdtemp(prefix="tdsbouncer-freetds-")
        version = {"tds70": "7.0", "tds71": "7.1", "tds72": "7.2", "tds73": "7.3"}.get(Target.encryption, "7.4")
        settings = [
            f"[{SERVER}]",
            f"host = {Target.host}",
            f"port = {Target.port}",
            f"tds version = {version}",
            f"encryption = {ENCRYPTION.get(Target.encryption, 'request')}",
            "client charset = UTF-8",
            f"text size = {4 * MEGABYTES_16}",
        ]
        if Target.authority:
            settings += [f"ca file = {Target.authority}", "check certificate hostname = no"]
        self.path = self.write("freetds.conf", "\n".join(settings) + "\n")
        self.environment = {**os.environ, "FREETDSCONF": self.path, "LC_ALL": "C.UTF-8"}

    def write(self, name, text):
        path = os.path.join(self.place, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def run(self, *command, text="", seconds=60):
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, env=self.environment, timeout=seconds, cwd=self.place
        )
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def login(self, password=None, database=None):
        return ["-S", SERVER, "-U", Target.user, "-P", password or Target.password, "-D", database or Target.database]


class Tsql(Program):
    """Interactive: batches end with go, one result line per row, columns parted by tabs."""

    def raw(self, *sql, **changes):
        text = "".join(f"{batch}\ngo\n" for batch in sql) + "exit\n"
        return self.run("tsql", "-o", "qfh", *self.login(**changes), text=text)[1:]

    def batches(self, *sql, **changes):
        out, errors = self.raw(*sql, **changes)
        lines = [re.sub(r"^(\d+> )+", "", line) for line in out.split("\n")]
        return [line for line in lines if line != ""], said(errors)

    def answer(self, *sql):
        lines, errors = self.batches(*sql)
        return {"out": lines, "said": errors} if errors else lines


class Bsqldb(Program):
    """Batches from standard input, rows with a chosen separator; messages on standard error."""

    def raw(self, *sql, **changes):
        text = "\ngo\n".join(sql) + "\ngo\n"
        return self.run("bsqldb", "-q", "-h", "-t", "|", *self.login(**changes), text=text)[1:]

    def batches(self, *sql, **changes):
        out, errors = self.raw(*sql, **changes)
        return [line for line in out.split("\n") if line != ""], said(errors)

    def answer(self, *sql):
        lines, errors = self.batches(*sql)
        return {"out": lines, "said": errors} if errors else lines


# What the stand-in says of itself at every login, as the two libraries print it; the check "session" keeps it.
GREETING = re.compile(
    r"(Msg 50000 \(severity 0, state 1\) from \S+ Line 1:\n\s*\"tdsbouncer-sim: [^\n]*\n"
    r"|Msg 50000, Level 0, State 1\nServer '\S+', Line 1\n\s*tdsbouncer-sim: [^\n]*\n)"
)


def said(text):
    """Messages of the server and the library, without the greeting and what differs from run to run."""
    lines = []
    for line in GREETING.sub("", text).split("\n"):
        line = re.sub(r"^(\d+> )+", "", line).strip()
        if line and not re.match(r"locale |Default database|using default charset|using TDS version", line):
            lines.append(line)
    return lines


def queries(program, text_only):
    """The smoke of tsql and bsqldb; `text_only` says which values the program can't print."""
    table = Target.table
    checks = Checks(lambda error: None)
    run = checks.run

    run("greeting", lambda: bool(GREETING.search(program.raw("SELECT 1")[1])))
    run("session", lambda: program.answer("SELECT DB_NAME(), SUSER_SNAME(), @@TRANCOUNT"))
    for name, sql_type, literal, _ in SMOKE["types"]:
        if name not in text_only:
            run(f"type.{name}", lambda t=sql_type, v=literal: program.answer(f"SELECT CAST({v} AS {t}) AS v"))
    nulls = [t for n, t, _, _ in SMOKE["types"] if n not in text_only]
    run("null", lambda: program.answer(*(f"SELECT CAST(NULL AS {t}) AS v" for t in nulls)))
    run("parameter.out", lambda: program.answer(
        "DECLARE @r int; EXEC sp_executesql N'SET @o = @i * 2', N'@i int, @o int OUTPUT', @i = 21, @o = @r OUTPUT; SELECT @r AS r"
    ))
    run("procedure", lambda: program.answer(
        f"DROP PROCEDURE IF EXISTS {table}_p",
        f"CREATE PROCEDURE {table}_p @i int, @o int OUTPUT AS BEGIN SET NOCOUNT ON; SELECT @i AS i; SET @o = @i * 2; RETURN 7 END",
        f"DECLARE @r int, @s int; EXEC @s = {table}_p 21, @r OUTPUT; SELECT @s AS s, @r AS r",
        f"DROP PROCEDURE {table}_p",
    ))
    fresh = f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (a int)"
    run("transaction.text", lambda: program.answer(
        fresh, "BEGIN TRANSACTION", f"INSERT INTO {table} VALUES (1)", "SELECT @@TRANCOUNT", "ROLLBACK",
        f"SELECT COUNT(*) FROM {table}", "BEGIN TRANSACTION", f"INSERT INTO {table} VALUES (1)", "COMMIT",
        f"SELECT COUNT(*) FROM {table}",
    ))
    run("transaction.autocommit_off", lambda: [
        program.answer(fresh),
        program.answer("SET IMPLICIT_TRANSACTIONS ON", f"INSERT INTO {table} VALUES (1)", "SELECT @@TRANCOUNT"),
        program.answer(f"SELECT COUNT(*) FROM {table}"),
    ])
    run("temp_table", lambda: program.answer(
        "CREATE TABLE #t (a int, b nvarchar(20))", "INSERT INTO #t VALUES (1, N'jedna'), (2, NULL)",
        "INSERT INTO #t SELECT a + 10, b FROM #t", "SELECT a, b FROM #t ORDER BY a",
    ))
    run("temp_table.elsewhere", lambda: program.answer("SELECT a FROM #t"))
    run("rows.100000", lambda: many_rows(program))
    run("big.down", lambda: big_down(program))
    run("big.up", lambda: program.answer(f"SELECT LEN('{'0123456789abcdef' * (MEGABYTES_16 // 32)}') AS n"))
    for name, sql in [
        ("divide", "SELECT 1/0 AS v"),
        ("object", "SELECT * FROM no_such_table"),
        ("syntax", "SELECT FROM t"),
        ("raiserror", "RAISERROR('boom %d', 16, 1, 42)"),
        ("throw", "THROW 50001, 'thrown', 1"),
    ]:
        run(f"error.{name}", lambda s=sql: program.answer(s, "SELECT 'still here' AS v"))
    run("sets", lambda: program.answer("SELECT 1 AS a; SELECT 'x' AS b, 'y' AS c UNION ALL SELECT 'z', NULL; SELECT 4 AS e"))
    run("messages", lambda: program.answer("PRINT 'hello'; RAISERROR('careful', 10, 1)"))
    run("login.wrong_password", lambda: program.batches("SELECT 1", password="wrong")[1])
    run("login.unknown_database", lambda: program.batches("SELECT DB_NAME() AS d", database="no_such_database"))


def many_rows(program):
    lines, errors = program.batches(SMOKE["many_rows"])
    seen = RowsDigest()
    for line in lines:
        seen.add([cell.strip() for cell in re.split(r"[\t|]", line)])
    return {**seen.answer(), "said": errors}


def big_down(program):
    lines, errors = program.batches(f"SET TEXTSIZE {2 * MEGABYTES_16}", SMOKE["big_value"])
    return {"value": digest("\n".join(lines).strip()), "said": errors}


class Freebcp(Program):
    """Bulk copy in and out, character and native format, 16 MB in one column, a table that is not there."""

    def copy(self, *arguments):
        code, out, errors = self.run("freebcp", *arguments, *self.login()[:6])
        lines = [line for line in out.split("\n") if line.strip() and not re.search(r"Clock Time|rows per sec|^\s*$", line)]
        return {"code": code, "out": lines, "said": said(errors)}

    def read(self, name):
        with open(os.path.join(self.place, name), "rb") as file:
            return file.read()

    def smoke(self):
        table = f"{Target.database}..{Target.table}"
        checks = Checks(lambda error: None)
        columns = "id int NOT NULL, name varchar(50) NULL, price decimal(10,2) NULL, at datetime NULL, f float NULL, b varbinary(20) NULL"
        tsql = Tsql()

        def character():
            tsql.batches(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})")
            rows = "".join(
                f"{n}\t{'' if n % 5 == 0 else f'row {n}'}\t{n / 4:.2f}\t2024-01-01 00:00:{n % 60:02d}\t{n}.5\t{n:04x}\n"
                for n in range(1, 1001)
            )
            self.write("in.txt", rows)
            said_in = self.copy(table, "in", "in.txt", "-c")
            totals = tsql.answer(f"SELECT COUNT(*), COUNT(name), SUM(id), SUM(price), SUM(f) FROM {table}")
            said_out = self.copy(table, "out", "out.txt", "-c")
            return {"in": said_in, "totals": totals, "out": said_out, "file": digest(self.read("out.txt"))}

        def native():
            said_out = self.copy(table, "out", "out.bcp", "-n")
            tsql.batches(f"DELETE FROM {table}")
            said_in = self.copy(table, "in", "out.bcp", "-n")
            totals = tsql.answer(f"SELECT COUNT(*), COUNT(name), SUM(id), SUM(price), SUM(f) FROM {table}")
            return {"out": said_out, "in": said_in, "totals": totals}

        def query():
            said_out = self.copy("SELECT TOP 3 id, name FROM " + table + " ORDER BY id", "queryout", "query.txt", "-c")
            return {"out": said_out, "file": self.read("query.txt").decode()}

        def many():
            tsql.batches(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (a int, b varchar(30))")
            self.write("many.txt", "".join(f"{n}\tvalue {n}\n" for n in range(100_000)))
            said_in = self.copy(table, "in", "many.txt", "-c", "-b", "20000")
            totals = tsql.answer(f"SELECT COUNT(*), SUM(CAST(a AS bigint)), MAX(b) FROM {table}")
            said_out = self.copy(table, "out", "many_out.txt", "-c")
            lines = sorted(self.read("many_out.txt").split(b"\n"))
            return {"in": said_in, "totals": totals, "out": said_out, "file": digest(b"\n".join(lines))}

        def big():
            tsql.batches(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (a int, b text)")
            self.write("big.txt", "1\t" + "0123456789abcdef" * (MEGABYTES_16 // 16) + "\n")
            said_in = self.copy(table, "in", "big.txt", "-c", "-T", str(2 * MEGABYTES_16))
            totals = tsql.answer(f"SELECT a, DATALENGTH(b) FROM {table}")
            said_out = self.copy(table, "out", "big_out.txt", "-c", "-T", str(2 * MEGABYTES_16))
            return {"in": said_in, "totals": totals, "out": said_out, "file": digest(self.read("big_out.txt"))}

        checks.run("bulk.character", character)
        checks.run("bulk.native", native)
        checks.run("bulk.query", query)
        checks.run("bulk.100000", many)
        checks.run("bulk.16MB", big)
        checks.run("bulk.no_table", lambda: self.copy(f"{Target.database}..no_such_table", "out", "none.txt", "-c"))


def holds(program, *command):
    """Feeds one running program batch by batch; the runner looks at the session when each has been answered."""
    table = Target.table
    running = subprocess.Popen(
        [*command, *program.login()], env=program.environment, cwd=program.place, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    insert = f"INSERT INTO {table} VALUES (1)"
    for name, sql in [
        ("query", "SELECT 1 AS n"),
        ("set", "SET LOCK_TIMEOUT 1234"),
        (None, f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (a int)"),
        ("insert", insert),
        ("insert.next", "SELECT 1 AS n"),
        ("transaction.begun", "BEGIN TRANSACTION"),
        ("transaction", insert),
        ("transaction.ended", "COMMIT"),
        ("temp_table", "CREATE TABLE #t (a int)"),
        ("temp_table.ended", "DROP TABLE #t"),
        ("cursor", "DECLARE c CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2)) v(n); OPEN c"),
        ("cursor.ended", "CLOSE c; DEALLOCATE c"),
        ("autocommit_off.begun", "SET IMPLICIT_TRANSACTIONS ON"),
        ("autocommit_off", f"SELECT a FROM {table}"),
        ("autocommit_off.ended", "COMMIT"),
    ]:
        running.stdin.write(f"{sql}\ngo\n")
        running.stdin.flush()
        step(name or "", fed=True)
    running.stdin.close()
    running.wait(20)


program = sys.argv[1]
if Target.part == "holds":
    if program == "tsql":
        holds(Tsql(), "tsql")
    else:
        holds(Bsqldb(), "bsqldb")
elif program == "tsql":
    queries(Tsql(), ())
elif program == "bsqldb":
    # It prints "type N not supported" for these, and writes past its buffer for a decimal of 38 digits.
    queries(Bsqldb(), ("date", "time", "datetime2", "datetimeoffset", "guid", "sql_variant", "decimal38"))
else:
    Freebcp().smoke()
