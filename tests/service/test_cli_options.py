"""The command line changes on purpose only: every verb, option and default is written down."""

from .cli_options import FROZEN, options


def test_verbs_options_and_defaults_are_those_written_down() -> None:
    assert options() == FROZEN.read_text(encoding="utf-8"), (
        "if that is meant: python -m tests.service.cli_options"
    )
