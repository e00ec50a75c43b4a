"""The routes of the extension, asked over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from skillbus import embed
from skillbus.jupyter.routes import ROUTES, PolicyGated, StopRoute
from tests.servers import RealServer

Fetch = Callable[..., Awaitable[Any]]
STOPS = ["/notebook-intelligence/skills/reconciler/stop", "/skillbus/reconciler/stop"]


async def status(jp_fetch: Fetch) -> dict[str, Any]:
    """What the status route says."""
    said: dict[str, Any] = json.loads((await jp_fetch("skillbus", "status")).body)
    return said


async def running(jp_fetch: Fetch) -> dict[str, Any]:
    """Wait until the pod runs and its first pass has ended."""
    for _ in range(1000):
        said = await status(jp_fetch)
        if said["state"] == "running" and said["last_pass"]:
            return said
        await asyncio.sleep(0.02)
    raise AssertionError(said)


async def post(jp_fetch: Fetch, path: str, **more: Any) -> Any:
    """POST to a path of the server."""
    return await jp_fetch(*path.strip("/").split("/"), method="POST", body="", **more)


def said_by(error: HTTPClientError) -> Any:
    """The body of a refusal."""
    assert error.response is not None
    return json.loads(error.response.body)


@pytest.mark.parametrize("path", STOPS)
async def test_stop_answers_the_exact_contract(environment: Path, jp_fetch: Fetch, path: str) -> None:
    """Both URLs stop the pod for good, with exactly two fields; a second call answers the same shape."""
    await running(jp_fetch)
    first = await post(jp_fetch, path)
    second = await post(jp_fetch, path)
    assert (first.code, json.loads(first.body)) == (200, {"stopped": True, "was_running": True})
    assert (second.code, json.loads(second.body)) == (200, {"stopped": True, "was_running": False})
    assert first.headers["X-Skillbus-State"] == "stopped"
    assert (await status(jp_fetch))["causes"][0]["kind"] == "local"


def test_stop_is_outside_the_policy_by_structure() -> None:
    """The stop's class and its ancestors have no part in what a policy shuts; every other route has."""
    gated = {path: issubclass(route, PolicyGated) for path, route in ROUTES}
    assert {path for path, is_gated in gated.items() if not is_gated} == set(STOPS)
    assert PolicyGated not in StopRoute.__mro__
    assert not issubclass(PolicyGated, StopRoute)


@pytest.mark.parametrize(
    "environs", [{name: "  Force-OFF\n"} for name in ("NBI_SKILLS_MANAGEMENT_POLICY", "SKILLBUS_POLICY")]
)
async def test_under_force_off_nothing_passes_and_only_the_stop_answers(environment: Path, jp_fetch: Fetch) -> None:
    """A policy that was there at the start: no pass ever, the stop answers 200, every other route 403."""
    for path in STOPS:
        answer = await post(jp_fetch, path)
        assert json.loads(answer.body) == {"stopped": True, "was_running": False}
    for path, method in (("status", "GET"), ("events", "GET"), ("reconcile", "POST")):
        with pytest.raises(HTTPClientError) as refused:
            await jp_fetch("skillbus", path, method=method, **({"body": ""} if method == "POST" else {}))
        assert refused.value.code == 403
    assert not environment.exists()


@pytest.mark.parametrize(
    "environs",
    [
        {"NBI_SKILLS_MANAGEMENT_POLICY": value}
        for value in ("force_off", "forced-off", "off", "user-choice", "force-on", "")
    ],
)
async def test_other_policies_leave_it_running(environment: Path, jp_fetch: Fetch) -> None:
    """Only the one word stops."""
    assert (await running(jp_fetch))["state"] == "running"
    assert (environment / "one" / "SKILL.md").is_file()


