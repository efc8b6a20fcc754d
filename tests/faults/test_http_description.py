"""draft"""
import os
from collections import Counter, defaultdict
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test

from ..serve.conftest import bundle
from ..serve.processes import Server

KEY = "sesam"

@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with Server(bundle, folder, f"--events={folder / 'events'}", key=KEY) as server:
        server.url
        yield server

@pytest.fixture(scope="module")
def description(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers={"x-api-key": KEY})

@pytest.fixture(scope="module")
def session():
    with requests.Session() as s:
        s.headers["x-api-key"] = KEY
        yield s

C = Counter()
F = defaultdict(list)

def test_every_operation(description, session, tried):
    import time
    for r in description.get_all_operations():
        op = r.ok()
        def ask(case):
            try:
                r = case.call_and_validate(session=session)
            except BaseException as e:
                if len(F[op.label, str(e)[:80]]) < 2: F[op.label, str(e)[:80]].append(str(e))
                else: F[op.label, str(e)[:80]][1] = len(F)
                C[op.label, "FAIL", case.meta.phase.name if case.meta else None, case.meta and case.meta.generation.mode.value] += 1
                return
            C[op.label, r.status_code, case.meta.phase.name if case.meta else None, case.meta and case.meta.generation.mode.value] += 1
        t = time.time()
        create_test(operation=op, test_func=ask, config=HypothesisTestConfig(project=description.config, modes=list(HypothesisTestMode), settings=settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))))()
        print(op.label, time.time() - t)
    for k, v in sorted(C.items(), key=str): print(k, v)
    for k, v in F.items(): print("=====", k, v[0])
