"""Tests of a network in the network process: results, common batches, refusals, cancellation and sharing."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from model.embeddings.attention_map import Attention
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, UnknownRelationError
from service.app import create_app
from service.engine.model_jobs import EncodeItemJob, ExplainJob, Job, ReadRelationJob
from service.engine.network_process.network_process import NetworkProcess
from service.engine.network_process.remote_network import RemoteNetwork
from service.engine.network_queue import NetworkQueue
from service.problems.errors import OverloadedError
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.service.conftest import wait_until_ready
from tests.service.shops import write_shops

from .encoders import network_process


@pytest.fixture(scope="module")
def process() -> Iterator[NetworkProcess]:
    with network_process() as process:
        yield process


@pytest.fixture
def network(process: NetworkProcess, shop: FakeShop) -> Iterator[RemoteNetwork]:
    network = opened(process, shop.checkpoint)
    yield network
    network.close()


def opened(process: NetworkProcess, checkpoint: Path) -> RemoteNetwork:
    return RemoteNetwork(process.address, checkpoint, "auto", "auto", "auto", 600)


def item(text: str) -> EncodeItemJob:
    return EncodeItemJob(text, None)


def batch_of(found: object) -> int:
    """Return the number of items that the obedient encoder encoded together."""
    assert isinstance(found, Encoding)
    return int(found.text_share)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def figures(network: RemoteNetwork) -> tuple[int, int]:
    """Return the number of queued jobs and of running jobs, of all connections."""
    load = network.load
    assert load is not None
    return int(load.queued), int(load.running) if load.since else 0


def test_describes_the_network(network: RemoteNetwork) -> None:
    assert (network.device, network.towers) == ("cpu", "fp32 by torch")
    assert (network.batch_size, network.versions) == (16, {})
    assert network.heartbeat.stuck_reason is None


def test_results_are_those_of_the_encoder(network: RemoteNetwork) -> None:
    picture = Image.new("RGB", (200, 100), (200, 30, 30))

    async def scenario() -> list[object]:
        jobs = (
            EncodeItemJob("a red mug", picture, True),
            ReadRelationJob("goes with"),
            ExplainJob("a red mug", picture, "gardeners"),
            ExplainJob("a red mug", None, FakeEncoder().read_relation("goes with")),
        )
        return [await network.submit(job) for job in jobs]

    encoder = FakeEncoder()
    encoding, relation, known, worded = asyncio.run(scenario())
    local = encoder.read_items(["a red mug"], [picture], True)()
    assert isinstance(encoding, Encoding)
    assert np.array_equal(encoding.text, local.text)
    assert np.array_equal(encoding.image, local.image)
    assert encoding.tokens is not None
    assert local.tokens is not None
    assert np.array_equal(encoding.tokens.image.states, local.tokens.image.states)
    assert isinstance(relation, FreeTextRelation)
    assert np.array_equal(relation.output, encoder.read_relation("goes with").output)
    assert relation.nearest == encoder.read_relation("goes with").nearest
    assert isinstance(known, Attention)
    assert isinstance(worded, Attention)
    assert known.text == encoder.explain("a red mug", None, "gardeners").text
    assert worded.text == encoder.explain("a red mug", None, encoder.read_relation("goes with")).text


def test_errors_reach_their_own_callers(network: RemoteNetwork) -> None:
    async def scenario() -> list[object]:
        jobs: tuple[Job, ...] = (ExplainJob("mug", None, "knitters"), item("bug"), item("mug"))
        return list(await asyncio.gather(*map(network.submit, jobs), return_exceptions=True))

    unknown, bug, mug = asyncio.run(scenario())
    assert isinstance(unknown, UnknownRelationError)
    assert unknown.known == tuple(relation.relation_id for relation in FakeEncoder.relations)
    assert isinstance(bug, RuntimeError)
    assert str(bug) == "ZeroDivisionError: password=hush"
    assert isinstance(mug, Encoding)


def test_jobs_of_several_processes_form_common_batches(
    process: NetworkProcess, shop: FakeShop, network: RemoteNetwork, tmp_path: Path
) -> None:
    other = opened(process, shop.checkpoint)

    async def scenario() -> list[int]:
        first = asyncio.create_task(network.submit(item(f"wait {tmp_path / 'go'}")))
        await until(lambda: figures(network) == (0, 1))
        later = [asyncio.create_task(one.submit(item("mug"))) for one in (network, other) for _ in range(3)]
        await until(lambda: figures(network) == (6, 1))
        assert (len(network), len(other)) == (4, 3)
        (tmp_path / "go").touch()
        return [batch_of(one) for one in await asyncio.gather(first, *later)]

    assert asyncio.run(scenario()) == [1, 6, 6, 6, 6, 6, 6]
    assert (len(network), len(other)) == (0, 0)
    other.close()


def test_full_queue_refuses_jobs_of_every_process(
    process: NetworkProcess, shop: FakeShop, network: RemoteNetwork, tmp_path: Path
) -> None:
    other = opened(process, shop.checkpoint)

    async def scenario() -> list[OverloadedError]:
        await network.submit(item("sleep 0.2"))  # the average time per job is then at least 0.02 s
        first = asyncio.create_task(network.submit(item(f"wait {tmp_path / 'go'}")))
        await until(lambda: figures(network) == (0, 1))
        queued = [asyncio.create_task(one.submit(item("mug"))) for one in (network, other) for _ in range(8)]
        await until(lambda: figures(network) == (16, 1))
        refused = []
        for one in (network, other):
            assert one.expected_wait() >= 16 * 0.02
            with pytest.raises(OverloadedError) as error:
                await one.submit(item("mug"))
            refused.append(error.value)
        (tmp_path / "go").touch()
        assert [batch_of(one) for one in await asyncio.gather(first, *queued)] == [1, *[16] * 16]
        return refused

    assert all(error.retry_after >= 1 for error in asyncio.run(scenario()))
    assert (network.expected_wait(), other.expected_wait(), network.expected_wait(16) > 0.1) == (0, 0, True)
    other.close()


def test_jobs_on_the_way_count_before_the_network_process_has_received_them(
    network: RemoteNetwork, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await network.submit(item("sleep 0.2"))
        first = asyncio.create_task(network.submit(item(f"wait {tmp_path / 'go'}")))
        await until(lambda: figures(network) == (0, 1))
        jobs = [asyncio.create_task(network.submit(item("mug"))) for _ in range(40)]
        await asyncio.sleep(0)  # all jobs are sent in one turn of the event loop
        refused = [job for job in jobs if job.done() and isinstance(job.exception(), OverloadedError)]
        assert len(refused) == 40 - 16
        (tmp_path / "go").touch()
        await asyncio.gather(first, *(job for job in jobs if job not in refused))

    asyncio.run(scenario())


def test_cancelled_job_is_skipped(network: RemoteNetwork, tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        first = asyncio.create_task(network.submit(item(f"wait {tmp_path / 'go'}")))
        await until(lambda: figures(network) == (0, 1))
        cancelled = asyncio.create_task(network.submit(item(f"wait {tmp_path / 'never'}")))
        kept = asyncio.create_task(network.submit(item("mug")))
        await until(lambda: figures(network) == (2, 1))
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        last = asyncio.create_task(network.submit(item("mug")))
        await until(lambda: figures(network) == (3, 1))  # so the frame `cancel` was received, too
        (tmp_path / "go").touch()
        return [batch_of(one) for one in await asyncio.gather(first, kept, last)]

    assert asyncio.run(scenario()) == [1, 2, 2]


def test_connections_share_the_network_of_a_checkpoint_until_the_last_is_closed(
    process: NetworkProcess, shop: FakeShop, network: RemoteNetwork, tmp_path: Path
) -> None:
    def loads() -> int:
        return len([*process.address.parent.glob("load-*")])

    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", shop.checkpoint, copy], check=True)
    assert loads() == 1
    same = opened(process, copy)
    assert loads() == 1
    other = RemoteNetwork(process.address, shop.checkpoint, "auto", "fp32", "auto")
    assert loads() == 2
    same.close()
    other.close()
    asyncio.run(until(lambda: loads() == 1))
    assert batch_of(asyncio.run(network.submit(item("mug")))) == 1


def test_close_waits_for_accepted_jobs(process: NetworkProcess, shop: FakeShop, tmp_path: Path) -> None:
    closing = opened(process, shop.checkpoint)

    async def scenario() -> int:
        job = asyncio.create_task(closing.submit(item(f"wait {tmp_path / 'go'}")))
        await until(lambda: figures(closing) == (0, 1))
        close = asyncio.create_task(asyncio.to_thread(closing.close))
        await asyncio.sleep(0.01)
        (tmp_path / "go").touch()
        await close
        with pytest.raises(RuntimeError, match="closed and accepts no more jobs"):
            await closing.submit(item("mug"))
        return batch_of(await job)

    assert asyncio.run(scenario()) == 1


def test_checkpoint_that_is_missing_is_reported_as_without_a_network_process(
    process: NetworkProcess, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"has no manifest.json, so it is not an rcml artifact"):
        opened(process, tmp_path)


def test_reload_opens_the_network_of_the_other_checkpoint_and_releases_the_first(tmp_path: Path) -> None:
    shops = write_shops(tmp_path)
    with NetworkProcess("critical", open_encoder="tests.service.shops:open_accented") as process:

        def ask(client: TestClient) -> object:
            answer = client.post(
                "/embeddings", json={"items": [{"text": "red mug"}], "relation": "gardeners"}
            )
            assert answer.status_code == 200, answer.text
            return answer.json()["embeddings"][0]["text"]

        def loads() -> list[str]:
            return [file.name for file in process.address.parent.glob("load-*")]

        with TestClient(create_app(ServeConfig(index=shops.index), process.opener(600))) as client:
            wait_until_ready(client)
            before, first = ask(client), loads()
            assert client.post("/admin/reload", json={"index": "candidate"}).status_code == 200
            after = ask(client)
            asyncio.run(until(lambda: len(loads()) == 1))
            assert client.post("/admin/reload", json={"index": "index"}).status_code == 200
            assert (ask(client), len(first), first != loads()) == (before, 1, True)
        assert before != after


CLIENT = """
import asyncio, sys
from pathlib import Path
from service.engine.model_jobs import EncodeItemJob
from service.engine.network_process.remote_network import RemoteNetwork

