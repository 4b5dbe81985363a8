"""A prompt that is asked again is not computed again, and the answer is the same."""

import pytest

from api import chat, completion

STORY = "Once upon a time there was a little fox who lived by the river. " * 12
BLOCK_TOKENS = 16
TOKENS = {"max_tokens": 24, "temperature": 0, "ignore_eos": True}


def ask(api, path, body):
    reply = api.post(path, body)
    assert reply.status == 200, reply.text
    said = reply.json()
    usage = said["usage"]
    return said["choices"], usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("path, body", [
    ("/v1/completions", completion("A: " + STORY, **TOKENS)),
    ("/v1/chat/completions", chat("B: " + STORY, **TOKENS)),
])
def test_the_second_time_is_a_hit_with_the_same_answer(fleet, path, body):
    choices, prompt_tokens, cached = ask(fleet.api, path, body | {"cache_salt": path})
    assert cached == 0
    again = ask(fleet.api, path, body | {"cache_salt": path})
    assert again == (choices, prompt_tokens, (prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
    # Neither another salt nor none finds it.
    assert ask(fleet.api, path, body | {"cache_salt": path + "2"}) == (choices, prompt_tokens, 0)
    assert ask(fleet.api, path, body) == (choices, prompt_tokens, 0)


def test_a_scored_prompt_is_computed_whole(fleet):
    body = completion("C: " + STORY, echo=True, logprobs=1, **TOKENS)
    first = ask(fleet.api, "/v1/completions", body)
    assert ask(fleet.api, "/v1/completions", body) == first
    assert first[2] == 0


def test_hits_are_counted_and_nothing_is_held_afterwards(fleet):
    def counted(name):
        return sum(
            fleet.metrics(router).sum(f"switchyard_prefix_cache_{name}")
            for router in fleet.names() if router.startswith("router-")
        )

    body = completion("D: " + STORY, **TOKENS)
    prompt_tokens = ask(fleet.api, "/v1/completions", body)[1]
    hits, queries = counted("hits_tokens_total"), counted("queries_tokens_total")
    cached = ask(fleet.api, "/v1/completions", body)[2]
    fleet.wait_quiet()
    assert counted("hits_tokens_total") - hits == cached
    assert counted("queries_tokens_total") - queries == prompt_tokens
    assert counted("blocks") >= cached // BLOCK_TOKENS
    for name in fleet.names():
        assert fleet.metrics(name).sum("switchyard_kv_cache_usage_ratio") == 0
