"""How each server is started, and how load is put on it: the only place that knows their options."""
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import places

START_S = 120
STOP_S = 30
CONTEXT_PER_SLOT = 256  # 128 prompt tokens, 64 generated ones, and room.


class ServerFailed(Exception):
    pass


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


class Server:
    """One server process with its children, from start() to stop(); stop() may always be called."""

    def __init__(self, name, cpus):
        self.name = name
        self.cpus = cpus
        self.process = None
        self.url = None

    def command(self, port):
        raise NotImplementedError

    def start(self):
        port = free_port()
        self.url = f'http://127.0.0.1:{port}'
        self.log = tempfile.TemporaryFile()
        words = ['taskset', '-c', self.cpus, *(str(word) for word in self.command(port))]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=subprocess.STDOUT,
                                        cwd=places.working_dir())
        deadline = time.monotonic() + START_S
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f'{self.name} did not start: {self.log_end()}')
            time.sleep(0.2)

    def is_ready(self):
        try:
            with urllib.request.urlopen(self.url + '/health', timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_end(self):
        self.log.seek(0)
        return self.log.read().decode(errors='replace')[-1000:]

    def memory_mib(self):
        """Of the process and all below it; a page that several share counts once among them."""
        return sum(proportional_kib(pid) for pid in family(self.process.pid)) / 1024


def family(pid):
    found = [pid]
    try:
        for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
            for child in (task / 'children').read_text().split():
                found += family(int(child))
    except OSError:
        pass  # It has ended meanwhile.
    return found


def proportional_kib(pid):
    try:
        for line in pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
            if line.startswith('Pss:'):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


class LlamaServer(Server):
    """llama.cpp's server: its default spinning waiting is its fast one."""

    def __init__(self, slots, cpus, model='demo', gguf_format='Q8_0'):
        super().__init__(f'llama.cpp {slots} slots', cpus)
        self.slots = slots
        self.path = places.gguf_path(model, gguf_format)

    def common(self, port):
        threads = len(self.cpus.split(','))
        return ['-m', self.path, '-np', self.slots, '-c', self.slots * CONTEXT_PER_SLOT, '-b', 2048,
                '-ub', 512, '-t', threads, '-tb', threads, '--host', '127.0.0.1', '--port', port]

    def command(self, port):
        return [places.LLAMA_BIN / 'llama-server', *self.common(port), '-lm', 'none', '--no-webui']


class IkServer(LlamaServer):
    def __init__(self, slots, cpus, **which):
        super().__init__(slots, cpus, **which)
        self.name = f'ik {slots} slots'

    def command(self, port):
        return [places.IK_BIN / 'llama-server', *self.common(port), '--no-mmap', '--webui', 'none',
                '-rtr', '-thp', '-fa', 'on', '-mla', 3]


class Switchyard(Server):
    """Ours: all processes as `switchyard up` starts them."""

    def __init__(self, cpus, options):
        super().__init__('switchyard', cpus)
        self.options = shlex.split(options)
        self.state = tempfile.TemporaryDirectory(prefix='switchyard-bench-')

    def command(self, port):
        return [places.SWITCHYARD_BIN / 'switchyard', 'up', '--model', places.HF_MODELS['demo'],
                '--served-name', 'demo', '--routers', 1, '--shards', 2, '--port', port,
                '--state-dir', self.state.name, *self.options]


def load(server, users, prompt_tokens, output_tokens, duration_s=None):
    """All users at once, one request each (or again and again for `duration_s`). Returns figures."""
    report = tempfile.NamedTemporaryFile(suffix='.json', delete=False)
    report.close()
    bound = ['--duration', duration_s] if duration_s else ['--requests-per-user', 1]
    command = [places.SWITCHYARD_BIN / 'switchyard-loadtest', '--url', server.url, '--model', 'demo',
               '--users', users, '--all-at-once', *bound, '--prompt-tokens', prompt_tokens,
               '--output-tokens', output_tokens, '--vocab-size', 4096, '--temperature', 1,
               '--extra-body', '{"top_k": 40, "top_p": 1.0, "min_p": 0.0, "cache_prompt": false}',
               '--json', report.name, '--quiet']
    words = ['taskset', '-c', server.cpus, *(str(word) for word in command)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
        text = pathlib.Path(report.name).read_text()
    finally:
        os.unlink(report.name)
    if done.returncode not in (0, 1) or not text:  # 1: some requests failed; the report says which.
        raise ServerFailed(f'the load generator failed: {done.stderr[-500:]}')
    figures = json.loads(text)
    generator = figures['generator']
    return {'tokens_per_second': figures['output_throughput'], 'completed': figures['completed'],
            'failed': figures['failed'], 'errors': figures['errors_by_kind'],
            'ttft_p50_ms': figures['p50_ttft_ms'], 'ttft_p99_ms': figures['p99_ttft_ms'],
            'itl_p50_ms': figures['p50_itl_ms'], 'itl_p99_ms': figures['p99_itl_ms'],
            'other_length': figures['requests_of_other_length'],
            'client_cpu_s': generator['cpu_user_s'] + generator['cpu_system_s']}
