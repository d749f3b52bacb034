"""The smoke for drivers with Python's DB-API: what they share; an adapter per driver says what differs."""

import datetime
import decimal
import threading
import time
import uuid

from canonical import MEGABYTES_16, SMOKE, Checks, RowsDigest, Target, canonical, digest, rows_of, step

BULK_ROWS = [
    (n, None if n % 5 == 0 else f"řádek {n}", decimal.Decimal(n) / 4, datetime.datetime(2024, 1, 1, 0, 0, n % 60))
    for n in range(1, 1001)
]

PARAMETERS = [
    ("int", 42),
    ("negative", -7),
    ("bigint", 9223372036854775807),
    ("bit", True),
    ("float", 2.5),
    ("decimal", decimal.Decimal("12345.678")),
    ("text", "Žluťoučký 漢字 😀"),
    ("empty", ""),
    ("bytes", b"\x00\x01\xfe\xff"),
    ("datetime", datetime.datetime(2024, 2, 29, 13, 14, 15, 123000)),
    ("date", datetime.date(2024, 2, 29)),
    ("guid", uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")),
    ("null", None),
]


class Driver:
    """What differs between DB-API drivers. `mark` is the parameter marker."""

    mark = "%s"

    def connect(self, autocommit=True, **changes):
        raise NotImplementedError

    def server_error(self, error):
        """[number, text] of the server's message, or None."""
        raise NotImplementedError

    # Checks that the driver's API cannot do; expected/ says why.
    lacks = ()

    def binary(self, value):
        """Bytes as the driver wants them for a parameter."""
        return value

    def bulk(self, connection, table, rows):
        raise NotImplementedError

    def out_parameter(self, connection):
        raise NotImplementedError

    def procedure(self, connection, name):
        raise NotImplementedError

    def messages(self, connection, sql):
        raise NotImplementedError

    def cancel(self, connection, sql):
        """Starts `sql`, cancels it, and says what the driver then raised."""
        raise NotImplementedError


class Smoke:
    def __init__(self, driver):
        self.driver = driver
        self.table = Target.table
        self.checks = Checks(driver.server_error, self.reconnect)
        self.connection = driver.connect()

    def reconnect(self):
        """After an unexpected error the next check starts on a fresh connection."""
        try:
            self.connection.close()
        except Exception:  # it may be closed or broken already
            pass
        try:
            self.connection = self.driver.connect()
        except Exception as error:
            self.connection = Broken(error)

    def query(self, sql, *parameters, connection=None):
        cursor = (connection or self.connection).cursor()
        if parameters:
            cursor.execute(sql.replace("?", self.driver.mark), parameters)
        else:
            cursor.execute(sql)
        rows = rows_of(cursor.fetchall())
        cursor.close()
        return rows

    def value(self, sql, *parameters, connection=None):
        return self.query(sql, *parameters, connection=connection)[0][0]

    def execute(self, sql, *parameters, connection=None):
        cursor = (connection or self.connection).cursor()
        if parameters:
            cursor.execute(sql.replace("?", self.driver.mark), parameters)
        else:
            cursor.execute(sql)
        count = cursor.rowcount
        cursor.close()
        return count

    def check(self, name, action):
        if name not in self.driver.lacks:
            self.checks.run(name, action)

    def run(self):
        self.check("session", lambda: self.query("SELECT DB_NAME(), SUSER_SNAME(), @@TRANCOUNT"))
        for name, sql_type, literal, _ in SMOKE["types"]:
            self.check(f"type.{name}", lambda t=sql_type, v=literal: self.value(f"SELECT CAST({v} AS {t}) AS v"))
        for name, sql_type, _, _ in SMOKE["types"]:
            self.check(f"null.{name}", lambda t=sql_type: self.value(f"SELECT CAST(NULL AS {t}) AS v"))
        for name, given in PARAMETERS:
            given = self.driver.binary(given) if isinstance(given, bytes) else given
            self.check(f"parameter.{name}", lambda v=given: self.value("SELECT ? AS v", v))
        self.check("parameter.out", lambda: canonical(self.driver.out_parameter(self.connection)))
        self.check("procedure", self.procedure)
        self.check("transaction.commit", self.commit)
        self.check("transaction.rollback", self.rollback)
        self.check("transaction.autocommit_off", self.autocommit_off)
        self.check("transaction.text", self.transaction_text)
        self.check("temp_table", self.temp_table)
        self.check("temp_table.elsewhere", self.temp_table_elsewhere)
        self.check("prepared", self.prepared)
        self.check("rows.100000", self.many_rows)
        self.check("big.down", lambda: digest(self.raw(SMOKE["big_value"])))
        self.check("big.up", self.big_up)
        self.check("big.up_text", self.big_up_text)
        self.check("cancel.waitfor", lambda: self.cancel("WAITFOR DELAY '00:00:30'"))
        self.check("cancel.rows", self.cancel_rows)
        self.check("bulk", self.bulk)
        self.check("error.divide", lambda: self.error_then("SELECT 1/0 AS v"))
        self.check("error.object", lambda: self.error_then("SELECT * FROM no_such_table"))
        self.check("error.syntax", lambda: self.error_then("SELECT FROM t"))
        self.check("error.raiserror", lambda: self.error_then("RAISERROR('boom %d', 16, 1, 42)"))
        self.check("error.throw", lambda: self.error_then("THROW 50001, 'thrown', 1"))
        self.check("error.duplicate", self.duplicate)
        self.check("sets", self.sets)
        self.check("messages", lambda: self.driver.messages(self.connection, "PRINT 'hello'; RAISERROR('careful', 10, 1)"))
        self.check("count", self.count)
        self.check("identity", self.identity)
        self.check("login.wrong_password", lambda: self.refused(password="wrong " + Target.password))
        self.check("login.unknown_database", lambda: self.refused(database="no_such_database"))
        self.check("last", lambda: self.query("SELECT DB_NAME(), SUSER_SNAME(), @@TRANCOUNT"))
        self.connection.close()

    def raw(self, sql, *parameters):
        cursor = self.connection.cursor()
        cursor.execute(sql.replace("?", self.driver.mark), parameters) if parameters else cursor.execute(sql)
        value = cursor.fetchone()[0]
        cursor.close()
        return value

    def fresh(self, columns, connection=None):
        self.execute(f"DROP TABLE IF EXISTS {self.table}", connection=connection)
        self.execute(f"CREATE TABLE {self.table} ({columns})", connection=connection)

    def procedure(self):
        self.execute(f"DROP PROCEDURE IF EXISTS {self.table}_p")
        self.execute(
            f"CREATE PROCEDURE {self.table}_p @i int, @o int OUTPUT AS BEGIN SET NOCOUNT ON; SELECT @i AS i; SET @o = @i * 2; RETURN 7 END"
        )
        answer = self.driver.procedure(self.connection, f"{self.table}_p")
        self.execute(f"DROP PROCEDURE {self.table}_p")
        return answer

    def in_transaction(self, end):
        self.fresh("a int")
        connection = self.driver.connect(autocommit=False)
        try:
            self.execute(f"INSERT INTO {self.table} VALUES (1)", connection=connection)
            self.execute(f"INSERT INTO {self.table} VALUES (2)", connection=connection)
            inside = self.value("SELECT @@TRANCOUNT", connection=connection)
            end(connection)
            return {"inside": inside, "rows": self.value(f"SELECT COUNT(*) FROM {self.table}")}
        finally:
            self.leave(connection)

    @staticmethod
    def leave(connection):
        try:
            connection.close()
        except Exception:  # drivers differ in what they think of a second close
            pass

    def commit(self):
        return self.in_transaction(lambda connection: connection.commit())

    def rollback(self):
        return self.in_transaction(lambda connection: connection.rollback())

    def autocommit_off(self):
        """A connection that is closed in its transaction leaves nothing behind."""
        return self.in_transaction(lambda connection: connection.close())

    def transaction_text(self):
        self.fresh("a int")
        counts = []
        for end in ("ROLLBACK", "COMMIT"):
            self.execute("BEGIN TRANSACTION")
            self.execute(f"INSERT INTO {self.table} VALUES (1)")
            counts.append(self.value("SELECT @@TRANCOUNT"))
            self.execute(end)
            counts.append(self.value(f"SELECT COUNT(*) FROM {self.table}"))
        return counts

    def temp_table(self):
        self.execute("CREATE TABLE #t (a int, b nvarchar(20))")
        self.execute("INSERT INTO #t VALUES (1, N'jedna'), (2, NULL)")
        self.execute("INSERT INTO #t SELECT a + 10, b FROM #t")
        rows = self.query("SELECT a, b FROM #t ORDER BY a")
        return rows

    def temp_table_elsewhere(self):
        connection = self.driver.connect()
        try:
            return self.checks.error_of(lambda: self.query("SELECT a FROM #t", connection=connection))
        finally:
            connection.close()

    def prepared(self):
        answers = []
        cursor = self.connection.cursor()
        for n in range(5):
            cursor.execute("SELECT ? * 2 AS d, ? AS s".replace("?", self.driver.mark), (n, f"value {n}"))
            answers += rows_of(cursor.fetchall())
        cursor.close()
        return answers

    def many_rows(self):
        seen = RowsDigest()
        cursor = self.connection.cursor()
        cursor.execute(SMOKE["many_rows"])
        while chunk := cursor.fetchmany(5000):
            for row in chunk:
                seen.add(row)
        cursor.close()
        return seen.answer()

    def big_up(self):
        pattern = self.driver.binary(bytes(range(256)) * (MEGABYTES_16 // 256))
        length = self.value("SELECT DATALENGTH(?) AS n", pattern)
        return {"length": length, "back": digest(self.raw("SELECT ? AS v", pattern))}

    def big_up_text(self):
        text = "0123456789abčdef" * (MEGABYTES_16 // 32)
        length = self.value("SELECT DATALENGTH(?) AS n", text)
        return {"length": length, "back": digest(self.raw("SELECT ? AS v", text))}

    def cancel(self, sql):
        began = time.monotonic()
        said = self.driver.cancel(self.connection, sql)
        return {"said": said, "soon": time.monotonic() - began < 10, "then": self.value("SELECT 'still here' AS v")}

    def cancel_rows(self):
        """Ten rows of a hundred thousand, the rest is not wanted."""
        cursor = self.connection.cursor()
        cursor.execute(SMOKE["many_rows"])
        first = [canonical(cursor.fetchone()[0]) for _ in range(10)]
        if hasattr(cursor, "cancel"):
            cursor.cancel()
        cursor.close()
        return {"first": first, "then": self.value("SELECT 'still here' AS v")}

    def bulk(self):
        self.fresh("id int NOT NULL, name nvarchar(50) NULL, price decimal(10,2) NULL, at datetime NULL")
        self.driver.bulk(self.connection, self.table, BULK_ROWS)
        totals = self.query(f"SELECT COUNT(*), COUNT(name), SUM(id), SUM(price) FROM {self.table}")
        return {"totals": totals, "first": self.query(f"SELECT * FROM {self.table} WHERE id IN (1, 5, 777) ORDER BY id")}

    def error_then(self, sql):
        return {"first": self.checks.error_of(lambda: self.query(sql)), "then": self.value("SELECT 'still here' AS v")}

    def duplicate(self):
        self.fresh("a int PRIMARY KEY")
        self.execute(f"INSERT INTO {self.table} VALUES (1)")
        error = self.checks.error_of(lambda: self.execute(f"INSERT INTO {self.table} VALUES (1)"))
        return {"number": error.get("error", [error])[0], "then": self.query(f"SELECT a FROM {self.table}")}

    def sets(self):
        cursor = self.connection.cursor()
        cursor.execute("SELECT 1 AS a; SELECT 'x' AS b, 'y' AS c UNION ALL SELECT 'z', NULL; SELECT 3 AS d WHERE 1 = 0; SELECT 4 AS e")
        answers = [rows_of(cursor.fetchall())]
        while cursor.nextset():
            answers.append(rows_of(cursor.fetchall()))
        cursor.close()
        return answers

    def count(self):
        self.fresh("a int, b int")
        counts = [self.execute(f"INSERT INTO {self.table} VALUES (1, 1), (2, 2), (3, 3)")]
        counts.append(self.execute(f"UPDATE {self.table} SET b = b + 1 WHERE a > 1"))
        counts.append(self.execute(f"DELETE FROM {self.table}"))
        return counts

    def identity(self):
        self.fresh("id int IDENTITY(10, 5) PRIMARY KEY, a int")
        return self.query(
            f"SET NOCOUNT ON; INSERT INTO {self.table} (a) VALUES (1); INSERT INTO {self.table} (a) VALUES (2);"
            " SELECT SCOPE_IDENTITY() AS i, @@ROWCOUNT AS n"
        )

    def refused(self, **changes):
        def attempt():
            self.driver.connect(**changes).close()

        return self.checks.error_of(attempt)


    def holds(self):
        """Uses one thing after the other; what each keeps is looked at in between."""
        self.query("SELECT 1 AS n")
        step("query")
        self.query("SELECT ? AS n", 1)
        step("parameters")
        cursor = self.connection.cursor()
        for n in range(3):
            cursor.execute("SELECT ? * 2 AS d".replace("?", self.driver.mark), (n,))
            cursor.fetchall()
        step("prepared")
        cursor.close()
        self.execute("SET LOCK_TIMEOUT 1234")
        step("set")
        self.fresh("id int NOT NULL, name nvarchar(50) NULL, price decimal(10,2) NULL, at datetime NULL")
        insert = f"INSERT INTO {self.table} (id) VALUES (1)"
        self.execute(insert)
        step("insert")
        self.query("SELECT 1 AS n")
        step("insert.next")
        self.execute("BEGIN TRANSACTION")
        step("transaction.begun")
        self.execute(insert)
        step("transaction")
        self.execute("COMMIT")
        step("transaction.ended")
        self.execute("CREATE TABLE #t (a int)")
        step("temp_table")
        self.execute("DROP TABLE #t")
        step("temp_table.ended")
        self.execute("DECLARE c CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2)) v(n); OPEN c")
        step("cursor")
        self.execute("CLOSE c; DEALLOCATE c")
        step("cursor.ended")
        self.driver.bulk(self.connection, self.table, BULK_ROWS)
        step("bulk.ended")
        self.connection.close()
        connection = self.driver.connect(autocommit=False)
        step("autocommit_off.begun")
        self.query("SELECT 1 AS n", connection=connection)
        step("autocommit_off")
        connection.commit()
        step("autocommit_off.ended")
        self.leave(connection)


def main(driver):
    smoke = Smoke(driver)
    if Target.part == "holds":
        smoke.holds()
    else:
        smoke.run()


class Broken:
    """Stands for a connection that could not be opened again: every later check says so."""

    def __init__(self, error):
        self.error = error

    def cursor(self):
        raise RuntimeError(f"no connection: {self.error}")

    def close(self):
        pass


def cancelled_by_timer(action, cancel, after=0.5):
    """Runs `action` while another thread cancels it after a moment."""
    timer = threading.Timer(after, cancel)
    timer.start()
    try:
        return action()
    finally:
        timer.cancel()
        timer.join()
