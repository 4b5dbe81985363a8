"""Far more processes than cores: slower, but nothing else changes. bench/oversubscription.py has the times."""

import asyncio

from api import completion
from fleet import Fleet

SHARDS = 8
STREAMS = 16


def requests():
    for index in range(STREAMS):
        fields = {"max_tokens": 64, "ignore_eos": True, "temperature": index % 2, "seed": index}
        yield "/v1/completions", completion(f"Story number {index}:", **fields)


async def run_streams(api):
    return await asyncio.gather(*(api.stream(path, body) for path, body in requests()))


def texts_of(fleet):
    streams = asyncio.run(run_streams(fleet.api))
    for stream in streams:
        assert stream.is_done and not stream.fault and stream.error is None, stream
        assert stream.finish_reason == "length", stream
    return [stream.text for stream in streams]


def test_eight_shards_say_what_two_say(tmp_path, fleet):
    expected = texts_of(fleet)
    with Fleet(tmp_path / "state", shards=SHARDS) as crowded:
        assert texts_of(crowded) == expected
        crowded.wait_quiet()
        crowded.assert_all_alive()
