"""Canonical answers: what a client says, written so that two runs can be compared byte for byte.

Every client prints one JSON line per check: {"check": name, "answer": value}. Values are text (or null):
numbers in decimal, dates in ISO 8601 with trailing zeros of the fraction dropped, bytes as 0x.., GUIDs in lower case.
A server's error is {"error": [number, text]}; anything else that went wrong is {"exception": text}.
"""

import datetime
import decimal
import hashlib
import json
import os
import sys
import uuid

SMOKE = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "smoke.json"), encoding="utf-8"))
MEGABYTES_16 = 16 * 1024 * 1024


class Target:
    """Where and how to connect: the environment that the runner sets for every client program."""

    host = os.environ.get("SMOKE_HOST", "127.0.0.1")
    port = int(os.environ.get("SMOKE_PORT", "1433"))
    user = os.environ.get("SMOKE_USER", "sa")
    password = os.environ.get("SMOKE_PASSWORD", "")
    database = os.environ.get("SMOKE_DATABASE", "master")
    encryption = os.environ.get("SMOKE_ENCRYPTION", "off")
    authority = os.environ.get("SMOKE_CA", "")
    table = os.environ.get("SMOKE_TABLE", "smoke")
    # The smoke, or the steps after which the runner looks at what the session holds.
    part = os.environ.get("SMOKE_PART", "smoke")


def fraction(text):
    """13:14:15.1200000 as 13:14:15.12; 13:14:15.000 as 13:14:15."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def clock(value):
    text = value.strftime("%H:%M:%S")
    return fraction(f"{text}.{value.microsecond:06d}")


def canonical(value):
    """One value of a Python driver as text, or None."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "0x" + bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime):
        offset = value.utcoffset()
        zone = ""
        if offset is not None:
            minutes = int(offset.total_seconds()) // 60
            zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
        return f"{value.strftime('%Y-%m-%d')}T{clock(value)}{zone}"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.time):
        return clock(value)
    return str(value)


def rows_of(rows):
    return [[canonical(value) for value in row] for row in rows]


def digest(value):
    """A large value or a stream of them: its size and hash instead of itself."""
    data = value.encode() if isinstance(value, str) else bytes(value)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class RowsDigest:
    """Many rows: how many, and the hash of `a|b|NULL\\n` for each."""

    def __init__(self):
        self.count = 0
        self.hash = hashlib.sha256()

    def add(self, row):
        self.count += 1
        self.hash.update(("|".join("NULL" if v is None else canonical(v) for v in row) + "\n").encode())

    def answer(self):
        return {"rows": self.count, "sha256": self.hash.hexdigest()}


class Checks:
    """Runs checks one after the other and prints their answers; a check that fails never stops the next."""

    def __init__(self, server_error, recover=lambda: None):
        self.server_error = server_error
        self.recover = recover

    def run(self, name, check):
        try:
            answer = check()
        except Exception as error:  # whatever a driver throws is an answer to be compared
            answer = self.of_error(error)
            self.recover()
        print(json.dumps({"check": name, "answer": answer}, ensure_ascii=False, sort_keys=True), flush=True)

    def of_error(self, error):
        known = self.server_error(error)
        if known:
            return {"error": [known[0], known[1]]}
        return {"exception": f"{type(error).__name__}: {error}"}

    def error_of(self, action):
        """The error that `action` is expected to end with."""
        try:
            result = action()
        except Exception as error:  # whatever a driver throws is an answer to be compared
            return self.of_error(error)
        return {"no error": canonical(result)}


def step(name, fed=False):
    """What was just done has this name: the runner looks at the session and says when to go on. `fed`: nobody here knows
    whether it was answered."""
    print(json.dumps({"step": name, "fed": fed}), flush=True)
    sys.stdin.readline()


def note(text):
    print(text, file=sys.stderr, flush=True)
