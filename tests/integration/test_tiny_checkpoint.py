"""Checkpoints that another program wrote are served as they are."""

import pytest

from api import chat, completion
from fleet import Fleet
from models import GOLDENS, add_tiny_tokenizer, copy_golden

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


@pytest.mark.parametrize("name", ["base", "tied-biased", "yarn-mscale"])
def test_random_checkpoint_is_served(name, tmp_path):
    assert (GOLDENS / name).is_dir()
    model = add_tiny_tokenizer(copy_golden(tmp_path / "tiny", name))
    answers = []
    for shards in (1, 3):
        with Fleet(tmp_path / f"state{shards}", model=model, shards=shards) as fleet:
            (card,) = fleet.api.get("/v1/models").json()["data"]
            assert card["id"] == "tiny"
            reply = fleet.api.post("/v1/completions", completion("Hello, you.", logprobs=5, **GREEDY))
            assert reply.status == 200, reply.text
            assert reply.json()["usage"] | {"prompt_tokens_details": None} == {
                "prompt_tokens": 12, "completion_tokens": 12, "total_tokens": 24,
                "prompt_tokens_details": None,
            }
            answers.append((reply.json()["choices"], fleet.api.text("/v1/chat/completions", chat("Hi", **GREEDY))))
    assert answers[0] == answers[1]
