#!/usr/bin/env python3
"""What many more processes than cores cost: times between tokens of 1 router with 8 shards, against 2 shards.

    python3 bench/oversubscription.py [--bin-dir build/bin] [--rounds 5] [--shards 8] [--cpus 0,1]

Both fleets run all the time, as `switchyard up` starts them, and take turns under the same load; the idle one
uses next to nothing. Prints each round's p50 and p99 between events of a stream, their ratios, and the medians.
Needs nothing but Python.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "integration"))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bin-dir", type=Path, default=ROOT / "build" / "bin")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=8, help="of the fleet that is compared with 2")
    parser.add_argument("--streams", type=int, default=16, help="at the same time")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--repeats", type=int, default=4, help="streams of each user in a round, one after another")
    parser.add_argument("--cpus", help="processors for fleets and client, such as 0,1; else as started")
    parser.add_argument("--option", action="append", default=[], help="a word more for `switchyard up`")
    return parser.parse_args()


async def gaps_of_streams(api, arguments):
    """Seconds between events of one stream, over all streams."""
    gaps = []

    async def run(index):
        for repeat in range(arguments.repeats):
            await run_one(index + repeat * arguments.streams)

    async def run_one(index):
        at = None

        def on_event(_):
            nonlocal at
            now = time.monotonic()
            if at is not None:
                gaps.append(now - at)
            at = now

        body = {
            "prompt": f"Story number {index}:", "max_tokens": arguments.tokens, "ignore_eos": True, "seed": index,
        }
        stream = await api.stream("/v1/completions", body, on_event=on_event)
        if not stream.is_done:
            raise RuntimeError(f"stream {index} ended early: {stream.error or stream.fault}")

    await asyncio.gather(*(run(index) for index in range(arguments.streams)))
    return gaps


def run_round(fleet, arguments):
    started = time.monotonic()
    gaps = sorted(asyncio.run(gaps_of_streams(fleet.api, arguments)))
    return {
        "p50": gaps[len(gaps) // 2],
        "p99": gaps[len(gaps) * 99 // 100],
        "rate": arguments.streams * arguments.repeats * arguments.tokens / (time.monotonic() - started),
    }


def compare(few, many, arguments):
    for fleet in (few, many):
        run_round(fleet, arguments)  # To warm up.
    rounds = []
    print("round   2 shards: p50 ms  p99 ms  tok/s   more: p50 ms  p99 ms  tok/s   p99 ratio")
    for index in range(arguments.rounds):
        pair = [run_round(fleet, arguments) for fleet in (few, many)]
        ratio = pair[1]["p99"] / pair[0]["p99"]
        rounds.append(ratio)
        cells = [f"{1e3 * one['p50']:8.2f} {1e3 * one['p99']:7.2f} {one['rate']:6.0f}" for one in pair]
        print(f"{index:5}             {cells[0]}         {cells[1]}   {ratio:9.2f}", flush=True)
    low, high = min(rounds), max(rounds)
    print(f"p99 between tokens, {arguments.shards} shards to 2: median {statistics.median(rounds):.2f} ({low:.2f} to {high:.2f})")


def main():
    arguments = parse_arguments()
    os.environ["SY_BIN_DIR"] = str(arguments.bin_dir)
    if arguments.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    from fleet import Fleet  # It reads SY_BIN_DIR.

    with tempfile.TemporaryDirectory() as folder:
        options = {"model": arguments.model, "options": arguments.option}
        with Fleet(Path(folder) / "few", shards=2, **options) as few:
            with Fleet(Path(folder) / "many", shards=arguments.shards, **options) as many:
                compare(few, many, arguments)


if __name__ == "__main__":
    main()
