"""Script that updates the responses in the documentation from a running `make demo`: `python -m tests.docs.retake URL`.

The examples run in reading order, and each response replaces the one in the document. The index of the demo must not
have been changed since it was built.
"""

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from .commands import Shell
from .documents import DOCUMENTS, Block, examples
from .likeness import excerpt


def retake(document: Path, shell: Shell) -> None:
    """Run the examples of a document and replace the responses in it."""
    lines = document.read_text("utf-8").splitlines()
    taken: list[tuple[Block, httpx.Response]] = []
    for example in examples(document):
        answers = [] if example.block.kind == "python" else shell.do(example.block)
        if example.answer is not None and answers and (last := answers[-1]) is not None:
            taken.append((example.answer, last))
    for shown, answer in reversed(taken):
        text = written(shown, answer.text)
        lines[shown.line : shown.line + len(shown.text.splitlines())] = text.splitlines()
        if shown.answered is not None:
            told = f"`{answer.status_code} {answer.headers['Content-Type']}`"
            above = shown.line - 3
            assert re.fullmatch(r"`\d{3} .*`", lines[above])
            lines[above] = told
    document.write_text("\n".join(lines) + "\n", encoding="utf-8")


def written(shown: Block, answer: str) -> str:
    """Return a response as the document writes it; an excerpt has one line per entry of a list."""
    if shown.kind == "jsonl":
        return answer.strip()
    got = json.loads(answer)
    if not shown.is_excerpt:
        return json.dumps(got, indent=2, ensure_ascii=False)
    fields = []
    for name, value in excerpt(json.loads(shown.text), got).items():
        entries = (
            [json.dumps(entry, ensure_ascii=False) for entry in value] if isinstance(value, list) else []
        )
        text = (
            "[\n    " + ",\n    ".join(entries) + "\n  ]"
            if entries
            else json.dumps(value, ensure_ascii=False)
        )
        fields.append(f'  "{name}": {text}')
    return "{\n" + ",\n".join(fields) + "\n}"


if __name__ == "__main__":
    with TemporaryDirectory() as folder, httpx.Client(base_url=sys.argv[1], timeout=600) as service:
        (Path(folder) / "helmet.png").write_bytes(service.get("/items/i0007/image").content)
        shell = Shell(Path(folder), service, {})
        for document in DOCUMENTS:
            retake(document, shell)
