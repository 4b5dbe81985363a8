"""A shard that dies or stops, each expert having one replica: open requests end, and the fleet heals."""

import os
import signal
import threading

import pytest

from api import OpenStreams, chat, completion
from fleet import Fleet

CALL_SECONDS = 2  # Deadline of an expert call.
UNREADY_SECONDS = 5  # How long a router lets requests wait for experts that nobody holds.
SLACK_SECONDS = 5  # For a loaded machine.
SILENCE_SECONDS_MAX = CALL_SECONDS + UNREADY_SECONDS + SLACK_SECONDS
EXPECTED = completion("The little boat", temperature=0, max_tokens=24, ignore_eos=True)
LONG = {"max_tokens": 800, "ignore_eos": True, "temperature": 1}
LONG_REQUESTS = [
    ("/v1/chat/completions", chat("A story of the sea", seed=1, **LONG)),
    ("/v1/chat/completions", chat("A story of the moon", seed=2, **LONG)),
    ("/v1/completions", completion("A story of the sea", seed=3, **LONG)),
    ("/v1/completions", completion("A story of the moon", seed=4, **LONG)),
]


@pytest.fixture(scope="module")
def hurt_fleet(module_dir):
    with Fleet(module_dir / "state", shards=2) as fleet:
        yield fleet


@pytest.fixture
def healthy_fleet(hurt_fleet, long_texts):
    hurt_fleet.wait_ready()
    hurt_fleet.wait_quiet()
    yield hurt_fleet
    for name in hurt_fleet.names():
        pid = hurt_fleet.pid(name)
        if pid > 0:
            os.kill(pid, signal.SIGCONT)


class ReadyWatch:
    """Asks /ready all the time and keeps what it answered, without repetitions."""

    def __init__(self, api):
        self._api = api
        self._stop = threading.Event()
        self.seen = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.01):
            try:
                status = self._api.get("/ready", seconds_max=5).status
            except OSError:
                status = None
            if self.seen[-1:] != [status]:
                self.seen.append(status)

    def finish(self):
        self._stop.set()
        self._thread.join(10)
        return self.seen


@pytest.fixture(scope="module")
def long_texts(hurt_fleet):
    """What the long requests say when nothing goes wrong."""
    texts = [stream.text for stream in OpenStreams(hurt_fleet.api, LONG_REQUESTS).results()]
    assert all(texts)
    return texts


def open_streams(fleet):
    streams = OpenStreams(fleet.api, LONG_REQUESTS)
    streams.wait_flowing()
    return streams


def assert_ended_clearly(results, long_texts):
    """Each stream went on to its whole text, or ended in time with an error that says what happened."""
    for stream, text in zip(results, long_texts, strict=True):
        assert not stream.fault, stream.fault
        assert stream.silence < SILENCE_SECONDS_MAX, stream.silence
        if stream.error is None:
            assert stream.is_done and stream.finish_reason == "length"
            assert stream.text == text
        else:
            assert not stream.is_done
            assert text.startswith(stream.text)
            assert stream.error["type"] in ("service_unavailable_error", "server_error"), stream.error
            assert stream.error["code"] in ("unavailable", "timeout"), stream.error


def assert_one_request_ends(fleet):
    """A request while a shard is away gets its answer or a clear refusal in time."""
    reply = fleet.api.post("/v1/completions", EXPECTED, seconds_max=SILENCE_SECONDS_MAX)
    assert reply.status in (200, 503, 504), reply.text


def assert_healed(fleet, text_before):
    fleet.wait_serving()
    assert fleet.api.text("/v1/completions", EXPECTED) == text_before
    fleet.wait_quiet()


@pytest.mark.parametrize("victim", ["expert-shard-0", "expert-shard-1"])
def test_killed_shard_ends_requests_clearly_and_comes_back(healthy_fleet, long_texts, victim):
    fleet = healthy_fleet
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    streams = open_streams(fleet)
    watch = ReadyWatch(fleet.api)
    old_pid = fleet.signal(victim, signal.SIGKILL)
    assert_ended_clearly(streams.results(), long_texts)
    assert_one_request_ends(fleet)
    fleet.wait_restarted(victim, old_pid)
    assert_healed(fleet, text_before)
    seen = watch.finish()
    assert seen[-1] == 200 and set(seen) <= {200, 503}, seen
    assert 503 in seen, f"/ready never said that a shard was away: {seen}"
    assert fleet.process(victim)["restarts"] >= 1


def test_stopped_shard_ends_requests_within_the_deadline(healthy_fleet, long_texts):
    fleet = healthy_fleet
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    streams = open_streams(fleet)
    pid = fleet.signal("expert-shard-0", signal.SIGSTOP)
    results = streams.results()
    assert_ended_clearly(results, long_texts)
    for stream in results:
        assert stream.error["code"] == "timeout", stream.error
        assert stream.silence < CALL_SECONDS + SLACK_SECONDS
    assert_one_request_ends(fleet)
    os.kill(pid, signal.SIGCONT)
    assert_healed(fleet, text_before)
    assert fleet.pid("expert-shard-0") == pid


def test_stopped_shard_that_is_killed_comes_back(healthy_fleet, long_texts):
    fleet = healthy_fleet
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    streams = open_streams(fleet)
    pid = fleet.signal("expert-shard-1", signal.SIGSTOP)
    assert_ended_clearly(streams.results(), long_texts)
    os.kill(pid, signal.SIGKILL)
    fleet.wait_restarted("expert-shard-1", pid)
    assert_healed(fleet, text_before)


def test_both_shards_killed_at_once_come_back(healthy_fleet, long_texts):
    fleet = healthy_fleet
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    streams = open_streams(fleet)
    names = ["expert-shard-0", "expert-shard-1"]
    pids = [fleet.pid(name) for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert_ended_clearly(streams.results(), long_texts)
    for name, pid in zip(names, pids):
        fleet.wait_restarted(name, pid)
    assert_healed(fleet, text_before)
