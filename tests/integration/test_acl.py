"""The ACL lines under attack, on every real server of this machine.

Each test starts a server from exactly what ``acl_lines`` prints (and a root user, to look on), so what is attacked is
what is shipped. After every attack the latch is compared: record, its TTL, epoch, and another pod's evidence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from skillbus.bus.embedded import ServerBinary
from skillbus.control.acl import AclUser, Role, acl_line, acl_lines
from tests.integration.acl_attacks import attacks
from tests.servers import RawClient, RealServer, Refused, Reply, Word

FLEET = "prod"
RECORD, GROUP_RECORD, POD_RECORD = (f"skillbus:{{prod}}:killed{suffix}" for suffix in ("", ":group:eu", ":pod:one"))
EPOCH, GROUP_EPOCH, POD_EPOCH = (f"skillbus:{{prod}}:epoch{suffix}" for suffix in ("", ":group:eu", ":pod:one"))
KILL, GROUP_KILL, POD_KILL = (f"skillbus:prod:kill{suffix}" for suffix in ("", ":group:eu", ":pod:one"))
HASH, OTHER_HASH = "skillbus:{prod}:pod:one", "skillbus:{prod}:pod:two"
SKILLS = "skillbus:{prod}:skills:" + "ab" * 32
ROSTER, AUDIT = "skillbus:{prod}:roster", "skillbus:{prod}:audit"
OTHER_BOTS = f"{AUDIT}:bot:pager"
ECHO, EVENTS = "skillbus:prod:echo:one", "skillbus:prod:events"
DRILL, SYNC = "skillbus:prod:drill", "skillbus:prod:sync"


either_default = pytest.mark.parametrize("server", ["resetchannels", "allchannels"], indirect=True)
"""Under either default for the channels of a new user."""


def sha256(text: str) -> str:
    """As Redis wants a password."""
    return hashlib.sha256(text.encode()).hexdigest()


def user(role: Role, name: str, pod_id: str = "", groups: tuple[str, ...] | None = None) -> AclUser:
    """A user whose password is its name."""
    return AclUser(role, name, sha256(name), pod_id=pod_id, groups=groups)


USERS = [
    user(Role.POD, "pod-one", "one", ("eu",)),
    user(Role.POD, "pod-shared"),
    user(Role.TENANT_POD, "tenant-one", "one", ("eu",)),
    user(Role.BOT, "bot"),
    user(Role.KEEPER, "keeper"),
    user(Role.CONSOLE, "console"),
    user(Role.VIEWER, "viewer"),
    user(Role.OPERATOR, "operator"),
    user(Role.ADMIN, "admin"),
]
PODS = ["pod-one", "pod-shared", "tenant-one"]
KEEPERS = ["keeper", "console"]
CANNOT_UNDO = [*PODS, "bot", *KEEPERS, "viewer", "operator"]
ROOT = f"user root reset on #{sha256('root')} ~* &* +@all\n"


@pytest.fixture(params=["resetchannels"])
def server(request: pytest.FixtureRequest, real_server_binary: ServerBinary, tmp_path: Path) -> Iterator[RealServer]:
    """A server with the whole set of users."""
    (tmp_path / "users.acl").write_text(acl_lines(FLEET, USERS) + ROOT)
    config = ("appendonly no", f"aclfile {tmp_path / 'users.acl'}", f"acl-pubsub-default {request.param}")
    with RealServer(real_server_binary, tmp_path / "server", *config) as server:
        yield server


@contextmanager
def logged_in(server: RealServer, name: str) -> Iterator[RawClient]:
    """A connection as this user."""
    with RawClient(server.port, user=name, password=name) as client:
        yield client


def attempt(client: RawClient, *words: Word) -> str:
    """``ok``, or the first word of the refusal."""
    try:
        client.call(*words)
    except Refused as refused:
        return str(refused).split()[0]
    return "ok"


def arm_and_kill(root: RawClient) -> None:
    """An armed fleet, killed in every scope, with two pods' evidence in it."""
    for epoch in (EPOCH, GROUP_EPOCH, POD_EPOCH):
        root.call("SET", epoch, 7)
    for record in (RECORD, GROUP_RECORD, POD_RECORD):
        root.call("SET", record, '{"reason":"token leaked"}')
    root.call("HSET", OTHER_HASH, "i1", '{"state":"stopped"}')
    root.call("XADD", AUDIT, "1-1", "what", "kill")
    root.call("XADD", OTHER_BOTS, "1-1", "kind", "kill")
    root.call("ZADD", ROSTER, 1, "one", 2, "two")
    root.call("SET", SKILLS, "told")


