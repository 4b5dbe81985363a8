"""Greedy and seeded texts are the same whatever the fleet looks like and whatever runs beside them."""

import asyncio
import itertools

import pytest

from api import chat, completion
from fleet import Fleet

# shards, routers, transport, threads, micro-batches, tokens of a prompt chunk. The first is the reference.
AXES = [(1, 2, 4), (1, 2), ("shm", "tcp"), (1, 2), (1, 2), (16, 512)]
FLEETS = [
    (2, 1, "shm", 1, 1, 512),
    (2, 2, "tcp", 2, 2, 16),
    (4, 2, "tcp", 2, 1, 512),
    (4, 1, "shm", 1, 2, 16),
    (1, 2, "tcp", 1, 2, 512),
    (1, 1, "tcp", 2, 1, 16),
    (1, 2, "shm", 2, 1, 512),
]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LONG_PROMPT = "Once upon a time there was a little fox who lived by the river. " * 24
TOKENS = {"max_tokens": 32, "ignore_eos": True}
CASES = [
    (CHAT, chat("Tell me a story about a fox.", temperature=0, **TOKENS)),
    (CHAT, chat("What is two plus three?", temperature=1, seed=7, **TOKENS)),
    (CHAT, chat("Hello!", temperature=0, logprobs=True, top_logprobs=3, **TOKENS)),
    (COMPLETIONS, completion("Once upon a time", temperature=0, **TOKENS)),
    (COMPLETIONS, completion("The big dog", temperature=1.2, top_p=0.9, seed=11, n=2, **TOKENS)),
    (COMPLETIONS, completion("Lily saw", temperature=0.8, top_k=20, seed=-3, logprobs=2, **TOKENS)),
    (COMPLETIONS, completion(LONG_PROMPT, temperature=0, presence_penalty=0.5, **TOKENS)),
    (COMPLETIONS, completion([0, 50, 60, 70, 80], temperature=2, seed=2**40, **TOKENS)),
]


def fleet_options(transport, threads, micro_batches, chunk_tokens):
    return [
        "--transport", transport, "--threads", threads, "--micro-batches", micro_batches,
        "--chunk-tokens", chunk_tokens,
    ]


def what_was_said(reply):
    """Everything of an answer that must not depend on the fleet."""
    assert reply.status == 200, reply.text
    said = reply.json()
    return said["choices"], said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]


def ask_alone(api):
    return [what_was_said(api.post(path, body)) for path, body in CASES]


async def ask_together(api, times):
    replies = await asyncio.gather(
        *(api.call_async(path, body) for _ in range(times) for path, body in CASES)
    )
    return [what_was_said(reply) for reply in replies]


def test_fleets_cover_all_pairs_of_values():
    for (i, left), (j, right) in itertools.combinations(enumerate(AXES), 2):
        for pair in itertools.product(left, right):
            assert any((fleet[i], fleet[j]) == pair for fleet in FLEETS), (i, j, pair)


@pytest.fixture(scope="module")
def reference():
    """Answers of the first fleet, filled by its test."""
    return {}


@pytest.mark.parametrize("shape", FLEETS, ids=lambda shape: "-".join(map(str, shape)))
def test_texts_are_equal(shape, tmp_path, reference):
    shards, routers, *rest = shape
    with Fleet(
        tmp_path / "state", shards=shards, routers=routers, options=fleet_options(*rest)
    ) as fleet:
        alone = ask_alone(fleet.api)
        expected = reference.setdefault("said", alone)
        assert alone == expected
        assert asyncio.run(ask_together(fleet.api, 4)) == expected * 4
        fleet.wait_quiet()


def test_a_stream_says_what_one_answer_says(fleet):
    async def text_of(path, body):
        stream = await fleet.api.stream(path, body)
        assert stream.is_done and stream.error is None, stream
        return stream.text

    for path, body in CASES:
        if body.get("n", 1) == 1:
            assert asyncio.run(text_of(path, body)) == fleet.api.text(path, body)


def test_seeds_matter(fleet):
    texts = {
        fleet.api.text(CHAT, chat("Hello!", temperature=2, seed=seed, **TOKENS)) for seed in range(4)
    }
    assert len(texts) > 1
