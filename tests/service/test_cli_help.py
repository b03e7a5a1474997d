"""Tests of the help of the command line: no term of Python, and defaults as a user would write them."""

import re

import pytest

from service.cli import CONFIGS, main
from service.cli_help import default_in_words, values_in_words

PYTHON = re.compile(r"\b(str|int|float|bool|Path|tuple|dict|ByteSize|SecretStr|None|factory)\b|\(\)")


@pytest.mark.parametrize("verb", ["", *CONFIGS])
def test_help_has_no_term_of_python(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*verb.split(), "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: rcml {verb}".rstrip())
    assert PYTHON.findall(shown) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Path", "PATH"),
        ("{int,auto}", "{INTEGER,auto}"),
        ("tuple[SecretStr,...]", "KEY,..."),
        ("dict[str,{text,number}]", "NAME={text,number},..."),
        ("{listen to,use}", "{listen to,use}"),
        ("PATH,...", "PATH,..."),
    ],
)
def test_types_of_values_are_words(kind: str, words: str) -> None:
    assert values_in_words(kind) == words


@pytest.mark.parametrize(
    ("description", "is_size", "words"),
    [
        ("seed (default: 0)", False, "seed (default: 0)"),
        ("folder (default: None)", False, "folder"),
        ("names (default factory: dict)", False, "names"),
        ("keys (default: ())", False, "keys"),
        ("fields (default: ('title', 'categories'))", False, "fields (default: title,categories)"),
        ("memory (default: 536870912)", True, "memory (default: 512.0 MiB)"),
        ("fields (default: title,categories)", False, "fields (default: title,categories)"),
    ],
)
def test_defaults_are_as_a_user_writes_them(description: str, is_size: bool, words: str) -> None:
    assert default_in_words(description, is_size) == words