def latch(root: RawClient) -> list[Reply]:
    """All that no attack may change. The values of keys; of the records also type, time to live and memory place."""
    keys = (RECORD, GROUP_RECORD, POD_RECORD, EPOCH, GROUP_EPOCH, POD_EPOCH, SKILLS)
    told = [root.call(command, key) for key in keys for command in ("GET", "PTTL")]
    told += [root.call("XRANGE", stream, "-", "+") for stream in (AUDIT, OTHER_BOTS)]
    told += [root.call("PTTL", key) for key in (AUDIT, OTHER_BOTS, ROSTER)]
    return [*told, root.call("HGETALL", OTHER_HASH), root.call("PTTL", OTHER_HASH), root.call("ZRANGE", ROSTER, 0, -1)]


# --- every line is accepted -------------------------------------------------------------------------------------------


@either_default
def test_every_line_is_accepted_and_the_default_user_is_off(server: RealServer) -> None:
    """The server starts from the file, knows each user, and default cannot log in."""
    with logged_in(server, "root") as root:
        assert root.call("ACL", "USERS") == sorted(
            name.encode() for name in ["default", "root", *(u.name for u in USERS)]
        )
        listed = root.call("ACL", "LIST")
    assert isinstance(listed, list)
    assert any(line.startswith(b"user default off") for line in listed if isinstance(line, bytes))
    with pytest.raises(Refused, match="NOAUTH"):
        server.cli("GET", RECORD)


@either_default
def test_every_line_is_accepted_by_setuser_and_may_be_repeated(server: RealServer) -> None:
    """The words of a line are also what ACL SETUSER takes, and a second time changes nothing."""
    with logged_in(server, "root") as root:
        before = root.call("ACL", "LIST")
        for one in USERS:
            words = acl_line(FLEET, one).replace("(", "\n(").replace(")", ")\n").split("\n")
            rules = [part for word in words for part in ([word] if word.startswith("(") else word.split())]
            assert root.call("ACL", "SETUSER", *rules[1:]) == b"OK"
        assert root.call("ACL", "LIST") == before


# --- what each role must be able to do --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PODS)
def test_a_pod_can_do_its_job(server: RealServer, name: str) -> None:
    """Connect, subscribe all its channels at once, read, beat, echo, and write its own record under the epoch rule."""
    with logged_in(server, name) as pod, logged_in(server, name) as ears:
        pod.call("CLIENT", "SETNAME", "skillbus-one")
        role = pod.call("ROLE")
        assert isinstance(role, list)
        assert role[0] == b"master"
        channels = [KILL, GROUP_KILL, POD_KILL, DRILL, SYNC, ECHO]
        ears.send("SUBSCRIBE", *channels)
        assert [ears.read() for _ in channels] == [
            [b"subscribe", channel.encode(), number] for number, channel in enumerate(channels, 1)
        ]
        for words in heartbeat():
            assert attempt(pod, *words) == "ok", words
        assert ears.read() == [b"message", ECHO.encode(), b"e1"]
        assert pod.call("EXISTS", RECORD, GROUP_RECORD, POD_RECORD) == 0
        write_record(pod, POD_RECORD, POD_EPOCH)
        assert attempt(pod, "WATCH", POD_EPOCH) == "ok"
        assert attempt(pod, "UNWATCH") == "ok"
        ears.send("UNSUBSCRIBE", *channels)
        assert ears.read() == [b"unsubscribe", KILL.encode(), 5]
        assert server.cli("GET", POD_RECORD, user="root", password="root") == b"why"


def heartbeat() -> list[tuple[Word, ...]]:
    """The round trip of a beat, docs/protocol.md §3.3."""
    return [
        ("TIME",),
        *(("GET", epoch) for epoch in (EPOCH, GROUP_EPOCH, POD_EPOCH)),
        *(words for record in (RECORD, POD_RECORD) for words in (("EXISTS", record), ("GETRANGE", record, 0, 1023))),
        ("ZADD", ROSTER, 1, "one"),
        ("HSET", HASH, "i1", "{}"),
        ("HDEL", HASH, "i0"),
        ("EXPIRE", HASH, 60),
        ("HLEN", HASH),
        ("HGETALL", HASH),
        ("SETNX", SKILLS, "told"),
        ("PUBLISH", EVENTS, "one"),
        ("PUBLISH", ECHO, "e1"),
    ]


