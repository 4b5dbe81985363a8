"""The arithmetic and the parsing of the comparison; no engine is run."""
import io
import json

import compare
import engines
import pytest
import serve


def figures_of(rounds):
    """`rounds` is [{engine: (speed, limit)}] of one cell."""
    figures = compare.Figures(io.StringIO())
    for index, speeds in enumerate(rounds):
        for engine, (speed, limit) in speeds.items():
            figures.add(index, ('mid', 'Q8_0'), engine, [('decode 8', speed, limit)])
    return figures


def test_ratio_is_taken_within_rounds_to_the_peer_with_the_higher_median():
    # The second round ran at half speed for everybody: the ratio does not show it.
    cell, = figures_of([{'llama.cpp': (10, None), 'ik mla3': (20, None), 'switchyard': (30, None)},
                        {'llama.cpp': (50, None), 'ik mla3': (10, None), 'switchyard': (15, None)},
                        {'llama.cpp': (10, None), 'ik mla3': (20, None), 'switchyard': (32, None)}]).cells()
    assert cell['better_peer'] == 'ik mla3'
    assert cell['ratio'] == pytest.approx(1.5)
    assert (cell['ratio_min'], cell['ratio_max']) == (pytest.approx(1.5), pytest.approx(1.6))


@pytest.mark.parametrize(('speed', 'limit', 'met'), [
    (26, None, True), (25, None, False),  # The target ratio of this cell is 1.3.
    (12, 20, True), (12, 21, False),      # 60 % of the limit is enough where that is less.
    (26, 100, True)])
def test_a_cell_asks_for_the_smaller_of_ratio_and_share_of_the_limit(speed, limit, met):
    cell, = figures_of([{'llama.cpp': (20, None), 'switchyard': (speed, limit)}]).cells()
    assert cell['met'] is met


def test_a_round_that_only_one_side_finished_gives_no_ratio():
    cell, = figures_of([{'llama.cpp': (20, None)}, {'switchyard': (30, None)}]).cells()
    assert 'ratio' not in cell


def test_several_samples_of_one_run_count_once():
    figures = compare.Figures(io.StringIO())
    figures.add(0, ('mid', 'bf16'), 'llama.cpp', [('prefill 512', 1, None), ('prefill 512', 3, None)])
    speeds = figures.cells()[0]['tokens_per_second']['llama.cpp']
    assert speeds == {'median': 2, 'min': 2, 'max': 2, 'rounds': 1}


def setting(monkeypatch, answer):
    """A setting under which every program prints `answer` = (stdout, stderr)."""
    monkeypatch.setattr(engines, 'run', lambda setting, command: answer)
    return engines.Setting('0,1', [1, 8], 512, 2)


def test_batched_table_of_ik_is_read_from_either_stream(monkeypatch):
    table = ('|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n'
             '|-------|--------|------|--------|----------|----------|----------|----------|\n'
             '|    16 |     16 |    8 |    256 |    0.007 | 19370.46 |    0.011 | 11484.97 |\n')
    under = setting(monkeypatch, ('[{"samples_ts": [5.0, 6.0]}]', table))
    assert list(engines.IkLlamaCpp('mla3').measure(under, 'mid', 'Q8_0')) == [
        ('prefill 512', 5.0, None), ('prefill 512', 6.0, None), ('decode 8', 11484.97, None)]


def test_our_lines_carry_the_limit(monkeypatch):
    line = json.dumps({'case': 'decode', 'batch': 8, 'weights': 'int8', 'tokens_per_second': 12.5,
                       'limit_tokens_per_second': 40})
    under = setting(monkeypatch, (f'loading\n{line}\n', ''))
    assert list(engines.Switchyard.run_cases(under, [])) == [('decode 8', 12.5, 40)]


def test_a_program_that_fails_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(engines.places, 'PEERS_DIR', tmp_path)
    with pytest.raises(engines.EngineFailed, match='exit code 3'):
        engines.run(engines.Setting('0', [], 0, 1), ['sh', '-c', 'exit 3'])


def run_of(speed, ttft, itl, failed=0):
    return {'tokens_per_second': speed, 'ttft_p50_ms': ttft, 'ttft_p99_ms': ttft, 'itl_p50_ms': itl,
            'itl_p99_ms': itl, 'failed': failed, 'other_length': 0, 'memory_mib': 100, 'client_cpu_s': 0.1}


def test_our_server_is_judged_against_the_best_slot_count_of_either_peer():
    rows = serve.rows_of({('llama.cpp 32 slots', 64): [run_of(100, 800, 400)],
                          ('ik 64 slots', 64): [run_of(200, 400, 100)],
                          ('switchyard', 64): [run_of(500, 100, 50, failed=2), run_of(520, 100, 50)]})
    ours, = (row for row in rows if row['server'] == 'switchyard')
    assert ours['better_peer'] == 'ik 64 slots'
    assert ours['failed'] == 2
    assert ours['ratios'] == {'tokens_per_second': [pytest.approx(2.55), True],
                              'ttft_p50_ms': [0.25, True], 'itl_p99_ms': [0.5, False]}
