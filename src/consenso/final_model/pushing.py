"""push_model: a saved model folder to the Hugging Face Hub, only when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consenso.errors import ConfigError, ConsensoError, MissingExtraError, ModelError

LOG_IN = "run `hf auth login`, or set HF_TOKEN"


def push_model(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a model folder to the Hugging Face Hub and return its address; the repository is made where it is not there.

    Raises `ConfigError` for an impossible name or without a token, `MissingExtraError` without huggingface_hub,
    `ModelError` for a folder without a model, where the upload fails, and with `private` where the repository that is
    there is public: then nothing is uploaded.
    """
    place, api = Path(folder), _api(repo_id)
    if not (place / "config.json").is_file():
        raise ModelError(f"{place} is no model folder (no config.json); `consenso train --to {place}` makes one")
    try:
        where = api.create_repo(repo_id=repo_id, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo_id=where.repo_id).private:
            raise ModelError(
                f"{repo_id} is there already and public, so nothing was uploaded; make it private on the hub, or choose another name"
            )
        api.upload_folder(
            repo_id=where.repo_id, folder_path=place, commit_message="Model and card, made by consenso train"
        )
    except ConsensoError:
        raise
    except Exception as error:  # what the hub's transport raises depends on its release
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{place} was not pushed to {repo_id}: {reason}; the folder is whole: mend this and push it again"
        ) from error
    return str(where)


def check_push(repo_id: str) -> None:
    """Raise, before hours of training, what `push_model` would raise for want of a library, a name or a token."""
    _api(repo_id)


def _api(repo_id: str) -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils import validate_repo_id
    except ImportError:
        raise MissingExtraError("pushing to the Hugging Face Hub", "hub") from None
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise ConfigError(f"--push-to-hub: {repo_id!r} is no repository name: {error}; write USER/NAME") from None
    if huggingface_hub.get_token() is None:
        raise ConfigError(
            f"--push-to-hub: there is no Hugging Face token here; {LOG_IN}, or push the folder later with `hf upload`"
        )
    return huggingface_hub.HfApi()
