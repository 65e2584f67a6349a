"""Models for others: the verbs `export` and `push`."""

import argparse
from typing import Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_PUSH_EXAMPLE = """example:
  kanana export runs/sft/sft exported --licence apache-2.0
  kanana push exported my-team/faq-2b --dry-run
  kanana push exported my-team/faq-2b --private

The token is read from Hugging Face's own store (hf auth login). --dry-run needs neither token nor network."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verbs."""
    _add_export(verb)
    pusher = verb("push", _push, "upload an exported folder to a Hugging Face hub", _PUSH_EXAMPLE)
    pusher.add_argument("folder", type=place, metavar="FOLDER", help="folder that 'kanana export' has written")
    pusher.add_argument("repository", metavar="REPO", help="OWNER/NAME; created if it does not exist")
    pusher.add_argument("--dry-run", action="store_true", help="show the files and their sizes without uploading")
    pusher.add_argument("--private", action="store_true", help="create a new repository as private")


def _add_export(verb: AddVerb) -> None:
    exporter = verb(
        "export",
        _export,
        "convert a model to a plain Hugging Face folder, or a GGUF file for llama.cpp",
        "example:\n  kanana export runs/tiny/stage2 exported\n  kanana export runs/tiny/stage2 exported --as mistral\n"
        "  kanana export runs/tiny/stage2 stage2.gguf --dtype q8_0\n"
        "  kanana export runs/sft/sft exported --results faq.json --licence apache-2.0\n"
        "  kanana export runs/dpo/dpo adapter --adapter --base meta-llama/Llama-3.2-1B",
    )
    exporter.add_argument("source", type=place, metavar="MODEL", help="model, stage or Hugging Face folder")
    exporter.add_argument("destination", type=place, metavar="OUT[.gguf]", help="a folder, or a .gguf file")
    exporter.add_argument(
        "--as",
        dest="family",
        default="",
        metavar="FAMILY",
        help="model_type of the class, among those that compute the same function (default: the first of them)",
    )
    exporter.add_argument(
        "--dtype",
        default="",
        choices=("f32", "bf16", "f16", "q8_0"),
        help="dtype of a GGUF file's matrices (default: the model's)",
    )

    exporter.add_argument(
        "--adapter",
        action="store_true",
        help="export the LoRA adapters of a stage for the peft library instead of a model",
    )
    exporter.add_argument(
        "--base",
        default="",
        metavar="NAME",
        help="the base's name on its hub, for the model card and for an adapter (default: as its files say)",
    )
    exporter.add_argument(
        "--licence", default="", metavar="NAME", help="licence for the model card (default: what the base's card says)"
    )
    exporter.add_argument(
        "--results",
        type=place,
        action="append",
        default=[],
        metavar="FILE.json",
        help="results of 'kanana eval' for the model card; may be repeated",
    )


def _export(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.files import locked
    from kanana_jax.interop import model_folder, peft
    from kanana_jax.interop.gguf import file

    gguf = options.destination.suffix == ".gguf"
    _check(options, gguf)
    with locked(options.destination, folder=False):
        if gguf:
            file.export(options.source, options.destination, options.dtype)
        elif options.adapter:
            readme = _card(options, command, "peft")
            tell_differences(*peft.export(options.source, options.destination, options.base, readme))
        else:
            embeds = model_folder.find(options.source).embedding is not None
            readme = _card(options, command, "sentence-transformers" if embeds else "transformers")
            how: dict[str, Any] = {"family_name": options.family, "readme": readme}
            model_folder.transfer(options.source, options.destination, keep_card=False, **how)
    print(options.destination)


def _check(options: argparse.Namespace, gguf: bool) -> None:
    if options.adapter and (gguf or options.family or options.dtype):
        raise ConfigError("--adapter writes the peft library's format: leave out .gguf, --as and --dtype")
    if gguf and (options.base or options.licence or options.results):
        raise ConfigError("--base, --licence and --results are for the model card of a folder: a GGUF file has none")
    if options.dtype and not gguf:
        raise ConfigError("--dtype is for GGUF files: name OUT.gguf")
    if options.family and gguf:
        raise ConfigError("--as is for Hugging Face folders: llama.cpp has one architecture for each model")


def _card(options: argparse.Namespace, command: list[str], library: str) -> str:
    """The folder's model card."""
    from kanana_jax.interop import model_card, model_folder

    results = []
    if options.results:
        from kanana_jax.evaluation import compare

        results = [compare.read(file) for file in options.results]
    told = model_card.Told(options.base, options.licence, results, command)
    return model_card.text(model_folder.find(options.source), options.destination.name, told, library)


def tell_differences(difference: float, largest: float) -> None:
    """Prints how far the logits of a merged adapter are from those beside its base."""
    print(f"logits merged and beside the base differ by {difference:.2e} at most (the largest is {largest:.3g})")


def _push(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.interop import hub
    from kanana_jax.progress import sized

    uploads = hub.files(options.folder, options.repository)
    width = max(len(one.name) for one in uploads)
    for one in uploads:
        print(f"{one.name:<{width}}  {sized(one.size):>9}")
    print(f"{len(uploads)} files, {sized(sum(one.size for one in uploads))}, for {options.repository}")
    if options.dry_run:
        print("nothing was uploaded; the same command without --dry-run uploads these files")
        return
    print(hub.push(uploads, options.repository, private=options.private))
