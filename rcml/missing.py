"""Error for a missing package that an extra of rcml installs."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """Import error for a missing package that `rcml[cpu]` and `rcml[gpu]` install."""


@contextmanager
def missing_extra(what: str) -> Iterator[None]:
    """Replace the ImportError of a missing package with an error that contains the pip command.

    Raises:
        MissingExtraError: loading `what` failed because a package outside rcml is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "rcml", "model", "indexes", "service"):
            raise
        raise MissingExtraError(
            f"{what} requires {package}, which is not installed. Run `pip install 'rcml[cpu]'`, "
            "or `pip install 'rcml[gpu]'` on a machine with CUDA.",
            name=error.name,
        ) from error
