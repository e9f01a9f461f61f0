"""The identity provider of the house: whose tokens are believed, and who is let in by a browser; against one that is a small program."""

import base64
import hmac
import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey, RSAKey

from dicom_node.cli import operate
from dicom_node.config import NodeConfig, Oidc, Site, load_site
from dicom_node.domain import ConfigError, Transient
from dicom_node.web.access.fetch import Fetcher
from dicom_node.web.access.provider import Provider as Ours
from dicom_node.web.access.provider import name_of, role_of
from dicom_node.web.access.roles import Role
from tests.browsing import NOW, House, abroad, houses
from tests.certificates import authority, signed
from tests.provider import AUDIENCE, CLIENT, EC_1, RSA_1, RSA_2, SECRET, Provider, serving


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    with houses(tmp_path) as made:
        yield made


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as one:
        yield one


@pytest.fixture
def house(make: Any, provider: Provider, tmp_path: Path) -> House:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    return abroad(make, oidc=provider.oidc(client_secret_file=secret))


def ask(house: House, token: str, path: str = "/seen") -> Any:
    return house.browser().get(path, headers={"authorization": f"Bearer {token}"})


# ------------------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("oidc", "wants"),
    [
        ({"issuer": "http://id.example"}, "not reached over https"),
        ({"issuer": "https://id.example?x=1"}, "no issuer"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"roles": {"x": "king"}}, "roles"),
        ({"request": ["profile"]}, "openid"),
    ],
)
def test_a_provider_that_could_not_be_trusted_is_not_configured(oidc: dict[str, Any], wants: str) -> None:
    """No key is shared with it, and nobody stands between."""
    with pytest.raises(ConfigError, match=wants):
        load_site(None, web={"oidc": {"issuer": "https://id.example", "client_id": "x"} | oidc})


