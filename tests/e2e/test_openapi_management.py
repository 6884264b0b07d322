"""The management listener answers as its OpenAPI document says, whatever is asked (Schemathesis)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.management import ADMIN, HEALTH
from gateway.api.openapi_management import management
from tests.e2e.harness import ADMIN_TOKEN, Gateway
from tests.e2e.test_openapi import CHECKS

_SCHEMA: Any = schemathesis.openapi.from_dict(management())
OPERATIONS: dict[str, Any] = {each.ok().label: each.ok() for each in _SCHEMA.get_all_operations()}


def test_the_document_names_every_address_of_the_listener_and_no_other() -> None:
    served = {(method, re.sub(r":\w+}", "}", path)) for path, row in {**HEALTH, **ADMIN}.items() for method in row}
    assert {tuple(label.split(" ")) for label in OPERATIONS} == served


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_is_answered_as_it_is_documented(label: str, gateway: Gateway) -> None:
    operation = OPERATIONS[label]

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        token = data.draw(st.sampled_from([ADMIN_TOKEN, ADMIN_TOKEN, ADMIN_TOKEN, "wrong"]))
        url = f"http://127.0.0.1:{gateway.management}"
        response = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        case.validate_response(response, checks=CHECKS)
        if label.partition(" ")[2].startswith("/admin/") and token == "wrong":
            assert response.status_code in (400, 403, 404, 405)

    run()
