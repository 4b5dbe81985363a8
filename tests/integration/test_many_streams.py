"""200 streams at once: no error, and afterwards nothing is left of them."""

import asyncio

from api import chat, completion
from processes import open_files, resident_mib, wait_until

STREAMS = 200
# Descriptors that a library may open once and keep.
FILES_SLACK = 4
MEMORY_SLACK_MIB = 64


def requests():
    for index in range(STREAMS):
        fields = {"max_tokens": 24, "ignore_eos": True, "seed": index}
        prompt = f"Story number {index}:"
        if index % 2 == 0:
            yield "/v1/chat/completions", chat(prompt, **fields)
        else:
            yield "/v1/completions", completion(prompt, **fields)


async def run_streams(api):
    return await asyncio.gather(*(api.stream(path, body, 100) for path, body in requests()))


def check_streams(api):
    for stream in asyncio.run(run_streams(api)):
        assert stream.status == 200 and not stream.fault and stream.error is None, stream
        assert stream.is_done and stream.finish_reason == "length", stream


def files_by_process(fleet):
    return {process["name"]: open_files(process["pid"]) for process in fleet.status()["processes"]}


def assert_gauges_are_zero(fleet):
    for name in fleet.names():
        metrics = fleet.metrics(name)
        for gauge in (
            "switchyard_requests_running", "switchyard_requests_waiting", "switchyard_streams_open",
            "switchyard_kv_cache_usage_ratio", "switchyard_dispatch_frames_waiting",
            "switchyard_shard_queue_rows",
        ):
            assert metrics.sum(gauge) == 0, (name, gauge)


def test_nothing_is_left_of_200_streams(fleet):
    fleet.api.text("/v1/completions", completion("Once", max_tokens=4))
    fleet.wait_quiet()
    files_before = files_by_process(fleet)
    assert_gauges_are_zero(fleet)

    check_streams(fleet.api)
    fleet.wait_quiet()
    memory_before = {pid: resident_mib(pid) for pid in fleet.pids()}

    def files_are_back():
        now = files_by_process(fleet)
        return all(now[name] <= files_before[name] + FILES_SLACK for name in now)

    wait_until(files_are_back, 10, f"descriptors are back at {files_before}")
    assert_gauges_are_zero(fleet)

    check_streams(fleet.api)
    fleet.wait_quiet()
    wait_until(files_are_back, 10, f"descriptors are back at {files_before}")
    assert_gauges_are_zero(fleet)
    for pid, before in memory_before.items():
        assert resident_mib(pid) < before + MEMORY_SLACK_MIB
