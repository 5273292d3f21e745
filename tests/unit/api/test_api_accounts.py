"""Signing in and out, users, tokens, tickets, limits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api_client import Got, ask, run
from api_world import HASH, PASSWORD, World, counted
from thimble.access import passwords
from thimble.access.attempts import Attempts, TooMany
from thimble.access.auth import Auth
from thimble.access.records import UserRecord
from thimble.access.sessions import SESSION_S, TICKET_S
from thimble.access.verbs import entries
from thimble.contract.host import Role
from thimble.core.problem import Code, Problem
from thimble.http.request import network


def do(world: World, method: str, path: str, body: object = None, token: str = "", **more: Any) -> Got:
    return run(ask(world, method, "/api/v1" + path, body, token=token or world.admin(), **more))


def sign_in(world: World, password: str = PASSWORD, user: str = "admin", **more: Any) -> Got:
    return run(ask(world, "POST", "/api/v1/session", {"user": user, "password": password}, **more))


# ---------------------------------------------------------------------- sessions


def test_the_right_password_gives_a_session_that_works(world: World) -> None:
    got = sign_in(world)
    assert (got.status, got.json["role"]) == (201, "admin")
    assert do(world, "GET", "/session", token=got.json["token"]).json["user"] == "admin"


def test_who_am_i_never_tells_the_token_again(world: World) -> None:
    assert do(world, "GET", "/session").json["token"] == ""


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(world: World) -> None:
    wrong, unknown = sign_in(world, "wrong"), sign_in(world, user="nobody")
    assert (wrong.status, wrong.code) == (401, "unauthenticated")
    assert wrong.body == unknown.body


def test_a_dry_run_of_a_sign_in_gives_no_token(world: World) -> None:
    got = run(ask(world, "POST", "/api/v1/session?dry_run=1", {"user": "admin", "password": PASSWORD}))
    assert got.json["possible"] and "token" not in got.json


def test_signing_out_ends_the_session_and_the_cookie(world: World) -> None:
    token = world.admin()
    got = do(world, "DELETE", "/session", token=token)
    assert got.status == 204 and "Max-Age=0" in got.headers["set-cookie"]
    assert do(world, "GET", "/session", token=token).status == 401


def test_a_session_slides_and_then_expires(world: World) -> None:
    token = world.admin()
    for _ in range(3):
        world.clock.now += SESSION_S - 1
        assert do(world, "GET", "/session", token=token).status == 200
    world.clock.now += SESSION_S
    got = do(world, "GET", "/session", token=token)
    assert (got.status, got.code) == (401, "unauthenticated") and "expired" in got.json["detail"]


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_is_set_ends_no_session_and_frees_or_blocks_nobody(world: World, jump: float) -> None:
    token = world.admin()
    for _ in range(9):
        sign_in(world, "wrong")
    world.clock.jump(jump)
    got = do(world, "GET", "/session", token=token)
    assert got.status == 200 and got.json["expires"] == world.clock.now + SESSION_S
    assert [sign_in(world, "wrong").status for _ in range(2)] == [401, 429]
    world.clock.now += 60
    assert sign_in(world).status == 201


@pytest.mark.parametrize("header", ["Bearer", "Bearer  ", "Basic YTpi", "bearer nonsense", "Bearer \xff\xfe"])
def test_a_strange_authorization_is_refused(world: World, header: str) -> None:
    assert run(ask(world, "GET", "/api/v1/vms", headers={"authorization": header})).status == 401


def test_sessions_are_bounded(world: World) -> None:
    tokens = [world.admin() for _ in range(2100)]
    assert len(world.auth.sessions) <= 2000
    assert do(world, "GET", "/session", token=tokens[-1]).status == 200


# ---------------------------------------------------------------------- the browser's cookie


def cookie(world: World, method: str = "GET", path: str = "/api/v1/vms", **headers: str) -> int:
    sent = {
        "cookie": f"a=b; __Host-thimble={world.admin()}",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    return run(ask(world, method, path, headers=sent)).status


def test_the_cookie_is_locked_down(world: World) -> None:
    assert (
        sign_in(world)
        .headers["set-cookie"]
        .endswith("; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=43200")
    )


def test_the_cookie_reads_from_the_same_origin_only(world: World) -> None:
    assert cookie(world) == 200
    assert cookie(world, origin="https://box", sec_fetch_site="same-origin") == 200
    assert cookie(world, origin="https://evil") == 401
    assert cookie(world, origin="null") == 401
    assert cookie(world, sec_fetch_site="cross-site") == 401


def test_the_cookie_changes_nothing(world: World) -> None:
    assert cookie(world, "POST", "/api/v1/vms/web1/start", origin="https://box") == 401


# ---------------------------------------------------------------------- limits


def test_too_many_wrong_passwords_have_to_wait(world: World) -> None:
    statuses = [sign_in(world, "wrong").status for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    got = sign_in(world)
    assert got.code == "rate-limited"
    wait = int(got.headers["retry-after"])
    world.clock.now += wait
    assert sign_in(world).status == 201


def test_signing_in_well_is_never_limited(world: World) -> None:
    assert {sign_in(world).status for _ in range(12)} == {201}


def test_who_signed_in_from_a_place_before_is_not_locked_out_by_others(world: World) -> None:
    def at(peer: str, password: str) -> None:
        run(world.auth.prove("admin", password, peer))

    at("192.0.2.1", PASSWORD)
    for number in range(20):
        with pytest.raises(Problem, match="wrong"):
            at(f"198.51.100.{number}", "wrong")
    with pytest.raises(TooMany):
        at("198.51.100.200", PASSWORD)
    at("192.0.2.1", PASSWORD)


def test_attempts_are_forgotten_with_time_and_names_are_bounded() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0], burst=2, pause=10.0, names=3)
    attempts.take("a")
    attempts.take("a")
    with pytest.raises(TooMany) as caught:
        attempts.take("a")
    assert caught.value.retry_after == 10
    now[0] += 10
    attempts.take("a")
    for name in "bcdefgh":
        attempts.take(name)
    assert len(attempts._paid) <= 3


@pytest.mark.parametrize(
    ("peer", "same"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8::6", "2001:db8:0:0::/64"),
        ("fe80::1%eth0", "fe80:0:0:0::/64"),
        ("::1", ":0:0:0::/64"),
    ],
)
def test_a_party_of_ipv6_is_its_network(peer: str, same: str) -> None:
    assert network(peer) == same


# ---------------------------------------------------------------------- users


def test_users_are_made_changed_and_deleted(world: World) -> None:
    made = do(world, "POST", "/users", {"name": "ann", "password": "longenough", "role": "operator"})
    assert (made.status, made.headers["etag"]) == (201, '"1"')
    token = sign_in(world, "longenough", "ann").json["token"]
    assert do(world, "GET", "/users", token=token).status == 403
    assert do(world, "PATCH", "/users/ann", {"role": "admin"}).json["rev"] == 2
    assert do(world, "GET", "/users", token=token).status == 200, "a new role counts at once"
    assert do(world, "DELETE", "/users/ann").status == 204
    assert do(world, "GET", "/vms", token=token).status == 401, "a deleted user is signed out"
    assert do(world, "DELETE", "/users/ann").code == "not-found"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "admin", "password": "longenough"}, "exists"),
        ({"name": "../etc", "password": "longenough"}, "invalid"),
        ({"name": "Ann", "password": "longenough"}, "invalid"),
        ({"name": "ann", "password": "short"}, "invalid"),
        ({"name": "ann", "password": "longenough", "role": "root"}, "invalid"),
    ],
)
def test_a_bad_user_is_refused_and_so_is_its_dry_run(world: World, body: object, code: str) -> None:
    assert do(world, "POST", "/users", body).code == code
    would = do(world, "POST", "/users?dry_run=1", body)
    assert would.code == code if would.status >= 400 else not would.json["possible"]
    assert [user["name"] for user in do(world, "GET", "/users").json["users"]] == ["admin"]


def test_a_new_password_signs_that_user_out_everywhere(world: World) -> None:
    token = world.person("ann", Role.VIEWER)
    assert do(world, "PATCH", "/users/ann", {"password": "another one"}).status == 200
    assert do(world, "GET", "/vms", token=token).status == 401
    assert sign_in(world, "another one", "ann").status == 201
    assert sign_in(world, PASSWORD, "ann").status == 401


def test_one_changes_the_own_password_and_stays_signed_in_here_only(world: World) -> None:
    here, there = world.person("ann", Role.VIEWER), world.auth.open_session("ann")[0]
    body = {"old": PASSWORD, "new": "another one"}
    assert do(world, "POST", "/session/password", {**body, "old": "wrong"}, token=here).status == 401
    assert do(world, "POST", "/session/password?dry_run=1", body, token=here).json["possible"]
    assert do(world, "POST", "/session/password", body, token=here).status == 204
    assert do(world, "GET", "/vms", token=here).status == 200
    assert do(world, "GET", "/vms", token=there).status == 401
    assert sign_in(world, "another one", "ann").status == 201


@pytest.mark.parametrize(("method", "body"), [("DELETE", None), ("PATCH", {"role": "viewer"})])
def test_the_last_admin_stays(world: World, method: str, body: object) -> None:
    assert do(world, method, "/users/admin", body).code == "conflict"
    assert not do(world, method, "/users/admin?dry_run=1", body).json["possible"]
    world.person("second", Role.ADMIN)
    assert do(world, method, "/users/admin?dry_run=1", body).json["possible"]
    assert do(world, method, "/users/admin", body).status in (200, 204)


def test_a_change_of_another_revision_is_stale(world: World) -> None:
    headers = {"if-match": '"5"'}
    assert do(world, "PATCH", "/users/admin", {}, headers=headers).code == "stale"
    assert do(world, "DELETE", "/users/admin", headers=headers).code == "stale"


# ---------------------------------------------------------------------- tokens of programs


def test_a_token_works_is_shown_once_and_can_be_revoked(world: World) -> None:
    made = do(world, "POST", "/tokens", {"name": "backup", "role": "operator"})
    token = made.json["token"]
    assert do(world, "GET", "/session", token=token).json["role"] == "operator"
    listed = do(world, "GET", "/tokens")
    assert token.encode() not in listed.body and listed.json["tokens"][0]["name"] == "backup"
    assert do(world, "DELETE", "/session", token=token).code == "conflict"
    assert do(world, "DELETE", "/tokens/backup").status == 204
    assert do(world, "GET", "/session", token=token).status == 401


def test_a_token_expires(world: World) -> None:
    token = do(world, "POST", "/tokens", {"name": "t", "expires_s": 60}).json["token"]
    world.clock.now += 59
    assert do(world, "GET", "/vms", token=token).status == 200
    world.clock.now += 1
    assert do(world, "GET", "/vms", token=token).status == 401


def test_a_token_outlives_the_agent_and_only_its_digest_is_kept(world: World) -> None:
    token = do(world, "POST", "/tokens", {"name": "t"}).json["token"]
    kept = b"".join(path.read_bytes() for path in world.state.rglob("*.json"))
    assert token.encode() not in kept and PASSWORD.encode() not in kept
    again = World(world.state)
    assert do(again, "GET", "/vms", token=token).status == 200


def test_a_token_is_never_more_than_its_user(world: World) -> None:
    boss = world.person("boss", Role.ADMIN)
    token = do(world, "POST", "/tokens", {"name": "t", "role": "admin"}, token=boss).json["token"]
    do(world, "PATCH", "/users/boss", {"role": "viewer"})
    assert do(world, "GET", "/session", token=token).json["role"] == "viewer"
    do(world, "DELETE", "/users/boss")
    assert do(world, "GET", "/session", token=token).status == 401
    assert not do(world, "GET", "/tokens").json["tokens"]


def test_two_tokens_of_one_name_are_refused(world: World) -> None:
    do(world, "POST", "/tokens", {"name": "t"})
    assert do(world, "POST", "/tokens", {"name": "t"}).code == "exists"


# ---------------------------------------------------------------------- tickets


def test_a_ticket_stands_for_its_user_once(world: World) -> None:
    ticket = do(world, "POST", "/session/ticket", token=world.person("ann", Role.OPERATOR)).json["ticket"]
    assert world.auth.use_ticket(ticket).user == "ann"
    with pytest.raises(Problem, match="used or expired"):
        world.auth.use_ticket(ticket)


def test_a_ticket_expires(world: World) -> None:
    ticket = do(world, "POST", "/session/ticket").json["ticket"]
    world.clock.now += TICKET_S
    with pytest.raises(Problem) as caught:
        world.auth.use_ticket(ticket)
    assert caught.value.code is Code.UNAUTHENTICATED


def test_a_ticket_dies_with_its_session(world: World) -> None:
    ticket = do(world, "POST", "/session/ticket").json["ticket"]
    world.auth.sessions.close_all("admin")
    with pytest.raises(Problem) as caught:
        world.auth.use_ticket(ticket)
    assert caught.value.code is Code.UNAUTHENTICATED


# ---------------------------------------------------------------------- the first password


def fresh(state: Path) -> Auth:
    return Auth(state, durable=False, clock=lambda: 0.0, entropy=counted, rev=lambda: 0)


def test_the_first_password_is_made_and_told_once(tmp_path: Path) -> None:
    auth = fresh(tmp_path)
    shown = auth.first_password()
    assert shown is not None
    assert [len(part) for part in shown.split("-")] == [4, 4, 4]
    assert not set(shown) & set("IO01")
    record = run(auth.prove("admin", shown, "192.0.2.1"))
    assert record.value.role is Role.ADMIN
    assert not passwords.is_weak(record.value.password), "at its first use it is hashed strongly"
    assert fresh(tmp_path).first_password() is None
    assert fresh(tmp_path).first_password("configured") is None
    run(fresh(tmp_path).prove("admin", shown, "192.0.2.1"))


def test_a_first_password_nobody_used_is_made_anew_and_told_again(tmp_path: Path) -> None:
    lost = fresh(tmp_path).first_password()
    auth = fresh(tmp_path)
    shown = auth.first_password()
    assert lost and shown and lost != shown
    run(auth.prove("admin", shown, "192.0.2.1"))
    with pytest.raises(Problem):
        run(auth.prove("admin", lost, "192.0.2.1"))


@pytest.mark.parametrize("given", [PASSWORD, HASH])
def test_a_configured_password_or_hash_is_taken_and_not_told(tmp_path: Path, given: str) -> None:
    auth = fresh(tmp_path)
    assert auth.first_password(given) is None
    assert run(auth.prove("admin", PASSWORD, "192.0.2.1")).id == "admin"


@pytest.mark.parametrize(
    "given", ["scrypt$", "scrypt$14$8$1$zz$00", "scrypt$40$8$1$" + "00" * 16 + "$" + "00" * 32]
)
def test_a_broken_hash_is_refused_and_makes_no_user(tmp_path: Path, given: str) -> None:
    auth = fresh(tmp_path)
    with pytest.raises(Problem) as caught:
        auth.first_password(given)
    assert caught.value.code is Code.INVALID
    assert not auth.users.all()


def test_a_user_file_that_cannot_be_read_makes_no_new_admin(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "admin.json").write_text("{")
    assert fresh(tmp_path).first_password() is None


# ---------------------------------------------------------------------- hashes, for the host document

STRONG = passwords.hashed(PASSWORD, b"salt" * 4)


def test_a_hash_that_was_given_stays_as_it_is_when_it_is_used(world: World) -> None:
    do(world, "POST", "/users", {"name": "ann", "password_hash": STRONG})
    assert sign_in(world, user="ann").status == 201
    (_, ann), _ = entries(world.auth)
    assert (ann.name, ann.password_hash) == ("ann", STRONG)


def test_a_weak_hash_is_not_told_since_it_lasts_until_its_first_use(world: World) -> None:
    ((admin,), _) = entries(world.auth)
    assert (admin.name, admin.password_hash) == ("admin", None)
    sign_in(world)
    ((admin,), _) = entries(world.auth)
    assert str(admin.password_hash).startswith("scrypt$14$")


def test_a_user_is_made_and_changed_by_the_hash_of_a_password(world: World) -> None:
    body = {"name": "ann", "role": "operator", "password_hash": STRONG}
    assert do(world, "POST", "/users", body).status == 201
    assert sign_in(world, user="ann").json["role"] == "operator"
    other = passwords.hashed("another one", b"salt" * 4)
    assert do(world, "PATCH", "/users/ann", {"password_hash": other}).status == 200
    assert sign_in(world, user="ann").status == 401
    assert sign_in(world, "another one", user="ann").status == 201


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "ann"}, 422),
        ({"name": "ann", "password": "long enough", "password_hash": STRONG}, 422),
        ({"name": "ann", "password_hash": HASH}, 422),  # weaker than what is kept
        ({"name": "ann", "password_hash": "scrypt$6$8$1$00$00"}, 422),
        ({"name": "ann", "password_hash": "secret"}, 422),
    ],
)
def test_a_user_has_a_password_or_its_hash(world: World, body: object, status: int) -> None:
    assert do(world, "POST", "/users", body).status == status
    assert do(world, "GET", "/users/").status == 404


def test_a_token_whose_digest_is_given_works_and_is_not_told(world: World) -> None:
    from hashlib import sha256

    do(world, "POST", "/users", {"name": "ann", "role": "operator", "password_hash": STRONG})
    digest = sha256(b"my own").hexdigest()
    body = {"name": "ci", "role": "viewer", "sha256": digest, "user": "ann", "expires": world.clock() + 60}
    got = do(world, "POST", "/tokens", body)
    assert (got.status, got.json["token"], got.json["user"]) == (201, "", "ann")
    assert do(world, "GET", "/session", token="my own").json["user"] == "ann"
    assert do(world, "POST", "/tokens", {**body, "name": "two"}).status == 409
    assert do(world, "POST", "/tokens", {"name": "x", "user": "ann"}).status == 422
    assert do(world, "POST", "/tokens", {"name": "x", "user": "nobody", "sha256": "0" * 64}).status == 404


def test_who_changes_the_own_password_as_an_admin_stays_signed_in_here_only(world: World) -> None:
    here, there = world.admin(), world.admin()
    assert do(world, "PATCH", "/users/admin", {"password_hash": STRONG}, token=here).status == 200
    assert do(world, "GET", "/session", token=here).status == 200
    assert do(world, "GET", "/session", token=there).status == 401


# ---------------------------------------------------------------------- two at once


def at_once(world: World, *requests: tuple[str, str, object]) -> list[Got]:
    """Several requests of administrators in one breath."""
    token = world.admin()

    async def all_of_them() -> list[Got]:
        sent = (
            ask(world, method, "/api/v1" + path, body, token=token, headers={"idempotency-key": str(number)})
            for number, (method, path, body) in enumerate(requests)
        )
        return list(await asyncio.gather(*sent))

    return run(all_of_them())


def test_of_two_users_of_one_name_at_once_one_is_made(world: World) -> None:
    bodies = [{"name": "ann", "password": f"long enough {n}", "role": "operator"} for n in (1, 2)]
    found = at_once(world, *(("POST", "/users", body) for body in bodies))
    assert sorted(got.status for got in found) == [201, 409]
    winner = next(body for got, body in zip(found, bodies, strict=True) if got.status == 201)
    assert sign_in(world, winner["password"], "ann").status == 201


@pytest.mark.parametrize(
    ("method", "body"), [("DELETE", None), ("PATCH", {"role": "viewer", "password": "long enough"})]
)
def test_of_two_last_admins_who_go_at_once_one_stays(world: World, method: str, body: object) -> None:
    world.person("second", Role.ADMIN)
    found = at_once(world, (method, "/users/admin", body), (method, "/users/second", body))
    assert sorted(got.status for got in found) in ([200, 409], [204, 409])
    admins = [user.id for user in world.auth.users.all() if user.value.role is Role.ADMIN]
    assert len(admins) == 1


def test_of_two_tokens_of_one_name_at_once_one_is_made(world: World) -> None:
    found = at_once(world, ("POST", "/tokens", {"name": "t"}), ("POST", "/tokens", {"name": "t"}))
    assert sorted(got.status for got in found) == [201, 409]
    assert len(world.auth.tokens.all()) == 1


def test_no_token_outlives_a_user_who_is_deleted_at_once(world: World) -> None:
    do(world, "POST", "/users", {"name": "ann", "role": "operator", "password_hash": STRONG})
    body = {"name": "ci", "sha256": "0" * 64, "user": "ann"}
    at_once(world, ("DELETE", "/users/ann", None), ("POST", "/tokens", body))
    assert not world.auth.users.find("ann") and not world.auth.tokens.all()


def test_a_sign_in_that_strengthens_a_hash_does_not_undo_a_new_role(world: World) -> None:
    world.person("second", Role.ADMIN)  # with a hash below full strength

    async def both() -> None:
        await asyncio.gather(
            world.auth.prove("second", PASSWORD, "192.0.2.1"),
            ask(world, "PATCH", "/api/v1/users/second", {"role": "viewer"}, token=token),
        )

    token = world.admin()
    run(both())
    kept = world.auth.users.get("second").value
    assert kept.role is Role.VIEWER and not passwords.is_weak(kept.password)


# ---------------------------------------------------------------------- for the rest of the agent


def test_what_a_bundle_may_not_hold_and_what_is_broken_is_said_by_its_owner(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "broken.json").write_text("{")
    world = World(tmp_path)
    world.auth.users.put("ann", UserRecord(role=Role.VIEWER, password=STRONG))
    do(world, "POST", "/tokens", {"name": "t"}, token=world.auth.open_session("ann")[0])
    (warning,) = world.auth.warnings()
    assert "broken.json: not used" in warning
    digests = {token.value.digest for token in world.auth.tokens.all()}
    hashes = {user.value.password for user in world.auth.users.all()}
    assert set(world.auth.secrets()) == digests | hashes and STRONG in hashes
