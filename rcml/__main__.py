"""The command `rcml` (also `python -m rcml`); without the extras it says which to install."""

import sys

from .missing import MissingExtraError, missing_extra


def main() -> int:
    """Run the command line; returns its exit code (see `service.cli`)."""
    try:
        with missing_extra("The command rcml"):
            from service.cli import main as run

            return run()
    except MissingExtraError as error:
        print(f"rcml: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
