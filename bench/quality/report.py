"""What table.py computes from what it measured: plain Python."""
import re
import sys

BEGIN, END = '<!-- quality table: begin -->', '<!-- quality table: end -->'
# Bits of a weight, scales included. FP8 blocks at the edge have fewer weights to a scale: not counted.
BITS = {'f32': 32, 'f16': 16, 'bf16': 16, 'fp8': 8 + 32 / 128 ** 2, 'int8': 8.5, 'int4': 4.5}
PEER_OF = {'int8': 'Q8_0', 'int4': 'Q4_K_M'}


def bits_per_weight(shares, without=()):
    """Each weight counted once and without padding, as the peer's files are counted."""
    counted = [share for share in shares if share['role'] not in without]
    return sum(share['parameters'] * BITS[share['format']] for share in counted) / \
        sum(share['parameters'] for share in counted)


def read_peer_log(log):
    buffers = [float(size) for size in re.findall(r'model buffer size = +([\d.]+) MiB', log)]
    load = re.search(r'load time = +([\d.]+) ms', log)
    return sum(buffers) if buffers else None, float(load.group(1)) / 1000 if load else None


def cell(row, name, form):
    value = row.get(name)
    return '' if value is None else form.format(value)


COLUMNS = (('format', 'name', '{}'), ('bits per weight', 'bits', '{:.3f}'),
           ('without the embedding', 'bits_without_embedding', '{:.3f}'), ('weights MiB', 'memory', '{:.1f}'),
           ('process grows MiB', 'grown', '{:.1f}'), ('load s', 'load_s', '{:.2f}'),
           ('KL mean', 'kl', '{:.3e}'), ('KL median', 'kl_median', '{:.2e}'),
           ('KL mean to our F32', 'kl_own', '{:.3e}'), ('top-1 %', 'top1', '{:.2%}'))


def markdown(rows):
    lines = ['| ' + ' | '.join(title for title, _, _ in COLUMNS) + ' |', '|---' * len(COLUMNS) + '|']
    for row in rows:
        lines.append('| ' + ' | '.join(cell(row, name, form).rstrip('%') for _, name, form in COLUMNS) + ' |')
    return '\n'.join(lines)


def shortfalls(rows):
    """In words, where one of ours is worse than its peer or takes more bits."""
    by_name = {row['name']: row for row in rows}
    found = []
    for ours, peer in PEER_OF.items():
        mine, other = by_name[ours], by_name[f'llama.cpp {peer}']
        if mine['bits'] > other['bits']:
            found.append(f'{ours} takes {mine["bits"]:.3f} bits, {peer} {other["bits"]:.3f}')
        if mine['kl'] > other['kl']:
            found.append(f'{ours} has KL {mine["kl"]:.3e}, {peer} {other["kl"]:.3e}')
    return found


def with_table(text, table):
    """The document with the table between its two marks replaced."""
    if BEGIN not in text or END not in text:
        sys.exit(f'docs/formats.md: the marks {BEGIN} and {END} are missing')
    head, rest = text.split(BEGIN, 1)
    return f'{head}{BEGIN}\n{table}\n{END}{rest.split(END, 1)[1]}'
