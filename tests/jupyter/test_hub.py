"""A real JupyterHub with two users: each server's pod stops with the fleet, and no tenant can stop another's."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from tests.jupyter.hubs import ADMIN_PASSWORD, SECRET, Hub
from tests.servers import RawClient, RealServer, Refused

pytestmark = pytest.mark.timeout(400)


def login_of(locked: RealServer, pod_id: str) -> RawClient:
    """A connection with the very login that a tenant's server was given: the tenant can read it, too."""
    password = hmac.new(SECRET, pod_id.encode(), hashlib.sha256).hexdigest()
    return RawClient(locked.port, user=f"tenant-pod-{pod_id}", password=password)


def test_tenants_stop_with_the_fleet_and_cannot_stop_each_other(hub: Hub, locked: RealServer) -> None:
    """Two users; one tries what his login lets him; then one message of the fleet's stops both."""
    hub.spawn("ada")
    hub.spawn("bob", profile="gpu")
    for user in ("ada", "bob"):
        hub.until(user, "running")
    ada, bob = (hub.status(user)["pod"] for user in ("ada", "bob"))
    assert ada != bob
    assert hub.status("bob")["groups"] == ["notebooks", "gpu"]
    with login_of(locked, ada) as mine:
        for words in (
            ("SETNX", f"skillbus:{{prod}}:killed:pod:{bob}", "x"),
            ("SETNX", "skillbus:{prod}:killed", "x"),
            ("PUBLISH", "skillbus:prod:kill", "x"),
            ("PUBLISH", f"skillbus:prod:kill:pod:{bob}", "x"),
            ("HSET", f"skillbus:{{prod}}:pod:{bob}", "a", "b"),
            ("SET", "skillbus:{prod}:epoch", "9"),
        ):
            with pytest.raises(Refused, match="NOPERM"):
                mine.call(*words)
    locked.publish("skillbus:prod:kill", "token leaked", user="root", password=ADMIN_PASSWORD)
    for user in ("ada", "bob"):
        hub.until(user, "stopped")
    with login_of(locked, ada) as mine:
        for key in (f"skillbus:{{prod}}:killed:pod:{ada}", "skillbus:{prod}:killed"):
            with pytest.raises(Refused, match="NOPERM"):
                mine.call("DEL", key)


def test_a_tenant_can_stop_himself_for_good(hub: Hub, locked: RealServer) -> None:
    """``persist=true`` through the hub: his record stands, written with his own login; the other goes on."""
    hub.spawn("ada")
    hub.spawn("bob")
    for user in ("ada", "bob"):
        hub.until(user, "running")
    code, said = hub.call("POST", "/user/ada/skillbus/reconciler/stop?persist=true")
    assert (code, said) == (200, {"stopped": True, "was_running": True})
    key = f"skillbus:{{prod}}:killed:pod:{hub.status('ada')['pod']}"
    assert locked.cli("EXISTS", key, user="root", password=ADMIN_PASSWORD) == 1
    assert hub.status("bob")["state"] == "running"
