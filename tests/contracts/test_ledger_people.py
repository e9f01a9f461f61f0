"""People, tokens and sessions in the ledger: who is let in, and who no longer."""

import pytest
from sqlalchemy import select, text

from dicom_node.domain import Rejected
from dicom_node.store import Store
from dicom_node.store.tables import event

NOW = 1_700_000_000.0
DAY_S = 86400.0


@pytest.fixture
def anna(store) -> str:
    store.people.add("anna", "operator", password="hash-1", who="root", now=NOW)
    return "anna"


def kinds(store) -> list[str]:
    with store.database.read() as connection:
        return list(connection.execute(select(event.c.kind).order_by(event.c.id)).scalars())


def begin(store, name="anna", **more) -> str:
    return store.sessions.begin(name, now=NOW, **({"lasts_s": DAY_S} | more))


def find(store, secret, *, after_s=0.0, idle_s=3600.0):
    return store.sessions.find(secret, idle_s=idle_s, now=NOW + after_s)


# ---------------------------------------------------------------------------------------------------------------- people


def test_a_person_is_added_once(store, anna):
    """And its hash is given to whoever compares a password."""
    with pytest.raises(Rejected, match="there already"):
        store.people.add("anna", "admin", who="root", now=NOW)
    assert (store.people.password("anna"), store.people.password("berta")) == ("hash-1", "")
    (one,) = store.people.list(now=NOW)
    assert (one.name, one.role, one.has_password, one.disabled, one.tokens, one.seen_at) == ("anna", "operator", True, False, 0, None)
    assert kinds(store) == ["person added"]


def test_that_nobody_is_known_is_remembered_until_somebody_commits(store, storage, address):
    """Also in another process: from then on this machine alone may no longer do everything. PostgreSQL is asked each time."""
    assert store.people.any() is False
    assert store.people.remembered() is (False if store.database.is_sqlite else None)
    other = Store.open(storage, address)
    other.people.add("pump", "service", who="root", now=NOW)
    assert (store.people.remembered(), store.people.any()) == (None, False)
    other.people.add("anna", "admin", who="root", now=NOW)
    assert (store.people.remembered(), store.people.any()) == (None, True)
    other.close()


@pytest.mark.parametrize("name", ["", "Anna", "anna@hospital", "local", "a b", "a" * 65, "-a", "a\n", "ann\x00a"])
def test_a_name_is_plain(store, name):
    """What stands in a journal is not to be mistaken for something else, or for the identity provider's."""
    with pytest.raises(Rejected, match="a name has"):
        store.people.add(name, "viewer", who="root", now=NOW)


def test_a_role_is_one_that_exists_and_of_the_same_kind(store, anna):
    """A service has no password, and a person no token."""
    store.people.set_role("anna", "viewer", who="root", now=NOW)
    for name, role, why in (("anna", "king", "no such role"), ("anna", "service", "does not become"), ("berta", "viewer", "nobody")):
        with pytest.raises(Rejected, match=why):
            store.people.set_role(name, role, who="root", now=NOW)
    store.people.add("pump", "service", who="root", now=NOW)
    with pytest.raises(Rejected, match="is a service"):
        store.people.set_password("pump", "hash", who="root", now=NOW)
    with pytest.raises(Rejected, match="is no service"):
        store.people.token("anna", ["api.read"], expires_at=NOW + 1, who="root", now=NOW)


def test_a_service_is_no_person_who_logs_in(store):
    """As long as there are none but services, nobody is known."""
    store.people.add("pump", "service", who="root", now=NOW)
    assert not store.people.any()
    assert begin(store, "pump") is None
    store.people.add("anna", "viewer", who="root", now=NOW)
    store.people.set_disabled("anna", True, who="root", now=NOW)
    assert store.people.any()


def test_a_better_hash_does_not_undo_a_change(store, anna):
    store.people.rehash("anna", "hash-1", "hash-2")
    store.people.rehash("anna", "hash-1", "hash-3")
    assert store.people.password("anna") == "hash-2"


# ---------------------------------------------------------------------------------------------------------------- tokens


def test_a_token_lets_a_service_in_until_it_expires(store):
    """It is shown once: the ledger holds nothing that it could be made from."""
    store.people.add("pump", "service", who="root", now=NOW)
    token = store.people.token("pump", ["dicomweb.read"], expires_at=NOW + DAY_S, who="root", now=NOW)
    bearer = store.people.bearer(token, now=NOW)
    assert (bearer.name, bearer.role, bearer.scopes) == ("pump", "service", {"dicomweb.read"})
    assert [(one.tokens, one.seen_at) for one in store.people.list(now=NOW)] == [(1, NOW)]
    assert store.people.bearer(token, now=NOW + DAY_S) is None
    assert store.people.bearer(token + "x", now=NOW) is None
    with store.database.read() as connection:
        rows = [str(row) for table in ("person", "access_token", "event") for row in connection.execute(text(f"SELECT * FROM {table}"))]
    assert not any(token in row for row in rows)


