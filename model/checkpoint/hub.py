"""Checkpoints on the Hugging Face Hub: fetched by name, pushed as one commit.

This is the only module that contacts the Hub for a checkpoint, and only if a Hub name was given. Backbones are fetched
by transformers; its error without a connection is explained here as well (`check_reached`). The endpoint, cache
and token are those of huggingface_hub (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `hf auth login`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # from httpx or httpx2, depending on the version of huggingface_hub
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.artifact import read_manifest
from model.errors import ArtifactError, InputError, RcmlError

MANIFEST_FILE = "manifest.json"

LOG_IN_REMEDY = "log in with `hf auth login`, or set HF_TOKEN"


def fetch(name: str, revision: str | None = None) -> Path:
    """Download the checkpoint `name` (`owner/name`) into the local Hub cache and return its folder.

    The manifest is downloaded first. It distinguishes a checkpoint from any other model before gigabytes are
    transferred. It also lists the files of the checkpoint, so no other file in the repository is downloaded. If the
    Hub cannot be reached, a checkpoint in the cache is used unchanged.

    Raises:
        ArtifactError: the checkpoint does not exist, access is denied, or the download fails.
    """
    with _in_our_words(name, ArtifactError, revision):
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[MANIFEST_FILE]))
        if not (folder / MANIFEST_FILE).is_file():
            raise ArtifactError(
                f"{name} on the Hub has no {MANIFEST_FILE}, so it is not an rcml checkpoint. Use a "
                "repository that `push_to_hub` has created."
            )
        files = list(read_manifest(folder, "checkpoint").files)
        # Use the commit of the manifest, so that a push in between cannot mix two checkpoints.
        snapshot_download(name, revision=folder.name, allow_patterns=files)
    return folder


def push(folder: Path, repo_id: str, private: bool | None, message: str) -> str:
    """Commit all files of `folder` to the model repository `repo_id` and return the URL of the commit.

    All files are in one commit, so nobody can download half of a checkpoint.

    Raises:
        InputError: the Hub cannot be reached or rejects the push.
    """
    api = HfApi()
    with _in_our_words(repo_id, InputError):
        api.create_repo(repo_id, private=private, exist_ok=True)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        commit = api.create_commit(repo_id, operations, commit_message=message)
    return str(commit.commit_url)


@contextmanager
def _in_our_words(name: str, error: type[RcmlError], revision: str | None = None) -> Iterator[None]:
    """Convert the exceptions of huggingface_hub for the repository `name` into `error`."""
    try:
        yield
    except HFValidationError as cause:
        raise error(
            f"{name!r} is not a valid name on the Hub. Use the form owner/name. Details: {cause}"
        ) from None
    except GatedRepoError:
        raise error(
            f"{name} is gated. Request access on its page on the Hub, then {LOG_IN_REMEDY}."
        ) from None
    except RevisionNotFoundError:
        raise error(
            f"{name} on the Hub has no revision {revision!r}. Use one of its branches, tags or commits."
        ) from None
    except RepositoryNotFoundError:
        raise error(
            f"The Hub has no model {name!r}, or it is private. Check the name. If it is private, {LOG_IN_REMEDY}."
        ) from None
    except HfHubHTTPError as cause:
        status = cause.response.status_code
        remedy = f"To get access, {LOG_IN_REMEDY}." if status in (401, 403) else "Try again later."
        said = cause.server_message or cause.response.reason_phrase
        raise error(
            f"The Hub rejected the request for {name} with status {status} ({said}). {remedy}"
        ) from None
    except (LocalEntryNotFoundError, HTTPError, ConnectionError) as cause:
        reason = cause.__cause__ or cause
        raise error(
            f"The Hub could not be reached for {name} ({reason}). Check the connection, or use a local folder."
        ) from None


def check_reached(name: str | Path, error: Exception) -> None:
    """Raise an `InputError` if `error`, raised by transformers for the model `name`, means that there is no connection.

    transformers hides the reason in the cause of its own error, and its advice names its own functions.
    """
    cause: BaseException | None = None if is_local(name) else error
    while cause is not None:
        if isinstance(cause, LocalEntryNotFoundError):
            with _in_our_words(str(name), InputError):
                raise cause
        cause = cause.__cause__ or cause.__context__


def is_local(name: str | Path) -> bool:
    """Return whether `name` is a local path; a path that does not exist must not be sent to the Hub.

    A Hub name is `name` or `owner/name`. If the first part exists as a local file or folder, `name` is a path.
    """
    path = Path(name)
    first = str(name).split("/")[0]  # `Path("./x")` drops the dot
    return path.is_absolute() or first in {".", "..", "~"} or len(path.parts) > 2 or Path(first).exists()
