"""Who may what by HTTP, and what is turned away: tables of requests, with no socket."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from dicom_node.config import load_site
from dicom_node.domain import ConfigError, Transient
from dicom_node.guard import passwords
from dicom_node.web.access import Person, Role, allow, login, may
from dicom_node.web.access.roles import implied
from dicom_node.web.access.source import source
from dicom_node.web.access.throttle import PER_ADDRESS, PER_NAME, WINDOW_S, Throttle
from tests.browsing import ABROAD, HASH, NOW, PASSWORD, ROLES, abroad, houses, log_in, token_of

HTML = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    with houses(tmp_path) as made:
        yield made


# ------------------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("web", "wants"),
    [
        ({}, "add web.tls"),
        ({"behind_proxy": ["10.0.0.5"], "local_users": False, "names": ["n.example"]}, "add web.oidc"),
        ({"behind_proxy": ["10.0.0.5"]}, "web.names"),
        ({"behind_proxy": ["proxy"]}, "neither an address nor a network"),
        ({"names": ["https://node.example"]}, "no host"),
        ({"cors": ["https://viewer.example/path"]}, "no origin"),
        ({"cors": ["*"]}, "no origin"),
    ],
)
def test_others_than_this_machine_are_answered_only_when_it_can_be_known_who_asks(web: dict[str, Any], wants: str) -> None:
    """And the message says what to do."""
    with pytest.raises(ConfigError, match=wants):
        load_site(None, web={"host": "0.0.0.0"} | web)


# --------------------------------------------------------------------------------------------------------- who may what


@pytest.mark.parametrize(
    ("who", "role", "scope", "expected"),
    [
        (Person(name="v", role=Role.VIEWER), Role.VIEWER, None, True),
        (Person(name="v", role=Role.VIEWER), Role.OPERATOR, None, False),
        (Person(name="v", role=Role.VIEWER), Role.OPERATOR, "api.act", False),
        (Person(name="o", role=Role.OPERATOR), Role.OPERATOR, "api.act", True),
        (Person(name="s", role=Role.SERVICE, scopes=frozenset({"api.act"})), Role.OPERATOR, "api.act", True),
        (Person(name="s", role=Role.SERVICE, scopes=frozenset({"api.read"})), Role.OPERATOR, "api.act", False),
        (Person(name="s", role=Role.SERVICE, scopes=frozenset({"api.read"})), Role.ADMIN, "api.read", False),
        (Person(name="s", role=Role.SERVICE, scopes=frozenset({"api.read"})), Role.VIEWER, None, False),
        (Person(name="s", role=Role.SERVICE), Role.VIEWER, "api.read", False),
        (Person(name="a", role=Role.ADMIN, scopes=frozenset({"dicomweb.read"})), Role.VIEWER, "dicomweb.read", True),
        (Person(name="a", role=Role.ADMIN, scopes=frozenset({"dicomweb.read"})), Role.VIEWER, "api.read", False),
        (Person(name="a", role=Role.ADMIN, scopes=frozenset({"dicomweb.read"})), Role.VIEWER, None, False),
        (Person(name="", role=Role.NOBODY), Role.SERVICE, "api.read", False),
    ],
)
def test_a_role_and_a_scope_decide(who: Person, role: Role, scope: Any, expected: bool) -> None:
    """A service has its scopes and nothing else; a token that was made for less than its person may is good for that alone."""
    assert may(who, role, scope) is expected


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/dicom-web/studies", "dicomweb.read"),
        ("POST", "/dicom-web", "dicomweb.write"),
        ("HEAD", "/api/jobs", "api.read"),
        ("DELETE", "/api/jobs/1", "api.act"),
        ("GET", "/dicom-webx", None),
        ("GET", "/jobs", None),
    ],
)
def test_a_place_for_programs_says_which_scope_it_asks_for(method: str, path: str, scope: str | None) -> None:
    """An endpoint there that names none is not open to every service."""
    assert implied(method, path) == scope


def test_a_scope_that_does_not_exist_is_a_mistake_at_start() -> None:
    with pytest.raises(ValueError, match="no scope"):
        allow(Role.VIEWER, lambda request: Response(), scope="dicomweb.everything")  # type: ignore[arg-type]


PLACES = [
    ("GET", "/seen", Role.VIEWER),
    ("POST", "/done", Role.OPERATOR),
    ("GET", "/ruled", Role.ADMIN),
    ("GET", "/dicom-web/studies", Role.VIEWER),
    ("POST", "/dicom-web/studies", Role.OPERATOR),
    ("GET", "/api/jobs", Role.VIEWER),
    ("POST", "/api/jobs", Role.OPERATOR),
    ("DELETE", "/api/jobs", Role.OPERATOR),
    ("GET", "/api/people", Role.ADMIN),
]


def test_nobody_is_let_in_from_elsewhere(make: Any) -> None:
    """401 with a challenge to a program (PS3.18 8.5, RFC 6750 3), and a browser goes to log in."""
    client = abroad(make).browser()
    for method, path, _ in PLACES:
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="dicom-node"'), path
    seen = client.get("/seen?study=1.2&x=%2F", headers=HTML)
    assert (seen.status_code, seen.headers["location"]) == (303, "/login?next=%2Fseen%3Fstudy%3D1.2%26x%3D%252F")
    assert client.get("/seen", headers=HTML | {"sec-fetch-mode": "cors"}).status_code == 401


def test_every_route_of_the_app_refuses_nobody_unless_it_is_for_anyone(make: Any) -> None:
    """Not these tests' endpoints alone: whatever the parts serve; 401 comes before everything else that could be wrong with a request."""
    house = abroad(make)
    client = house.browser()
    for route in house.app.router.routes:
        if isinstance(route, Route) and getattr(route.endpoint, "role", Role.VIEWER) is not Role.NOBODY:
            path = re.sub(r"\{[^}]*\}", "1", route.path)
            for method in (route.methods or set()) - {"HEAD"}:
                assert client.request(method, path).status_code == 401, (method, path)


