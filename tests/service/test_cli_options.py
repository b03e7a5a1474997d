"""Test that guards the command line against unintended changes: all verbs, options and defaults are recorded."""

import pytest

from .cli_options import FROZEN, options, verbs


def test_verbs_options_and_defaults_match_recorded_list() -> None:
    assert options() == FROZEN.read_text(encoding="utf-8"), (
        "The command line changed. If the change is intended, run: python -m tests.service.cli_options"
    )


@pytest.mark.parametrize("verb", ["rcml serve", "rcml key"])
def test_help_says_how_the_values_of_a_list_are_separated(verb: str) -> None:
    [found] = [one for one in verbs() if one.name == verb]
    lists = [option for option in found.options if option.values.startswith("tuple[")]
    assert lists
    assert [option.names for option in lists if "comma" not in option.help] == []
