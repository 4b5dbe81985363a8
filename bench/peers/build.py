#!/usr/bin/env python3
"""Gets the peers' sources, patches their benchmarks and builds the programs the comparison needs.

  bench/peers/build.py [--jobs N] [--only llama|ik]

llama.cpp comes out of the source package of llama-cpp-python (pip download; a package already in
PEERS_DIR/download is used). ik_llama.cpp is built where IK_LLAMA_DIR names its source tree, from a
copy of that tree. Nothing of either is kept in this repository. See places.py for the variables.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import places

PACKAGE = 'llama-cpp-python==0.3.36'
TARGETS = ('llama-bench', 'llama-batched-bench', 'llama-server', 'llama-quantize', 'llama-perplexity')
COMMON_OPTIONS = ('-DCMAKE_BUILD_TYPE=Release', '-DGGML_NATIVE=ON', '-DGGML_OPENMP=ON')
LLAMA_OPTIONS = ('-DLLAMA_USE_PREBUILT_UI=OFF', '-DLLAMA_BUILD_UI=OFF', '-DLLAMA_OPENSSL=OFF')
IK_OPTIONS = ('-DGGML_IQK_FA_ALL_QUANTS=OFF',)

# (file, what is looked for, what takes its place, least number of places)
IK_PATCHES = (
    # As it comes, its batched benchmark feeds token 0 to every sequence, so that all of them choose
    # the same experts and batches look cheaper than they are. llama.cpp's draws random tokens.
    ('examples/batched-bench/batched-bench.cpp', r'common_batch_add\(batch, 0, (i|pp \+ i), \{ j \}',
     r'common_batch_add(batch, std::rand() % llama_n_vocab(model), \1, { j }', 2),
    # It refuses latent attention of other widths than DeepSeek's own, which the demo model has.
    ('src/llama-hparams.cpp',
     r'if \(n_nead_kv%4 != 0 \|\| hparams\.n_embd_head_k\(0\) != expected_head_size_k(.|\n)*?n_rot != 64\)',
     'if (n_nead_kv <= 0)', 1),
)


def run(command, **options):
    print('+', ' '.join(str(word) for word in command), flush=True)
    subprocess.run([str(word) for word in command], check=True, **options)


def get_llama_source():
    if (places.LLAMA_SOURCE / 'CMakeLists.txt').exists():
        return
    places.DOWNLOAD_DIR.mkdir(parents=True, exist_ok=True)
    packages = list(places.DOWNLOAD_DIR.glob('llama_cpp_python-*.tar.gz'))
    if not packages:
        run([sys.executable, '-m', 'pip', 'download', '--no-deps', '--no-binary', ':all:', PACKAGE,
             '-d', places.DOWNLOAD_DIR])
        packages = list(places.DOWNLOAD_DIR.glob('llama_cpp_python-*.tar.gz'))
    unpacked = places.PEERS_DIR / 'unpacked'
    with tarfile.open(packages[0]) as archive:
        archive.extractall(unpacked, filter='data')
    tree = next(unpacked.glob('*/vendor/llama.cpp'))
    tree.rename(places.LLAMA_SOURCE)
    shutil.rmtree(unpacked)


def patch(root, patches):
    for name, pattern, replacement, count_min in patches:
        path = root / name
        text, count = re.subn(pattern, replacement, path.read_text())
        if count < count_min:
            sys.exit(f'{path}: {count} places to patch, {count_min} expected: another version?')
        path.write_text(text)
        print(f'patched {name}: {count} places')


def get_ik_source():
    if (places.IK_SOURCE / 'CMakeLists.txt').exists():
        return
    # Copied whole and renamed last, so that a broken run leaves no half-patched tree.
    fresh = places.IK_SOURCE.with_suffix('.fresh')
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(places.IK_LLAMA_DIR, fresh, symlinks=True, ignore=shutil.ignore_patterns('.git'))
    patch(fresh, IK_PATCHES)
    fresh.rename(places.IK_SOURCE)


def build(source, build_dir, options, jobs):
    if not shutil.which('ninja'):
        sys.exit('ninja is missing: see `make setup`')
    if shutil.which('ccache'):
        options = (*options, '-DCMAKE_C_COMPILER_LAUNCHER=ccache', '-DCMAKE_CXX_COMPILER_LAUNCHER=ccache')
    run(['cmake', '-G', 'Ninja', '-S', source, '-B', build_dir, *COMMON_OPTIONS, *options])
    run(['nice', '-n', '10', 'ninja', '-C', build_dir, f'-j{jobs}', *TARGETS])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--only', choices=('llama', 'ik'), help='build this one only')
    arguments = parser.parse_args()
    if arguments.only != 'ik':
        get_llama_source()
        build(places.LLAMA_SOURCE, places.LLAMA_BIN.parent, LLAMA_OPTIONS, arguments.jobs)
    if arguments.only == 'llama':
        return
    if places.IK_LLAMA_DIR is None:
        print('IK_LLAMA_DIR names no source tree of ik_llama.cpp: that peer is left out')
        return
    if not pathlib.Path(places.IK_LLAMA_DIR, 'CMakeLists.txt').exists():
        sys.exit(f'IK_LLAMA_DIR: no CMakeLists.txt in {places.IK_LLAMA_DIR}')
    get_ik_source()
    build(places.IK_SOURCE, places.IK_BIN.parent, IK_OPTIONS, arguments.jobs)


if __name__ == '__main__':
    main()
