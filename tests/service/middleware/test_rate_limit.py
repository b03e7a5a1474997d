"""Token buckets: each caller has its own bucket, which refills at `rate` tokens per second and holds `burst` tokens."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.middleware import rate_limit
from service.middleware.rate_limit import RateLimit
from service.problems.errors import RateLimitError


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_allows_a_burst_then_returns_the_time_to_wait() -> None:
    clock = Clock()
    limit = RateLimit(rate=2.0, burst=3, clock=clock)
    assert [limit.wait("shop") for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.5)]
    clock.now += 0.5
    assert limit.wait("shop") == 0.0
    assert limit.wait("shop") == pytest.approx(0.5)


def test_a_rejected_request_does_not_extend_the_wait() -> None:
    clock = Clock()
    limit = RateLimit(rate=1.0, burst=1, clock=clock)
    assert limit.wait("shop") == 0.0
    assert [limit.wait("shop") for _ in range(100)] == [pytest.approx(1.0)] * 100
    clock.now += 1.0
    assert limit.wait("shop") == 0.0


def test_each_caller_has_its_own_bucket() -> None:
    limit = RateLimit(rate=1.0, burst=1, clock=Clock())
    assert [limit.wait(caller) for caller in ("a", "b", "a")] == [0.0, 0.0, pytest.approx(1.0)]


def test_a_long_pause_allows_no_more_than_one_burst() -> None:
    clock = Clock()
    limit = RateLimit(rate=10.0, burst=2, clock=clock)
    limit.wait("shop")
    clock.now += 3600.0
    assert [limit.wait("shop") == 0.0 for _ in range(3)] == [True, True, False]


def test_evicts_the_least_recent_caller_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 3)
    limit = RateLimit(rate=1.0, burst=1, clock=Clock())
    for caller in ("a", "b", "c", "d"):
        assert limit.wait(caller) == 0.0
    assert limit.wait("d") > 0.0
    assert limit.wait("a") == 0.0
    assert len(limit) == 3


@given(
    rate=st.floats(0.1, 1000.0),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200),
)
def test_no_caller_exceeds_the_rate_plus_one_burst(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(rate, burst, clock)
    granted = 0
    for pause in pauses:
        clock.now += pause
        granted += limit.wait("shop") == 0.0
    assert granted <= burst + rate * sum(pauses) + 1e-6


def test_a_large_request_costs_what_it_costs_and_is_paid_back() -> None:
    now = [0.0]
    limit = RateLimit(10, 5, lambda: now[0])
    assert not limit.wait("a")
    limit.charge("a", 100)
    assert limit.wait("a") == pytest.approx(9.6)
    now[0] = 9.61
    assert not limit.wait("a")


def test_of_many_large_requests_at_once_only_the_first_is_accepted() -> None:
    limit = RateLimit(10, 5, lambda: 0.0)
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0]
    limit.charge("a", 100)
    for _ in range(2):
        with pytest.raises(
            RateLimitError, match=r"costs 100, .* limit of 10 per second \(at most 5 at once\)"
        ):
            limit.charge("a", 100)


@pytest.mark.parametrize("burst", [1, 20])
def test_a_full_bucket_allows_a_request_that_costs_more(burst: int) -> None:
    limit = RateLimit(10, burst, lambda: 0.0)
    assert not limit.wait("a")
    limit.charge("a", 400)