def write_record(client: RawClient, record: str, epoch: str) -> None:
    """As docs/protocol.md §4 says."""
    assert client.call("WATCH", epoch) == b"OK"
    assert client.call("GET", epoch) is None
    assert client.call("EXISTS", record) == 0
    for words in (("MULTI",), ("SETNX", record, "why"), ("GETRANGE", record, 0, 1023)):
        client.call(*words)
    assert client.call("EXEC") == [1, b"why"]


@pytest.mark.parametrize("name", ["pod-one", "pod-shared", *KEEPERS])
def test_a_pod_or_keeper_can_write_every_record_of_its_scopes(server: RealServer, name: str) -> None:
    """Fleet, group and pod: whoever hears a kill of a scope can make it durable."""
    with logged_in(server, name) as pod:
        for record, epoch in ((RECORD, EPOCH), (GROUP_RECORD, GROUP_EPOCH), (POD_RECORD, POD_EPOCH)):
            write_record(pod, record, epoch)


def test_a_tenant_can_stop_nobody_else(server: RealServer) -> None:
    """A tenant reads the records of its scopes, and may write its own alone."""
    with logged_in(server, "tenant-one") as tenant:
        for record in (RECORD, GROUP_RECORD, "skillbus:{prod}:killed:pod:two"):
            assert attempt(tenant, "SETNX", record, "x") == "NOPERM"
        assert attempt(tenant, "SETNX", POD_RECORD, "x") == "ok"


@pytest.mark.parametrize(
    ("name", "stream"), [("bot", f"{AUDIT}:bot:bot"), ("operator", AUDIT), ("console", AUDIT), ("admin", AUDIT)]
)
def test_who_may_stop_can_stop_every_scope(server: RealServer, name: str, stream: str) -> None:
    """SETNX, PUBLISH, XADD, WAIT and the reading back, for each scope; a second kill is no error."""
    with logged_in(server, name) as hand:
        for record, channel, epoch in ((RECORD, KILL, EPOCH), (GROUP_RECORD, GROUP_KILL, GROUP_EPOCH)):
            assert hand.call("SETNX", record, "why") == 1
            assert hand.call("PUBLISH", channel, "why") == 0
            assert attempt(hand, "XADD", stream, "MAXLEN", "~", 100000, "*", "what", "kill") == "ok"
            assert hand.call("WAIT", 0, 10) == 0
            assert (hand.call("EXISTS", record), hand.call("GET", record)) == (1, b"why")
            assert hand.call("GETRANGE", record, 0, 1023) == b"why"
            assert hand.call("GET", epoch) is None
            assert hand.call("SETNX", record, "again") == 0
        assert attempt(hand, "TIME") == "ok"


@pytest.mark.parametrize("name", ["viewer", "operator", "admin", *KEEPERS])
def test_who_may_look_sees_everything_of_the_fleet(server: RealServer, name: str) -> None:
    """Records, epochs, roster, evidence, audit, and every channel, also by pattern."""
    with logged_in(server, "root") as root:
        arm_and_kill(root)
    with logged_in(server, name) as eyes:
        for words in (
            ("EXISTS", RECORD, POD_RECORD),
            ("GETRANGE", RECORD, 0, 1023),
            ("GET", EPOCH),
            ("ZRANGE", ROSTER, 0, -1, "WITHSCORES"),
            ("HGETALL", OTHER_HASH),
            ("TTL", OTHER_HASH),
            ("GETRANGE", SKILLS, 0, 300_000),
            ("XRANGE", AUDIT, "-", "+"),
            ("XREVRANGE", f"{AUDIT}:bot:bot", "+", "-", "COUNT", 10),
            ("SCAN", 0, "MATCH", "skillbus:{*}:epoch"),
            ("INFO", "memory"),
            ("SUBSCRIBE", EVENTS, KILL, GROUP_KILL),
        ):
            assert attempt(eyes, *words) == "ok", words
    with logged_in(server, name) as eyes:
        assert attempt(eyes, "PSUBSCRIBE", "skillbus:prod:*") == "ok"


