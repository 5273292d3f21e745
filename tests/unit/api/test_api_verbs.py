"""From a request to a verb and back, in process."""
# ruff: noqa: E501 — tables of cases

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api_client import ask, run
from api_world import World
from thimble.contract.host import Role
from thimble.sys import log

START = {"name": "web1"}


def post(world: World, path: str, body: object = None, **more: Any) -> Any:
    return run(ask(world, "POST", path, body, token=world.admin(), **more))


def get(world: World, path: str, **more: Any) -> Any:
    return run(ask(world, "GET", path, token=world.admin(), **more))


def test_a_create_answers_202_with_the_task_and_where_it_is(world: World) -> None:
    got = post(world, "/api/v1/vms", START)
    assert got.status == 202
    assert got.headers["location"] == f"/api/v1/tasks/{got.json['task']['id']}"
    assert world.vms.calls[0].input.name == "web1"
    assert world.vms.calls[0].user == "admin"


def test_a_dry_run_reaches_the_service_as_such(world: World) -> None:
    got = post(world, "/api/v1/vms?dry_run=1", START)
    assert (got.status, got.json["possible"]) == (200, True)
    assert world.vms.calls[0].dry_run


@pytest.mark.parametrize(
    ("body", "status", "code", "path"),
    [
        (b"{", 400, "malformed", ""),
        (b"[]", 400, "malformed", "$"),
        (b'{"name":"a","color":1}', 400, "malformed", "$"),
        (b'{"name":5}', 400, "malformed", "$.name"),
        (b'{"name":"a","disks":[{"size_bytes":"1G"}]}', 400, "malformed", "$.disks[0].size_bytes"),
        (b'{"name":"a","memory_mib":4}', 422, "invalid", "$.memory_mib"),
        (b'{"name":"a","memory_mib":1e40}', 400, "malformed", "$.memory_mib"),
        (b'{"name":"a","machine":"pdp11"}', 422, "invalid", "$.machine"),
        (b'{"name":"\xff"}', 400, "malformed", ""),
        (b"", 400, "malformed", ""),
        pytest.param(b"[" * 100_000, 400, "malformed", "$", id="deep"),
    ],
)
def test_a_bad_body_is_refused_with_the_path_of_what_is_wrong(
    world: World, body: bytes, status: int, code: str, path: str
) -> None:
    got = post(world, "/api/v1/vms", body)
    assert (got.status, got.code) == (status, code)
    assert [reason["path"] for reason in got.json.get("reasons", [])] == ([path] if path else [])
    assert not world.vms.calls


@pytest.mark.parametrize("verb", ["start", "stop"])
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_what_has_only_defaults_takes_an_empty_body(world: World, verb: str, body: bytes) -> None:
    assert post(world, f"/api/v1/vms/web1/{verb}", body).status == 202


def test_a_verb_without_input_takes_no_body(world: World) -> None:
    assert post(world, "/api/v1/vms/web1/start", {"force": True}).code == "malformed"


@pytest.mark.parametrize(("body", "keep"), [(b"", False), (b'{"keep_volumes":true}', True)])
def test_delete_may_have_a_body(world: World, body: bytes, keep: bool) -> None:
    run(ask(world, "DELETE", "/api/v1/vms/web1", body, token=world.admin()))
    assert world.vms.calls[0].input.keep_volumes is keep


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"])  # fmt: skip
def test_a_body_that_is_not_called_json_is_refused(world: World, kind: str) -> None:
    got = post(world, "/api/v1/vms", START, headers={"content-type": kind})
    assert (got.status, got.code) == (415, "media-type")


def test_json_may_say_that_it_is_utf_8(world: World) -> None:
    got = post(world, "/api/v1/vms", START, headers={"content-type": 'Application/JSON; charset="UTF-8"'})
    assert got.status == 202


def test_a_giant_body_is_refused_by_its_length_without_reading_it(world: World) -> None:
    unread = [{"type": "http.request", "body": b"x", "more_body": True}]
    headers = {"content-length": str(1 << 30)}
    got = post(world, "/api/v1/vms", START, headers=headers, pieces=unread)
    assert (got.status, got.code, len(unread)) == (413, "too-large", 1)


