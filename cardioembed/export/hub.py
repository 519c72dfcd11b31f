"""An export on the Hugging Face hub: only when asked, with the token of the environment and no other."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from cardioembed.errors import UserError

TOKEN_VARIABLE = "HF_TOKEN"


def check_push(repo_id: str, *, dry_run: bool) -> None:
    """Finds what can be found wrong before anything is computed or sent.

    Args:
        repo_id: ``owner/name``.
        dry_run: Whether nothing is to be sent, so that no token is needed.

    Raises:
        UserError: Not a repository's name, or no token.
    """
    try:
        validate_repo_id(repo_id)
        known = repo_id.count("/") == 1
    except HFValidationError:
        known = False
    if not known:
        raise UserError(f"--push-to-hub {repo_id} is not a repository's name; give owner/name, for example me/cardio")
    if not dry_run:
        _token()


def _token() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise UserError(
            f"--push-to-hub: {TOKEN_VARIABLE} is not set. Make a token with write access at "
            f"https://huggingface.co/settings/tokens and export {TOKEN_VARIABLE}=..., or add --dry-run to see what "
            "would be uploaded"
        )
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"the token in {TOKEN_VARIABLE} has characters that no token has; set it again")
    return token


def upload_list(folder: Path) -> list[tuple[str, int]]:
    """``(path, bytes)`` of each file that a push uploads."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def push_to_hub(folder: Path, repo_id: str, *, private: bool, endpoint: str | None = None) -> str:
    """Uploads a folder as a model repository, made if it is not there.

    Args:
        folder: An export.
        repo_id: ``owner/name``.
        private: Whether only its owner may see it; a public repository of that name is then refused.
        endpoint: The hub's address; None for ``HF_ENDPOINT``, else https://huggingface.co.

    Returns:
        The repository's address.

    Raises:
        UserError: No token, no access, no connection; the message never holds the token.
    """
    import httpx2  # huggingface_hub's own client, whose errors it lets through

    token = _token()
    api = HfApi(endpoint=endpoint, token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise UserError(
                f"--push-to-hub: {repo_id} exists and is public; nothing was uploaded. Make it private on the hub, "
                "give another name, or leave --private out"
            )
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a CardioEmbed export")
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0].replace(token, "***")
        raise UserError(
            f"--push-to-hub: {repo_id} was not uploaded ({type(error).__name__}: {reason}). {folder} is whole; check "
            f"the name, the connection and that the token in {TOKEN_VARIABLE} may write there, and run again"
        ) from None
    return str(address)