async def test_a_policy_in_the_middle_stops_before_the_next_pass(
    environment: Path, monkeypatch: pytest.MonkeyPatch, jp_fetch: Fetch, jp_serverapp: Any
) -> None:
    """Set while the loop turns: the pass that is asked for next does not happen."""
    before = (await running(jp_fetch))["last_pass"]["id"]
    hosted = jp_serverapp.web_app.settings["skillbus_hosted"]
    monkeypatch.setenv("SKILLBUS_POLICY", "force-off")
    hosted.reconcile_now()
    assert await hosted.until(lambda: hosted.account().stopped, 10)
    assert hosted.account().last_pass.id == before
    assert hosted.account().causes[0].kind == "policy"


async def test_who_is_not_known_stops_nothing(environment: Path, jp_fetch: Fetch, jp_serverapp: Any) -> None:
    """Without a token each route refuses, and nothing is stopped."""
    await running(jp_fetch)
    for path, _ in ROUTES:
        is_post = "stop" in path or path.endswith("reconcile")
        extra = {"method": "POST", "body": ""} if is_post else {}
        with pytest.raises(HTTPClientError) as refused:
            await jp_fetch(*path.strip("/").split("/"), headers={"Authorization": "token no"}, **extra)
        assert refused.value.code == 403
    assert (await status(jp_fetch))["state"] == "running"


async def test_a_browser_needs_the_xsrf_token(environment: Path, jp_fetch: Fetch, jp_serverapp: Any) -> None:
    """A cookie alone, as another site would make a browser send it, stops nothing."""
    await running(jp_fetch)
    token = jp_serverapp.identity_provider.token
    first = await jp_fetch("api", "status", params={"token": token}, headers={"Authorization": ""})
    assert first.headers.get_list("Set-Cookie")
    cookies = "; ".join(one.split(";")[0] for one in first.headers.get_list("Set-Cookie"))
    for path in STOPS:
        with pytest.raises(HTTPClientError) as refused:
            await post(jp_fetch, path, headers={"Authorization": "", "Cookie": cookies})
        assert refused.value.code == 403
    assert (await status(jp_fetch))["state"] == "running"


