"""The API holds to its own OpenAPI, whatever is sent: schemathesis asks, bounded in number.

Not asked: what waits by its nature (events, drill, sync).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.console.apis import TOKENS, Api, api

_EXAMPLES_COUNT = 12
_PATHS_COUNT = 8
_WAITING = ("/events", "/drill", "/sync")
_CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A console, to be asked anything."""
    with api(tmp_path_factory.mktemp("schema")) as found:
        yield found


@pytest.fixture(scope="module")
def described(asked: Api) -> Any:
    """What it says of itself."""
    headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
    return schemathesis.openapi.from_url(f"{asked.console.url}/openapi.json", headers=headers)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_one_that_is_described(asked: Api, described: Any, mode: GenerationMode) -> None:
    """Status, type and shape are as the OpenAPI says, for what it allows and for what it does not; no defect."""
    paths = set()
    for found in described.get_all_operations():
        operation = found.ok()
        if not operation.path.endswith(_WAITING):
            paths.add(operation.path)
            _hold(asked, operation.as_strategy(generation_mode=mode))
    assert len(paths) >= _PATHS_COUNT


def _hold(asked: Api, cases: Any) -> None:
    @hypothesis.given(case=cases)
    @hypothesis.settings(
        max_examples=_EXAMPLES_COUNT,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        answer = case.call(base_url=asked.console.url, headers={"Authorization": f"Bearer {TOKENS['admin']}"})
        case.validate_response(answer, checks=_CHECKS)

    holds()


def test_a_reset_was_never_done_by_chance(asked: Api) -> None:
    """None of the above typed out the fleet's name."""
    assert asked.audited("reset") == []
