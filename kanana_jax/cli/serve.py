"""The verb `serve`."""

import argparse
import logging
import os

from kanana_jax.cli.verbs import AddVerb
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana serve runs/sft/sft
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "안녕?"}]}'

The interface is OpenAI's: /v1/models, /v1/chat/completions, /v1/completions. Requests that wait are answered together.
Other machines are answered only with --host and with a key in KANANA_SERVE_KEY. Ctrl-C ends it."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("serve", _serve, "answer requests over HTTP, with OpenAI's interface", _EXAMPLE)
    sub.add_argument("model", metavar="MODEL", help="model, stage or Hugging Face folder")
    sub.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; the default accepts this machine alone",
    )
    sub.add_argument("--port", type=int, default=8000, metavar="P", help="port; 0: any free one")
    sub.add_argument("--name", default="", metavar="NAME", help="name of the model (default: that of its folder)")
    sub.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="maximum number of answers generated at once"
    )
    sub.add_argument("--max-waiting", type=int, default=256, metavar="N", help="requests that may wait; others get 429")
    sub.add_argument(
        "--max-tokens", type=int, default=512, metavar="N", help="longest answer, where a request sets none"
    )
    sub.add_argument("--temperature", type=float, default=0.7, metavar="T", help="default of requests")
    sub.add_argument("--top-p", type=float, default=0.9, metavar="P", help="default of requests")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of sampling")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")


def _serve(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    least = {"--batch-size": 1, "--max-waiting": 1, "--max-tokens": 1, "--port": 0, "--seed": 0}
    for flag, smallest in least.items():
        value = getattr(options, flag[2:].replace("-", "_"))
        if value < smallest:
            raise ConfigError(f"{flag} must be at least {smallest}, not {value}")
    if options.port > 65535:
        raise ConfigError(f"--port must be at most 65535, not {options.port}")
    from kanana_jax.applications.server.asked import Defaults
    from kanana_jax.applications.server.batches import Batches
    from kanana_jax.applications.server.http import KEY, Server
    from kanana_jax.files import place
    from kanana_jax.inference.sampling import SamplingConfig
    from kanana_jax.inference.session import Session

    try:
        SamplingConfig(options.temperature, 0, options.top_p)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    session = Session.load(options.model, options.dtype)
    folder = place(options.model)
    name = options.name or (folder.parent.name if folder.name == "model" else folder.name) or "model"
    defaults = Defaults(options.max_tokens, options.temperature, 0, options.top_p)
    batches = Batches(session, options.batch_size, options.max_waiting, options.seed)
    with Server(session, name, (options.host, options.port), os.environ.get(KEY, ""), defaults, batches) as server:
        print(f"{server.url} answers as '{name}'; Ctrl-C ends it", flush=True)
        logging.getLogger("kanana").info("up to %d requests are answered together", options.batch_size)
        server.serve_forever()
