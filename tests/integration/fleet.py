"""A fleet of real processes on loopback, started as a user starts it: `switchyard up --detach`.

    with Fleet(tmp_path, shards=2) as fleet:
        reply = fleet.api.post("/v1/completions", completion("Once"))

The state directory is the fleet's name: every process of it has that path in its command line, which is
how the clean-up finds what is left and ends it by pid.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from api import Api, completion
from processes import is_alive, pids_that_mention, wait_until

ROOT = Path(__file__).resolve().parents[2]
DEMO_MODEL = ROOT / "models" / "demo"
BIN_DIR = Path(os.environ.get("SY_BIN_DIR", ROOT / "build" / "bin")).resolve()

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
HEAL_SECONDS_MAX = 30


def run_switchyard(*arguments, seconds_max=START_SECONDS_MAX, **options):
    """Runs the command line to its end; the result has returncode, stdout and stderr."""
    return subprocess.run(
        [str(BIN_DIR / "switchyard"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds_max,
        check=False,
        **options,
    )


def end_processes_of(state_dir):
    """Kills what still runs on a state directory and returns the pids that were left."""
    left = pids_that_mention(state_dir)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return left


class Metrics:
    """One scrape of Prometheus text."""

    def __init__(self, text):
        self.text = text

    def sum(self, name, label_part=""):
        """Adds the samples of one metric over all label sets that contain `label_part`."""
        total = 0.0
        for line in self.text.splitlines():
            key, _, value = line.rpartition(" ")
            if key.partition("{")[0] == name and label_part in key:
                total += float(value)
        return total


class Fleet:
    running = []  # Of this process; the plugin prints their logs when a test fails.

    def __init__(self, state_dir, *, model=DEMO_MODEL, shards=2, routers=1, port=0, options=()):
        self.state_dir = Path(state_dir)
        self.model = model
        self.port = port
        self.options = ["--shards", shards, "--routers", routers, *options]
        self.api = None

    def __enter__(self):
        self.start()
        Fleet.running.append(self)
        return self

    def __exit__(self, kind, error, trace):
        Fleet.running.remove(self)
        try:
            self.stop()
        finally:
            end_processes_of(self.state_dir)

    def up(self):
        """`switchyard up --detach`, whatever comes of it."""
        return run_switchyard(
            "up", "--model", self.model, "--state-dir", self.state_dir, "--port", self.port,
            "--ready-seconds", START_SECONDS_MAX - 15, "--detach", *self.options,
        )

    def start(self):
        try:
            done = self.up()
            assert done.returncode == 0, f"up failed:\n{done.stdout}\n{done.stderr}"
            self.api = Api(self.status()["api"])
        except BaseException:
            print(self.log_tails(), file=sys.stderr)
            end_processes_of(self.state_dir)
            raise

    def stop(self):
        """`switchyard down`; fails when it leaves a process behind."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGCONT)  # A stopped process cannot be asked to stop.
            except ProcessLookupError:
                pass
        done = run_switchyard("down", "--state-dir", self.state_dir, seconds_max=STOP_SECONDS_MAX)
        assert done.returncode == 0, f"down failed:\n{done.stdout}\n{done.stderr}"
        wait_until(lambda: not self.pids(), 5, "no process left after down")

    def status(self):
        done = run_switchyard("status", "--json", "--state-dir", self.state_dir)
        return json.loads(done.stdout)

    def process(self, name):
        for process in self.status()["processes"]:
            if process["name"] == name:
                return process
        raise AssertionError(f"no process {name}")

    def pid(self, name):
        return self.process(name)["pid"]

    def names(self):
        return [process["name"] for process in self.status()["processes"]]

    def pids(self):
        """Of every process of the fleet, the supervisor included."""
        return pids_that_mention(self.state_dir)

    def signal(self, name, number):
        """Sends a signal to a process by its name and returns its pid."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def admin(self, name):
        return Api("http://" + self.process(name)["addresses"]["admin"])

    def metrics(self, name):
        reply = self.admin(name).get("/metrics")
        assert reply.status == 200
        return Metrics(reply.text)

    def process_status(self, name):
        """The JSON of a process's own /status."""
        return self.admin(name).get("/status").json()

    def is_ready(self):
        try:
            return self.api.get("/ready", seconds_max=2).status == 200
        except OSError:
            return False

    def wait_ready(self, seconds=HEAL_SECONDS_MAX):
        wait_until(self.is_ready, seconds, "the API is ready")

    def wait_serving(self, seconds=HEAL_SECONDS_MAX):
        """Waits until a fault is over for good.

        What /ready says may be from before the fault, and a request may wait through it while the gateway
        has just learnt of it: only readiness after an answer is news.
        """
        body = completion("Once", max_tokens=1)
        self.wait_ready(seconds)
        wait_until(lambda: self._answers(body), seconds, "requests succeed")
        self.wait_ready(seconds)

    def _answers(self, body):
        try:
            return self.api.post("/v1/completions", body).status == 200
        except OSError:
            return False

    def wait_restarted(self, name, old_pid, seconds=HEAL_SECONDS_MAX):
        """Waits until another process of that name runs and requests succeed."""

        def is_back():
            process = self.process(name)
            return process["state"] == "running" and process["pid"] not in (0, old_pid)

        wait_until(is_back, seconds, f"{name} is back")
        self.wait_serving(seconds)

    def wait_quiet(self, seconds=10):
        """Waits until no router has a request and none holds a cache block; unheld ones may be cached."""
        admins = [self.admin(name) for name in self.names() if name.startswith("router-")]

        def is_quiet():
            states = [admin.get("/status").json() for admin in admins]
            return all(
                state["running"] == 0 and state["waiting"] == 0
                and state["free_blocks"] == state["total_blocks"]
                for state in states
            )

        wait_until(is_quiet, seconds, "routers have no request and all blocks are free")

    def log_files(self):
        return sorted((self.state_dir / "logs").glob("*"))

    def log_tails(self, lines_max=40):
        lines = []
        for path in self.log_files():
            tail = path.read_text(errors="replace").splitlines()[-lines_max:]
            lines += [f"--- {path.name}", *tail]
        return "\n".join(lines)

    def assert_all_alive(self):
        for process in self.status()["processes"]:
            assert process["state"] == "running", process
            assert process["restarts"] == 0, process
            assert is_alive(process["pid"]), process