@pytest.mark.parametrize("name", ROLES)
def test_each_role_may_what_it_may_and_no_more(make: Any, name: str) -> None:
    """By a session and the token of its pages."""
    client = abroad(make).logged_in(name)
    csrf = client.get("/seen").json()["csrf"]
    for method, path, role in PLACES:
        status = client.request(method, path, headers={"x-csrf-token": csrf}).status_code
        assert status == (200 if ROLES[name] >= role else 403), (method, path)


def test_a_service_may_what_its_scopes_say(make: Any) -> None:
    """403 with what is missing, or 401 with what is wrong (RFC 6750 3.1)."""
    house = abroad(make)
    house.store.people.add("pump", "service", who="test", now=NOW)
    token = house.store.people.token("pump", ["dicomweb.read"], expires_at=NOW + 60, who="test", now=NOW)
    client = house.browser(headers={"authorization": f"Bearer {token}"})
    assert client.get("/dicom-web/studies").json()["name"] == "pump"
    for method, path, _ in PLACES:
        if (method, path) != ("GET", "/dicom-web/studies"):
            assert client.request(method, path).status_code == 403, path
    assert 'error="insufficient_scope", scope="dicomweb.write"' in client.post("/dicom-web/studies").headers["www-authenticate"]
    house.at[0] += 61
    late = client.get("/dicom-web/studies")
    assert (late.status_code, late.headers["www-authenticate"]) == (401, 'Bearer realm="dicom-node", error="invalid_token"')


@pytest.mark.parametrize(
    "shown", ["Bearer", "Bearer ", "Bearer x", "Bearer dn1_x", "Bearer a.b.c", "Bearer " + "x" * 20_000, "bearer dn1_\xff", "Basic YTpi"]
)
def test_a_token_that_is_none_is_refused_and_nothing_breaks(make: Any, shown: str) -> None:
    """Also where this machine may do everything: who shows a token wants to be known by it."""
    client = make().browser(headers={"authorization": shown.encode("latin-1")})
    assert client.get("/seen").status_code == (200 if shown.startswith("Basic") else 401)


# ---------------------------------------------------------------------------------------------------------------- loopback


def test_this_machine_may_do_everything_until_somebody_is_known(make: Any) -> None:
    house = make()
    assert house.browser().get("/ruled").json()["name"] == "local"
    house.store.people.add("pump", "service", who="test", now=NOW)
    assert house.browser().get("/ruled").status_code == 200, "a service is no person"
    house.store.people.add("anna", "viewer", password=HASH, who="test", now=NOW)
    assert house.browser().get("/ruled").status_code == 401
    house.store.people.set_disabled("anna", True, who="test", now=NOW)
    assert house.browser().get("/ruled").status_code == 401, "nobody becomes an administrator because somebody was shut out"


