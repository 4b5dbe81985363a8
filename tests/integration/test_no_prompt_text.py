"""Prompt and answer text reach no log, metric, status or error, whatever happens to the request."""

import signal

from api import OpenStreams, chat, completion
from fleet import Fleet

# Letters of no language, so that nothing else contains them.
CANARY = "zqxjkvbwp"
PREFILL = f"My secret word is {CANARY}."


def good_requests(index):
    fields = {"max_tokens": 16, "seed": index}
    return [
        ("/v1/chat/completions", chat(PREFILL, **fields)),
        ("/v1/completions", completion(PREFILL, echo=True, logprobs=2, **fields)),
        ("/v1/completions", completion(PREFILL, stop=[CANARY], n=2, **fields)),
        ("/v1/completions", completion(PREFILL, cache_salt=CANARY, user=CANARY, **fields)),
    ]


def bad_bodies():
    """Each refused, each with the canary where a careless message would repeat it."""
    text = f'"{CANARY}"'
    yield "/v1/chat/completions", f'{{"messages":[{{"role":{text},"content":{text}}}]}}'
    yield "/v1/chat/completions", f'{{"messages":[{{"role":"user","content":{{{text}:1}}}}]}}'
    yield "/v1/chat/completions", f'{{"messages":{text}}}'
    yield "/v1/chat/completions", f'{{"messages":[{{"role":"user","content":{text}}}'
    yield "/v1/chat/completions", f'{{"messages":[{{"role":"user","content":{text}}}],"model":{text}}}'
    yield "/v1/chat/completions", f'{{"messages":[{{"role":"user","content":{text}}}],"tool_choice":{text}}}'
    yield "/v1/completions", f'{{"prompt":{text},"temperature":{text}}}'
    yield "/v1/completions", f'{{"prompt":[{text},1]}}'
    yield "/v1/completions", f'{{"prompt":{text},"stop":[{text},5]}}'
    yield "/v1/completions", f'{{"prompt":{text},"logit_bias":{{{text}:1}}}}'
    yield "/v1/completions", f'{{"prompt":{text},"max_tokens":99999999}}'
    yield "/v1/completions", f'{{"prompt":"{(CANARY + " ") * 4000}"}}'
    yield "/v1/completions", f"{CANARY}"
    yield f"/v1/{CANARY}", f'{{"prompt":{text}}}'
    yield f"/v1/completions?{CANARY}={CANARY}", f'{{"prompt":{text},"n":0}}'


def assert_absent(text, where):
    at = text.find(CANARY)
    assert at < 0, f"{where} holds the canary: ...{text[max(0, at - 200) : at + 100]}..."


def test_no_prompt_text_leaves_the_request_path(tmp_path):
    with Fleet(tmp_path / "state", shards=2) as fleet:
        for path, body in good_requests(1):
            reply = fleet.api.post(path, body)
            assert reply.status == 200, reply.text
        for path, body in bad_bodies():
            reply = fleet.api.post(path, body.encode())
            assert 400 <= reply.status < 500, (path, reply.status)
            assert_absent(reply.text, f"the refusal of {path}")
        oversized = f'{{"prompt":"{CANARY}{"x" * (9 << 20)}"}}'.encode()
        assert_absent(fleet.api.post("/v1/completions", oversized).text, "the refusal of a large body")
        broken = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\n{CANARY} {CANARY}\r\n\r\n"
        assert_absent(fleet.api.send_raw(broken.encode()).text, "the refusal of a bad head")

        for victim in ("expert-shard-0", "router-0"):
            fields = {"max_tokens": 1200, "ignore_eos": True}
            streams = OpenStreams(fleet.api, [
                ("/v1/chat/completions", chat(PREFILL, **fields)),
                ("/v1/completions", completion(PREFILL, **fields)),
            ])
            streams.wait_flowing()
            old_pid = fleet.signal(victim, signal.SIGKILL)
            for stream in streams.results():
                if stream.error is not None:
                    assert_absent(str(stream.error), f"the error event after {victim}")
            fleet.wait_restarted(victim, old_pid)

        for name in fleet.names():
            assert_absent(fleet.metrics(name).text, f"/metrics of {name}")
            assert_absent(fleet.admin(name).get("/status").text, f"/status of {name}")
        assert_absent(str(fleet.status()), "switchyard status")
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" and path.stat().st_size > 0 for path in files)
    for path in files:
        assert_absent(path.read_text(errors="replace"), path.name)
