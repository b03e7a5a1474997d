"""Test that guards the command line against unintended changes: all verbs, options and defaults are recorded."""

from .cli_options import FROZEN, options


def test_verbs_options_and_defaults_match_recorded_list() -> None:
    assert options() == FROZEN.read_text(encoding="utf-8"), (
        "The command line changed. If the change is intended, run: python -m tests.service.cli_options"
    )
