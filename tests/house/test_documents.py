"""Tests that keep the README short and the documents readable in a terminal."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROSE = (*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md")), ROOT / "examples" / "README.md")
MAX_README_LINES = 200
MAX_PROSE_CHARACTERS = 120


def test_readme_has_at_most_200_lines() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("document", PROSE, ids=lambda document: document.name)
def test_lines_of_prose_have_at_most_120_characters(document: Path) -> None:
    assert [line for line in prose(document) if len(line) > MAX_PROSE_CHARACTERS] == []


def prose(document: Path) -> list[str]:
    """Return the lines outside fenced blocks and tables."""
    lines, fenced = [], False
    for line in document.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("|"):
            lines.append(line)
    return lines
