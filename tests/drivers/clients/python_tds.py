"""python-tds: TDS in pure Python; off is ENCRYPT_NOT_SUP, login and on use pyOpenSSL."""

import pytds
from pytds.tds_base import Column
from pytds.tds_types import DateTimeType, DecimalType, IntType, NVarCharType

from canonical import Target, canonical
from dbapi import Driver, main


class PythonTds(Driver):
    def connect(self, autocommit=True, **changes):
        settings = {
            "server": Target.host,
            "port": Target.port,
            "user": Target.user,
            "password": Target.password,
            "database": Target.database,
            "autocommit": autocommit,
            "login_timeout": 20,
            "timeout": 60,
            "disable_connect_retry": True,
        }
        if Target.encryption != "off":
            settings |= {"cafile": Target.authority, "validate_host": True, "enc_login_only": Target.encryption == "login"}
        return pytds.connect(**(settings | changes))

    def binary(self, value):
        return pytds.Binary(value)

    def server_error(self, error):
        if getattr(error, "number", 0):
            return [error.number, error.text]
        return None

    def bulk(self, connection, table, rows):
        columns = [
            Column("id", type=IntType()),
            Column("name", type=NVarCharType(size=50)),
            Column("price", type=DecimalType(precision=10, scale=2)),
            Column("at", type=DateTimeType()),
        ]
        with connection.cursor() as cursor:
            cursor.copy_to(table_or_view=table, columns=columns, data=rows)

    def out_parameter(self, connection):
        with connection.cursor() as cursor:
            values = cursor.callproc(
                "sp_executesql", ("SET @o = @i * 2", "@i int, @o int OUTPUT", 21, pytds.output(param_type=int))
            )
            return values[-1]

    def procedure(self, connection, name):
        with connection.cursor() as cursor:
            # The output parameter goes first: the driver's list of outputs is as long as there are outputs.
            cursor.callproc(name, {"@o": pytds.output(param_type=int), "@i": 21})
            rows = cursor.fetchall()
            return {
                "rows": [[canonical(v) for v in row] for row in rows],
                "out": canonical(cursor.get_proc_outputs()[-1]),
                "status": canonical(cursor.get_proc_return_status()),
            }

    def messages(self, connection, sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)
            while cursor.nextset():
                pass
            return [[error.number, error.text] for _, error in cursor.messages or []]

    def cancel(self, connection, sql):
        # The driver has no cancel from another thread: its timeout sends the attention.
        hasty = self.connect(timeout=1)
        try:
            with hasty.cursor() as cursor:
                cursor.execute(sql)
                return "not cancelled"
        except TimeoutError:
            with hasty.cursor() as cursor:
                cursor.execute("SELECT 'same connection'")
                return ["timeout", cursor.fetchone()[0]]
        finally:
            hasty.close()


main(PythonTds())
