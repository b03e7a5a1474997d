"""Hook of MkDocs (`mkdocs.yml`) that adds the generated pages of the site and adapts code blocks to its Markdown.

The pages are the command line, the Python client, and the documents at the root of the repository. They are not files
in `docs/`, so they cannot become out of date.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tests.service.cli_options import Option, verbs

ROOT = Path(__file__).parents[2]

ROOT_DOCUMENTS = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
"""Pages of the site that are documents at the root of the repository."""

LEXERS = {"jsonl": "json"}
"""Kinds of code blocks that have another name on the site."""

NAMES_OF_TYPES = {
    "Path": "path",
    "SecretStr": "text",
    "float": "number",
    "int": "whole number",
    "str": "text",
}
"""Names of Python types for readers of the command line."""

PYTHON_PAGE = """# Python client

`pip install rcml` installs the client. [The API](api.md#from-python) shows it by example.

::: rcml.Client

::: rcml.AsyncClient
    options:
      members: [aclose]

## Arguments

The arguments of the methods, as typed dictionaries. Every field is described in [the API](api.md).

::: service.client.endpoints
    options:
      heading_level: 3
      show_root_heading: false
      show_root_toc_entry: false
      members: [Retrieval, InWords, NewItem, Weighted, OfQuery, Condition, Promoted, ItemFields, Change, Claim,
        Artifacts]
      filters: ["!^_"]

## Errors

::: service.client.errors
    options:
      heading_level: 3
      show_root_heading: false
      show_root_toc_entry: false
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the files of the site."""
    for page, content in generated_pages().items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the route of a request as the title of its code block, and drop marks that are only for the tests."""
    return re.sub(r"^```(\w+)(?: (.+))?$", _fence, markdown, flags=re.MULTILINE)


def generated_pages() -> dict[str, str]:
    """Return the Markdown of the generated pages by path."""
    pages = {page: _moved((ROOT / document).read_text("utf-8")) for page, document in ROOT_DOCUMENTS.items()}
    return pages | {"command-line.md": "\n".join(_command_line()), "python.md": PYTHON_PAGE}


def _moved(markdown: str) -> str:
    """Return a document at the root of the repository with its links as they are from `docs/`."""
    for page, document in ROOT_DOCUMENTS.items():
        markdown = markdown.replace(f"]({document}", f"]({page}")
    markdown = re.sub(r"\[([^]]+)\]\(examples/[^)]*\)", r"`\1`", markdown)  # the site has no page of them
    return markdown.replace("](docs/", "](")


def _fence(opening: re.Match[str]) -> str:
    kind, rest = opening[1], opening[2] or ""
    title = f' title="{rest}"' if rest.startswith(("GET ", "POST ", "PUT ", "DELETE ")) else ""
    return f"```{LEXERS.get(kind, kind)}{title}"


def _command_line() -> Iterator[str]:
    """Yield the lines of the page on the command line: a section and a table of options for each verb."""
    yield "# Command line\n"
    yield "Every verb of `rcml` with its options, as `rcml VERB --help` shows them."
    for verb in verbs():
        yield f"\n## {verb.name}\n\n{_escaped(verb.description)}\n"
        if shown := [one for one in verb.options if one.help != "==SUPPRESS=="]:
            yield "| option | purpose | default |\n|---|---|---|"
            yield from (f"| {_spelling(one)} | {_escaped(one.help)} | {_default(one)} |" for one in shown)


def _spelling(option: Option) -> str:
    values = _values(option.values)
    return f"`{option.names}`" + (f"<br>{values}" if values else "")


def _values(taken: str) -> str:
    """Return what an option takes, from the Python type in the help, such as `tuple[{title,categories},...]`."""
    if taken.startswith("dict"):
        return "NAME=VALUE,..."
    several = "one or several: " if taken.startswith("tuple") else ""
    if "{" in taken:
        return several + ", ".join(
            NAMES_OF_TYPES.get(name, name)
            for name in re.findall(r"[^{}\[\],]+", taken.removeprefix("tuple"))
            if name != "..."
        )
    name = taken.removeprefix("tuple[").removesuffix(",...]")
    return several + NAMES_OF_TYPES.get(name, name)


def _default(option: Option) -> str:
    value = option.remark.removeprefix("default: ").removeprefix("default factory: ")
    if value == "required":
        return "required"
    return "" if value in ("", "None", "()", "dict") else f"`{value}`"


def _escaped(text: str) -> str:
    """Return a text for a cell of a Markdown table; text in backticks stays code."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([*_<\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
