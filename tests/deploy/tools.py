"""What the deployment tests need of the machine: installed from Debian and PyPI; what cannot be had is an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VENV = HERE / ".venv"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def run(command, **settings):
    """Runs a program and returns its output; shows it and ends if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed ({done.returncode}): {' '.join(map(str, command))}")
    return done.stdout


def debian(**packages):
    """Installs Debian's package where its program is missing."""
    missing = [package for program, package in packages.items() if not shutil.which(program.replace("_", "-"))]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"missing: {', '.join(missing)} (install it, or run as root on Debian)")
    # Nothing that is installed here may start by itself and take a port.
    policy = Path("/usr/sbin/policy-rc.d")
    own = not policy.exists()
    if own:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        settings = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run(["apt-get", "update", "-qq"], env=settings)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=settings)
    finally:
        if own:
            policy.unlink()


def python():
    """Goes on in a virtual environment with the packages of requirements.txt."""
    marker = VENV / "requirements"
    wanted = (HERE / "requirements.txt").read_text()
    interpreter = VENV / "bin" / "python"
    if not marker.exists() or marker.read_text() != wanted:
        try:
            import ensurepip  # noqa: F401  (Debian's python comes without it)
        except ImportError:
            debian(**{"no-such-program": "python3-venv"})
        run([sys.executable, "-m", "venv", "--clear", VENV])
        run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"])
        marker.write_text(wanted)
    if Path(sys.prefix) != VENV:
        os.execv(interpreter, [str(interpreter), *sys.argv])


def program():
    """The program, built as the other tests build it; $TDSBOUNCER names another."""
    if "TDSBOUNCER" in os.environ:
        return os.environ["TDSBOUNCER"]
    run(["cargo", "build", "--locked", "--quiet", "--bin", "tdsbouncer"], cwd=ROOT)
    return str(TARGET / "debug" / "tdsbouncer")


class Tally:
    """Counts what was checked, and ends with the line that tests/run reads."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, good, what, why=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {what}{': ' if why else ''}{why}", flush=True)

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed else 0)
