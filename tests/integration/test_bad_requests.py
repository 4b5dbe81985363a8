"""Bad input over HTTP: the documented error object each time, and nobody else notices."""

import json
import threading

import pytest

from api import chat, check_error, completion

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
CONTEXT = 2048
VOCABULARY = 4096

REFUSED = "invalid_request_error"


def chat_with(members):
    return f'{{"messages":[{{"role":"user","content":"hi"}}],"max_tokens":2,{members}}}'


def chat_messages(messages):
    return f'{{"max_tokens":2,"messages":{messages}}}'


def completion_with(members):
    return f'{{"prompt":"hi",{members}}}'


# path, body, status, code, param
BODIES = [
    # Not a request at all.
    (CHAT, "", 400, "invalid_json", None),
    (CHAT, "hello", 400, "invalid_json", None),
    (CHAT, "null", 400, "invalid_json", None),
    (CHAT, "[]", 400, "invalid_json", None),
    (CHAT, '{"messages":[{"role":"user","content":"hi"}]', 400, "invalid_json", None),
    (CHAT, '{"messages":[],}', 400, "invalid_json", None),
    (CHAT, chat_with('"n":1') + "x", 400, "invalid_json", None),
    (CHAT, chat_with('"n":1,"n":1'), 400, "invalid_json", None),
    (CHAT, chat_with('"temperature":NaN'), 400, "invalid_json", None),
    (CHAT, chat_with('"temperature":1e999'), 400, "invalid_json", None),
    (CHAT, "[" * 100000, 400, "invalid_json", None),
    (COMPLETIONS, '{"prompt":"\\ud800"}', 400, "invalid_json", None),
    (COMPLETIONS, b'{"prompt":"\xff\xfe"}', 400, "invalid_json", None),
    (COMPLETIONS, b'{"prompt":"a\x00b"}', 400, "invalid_json", None),
    (COMPLETIONS, b"\x1f\x8b\x08\x00\x00\x00\x00\x00", 400, "invalid_json", None),
    (COMPLETIONS, "prompt=hi&max_tokens=2", 400, "invalid_json", None),
    # Messages.
    (CHAT, "{}", 400, "invalid_value", "messages"),
    (CHAT, chat_messages("null"), 400, "invalid_value", "messages"),
    (CHAT, chat_messages('"hi"'), 400, "invalid_value", "messages"),
    (CHAT, chat_messages("[]"), 400, "invalid_value", "messages"),
    (CHAT, chat_messages("[5]"), 400, "invalid_value", "messages[0]"),
    (CHAT, chat_messages('[{"content":"hi"}]'), 400, "invalid_value", "messages[0].role"),
    (CHAT, chat_messages('[{"role":"king","content":"hi"}]'), 400, "invalid_value", "messages[0].role"),
    (CHAT, chat_messages('[{"role":"user"}]'), 400, "invalid_value", "messages[0].content"),
    (CHAT, chat_messages('[{"role":"user","content":5}]'), 400, "invalid_value", "messages[0].content"),
    (CHAT, chat_messages('[{"role":"user","content":[{"type":"image_url"}]}]'), 400,
     "unsupported_parameter", "messages[0].content[0].type"),
    (CHAT, chat_messages('[{"role":"tool","content":"x"}]'), 400, "invalid_value",
     "messages[0].tool_call_id"),
    # Prompts.
    (COMPLETIONS, "{}", 400, "invalid_value", "prompt"),
    (COMPLETIONS, '{"prompt":5}', 400, "invalid_value", "prompt"),
    (COMPLETIONS, '{"prompt":[]}', 400, "invalid_value", "prompt"),
    (COMPLETIONS, '{"prompt":[[]]}', 400, "invalid_value", "prompt[0]"),
    (COMPLETIONS, '{"prompt":[-1]}', 400, "invalid_value", "prompt[0]"),
    (COMPLETIONS, f'{{"prompt":[1,{VOCABULARY}]}}', 400, "invalid_value", "prompt[1]"),
    (COMPLETIONS, '{"prompt":[1,99999999999999999999]}', 400, None, None),
    (COMPLETIONS, '{"prompt":[1.5]}', 400, "invalid_value", "prompt[0]"),
    (COMPLETIONS, '{"prompt":["a",1]}', 400, "invalid_value", "prompt[1]"),
    (COMPLETIONS, json.dumps({"prompt": ["a"] * 1000}), 400, "invalid_value", "prompt"),
    # Sizes.
    (COMPLETIONS, json.dumps(completion([5] * (CONTEXT + 1), max_tokens=1)), 400,
     "context_length_exceeded", "prompt"),
    (COMPLETIONS, json.dumps(completion([5] * CONTEXT, max_tokens=1)), 400,
     "context_length_exceeded", "prompt"),
    (COMPLETIONS, json.dumps(completion("word " * 20000, max_tokens=1)), 400,
     "context_length_exceeded", "prompt"),
    (COMPLETIONS, completion_with(f'"max_tokens":{CONTEXT}'), 400, "context_length_exceeded", "prompt"),
    (CHAT, json.dumps(chat("word " * 20000, max_tokens=1)), 400, "context_length_exceeded", "messages"),
    (CHAT, chat_with('"max_completion_tokens":100000'), 400, "context_length_exceeded", "messages"),
    (COMPLETIONS, completion_with('"max_tokens":99999999'), 400, "invalid_value", "max_tokens"),
    # Fields out of range.
    (CHAT, chat_with('"temperature":-0.1'), 400, "invalid_value", "temperature"),
    (CHAT, chat_with('"temperature":2.1'), 400, "invalid_value", "temperature"),
    (CHAT, chat_with('"temperature":"hot"'), 400, "invalid_value", "temperature"),
    (CHAT, chat_with('"top_p":0'), 400, "invalid_value", "top_p"),
    (CHAT, chat_with('"top_p":1.1'), 400, "invalid_value", "top_p"),
    (CHAT, chat_with('"top_k":-2'), 400, "invalid_value", "top_k"),
    (CHAT, chat_with('"min_p":2'), 400, "invalid_value", "min_p"),
    (CHAT, chat_with('"n":0'), 400, "invalid_value", "n"),
    (CHAT, chat_with('"n":129'), 400, "invalid_value", "n"),
    (CHAT, chat_with('"n":1000000000'), 400, "invalid_value", "n"),
    (COMPLETIONS, completion_with('"max_tokens":-1'), 400, "invalid_value", "max_tokens"),
    (COMPLETIONS, completion_with('"max_tokens":1.5'), 400, "invalid_value", "max_tokens"),
    (COMPLETIONS, completion_with('"max_tokens":0'), 400, "invalid_value", "max_tokens"),
    (COMPLETIONS, completion_with('"max_tokens":2,"min_tokens":3'), 400, "invalid_value", "min_tokens"),
    (CHAT, chat_with('"presence_penalty":3'), 400, "invalid_value", "presence_penalty"),
    (CHAT, chat_with('"frequency_penalty":-3'), 400, "invalid_value", "frequency_penalty"),
    (CHAT, chat_with('"repetition_penalty":0'), 400, "invalid_value", "repetition_penalty"),
    (CHAT, chat_with('"seed":"abc"'), 400, "invalid_value", "seed"),
    (CHAT, chat_with('"stop":[]' + ',"stop_token_ids":[-1]'), 400, "invalid_value", "stop_token_ids[0]"),
    (CHAT, chat_with('"stop":""'), 400, "invalid_value", "stop"),
    (CHAT, chat_with('"stop":' + json.dumps(["x"] * 17)), 400, "invalid_value", "stop"),
    (CHAT, chat_with('"logit_bias":{"x":1}'), 400, "invalid_value", "logit_bias"),
    (CHAT, chat_with(f'"logit_bias":{{"{VOCABULARY}":1}}'), 400, "invalid_value", "logit_bias"),
    (CHAT, chat_with('"logit_bias":{"1":101}'), 400, "invalid_value", "logit_bias"),
    (CHAT, chat_with('"top_logprobs":3'), 400, "invalid_value", "top_logprobs"),
    (CHAT, chat_with('"logprobs":true,"top_logprobs":21'), 400, "invalid_value", "top_logprobs"),
    (COMPLETIONS, completion_with('"logprobs":21'), 400, "invalid_value", "logprobs"),
    (CHAT, chat_with('"stream":"yes"'), 400, "invalid_value", "stream"),
    (CHAT, chat_with('"stream_options":{"include_usage":true}'), 400, "invalid_value", "stream_options"),
    (CHAT, chat_with('"stream":true,"temperature":9'), 400, "invalid_value", "temperature"),
    (COMPLETIONS, completion_with('"n":100,"best_of":101'), 400, None, "best_of"),
    # What we know and do not serve.
    (CHAT, chat_with('"tools":[{"type":"function"}]'), 400, "unsupported_parameter", "tools"),
    (CHAT, chat_with('"response_format":{"type":"json_object"}'), 400, "unsupported_parameter",
     "response_format"),
    (COMPLETIONS, completion_with('"suffix":"end"'), 400, "unsupported_parameter", "suffix"),
    # Names.
    (CHAT, chat_with('"model":"gpt-4"'), 404, "model_not_found", "model"),
    (COMPLETIONS, completion_with('"model":"../../etc/passwd"'), 404, "model_not_found", "model"),
    (CHAT, chat_with('"model":5'), 400, "invalid_value", "model"),
    ("/v1/embeddings", "{}", 404, None, None),
    ("/v1/chat/completions/", chat_with('"n":1'), 404, None, None),
    ("/", "{}", None, None, None),
]

