"""Weights kept in other formats than stored: the fleet's shape changes no text, and formats do not mix."""

import json
import re
import signal
import subprocess

import pytest

from api import Api, chat, completion
from fleet import BIN_DIR, HEAL_SECONDS_MAX, Fleet
from processes import wait_until

TOKENS = {"max_tokens": 32, "ignore_eos": True}
CASES = [
    ("/v1/completions", completion("Once upon a time", temperature=0, logprobs=2, **TOKENS)),
    ("/v1/completions", completion("The big dog", temperature=1, seed=11, **TOKENS)),
    ("/v1/chat/completions", chat("Tell me a story about a fox.", temperature=0, **TOKENS)),
]


def ask(api):
    replies = [api.post(path, body) for path, body in CASES]
    assert all(reply.status == 200 for reply in replies), [reply.text for reply in replies]
    return [reply.json()["choices"] for reply in replies]


@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_texts_are_equal_for_each_choice(weights, tmp_path, fleet):
    with Fleet(tmp_path / "two", shards=2, options=["--weights", weights, "--threads", 1]) as two:
        said = ask(two.api)
        old_pid = two.signal("expert-shard-1", signal.SIGKILL)
        two.wait_restarted("expert-shard-1", old_pid)
        assert ask(two.api) == said
    options = ["--weights", weights, "--threads", 2, "--transport", "tcp", "--chunk-tokens", 16]
    with Fleet(tmp_path / "one", shards=1, options=options) as one:
        assert ask(one.api) == said
    # The demo model is stored in BF16; other choices show in the probabilities.
    assert (said == ask(fleet.api)) == (weights == "bf16")


class Stray:
    """A process with the configuration of one of the fleet's, but other weights; nobody supervises it."""

    def __init__(self, program, config, folder):
        folder.mkdir()
        self._address_path = folder / "addresses.json"
        self._log_path = folder / "log"
        config = config | {"common": config["common"] | {"address_file": str(self._address_path)}}
        (folder / "config.json").write_text(json.dumps(config))
        self._command = [BIN_DIR / program, "--config", folder / "config.json"]

    def __enter__(self):
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def __exit__(self, kind, error, trace):
        self._process.kill()
        self._process.wait()

    def wait_says(self, pattern):
        def says():
            log = self._log_path.read_text()
            assert self._process.poll() is None, log
            return re.search(pattern, log)

        wait_until(says, HEAL_SECONDS_MAX, f"the log has {pattern}")

    def is_ready(self):
        admin = json.loads(self._address_path.read_text())["addresses"]["admin"]
        return Api(f"http://{admin}").get("/ready").status == 200


def test_other_weights_are_refused_with_the_reason(tmp_path):
    with Fleet(tmp_path / "state", shards=1, options=["--weights", "int8"]) as fleet:
        text = fleet.api.text(*CASES[0])

        def config_of(name, **changes):
            config = json.loads((fleet.state_dir / "config" / f"{name}.json").read_text())
            assert config["weights"] == "int8"
            return config | {"weights": "int4"} | changes

        router = config_of("router-0", grpc_address="127.0.0.1:0")
        with Stray("switchyard-router", router, tmp_path / "router") as stray:
            stray.wait_says("shard refused.*weights=int4.*this side.*weights=int8")
            assert not stray.is_ready()
        shard = config_of("expert-shard-0", shard=1)
        with Stray("switchyard-expert-shard", shard, tmp_path / "shard") as stray:
            stray.wait_says("shard 1: numerics id .*weights=int4.* is not the fleet's .*weights=int8")
            assert not stray.is_ready()
        assert fleet.api.text(*CASES[0]) == text
        fleet.assert_all_alive()
