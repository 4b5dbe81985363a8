"""Tests of what the table is made with: bits, the peer's log, rows."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report  # noqa: E402


def row(name, bits, kl):
    return {'name': name, 'bits': bits, 'kl': kl}


def test_bits_are_those_of_each_share_by_its_parameters():
    shares = [{'role': 'head', 'format': 'int8', 'parameters': 100},
              {'role': 'embedding', 'format': 'bf16', 'parameters': 300}]
    assert report.bits_per_weight(shares) == pytest.approx((8.5 + 3 * 16) / 4)
    assert report.bits_per_weight(shares, ('embedding',)) == 8.5


def test_reads_what_the_peer_says_of_its_memory():
    log = ('0.00 I load_tensors:   CPU model buffer size =    14.25 MiB\n'
           '0.00 I load_tensors:   CPU_REPACK model buffer size = 2.00 MiB\n'
           '0.02 I llama_perf_context_print:        load time =      36.50 ms\n')
    assert report.read_peer_log(log) == (16.25, 0.0365)
    assert report.read_peer_log('') == (None, None)


def test_says_where_a_format_is_worse_than_its_peer():
    peers = [row('llama.cpp Q8_0', 8.6, 1e-3), row('llama.cpp Q4_K_M', 5.4, 1e-2)]
    assert report.shortfalls([row('int8', 8.6, 1e-3), row('int4', 5.0, 5e-3), *peers]) == []
    found = report.shortfalls([row('int8', 9.0, 2e-3), row('int4', 5.0, 5e-3), *peers])
    assert [text.split()[1] for text in found] == ['takes', 'has']


def test_the_table_takes_its_place_and_no_other():
    text = f'before\n{report.BEGIN}\nold\n{report.END}\nafter\n'
    assert report.with_table(text, 'new') == f'before\n{report.BEGIN}\nnew\n{report.END}\nafter\n'
    with pytest.raises(SystemExit):
        report.with_table('no marks', 'new')


def test_an_empty_cell_is_one_without_a_value():
    lines = report.markdown([{'name': 'int8', 'bits': 8.5, 'top1': 0.987}]).split('\n')
    assert lines[2].startswith('| int8 | 8.500 |  |') and lines[2].endswith('| 98.70 |')
    assert lines[0].count('|') == lines[2].count('|') == lines[1].count('|')
