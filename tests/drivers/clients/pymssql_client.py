"""pymssql: FreeTDS' DB-Library inside a wheel; strict and the authority can only be said in freetds.conf."""

import os
import re
import tempfile

import pymssql
from pymssql import _mssql

from canonical import Target, canonical
from dbapi import Driver, main

ENCRYPTION = {"off": "off", "login": "request", "on": "require", "strict": None}


def configure():
    path = os.path.join(tempfile.mkdtemp(prefix="tdsbouncer-pymssql-"), "freetds.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[global]\nca file = {Target.authority}\ncheck certificate hostname = no\ntext size = 67108864\n")
        if Target.encryption == "strict":
            file.write("encryption = strict\n")
    os.environ["FREETDSCONF"] = path


class Pymssql(Driver):
    # At TDS 8.0 the library calls no procedures.
    lacks = ("parameter.out", "procedure") if Target.encryption == "strict" else ()

    def connect(self, autocommit=True, **changes):
        settings = {
            "server": Target.host,
            "port": str(Target.port),
            "user": Target.user,
            "password": Target.password,
            "database": Target.database,
            "autocommit": autocommit,
            "login_timeout": 20,
            "timeout": 60,
            "tds_version": "8.0" if Target.encryption == "strict" else "7.4",
            "encryption": ENCRYPTION[Target.encryption],
            "use_datetime2": True,
        }
        return pymssql.connect(**(settings | changes))

    def server_error(self, error):
        arguments = error.args[0] if error.args and isinstance(error.args[0], tuple) else error.args
        if len(arguments) >= 2 and isinstance(arguments[0], int) and arguments[0] > 0:
            text = arguments[1].decode() if isinstance(arguments[1], bytes) else str(arguments[1])
            said = re.split(r"DB-Lib error message", text)[0].strip()
            return [arguments[0], said or " ".join(re.sub(r"\((127\.0\.0\.1|localhost)(:\d+)?\)", "(HOST)", text).split())]
        return None

    def bulk(self, connection, table, rows):
        connection.bulk_copy(table, rows)

    def out_parameter(self, connection):
        with connection.cursor() as cursor:
            values = cursor.callproc(
                "sp_executesql", ("SET @o = @i * 2", "@i int, @o int OUTPUT", 21, pymssql.output(int))
            )
            return values[-1]

    def procedure(self, connection, name):
        with connection.cursor() as cursor:
            values = cursor.callproc(name, (21, pymssql.output(int)))
            rows = cursor.fetchall() if cursor.description else []
            return {
                "rows": [[canonical(v) for v in row] for row in rows],
                "out": canonical(values[-1]),
                "status": canonical(cursor.returnvalue),
            }

    def low_level(self, timeout=0):
        return _mssql.connect(
            server=Target.host,
            port=str(Target.port),
            user=Target.user,
            password=Target.password,
            database=Target.database,
            tds_version="8.0" if Target.encryption == "strict" else "7.4",
            encryption=ENCRYPTION[Target.encryption],
        )

    def messages(self, connection, sql):
        heard = []
        low = self.low_level()
        low.set_msghandler(lambda state, severity, server, procedure, line, text: heard.append(text.decode()))
        low.execute_non_query(sql)
        low.close()
        return heard

    def cancel(self, connection, sql):
        hasty = self.low_level()
        hasty.query_timeout = 1
        try:
            hasty.execute_non_query(sql)
            return "not cancelled"
        except _mssql.MSSQLException:
            # The library gives the connection up after its timeout.
            return ["timeout", "connected" if hasty.connected else "given up"]
        finally:
            # The timeout is the whole process's.
            hasty.query_timeout = 60
            hasty.close()


configure()
main(Pymssql())
