"""The stock OpenAI client against the demo model."""

import math
import time

import openai
import pytest

from processes import wait_until

MODEL = "demo"
TOKENS = {"max_tokens": 16, "extra_body": {"ignore_eos": True}}
QUESTION = [{"role": "user", "content": "Tell me about a cat."}]


@pytest.fixture
def client(fleet):
    with openai.OpenAI(base_url=fleet.api.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def check_usage(usage, choices=1):
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens == 16 * choices
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_models_are_listed(client):
    (model,) = client.models.list().data
    assert model.id == MODEL and model.object == "model"
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, **TOKENS)
    assert answer.object == "chat.completion" and answer.model == MODEL
    assert answer.id.startswith("chatcmpl-") and abs(answer.created - time.time()) < 600
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and choice.index == 0
    check_usage(answer.usage)


def test_chat_streamed(client):
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, **TOKENS)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, stream=True,
            stream_options={"include_usage": True}, **TOKENS,
        )
    )
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    *parts, last = chunks
    assert parts[0].choices[0].delta.role == "assistant"
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content
    assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == ["length"]
    assert all(part.usage is None for part in parts)
    assert last.choices == [] and last.usage is not None
    check_usage(last.usage)
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_completion(client):
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", temperature=0, **TOKENS)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    (choice,) = answer.choices
    assert choice.text and choice.finish_reason == "length"
    check_usage(answer.usage)


def test_completion_streamed(client):
    request = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, **TOKENS}
    whole = client.completions.create(**request)
    *parts, last = list(
        client.completions.create(stream=True, stream_options={"include_usage": True}, **request)
    )
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert last.choices == []
    check_usage(last.usage)


def test_stream_without_usage_has_none(client):
    chunks = list(client.completions.create(model=MODEL, prompt="Once", stream=True, **TOKENS))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_chat_logprobs(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=4, **TOKENS
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 16
    spoken = b"".join(bytes(position.bytes) for position in content)
    assert spoken.decode(errors="replace") == answer.choices[0].message.content
    for position in content:
        assert position.logprob <= 0 and len(position.top_logprobs) == 4
        logprobs = [top.logprob for top in position.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)
        assert sum(map(math.exp, logprobs)) <= 1.0001
        # Greedy: the chosen token is the likeliest.
        assert position.logprob == logprobs[0] and position.bytes == position.top_logprobs[0].bytes


def test_completion_logprobs_with_echo(client):
    answer = client.completions.create(
        model=MODEL, prompt="Once upon a time", temperature=0, logprobs=2, echo=True, **TOKENS
    )
    choice = answer.choices[0]
    assert choice.text.startswith("Once upon a time")
    logprobs = choice.logprobs
    count = answer.usage.prompt_tokens + 16
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == count
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert logprobs.text_offset == sorted(logprobs.text_offset)


@pytest.mark.parametrize("stream", [False, True])
def test_two_choices(client, stream):
    request = {"model": MODEL, "messages": QUESTION, "n": 2, "temperature": 1.5, "seed": 5, **TOKENS}
    whole = client.chat.completions.create(**request)
    texts = {choice.index: choice.message.content for choice in whole.choices}
    assert set(texts) == {0, 1} and texts[0] != texts[1]
    check_usage(whole.usage, choices=2)
    if stream:
        streamed = {0: "", 1: ""}
        for chunk in client.chat.completions.create(stream=True, **request):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        assert streamed == texts
    alone = client.chat.completions.create(**(request | {"n": 1}))
    assert alone.choices[0].message.content == texts[0]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_ends_the_text(client, stream):
    request = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, **TOKENS}
    text = client.completions.create(**request).choices[0].text
    stop = text[len(text) // 2 :][:3]
    expected = text[: text.index(stop)]
    if stream:
        chunks = list(client.completions.create(stop=[stop], stream=True, **request))
        spoken = "".join(chunk.choices[0].text for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        choice = client.completions.create(stop=[stop], **request).choices[0]
        spoken, reason = choice.text, choice.finish_reason
    assert spoken == expected and reason == "stop"


def test_seed_repeats_and_its_absence_varies(client):
    request = {"model": MODEL, "messages": QUESTION, "temperature": 2, **TOKENS}

    def text(**fields):
        return client.chat.completions.create(**request, **fields).choices[0].message.content

    assert text(seed=3) == text(seed=3)
    assert len({text() for _ in range(4)}) > 1


def test_cancelled_stream_frees_everything(client, fleet):
    streams = []
    for index in range(4):
        stream = client.completions.create(
            model=MODEL, prompt=f"A long story, part {index}:", max_tokens=1800, stream=True,
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        streams.append(stream)
    assert fleet.process_status("router-0")["running"] == 4
    generated = fleet.metrics("router-0").sum("switchyard_generation_tokens_total")
    for stream in streams:
        stream.close()
    wait_until(lambda: fleet.process_status("router-0")["running"] == 0, 2, "the router runs nothing")
    fleet.wait_quiet(2)
    wait_until(
        lambda: fleet.metrics("gateway").sum("switchyard_requests_running") == 0, 2, "the gateway neither"
    )
    assert fleet.metrics("router-0").sum("switchyard_generation_tokens_total") < generated + 4 * 1500


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=QUESTION)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=3)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=MODEL, prompt="word " * 5000)
    assert long.value.code == "context_length_exceeded"


def test_end_of_sequence_ends_an_answer(client):
    eos = {"1": 100}  # Its id in the demo's vocabulary; the bias makes it the likeliest token.
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=8, logit_bias=eos
    )
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content == ""
    assert answer.usage.completion_tokens == 1