def test_a_giant_body_without_a_length_is_refused_as_soon_as_it_is_too_large(world: World) -> None:
    pieces = [{"type": "http.request", "body": b" " * 600_000, "more_body": True} for _ in range(9)]
    got = post(world, "/api/v1/vms", pieces=pieces, headers={"content-type": "application/json"})
    assert (got.code, len(pieces)) == ("too-large", 7)


def test_a_body_cut_off_is_refused(world: World) -> None:
    pieces = [{"type": "http.request", "body": b'{"name":', "more_body": True}]
    assert post(world, "/api/v1/vms", pieces=pieces).code == "malformed"
    assert not world.vms.calls


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v2/vms", "/api/v1/vms/", "/api/v1/vms//start", "/vms",
     "/api/v1/vms/a/b/c", "/../etc/passwd", "/api/v1/images/", "/api/v1/images/local//x", "/api/v1/images//"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_what_is_not_there_is_a_404_problem(world: World, method: str, path: str) -> None:
    got = run(ask(world, method, path, token=world.admin()))
    assert (got.status, got.code) == (404, "not-found")


@pytest.mark.parametrize(
    "path", ["/api/v1/vms/%zz", "/api/v1/vms/%f", "/api/v1/vms/%ff", "/api/v1/vms/a%00b"]
)
def test_a_path_that_cannot_be_decoded_is_malformed(world: World, path: str) -> None:
    assert get(world, path).code == "malformed"


def test_a_path_is_decoded_after_it_is_split(world: World) -> None:
    post(world, "/api/v1/vms/a%2Fb%20%C3%A9/start")
    assert world.vms.calls[0].path == {"vm": "a/b é"}


def test_a_starred_parameter_takes_the_rest_of_the_path(world: World) -> None:
    got = run(ask(world, "PUT", "/api/v1/images/local/sub/x.iso", b"abc", token=world.admin()))
    assert (got.status, got.json["name"], got.json["file_bytes"]) == (201, "local/sub/x.iso", 3)


