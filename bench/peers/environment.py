"""The Python that has the packages of the converter: PEERS_PYTHON, or one made in PEERS_DIR/venv."""
import importlib.util
import os
import subprocess
import sys

import places

PACKAGES = ('numpy', 'torch', 'transformers')


def make_python():
    """Does nothing where the interpreter is there already."""
    if places.PYTHON.exists():
        return
    print(f'making {places.VENV} with {", ".join(PACKAGES)}', flush=True)
    subprocess.run([sys.executable, '-m', 'venv', places.VENV], check=True)
    subprocess.run([places.VENV / 'bin/pip', 'install', '--quiet', *PACKAGES], check=True)


def run_where_numpy_is():
    """Starts the program again under that interpreter when this one has no numpy."""
    if importlib.util.find_spec('numpy') is None:
        make_python()
        os.execv(places.PYTHON, [str(places.PYTHON), *sys.argv])
