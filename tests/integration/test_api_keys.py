"""API keys: nobody without one, and no other address than loopback without them."""

import hashlib

import pytest

from api import Api, chat, check_error, completion
from fleet import DEMO_MODEL, Fleet, end_processes_of, run_switchyard

KEY = "sk-test-0123456789abcdef"
OTHER_KEY = "sk-other-fedcba9876543210"


def write_keys(path, *keys):
    lines = [f"key{i} sha256:{hashlib.sha256(key.encode()).hexdigest()}" for i, key in enumerate(keys)]
    path.write_text("# keys of the tests\n\n" + "\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def locked_fleet(module_dir):
    keys = write_keys(module_dir / "keys", KEY, OTHER_KEY)
    with Fleet(module_dir / "state", shards=1, options=["--api-keys", keys]) as fleet:
        yield fleet


@pytest.mark.parametrize("path, method, body", [
    ("/v1/models", "GET", None),
    ("/v1/completions", "POST", completion("Once", max_tokens=2)),
    ("/v1/chat/completions", "POST", chat("Hi", max_tokens=2)),
])
def test_requests_need_a_key(locked_fleet, path, method, body):
    api = locked_fleet.api
    wrong = [None, "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x",
             f"Bearer {KEY[:-1]}", "Bearer " + "x" * 5000]
    for value in wrong:
        reply = api.call(method, path, body, headers={"Authorization": value} if value else {})
        assert reply.status == 401, (value, reply.text)
        error = check_error(reply.body)
        assert error["type"] == "authentication_error" and error["code"] == "invalid_api_key"
        assert KEY not in reply.text
    for key in (KEY, OTHER_KEY):
        assert Api(api.url, key).call(method, path, body).status == 200


def test_each_key_has_its_own_prefix_cache(locked_fleet):
    body = completion("Once upon a time there was a fox. " * 8, max_tokens=2)

    def cached_tokens(key):
        reply = Api(locked_fleet.api.url, key).post("/v1/completions", body)
        assert reply.status == 200, reply.text
        return reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached_tokens(KEY) == 0
    assert cached_tokens(KEY) > 0
    assert cached_tokens(OTHER_KEY) == 0


def test_health_needs_no_key_and_keys_are_not_logged(locked_fleet):
    assert locked_fleet.api.get("/ready").status == 200
    assert locked_fleet.api.get("/live").status == 200
    for path in locked_fleet.log_files():
        assert KEY not in path.read_text()
    for name in locked_fleet.names():
        assert KEY not in locked_fleet.metrics(name).text


def test_chat_takes_a_key(locked_fleet):
    words = ["chat", "--state-dir", locked_fleet.state_dir, "--max-tokens", 4]
    assert run_switchyard(*words, input="Hello\n").returncode == 1
    assert run_switchyard(*words, "--api-key", KEY, input="Hello\n").returncode == 0


def up(state, *options):
    return run_switchyard(
        "up", "--model", DEMO_MODEL, "--state-dir", state, "--port", 0, "--shards", 1, "--detach",
        "--ready-seconds", 30, *options,
    )


def test_other_addresses_need_keys(tmp_path):
    state = tmp_path / "state"
    done = up(state, "--host", "0.0.0.0")
    left = end_processes_of(state)
    assert done.returncode != 0 and "key" in done.stderr, done
    assert not left


def test_other_addresses_are_served_with_keys(tmp_path):
    keys = write_keys(tmp_path / "keys", KEY)
    options = ["--host", "0.0.0.0", "--api-keys", keys]
    with Fleet(tmp_path / "state", shards=1, options=options) as fleet:
        assert fleet.api.get("/v1/models").status == 401
        assert Api(fleet.api.url, KEY).get("/v1/models").status == 200


@pytest.mark.parametrize("content", [None, "", "# nothing\n", "name\n", "name sha256:xyz\n", KEY + "\n"])
def test_bad_key_files_are_refused(tmp_path, content):
    state = tmp_path / "state"
    if content is not None:
        (tmp_path / "keys").write_text(content)
    done = up(state, "--api-keys", tmp_path / "keys")
    left = end_processes_of(state)
    assert done.returncode != 0 and "key" in done.stderr, done
    assert KEY not in done.stderr
    assert not left