def test_a_token_is_worthless_once_it_is_revoked_or_its_service_disabled(store):
    store.people.add("pump", "service", who="root", now=NOW)
    first, second = (store.people.token("pump", ["api.read"], expires_at=NOW + DAY_S, who="root", now=NOW) for _ in range(2))
    store.people.set_disabled("pump", True, who="root", now=NOW)
    assert store.people.bearer(first, now=NOW) is None
    store.people.set_disabled("pump", False, who="root", now=NOW)
    assert store.people.bearer(second, now=NOW)
    assert store.people.revoke("pump", who="root", now=NOW) == 2
    assert store.people.bearer(first, now=NOW) is None


@pytest.mark.parametrize("scopes", [[], ["api.everything"], ["api.read", "root"]])
def test_a_token_has_scopes_that_exist(store, scopes):
    store.people.add("pump", "service", who="root", now=NOW)
    with pytest.raises(Rejected, match="scopes"):
        store.people.token("pump", scopes, expires_at=NOW + 1, who="root", now=NOW)


# -------------------------------------------------------------------------------------------------------------- sessions


def test_a_session_is_found_by_its_secret_alone(store, anna):
    """The ledger holds its hash: who reads a copy of it is not logged in."""
    secret = begin(store)
    assert (find(store, secret).name, find(store, secret).role) == ("anna", "operator")
    with store.database.read() as connection:
        (kept,) = connection.execute(text("SELECT digest FROM web_session")).scalars()
    assert find(store, kept) is None
    assert find(store, "") is None
    assert kinds(store) == ["person added", "logged in"]


def test_a_session_ends_when_nothing_is_done_and_in_any_case(store, anna):
    secret = begin(store, lasts_s=10_000.0)
    assert find(store, secret, after_s=3599)
    assert find(store, secret, after_s=3599 + 3599), "what is used goes on"
    assert find(store, secret, after_s=10_001) is None, "but not for ever"
    idle = begin(store)
    assert find(store, idle, after_s=3601) is None


def test_a_changed_role_counts_at_once(store, anna):
    secret = begin(store)
    store.people.set_role("anna", "viewer", who="root", now=NOW)
    assert find(store, secret).role == "viewer"


@pytest.mark.parametrize("change", ["disable", "password", "log out", "end all"])
def test_sessions_end_with_what_they_stand_on(store, anna, change):
    """Also when a disabled person is let in again."""
    secret = begin(store)
    if change == "disable":
        store.people.set_disabled("anna", True, who="root", now=NOW)
        assert begin(store) is None
        store.people.set_disabled("anna", False, who="root", now=NOW)
    elif change == "password":
        store.people.set_password("anna", "hash-2", who="root", now=NOW)
    elif change == "log out":
        assert store.sessions.end(secret, now=NOW) == "anna"
        assert store.sessions.end(secret, now=NOW) == ""
    else:
        assert store.sessions.end_all("anna", who="root", now=NOW) == 1
    assert find(store, secret) is None


def test_who_logs_in_again_has_a_new_session_instead_of_the_old(store, anna):
    """Whoever knew the old one has nothing."""
    old = begin(store)
    new = begin(store, instead_of=old)
    assert (find(store, old), find(store, new).name) == (None, "anna")


def test_one_whom_the_identity_provider_names_has_the_role_it_gave(store):
    secret = begin(store, "berta@id.example", role="viewer")
    assert (find(store, secret).name, find(store, secret).role) == ("berta@id.example", "viewer")
    assert store.people.list(now=NOW) == ()


def test_a_person_has_so_many_sessions_and_no_more(store, anna):
    secrets = [store.sessions.begin("anna", lasts_s=DAY_S, now=NOW + number) for number in range(22)]
    alive = [bool(find(store, secret, after_s=30)) for secret in secrets]
    assert alive == [False, False] + [True] * 20


def test_a_session_survives_a_restart(store, anna, storage, address):
    secret = begin(store)
    store.close()
    again = type(store).open(storage, address)
    assert again.sessions.find(secret, idle_s=3600.0, now=NOW).name == "anna"
    again.close()
