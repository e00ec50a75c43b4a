"""Settings: units, bounds, where a value comes from, and that no secret is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from skillbus.core.scope import NAME
from skillbus.errors import BadSettings
from skillbus.settings import (
    GROUPS,
    POLICY_NAMES,
    Settings,
    default_pod_id,
    default_state_dir,
    duration_s,
    env_names,
    http_address,
    origins,
    shown_url,
)

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("SKILLBUS_", "NBI_", "GITHUB_", "GH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("2s", 2.0),
        ("5m", 300.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
        ("0.5", 0.5),
        ("1.5 h", 5400.0),
        (" 3 ", 3.0),
        (3, 3.0),
        (0, 0.0),
    ],
)
def test_a_duration_has_a_unit_or_is_seconds(text: str | float, seconds: float) -> None:
    """As a person writes it."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "5 minutes", "1h30m", "s", "1e3", "nan", "5M", -1, -0.1])
def test_anything_else_is_no_duration(text: str | float) -> None:
    """Said so, with how to write one."""
    with pytest.raises(ValueError, match="duration"):
        duration_s(text)


def test_the_defaults_are_the_protocols() -> None:
    """Heartbeat 2 s, lease 6 s, echo 2 s, command timeout 1 s; armed required."""
    settings = Settings.load()
    assert (settings.pod.heartbeat_s, settings.pod.lease_s, settings.pod.echo_s) == (2.0, 6.0, 2.0)
    assert settings.bus.command_timeout_s == 1.0
    assert settings.pod.require_armed
    assert settings.bus.fleet == "default"
    assert settings.pod.every_s == 86400.0
    assert settings.pod.state_dir == default_state_dir() == Path.home() / ".local/state/skillbus"


def test_arguments_win_over_the_environment_over_secret_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this order; what was not given is not given."""
    (tmp_path / "url").write_text("redis://file:1/0\n")
    monkeypatch.setenv("SKILLBUS_REDIS_URL_FILE", str(tmp_path / "url"))
    assert Settings.load().bus.redis_url.get_secret_value() == "redis://file:1/0"
    monkeypatch.setenv("SKILLBUS_REDIS_URL", "redis://env:1/0")
    assert Settings.load(redis_url=None).bus.redis_url.get_secret_value() == "redis://env:1/0"
    assert Settings.load(redis_url="redis://arg:1/0").bus.redis_url.get_secret_value() == "redis://arg:1/0"


def test_the_environment_is_read_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words by comma, durations by unit, an empty value as none."""
    monkeypatch.setenv("SKILLBUS_GROUPS", " eu, batch ,,")
    monkeypatch.setenv("SKILLBUS_EVERY", "5m")
    monkeypatch.setenv("SKILLBUS_HEARTBEAT_S", "500ms")
    monkeypatch.setenv("SKILLBUS_FLEET", "")
    monkeypatch.setenv("SKILLBUS_REQUIRE_ARMED", "false")
    settings = Settings.load()
    assert settings.pod.groups == ("eu", "batch")
    assert settings.pod.every_s == 300.0
    assert settings.pod.heartbeat_s == 0.5
    assert settings.bus.fleet == "default"
    assert not settings.pod.require_armed


def test_a_spread_is_nobodys_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """None leaves it to whoever knows what the pod does; 0 is 0."""
    assert Settings.load().pod.spread_s is None
    monkeypatch.setenv("SKILLBUS_SPREAD", "2m")
    assert Settings.load().pod.spread_s == 120.0
    assert Settings.load(spread_s="0").pod.spread_s == 0.0
    with pytest.raises(BadSettings, match="SKILLBUS_SPREAD_S"):
        Settings.load(spread_s="soon")


