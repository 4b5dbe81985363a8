#!/usr/bin/env python3
"""House rules as a test: layers, limits, banned words, READMEs and tests. Prints what is wrong, exits 1.

Run from anywhere: tools/tidy.py [--headers COMPILER] (the latter compiles every header alone).
"""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 5

# word -> files (or folders) where it is allowed, with the reason in the second field
BANNED = {
    r'system_clock::now': ([], ''),
    r'sleep_for|sleep_until': ([], ''),
    r'\bgetenv\b': (['libs/app/environment.cc'], 'the one place that reads the environment'),
    r'std::cout': ([], ''),
    r'(?<![\w:])rand\(': ([], ''),
    r'get_instance|GetInstance': ([], ''),
    r'\bTODO\b|\bFIXME\b|\bXXX\b|\bHACK\b': ([], ''),
    r'using namespace(?! std::(chrono|string_view)_literals)': ([], ''),
}
# `new` outside factories: private constructors need it, gRPC reactors delete themselves.
NEW_ALLOWED = re.compile(r'unique_ptr|absl::WrapUnique|Deletes itself|placement new|new \(')

# Which lib may include which outside family.
EXCLUSIVE = {
    r'<ucp/|<ucs/|<uct/': ('libs/transport/',),
    r'<grpc(pp)?/': ('libs/rpc/', 'libs/control/', 'services/', 'tests/'),
    r'<boost/beast|<boost/asio': ('libs/http/', 'tests/'),
    r'<cuda|<nccl': ('libs/kernels/cuda/',),
    r'<prometheus/': ('libs/metrics/',),
}

problems = []


def problem(path, line, text):
    problems.append(f'{path.relative_to(ROOT)}:{line}: {text}')


def tracked(*suffixes):
    out = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout.split('\n')
    return [ROOT / p for p in out if p.endswith(suffixes) and (ROOT / p).exists()]


def read_layers():
    layers = {}
    for line in (ROOT / 'libs/LAYERS').read_text().split('\n'):
        if line and not line.startswith('#'):
            name, _, allowed = line.partition(':')
            names = allowed.split()
            for other in names:
                if other != 'proto' and other not in layers:
                    problems.append(f'libs/LAYERS: {name} uses {other}, which is not above it')
            layers[name] = set(names)
    return layers


def is_test(path):
    name = path.name
    return (name.endswith(('_test.cc', '_fuzz.cc', '_bench.cc')) or 'testing' in path.parts
            or path.relative_to(ROOT).parts[0] in ('tests', 'loadtest', 'bench'))


def check_includes(path, lines, layers):
    relative = str(path.relative_to(ROOT))
    own = path.relative_to(ROOT).parts[1] if relative.startswith('libs/') else None
    for number, line in enumerate(lines, 1):
        match = re.match(r'#include ["<](.*)[">]', line)
        if not match:
            continue
        target = match.group(1)
        for family, homes in EXCLUSIVE.items():
            if re.search(family, '<' + target) and not relative.startswith(homes):
                problem(path, number, f'only {", ".join(homes)} may include {target}')
        if own and target.startswith('services/'):
            problem(path, number, 'a lib must not include a service')
        lib = re.match(r'libs/(\w+)/(internal/)?(testing/)?', target)
        if not lib:
            continue
        if lib.group(2) and lib.group(1) != own:
            problem(path, number, f'{target} is private to {lib.group(1)}')
        if lib.group(3) and not is_test(path):
            problem(path, number, f'{target} is for tests')
        if own and lib.group(1) != own and not is_test(path) and lib.group(1) not in layers.get(own, ()):
            problem(path, number, f'lib {own} may not use {lib.group(1)} (libs/LAYERS)')


def check_lengths(path, lines):
    if len(lines) > FILE_LINES_MAX:
        problem(path, 1, f'{len(lines)} lines > {FILE_LINES_MAX}')
    if path.suffix != '.cc' and path.suffix != '.h':
        return
    start = None
    for number, line in enumerate(lines, 1):
        # A function body at namespace or class level: opens at column 0 or 2, closes with } there.
        if re.match(r'^( {0,2})[^\s/#}].*\)( const)?( noexcept)?( override)?( ->.*)? \{$', line):
            start = number
        elif re.match(r'^( {4,}).*\)( const)?( noexcept)?( override)? \{$', line) and start is None:
            start = number if re.match(r'^ {4}\S', line) else None
        if re.match(r'^ {0,2}\}$', line) and start is not None:
            if number - start + 1 > FUNCTION_LINES_MAX:
                problem(path, start, f'function of {number - start + 1} lines > {FUNCTION_LINES_MAX}')
            start = None


