#!/usr/bin/env python3
"""Serving over HTTP against the peers' servers: all users at once, the same client, the same CPUs.

  bench/peers/serve.py [--users 64,200] [--rounds 3] [--no-ours] [--ours-options '--weights int8'] [--record]
  bench/peers/serve.py --soak-minutes 10 --users 1000       ours alone: errors and memory over time

Demo model, the peers in Q8_0. A round starts every server once, one after the other, in another order
each time, warms it up and puts each load on it: 128 random prompt tokens, 64 output tokens. The peers
run with each of --slots; what is compared is the one with the most tokens per second. The client takes
part of the same CPUs, as little as it says. Needs switchyard-loadtest beside our programs.
"""
import argparse
import statistics
import sys
import time

import compare
import neighbours
import places
import servers

# Ours against the better peer: at least this ratio of tokens per second, at most this of a latency.
TARGETS = (('tokens_per_second', 2.5, 'more'), ('ttft_p50_ms', 0.25, 'less'), ('itl_p99_ms', 0.25, 'less'))
FIGURES = ('tokens_per_second', 'ttft_p50_ms', 'ttft_p99_ms', 'itl_p50_ms', 'itl_p99_ms')
WARM_UP_USERS = 8


def contenders(arguments):
    slots = [int(word) for word in arguments.slots.split(',')]
    found = [servers.LlamaServer(count, arguments.cpus) for count in slots]
    if places.have_ik():
        found += [servers.IkServer(count, arguments.cpus) for count in slots]
    if arguments.ours:
        found.append(servers.Switchyard(arguments.cpus, arguments.ours_options))
    return found


def note(text):
    print(text, file=sys.stderr, flush=True)


def run_server(arguments, server, results):
    """Appends to results[(server name, users)]."""
    neighbours.wait_until_quiet(arguments.cpus, arguments.neighbours_max / 100, arguments.patience)
    try:
        server.start()
        servers.load(server, WARM_UP_USERS, arguments.prompt_tokens, arguments.output_tokens)
        for users in arguments.users:
            figures = servers.load(server, users, arguments.prompt_tokens, arguments.output_tokens)
            figures['memory_mib'] = server.memory_mib()
            results.setdefault((server.name, users), []).append(figures)
            note(f'{server.name}, {users} users: {figures["tokens_per_second"]:.0f} tokens/s, '
                 f'{figures["failed"]} failed')
    except servers.ServerFailed as error:
        note(f'{server.name}: FAILED: {error}')
    finally:
        server.stop()


def median_of(runs):
    row = {}
    for name in (*FIGURES, 'memory_mib', 'client_cpu_s'):
        values = [run[name] for run in runs if run[name] is not None]
        row[name] = statistics.median(values) if values else None
    speeds = [run['tokens_per_second'] for run in runs]
    row.update(min=min(speeds), max=max(speeds), rounds=len(runs), failed=sum(run['failed'] for run in runs),
               other_length=sum(run['other_length'] for run in runs))
    return row


def judged(row, better):
    """{figure: [ratio to the better peer, met]}."""
    found = {}
    for figure, bound, direction in TARGETS:
        if row[figure] is None or not better[figure]:
            continue
        ratio = row[figure] / better[figure]
        found[figure] = [ratio, ratio >= bound if direction == 'more' else ratio <= bound]
    return found


def rows_of(results):
    """One row for each server and user count, ours with its ratios to the better peer."""
    rows = []
    for users in sorted({users for _, users in results}):
        here = {name: median_of(runs) for (name, count), runs in results.items() if count == users}
        ours = here.get('switchyard')
        peers = {name: row for name, row in here.items() if name != 'switchyard'}
        if peers and ours:
            better = max(peers, key=lambda name: peers[name]['tokens_per_second'])
            ours.update(better_peer=better, ratios=judged(ours, peers[better]))
        rows += [{'server': name, 'users': users, **row} for name, row in here.items()]
    return rows


def print_rows(rows):
    print(f'{"server":22} users  tokens/s (min..max)      TTFT p50 / p99 ms   ITL p50 / p99 ms   '
          'failed  memory MiB  client CPU s')

    def number(value):
        return '-' if value is None else f'{value:.1f}' if value < 100 else f'{value:.0f}'
    for row in rows:
        speed = f'{row["tokens_per_second"]:.0f} ({row["min"]:.0f}..{row["max"]:.0f})'
        print(f'{row["server"]:22} {row["users"]:5}  {speed:24}'
              + f'{number(row["ttft_p50_ms"])} / {number(row["ttft_p99_ms"])}'.ljust(20)
              + f'{number(row["itl_p50_ms"])} / {number(row["itl_p99_ms"])}'.ljust(19)
              + f'{row["failed"]:6}  {row["memory_mib"]:10.0f}  {row["client_cpu_s"]:.2f}')
        for figure, (ratio, met) in row.get('ratios', {}).items():
            print(f'    {figure}: {ratio:.2f} of {row["better_peer"]}: {"met" if met else "NOT met"}')


def soak(arguments):
    """Load for minutes, again and again by every user; memory is read every few seconds."""
    server = servers.Switchyard(arguments.cpus, arguments.ours_options)
    failed = 0
    try:
        server.start()
        end = time.monotonic() + 60 * arguments.soak_minutes
        while (left := end - time.monotonic()) > 0:
            figures = servers.load(server, max(arguments.users), arguments.prompt_tokens,
                                   arguments.output_tokens, duration_s=max(1, min(30, int(left))))
            failed += figures['failed']
            print(f'{max(0.0, end - time.monotonic()):6.0f} s left: {figures["tokens_per_second"]:.0f} tokens/s, '
                  f'{failed} failed, {server.memory_mib():.0f} MiB', flush=True)
    finally:
        server.stop()
    return 1 if failed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--users', type=lambda text: [int(word) for word in text.split(',')],
                        default=[64, 200], help='at once; several: one load after the other')
    parser.add_argument('--slots', default='32,64', help='of the peers\' servers, each is tried')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--cpus', default='0,1', help='servers and client are confined to these')
    parser.add_argument('--prompt-tokens', type=int, default=128)
    parser.add_argument('--output-tokens', type=int, default=64)
    parser.add_argument('--neighbours-max', type=float, default=15,
                        help='%% of the CPUs that other programs may use when a server is started')
    parser.add_argument('--patience', type=float, default=60, help='seconds to wait for that')
    parser.add_argument('--no-ours', dest='ours', action='store_false', help='the peers only')
    parser.add_argument('--ours-options', default='--weights int8', help='further options of `switchyard up`')
    parser.add_argument('--soak-minutes', type=float, help='ours alone under steady load for so long')
    parser.add_argument('--record', action='store_true', help='append to docs/bench-history.ndjson')
    parser.add_argument('--first', action='store_true', help=neighbours.GO_FIRST_HELP)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.first:
        neighbours.go_first()
    if arguments.soak_minutes:
        return soak(arguments)
    results = {}
    for round_index in range(arguments.rounds):
        found = contenders(arguments)
        first = round_index % len(found)
        for server in found[first:] + found[:first]:
            run_server(arguments, server, results)
    rows = rows_of(results)
    print_rows(rows)
    if arguments.record:
        compare.record('bench-serve', arguments, {'servers': rows})
    return 0 if rows else 1


if __name__ == '__main__':
    sys.exit(main())