def test_the_names_of_existing_deployments_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to rename what is set already; the name of our own wins."""
    monkeypatch.setenv("NBI_SKILLS_MANIFEST", "https://a,https://b")
    monkeypatch.setenv("NBI_SKILLS_MANIFEST_INTERVAL", "3600")
    monkeypatch.setenv("NBI_MANAGED_SKILLS_TOKEN", SECRET)
    monkeypatch.setenv("NBI_SKILL_MAX_ARCHIVE_MB", "5")
    skills = Settings.load().skills
    assert skills.skills_manifest == ("https://a", "https://b")
    assert skills.skills_interval_s == 3600.0
    assert skills.skills_token == SecretStr(SECRET)
    assert skills.skills_max_archive_mb == 5
    monkeypatch.setenv("SKILLBUS_SKILLS_MANIFEST", "https://c")
    assert Settings.load().skills.skills_manifest == ("https://c",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fleet": "a b"}, "cannot be the name of a fleet"),
        ({"pod_id": "a:b"}, "cannot be the name of a pod"),
        ({"groups": ("ok", "*")}, "cannot be the name of a group"),
        ({"heartbeat_s": 6.0}, "cannot keep a lease"),
        ({"heartbeat_s": 0}, "cannot keep a lease"),
        ({"lease_s": "1s"}, "cannot keep a lease"),
        ({"every_s": "soon"}, "SKILLBUS_EVERY_S: 'soon' is no duration"),
        ({"skills_max_archive_mb": -1}, "SKILLBUS_SKILLS_MAX_ARCHIVE_MB"),
        ({"require_armed": "perhaps"}, "SKILLBUS_REQUIRE_ARMED"),
        ({"nonsense": 1}, "there is no setting 'nonsense'"),
    ],
)
def test_a_value_that_cannot_be_used_says_which_and_why(given: dict[str, object], said: str) -> None:
    """The variable by its name, and what it should be."""
    with pytest.raises(BadSettings, match=said.replace("(", r"\(")):
        Settings.load(**given)


def test_a_bad_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by an error nor by a repr."""
    monkeypatch.setenv("SKILLBUS_REDIS_PASSWORD", SECRET)
    monkeypatch.setenv("SKILLBUS_REDIS_URL", f"redis://user:{SECRET}@host:6379/0?password={SECRET}")
    monkeypatch.setenv("SKILLBUS_SKILLS_TOKEN", SECRET)
    settings = Settings.load()
    shown = [*map(repr, (settings.bus, settings.skills)), *map(str, (settings.bus, settings.skills))]
    shown += [" ".join(row) for row in origins(settings, frozenset())]
    assert not [text for text in shown if SECRET in text]
    monkeypatch.setenv("SKILLBUS_HEARTBEAT_S", SECRET)
    with pytest.raises(BadSettings):
        Settings.load()


def test_a_secret_file_loses_one_line_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As orchestrators and editors leave it; spaces are the password's own."""
    (tmp_path / "password").write_text(" hunter2 \r\n")
    monkeypatch.setenv("SKILLBUS_REDIS_PASSWORD_FILE", str(tmp_path / "password"))
    password = Settings.load().bus.redis_password
    assert password is not None
    assert password.get_secret_value() == " hunter2 "


@pytest.mark.parametrize("kind", ["absent", "folder", "bytes"])
def test_a_secret_file_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """Never a pod without the password that it was given."""
    path = tmp_path / "password"
    if kind == "folder":
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe")
    monkeypatch.setenv("SKILLBUS_REDIS_PASSWORD_FILE", str(path))
    with pytest.raises(BadSettings, match="SKILLBUS_REDIS_PASSWORD_FILE"):
        Settings.load()


def test_only_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``SKILLBUS_FLEET_FILE`` is nothing; ``SKILLBUS_POLICY_FILE`` is a path, not a secret."""
    (tmp_path / "x").write_text("other")
    monkeypatch.setenv("SKILLBUS_FLEET_FILE", str(tmp_path / "x"))
    monkeypatch.setenv("SKILLBUS_POLICY_FILE", str(tmp_path / "x"))
    settings = Settings.load()
    assert settings.bus.fleet == "default"
    assert settings.pod.policy_file == tmp_path / "x"


def test_every_setting_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given, the variable's name, or the default; a row for each."""
    (tmp_path / "t").write_text(SECRET)
    monkeypatch.setenv("SKILLBUS_FLEET", "prod")
    monkeypatch.setenv("NBI_SKILLS_MANIFEST", "https://a")
    monkeypatch.setenv("SKILLBUS_SKILLS_TOKEN_FILE", str(tmp_path / "t"))
    rows = {name: (value, source) for name, value, source in origins(Settings.load(pod_id="p"), frozenset({"pod_id"}))}
    assert rows["SKILLBUS_POD_ID"] == ("p", "given")
    assert rows["SKILLBUS_FLEET"] == ("prod", "SKILLBUS_FLEET")
    assert rows["SKILLBUS_SKILLS_MANIFEST"] == ("https://a", "NBI_SKILLS_MANIFEST")
    assert rows["SKILLBUS_SKILLS_TOKEN"] == ("********", "SKILLBUS_SKILLS_TOKEN_FILE")
    assert rows["SKILLBUS_LEASE_S"] == ("6", "default")
    assert len(rows) == sum(len(group.model_fields) for group in GROUPS) + len(POLICY_NAMES)


