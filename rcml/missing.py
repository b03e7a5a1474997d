"""The error for a package that only an extra of rcml installs."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """Something was used that needs `rcml[cpu]` or `rcml[gpu]`, which is not installed."""


@contextmanager
def missing_extra(what: str) -> Iterator[None]:
    """Turn the ImportError of a package that is not installed into the pip command that installs it.

    Raises:
        MissingExtraError: a package outside rcml could not be found while `what` was loaded.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "rcml", "model", "indexes", "service"):
            raise
        raise MissingExtraError(
            f"{what} needs {package}, which is not installed. Run `pip install 'rcml[cpu]'`, "
            "or `pip install 'rcml[gpu]'` on a machine with CUDA.",
            name=error.name,
        ) from error