def test_a_wrong_method_is_405_and_says_which_are_right(world: World) -> None:
    got = run(ask(world, "PUT", "/api/v1/vms", token=world.admin()))
    assert (got.status, got.code) == (405, "method-not-allowed")
    assert got.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_options_tells_the_methods_without_a_sign_in(world: World) -> None:
    got = run(ask(world, "OPTIONS", "/api/v1/vms/x"))
    assert (got.status, got.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH")


def test_head_is_get(world: World) -> None:
    assert run(ask(world, "HEAD", "/api/v1/vms", token=world.admin())).status == 200


def test_a_console_asked_for_without_upgrade_says_what_it_is(world: World) -> None:
    assert "WebSocket" in get(world, "/api/v1/vms/web1/console").json["detail"]


@pytest.mark.parametrize(
    "query",
    ["wait=1", "dry_run=1", "wait_s=1&wait_s=2", "wait_s=%zz", "=", "wait_s=9999", "wait_s=nan", "wait_s=x"],
)
def test_a_bad_query_is_refused(world: World, query: str) -> None:
    assert get(world, f"/api/v1/tasks/task-x?{query}").status in (400, 422)


def test_dry_run_is_0_or_1(world: World) -> None:
    assert post(world, "/api/v1/vms?dry_run=maybe", START).code == "malformed"
    assert post(world, "/api/v1/vms?dry_run=0", START).status == 202


def test_a_get_with_revision_has_an_etag_and_a_list_has_none(world: World) -> None:
    assert get(world, "/api/v1/switches/net1").headers["etag"] == '"7"'
    assert "etag" not in get(world, "/api/v1/vms").headers


@pytest.mark.parametrize(("etag", "status"), [('"7"', 202), ("*", 202), ('"6"', 412), ("7", 400), ('W/"7"', 400), ('"7","8"', 400)])  # fmt: skip
def test_if_match_must_be_the_present_revision(world: World, etag: str, status: int) -> None:
    got = run(ask(world, "PATCH", "/api/v1/vms/x", {}, token=world.admin(), headers={"if-match": etag}))
    assert got.status == status


def test_a_bug_is_a_500_without_its_trace_and_the_log_has_it(world: World) -> None:
    got = get(world, "/api/v1/vms/boom")
    assert (got.status, got.code) == (500, "internal")
    assert b"secret" not in got.body and b"Traceback" not in got.body
    traced = [line for line in log.ring if got.headers["x-request-id"] in line]
    assert any("a secret of the inside" in line for line in traced)


def test_a_service_that_is_not_there_is_unsupported(world: World) -> None:
    assert get(world, "/api/v1/host").code == "unsupported"


def test_every_answer_guards_itself(world: World) -> None:
    for path in ("/", "/healthz", "/api/v1/vms", "/api/v1/nothing"):
        headers = get(world, path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_no_secret_gets_into_the_log(world: World) -> None:
    before = len(log.ring)
    token = world.admin()
    run(
        ask(
            world,
            "POST",
            "/api/v1/session?ticket=hidden",
            {"user": "admin", "password": "hidden"},
            token=token,
        )
    )
    run(ask(world, "GET", "/api/v1/vms?ticket=hidden", token="wrong"))
    said = "\n".join(list(log.ring)[before:])
    assert "POST /api/v1/session" in said and "GET /api/v1/vms" in said
    assert "hidden" not in said and token not in said and "wrong" not in said


def test_a_stranger_cannot_wash_the_log_away(world: World) -> None:
    mark = "api-log-test"
    for number in range(200):
        run(ask(world, "GET", f"/api/v1/vms/{mark}-{number}"))
    assert 0 < sum(mark in line for line in log.ring) < 100


# ---------------------------------------------------------------------- roles


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/api/v1/vms", Role.VIEWER),
        ("GET", "/metrics", Role.VIEWER),
        ("POST", "/api/v1/vms/web1/start", Role.OPERATOR),
        ("GET", "/api/v1/users", Role.ADMIN),
    ],
)
def test_each_role_may_what_it_may(world: World, method: str, path: str, least: Role) -> None:
    ranks = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]
    for role in ranks:
        got = run(ask(world, method, path, token=world.person(f"some-{role}", role)))
        allowed = ranks.index(role) >= ranks.index(least)
        assert (got.status < 300) is allowed
        assert allowed or (got.status, got.code) == (403, "forbidden")
    got = run(ask(world, method, path))
    assert (got.status, got.code) == (401, "unauthenticated")
    assert got.headers["www-authenticate"].startswith("Bearer")


def test_a_stranger_learns_nothing_about_bodies(world: World) -> None:
    assert run(ask(world, "POST", "/api/v1/vms", b"{")).status == 401


# ---------------------------------------------------------------------- idempotency


def create(world: World, body: object, key: str = "k1", token: str = "") -> Any:
    return ask(
        world,
        "POST",
        "/api/v1/switches",
        body,
        token=token or world.admin(),
        headers={"idempotency-key": key},
    )


NET = {"name": "net1", "kind": "nat"}


def test_the_same_key_and_body_create_once(world: World) -> None:
    first, second = run(create(world, NET)), run(create(world, NET))
    assert (first.status, first.body) == (second.status, second.body)
    assert world.switches.created == 1


def test_two_at_the_same_time_create_once(world: World) -> None:
    async def both() -> None:
        answers = await asyncio.gather(create(world, NET), create(world, NET))
        assert [got.status for got in answers] == [201, 201]

    run(both())
    assert world.switches.created == 1


def test_the_same_key_with_another_body_is_a_conflict(world: World) -> None:
    run(create(world, NET))
    got = run(create(world, {**NET, "subnet": "10.1.0.0/24"}))
    assert (got.status, got.code) == (409, "conflict")


def test_another_key_another_user_or_another_day_creates_again(world: World) -> None:
    run(create(world, NET))
    run(create(world, NET, "k2"))
    run(create(world, NET, token=world.person("other", Role.ADMIN)))
    world.clock.now += 86_401
    run(create(world, NET))
    assert world.switches.created == 4


def test_a_failure_is_not_kept(world: World) -> None:
    for _ in range(2):
        assert run(create(world, {**NET, "name": "taken"})).code == "exists"
    assert world.switches.created == 2


def test_the_kept_answers_are_bounded(world: World) -> None:
    world.api._binding._replay._keep = 3
    for number in range(9):
        run(create(world, NET, f"k{number}"))
    assert len(world.api._binding._replay._kept) <= 3


