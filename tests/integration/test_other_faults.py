"""Router, autoscaler, gateway and supervisor killed under load."""

import os
import signal
import time

import pytest

from api import OpenStreams, completion
from fleet import HEAL_SECONDS_MAX, Fleet
from processes import wait_until

END_SECONDS_MAX = 10
EXPECTED = completion("A small red bird", temperature=0, max_tokens=24, ignore_eos=True)


def stream_request(index, max_tokens):
    fields = {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 1, "seed": index}
    return "/v1/completions", completion(f"Chapter {index}", **fields)


def open_streams(fleet, count=6, max_tokens=1600):
    streams = OpenStreams(fleet.api, [stream_request(index, max_tokens) for index in range(count)])
    streams.wait_flowing()
    return streams


def assert_heals(fleet, text_before):
    fleet.wait_serving()
    assert fleet.api.text("/v1/completions", EXPECTED) == text_before
    fleet.wait_quiet()


@pytest.fixture(scope="module")
def one_router(module_dir):
    with Fleet(module_dir / "one", shards=1) as fleet:
        yield fleet


@pytest.fixture
def fleet_of_one(one_router):
    one_router.wait_ready()
    one_router.wait_quiet()
    return one_router


def test_killed_router_ends_its_streams_clearly(fleet_of_one):
    fleet = fleet_of_one
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    streams = open_streams(fleet)
    old_pid = fleet.signal("router-0", signal.SIGKILL)
    for stream in streams.results(END_SECONDS_MAX):
        assert not stream.fault and not stream.is_done, stream
        assert stream.error["type"] == "service_unavailable_error", stream.error
    fleet.wait_restarted("router-0", old_pid)
    assert_heals(fleet, text_before)


def test_killed_router_of_two_is_not_noticed(tmp_path):
    with Fleet(tmp_path / "state", shards=2, routers=2) as fleet:
        count, max_tokens = 8, 300
        expected = [
            fleet.api.text(*stream_request(index, max_tokens)) for index in range(count)
        ]
        streams = open_streams(fleet, count, max_tokens)
        old_pid = fleet.signal("router-0", signal.SIGKILL)
        results = streams.results()
        for index, stream in enumerate(results):
            assert not stream.fault and stream.error is None and stream.is_done, stream
            assert stream.text == expected[index]
        fleet.wait_restarted("router-0", old_pid)
        fleet.wait_quiet()


def test_killed_autoscaler_disturbs_no_request(fleet_of_one):
    fleet = fleet_of_one
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    epoch = fleet.status()["epoch"]
    assert epoch >= 1
    count, max_tokens = 4, 400
    expected = [fleet.api.text(*stream_request(index, max_tokens)) for index in range(count)]
    streams = open_streams(fleet, count, max_tokens)
    old_pid = fleet.signal("autoscaler", signal.SIGKILL)
    give_up = time.monotonic() + HEAL_SECONDS_MAX
    while fleet.process("autoscaler")["pid"] in (0, old_pid):
        assert fleet.api.text("/v1/completions", EXPECTED) == text_before
        assert time.monotonic() < give_up
    for index, stream in enumerate(streams.results()):
        assert stream.error is None and stream.is_done, stream
        assert stream.text == expected[index]
    fleet.wait_restarted("autoscaler", old_pid)
    wait_until(lambda: fleet.status()["epoch"] == epoch, HEAL_SECONDS_MAX, f"epoch is {epoch} again")
    assert fleet.api.text("/v1/completions", EXPECTED) == text_before
    for name in ("expert-shard-0", "router-0", "gateway"):
        assert fleet.process_status(name)["pid"] == fleet.pid(name)
    # It leads again: a shard that dies now gets its experts back from it.
    shard_pid = fleet.signal("expert-shard-0", signal.SIGKILL)
    fleet.wait_restarted("expert-shard-0", shard_pid)
    assert_heals(fleet, text_before)


def test_killed_gateway_is_back_at_its_port(fleet_of_one):
    fleet = fleet_of_one
    text_before = fleet.api.text("/v1/completions", EXPECTED)
    port = fleet.api.port
    streams = open_streams(fleet)
    old_pid = fleet.signal("gateway", signal.SIGKILL)
    for stream in streams.results(END_SECONDS_MAX):
        assert not stream.is_done
    fleet.wait_restarted("gateway", old_pid)
    assert fleet.status()["api"].endswith(f":{port}")
    # The router has given up the requests of the lost gateway.
    fleet.wait_quiet()
    assert_heals(fleet, text_before)


def test_killed_supervisor_takes_all_processes_along(tmp_path):
    with Fleet(tmp_path / "state") as fleet:
        names = {process["pid"] for process in fleet.status()["processes"]}
        (supervisor,) = set(fleet.pids()) - names
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not fleet.pids(), 45, "no process is left")
        assert not fleet.status()["ready"]
        fleet.start()
        assert fleet.api.text("/v1/completions", EXPECTED)
