"""A statecached of one's own for each test module."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import statecache as sc

PATIENCE = 20.0


class Daemon:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "run" / "control.sock")
        self.process = None

    def start(self) -> None:
        settings = {
            "paths.state_dir": self.directory / "state",
            "paths.runtime_dir": self.directory / "run",
            "host.capacity": "128MiB",
            "nvme.capacity": "256MiB",
        }
        command = [os.environ["STATECACHED_BIN_DIR"] + "/statecached"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        self.log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                sc.admin(self.socket, "status", timeout=1.0)
                return
            except sc.Error:
                time.sleep(0.01)
        raise RuntimeError((self.directory / "log").read_text())

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.log.close()
            self.process = None


@pytest.fixture(scope="module")
def daemon():
    with tempfile.TemporaryDirectory(prefix="statecached-") as name:
        out = Daemon(Path(name))
        out.start()
        yield out
        out.stop()
        log = (Path(name) / "log").read_text()
        assert "Sanitizer" not in log, log


@pytest.fixture
def own_daemon():
    """For tests that stop it."""
    with tempfile.TemporaryDirectory(prefix="statecached-") as name:
        out = Daemon(Path(name))
        out.start()
        yield out
        out.stop(signal.SIGKILL)
