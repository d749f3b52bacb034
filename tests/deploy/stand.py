"""Stand-in servers, proxies and HAProxy as processes on free ports of this machine, ended with the test."""

import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60
PASSWORD = "Sim-passw0rd"
BUCKETS = ("orders", "billing", "archive")


def free_ports(count):
    """Ports that nobody has: all are held until all are found."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def until(condition, what, seconds=PATIENCE):
    """Waits for a condition; returns what it returned."""
    over = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > over:
            raise TimeoutError(f"{what} did not happen within {seconds} s")
        time.sleep(0.05)
    return value


def fetch(address, seconds=10):
    """Status and body of an HTTP answer; none if there is no answer."""
    try:
        with urllib.request.urlopen(f"http://{address}", timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None


class Stand:
    """Everything that a test started, in a folder of its own."""

    def __init__(self, program):
        self.program = program
        self.holder = tempfile.TemporaryDirectory(prefix="tdsbouncer-stand-")
        self.folder = Path(self.holder.name)
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.running):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.holder.cleanup()

    def start(self, command, name):
        """Starts a process; its output goes to a file of that name."""
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.running.append(process)
        return process

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def sims(self):
        """A stand-in server for each bucket; returns their ports."""
        ports = {}
        for bucket in BUCKETS:
            name = f"sim-{bucket}"
            self.start([self.program, "sim", "--listen", "127.0.0.1:0", "--name", name, "--user", f"sa:{PASSWORD}", "--database", bucket], name)
            line = until(lambda: next((line for line in self.log(name).splitlines() if " on 127.0.0.1:" in line), None), f"the start of {name}")
            ports[bucket] = int(line.split(" on 127.0.0.1:")[1].split()[0])
        return ports

    def redis(self, port):
        """A Redis server without anything in it, on this port."""
        process = self.start(["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder], "redis")
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "the start of Redis")
        return process

    def proxy(self, name, servers, more="", bucket="", timeouts=""):
        """A proxy in front of the stand-in servers; returns it with its ports."""
        port, health, metrics = free_ports(3)
        buckets = "".join(
            f'[[buckets]]\nname = "{name_}"\nhost = "127.0.0.1"\nport = {at}\ndatabases = ["{name_}"]\n'
            f'max_connections = 8\nserver_tls = {{ mode = "off" }}\n{bucket}\n'
            for name_, at in servers.items()
        )
        (self.folder / f"{name}.toml").write_text(
            f'[[listeners]]\naddress = "127.0.0.1:{port}"\n[listeners.tls]\nmode = "off"\n{buckets}'
            f'[limits]\nmax_clients = 2000\n[admin]\nsocket = "{self.folder}/{name}.sock"\n[timeouts]\n{timeouts}\n'
            f'[health]\naddress = "127.0.0.1:{health}"\n[metrics]\naddress = "127.0.0.1:{metrics}"\n{more}\n'
        )
        proxy = Proxy(self, name, port, health, metrics)
        proxy.begin()
        return proxy


class Proxy:
    """One proxy, which can be ended and begun again on the same ports."""

    def __init__(self, stand, name, port, health, metrics):
        self.stand, self.name, self.port, self.health, self.metrics = stand, name, port, health, metrics
        self.process = None

    def begin(self):
        self.process = self.stand.start([self.stand.program, "run", "--config", self.stand.folder / f"{self.name}.toml"], self.name)
        until(self.is_ready, f"{self.name}'s readiness")

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended:\n{self.stand.log(self.name)}")
        answer = fetch(f"127.0.0.1:{self.health}/health/ready")
        return answer is not None and answer[0] == 200
