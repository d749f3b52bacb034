"""ODBC from Python: `odbc.py freetds` is pyodbc over FreeTDS' driver, `odbc.py microsoft` is mssql-python with msodbcsql18."""

import os
import re
import sys
import tempfile

from canonical import Target, canonical
from dbapi import Driver, cancelled_by_timer, main


def server_message(error):
    """ODBC drivers give the text and, in brackets or parentheses, sometimes the number."""
    text = " ".join(str(part) for part in error.args)
    found = re.search(r"\[(?:SQL Server|FreeTDS)\](?:\[SQL Server\])?([^\[]*?)(?: \((\d+)\))?(?: \(SQL\w+\))?[;'\)]*$", text, re.S)
    if not found:
        return None
    return [int(found.group(2) or 0), found.group(1).strip()]


class Odbc(Driver):
    mark = "?"

    def out_parameter(self, connection):
        cursor = connection.cursor()
        cursor.execute(
            "SET NOCOUNT ON; DECLARE @r int; EXEC sp_executesql N'SET @o = @i * 2', N'@i int, @o int OUTPUT', ?, @r OUTPUT; SELECT @r",
            (21,),
        )
        return cursor.fetchone()[0]

    def procedure(self, connection, name):
        cursor = connection.cursor()
        cursor.execute(f"SET NOCOUNT ON; DECLARE @r int, @s int; EXEC @s = {name} ?, @r OUTPUT; SELECT @s AS s, @r AS r", (21,))
        rows = cursor.fetchall()
        cursor.nextset()
        status, out = cursor.fetchone()
        return {"rows": [[canonical(v) for v in row] for row in rows], "out": canonical(out), "status": canonical(status)}

    def bulk(self, connection, table, rows):
        cursor = connection.cursor()
        cursor.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", rows)
        cursor.close()

    def messages(self, connection, sql):
        cursor = connection.cursor()
        cursor.execute(sql)
        heard = list(cursor.messages or [])
        while cursor.nextset():
            heard += cursor.messages or []
        return [re.sub(r"^(\[[^\]]*\])+", "", text) for _, text in heard]


class FreeTdsOdbc(Odbc):
    def __init__(self):
        import pyodbc

        pyodbc.pooling = False
        self.pyodbc = pyodbc
        settings = f"[global]\nencryption = {'off' if Target.encryption == 'off' else 'require' if Target.encryption == 'on' else 'request'}\n"
        if Target.authority:
            settings += f"ca file = {Target.authority}\ncheck certificate hostname = no\n"
        self.path = os.path.join(tempfile.mkdtemp(prefix="tdsbouncer-odbc-"), "freetds.conf")
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(settings)
        os.environ["FREETDSCONF"] = self.path

    def connect(self, autocommit=True, password=None, database=None):
        encryption = {"off": "off", "login": "request", "on": "require"}[Target.encryption]
        return self.pyodbc.connect(
            f"DRIVER=FreeTDS;SERVER={Target.host};PORT={Target.port};TDS_Version=7.4;ClientCharset=UTF-8;"
            f"UID={Target.user};PWD={password or Target.password};DATABASE={database or Target.database};Encryption={encryption}",
            autocommit=autocommit,
            timeout=20,
        )

    def server_error(self, error):
        return server_message(error) if isinstance(error, self.pyodbc.Error) else None

    def cancel(self, connection, sql):
        cursor = connection.cursor()
        try:
            cancelled_by_timer(lambda: cursor.execute(sql), cursor.cancel)
            return "not cancelled"
        except self.pyodbc.Error as error:
            return {"HY008": "cancelled"}.get(error.args[0], str(error))


class MicrosoftOdbc(Odbc):
    def __init__(self):
        import mssql_python

        self.module = mssql_python
        mssql_python.pooling(enabled=False)

    def connect(self, autocommit=True, password=None, database=None):
        encryption = {"login": "no", "on": "yes", "strict": "strict"}[Target.encryption]
        connection = self.module.connect(
            f"Server=tcp:{Target.host},{Target.port};UID={Target.user};PWD={{{password or Target.password}}};"
            f"Database={database or Target.database};Encrypt={encryption};TrustServerCertificate=no;"
            "HostnameInCertificate=localhost;ConnectRetryCount=0",
            autocommit=autocommit,
            timeout=20,
        )
        connection.timeout = 60
        return connection

    def server_error(self, error):
        return server_message(error) if isinstance(error, self.module.Error) else None

    def bulk(self, connection, table, rows):
        cursor = connection.cursor()
        cursor.bulkcopy(table, rows)
        cursor.close()

    def cancel(self, connection, sql):
        hasty = self.connect()
        hasty.timeout = 1
        cursor = hasty.cursor()
        try:
            cursor.execute(sql)
            return "not cancelled"
        except self.module.Error:
            again = hasty.cursor()
            again.execute("SELECT 'same connection'")
            return ["timeout", again.fetchone()[0]]
        finally:
            hasty.close()


main(FreeTdsOdbc() if sys.argv[1] == "freetds" else MicrosoftOdbc())
