"""Upload of an exported folder to a Hugging Face hub, with huggingface_hub and the token that it has stored."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.files import local_copy, read_json
from kanana_jax.interop.card import CARD
from kanana_jax.interop.model_card import NAME

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ADAPTER = "adapter_config.json"
_MODELS = ("config.json", _ADAPTER)
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_SAY_TOKEN = "run 'hf auth login' with a token that may write (https://huggingface.co/settings/tokens)"


class Upload(NamedTuple):
    """A file to upload.

    Attributes:
      name: its path in the repository.
      path: its path on this machine.
      size: in bytes.
    """

    name: str
    path: pathlib.Path
    size: int


def files(folder: pathlib.Path, repository: str) -> list[Upload]:
    """All files of an exported folder except hidden ones; does not use the network.

    Raises:
      ConfigError: the folder is not an export or holds a file that must not be published, or `repository` is not of the
        form OWNER/NAME.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"'{repository}' is not the name of a repository: give OWNER/NAME, such as my-team/my-model")
    folder = local_copy(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: name one that 'kanana export' has written")
    if (folder / CARD).is_file() or (folder / "model" / CARD).is_file():
        raise ConfigError(
            f"{folder} holds {CARD}, a history with paths of this machine: export it first, with 'kanana export "
            f"{folder} OUT', and push OUT"
        )
    if not any((folder / name).is_file() for name in _MODELS):
        raise ConfigError(f"{folder} holds no model ({' or '.join(_MODELS)}): name a folder that 'kanana export' wrote")
    if not (folder / NAME).is_file():
        raise ConfigError(f"{folder} has no {NAME}, its model card: export the model again, which writes one")
    base = (read_json(folder / _ADAPTER) or {}).get("base_model_name_or_path") or ""
    if base and not _REPOSITORY.fullmatch(str(base)):
        raise ConfigError(
            f"{folder / _ADAPTER} names its base by {base}, which others do not have: export it again with "
            "--base OWNER/NAME"
        )
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{path} is a link out of its folder: put the file in its place, or remove it")
            if path.suffix in _PICKLED:
                raise ConfigError(f"{path} may hold a pickle, which runs code where it is loaded: remove it")
            found.append(Upload(name, path, path.stat().st_size))
    return found


def push(uploads: Sequence[Upload], repository: str, *, private: bool, endpoint: str | None = None) -> str:
    """Creates the repository if it does not exist, uploads the files in one commit, and returns the commit's URL.

    Args:
      private: whether a new repository is private; an existing one is not changed.
      endpoint: URL of the hub; default: huggingface_hub's own (`HF_ENDPOINT`).

    Raises:
      UserError: huggingface_hub is missing; there is no token, or it is invalid or may not write; the repository
        belongs to somebody else; or the hub cannot be reached or refuses the upload.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise UserError(f"uploading needs the package huggingface_hub ({error}): {install('hub')}") from error
    if not huggingface_hub.get_token():
        raise UserError(f"there is no Hugging Face token on this machine: {_SAY_TOKEN}")
    api = huggingface_hub.HfApi(endpoint=endpoint, library_name="kanana-jax")
    try:
        _check_owner(repository, api.whoami())
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [huggingface_hub.CommitOperationAdd(one.name, str(one.path)) for one in uploads]
        commit = api.create_commit(repository, operations, commit_message="Upload by kanana push")
        return commit.commit_url
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise UserError(f"{api.endpoint} does not accept the token of this machine: {_SAY_TOKEN}") from error
        if status == 403:
            raise UserError(
                f"the token of this machine may not write to {repository}: name a repository of yours, or {_SAY_TOKEN}"
            ) from error
        reason = (error.server_message or str(error)).strip().splitlines()[0]
        raise UserError(
            f"{api.endpoint} refused {repository} ({status}: {reason}): run the same command again later"
        ) from error
    except (errors.HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{api.endpoint} cannot be reached ({reason}): check the network and try again") from error


def _check_owner(repository: str, user: dict) -> None:
    """Refuses a repository of somebody else before anything is created."""
    owner = repository.partition("/")[0]
    own = [str(user.get("name")), *(str(org.get("name")) for org in user.get("orgs") or ())]
    if owner.casefold() not in (name.casefold() for name in own):
        raise UserError(
            f"{repository} belongs to {owner}, and the token of this machine to {own[0]}: name a repository of "
            f"{' or '.join(own)}"
        )
