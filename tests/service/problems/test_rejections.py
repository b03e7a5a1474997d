"""Tests of how errors are reported to HTTP clients: the problem kind, the detail and the remedy."""

from collections.abc import Iterator

import pytest

from model.errors import (
    ArtifactError,
    ForbiddenUrlError,
    InputError,
    MismatchError,
    NoTokensError,
    NoWordsError,
    RcmlError,
    StorageError,
    TrainingError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownRelationError,
    UnreachableError,
)
from service.problems.errors import BusyError, OverloadedError, ServiceError, TooManyJobsError
from service.problems.kinds import PICTURE_NOT_FETCHED
from service.problems.rejections import MODEL_ERROR_KINDS, detail_of, rejection_of


def below(error: type[RcmlError]) -> Iterator[type[RcmlError]]:
    for cls in error.__subclasses__():
        yield cls
        yield from below(cls)


@pytest.mark.parametrize("error", [*below(ServiceError)])
def test_every_service_error_has_a_kind(error: type[ServiceError]) -> None:
    assert error.kind.name


@pytest.mark.parametrize(
    "error", [InputError("x"), ArtifactError("x"), MismatchError("x"), TrainingError("x"), RcmlError("x")]
)
def test_error_that_no_client_can_cause_has_no_rejection(error: RcmlError) -> None:
    assert rejection_of(error) is None


def test_error_has_the_kind_of_its_nearest_base_class() -> None:
    rejection = rejection_of(ForbiddenUrlError("https://a is not allowed."))
    assert rejection is not None
    (parent,) = ForbiddenUrlError.__bases__
    assert issubclass(parent, RcmlError)
    assert rejection.kind == MODEL_ERROR_KINDS[parent] == PICTURE_NOT_FETCHED
    assert rejection.detail == "https://a is not allowed."


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(OverloadedError(2.1), "3"), (TooManyJobsError(8), "5"), (BusyError("x"), "5")],
)
def test_service_error_states_when_to_retry(error: ServiceError, seconds: str) -> None:
    rejection = rejection_of(error)
    assert rejection is not None
    assert rejection.headers == {"Retry-After": seconds}


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (UnknownItemError("x"), "No item has the ID 'x'. GET /items lists the existing IDs."),
        (
            NoTokensError(),
            "This index stores no tokens, so it does not support free-text relations. Send the ID of a relation "
            "listed by GET /relations, or rebuild the index with --token-store.",
        ),
        (
            NoWordsError("x", ["title", "categories"]),
            "Item 'x' has no text in the fields that the model reads: title, categories. Send text in at least one "
            "of them.",
        ),
    ],
)
def test_remedy_names_the_route_that_helps(error: RcmlError, detail: str) -> None:
    assert detail_of(error) == detail
    assert "GET /" not in str(error)


@pytest.mark.parametrize(
    "error", [UnknownRelationError("x", ("a", "b")), UnknownAttributeError("x", ("a", "b"))]
)
def test_lists_the_known_ids(error: RcmlError) -> None:
    rejection = rejection_of(error)
    assert rejection is not None
    assert rejection.known == ("a", "b")


@pytest.mark.parametrize("error", [UnreachableError("/secret"), StorageError("/secret")])
def test_detail_does_not_name_a_failing_server_or_disk(error: RcmlError) -> None:
    rejection = rejection_of(error)
    assert rejection is not None
    assert "secret" not in rejection.detail
    assert "the log of the server has the reason" in rejection.detail
    assert rejection.headers == {"Retry-After": "1"}