@pytest.mark.parametrize("web", [{"anonymous_on_loopback": False}, {"behind_proxy": ["127.0.0.1"]}])
def test_a_site_may_ask_for_log_in_on_loopback_too(make: Any, web: dict[str, Any]) -> None:
    """And behind a proxy on this machine the world is not this machine."""
    assert make(**web).browser().get("/seen").status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:9", "[::1]:8080", "127.1.2.3"])
def test_a_name_of_this_machine_is_ours(make: Any, host: str) -> None:
    assert make().browser().get("/seen", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:8080",
        "",
        "127.0.0.1@evil.example",
        "[::1",
        "10.0.0.1",
        "a b",
    ],
)
def test_another_name_that_leads_here_is_not_answered(make: Any, host: str) -> None:
    """DNS rebinding: a page of evil.example would be taken for one of ours."""
    client = make().browser()
    assert client.get("/seen", headers={"host": host}).status_code == 421
    assert client.get("/health/live", headers={"host": host}).status_code == 200, "whoever watches the node may call it by its address"


def test_a_proxy_that_nobody_named_is_not_this_machine(make: Any) -> None:
    """It may hand on what the world asks."""
    for name in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
        assert make().browser().get("/seen", headers={name: "198.51.100.9"}).status_code == 403


# ------------------------------------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        (
            "10.0.0.5",
            {"x-forwarded-for": "198.51.100.9", "x-forwarded-proto": "https", "x-forwarded-host": "node.example"},
            ("198.51.100.9", "https://node.example"),
        ),
        ("10.0.0.5", {"x-forwarded-for": "1.1.1.1, 198.51.100.9, 10.0.0.5", "x-forwarded-proto": "https"}, ("198.51.100.9", "https://inside:80")),
        ("10.0.0.5", {"x-forwarded-for": "anything, 198.51.100.9"}, ("198.51.100.9", "http://inside")),
        ("10.0.0.5", {"x-forwarded-for": "<script>"}, ("10.0.0.5", "http://inside")),
        ("10.0.0.5", {"x-forwarded-proto": "javascript"}, ("10.0.0.5", "http://inside")),
        ("10.0.0.5", {}, ("10.0.0.5", "http://inside")),
        ("::ffff:10.0.0.5", {"x-forwarded-for": "198.51.100.9"}, ("198.51.100.9", "http://inside")),
        ("192.0.2.7", {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": "evil"}, ("192.0.2.7", "http://inside")),
    ],
)
def test_only_a_proxy_that_the_site_named_is_believed(client: str, headers: dict[str, str], expected: tuple[str, str]) -> None:
    """And only its own word: what stands left of it in X-Forwarded-For anybody may have written."""
    web = load_site(None, web=dict(ABROAD)).config.web
    raw = [(name.encode(), value.encode()) for name, value in ({"host": "inside:80"} | headers).items()]
    seen = source({"type": "http", "scheme": "http", "client": (client, 1), "headers": raw}, web)
    assert (seen.address, seen.origin) == expected


def test_behind_a_proxy_the_cookie_is_as_over_tls(make: Any) -> None:
    house = abroad(make)
    house.client = ("10.0.0.5", 1)
    said = {"x-forwarded-proto": "https", "x-forwarded-host": "node.example", "x-forwarded-for": "198.51.100.9"}
    answer = house.browser(base="http://inside", headers=said).get("/login")
    assert answer.headers["set-cookie"].startswith("__Host-dicom-node-form=")
    assert "strict-transport-security" in answer.headers
    assert house.browser(base="http://inside").get("/login").status_code == 421
    assert house.browser(base="http://inside", headers=said).get("/ohif/index.html").json()["base"] == "https://node.example/", (
        "what links begin with"
    )


# ------------------------------------------------------------------------------------------------------------------ sessions


def test_a_session_is_begun_by_log_in_and_ended_by_log_out(make: Any) -> None:
    """Its cookie is read by no script, sent over no plain connection, and set by no other host (RFC 6265bis)."""
    house = abroad(make)
    client = house.browser()
    answer = log_in(client, "Viewer ", next="/seen?a=b")
    assert (answer.status_code, answer.headers["location"]) == (303, "/seen?a=b")
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("__Host-dicom-node="))
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie and "Max-Age" not in cookie
    said = client.get("/seen").json()
    assert (said["name"], said["logged_in"]) == ("viewer", True)
    assert client.get("/login?next=/seen").headers["location"] == "/seen"
    kept = client.cookies["__Host-dicom-node"]
    out = client.post("/logout", data={"csrf_token": said["csrf"]}, headers={"origin": "https://node.example"})
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert house.browser(cookies={"__Host-dicom-node": kept}).get("/seen").status_code == 401