async def test_an_authorizer_may_deny(
    environment: Path, jp_fetch: Fetch, jp_serverapp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for resource ``skillbus``; what it denies does not happen."""
    await running(jp_fetch)
    asked = []

    def is_authorized(handler: Any, user: Any, action: str, resource: str) -> bool:
        asked.append((action, resource))
        return action == "read"

    monkeypatch.setattr(jp_serverapp.authorizer, "is_authorized", is_authorized)
    for path in (*STOPS, "/skillbus/reconcile"):
        with pytest.raises(HTTPClientError) as refused:
            await post(jp_fetch, path)
        assert refused.value.code == 403
    assert (await status(jp_fetch))["state"] == "running"
    assert set(asked) == {("write", "skillbus"), ("read", "skillbus")}


@pytest.mark.parametrize("path", [*STOPS, "/skillbus/reconcile"])
async def test_a_get_stops_nothing(environment: Path, jp_fetch: Fetch, path: str) -> None:
    """405: a link, a prefetch or a crawler is no stop."""
    await running(jp_fetch)
    with pytest.raises(HTTPClientError) as refused:
        await jp_fetch(*path.strip("/").split("/"))
    assert refused.value.code == 405
    assert (await status(jp_fetch))["state"] == "running"


async def test_reconcile_goes_through_the_gate(environment: Path, jp_fetch: Fetch) -> None:
    """202 and another pass while it may; 409 once it is stopped, and none."""
    before = (await running(jp_fetch))["last_pass"]["id"]
    assert (await post(jp_fetch, "/skillbus/reconcile")).code == 202
    for _ in range(1000):
        if (said := await status(jp_fetch))["last_pass"]["id"] != before:
            break
        await asyncio.sleep(0.02)
    await post(jp_fetch, STOPS[0])
    with pytest.raises(HTTPClientError) as refused:
        await post(jp_fetch, "/skillbus/reconcile")
    assert refused.value.code == 409
    assert said_by(refused.value)["state"] == "stopped"
    assert (await status(jp_fetch))["last_pass"]["id"] == said["last_pass"]["id"]


async def test_persist_is_an_order_for_this_pod(environment: Path, armed: RealServer, jp_fetch: Fetch) -> None:
    """With ``persist=true`` the record and the tombstone stand when the answer comes, and name who asked."""
    await running(jp_fetch)
    answer = await jp_fetch("skillbus", "reconciler", "stop", method="POST", body="", params={"persist": "true"})
    assert answer.code == 200
    assert json.loads(answer.body) == {"stopped": True, "was_running": True}
    record = json.loads(str(armed.cli("GET", "skillbus:{prod}:killed:pod:ada"), "utf-8"))  # type: ignore[arg-type]
    assert record["id"] == answer.headers["X-Skillbus-Record"]
    assert record["via"] == "jupyter"
    assert list((environment.parent / "state").rglob("*")), "a tombstone"


async def test_persist_without_redis_is_not_claimed(
    environment: Path, armed: RealServer, jp_fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod stops all the same; that the record stands is not said: 202, and ``X-Skillbus-Recorded: false``."""
    monkeypatch.setattr("skillbus.jupyter.routes.STOP_WITHIN_S", 0.5)
    await running(jp_fetch)
    armed.freeze()
    try:
        answer = await jp_fetch("skillbus", "reconciler", "stop", method="POST", body="", params={"persist": "true"})
    finally:
        armed.thaw()
    assert (answer.code, json.loads(answer.body)["stopped"]) == (202, True)
    assert answer.headers["X-Skillbus-Recorded"] == "false"


async def test_status_names_the_managed_skills(environment: Path, jp_fetch: Fetch) -> None:
    """Each with its source and digest, as the lock has them."""
    await running(jp_fetch)
    (skill,) = (await status(jp_fetch))["skills"]
    assert (skill["name"], skill["root"]) == ("one", str(environment))
    assert len(skill["digest"]) == 64


async def test_events_tell_each_change(environment: Path, jp_fetch: Fetch) -> None:
    """The account at once, and again when the pod is stopped."""
    await running(jp_fetch)
    seen: list[str] = []
    stopped = asyncio.Event()

    def took(chunk: bytes) -> None:
        seen.append(chunk.decode())
        if '"state": "stopped"' in seen[-1]:
            stopped.set()

    stream = asyncio.ensure_future(jp_fetch("skillbus", "events", streaming_callback=took, request_timeout=30))
    while not seen:
        await asyncio.sleep(0.01)
    await post(jp_fetch, STOPS[1])
    await asyncio.wait_for(stopped.wait(), 10)
    assert "event: status" in seen[0]
    assert '"state": "running"' in seen[0]
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


@dataclass
class Stubborn:
    """A pass that heeds no checkpoint until it may end."""

    began: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)

    def work(self, checkpoint: Any) -> None:
        self.began.set()
        self.may_end.wait(60)


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubborn]:
    """The server's pod has such passes."""
    passes = Stubborn()
    monkeypatch.setattr("skillbus.jupyter.extension.skills_pod", lambda settings: embed(passes.work, settings=settings))
    yield passes
    passes.may_end.set()