def test_an_admin_can_reset_and_arm(server: RealServer) -> None:
    """WATCH, MULTI, SET epoch, DEL killed, EXEC for every scope; SETNX epoch; the roster's clean-up."""
    with logged_in(server, "admin") as admin:
        assert admin.call("SETNX", EPOCH, 0) == 1
        for record, epoch in ((RECORD, EPOCH), (GROUP_RECORD, GROUP_EPOCH), (POD_RECORD, POD_EPOCH)):
            admin.call("SETNX", record, "why")
            assert admin.call("WATCH", record, epoch) == b"OK"
            for words in (("MULTI",), ("SET", epoch, 8), ("DEL", record)):
                admin.call(*words)
            assert admin.call("EXEC") == [b"OK", 1]
        assert attempt(admin, "ZREM", ROSTER, "gone") == "ok"


@either_default
@pytest.mark.parametrize("name", KEEPERS)
def test_a_keeper_can_keep(server: RealServer, name: str) -> None:
    """It hears every kill with an echo of its own, tells what it heard once, and clears the roster."""
    echo = "skillbus:prod:echo:keeper:host-1"
    with logged_in(server, name) as keeper, logged_in(server, name) as ears, logged_in(server, "operator") as hand:
        ears.send("SUBSCRIBE", KILL, echo)
        assert [ears.read(), ears.read()] == [[b"subscribe", KILL.encode(), 1], [b"subscribe", echo.encode(), 2]]
        ears.send("PSUBSCRIBE", f"{KILL}:*")
        assert ears.read() == [b"psubscribe", f"{KILL}:*".encode(), 3]
        assert keeper.call("PUBLISH", echo, "e1") == 1
        assert ears.read() == [b"message", echo.encode(), b"e1"]
        assert hand.call("PUBLISH", POD_KILL, "stop") == 1
        assert ears.read() == [b"pmessage", f"{KILL}:*".encode(), POD_KILL.encode(), b"stop"]
        assert keeper.call("WATCH", AUDIT) == b"OK"
        keeper.call("MULTI")
        keeper.call("XADD", AUDIT, "MAXLEN", "~", 100000, "*", "kind", "restored")
        assert keeper.call("EXEC") is not None  # a nil would say that somebody else wrote meanwhile
        assert attempt(keeper, "ZREM", ROSTER, "gone") == "ok"
        assert attempt(keeper, "ZREMRANGEBYSCORE", ROSTER, "-inf", 1) == "ok"


@pytest.mark.parametrize("name", CANNOT_UNDO)
def test_nobody_has_a_keepers_voice_but_keepers(server: RealServer, name: str) -> None:
    """Neither pods, bots nor operators; and a keeper has no pod's."""
    with logged_in(server, name) as client:
        spoke = attempt(client, "PUBLISH", "skillbus:prod:echo:keeper:host-1", "e1")
        assert spoke == ("ok" if name in (*KEEPERS, "pod-shared") else "NOPERM")
        if name in KEEPERS:
            assert attempt(client, "PUBLISH", ECHO, "e1") == "NOPERM"


@either_default
def test_drill_and_sync_are_an_operators(server: RealServer) -> None:
    """Operator, console and admin rehearse and sync; bot, viewer, keeper and pods do not."""
    for one in USERS:
        with logged_in(server, one.name) as client:
            expected = "ok" if one.role in {Role.OPERATOR, Role.CONSOLE, Role.ADMIN} else "NOPERM"
            assert [attempt(client, "PUBLISH", channel, "{}") for channel in (DRILL, SYNC)] == [expected] * 2


# --- what nobody without the admin's credential may do ----------------------------------------------------------------


NAMES = {
    "K": [RECORD, GROUP_RECORD, POD_RECORD],
    "E": [EPOCH, GROUP_EPOCH, POD_EPOCH],
    "H": [HASH],
    "O": [OTHER_HASH],
    "R": [ROSTER],
    "A": [AUDIT],
    "B": [OTHER_BOTS],
    "S": [SKILLS],
    "C": [KILL],
}
LOOKERS = {"viewer", "operator", *KEEPERS, "admin"}