# What must be taken, odd as it is.
ACCEPTED = [
    (CHAT, chat_with('"no_such_field":{"a":[1,2]},"user":"me"')),
    (CHAT, chat_with('"tools":null,"stop":null,"seed":null,"temperature":null')),
    (CHAT, chat_with('"top_k":-1,"best_of":1,"logit_bias":{"5":-100}')),
    (CHAT, chat_messages('[{"role":"developer","content":[{"type":"text","text":"a"}]}]')),
    (CHAT, chat_messages('[{"role":"user","content":""}]')),
    (COMPLETIONS, '{"prompt":"","max_tokens":2}'),
    (COMPLETIONS, '{"prompt":[0,4095],"max_tokens":2,"echo":true}'),
    (COMPLETIONS, '{"prompt":"\\u0000\\ud83d\\ude00","max_tokens":2}'),
    (COMPLETIONS, '{"prompt":"hi","max_tokens":0,"echo":true,"logprobs":1}'),
    (COMPLETIONS, json.dumps(completion([5] * (CONTEXT - 2), max_tokens=2))),
]


def head(line, *headers):
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode()


POST = f"POST {COMPLETIONS} HTTP/1.1"
GOOD = b'{"prompt":"hi","max_tokens":2}'

# Bytes on the wire, and the statuses that refuse them.
RAW = {
    "garbage": (b"\x00\x01\x02garbage\r\n\r\n", [400]),
    "no-host": (f"{POST}\r\nContent-Length: 2\r\n\r\n{{}}".encode(), [400]),
    "two-lengths": (head(POST, "Content-Length: 2", "Content-Length: 30") + GOOD, [400]),
    "length-and-chunked": (head(POST, "Content-Length: 30", "Transfer-Encoding: chunked") + GOOD, [400]),
    "negative-length": (head(POST, "Content-Length: -1"), [400]),
    "huge-length": (head(POST, "Content-Length: 99999999999999999999"), [413]),
    "announced-too-large": (head(POST, f"Content-Length: {9 << 20}"), [413]),
    "bad-chunk": (head(POST, "Transfer-Encoding: chunked") + b"zz\r\n", [400]),
    "unknown-transfer-encoding": (head(POST, "Transfer-Encoding: gzip"), [400, 501]),
    "encoded-body": (head(POST, "Content-Encoding: gzip", "Content-Length: 2") + b"{}", [415]),
    "space-before-colon": (head(POST, "Content-Length : 2") + b"{}", [400]),
    "header-injection": (head(POST, "X: a\x00b", "Content-Length: 2") + b"{}", [400]),
    "bare-line-feeds": (b"GET /v1/models HTTP/1.1\nHost: x\n\n", [400]),
    "large-header": (head(POST, "X: " + "a" * (64 << 10)), [431]),
    "many-headers": (head(POST, *(f"X-{i}: 1" for i in range(200))), [431]),
    "long-target": (head("GET /" + "a" * (20 << 10) + " HTTP/1.1"), [414, 431]),
    "other-version": (head("GET /v1/models HTTP/2.0"), [505]),
    "unknown-expectation": (head(POST, "Expect: a-miracle", "Content-Length: 2") + b"{}", [417]),
    "connect": (head("CONNECT example.com:443 HTTP/1.1"), [400, 404, 405]),
    "traversal": (head("GET /../../etc/passwd HTTP/1.1"), [400, 404]),
    "encoded-traversal": (head("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1"), [400, 404]),
    "bad-escape": (head("GET /%zz HTTP/1.1"), [400]),
    "wrong-method": (head(f"GET {CHAT} HTTP/1.1"), [405]),
    "delete-models": (head("DELETE /v1/models HTTP/1.1"), [405]),
}


