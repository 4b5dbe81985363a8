#!/usr/bin/env python3
"""Speed of this engine against its peers, interleaved, at equal bits, equal threads and the same CPUs.

  bench/peers/compare.py [--models mid] [--formats bf16,Q8_0,Q4_K_M] [--rounds 5] [--no-ours] [--record]

A round runs every engine once on each model and format, and every round begins with another engine.
A cell's figure is the median of its rounds. The better peer is the one with the higher median; the
ratio is taken within each round and printed as median (min..max). A cell is met when the median
reaches the smaller of the target ratio and 60 % of the limit that our program measured in its rounds.
A run beside which other programs used more than --neighbours-max of the CPUs is not counted.
--record appends the figures, the machine and the commit to docs/bench-history.ndjson.
"""
import argparse
import collections
import datetime
import json
import os
import statistics
import subprocess
import sys
import time

import engines
import neighbours
import places

# Ratio to the better peer that is asked for, on the mid-size model.
TARGETS = {
    'bf16': {'decode 1': 1.0, 'decode 8': 1.187, 'decode 32': 1.3, 'prefill 512': 1.0},
    'Q8_0': {'decode 1': 1.1, 'decode 8': 1.3, 'decode 32': 2.0, 'prefill 512': 1.3},
    'Q4_K_M': {'decode 1': 1.1, 'decode 8': 1.3, 'decode 32': 2.0, 'prefill 512': 1.187},
}
LIMIT_SHARE = 0.6
# What counts as undisturbed, how often a run is tried, how long it waits for a quiet machine.
Quiet = collections.namedtuple('Quiet', 'share_max attempts patience_s')
HISTORY = places.ROOT / 'docs/bench-history.ndjson'


class Figures:
    """Median speed of each (model, format, case, engine) by round, and our limits."""

    def __init__(self, raw_file):
        self.raw = raw_file
        self.speeds = {}
        self.limits = {}

    def add(self, round_index, key, engine, samples):
        """`samples` is [(case, tokens per second, limit or None)] of one run; later runs replace it."""
        cases = {}
        for case, speed, limit in samples:
            cases.setdefault(case, []).append(speed)
            if limit:
                self.limits.setdefault((*key, case), []).append(limit)
        for case, speeds in cases.items():
            self.speeds.setdefault((*key, case), {}).setdefault(engine, {})[round_index] = \
                statistics.median(speeds)
        self.raw.write(json.dumps({'round': round_index, 'model': key[0], 'format': key[1], 'engine': engine,
                                   'speeds': cases}) + '\n')
        self.raw.flush()

    def cells(self):
        return [self.cell(key) for key in self.speeds]

    def cell(self, key):
        model, gguf_format, case = key
        speeds = self.speeds[key]
        medians = {engine: statistics.median(rounds.values()) for engine, rounds in speeds.items()}
        ours = engines.Switchyard.name
        cell = {'model': model, 'format': gguf_format, 'case': case, 'tokens_per_second': {
            engine: {'median': median, 'min': min(speeds[engine].values()),
                     'max': max(speeds[engine].values()), 'rounds': len(speeds[engine])}
            for engine, median in medians.items()}}
        peers = {engine: median for engine, median in medians.items() if engine != ours}
        if not peers:
            return cell
        better = max(peers, key=peers.get)
        cell['better_peer'] = better
        limits = self.limits.get(key)
        if limits:
            cell['limit'] = statistics.median(limits)
        if ours in medians:
            cell.update(self.judged(speeds[ours], speeds[better], TARGETS[gguf_format].get(case), limits))
        return cell

    @staticmethod
    def judged(ours, theirs, target, limits):
        both = [index for index in ours if index in theirs]
        if not both:
            return {}
        ratios = [ours[index] / theirs[index] for index in both]
        result = {'ratio': statistics.median(ratios), 'ratio_min': min(ratios), 'ratio_max': max(ratios)}
        if target is None:
            return result
        share = statistics.median(ours.values()) / statistics.median(limits) if limits else None
        result['target'] = target
        result['met'] = result['ratio'] >= target or (share is not None and share >= LIMIT_SHARE)
        if share is not None:
            result['limit_share'] = share
        return result


def print_cell(cell):
    speeds = '  '.join(f'{engine} {speed["median"]:.1f} ({speed["min"]:.1f}..{speed["max"]:.1f})'
                       for engine, speed in cell['tokens_per_second'].items())
    line = f'{cell["model"]:5} {cell["format"]:7} {cell["case"]:12} {speeds}'
    if 'ratio' in cell:
        line += f'  | ratio to {cell["better_peer"]} {cell["ratio"]:.2f} ' \
                f'({cell["ratio_min"]:.2f}..{cell["ratio_max"]:.2f})'
    if 'limit_share' in cell:
        line += f'  {100 * cell["limit_share"]:.0f} % of limit {cell["limit"]:.0f}'
    if 'met' in cell:
        line += f'  target {cell["target"]}: {"met" if cell["met"] else "NOT met"}'
    print(line)


