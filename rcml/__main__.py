"""Entry point of the command `rcml` and of `python -m rcml`; it reports which extra is missing."""

import sys

from .missing import MissingExtraError, missing_extra
from .openmp import wait_passively_if_busy


def main() -> int:
    """Run the command line and return its exit code (see `service.cli`)."""
    wait_passively_if_busy()
    try:
        with missing_extra("The rcml command"):
            from service.cli import main as run

            return run()
    except MissingExtraError as error:
        print(f"rcml: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
