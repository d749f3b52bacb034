"""What each client keeps a server connection for in transaction pooling, and for how long.

A client uses one thing after the other and waits after each step; the proxy is asked what its session holds then. What it
answers is compared with expected/holds.json, and the tables of docs/drivers.md and README.md are made of it.
"""

import json
import os
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
EXPECTED = os.path.join(HERE, "expected", "holds.json")
# No step takes longer, on a busy machine either.
STEP_SECONDS = 60

# Clients by row, with the encryption mode in which they are looked at. freebcp does one thing and ends.
ROWS = [
    ("tsql", "off"), ("tsql", "tds71"), ("bsqldb", "off"), ("python-tds", "off"), ("pymssql", "off"), ("pyodbc-freetds", "off"),
    ("mssql-python", "login"), ("tedious", "off"), ("node-mssql", "off"), ("tiberius", "off"), ("mssql-tds", "login"),
]

# Steps by column, with the column's head and the end of what holds.
COLUMNS = [
    ("query", "query", ""),
    ("parameters", "parameters", ""),
    ("prepared", "prepared statement", "until it is dropped"),
    ("set", "SET", ""),
    ("insert", "INSERT", ""),
    ("transaction", "transaction", "until it ends"),
    ("autocommit_off", "autocommit off", "until it ends"),
    ("temp_table", "temp table", "until DROP"),
    ("cursor", "cursor", "until DEALLOCATE"),
    ("bulk", "bulk load", "until its last row"),
]
LINGER = "linger"
LEAVES = "until it leaves"


class Admin:
    """The proxy's admin socket."""

    def __init__(self, path):
        self.path = path

    def show(self, what):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(self.path)
            line.sendall(json.dumps({"do": f"show {what}"}).encode() + b"\n")
            answer = json.loads(line.makefile("rb").readline())
        names = [column["name"] for column in answer["columns"]]
        return [dict(zip(names, row)) for row in answer["rows"]]

    def requests(self):
        return sum(row["requests"] for row in self.show("stats"))

    def look(self, database):
        """What the newest session of the database holds, once it rests; none while it does not."""
        sessions = [row for row in self.show("sessions") if row["database"] == database]
        if not sessions:
            return None
        newest = max(sessions, key=lambda row: row["session"])
        if newest["state"] not in ("idle", "holding"):
            return None
        holds = [row["reasons"] for row in self.show("holds") if row["session"] == newest["session"]]
        if holds:
            return sorted(holds[0].split(", "))
        return [LINGER] if newest["server"] else []