def machine():
    """CPU model, its vector class, its count: what a reader needs to compare two lines."""
    info = {}
    with open('/proc/cpuinfo', encoding='ascii', errors='replace') as file:
        for line in file:
            name, _, value = line.partition(':')
            info.setdefault(name.strip(), value.strip())
    flags = set(info.get('flags', '').split())
    classes = ('amx_int8', 'avx512_bf16', 'avx512_vnni', 'avx512f', 'avx_vnni', 'avx2')
    return {'cpu': info.get('model name', 'unknown'), 'family': info.get('cpu family'),
            'model': info.get('model'), 'cpus': os.cpu_count(),
            'flags': next((name for name in classes if name in flags), 'older')}


def commit():
    def git(*words):
        return subprocess.run(['git', *words], cwd=places.ROOT, capture_output=True, text=True).stdout.strip()
    return git('rev-parse', '--short=12', 'HEAD') + ('-dirty' if git('status', '--porcelain') else '')


def record(program, arguments, figures):
    """Appends one line to the history; `figures` is a dict of what was measured."""
    now = datetime.datetime.now(datetime.timezone.utc)
    line = {'program': program, 'date': now.isoformat('T', 'seconds'), 'commit': commit(),
            'machine': machine(), 'cpus': arguments.cpus, 'rounds': arguments.rounds,
            **json.loads(json.dumps(figures), parse_float=lambda text: float(f'{float(text):.5g}'))}
    with open(HISTORY, 'a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')
    print(f'appended to {HISTORY}')


def run_engine(figures, setting, quiet, round_index, work):
    """`work` is (model, format, engine). A run that failed or was disturbed is done again, then given up."""
    *key, engine = work
    for _ in range(quiet.attempts):
        neighbours.wait_until_quiet(setting.cpus, quiet.share_max, quiet.patience_s)
        watch = neighbours.Watch(setting.cpus)
        began = time.monotonic()
        try:
            samples = list(engine.measure(setting, *key))
        except engines.EngineFailed as error:
            note(round_index, work, f'FAILED: {error}')
            continue
        others = watch.share()
        kept = others <= quiet.share_max
        note(round_index, work, f'{time.monotonic() - began:.1f} s, neighbours {100 * others:.0f} %'
             + ('' if kept else ', not counted'))
        if kept:
            figures.add(round_index, tuple(key), engine.name, samples)
            return


def note(round_index, work, text):
    model, gguf_format, engine = work
    print(f'round {round_index} {model} {gguf_format} {engine.name}: {text}', file=sys.stderr, flush=True)


def run_rounds(arguments, figures, setting):
    quiet = Quiet(arguments.neighbours_max / 100, arguments.attempts, arguments.patience)
    deadline = time.monotonic() + 60 * arguments.minutes
    for round_index in range(arguments.rounds):
        for model in arguments.models.split(','):
            contenders = engines.peers(model)
            if arguments.ours:
                contenders.append(engines.Switchyard())
            first = round_index % len(contenders)
            for gguf_format in arguments.formats.split(','):
                if time.monotonic() > deadline:
                    print(f'stopped after {arguments.minutes} minutes', file=sys.stderr)
                    return
                for engine in contenders[first:] + contenders[:first]:
                    run_engine(figures, setting, quiet, round_index, (model, gguf_format, engine))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--models', default='mid', help='mid, demo or both')
    parser.add_argument('--formats', default='bf16,Q8_0,Q4_K_M')
    parser.add_argument('--batches', default='1,8,32', help='of decode; empty: no decode')
    parser.add_argument('--prefill', type=int, default=512, help='tokens of the prompt; 0: no prefill')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--repetitions', type=int, default=2, help='of the peers\' prefill in a round')
    parser.add_argument('--cpus', default='0,1', help='both sides are confined to these')
    parser.add_argument('--neighbours-max', type=float, default=15,
                        help='%% of the CPUs that other programs may use in a run that counts')
    parser.add_argument('--attempts', type=int, default=3, help='per run, for that')
    parser.add_argument('--limit', type=float, default=300, help='seconds a program may take')
    parser.add_argument('--patience', type=float, default=60, help='seconds a run waits for a quiet machine')
    parser.add_argument('--first', action='store_true', help=neighbours.GO_FIRST_HELP)
    parser.add_argument('--minutes', type=float, default=1e6, help='begin nothing after so long')
    parser.add_argument('--no-ours', dest='ours', action='store_false', help='the peers only')
    parser.add_argument('--record', action='store_true', help='append to docs/bench-history.ndjson')
    parser.add_argument('--out', default=str(places.PEERS_DIR / 'compare-raw.ndjson'), help='every run')
    parser.add_argument('--json', action='store_true', help='print one JSON object per cell, no table')
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.first:
        neighbours.go_first()
    neighbours.adopt_orphans()
    batches = [int(word) for word in arguments.batches.split(',') if word]
    setting = engines.Setting(arguments.cpus, batches, arguments.prefill, arguments.repetitions)
    setting.limit_s = arguments.limit
    with open(arguments.out, 'a', encoding='utf-8') as raw:
        figures = Figures(raw)
        run_rounds(arguments, figures, setting)
    cells = figures.cells()
    if not arguments.json:
        print(f'tokens per second, median (min..max); {json.dumps(machine())}; CPUs {arguments.cpus}')
    for cell in cells:
        if arguments.json:
            print(json.dumps(cell))
        else:
            print_cell(cell)
    if arguments.record:
        record('bench-peers', arguments, {'cells': cells})
    return 0 if cells else 1


if __name__ == '__main__':
    sys.exit(main())