def check_words(path, lines):
    relative = str(path.relative_to(ROOT))
    for number, line in enumerate(lines, 1):
        code = re.sub(r'"(\\.|[^"\\])*"', '""', line.split('//')[0])
        for word, (allowed, _) in BANNED.items():
            text = line if 'TODO' in word else code
            if re.search(word, text) and relative not in allowed:
                problem(path, number, f'banned: {re.search(word, text).group(0)}')
        if re.search(r'(?<!\w)new [A-Za-z_:]', code) and not is_test(path) and not NEW_ALLOWED.search(line) \
                and not NEW_ALLOWED.search(lines[number - 2] if number > 1 else ''):
            problem(path, number, 'banned: new outside a factory')
        if len(line) > 100 and not re.search(r'#include|https?://|R"', line):
            problem(path, number, f'{len(line)} columns > 100')


def check_libs(layers):
    for lib in layers:
        folder = ROOT / 'libs' / lib
        if not folder.is_dir():
            problems.append(f'libs/LAYERS names {lib}, which is not there')
            continue
        readme = folder / 'README.md'
        if not readme.exists():
            problems.append(f'libs/{lib}: no README.md')
        elif len(readme.read_text().split('\n')) > 41:
            problems.append(f'libs/{lib}/README.md: more than 40 lines')
        if not list(folder.glob('**/*_test.cc')):
            problems.append(f'libs/{lib}: no test')
    for folder in (ROOT / 'libs').iterdir():
        if folder.is_dir() and folder.name not in layers:
            problems.append(f'libs/{folder.name} has no line in libs/LAYERS')
    for name in ('utils', 'helpers', 'util', 'helper', 'misc'):
        for path in tracked('.h', '.cc', '.py'):
            if path.stem == name or name in path.parts:
                problem(path, 1, f'a file called {name} has no home')


def check_sources_are_built():
    cmake = '\n'.join(p.read_text() for p in tracked('CMakeLists.txt', '.cmake'))
    for path in tracked('.cc'):
        if not re.search(r'(?<![\w/])(\w+/)*' + re.escape(path.name), cmake):
            problem(path, 1, 'in no CMakeLists.txt')


def check_protos():
    for path in tracked('.proto'):
        lines = path.read_text().split('\n')
        for number, line in enumerate(lines, 1):
            field = re.match(r'^\s+(repeated )?[\w.]+ \w+ = \d+;|^\s+\w+ = \d+;', line)
            if field and not lines[number - 2].strip().startswith('//'):
                problem(path, number, 'a field without a comment')


def check_doc_names():
    """Files that docs name in backquotes exist."""
    for path in tracked('.md'):
        if path.relative_to(ROOT).parts[0] not in ('docs', 'README.md'):
            continue
        for number, line in enumerate(path.read_text().split('\n'), 1):
            for name in re.findall(r'`((?:libs|services|proto|tests|tools|training|models)/[\w./{},-]+)`', line):
                if '{' in name or '*' in name:
                    continue
                if not (ROOT / name.split(':')[0]).exists():
                    problem(path, number, f'names {name}, which is not there')


def check_headers_alone(compiler, includes):
    def compile_one(path):
        run = subprocess.run([compiler, '-std=c++20', '-fsyntax-only', '-x', 'c++', '-I', str(ROOT), *includes,
                              str(path)], capture_output=True, text=True)
        return path, run
    headers = [p for p in tracked('.h') if p.relative_to(ROOT).parts[0] in ('libs', 'services')]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for path, run in pool.map(compile_one, headers):
            if run.returncode != 0:
                first = next((l for l in run.stderr.split('\n') if 'error' in l), run.stderr[:200])
                problem(path, 1, f'does not compile alone: {first}')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--headers', metavar='COMPILER', help='compile every header alone')
    parser.add_argument('--include', action='append', default=[], help='include directory for --headers')
    arguments = parser.parse_args()
    layers = read_layers()
    sources = [p for p in tracked('.h', '.cc', '.c')
               if p.relative_to(ROOT).parts[0] in ('libs', 'services', 'tests', 'loadtest', 'bench')]
    for path in sources:
        lines = path.read_text(errors='replace').rstrip('\n').split('\n')
        check_includes(path, lines, layers)
        check_lengths(path, lines)
        check_words(path, lines)
    check_libs(layers)
    check_sources_are_built()
    check_protos()
    check_doc_names()
    if arguments.headers:
        check_headers_alone(arguments.headers, [f'-I{d}' for d in arguments.include])
    for text in sorted(problems):
        print(text)
    print(f'tidy: {len(sources)} sources, {len(problems)} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