def test_authorities_that_are_none_are_told_at_start(make: Any, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("x")
    with pytest.raises(ConfigError, match=r"web\.oidc\.authorities"):
        make(oidc={"issuer": "https://id.example", "client_id": "x", "authorities": tmp_path / "no.pem"})


def test_with_a_provider_this_machine_logs_in_too(make: Any, provider: Provider) -> None:
    assert make(oidc=provider.oidc()).browser().get("/seen").status_code == 401


def test_check_tries_what_people_need_to_log_in(provider: Provider, tmp_path: Path) -> None:
    """The provider, or somebody who could log in, and the certificate."""
    shown = signed(authority(tmp_path, "root"), tmp_path, "web")
    web = {"host": "0.0.0.0", "names": ["n.example"], "tls": {"certificate": shown.certificate, "key": shown.key}}

    def rows(**more: Any) -> dict[str, tuple[bool, str]]:
        config = NodeConfig.model_validate({"node": {"storage": tmp_path / "data"}, "web": web | more})
        return {what: (ok, says) for what, ok, says, _ in operate._check_web(Site(config=config, models={}))}

    found = rows(oidc=provider.oidc())
    assert found["identity provider"] == (True, f"{provider.issuer}: 3 keys")
    assert found["TLS certificate of the web"][0]
    provider.redirects = True
    assert not rows(oidc=provider.oidc())["identity provider"][0]
    assert rows()["people"] == (False, "nobody could log in")


# ------------------------------------------------------------------------------------------------------------------- tokens


def test_a_token_lets_a_person_in_by_its_role_and_a_program_by_its_scopes(house: House, provider: Provider) -> None:
    """RFC 9068; a person's token that names some of the node's scopes is good for those alone."""
    assert ask(house, provider.token(NOW, roles=["radiology", "else"])).json()["name"] == "anna@127.0.0.1"
    assert ask(house, provider.token(NOW, key=EC_1, algorithm="ES256", roles="radiology it"), "/ruled").status_code == 403
    assert ask(house, provider.token(NOW, algorithm="PS256", roles=["radiology"], aud=["x", AUDIENCE])).status_code == 200
    service = provider.token(NOW, scope="openid dicomweb.read", roles=["bots"])
    assert [ask(house, service, path).status_code for path in ("/dicom-web/studies", "/api/jobs", "/seen")] == [200, 403, 403]
    assert ask(house, provider.token(NOW, scp=["dicomweb.read"]), "/dicom-web/studies").status_code == 200
    assert ask(house, provider.token(NOW), "/dicom-web/studies").status_code == 403, "neither role nor scope"
    narrow = provider.token(NOW, roles=["it"], scope="api.read")
    assert [ask(house, narrow, path).status_code for path in ("/api/jobs", "/dicom-web/studies", "/seen")] == [200, 403, 403]


def b64(said: Any) -> str:
    return base64.urlsafe_b64encode(said if isinstance(said, bytes) else json.dumps(said).encode()).rstrip(b"=").decode()


def unsigned(provider: Provider, algorithm: str = "none") -> str:
    return f"{b64({'alg': algorithm, 'typ': 'JWT', 'kid': 'rsa-1'})}.{b64(provider.claims(NOW, roles=['it']))}."


def shared_secret(provider: Provider, secret: bytes) -> str:
    """Sign with what is public as if it were a secret: a verifier that believes `alg` takes it (RFC 8725 2.1)."""
    said = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa-1'})}.{b64(provider.claims(NOW, roles=['it']))}"
    return f"{said}.{b64(hmac.digest(secret, said.encode(), 'sha256'))}"


def tampered(provider: Provider) -> str:
    head, _, signature = provider.token(NOW, roles=["radiology"]).split(".")
    return f"{head}.{b64(provider.claims(NOW, roles=['it']))}.{signature}"


FORGED: dict[str, Callable[[Provider], str]] = {
    "expired": lambda p: p.token(NOW, exp=int(NOW) - 61),
    "not valid yet": lambda p: p.token(NOW, nbf=int(NOW) + 61),
    "made in the future": lambda p: p.token(NOW, iat=int(NOW) + 61),
    "without an end": lambda p: p.token(NOW, exp=None),
    "an end that is no number": lambda p: p.token(NOW, exp="never"),
    "of another issuer": lambda p: p.token(NOW, iss="https://evil.example"),
    "without an issuer": lambda p: p.token(NOW, iss=None),
    "for somebody else": lambda p: p.token(NOW, aud="other"),
    "for nobody": lambda p: p.token(NOW, aud=None),
    "an ID token, which is for the client": lambda p: p.token(NOW, aud=CLIENT),
    "of nobody": lambda p: p.token(NOW, sub=None),
    "not signed": unsigned,
    "not signed, in capitals": lambda p: unsigned(p, "NONE"),
    "RS256 without a signature": lambda p: unsigned(p, "RS256"),
    "signed with the public key as a secret": lambda p: shared_secret(p, RSA_1.as_pem(private=False)),
    "signed with nothing as a secret": lambda p: shared_secret(p, b"0" * 32),
    "by an algorithm that is not listed": lambda p: p.token(NOW, algorithm="RS512"),
    "by another key of the same name": lambda p: p.token(NOW, key=RSAKey.generate_key(2048, {"kid": "rsa-1"})),
    "by a key that nobody knows": lambda p: p.token(NOW, key=RSA_2),
    "by the key of another kind": lambda p: p.token(NOW, key=ECKey.generate_key("P-256", {"kid": "rsa-1"}), algorithm="ES256"),
    "with its own key in its header": lambda p: p.token(NOW, key=RSA_2, header={"jwk": RSA_2.as_dict(private=False), "kid": "rsa-1"}),
    "with the address of its key": lambda p: p.token(NOW, key=RSA_2, header={"jku": f"{p.issuer}/evil"}),
    "with something critical that is not known": lambda p: p.token(NOW, roles=["it"]).replace(
        p.token(NOW).split(".")[0], b64({"alg": "RS256", "kid": "rsa-1", "crit": ["x"], "x": 1})
    ),
    "changed": tampered,
    "cut off": lambda p: p.token(NOW)[:-10],
    "of another form": lambda p: "a.b.c.d.e",
    "of no form": lambda p: "..",
    "a header that is no object": lambda p: f"{b64([1])}.{b64({})}.{b64(b'x')}",
    "claims that are no object": lambda p: f"{b64({'alg': 'RS256', 'kid': 'rsa-1'})}.{b64([1])}.{b64(b'x')}",
    "a key name that is no text": lambda p: f"{b64({'alg': 'RS256', 'kid': [1]})}.{b64({})}.{b64(b'x')}",
    "an algorithm that is no text": lambda p: f"{b64({'alg': ['RS256'], 'kid': 'rsa-1'})}.{b64({})}.{b64(b'x')}",
}


@pytest.mark.parametrize("what", FORGED)
def test_a_token_that_is_not_the_providers_for_us_and_now_lets_nobody_in(house: House, provider: Provider, what: str) -> None:
    """RFC 8725: 401, and nothing that it names is fetched."""
    token = FORGED[what](provider)
    answer = ask(house, token)
    assert (answer.status_code, "invalid_token" in answer.headers["www-authenticate"]) == (401, True)
    assert set(provider.asked) <= {"/.well-known/openid-configuration", "/jwks_uri"}


def test_clocks_may_differ_by_a_minute(house: House, provider: Provider) -> None:
    assert ask(house, provider.token(NOW, exp=int(NOW) - 30, nbf=int(NOW) + 30, iat=int(NOW) + 30, roles=["it"])).status_code == 200


def test_without_an_audience_no_token_of_the_provider_is_taken(make: Any, provider: Provider) -> None:
    house = abroad(make, oidc=provider.oidc(audience=""))
    assert ask(house, provider.token(NOW, aud="", roles=["it"])).status_code == 401
    assert provider.asked == []


@pytest.mark.parametrize("published", [{"use": "enc"}, {"alg": "PS256"}, {"kty": "oct", "k": "AAAA"}, {"n": "AQAB"}, {"n": 1}])
def test_a_key_that_is_not_for_this_is_not_used(house: House, provider: Provider, published: dict[str, Any]) -> None:
    """RFC 7517 4.2, 4.4; and no RSA key of less than 2048 bits."""

    class Published:
        def as_dict(self, private: bool) -> dict[str, Any]:
            return RSA_1.as_dict(private=False) | published

    provider.keys = [Published()]  # type: ignore[list-item]
    assert ask(house, provider.token(NOW, roles=["it"])).status_code == 401


# --------------------------------------------------------------------------------------------------------------------- keys


def test_a_new_key_is_learned_when_a_token_names_it_but_not_by_asking_all_the_time(house: House, provider: Provider) -> None:
    """Whoever sends tokens with invented keys does not make the node call the provider for each."""
    assert ask(house, provider.token(NOW, roles=["it"])).status_code == 200
    provider.keys = [RSA_2]
    house_asked = len(provider.asked)
    for _ in range(3):
        assert ask(house, provider.token(NOW, key=RSA_2, roles=["it"])).status_code == 401
    assert len(provider.asked) == house_asked
    house.at[0] += 31
    assert ask(house, provider.token(NOW, key=RSA_2, roles=["it"])).status_code == 200
    assert ask(house, provider.token(NOW, roles=["it"])).status_code == 401, "the old one counts no more"


def test_documents_are_fetched_again_after_an_hour_and_kept_where_that_fails(house: House, provider: Provider) -> None:
    ask(house, provider.token(NOW, roles=["it"]))
    house.at[0] += 3601
    provider.redirects = True
    assert ask(house, provider.token(NOW + 3601, roles=["it"])).status_code == 200
    provider.redirects = False
    provider.keys = [RSA_2]
    house.at[0] += 31
    assert ask(house, provider.token(NOW + 3601, roles=["it"])).status_code == 401


def test_a_provider_that_was_never_reached_is_waited_for(house: House, provider: Provider) -> None:
    """503 and not 401: the token may be good."""
    provider.redirects = True
    answer = ask(house, provider.token(NOW, roles=["it"]))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "it answers 302" in answer.json()["error"]
    provider.redirects = False
    assert ask(house, provider.token(NOW, roles=["it"])).status_code == 200


def test_a_provider_that_calls_itself_otherwise_is_not_believed(house: House, provider: Provider) -> None:
    """OpenID Connect Discovery 4.3."""
    provider.document = {"issuer": "https://evil.example"}
    assert ask(house, provider.token(NOW, roles=["it"])).status_code == 503


@pytest.mark.parametrize(("body", "why"), [(b"x", "not JSON"), (b"[]", "no JSON object"), (b'"' + b"x" * 300_000 + b'"', "too long")])
def test_what_is_fetched_is_bounded_and_what_it_should_be(provider: Provider, body: bytes, why: str) -> None:
    provider.answer = lambda *_: (200, body, {})  # type: ignore[method-assign, assignment]
    with pytest.raises(Transient, match=why):
        Fetcher(None).get(f"{provider.issuer}/")


@pytest.mark.parametrize("address", ["http://id.example/", "file:///etc/passwd", "ftp://127.0.0.1/", "", "/etc/passwd", "https://[", "http://[::1/"])
def test_nothing_is_fetched_but_over_https(address: str) -> None:
    """Also where the provider's own document names it."""
    with pytest.raises(Transient, match="its address is"):
        Fetcher(None).get(address)


# ----------------------------------------------------------------------------------------------------------------- who is who


def test_roles_are_found_where_the_site_says() -> None:
    """Keycloak nests them; the highest counts."""
    oidc = load_site(
        None,
        web={"oidc": {"issuer": "https://id.example", "client_id": "x", "roles_claim": "realm_access.roles", "roles": {"a": "viewer", "b": "admin"}}},
    ).config.web.oidc
    assert oidc is not None
    assert role_of({"realm_access": {"roles": ["a", "b", 3]}}, oidc) is Role.ADMIN
    assert role_of({"realm_access.roles": "a"}, oidc) is Role.VIEWER
    for claims in ({}, {"realm_access": 1}, {"realm_access": {"roles": {"a": 1}}}, {"realm_access": {"roles": ["A"]}}):
        assert role_of(claims, oidc) is None
    names = [name_of({"preferred_username": said, "sub": "7"}, oidc) for said in ("anna", "anna@house", "", 5, "a\n\x00b", "x" * 99)]
    assert names == ["anna@id.example", "anna@house", "7@id.example", "7@id.example", "ab@id.example", f"{'x' * 64}@id.example"]


# ----------------------------------------------------------------------------------------------------------------- browsers


def visit(address: str) -> str:
    """Go to the provider as a browser would, and return where it sends one back to."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 302
    return answer.headers["Location"]


@pytest.fixture
def now_house(house: House) -> House:
    """The provider's clock is the machine's."""
    house.at[0] = time.time()
    return house


def test_a_person_logs_in_with_the_account_of_the_house(now_house: House, provider: Provider) -> None:
    """Authorization code with PKCE, state and nonce (OpenID Connect Core 3.1, RFC 7636)."""
    client = now_house.browser()
    assert "/login/provider?next=%2Fseen%3Fa%3Db" in client.get("/login?next=/seen%3Fa%3Db").text
    away = client.get("/login/provider?next=/seen%3Fa%3Db")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(away.headers["location"]).query).items()}
    assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
    assert asked["redirect_uri"] == "https://node.example/login/callback"
    back = client.get(visit(away.headers["location"]))
    assert (back.status_code, back.headers["location"]) == (303, "/seen?a=b")
    assert client.get("/seen").json()["name"] == "anna@127.0.0.1"
    assert client.get("/ruled").status_code == 403
    assert "__Host-dicom-node-flow" not in client.cookies


def test_an_answer_is_good_once_and_for_the_browser_that_asked(now_house: House, provider: Provider) -> None:
    """Log-in CSRF: somebody's own answer, sent to another's browser, logs nobody in."""
    client, other = now_house.browser(), now_house.browser()
    back = visit(client.get("/login/provider").headers["location"])
    assert other.get(back).status_code == 403
    other.get("/login/provider")
    assert other.get(back).status_code == 403
    assert client.get(back).status_code == 303
    assert client.get(back).status_code == 403


@pytest.mark.parametrize("change", ["state=x", "iss=https://evil.example", "code=other", "error"])
def test_an_answer_that_was_changed_lets_nobody_in(now_house: House, change: str) -> None:
    """RFC 6749 10.12, RFC 9207."""
    client = now_house.browser()
    back = visit(client.get("/login/provider").headers["location"])
    query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    name, _, value = change.partition("=")
    changed = {"error": "access_denied", "state": query["state"]} if change == "error" else query | {name: value}
    answer = client.get("/login/callback", params=changed)
    assert answer.status_code in (403, 503)
    assert client.get("/seen").status_code == 401


@pytest.mark.parametrize(
    "claims",
    [{"nonce": "x"}, {"nonce": None}, {"aud": "other"}, {"aud": [CLIENT, "other"], "azp": "other"}, {"exp": 1}, {"iss": "https://evil.example"}],
)
def test_an_id_token_that_is_not_about_this_log_in_lets_nobody_in(now_house: House, provider: Provider, claims: dict[str, Any]) -> None:
    """OpenID Connect Core 3.1.3.7."""
    provider.changed = claims
    client = now_house.browser()
    answer = client.get(visit(client.get("/login/provider").headers["location"]))
    assert (answer.status_code, client.get("/seen").status_code) == (403, 401)


@pytest.mark.parametrize("roles", [[], ["unknown"], ["bots"], None, 5])
def test_who_has_no_role_here_is_told_so(now_house: House, provider: Provider, roles: Any) -> None:
    """And a program does not log in by a browser."""
    provider.person = {"sub": "17", "roles": roles}
    client = now_house.browser()
    answer = client.get(visit(client.get("/login/provider").headers["location"]))
    assert answer.status_code == 403
    assert "no role here" in answer.text


def test_a_provider_that_is_not_reached_is_told_on_the_page(now_house: House, provider: Provider) -> None:
    provider.redirects = True
    answer = now_house.browser().get("/login/provider")
    assert answer.status_code == 503
    assert "of no use now" in answer.text


@pytest.mark.parametrize("kept", ["", "x", "W10", b64([1, 2, 3, 4]), b64({"a": 1}), "\xff"])
def test_a_cookie_that_nobody_made_is_no_log_in_under_way(now_house: House, kept: str) -> None:
    answer = now_house.browser().get("/login/callback?state=&code=x", headers={"cookie": f"__Host-dicom-node-flow={kept}".encode("latin-1")})
    assert answer.status_code == 403


def test_without_passwords_only_the_house_is_offered(make: Any, provider: Provider) -> None:
    house = abroad(make, oidc=provider.oidc(), local_users=False)
    page = house.browser().get("/login").text
    assert 'type="password"' not in page and "/login/provider" in page


def test_who_asks_while_the_provider_is_asked_does_not_wait(provider: Provider) -> None:
    """A provider that hangs would else stop the whole web: each token, even an invented one, would hold a thread until its turn."""
    one = Ours(Oidc(**provider.oidc()), lambda: NOW)
    with one._lock, pytest.raises(Transient, match="just now"):
        one.reach()
    assert one.reach() > 0


def test_a_clock_that_is_put_back_does_not_keep_old_keys(provider: Provider) -> None:
    """It may have been a year ahead when the node started."""
    now = [NOW + 3e7]
    one = Ours(Oidc(**provider.oidc()), lambda: now[0])
    one.reach()
    now[0], provider.keys = NOW, []
    assert one.reach() == 1, "one of the future, which the provider always has"
