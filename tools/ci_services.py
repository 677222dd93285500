"""Servers that some tests need: a PostgreSQL under `build/`, reached through `build/postgresql.url`.

    python tools/ci_services.py          # installs it if it is not there (apt-get, needs root), starts it
    python tools/ci_services.py --stop

Data and log lie in `build/postgresql`; it listens on 127.0.0.1 alone, on a free port, and forgets what a crash of the
machine would lose. initdb refuses root, so that as root everything runs as the system's user `postgres`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"
URL = BUILD / "postgresql.url"
DATA = BUILD / "postgresql"
USER = "scalenas"


def main() -> int:
    """Starts or stops the server; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stop", action="store_true", help="stop the server")
    if parser.parse_args().stop:
        return stop()
    if URL.exists() and runs():
        print(URL.read_text(encoding="utf-8").strip())
        return 0
    if programs() is None and not install():
        print("PostgreSQL is not installed and apt-get cannot install it here: tests that need it are skipped")
        return 0
    print(start())
    return 0


def programs() -> Path | None:
    """Returns the folder of initdb and pg_ctl, None without PostgreSQL; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return folders[-1] if folders else None


def install() -> bool:
    """Returns whether PostgreSQL is installed now."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run(["apt-get", *command], env=environment, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            return False
    return programs() is not None


def start() -> str:
    """Returns the URL of a server that was made and started."""
    if runs():
        stop()
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(DATA, "postgres", "postgres")
    port = free_port()
    cluster, log = DATA / "data", DATA / "log"
    run("initdb", ["-D", str(cluster), "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-sync"])
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", ["-D", str(cluster), "-l", str(log), "-w", "-t", "120", "-o", options, "start"])
    url = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
    URL.write_text(url + "\n", encoding="utf-8")
    return url


def stop() -> int:
    """Returns the exit code of stopping the server."""
    if runs():
        run("pg_ctl", ["-D", str(DATA / "data"), "-m", "fast", "stop"])
    URL.unlink(missing_ok=True)
    return 0


def runs() -> bool:
    """Returns whether the server runs."""
    if programs() is None or not (DATA / "data").exists():
        return False
    return run("pg_ctl", ["-D", str(DATA / "data"), "status"], check=False) == 0


def run(program: str, arguments: Sequence[str], *, check: bool = True) -> int:
    """Returns the exit code of one of PostgreSQL's programs, run as an unprivileged user."""
    folder = programs()
    assert folder is not None
    user = "postgres" if os.geteuid() == 0 else None
    # Output to a file of ours would keep pg_ctl waiting: the server inherits it.
    done = subprocess.run(
        [str(folder / program), *arguments], user=user, cwd="/", stdout=subprocess.DEVNULL, check=check
    )
    return done.returncode


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
