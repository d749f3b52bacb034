"""A small load by a real client: many short sessions with plain, prepared, transactional and failing requests."""

import threading
import time

import pytds

from stand import BUCKETS, PASSWORD


def connect(port, bucket, user="sa", password=PASSWORD, timeout=30):
    return pytds.connect(
        dsn="127.0.0.1", port=port, database=bucket, user=user, password=password, timeout=timeout, login_timeout=timeout, autocommit=True, pooling=False
    )


def session(port, bucket):
    """One client's life: every kind of thing that the metrics tell about."""
    with connect(port, bucket) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]
        cursor.execute("SELECT %s + 1", (41,))
        assert cursor.fetchall() == [(42,)]
        cursor.execute("CREATE TABLE #work (id int)")
        cursor.execute("INSERT INTO #work (id) VALUES (1), (2)")
        cursor.execute("BEGIN TRANSACTION")
        cursor.execute("SELECT COUNT(*) FROM #work")
        assert cursor.fetchall() == [(2,)]
        cursor.execute("COMMIT")
        try:
            cursor.execute("SELECT 1 / 0")
            cursor.fetchall()
            raise AssertionError("a division by zero succeeded")
        except pytds.Error:
            pass


def refused(port, bucket):
    """A login that must not succeed: a wrong password, or a server that nobody can reach. Not to be done often: many
    failures slow down all logins of an address."""
    try:
        # The library tries again for so long.
        connect(port, bucket, user="stranger", password="wrong", timeout=1).close()
    except (pytds.Error, TimeoutError, OSError):
        return
    raise AssertionError("a wrong password was accepted")


class Load:
    """Clients that come and go at all proxies until told to stop."""

    def __init__(self, ports, clients):
        self.stopping = threading.Event()
        self.sessions, self.errors = 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.client, args=(ports, at), daemon=True) for at in range(clients)]
        for thread in self.threads:
            thread.start()

    def client(self, ports, at):
        turn = at
        while not self.stopping.is_set():
            port, bucket = ports[turn % len(ports)], BUCKETS[(turn // len(ports)) % len(BUCKETS)]
            turn += 1
            try:
                session(port, bucket)
                with self.lock:
                    self.sessions += 1
            except Exception as error:  # noqa: BLE001  (each is shown and fails the test)
                with self.lock:
                    self.errors.append(f"{bucket} at {port}: {type(error).__name__}: {error}")
            time.sleep(0.02)

    def end(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=60)
