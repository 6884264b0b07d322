"""A Redis that is killed and started on an older dump, under gateways that are running."""

from __future__ import annotations

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import ask, request
from tests.redis_server import RedisServer


def refused(gateway: Gateway, refresh_token: str) -> bool:
    answer = gateway.refresh(refresh_token)
    return answer.status == 400 and answer.json()["error"] == "invalid_grant"


def test_a_session_that_was_ended_after_the_dump_is_not_alive_again_and_the_operator_is_told(
    own_redis: RedisServer, backend: Backend
) -> None:
    spot = backend.spot()
    routes = [route("/guarded/", backend.url)]
    with Site(own_redis.url) as site, site.serve(routes=routes) as gateway, site.serve(routes=routes) as other:
        ended, kept = gateway.login("alice"), gateway.login("bob")
        with own_redis.client() as admin:
            admin.save()
        answer = ask(
            gateway.port, request("POST", "/auth/logout", {"Content-Length": "0"}, token=ended["access_token"])
        )
        assert answer.status == 204
        own_redis.stop()
        own_redis.start()
        for each in (gateway, other):
            each.wait_ready()
        until(lambda: refused(gateway, ended["refresh_token"]), "the ended session is refused")
        assert refused(other, ended["refresh_token"])
        for each in (gateway, other):
            refusal = ask(each.port, request("GET", spot.path("/guarded"), token=ended["access_token"]))
            assert refusal.error == (401, "revoked_token")
        # Nothing was ended in the other user's partition.
        assert ask(gateway.port, request("GET", spot.path("/guarded"), token=kept["access_token"])).status == 200
        assert gateway.refresh(kept["refresh_token"]).status == 200

        def told() -> float:
            return sum(each.metric("tokengate_store_rollbacks_total") for each in (gateway, other))

        assert until(told, "a rollback is counted") == 1
        lines = [line for each in (gateway, other) for line in each.log_lines()]
        audits = [line for line in lines if line["message"] == "store_rolled_back"]
        assert [line["partition"] for line in audits] == [ended["session_id"][0]]
