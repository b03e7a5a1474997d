"""Tests of the number of threads for little work."""

from collections.abc import Iterator

import pytest
import torch

from model.network.inference.cpu_threads import MAX_SINGLE_THREAD_WORK, one_thread_if_small

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_little_work_gets_one_thread_and_then_all_again() -> None:
    with one_thread_if_small(MAX_SINGLE_THREAD_WORK // 16, 16, CPU):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_the_threads_come_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="bad"), one_thread_if_small(1, 1, CPU):
        raise ValueError("bad")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("items", "device"), [(17, CPU), (1, torch.device("cuda"))])
def test_more_work_and_other_devices_keep_all_threads(items: int, device: torch.device) -> None:
    with one_thread_if_small(MAX_SINGLE_THREAD_WORK // 16, items, device):
        assert torch.get_num_threads() == 2
