"""Bound on large requests: what is counted, what is refused, and what the refusal says."""

import pytest

from service.engine.work_bound import MAX_SMALL_COST, WorkBound
from service.problems.errors import TooCostlyError


def test_refuses_a_large_request_beside_others_with_cost_limit_and_remedy() -> None:
    bound = WorkBound(1_000)
    with bound.working(400), bound.working(600):
        with pytest.raises(TooCostlyError) as refused, bound.working(11):
            pass
        assert str(refused.value) == (
            "This request costs 11. Other large requests in progress cost 1,000, and together they may cost at most "
            "1,000. Retry in a second, or send a smaller request."
        )
        assert refused.value.headers == {"Retry-After": "1"}
    assert bound.cost == 0


def test_small_requests_are_neither_counted_nor_refused() -> None:
    bound = WorkBound(20)
    with bound.working(20), bound.working(MAX_SMALL_COST):
        assert bound.cost == 20


def test_a_single_request_is_accepted_whatever_it_costs() -> None:
    bound = WorkBound(20)
    with bound.working(800):
        assert bound.cost == 800


def test_failed_request_is_not_counted_any_longer() -> None:
    bound = WorkBound(20)
    with pytest.raises(ValueError, match="x"), bound.working(15):
        raise ValueError("x")
    assert bound.cost == 0


def test_request_is_not_refused_because_of_its_own_long_body() -> None:
    bound = WorkBound(1_000)
    with bound.working(600) as body, bound.working(800, body) as cost:
        assert (body, cost, bound.cost) == (600, 800, 1_400)
    with bound.working(MAX_SMALL_COST) as body:
        assert body == 0


def test_own_long_body_counts_beside_other_requests() -> None:
    bound = WorkBound(1_000)
    with (
        bound.working(100),
        bound.working(600) as body,
        pytest.raises(TooCostlyError, match=r"costs 1,000\. Other large requests in progress cost 100,"),
        bound.working(400, body),
    ):
        pass
    assert bound.cost == 0
