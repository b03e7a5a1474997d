"""Checkpoints on the Hugging Face Hub: fetched by name, pushed as one commit.

The one file that reaches for the Hub on behalf of a checkpoint, and only when a Hub name was given. Endpoint,
cache and token are huggingface_hub's own (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `hf auth login`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # httpx's or httpx2's, by the version of huggingface_hub
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.artifact import read_manifest
from model.errors import ArtifactError, InputError, RcmlError

MANIFEST_FILE = "manifest.json"

LOG_IN_REMEDY = "log in with `hf auth login`, or set HF_TOKEN"


def fetch(name: str, revision: str | None = None) -> Path:
    """Bring the checkpoint `name` (`owner/name`) into the Hub's cache on this machine; returns its folder.

    The manifest comes first: it tells a checkpoint from any other model before gigabytes are on their way, and
    names the files that belong to it, so that nothing else that lies in the repository is taken along. Where
    the Hub cannot be reached, a checkpoint that was fetched before is used as it is.

    Raises:
        ArtifactError: there is no such checkpoint, or it may not or cannot be fetched.
    """
    with _in_our_words(name, ArtifactError, revision):
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[MANIFEST_FILE]))
        if not (folder / MANIFEST_FILE).is_file():
            raise ArtifactError(
                f"{name} on the Hub has no {MANIFEST_FILE}, so it is not a checkpoint of rcml. Name one that "
                "`push_to_hub` has made."
            )
        files = list(read_manifest(folder, "checkpoint").files)
        # By the commit just seen, so that a push in between cannot mix two checkpoints.
        snapshot_download(name, revision=folder.name, allow_patterns=files)
    return folder


def push(folder: Path, repo_id: str, private: bool | None, message: str) -> str:
    """Commit all files of `folder` to the model repository `repo_id`; returns the commit's URL.

    One commit, so that nobody ever fetches half a checkpoint.

    Raises:
        InputError: the Hub cannot be reached or refuses.
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
    """Turn what huggingface_hub raises about the repository `name` into an `error` of ours."""
    try:
        yield
    except HFValidationError as cause:
        raise error(f"{name!r} is no name on the Hub, owner/name: {cause}") from None
    except GatedRepoError:
        raise error(f"{name} is gated: ask its owner for access on its page, then {LOG_IN_REMEDY}.") from None
    except RevisionNotFoundError:
        raise error(
            f"{name} on the Hub has no revision {revision!r}. Name a branch, a tag or a commit of it."
        ) from None
    except RepositoryNotFoundError:
        raise error(
            f"The Hub has no model {name!r}, or it is private. Check the name; if it is private, {LOG_IN_REMEDY}."
        ) from None
    except HfHubHTTPError as cause:
        status = cause.response.status_code
        remedy = f"To use it, {LOG_IN_REMEDY}." if status in (401, 403) else "Try again later."
        said = cause.server_message or cause.response.reason_phrase
        raise error(f"The Hub refused {name} with status {status} ({said}). {remedy}") from None
    except (LocalEntryNotFoundError, HTTPError, ConnectionError) as cause:
        reason = cause.__cause__ or cause
        raise error(
            f"The Hub could not be reached for {name} ({reason}). Check the connection, or name a local folder."
        ) from None


def is_local(name: str | Path) -> bool:
    """Whether `name` means a folder on this machine: a path that is not there must not go to the Hub.

    A Hub name is `name` or `owner/name`. Whatever starts with a folder that exists here is a path.
    """
    path = Path(name)
    first = str(name).split("/")[0]  # of a `Path`, "./x" has lost its dot
    return path.is_absolute() or first in {".", "..", "~"} or len(path.parts) > 2 or Path(first).exists()