def test_a_session_that_somebody_planted_is_not_taken_over(make: Any) -> None:
    """Session fixation: log-in makes a new one, and the old is worth nothing."""
    house = abroad(make)
    planted = house.logged_in("viewer").cookies["__Host-dicom-node"]
    victim = house.browser(cookies={"__Host-dicom-node": planted})
    page = house.browser().get("/login")
    form = page.cookies["__Host-dicom-node-form"]
    victim.cookies.set("__Host-dicom-node-form", form)
    answer = victim.post("/login", data={"name": "admin", "password": PASSWORD, "csrf_token": token_of(page.text)}, headers={"origin": house.base})
    assert answer.status_code == 303
    fresh = next(v for v in answer.headers.get_list("set-cookie") if v.startswith("__Host-dicom-node=")).partition("=")[2].partition(";")[0]
    assert fresh != planted
    assert house.browser(cookies={"__Host-dicom-node": planted}).get("/seen").status_code == 401
    assert house.browser(cookies={"__Host-dicom-node": fresh}).get("/ruled").json()["name"] == "admin"


def test_two_cookies_of_one_name_are_none(make: Any) -> None:
    """One of them was planted by another host of the domain."""
    house = abroad(make)
    secret = house.logged_in("viewer").cookies["__Host-dicom-node"]
    assert house.browser().get("/seen", headers={"cookie": f"__Host-dicom-node={secret}; __Host-dicom-node=x"}).status_code == 401
    assert house.browser().get("/seen", headers={"cookie": f"dicom-node={secret}"}).status_code == 401, "nor one that a plain connection could set"


def test_a_session_ends_by_itself_and_with_its_person(make: Any) -> None:
    house = abroad(make, session_idle_s=600, session_s=3000)
    idle, long, dead = (house.logged_in("viewer") for _ in range(3))
    for _ in range(5):
        house.at[0] += 500
        assert long.get("/seen").status_code == 200
    assert idle.get("/seen").status_code == 401
    house.store.people.set_disabled("viewer", True, who="test", now=house.at[0])
    assert long.get("/seen").status_code == dead.get("/seen").status_code == 401
    house.at[0] += 600
    operator = house.logged_in("operator")
    for _ in range(6):
        house.at[0] += 500
        last = operator.get("/seen").status_code
    assert last == 401


def test_a_session_is_worth_nothing_once_the_site_lets_nobody_in_that_way(make: Any) -> None:
    """Passwords, or the identity provider, that were taken out of the configuration."""
    house = abroad(make)
    theirs = house.store.sessions.begin("berta@id.example", role="admin", lasts_s=3600, now=NOW)
    assert house.browser(cookies={"__Host-dicom-node": theirs}).get("/seen").status_code == 401
    oidc = {"issuer": "https://id.example", "client_id": "x"}
    assert abroad(make, local_users=False, oidc=oidc).logged_in("viewer").get("/seen").status_code == 401


def test_who_changes_the_password_logs_in_again(make: Any) -> None:
    """Everywhere: whoever had the old one has nothing."""
    house = abroad(make)
    client, elsewhere = house.logged_in("viewer"), house.logged_in("viewer")
    csrf = token_of(client.get("/login/password").text)

    def change(old: str, new: str) -> Any:
        return client.post("/login/password", data={"password": old, "new": new, "csrf_token": csrf}, headers={"origin": house.base})

    assert change("wrong", "another horse battery").status_code == 403
    assert "12 to 256" in change(PASSWORD, "short").text
    assert change(PASSWORD, "another horse battery").status_code == 303
    assert elsewhere.get("/seen").status_code == client.get("/seen").status_code == 401
    assert log_in(house.browser(), "viewer").status_code == 403
    assert log_in(house.browser(), "viewer", "another horse battery").status_code == 303


# -------------------------------------------------------------------------------------------------------------------- log-in


