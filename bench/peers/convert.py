#!/usr/bin/env python3
"""Makes the GGUF files of the models with llama.cpp's own converter and quantiser.

  bench/peers/convert.py [--models demo,mid] [--formats bf16,Q8_0,Q4_K_M]

A file that is there already is kept. The converter needs numpy, torch and transformers: PEERS_PYTHON
names a Python that has them, otherwise one is made in PEERS_DIR/venv. See places.py for the variables.
"""
import argparse
import subprocess
import sys

import environment
import places

CONVERTED = ('f32', 'bf16')  # The converter writes these; the quantiser makes the others of them.

# The converter refuses a tokenizer whose digest it does not know. Ours splits words as GPT-2 does.
LAUNCHER = """
import runpy, sys
root = sys.argv.pop(1)
sys.argv[0] = root + '/convert_hf_to_gguf.py'
sys.path[:0] = [root + '/gguf-py', root]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: 'gpt-2'
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run(command):
    print('+', ' '.join(str(word) for word in command if word != LAUNCHER), flush=True)
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, cwd=places.working_dir())
    if done.returncode != 0:
        sys.exit(f'{done.stdout[-2000:]}\nfailed with {done.returncode}')


def convert(model, gguf_format):
    out = places.gguf_path(model, gguf_format)
    if out.exists():
        return
    fresh = out.with_suffix('.fresh')
    if gguf_format in CONVERTED:
        run([places.PYTHON, '-c', LAUNCHER, places.LLAMA_SOURCE, places.HF_MODELS[model],
             '--outtype', gguf_format, '--outfile', fresh])
    else:
        convert(model, 'bf16')
        run([places.LLAMA_BIN / 'llama-quantize', places.gguf_path(model, 'bf16'), fresh, gguf_format, '2'])
    fresh.rename(out)
    print(f'{out}: {out.stat().st_size} bytes', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--models', default='demo,mid')
    parser.add_argument('--formats', default='bf16,Q8_0,Q4_K_M')
    arguments = parser.parse_args()
    places.MODELS_DIR.mkdir(parents=True, exist_ok=True)
    environment.make_python()
    for model in arguments.models.split(','):
        for gguf_format in arguments.formats.split(','):
            convert(model, gguf_format)


if __name__ == '__main__':
    main()
