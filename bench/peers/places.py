"""Where the peers' sources, programs and model files lie. All of it can be moved by variables.

PEERS_DIR     sources, builds and Python environment of the peers (build/peers)
PEERS_MODELS  GGUF files (PEERS_DIR/models)
MID_MODEL     the generated mid-size model in Hugging Face layout (build/bench-models/mid)
IK_LLAMA_DIR  source tree of ik_llama.cpp; without it, that peer is left out
SWITCHYARD_BIN  folder of our programs (build/bin)
PEERS_PYTHON  a Python that has numpy, torch and transformers; without it, one is made in PEERS_DIR
"""
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def place(variable, default):
    return pathlib.Path(os.environ.get(variable) or default).resolve()


PEERS_DIR = place('PEERS_DIR', ROOT / 'build/peers')
MODELS_DIR = place('PEERS_MODELS', PEERS_DIR / 'models')
SWITCHYARD_BIN = place('SWITCHYARD_BIN', ROOT / 'build/bin')
IK_LLAMA_DIR = place('IK_LLAMA_DIR', '') if os.environ.get('IK_LLAMA_DIR') else None

DOWNLOAD_DIR = PEERS_DIR / 'download'
LLAMA_SOURCE = PEERS_DIR / 'llama.cpp'
LLAMA_BIN = PEERS_DIR / 'llama.cpp-build/bin'
IK_SOURCE = PEERS_DIR / 'ik_llama.cpp'
IK_BIN = PEERS_DIR / 'ik_llama.cpp-build/bin'
VENV = PEERS_DIR / 'venv'
# Not resolved: a link inside a virtual environment is what makes Python use that environment.
PYTHON = pathlib.Path(os.environ.get('PEERS_PYTHON') or VENV / 'bin/python').absolute()

# Hugging Face directory of each model that is compared.
HF_MODELS = {
    'demo': ROOT / 'models/demo',
    'mid': place('MID_MODEL', ROOT / 'build/bench-models/mid'),
}
GGUF_FORMATS = ('f32', 'bf16', 'Q8_0', 'Q4_K_M')


def gguf_path(model, gguf_format):
    return MODELS_DIR / f'{model}-{gguf_format}.gguf'


def have_ik():
    return (IK_BIN / 'llama-bench').exists()


def working_dir():
    """Of the programs that are run: some of the peers write a log into it."""
    path = PEERS_DIR / 'run'
    path.mkdir(parents=True, exist_ok=True)
    return path