network = RemoteNetwork(Path(sys.argv[1]), Path(sys.argv[2]), "auto", "bf16", "auto")

async def ask():
    jobs = []
    for text in sys.argv[3:]:
        jobs.append(asyncio.create_task(network.submit(EncodeItemJob(text, None))))
        while not network.load.since:
            await asyncio.sleep(0.001)
    await asyncio.gather(*jobs)

asyncio.run(ask())
"""


def test_killed_server_releases_its_networks_and_its_queued_jobs_are_skipped(
    process: NetworkProcess, shop: FakeShop, tmp_path: Path
) -> None:
    watching = RemoteNetwork(process.address, shop.checkpoint, "auto", "bf16", "auto")
    texts = (f"wait {tmp_path / 'go'}", *[f"wait {tmp_path / 'never'}"] * 3)
    command = [sys.executable, "-c", CLIENT, str(process.address), str(shop.checkpoint), *texts]
    with subprocess.Popen(command) as killed:
        asyncio.run(until(lambda: figures(watching) == (3, 1)))
        killed.kill()
    opened(
        process, shop.checkpoint
    ).close()  # by then, the network process has noticed that the other one is dead

    async def scenario() -> int:
        job = asyncio.create_task(watching.submit(item("mug")))
        await until(lambda: figures(watching) == (4, 1))
        (tmp_path / "go").touch()
        return batch_of(await job)

    assert asyncio.run(scenario()) == 1
    watching.close()


def test_longest_batch_is_that_of_all_processes(
    process: NetworkProcess, network: RemoteNetwork, shop: FakeShop
) -> None:
    other = opened(process, shop.checkpoint)
    asyncio.run(other.submit(item("sleep 0.05")))
    asyncio.run(network.submit(item("mug")))
    assert network.longest_s == other.longest_s >= 0.05
    other.close()


def test_is_a_network_queue_that_imports_no_torch(network: NetworkQueue) -> None:
    code = "import sys; import service.serve; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout == "False False\n"