async def test_what_was_not_seen_is_not_claimed(
    environment: Path, stubborn: Stubborn, jp_fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that does not end: 503 and ``stopped`` false within the bound, true once it has ended."""
    monkeypatch.setattr("skillbus.jupyter.routes.STOP_WITHIN_S", 0.3)
    assert await asyncio.to_thread(stubborn.began.wait, 20)
    with pytest.raises(HTTPClientError) as late:
        await post(jp_fetch, STOPS[0])
    assert late.value.code == 503
    assert said_by(late.value) == {"stopped": False, "was_running": True}
    stubborn.may_end.set()
    monkeypatch.setattr("skillbus.jupyter.routes.STOP_WITHIN_S", 5)
    assert json.loads((await post(jp_fetch, STOPS[0])).body) == {"stopped": True, "was_running": False}


@pytest.mark.parametrize("environs", [{"SKILLBUS_SKILLS_MANIFEST": ""}])
async def test_a_server_without_a_manifest_has_no_pod(environment: Path, jp_fetch: Fetch) -> None:
    """Nothing runs, which the stop may say; the status says what to set."""
    assert json.loads((await post(jp_fetch, STOPS[0])).body)["stopped"] is True
    said = await status(jp_fetch)
    assert said["state"] == "absent"
    assert "SKILLBUS_SKILLS_MANIFEST" in said["why"]


async def test_a_lock_that_cannot_be_read_is_told(environment: Path, jp_fetch: Fetch) -> None:
    """The status goes on to answer: what stands is told, and which folder's skills are not known."""
    await running(jp_fetch)
    for spoil in (lambda lock: lock.write_text("{"), lambda lock: (lock.unlink(), lock.mkdir())):
        spoil(environment / "skillbus.lock")
        said = await status(jp_fetch)
        assert (said["state"], said["skills"]) == ("running", [])
        assert str(environment) in said["errors"][0]


@pytest.mark.parametrize(
    ("trait", "word"),
    [
        ({"every_s": ["soon"]}, "SKILLBUS_EVERY_S"),
        ({"heartbeat_s": "soon"}, "SKILLBUS_HEARTBEAT_S"),
        ({"groups": 5}, "SKILLBUS_GROUPS"),
        ({"skills_redirect_hosts": {"a": 1}}, "SKILLBUS_SKILLS_REDIRECT_HOSTS"),
        ({"redis_password": ["hush"]}, "SKILLBUS_REDIS_PASSWORD"),
    ],
)
async def test_a_trait_that_cannot_be_used_is_named(
    environment: Path, trait: dict[str, Any], word: str, jp_configurable_serverapp: Any, jp_server_config: Any
) -> None:
    """No pod, one sentence with the setting's name and no secret; the notebook server itself serves."""
    app = jp_configurable_serverapp(config={**jp_server_config, "Skillbus": trait})
    hosted = app.web_app.settings["skillbus_hosted"]
    assert await hosted.until(lambda: hosted.account().state == "absent", 20)
    assert word in hosted.account().why, hosted.account().why
    assert "hush" not in hosted.account().why


@pytest.mark.parametrize("environs", [{"SKILLBUS_REDIS_USERNAME": "ada", "SKILLBUS_REDIS_PASSWORD": "s3cr3t-word"}])
async def test_no_secret_is_shown(environment: Path, jp_fetch: Fetch, caplog: pytest.LogCaptureFixture) -> None:
    """A login that Redis refuses: why is told, in the body, the headers and the log, without the password."""
    for _ in range(500):
        said = await status(jp_fetch)
        if said["state"] == "holding" and said["why"]:
            break
        await asyncio.sleep(0.02)
    answer = await post(jp_fetch, STOPS[1])
    assert said["state"] == "holding"
    assert "s3cr3t-word" not in json.dumps(said) + str(answer.headers) + caplog.text


async def test_two_who_stop_at_once_are_both_answered(environment: Path, jp_fetch: Fetch) -> None:
    """Each learns that it is stopped, and one of them that it ran."""
    await running(jp_fetch)
    answers = [json.loads(one.body) for one in await asyncio.gather(*(post(jp_fetch, path) for path in STOPS * 2))]
    assert all(answer["stopped"] for answer in answers)
    assert sum(answer["was_running"] for answer in answers) == 1


async def test_a_hostile_reason_is_one_header_of_words(environment: Path, armed: RealServer, jp_fetch: Fetch) -> None:
    """Line ends, control and bidi characters in a reason make no header of their own."""
    await running(jp_fetch)
    armed.publish("skillbus:prod:kill", "a\r\nX-Evil: 1\r\n\r\n<b>\x00\u202e")
    for _ in range(500):
        if (await status(jp_fetch))["state"] == "stopped":
            break
        await asyncio.sleep(0.02)
    answer = await post(jp_fetch, STOPS[0])
    assert "X-Evil" not in answer.headers
    assert answer.headers["X-Skillbus-State"] == "stopped"
    assert answer.headers["X-Skillbus-Why"].isprintable()