class GoodClient:
    """Asks the same good question all the time, beside the bad ones."""

    def __init__(self, api):
        self._api = api
        self._body = completion("The sun", temperature=0, max_tokens=8, ignore_eos=True)
        self.texts = [api.text(COMPLETIONS, self._body)]
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop.wait(0.02):
                self.texts.append(self._api.text(COMPLETIONS, self._body))
        except BaseException as error:  # Told to the test by finish().
            self.error = error

    def finish(self):
        self._stop.set()
        self._thread.join(30)
        assert self.error is None, self.error
        assert len(self.texts) > 1 and len(set(self.texts)) == 1


@pytest.fixture(scope="module", autouse=True)
def good_client(shared_fleet):
    client = GoodClient(shared_fleet.api)
    yield
    client.finish()
    shared_fleet.assert_all_alive()
    shared_fleet.wait_quiet()


def test_there_are_enough_cases():
    assert len(BODIES) + len(RAW) >= 60


@pytest.mark.parametrize("case", BODIES, ids=lambda case: f"{case[2]}-{case[3]}-{case[4]}")
def test_bad_body_gets_the_documented_error(fleet, case):
    path, body, status, code, param = case
    reply = fleet.api.post(path, body if isinstance(body, bytes) else body.encode())
    assert reply.status == (status or 404), reply.text
    assert reply.headers["content-type"].startswith("application/json")
    error = check_error(reply.body)
    assert error["type"] == REFUSED, error
    assert code is None or error["code"] == code, error
    assert param is None or error["param"] == param, error
    assert len(error["message"]) < 500


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case[1][:60])
def test_odd_but_good_request_is_served(fleet, case):
    path, body = case
    reply = fleet.api.post(path, body.encode())
    assert reply.status == 200, reply.text


@pytest.mark.parametrize("name", RAW)
def test_bad_bytes_are_refused(fleet, name):
    request, statuses = RAW[name]
    reply = fleet.api.send_raw(request, seconds_max=20)
    assert reply.status in statuses, reply.text
    if reply.body:
        check_error(reply.body)


def test_body_too_large(fleet):
    reply = fleet.api.post(COMPLETIONS, b'{"prompt":"' + b"x" * (9 << 20) + b'"}')
    assert reply.status == 413
    assert check_error(reply.body)["code"] == "request_too_large"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/json; charset=utf-8"]
)
def test_content_types(fleet, content_type):
    """The body counts, not what its label says: clients are careless with it."""
    reply = fleet.api.post(COMPLETIONS, GOOD, headers={"Content-Type": content_type})
    assert reply.status in (200, 415), reply.text
    if reply.status != 200:
        check_error(reply.body)
