"""`rcml serve` as a process: what it says, how it fails, how it stops."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.cli import main
from tests.indexes.fakes import FakeShop

PROGRAM = """
import sys
from pathlib import Path
from service.server import serve
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder
config = ServeConfig(index=Path(sys.argv[1]), port=0, log_level="warning")
serve(config, lambda engine, url: [f"greetings from {url}"], lambda *_: FakeEncoder())
"""


def start(index: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(index)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lines_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr is not None
    shown = ""
    for line in process.stderr:
        shown += line
        if re.search(pattern, line):
            return shown
    raise AssertionError(shown)


def test_it_says_where_it_is_answers_there_and_stops_when_interrupted(shop: FakeShop) -> None:
    with start(shop.index) as process:
        shown = lines_until(process, "greetings from")
        found = re.search(r"Serving 12 items under 4 relations at (http://127.0.0.1:\d+) \(cpu\)\.", shown)
        assert found, shown
        assert f"Open {found[1]} in a browser" in shown
        assert httpx.get(f"{found[1]}/items/a%2Fb%3Fc%23d%20e").json()["title"] == "Grey desk lamp"
        process.send_signal(signal.SIGINT)
        process.wait(10)


def test_ten_megabytes_get_their_answer_over_a_real_connection(shop: FakeShop) -> None:
    with start(shop.index) as process:
        url = re.findall(r"http://[\d.:]+", lines_until(process, "greetings from"))[0]
        headers = {"content-type": "application/json"}
        response = httpx.post(f"{url}/retrieve", content=b"x" * 10_000_000, headers=headers)
        assert (response.status_code, response.json()["status"]) == (413, 413)
        process.terminate()
        process.wait(10)


def test_an_index_that_cannot_be_opened_ends_it_with_the_reason(shop: FakeShop) -> None:
    code = "import sys; from service.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "--index", str(shop.checkpoint), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is a checkpoint, where" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said_at_once(shop: FakeShop, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--index", str(shop.index), "--port", str(port)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"Cannot listen on 127.0.0.1 port {port}: Address already in use. "
        "Stop what uses it, or choose another with --host and --port."
    ]