def test_a_vm_gets_its_key_itself(world: World) -> None:
    post(world, "/api/v1/vms", START, headers={"idempotency-key": "mine"})
    post(world, "/api/v1/vms", START, headers={"idempotency-key": "mine"})
    assert [call.key for call in world.vms.calls] == ["mine", "mine"]


@pytest.mark.parametrize("key", ["x" * 201, "a\x01b", "é"])
def test_a_strange_key_is_refused(world: World, key: str) -> None:
    assert run(create(world, NET, key)).code == "malformed"


# ---------------------------------------------------------------------- tasks


def test_a_long_poll_answers_when_the_task_ends(world: World) -> None:
    async def story() -> None:
        token = world.admin()
        id = (await ask(world, "POST", "/api/v1/vms", START, token=token)).json["task"]["id"]
        waiting = asyncio.ensure_future(ask(world, "GET", f"/api/v1/tasks/{id}?wait_s=60", token=token))
        world.vms.go_on.set()
        assert (await waiting).json["state"] == "done"

    run(story())


def test_a_long_poll_answers_after_its_time_though_nothing_ended(world: World) -> None:
    async def story() -> None:
        token = world.admin()
        id = (await ask(world, "POST", "/api/v1/vms", START, token=token)).json["task"]["id"]
        got = await ask(world, "GET", f"/api/v1/tasks/{id}?wait_s=0.01", token=token)
        assert got.json["state"] == "running"

    run(story())


def test_a_task_can_be_listed_and_cancelled(world: World) -> None:
    async def story() -> None:
        token = world.admin()
        id = (await ask(world, "POST", "/api/v1/vms", START, token=token)).json["task"]["id"]
        assert (await ask(world, "GET", "/api/v1/tasks", token=token)).json["tasks"][0]["id"] == id
        would = await ask(world, "POST", f"/api/v1/tasks/{id}/cancel?dry_run=1", token=token)
        assert would.json["possible"]
        got = await ask(world, "POST", f"/api/v1/tasks/{id}/cancel", token=token)
        assert got.json["state"] == "cancelled"
        assert (await ask(world, "POST", f"/api/v1/tasks/{id}/cancel", token=token)).code == "conflict"
        would = await ask(world, "POST", f"/api/v1/tasks/{id}/cancel?dry_run=1", token=token)
        assert not would.json["possible"]

    run(story())


def test_a_task_that_never_was_is_not_found(world: World) -> None:
    got = get(world, "/api/v1/tasks/task-none?wait_s=5")
    assert got.code == "not-found" and got.json["hint"]


# ---------------------------------------------------------------------- pages


def test_health_needs_no_sign_in_and_tells_the_truth(world: World) -> None:
    assert run(ask(world, "GET", "/healthz")).status == 200
    world.ready = False
    assert ready_status(world) == 503


def ready_status(world: World) -> int:
    from api_client import Got

    got = Got(0, {}, b"")

    async def send(message: Any) -> None:
        got.status = message.get("status", got.status)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": []}
    run(world.api(scope, receive, send))
    return got.status


def test_the_front_page_shows_the_fingerprint_and_trusts_no_host_header(world: World) -> None:
    page = run(ask(world, "GET", "/", headers={"host": '"><script>'})).body.decode()
    assert "ab:ab:ab" in page and "<script>" not in page and "https://ADDRESS" in page


def test_the_description_is_there_for_everybody(world: World) -> None:
    got = run(ask(world, "GET", "/api/v1/openapi.json"))
    assert got.json["openapi"] == "3.1.0"


def test_metrics_count_the_requests(world: World) -> None:
    get(world, "/api/v1/vms")
    get(world, "/api/v1/vms/none")
    text = get(world, "/metrics").body.decode()
    assert 'thimble_vms{state="running"} 3' in text
    assert 'thimble_api_requests_total{verb="vm.list",status="200"} 1' in text
    assert 'thimble_api_requests_total{verb="vm.get",status="404"} 1' in text
    assert 'thimble_api_seconds_bucket{le="+Inf"} 2' in text
    assert text.count("# TYPE thimble_api_requests_total counter") == 1
