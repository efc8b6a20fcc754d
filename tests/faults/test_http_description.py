"""Every operation that the server describes, asked by Schemathesis with what its description allows and forbids.

The environment variable PRISMREC_FUZZ=N makes N times as many examples, other ones each time.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import positive_data_acceptance, response_schema_conformance

from prismrec.serve.explorer_messages import MapView

from ..serve.processes import Server
from .http_server import KEY, check_refusal, unharmed_server
from .strange import fuzzed

OPERATIONS = [
    "GET /explorer/item",
    "GET /explorer/items",
    "GET /explorer/map",
    "GET /explorer/users",
    "GET /health",
    "GET /metrics",
    "GET /ready",
    "POST /explorer/user",
    "POST /v1/admin/reload",
    "POST /v1/admin/rollback",
    "POST /v1/events",
    "POST /v1/events/batch",
    "POST /v1/recommend",
    "POST /v1/recommend/batch",
    "POST /v1/similar",
    "POST /v1/similar/batch",
]
EXAMPLES = 20
"""Of each operation, beside those that its description gives and those at the bounds of every field."""
NOT_DESCRIBED = re.compile(
    r"expected at most \d+"  # limits of the settings
    r"|is not a column of context|expected an integer or text"  # columns of a bundle
    r"|expected an integer, found"  # ids are text to the explorer
    r"|should be a valid integer"  # 1.0 is one to JSON Schema
    r"|than or equal to -?9223372036854775\d+"  # FastAPI describes bounds as floating-point numbers
)
"""Why something that the description allows may be refused."""


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with unharmed_server(bundle, tmp_path_factory.mktemp("described")) as server:
        yield server


@pytest.fixture(scope="module")
def description(server: Server) -> Any:
    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers={"x-api-key": KEY})
    description.config.generation.update(with_security_parameters=False)
    return description


def test_every_operation_is_in_the_list(description: Any) -> None:
    assert sorted(found.ok().label for found in description.get_all_operations()) == OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation(description: Any, operation: str, tried: Callable[..., None]) -> None:
    method, path = operation.split()
    excluded = [positive_data_acceptance]
    if path == "/explorer/map":
        excluded.append(response_schema_conformance)  # Schemathesis does not read `prefixItems` there

    def ask(case: Any) -> None:
        response = case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=excluded)
        tried("HTTP requests")
        if response.status_code >= 400:
            headers = {name: ", ".join(values) for name, values in response.headers.items()}
            message = check_refusal(response.status_code, headers, response.content)
            if case.meta.generation.mode.is_positive and response.status_code == 422:
                assert NOT_DESCRIBED.search(message), message
        elif path == "/explorer/map":
            MapView.model_validate_json(response.content, strict=True)

    create_test(
        operation=description[path][method],
        test_func=ask,
        config=HypothesisTestConfig(
            project=description.config, modes=list(HypothesisTestMode), settings=fuzzed(EXAMPLES)
        ),
    )()
    tried("HTTP operations")
