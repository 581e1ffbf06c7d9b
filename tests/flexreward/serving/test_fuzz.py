"""Whatever a client sends is answered 200 or 4xx with one line, by the schema that is served; never 5xx."""

import random

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flexreward.media.limits import LIMITS
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.board import Board
from flexreward.serving.chat_routes import chat_routes
from flexreward.serving.ledger_owner import Whereabouts
from flexreward.serving.live import live_routes
from flexreward.serving.phase_routes import phase_routes
from flexreward.serving.phases import Phase, Rest
from flexreward.serving.recipe import parse_serve_recipe
from flexreward.serving.reload_routes import reload_routes
from flexreward.serving.reloading import Runs, State, reloaded
from recipes.serve.fuzz import BODIES, fault, raw
from tests.flexreward.serving.served import ADMIN, client_of, service_over


async def empty():
    return Board()


class Instant:
    """Judges that sleep and wake at once, and weights that are never there."""

    async def sleep(self, judge, lease_s):
        return Whereabouts(Rest(Phase.ASLEEP, "t", lease_s), True)

    async def wake(self, judge):
        return Whereabouts(Rest(Phase.AWAKE, "t"), True)

    async def reload(self, *, judge, model, weights):
        return reloaded(RECIPE, judge=judge, model=model, weights=weights)

    async def runs(self):
        return Runs(recipe=RECIPE.version, state=State.SETTLED, detail="", weights={"main": None})


RECIPE = parse_serve_recipe({"judges": {"main": {"model": "m"}}, "reload_from": "nowhere"}, "args")


def routers_over(service):
    chat = chat_routes(service, hosts=frozenset(), limits=LIMITS)
    return [live_routes(empty), phase_routes(Instant(), ("main",)), reload_routes(Instant()), chat]


def app():
    service = service_over()
    return build_app(service, bounds=Bounds(max_requests=50, admin_keys=[ADMIN]), routers=routers_over(service))


schema = schemathesis.openapi.from_asgi("/openapi.json", app())


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_of_the_schema_or_beside_it_breaks_the_server(case):
    case.validate_response(
        case.call(headers={"Authorization": f"Bearer {ADMIN}"}),
        checks=[not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance],
    )


async def test_ten_thousand_broken_bodies_are_answered_200_or_4xx_with_one_line():
    rng = random.Random(0)
    seen = {}
    service = service_over()
    bounds = {"max_requests": 50, "admin_keys": [ADMIN]}
    async with client_of(service, routers=routers_over(service), key=ADMIN, **bounds) as client:
        for _ in range(10_000):
            path = rng.choice(list(BODIES))
            body = raw(rng, BODIES[path])
            answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert not fault(answer), (path, body, answer.text)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert seen.keys() >= {200, 400, 422}


@pytest.mark.parametrize("path", ["/v1/judge", "/v1/rewards", "/v1/rerank"])
async def test_a_body_that_is_deeper_than_any_reader_goes_is_refused(path):
    async with client_of() as client:
        answer = await client.post(path, content=b"[" * 200_000, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
