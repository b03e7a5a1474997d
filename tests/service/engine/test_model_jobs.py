"""Tests of the weights of jobs: a batch has as many items as before, but only few jobs that are computed one by one."""

from service.engine.model_jobs import EncodeItemJob, ExplainJob, ReadRelationJob, weigh


def test_jobs_that_are_computed_one_by_one_weigh_as_much_as_four_items() -> None:
    assert weigh(EncodeItemJob("a red mug", None)) == 1
    assert weigh(ReadRelationJob("Bought by cyclists.")) == 4
    assert weigh(ExplainJob("a red mug", None, "toys")) == 4