def test_every_setting_has_a_name_of_its_own() -> None:
    """No two fields, of whatever group, are set by one variable; each begins with ours."""
    names = [name for group in GROUPS for field in group.model_fields for name in env_names(group, field)]
    assert len(names) == len(set(names))
    assert all(env_names(group, field)[0].startswith("SKILLBUS_") for group in GROUPS for field in group.model_fields)


def test_a_url_is_shown_without_its_secrets() -> None:
    """User, password and query are gone; where it leads stays."""
    assert shown_url("redis://u:p@host:6379/0?x=y") == "redis://host:6379/0"
    assert shown_url("unix:///run/redis.sock?db=1") == "unix:///run/redis.sock"
    assert shown_url("redis://:p%40ss@host/1") == "redis://host/1"


def test_a_pod_id_is_stable_and_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work on the same host: the same id; other work: another; whatever the host is called."""
    assert default_pod_id("a") == default_pod_id("a") != default_pod_id("b")
    for host in ("web-1.example.org", "", "ä ö/ü", "x" * 300):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert NAME.fullmatch(default_pod_id("a"))


def test_the_state_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """``$XDG_STATE_HOME`` where it is set."""
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/x")
    assert default_state_dir() == Path("/var/lib/x/skillbus")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        (":0", ("127.0.0.1", 0)),
        ("[::]:9464", ("::", 9464)),
        ("web-1.example.org:65535", ("web-1.example.org", 65535)),
    ],
)
def test_where_probes_listen(text: str, address: tuple[str, int]) -> None:
    """Without a host it is loopback: nothing is opened to others unasked."""
    assert http_address(text) == address
    assert Settings.load(http=text).pod.http == text


@pytest.mark.parametrize("text", ["9464", "host", ":", ":65536", "::1:9464", "a b:1", "[x]:1", "http://h:1", ":1 "])
def test_where_nothing_can_listen(text: str) -> None:
    """Said so, with how to write it."""
    with pytest.raises(BadSettings, match=r"SKILLBUS_HTTP: .* write it as 0\.0\.0\.0:9464"):
        Settings.load(http=text)


_SERVICE = {
    "JUPYTERHUB_SERVICE_NAME": "skillbus",
    "JUPYTERHUB_SERVICE_PREFIX": "/base/services/skillbus/",
    "JUPYTERHUB_SERVICE_URL": "http://10.0.0.7:8321",
    "JUPYTERHUB_API_TOKEN": "hush",
}


def test_a_hubs_service_listens_where_the_hub_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and prefix are the hub's, unless the environment or a flag says otherwise."""
    for name, value in _SERVICE.items():
        monkeypatch.setenv(name, value)
    console = Settings.load().console
    assert (console.console_listen, console.console_root_path) == ("10.0.0.7:8321", "/base/services/skillbus/")
    monkeypatch.setenv("SKILLBUS_CONSOLE_LISTEN", ":0")
    assert Settings.load().console.console_listen == ":0"
    assert Settings.load(console_listen=":1").console.console_listen == ":1"


def test_a_hubs_service_on_a_socket_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence with the setting that helps, and not by listening elsewhere."""
    for name, value in (_SERVICE | {"JUPYTERHUB_SERVICE_URL": "http+unix://%2Frun%2Fskillbus"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match="SKILLBUS_CONSOLE_LISTEN"):
        Settings.load()


def test_a_users_server_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prefix bears the user's name, whatever that is: nothing of it is taken, and nothing refused."""
    for name, value in (_SERVICE | {"JUPYTERHUB_USER": "a@b", "JUPYTERHUB_SERVICE_PREFIX": "/user/a%40b/"}).items():
        monkeypatch.setenv(name, value)
    console = Settings.load().console
    assert (console.console_listen, console.console_root_path) == ("127.0.0.1:8321", "")