@either_default
@pytest.mark.parametrize("name", CANNOT_UNDO)
def test_no_attack_is_carried_out_or_moves_the_latch(server: RealServer, name: str) -> None:
    """Every attack is refused, and after every one record, TTL, epoch and foreign evidence are what they were."""
    with logged_in(server, "root") as root:
        arm_and_kill(root)
        before = latch(root)
        for words in attacks(NAMES):
            if name == "pod-shared" and OTHER_HASH in words:
                continue  # "shared" means that any pod's hash is its own
            with logged_in(server, name) as attacker:
                answer = attempt(attacker, *words)
            assert answer in expected(name, words), words
            assert latch(root) == before, words


def expected(name: str, words: Sequence[Word]) -> set[str]:
    """What the attack may be answered with. TYPE is reading; DEBUG and MODULE are off for everybody by default."""
    if words[0] in {"NO-SUCH-COMMAND", "DEBUG", "MODULE"}:
        return {"ERR", "NOPERM"}
    return {"ok"} if words[0] == "TYPE" and name in LOOKERS else {"NOPERM"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_ask_who_it_is_and_nothing_else_of_the_users(server: RealServer, name: str) -> None:
    """WHOAMI names it. Whatever shows, tries, changes, loads or saves users is refused."""
    with logged_in(server, name) as pod:
        assert pod.call("ACL", "WHOAMI") == name.encode()
        for words in (
            ("LIST",),
            ("USERS",),
            ("GETUSER", name),
            ("SETUSER", name, "+@all"),
            ("DELUSER", "operator"),
            ("DRYRUN", "admin", "DEL", RECORD),
            ("LOG",),
            ("LOAD",),
            ("SAVE",),
            ("CAT",),
            ("GENPASS",),
        ):
            assert attempt(pod, "ACL", *words) == "NOPERM", words


@either_default
@pytest.mark.parametrize("name", [*PODS, "viewer", "keeper"])
def test_who_must_hear_a_kill_cannot_speak_it(server: RealServer, name: str) -> None:
    """SUBSCRIBE to a kill channel gives no PUBLISH on it."""
    with logged_in(server, name) as client:
        for channel in (KILL, GROUP_KILL, POD_KILL, "skillbus:prod:kill:pod:two"):
            assert attempt(client, "PUBLISH", channel, "x") == "NOPERM"


@either_default
def test_who_may_only_speak_cannot_hear(server: RealServer) -> None:
    """A bot hears nothing, so a stolen one learns nothing."""
    with logged_in(server, "bot") as bot:
        assert [attempt(bot, "SUBSCRIBE", channel) for channel in (KILL, EVENTS, ECHO)] == ["NOPERM"] * 3


@either_default
def test_one_pod_is_not_another(server: RealServer) -> None:
    """A pod with an id of its own has neither another's hash, echo nor pod scope, nor a group it is not in."""
    other = "skillbus:{prod}:killed:pod:two"
    for name in ("pod-one", "tenant-one"):
        for words in (
            ("HSET", OTHER_HASH, "i", "x"),
            ("HGETALL", OTHER_HASH),
            ("PUBLISH", "skillbus:prod:echo:two", "x"),
            ("SUBSCRIBE", "skillbus:prod:kill:pod:two"),
            ("SUBSCRIBE", KILL, "skillbus:prod:kill:group:us"),
            ("SETNX", other, "x"),
            ("EXISTS", RECORD, other),
            ("SETNX", "skillbus:{prod}:killed:group:us", "x"),
        ):
            with logged_in(server, name) as pod:
                assert attempt(pod, *words) == "NOPERM", words


def test_a_set_of_skills_is_set_once(server: RealServer) -> None:
    """A pod's SETNX behind another's changes nothing, and no pod reads there; nobody else can write there at all."""
    with logged_in(server, "root") as root:
        for one in USERS:
            with logged_in(server, one.name) as client:
                root.call("DEL", SKILLS)
                fresh = attempt(client, "SETNX", SKILLS, "first")
                root.call("SET", SKILLS, "told")
                again = attempt(client, "SETNX", SKILLS, "second")
                assert [fresh, again] == ["ok" if one.name in PODS else "NOPERM"] * 2, one.name
                assert attempt(client, "EXISTS", SKILLS) == ("NOPERM" if one.name == "bot" else "ok"), one.name
                assert root.call("GET", SKILLS) == b"told"
                reads = [attempt(client, *words) for words in (("GET", SKILLS), ("GETRANGE", SKILLS, 0, 9))]
                assert reads == ["NOPERM" if one.name in {*PODS, "bot"} else "ok"] * 2, one.name


def test_a_bot_writes_its_own_stream_alone(server: RealServer) -> None:
    """Neither the fleet's audit nor another bot's is a bot's to write."""
    with logged_in(server, "bot") as bot:
        for stream in (AUDIT, f"{AUDIT}:bot:other", f"{AUDIT}:bot:bot2"):
            assert attempt(bot, "XADD", stream, "*", "f", "v") == "NOPERM"


CERTIFICATE = json.dumps({"summary": "x" * 1000, "pods": [["one", "i1", "s", 300, ""]] * 4500})


@pytest.mark.parametrize("name", ["keeper", "operator", "admin"])
def test_control_stores_what_it_did_and_everybody_who_may_look_reads_it(server: RealServer, name: str) -> None:
    """Orders, drills, certificates and restored records go into the audit; a viewer pages through it, either way."""
    with logged_in(server, name) as control, logged_in(server, "viewer") as eyes:
        for kind in ("kill", "arm", "sync", "drill", "drill-result", "restored", "refused"):
            words = ("XADD", AUDIT, "MAXLEN", "~", 100_000, "*", "kind", kind, "scope", "fleet")
            assert attempt(control, *words) == "ok", kind
        stored = control.call("XADD", AUDIT, "*", "kind", "certificate", "record", "r1", "certificate", CERTIFICATE)
        assert isinstance(stored, bytes)
        pages: list[tuple[Word, ...]] = [
            ("XREVRANGE", AUDIT, "+", "-", "COUNT", 100),
            ("XRANGE", AUDIT, b"(" + stored, "+", "COUNT", 100),
            ("SCAN", 0, "MATCH", f"{AUDIT}:bot:*", "COUNT", 1000, "TYPE", "stream"),
            ("XREVRANGE", f"{AUDIT}:bot:bot", "+", "-", "COUNT", 100),
        ]
        for page in pages:
            assert attempt(eyes, *page) == "ok", page
        rows = eyes.call("XRANGE", AUDIT, stored, stored)
    assert CERTIFICATE.encode() in rows[0][1]  # type: ignore[index,operator]


@either_default
def test_nobody_else_writes_the_audit(server: RealServer) -> None:
    """Neither pods, nor viewers, nor bots can forge an entry of control's: a drill that was, a record restored."""
    for name in ["viewer", "bot", *PODS]:
        with logged_in(server, name) as client:
            for words in (
                ("XADD", AUDIT, "*", "kind", "drill-result", "ok", "1"),
                ("XADD", AUDIT, "MAXLEN", 0, "*", "kind", "reset"),
                ("XADD", OTHER_BOTS, "*", "kind", "kill"),
            ):
                assert attempt(client, *words) == "NOPERM", (name, words)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_answers_a_drill(server: RealServer, name: str) -> None:
    """It hears the drill where it hears kills, and tells so in its own hash, with a hint; it cannot call one."""
    with logged_in(server, name) as pod, logged_in(server, name) as ears, logged_in(server, "operator") as hand:
        ears.send("SUBSCRIBE", KILL, DRILL)
        assert [ears.read(), ears.read()] == [[b"subscribe", KILL.encode(), 1], [b"subscribe", DRILL.encode(), 2]]
        assert hand.call("PUBLISH", DRILL, '{"v":1,"id":"d1"}') == 1
        assert ears.read() == [b"message", DRILL.encode(), b'{"v":1,"id":"d1"}']
        assert attempt(pod, "HSET", HASH, "i1", '{"drill":{"id":"d1"}}') == "ok"
        assert attempt(pod, "PUBLISH", EVENTS, "one") == "ok"
        assert [attempt(pod, "PUBLISH", channel, "{}") for channel in (DRILL, SYNC, KILL)] == ["NOPERM"] * 3


@pytest.mark.parametrize("name", ["viewer", "operator", "admin", *KEEPERS])
def test_who_may_look_can_call_a_doctor(server: RealServer, name: str) -> None:
    """Who one is, how many hear a channel, INFO, ROLE and TTL; what others may do, and CONFIG, stay hidden."""
    with logged_in(server, name) as eyes:
        assert eyes.call("ACL", "WHOAMI") == name.encode()
        assert eyes.call("PUBSUB", "NUMSUB", KILL) == [KILL.encode(), 0]
        for seen in ("INFO", "ROLE", f"TTL {RECORD}", f"TYPE {EPOCH}"):
            assert attempt(eyes, *seen.split()) == "ok", seen
        for hidden in ("ACL DRYRUN root GET x", "CONFIG GET requirepass", f"ACL GETUSER {name}"):
            assert attempt(eyes, *hidden.split()) == "NOPERM", hidden


ADMINS_OWN = {("DEL", "K"), ("SET", "E"), ("SETNX", "E"), ("TYPE", "K"), ("TYPE", "S")}


@either_default
def test_the_admin_has_one_way_to_undo(server: RealServer) -> None:
    """DEL of a record and SET of an epoch; every other attack is refused to the admin too, and changes nothing."""
    letters = {key: letter for letter, keys in NAMES.items() for key in keys}
    with logged_in(server, "root") as root:
        arm_and_kill(root)
        before = latch(root)
        for words in attacks(NAMES):
            own = (words[0], letters.get(words[1] if len(words) > 1 else "", "")) in ADMINS_OWN and len(words) < 4
            if own:
                continue
            with logged_in(server, "admin") as admin:
                assert attempt(admin, *words) in expected("admin", words), words
            assert latch(root) == before, words


def test_waitaof_is_granted_where_it_is_asked_for(real_server_binary: ServerBinary, tmp_path: Path) -> None:
    """A server that knows WAITAOF takes the lines with it, for those who may WAIT; an older one refuses them."""
    hand, eyes = user(Role.OPERATOR, "operator"), user(Role.VIEWER, "viewer")
    with RealServer(real_server_binary, tmp_path / "server") as server, RawClient(server.port) as root:
        known = root.call("COMMAND", "INFO", "WAITAOF") != [None]
        for one in (hand, eyes):
            words = acl_line(FLEET, one, waitaof=True).split()[1:]
            answer = attempt(root, "ACL", "SETUSER", *words)
            assert answer == ("ok" if known or one is eyes else "ERR")
        if known:
            with logged_in(server, "operator") as operator, logged_in(server, "viewer") as viewer:
                assert operator.call("WAITAOF", 0, 0, 10) == [1, 0]
                assert attempt(viewer, "WAITAOF", 0, 0, 10) == "NOPERM"


def test_nothing_walks_around_the_users(server: RealServer) -> None:
    """RESET and AUTH need no permission, and with the default user off they lead nowhere, for any role."""
    ways: list[tuple[Word, ...]] = [
        ("RESET",),
        ("AUTH", "default", "x"),
        ("AUTH", "x"),
        ("HELLO", 2, "AUTH", "default", ""),
    ]
    with logged_in(server, "root") as root:
        arm_and_kill(root)
        before = latch(root)
        for name in CANNOT_UNDO:
            for way in ways:
                with logged_in(server, name) as attacker:
                    assert attempt(attacker, *way) in {"ok", "WRONGPASS", "NOAUTH"}, (name, way)
                    assert attempt(attacker, "DEL", RECORD) in {"NOAUTH", "NOPERM"}, (name, way)
                assert latch(root) == before, (name, way)


def test_a_transaction_is_no_way_around(server: RealServer) -> None:
    """What is refused by itself is refused in MULTI, and the whole transaction with it."""
    with logged_in(server, "root") as root, logged_in(server, "pod-one") as pod:
        arm_and_kill(root)
        before = latch(root)
        pod.call("MULTI")
        assert attempt(pod, "DEL", RECORD) == "NOPERM"
        assert attempt(pod, "EXEC") == "EXECABORT"
        assert latch(root) == before


def test_the_admin_is_no_root(server: RealServer) -> None:
    """The admin resets through the epoch and the records, and may not flush, configure or script."""
    for words in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("EVAL", "return 1", 0), ("SET", RECORD, "x"), ("DEL", AUDIT)):
        with logged_in(server, "admin") as admin:
            assert attempt(admin, *words) == "NOPERM", words