def test_nobody_learns_from_a_refusal_who_exists(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same page for a wrong name, a wrong password, a service, and one that is disabled; and no password in a log."""
    house = abroad(make)
    house.store.people.add("pump", "service", who="test", now=NOW)
    house.store.people.set_disabled("admin", True, who="test", now=NOW)
    pages = set()
    for name, password in (
        ("viewer", "wrong horse battery"),
        ("nobody", PASSWORD),
        ("pump", ""),
        ("admin", PASSWORD),
        ("x" * 500, "y" * 9000),
        ("", ""),
    ):
        answer = log_in(house.browser(), name, password)
        assert answer.status_code == 403
        pages.add(re.sub(r'value="[0-9a-f]{64}"', "", answer.text))
    assert len(pages) == 1
    said = capsys.readouterr()
    assert "horse" not in said.out + said.err and "web.log_in_refused" in said.out


def test_an_unknown_name_takes_as_long_as_a_known_one(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work is done: a hash is compared in both cases."""
    house = abroad(make)
    compared: list[str] = []
    monkeypatch.setattr(login, "is_password", lambda kept, said: compared.append(kept) or False)  # type: ignore[func-returns-value]
    log_in(house.browser(), "viewer")
    log_in(house.browser(), "nobody")
    assert [bool(kept) for kept in compared] == [True, False]


def test_a_password_cannot_be_guessed_by_trying(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some failures even the right one waits."""
    monkeypatch.setattr(login, "is_password", lambda kept, said: bool(kept) and said == PASSWORD)  # quicker
    house = abroad(make)
    client = house.browser()
    for number in range(PER_NAME):
        assert log_in(client, "viewer", "").status_code == 403, number
    late = log_in(client, "viewer")
    assert (late.status_code, late.headers["retry-after"]) == (429, str(int(WINDOW_S) + 1))
    assert log_in(client, "operator").status_code == 303, "others are let in"
    house.at[0] += WINDOW_S + 1
    assert log_in(house.browser(), "viewer").status_code == 303


def test_tries_are_counted_by_name_and_by_address_and_forgotten() -> None:
    """A subscriber of IPv6 has a /64; what is remembered is bounded."""
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for number in range(PER_ADDRESS):
        assert throttle.take(f"name {number}", f"2001:db8::{number:x}") == 0.0
    assert throttle.take("another", "2001:db8::ffff") == WINDOW_S
    assert throttle.take("another", "2001:db8:0:1::1") == 0.0
    now[0] += WINDOW_S
    assert throttle.take("another", "2001:db8::ffff") == 0.0
    throttle.forgive("another", "2001:db8::ffff")
    for number in range(10_100):
        throttle.take(f"name {number}", "")
    assert len(throttle._failures) <= 10_000


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/%5cevil.example",
        "\\\\evil",
        "javascript:alert(1)",
        "/\tevil",
        "/\n/evil",
        " /x",
        "",
        "/login",
        "/login?next=/login",
        "/logout",
        "/" + "x" * 3000,
        "/%2fevil.example",
        "/%09/evil.example",
    ],
)
def test_log_in_leads_nowhere_else(make: Any, wanted: str) -> None:
    """Open redirect."""
    assert login.local_path(wanted) == "/"


@pytest.mark.parametrize("wanted", ["/", "/studies/1.2.3?a=b&c=%2Fd", "/ohif/viewer?StudyInstanceUIDs=1.2", "/a//b"])
def test_log_in_leads_back_to_where_one_was(wanted: str) -> None:
    assert login.local_path(wanted) == wanted


def test_the_form_of_another_browser_logs_nobody_in(make: Any) -> None:
    """Log-in CSRF: who is made to log in as somebody else would work in that name."""
    house = abroad(make)
    theirs = token_of(house.browser().get("/login").text)
    said = {"name": "viewer", "password": PASSWORD, "csrf_token": theirs}
    assert house.browser().post("/login", data=said).status_code == 403
    client = house.browser()
    client.get("/login")
    assert client.post("/login", data=said).status_code == 403
    assert client.post("/login", data=said | {"csrf_token": ""}).status_code == 403
    assert client.post("/login", content=b"\xff" * 100).status_code == 403
    assert client.post("/login", content=b"x" * 20_000).status_code == 413


# ---------------------------------------------------------------------------------------------------------------------- CSRF

OURS = {"origin": "https://node.example"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (OURS | FORM, "said=x&csrf_token={csrf}", 200),
        (OURS | {"x-csrf-token": "{csrf}"} | FORM, "said=x", 200),
        ({"sec-fetch-site": "same-origin", "x-csrf-token": "{csrf}"} | FORM, "said=x", 200),
        ({"x-csrf-token": "{csrf}"} | FORM, "said=x", 200),
        (OURS | FORM, "said=x", 403),
        (OURS | FORM, "said=x&csrf_token=", 403),
        (OURS | FORM, "said=x&csrf_token=" + "0" * 64, 403),
        (OURS | FORM, "said=x&csrf_token={csrf}&csrf_token=x", 403),
        (FORM, "said=x", 403),
        ({"content-type": "text/plain"} | OURS, "csrf_token={csrf}", 403),
        ({"content-type": "application/json"} | OURS, "{{}}", 403),
        ({"origin": "https://evil.example", "x-csrf-token": "{csrf}"} | FORM, "said=x", 403),
        ({"origin": "http://node.example", "x-csrf-token": "{csrf}"} | FORM, "said=x", 403),
        ({"origin": "https://node.example:8443", "x-csrf-token": "{csrf}"} | FORM, "said=x", 403),
        ({"origin": "null", "x-csrf-token": "{csrf}"} | FORM, "said=x", 403),
        ({"sec-fetch-site": "cross-site", "x-csrf-token": "{csrf}"} | FORM, "said=x", 403),
        ({"sec-fetch-site": "same-site", "x-csrf-token": "{csrf}"} | FORM, "said=x", 403),
    ],
)
def test_an_act_by_session_comes_from_a_page_of_ours(make: Any, headers: dict[str, str], body: str, status: int) -> None:
    """By where the browser says that it comes from, and by a token that no other site can read."""
    client = abroad(make).logged_in("operator")
    csrf = client.get("/seen").json()["csrf"]
    said = {name: value.format(csrf=csrf) for name, value in headers.items()}
    answer = client.post("/done", headers=said, content=body.format(csrf=csrf))
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json() == {"said": "x", "name": "operator"}, "the form is still whole"


def test_the_token_of_one_session_is_no_good_for_another(make: Any) -> None:
    house = abroad(make)
    csrf = house.logged_in("operator").get("/seen").json()["csrf"]
    assert house.logged_in("operator").post("/done", headers={"x-csrf-token": csrf}).status_code == 403


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", OURS | {"content-type": 'multipart/related; type="application/dicom"'}, 200),
        ("POST", {"sec-fetch-site": "same-origin", "content-type": "application/dicom+json"}, 200),
        ("POST", {"content-type": "application/dicom+json"}, 403),
        ("POST", OURS | {"content-type": "multipart/form-data"}, 403),
        ("POST", OURS, 403),
        ("POST", {"origin": "https://evil.example", "content-type": "application/dicom+json"}, 403),
    ],
)
def test_the_viewer_stores_without_a_token_what_no_form_could_send(make: Any, method: str, headers: dict[str, str], status: int) -> None:
    """Another site's page would have to ask first, and is not allowed to."""
    client = abroad(make).logged_in("operator")
    assert client.request(method, "/dicom-web/studies", headers=headers, content=b"").status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program at this machine
        ({"x-csrf-token": "{csrf}", "origin": "http://127.0.0.1:8080"}, 200),
        ({"x-csrf-token": "{csrf}", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://127.0.0.1:8080"}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:8080"}, 403),
        ({"origin": "http://127.0.0.1:9999", "x-csrf-token": "{csrf}"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_no_page_of_another_site_acts_on_this_machines_node(make: Any, headers: dict[str, str], status: int) -> None:
    """Where nobody logs in, a browser on this machine would be an administrator for every site that it visits."""
    client = make().browser()
    csrf = client.get("/seen").json()["csrf"]
    assert client.post("/done", headers={name: value.format(csrf=csrf) for name, value in headers.items()}).status_code == status


def test_a_long_form_is_not_read(make: Any) -> None:
    client = abroad(make).logged_in("operator")
    assert client.post("/done", headers=OURS | FORM, content=b"a=" + b"x" * 1_100_000).status_code == 413


def test_a_bearer_token_needs_no_other(make: Any) -> None:
    """No browser sends it by itself, so no site can make one act."""
    house = abroad(make, cors=["https://viewer.example"])
    house.store.people.add("pump", "service", who="test", now=NOW)
    token = house.store.people.token("pump", ["dicomweb.write"], expires_at=NOW + 60, who="test", now=NOW)
    headers = {"authorization": f"Bearer {token}", "origin": "https://viewer.example", "sec-fetch-site": "cross-site"}
    answer = house.browser().post("/dicom-web/studies", headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://viewer.example")


# ------------------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("path", ["/seen", "/nowhere", "/broken", "/login", "/health/live", "/api/jobs"])
def test_every_answer_tells_a_browser_to_trust_nothing(make: Any, path: str) -> None:
    """Also an error's, and that of a fault."""
    answer = abroad(make).browser().get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy and "unsafe" not in policy
    wanted = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin", "cache-control": "no-store"}
    assert {name: answer.headers[name] for name in wanted} == wanted
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert "Marked" not in answer.text


def test_the_viewer_may_what_its_decoders_need(make: Any) -> None:
    """WebAssembly, workers from blobs, and shared memory (COOP, COEP); still no script of a page's own."""
    answer = make().browser().get("/ohif/index.html")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy and "worker-src 'self' blob:" in policy
    assert (answer.headers["cross-origin-opener-policy"], answer.headers["cross-origin-embedder-policy"]) == ("same-origin", "require-corp")
    assert "strict-transport-security" not in answer.headers
    assert make().browser().get("/static/a.css").headers["cache-control"] == "private, max-age=9"


# ---------------------------------------------------------------------------------------------------------------------- CORS


def preflight(client: TestClient, path: str, origin: str) -> Any:
    return client.options(path, headers={"origin": origin, "access-control-request-method": "GET", "access-control-request-headers": "authorization"})


def test_another_origin_that_the_site_named_may_ask_and_read(make: Any) -> None:
    """OHIF on another host: the preflight is answered to nobody, the headers that it reads are exposed, and no cookie goes along."""
    house = abroad(make, cors=["https://viewer.example"])
    client = house.browser()
    answer = preflight(client, "/dicom-web/studies", "https://viewer.example")
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "https://viewer.example")
    assert {"Authorization", "Accept", "Content-Type"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    read = client.get("/dicom-web/studies", headers={"origin": "https://viewer.example"})
    assert (read.status_code, read.headers["access-control-allow-origin"], read.headers["vary"]) == (401, "https://viewer.example", "Origin")
    assert {"Warning", "Location", "Content-Location"} <= set(read.headers["access-control-expose-headers"].split(", "))
    assert "access-control-allow-credentials" not in read.headers


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("/dicom-web/studies", "https://evil.example"),
        ("/dicom-web/studies", "null"),
        ("/seen", "https://viewer.example"),
        ("/dicom-webx", "https://viewer.example"),
    ],
)
def test_no_other_origin_reads_anything(make: Any, path: str, origin: str) -> None:
    client = abroad(make, cors=["https://viewer.example"]).browser()
    assert preflight(client, path, origin).status_code == 403
    assert "access-control-allow-origin" not in client.get(path, headers={"origin": origin}).headers


def test_a_page_that_looks_by_itself_keeps_no_session_going(make: Any) -> None:
    """Else a page that is left open in a reading room never ends its session (`session_idle_s`)."""
    house = abroad(make)
    client = house.logged_in("viewer")
    idle_s = house.web.site.config.web.session_idle_s
    for _ in range(3):
        house.at[0] += idle_s / 2.5
        last = client.get("/seen", headers={"x-dicom-node-looks": "1"})
    assert last.status_code == 401
    client = house.logged_in("viewer")
    for _ in range(3):
        house.at[0] += idle_s / 2.5
        assert client.get("/seen").status_code == 200


def test_many_who_log_in_at_once_do_not_stop_the_web() -> None:
    """Those beyond a few are told to come again, and hold no thread."""
    places = [passwords._queue.acquire(blocking=False) for _ in range(10)]
    try:
        assert all(places)
        with pytest.raises(Transient, match="at once"):
            passwords.is_password(HASH, PASSWORD)
    finally:
        for _ in places:
            passwords._queue.release()
    assert passwords.is_password(HASH, PASSWORD)


def test_a_clock_that_is_put_back_keeps_nobody_waiting() -> None:
    now = [1e9]
    tries = Throttle(lambda: now[0])
    for _ in range(PER_NAME):
        assert not tries.take("anna", "10.0.0.1")
    now[0] -= 86400.0
    assert not tries.take("anna", "10.0.0.1")
