"""Tests of the suspicion of jobs that were in progress when the network process ended."""

import pytest
from PIL import Image

from service.engine.model_jobs import EncodeItemJob, Job, ReadRelationJob
from service.engine.network_process.suspects import MAX_DEATHS, MAX_SUSPECTS, REFUSED_S, Suspects

MUG: Job = EncodeItemJob("mug", Image.new("RGB", (2, 2), "red"))
BLUE: Job = EncodeItemJob("mug", Image.new("RGB", (2, 2), "blue"))


@pytest.fixture
def suspects() -> Suspects:
    return Suspects()


def refused(suspects: Suspects, job: Job) -> bool:
    try:
        suspects.check(job)
    except RuntimeError:
        return True
    return False


def test_job_is_refused_after_the_last_allowed_death(suspects: Suspects) -> None:
    found = []
    for _ in range(MAX_DEATHS):
        found.append(refused(suspects, MUG))
        suspects.add([MUG])
    assert [*found, refused(suspects, MUG)] == [False] * MAX_DEATHS + [True]
    assert not refused(suspects, BLUE)
    with pytest.raises(
        RuntimeError, match="ended 3 times during this EncodeItemJob, so it is refused for 600 s"
    ):
        suspects.check(MUG)


def test_equal_jobs_of_many_callers_count_once_for_each_death(suspects: Suspects) -> None:
    suspects.add([MUG] * MAX_DEATHS)
    assert not refused(suspects, MUG)


def test_job_that_succeeds_is_no_longer_suspected(suspects: Suspects) -> None:
    for _ in range(MAX_DEATHS - 1):
        suspects.add([MUG, BLUE])
    suspects.clear(BLUE)
    suspects.add([MUG, BLUE])
    assert (refused(suspects, MUG), refused(suspects, BLUE)) == (True, False)


def test_suspicion_ends(suspects: Suspects, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e6]
    monkeypatch.setattr("service.engine.network_process.suspects.monotonic", lambda: now[0])
    for _ in range(MAX_DEATHS):
        suspects.add([MUG])
    now[0] += REFUSED_S - 1
    assert refused(suspects, MUG)
    now[0] += 1
    assert not refused(suspects, MUG)
    suspects.add([MUG])
    assert not refused(suspects, MUG)


def test_number_of_suspects_is_bounded(suspects: Suspects) -> None:
    for _ in range(MAX_DEATHS):
        suspects.add([MUG])
    suspects.add(ReadRelationJob(str(number)) for number in range(MAX_SUSPECTS - 1))
    assert refused(suspects, MUG)
    suspects.add([ReadRelationJob("one more")])
    assert not refused(suspects, MUG)
