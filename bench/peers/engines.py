"""How each engine is run and what it prints, one adapter each: the only place that knows command lines.

An adapter yields (case, tokens per second, limit or None) for one model in one format. Cases are
'decode 1', 'decode 8', ... (sequences at once; 16 prompt tokens each, random ids, so that the cache
costs little; the decode phase only) and 'prefill 512' (one prompt).
"""
import json
import re
import subprocess

import places

PROMPT_TOKENS = 16
# The demo model is so fast that 16 tokens would be a few milliseconds.
GENERATED_TOKENS = {'demo': 64, 'mid': 16}
# The same bits a weight: (format of the peers, our --weights).
OURS_FORMAT = {'bf16': 'bf16', 'Q8_0': 'int8', 'Q4_K_M': 'int4'}


class EngineFailed(Exception):
    pass


class Setting:
    """What every run shares: the CPUs of both sides, how many threads, how large the cases are."""

    def __init__(self, cpus, batches, prefill_tokens, repetitions):
        self.cpus = cpus
        self.threads = len(cpus.split(','))
        self.batches = batches
        self.prefill_tokens = prefill_tokens
        self.repetitions = repetitions
        self.limit_s = 300  # ik_llama.cpp's programs are seen to hang now and then.


def run(setting, command):
    """Returns (stdout, stderr)."""
    words = ['taskset', '-c', setting.cpus, *(str(word) for word in command)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=setting.limit_s,
                              cwd=places.working_dir())
    except subprocess.TimeoutExpired:
        raise EngineFailed(f'{" ".join(words)}: no answer in {setting.limit_s} s') from None
    except FileNotFoundError as error:
        raise EngineFailed(f'{error.filename} is missing') from None
    if done.returncode != 0:
        raise EngineFailed(f'{" ".join(words)}: exit code {done.returncode}: {done.stderr[-800:]}')
    return done.stdout, done.stderr


def batched_options(setting, model):
    generated = GENERATED_TOKENS[model]
    context = max(max(setting.batches) * (PROMPT_TOKENS + generated), 1024)
    return ['-c', context, '-b', 2048, '-ub', 512, '-npp', PROMPT_TOKENS, '-ntg', generated,
            '-npl', ','.join(map(str, setting.batches)), '-t', setting.threads, '-tb', setting.threads]


def prefill_options(setting):
    return ['-p', setting.prefill_tokens, '-n', 0, '-t', setting.threads, '-r', setting.repetitions]


class LlamaCpp:
    """llama.cpp as it comes: flash attention and repacking as it chooses, weights read, not mapped."""

    name = 'llama.cpp'

    def measure(self, setting, model, gguf_format):
        path = places.gguf_path(model, gguf_format)
        if setting.prefill_tokens:
            out, _ = run(setting, [places.LLAMA_BIN / 'llama-bench', '-m', path, *prefill_options(setting),
                                   '-lm', 'none', '-o', 'jsonl'])
            for line in out.splitlines():
                for speed in json.loads(line)['samples_ts'] if line.startswith('{') else ():
                    yield f'prefill {setting.prefill_tokens}', speed, None
        if setting.batches:
            out, _ = run(setting, [places.LLAMA_BIN / 'llama-batched-bench', '-m', path,
                                   *batched_options(setting, model), '-lm', 'none',
                                   '--output-format', 'jsonl'])
            for line in out.splitlines():
                if line.startswith('{'):
                    figures = json.loads(line)
                    yield f'decode {figures["pl"]}', figures['speed_tg'], None


class IkLlamaCpp:
    """ik_llama.cpp with weights repacked at load and huge pages, its fast settings.

    Its attention settings: 'mla3' keeps the latent cache and needs flash attention; 'mla0' keeps the
    expanded cache and does without. Which is faster depends on the head sizes and the case.
    """

    ATTENTION = {'mla3': ('on', 3), 'mla0': ('off', 0)}
    ROW = re.compile(r'\|\s*\d+ \|\s*\d+ \|\s*(\d+) \|\s*\d+ \|\s*[\d.]+ \|\s*[\d.]+ \|\s*[\d.]+ '
                     r'\|\s*([\d.]+) \|')

    def __init__(self, attention):
        self.name = f'ik {attention}'
        self.flash, self.mla = self.ATTENTION[attention]

    def measure(self, setting, model, gguf_format):
        path = places.gguf_path(model, gguf_format)
        if setting.prefill_tokens:
            out, _ = run(setting, [places.IK_BIN / 'llama-bench', '-m', path, *prefill_options(setting),
                                   '-mmp', 0, '-fa', int(self.flash == 'on'), '-mla', self.mla,
                                   '-rtr', 1, '-thp', 1, '-o', 'json'])
            for result in json.loads(out[out.index('['):]):
                for speed in result['samples_ts']:
                    yield f'prefill {setting.prefill_tokens}', speed, None
        if setting.batches:
            out, err = run(setting, [places.IK_BIN / 'llama-batched-bench', '-m', path,
                                     *batched_options(setting, model), '--no-mmap', '-fa', self.flash,
                                     '-mla', self.mla, '-rtr', '-thp'])
            for batch, speed in self.ROW.findall(out + err):
                yield f'decode {batch}', float(speed), None


class Switchyard:
    """Ours: one router and two shards on the same CPUs, over UCX, by `switchyard bench`."""

    name = 'switchyard'
    SHARDS = 2

    def measure(self, setting, model, gguf_format):
        yield from self.run_cases(setting, [
            places.SWITCHYARD_BIN / 'switchyard', 'bench', '--model', places.HF_MODELS[model],
            '--weights', OURS_FORMAT[gguf_format], '--shards', self.SHARDS, '--json',
            '--prompt-tokens', PROMPT_TOKENS, '--generated-tokens', GENERATED_TOKENS[model],
            '--batch', ','.join(map(str, setting.batches)) or 1,
            '--prefill-tokens', setting.prefill_tokens, '--rounds', setting.repetitions])

    @staticmethod
    def run_cases(setting, command):
        out, _ = run(setting, command)
        for line in out.splitlines():
            if line.startswith('{'):
                figures = json.loads(line)
                size = figures['batch'] if figures['case'] == 'decode' else setting.prefill_tokens
                yield f'{figures["case"]} {size}', figures['tokens_per_second'], \
                    figures.get('limit_tokens_per_second')


def peers(model):
    """The peers that are built, each in the settings that may be its best."""
    engines = [LlamaCpp()]
    if places.have_ik():
        engines.append(IkLlamaCpp('mla3'))
        if model == 'demo':
            engines.append(IkLlamaCpp('mla0'))
    return engines