def watch(admin, command, environment):
    """Runs a client through its steps: what it held after each, and what went wrong."""
    held = {}
    client = subprocess.Popen(command, env={**environment, "SMOKE_PART": "holds"}, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    requests = admin.requests()
    try:
        for line in client.stdout:
            step = json.loads(line)
            until = time.monotonic() + STEP_SECONDS
            # Nobody knows whether what was fed to a program has been answered: more requests than before, and then quiet.
            counted, quiet = requests, not step.get("fed")
            while True:
                if not quiet:
                    before, counted = counted, admin.requests()
                    quiet = counted > requests and counted == before
                found = admin.look(environment["SMOKE_DATABASE"]) if quiet else None
                if found is not None:
                    break
                if time.monotonic() > until or client.poll() is not None:
                    return held, f"nothing to see at {step['step']}"
                time.sleep(0.3 if step.get("fed") else 0.02)
            requests = admin.requests()
            if step["step"]:
                held[step["step"]] = found
            client.stdin.write("\n")
            client.stdin.flush()
        client.wait(STEP_SECONDS)
        return held, client.stderr.read()[-2000:] if client.returncode else None
    finally:
        if client.poll() is None:
            client.kill()
            client.wait(10)


def name_of(client, mode):
    return f"{client}, TDS 7.1" if mode == "tds71" else client


def cell(steps, feature, end):
    """What a feature holds, in words."""
    ended = steps.get(f"{feature}.ended", steps.get(f"{feature}.next"))
    during = steps.get(feature)
    if during is None and ended is None:
        return "–"
    if "session" in (during or []) or any(reason != LINGER for reason in ended or []):
        return LEAVES
    if during is None:
        return end
    if not during:
        return "no"
    if during == [LINGER]:
        return LINGER
    if not end:
        return " and ".join(during)
    return f"from its first statement, {end}" if steps.get(f"{feature}.begun") == [] else end


def drivers_table(held):
    lines = ["| client | " + " | ".join(head for _, head, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, steps in held.items():
        lines.append(f"| {name} | " + " | ".join(cell(steps, feature, end) for feature, _, end in COLUMNS) + " |")
    return "\n".join(lines)


def short_table(held):
    """One line per feature: what most clients do, and the others. Those of TDS 7.1 keep their connection whatever they do."""
    held = {name: steps for name, steps in held.items() if steps.get("query") != ["session"]}
    lines = ["| what the tested drivers do | holds |", "|---|---|"]
    for feature, head, end in COLUMNS:
        names = {}
        for name, steps in held.items():
            said = cell(steps, feature, end)
            if said != "–":
                names.setdefault(said, []).append(name)
        ranked = sorted(names.items(), key=lambda entry: -len(entry[1]))
        said = [ranked[0][0], *(f"{other}: {', '.join(who)}" for other, who in ranked[1:])]
        lines.append(f"| {head} | {'; '.join(said)} |")
    return "\n".join(lines)


PAGES = [(os.path.join(ROOT, "docs", "drivers.md"), drivers_table), (os.path.join(ROOT, "README.md"), short_table)]
BEGIN, END = "<!-- holds: made by tests/drivers/run --record-holds -->\n", "\n<!-- end of holds -->"


def page_with(path, table):
    """The page as it is, and as it should be."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    return text, before + BEGIN + table + END + rest.split(END)[1]


def examine(rows, run_client, admin, whole, record):
    """Looks at these rows: (checks, passed, lines about failures). `whole`: all rows are there, so the pages are looked at."""
    with open(EXPECTED, encoding="utf-8") as file:
        expected = json.load(file)
    seen, lines, checks, failed = {}, [], 0, 0
    for client, mode in rows:
        name = name_of(client, mode)
        held, wrong = watch(admin, *run_client(client, mode))
        seen[name] = held
        wanted = expected.get(name, {})
        if wrong and not record:
            lines.append(f"{name}: {wrong}")
        steps = sorted(set(held) | set(wanted))
        broken = [step for step in steps if held.get(step) != wanted.get(step)] if not record else []
        lines += [f"{name}: {step} holds {held.get(step)}, expected {wanted.get(step)}" for step in broken]
        checks, failed = checks + max(len(steps), 1), failed + len(broken) + bool(wrong and not broken)
        print(f"  {name:24} {len(steps) - len(broken)}/{len(steps)}", flush=True)
        if wrong and record:
            raise SystemExit(f"{name}: {wrong}")
    if record:
        expected.update(seen)
        expected = {name_of(*row): expected[name_of(*row)] for row in ROWS if name_of(*row) in expected}
        with open(EXPECTED, "w", encoding="utf-8") as file:
            entries = [f" {json.dumps(name)}: {{\n" + ",\n".join(f"  {json.dumps(step)}: {json.dumps(said)}" for step, said in steps.items()) + "\n }"
                       for name, steps in expected.items()]
            file.write("{\n" + ",\n".join(entries) + "\n}\n")
    for path, table in PAGES if whole or record else []:
        text, right = page_with(path, table(expected))
        checks += 1
        if text != right and record:
            with open(path, "w", encoding="utf-8") as file:
                file.write(right)
        elif text != right:
            failed += 1
            lines.append(f"{os.path.relpath(path, ROOT)}: the table of holds is not what expected/holds.json says")
    return checks, checks - failed, lines
