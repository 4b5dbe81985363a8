"""HTTP clients of the tests: one blocking, one asyncio, both on plain sockets.

They send exactly the bytes they are given and hide nothing of the answer, which a comfortable client
would. Every call is bounded in time.
"""

import asyncio
import http.client
import json
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

CALL_SECONDS_MAX = 60


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


@dataclass
class Stream:
    """What came of one streamed request."""

    status: int = 0
    events: list = field(default_factory=list)
    body: bytes = b""      # Of a refusal.
    error: dict = None     # The error object, of a refusal or of an error event.
    is_done: bool = False  # The last line was [DONE].
    fault: str = ""        # Not empty: the connection broke.
    seconds: float = 0.0   # From the call to its end.
    silence: float = 0.0   # The longest time without an event, the end included.

    @property
    def text(self):
        parts = []
        for event in self.events:
            for choice in event.get("choices", []):
                parts.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
        return "".join(parts)

    @property
    def finish_reason(self):
        reasons = [
            choice["finish_reason"]
            for event in self.events
            for choice in event.get("choices", [])
            if choice.get("finish_reason")
        ]
        return reasons[-1] if reasons else None


def chat(prompt, **fields):
    return {"messages": [{"role": "user", "content": prompt}], **fields}


def completion(prompt, **fields):
    return {"prompt": prompt, **fields}


def check_error(body):
    """Asserts that `body` is OpenAI's error object and returns it."""
    parsed = json.loads(body)
    assert set(parsed) == {"error"}, parsed
    error = parsed["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str) and error["message"], error
    assert isinstance(error["type"], str) and error["type"], error
    assert error["param"] is None or isinstance(error["param"], str), error
    assert error["code"] is None or isinstance(error["code"], str), error
    return error


class Api:
    def __init__(self, url, key=None):
        parsed = urllib.parse.urlparse(url)
        self.url = url
        self.host = parsed.hostname
        self.port = parsed.port
        self.key = key

    def _headers(self, headers):
        all_headers = {"Content-Type": "application/json"}
        if self.key:
            all_headers["Authorization"] = f"Bearer {self.key}"
        return all_headers | (headers or {})

    def call(self, method, path, body=None, headers=None, seconds_max=CALL_SECONDS_MAX):
        """`body` is bytes as they are, or something to send as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds_max)
        try:
            connection.request(method, path, body=body, headers=self._headers(headers))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def post(self, path, body, **options):
        return self.call("POST", path, body, **options)

    def text(self, path, body):
        """The text of the only choice of a request that must succeed."""
        reply = self.post(path, body)
        assert reply.status == 200, reply.text
        (choice,) = reply.json()["choices"]
        return choice["text"] if "text" in choice else choice["message"]["content"]

    def send_raw(self, request, seconds_max=CALL_SECONDS_MAX):
        """Sends bytes on a connection of their own and returns the first answer."""
        return asyncio.run(self._send_raw(request, seconds_max))

    async def _send_raw(self, request, seconds_max):
        async with asyncio.timeout(seconds_max):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(request)
                await writer.drain()
                status, headers = await _read_head(reader)
                body = b"".join([piece async for piece in _read_body(reader, headers)])
                return Reply(status, headers, body)
            finally:
                writer.close()

    async def call_async(self, path, body, seconds_max=CALL_SECONDS_MAX):
        return await self._send_raw(self._post_bytes(path, body), seconds_max)

    def _post_bytes(self, path, body):
        content = json.dumps(body).encode()
        headers = self._headers({"Host": self.host, "Connection": "close"})
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    async def stream(self, path, body, seconds_max=CALL_SECONDS_MAX, on_event=None):
        """Runs a streamed request to its end. A broken connection is a result, a hang is an error."""
        stream = Stream()
        started = last_event_at = time.monotonic()

        def note_event(event):
            nonlocal last_event_at
            now = time.monotonic()
            stream.silence = max(stream.silence, now - last_event_at)
            last_event_at = now
            if on_event is not None:
                on_event(event)

        try:
            async with asyncio.timeout(seconds_max):
                await self._run_stream(path, body | {"stream": True}, stream, note_event)
        except (OSError, asyncio.IncompleteReadError, ValueError) as fault:
            if isinstance(fault, TimeoutError):
                raise
            stream.fault = f"{type(fault).__name__}: {fault}"
        stream.seconds = time.monotonic() - started
        stream.silence = max(stream.silence, time.monotonic() - last_event_at)
        return stream

    async def _run_stream(self, path, body, stream, on_event):
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self._post_bytes(path, body))
            await writer.drain()
            stream.status, headers = await _read_head(reader)
            if stream.status != 200:
                stream.body = b"".join([piece async for piece in _read_body(reader, headers)])
                stream.error = check_error(stream.body)
                return
            pending = b""
            async for piece in _read_body(reader, headers):
                pending += piece
                *blocks, pending = pending.split(b"\n\n")
                for block in blocks:
                    _take_event(block, stream, on_event)
        finally:
            writer.close()


def _take_event(block, stream, on_event):
    if not block.startswith(b"data: "):
        return  # A comment that keeps the stream open.
    data = block[len(b"data: "):]
    if data == b"[DONE]":
        stream.is_done = True
        return
    event = json.loads(data)
    if "error" in event:
        stream.error = check_error(data)
        return
    stream.events.append(event)
    on_event(event)


async def _read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(status_line.split()[1]), headers


async def _read_body(reader, headers):
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        yield await reader.read()


class OpenStreams:
    """Streams that run in a thread of their own while the test does harm.

        streams = OpenStreams(api, [(path, body), ...])
        streams.wait_flowing()
        ...
        results = streams.results()
    """

    def __init__(self, api, requests, seconds_max=CALL_SECONDS_MAX):
        self._api = api
        self._requests = requests
        self._seconds_max = seconds_max
        self._counts = [0] * len(requests)
        self._results = None
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._results = asyncio.run(self._run_all())
        except BaseException as error:  # Told to the test by results().
            self._error = error

    async def _run_all(self):
        def counter(index):
            def count(_):
                self._counts[index] += 1

            return count

        return await asyncio.gather(
            *(
                self._api.stream(path, body, self._seconds_max, counter(index))
                for index, (path, body) in enumerate(self._requests)
            )
        )

    def wait_flowing(self, events_min=3, seconds_max=30):
        """Waits until each stream has had some events."""
        give_up = time.monotonic() + seconds_max
        while min(self._counts) < events_min:
            assert self._thread.is_alive(), f"streams ended early: {self._results} {self._error}"
            assert time.monotonic() < give_up, f"streams do not flow: {self._counts}"
            time.sleep(0.01)

    def results(self, seconds_max=CALL_SECONDS_MAX):
        """Waits for the end of all; fails when one is still open after `seconds_max`."""
        self._thread.join(seconds_max)
        assert not self._thread.is_alive(), f"streams still open after {seconds_max} s"
        if self._error is not None:
            raise self._error
        return self._results
