"""Git remotes, the real git on both sides: what is placed is what was committed; nothing outlives a fetch."""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from skillbus.errors import BadBundle, BadManifest, HostileName, LinkInArchive, SkillbusError, SourceUnavailable, TooBig
from skillbus.skills.landing import Landing
from skillbus.skills.sources import git
from skillbus.skills.sources.git import SOURCE
from skillbus.skills.sources.route import Trust
from skillbus.skills.sources.source import Access, Revision
from skillbus.skills.sources.web import Web
from tests.fakes.git_host import GitHost, Repository, git_host, own_home
from tests.integration.skills.world import skill_text, visible

TOKEN = "canary-token-77d0"
LOGIN = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
HOSTILE_ATTRIBUTES = (
    b"* text eol=crlf ident export-subst filter=lfs working-tree-encoding=UTF-16\n/a/gone export-ignore\n"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """No git settings but those of the test."""
    with own_home(tmp_path / "home") as folder:
        yield folder


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A repository with two skills."""
    made = Repository(tmp_path / "repos" / "s.git")
    made.commit({"a/SKILL.md": skill_text("a"), "b/SKILL.md": skill_text("b")})
    return made


@pytest.fixture
def host(repo: Repository) -> Iterator[GitHost]:
    """A host of that repository, as ``s.git/.git``."""
    with git_host(repo.folder.parent) as running:
        yield running


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """Where skills land."""
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def _access(
    *, token: str | None = None, token_hosts: tuple[str, ...] = (), local: tuple[str, ...] = (), max_bytes: int = 0
) -> Access:
    return Access(Web(Trust(token, frozenset(token_hosts), frozenset(local))), max_bytes)


def _resolve(url: str, access: Access, known: Revision | None = None) -> Revision:
    return asyncio.run(SOURCE.resolve(SOURCE.origin(url, access), known, access))


def _fetch(url: str, staging: Path, access: Access, *subpaths: str, revision: Revision | None = None) -> list[Landing]:
    """Resolve and fetch; skill number n lands in the folder n."""
    revision = revision or _resolve(url, access)
    folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        start = len(list(staging.iterdir()))
        landings = {subpath: Landing(folder, str(start + index)) for index, subpath in enumerate(subpaths)}
        SOURCE.fetch(SOURCE.origin(url, access), revision, landings, access)
        for landing in landings.values():
            landing.rest()
        return list(landings.values())
    finally:
        os.close(folder)
        assert not list(staging.glob("*.git"))


def _url(host: GitHost, rest: str = "") -> str:
    return f"git+{host.url}/s.git/.git{rest}"


# ---- what a ref means ------------------------------------------------------------------------------------------------


def test_refs(repo: Repository, host: GitHost) -> None:
    """Default branch, branch, tag, annotated tag (its commit, not its own id), full name; a branch before a tag."""
    first = repo.git("rev-parse", "HEAD").decode().strip()
    repo.git("tag", "light")
    repo.git("tag", "-a", "heavy", "-m", "x")
    repo.git("branch", "feature/x")
    repo.git("branch", "both")
    second = repo.commit({"a/more": b"x"})
    repo.git("tag", "both")
    access = _access(local=(host.host,))
    for url in (f"git+{repo.url}", _url(host)):
        for ref in ("light", "heavy", "feature/x", "both", "refs/tags/heavy"):
            assert _resolve(f"{url}@{ref}", access).id == first, ref
        for ref in ("", "@main", "@refs/tags/both", "@refs/heads/main"):
            assert _resolve(url + ref, access).id == second, ref


def test_a_commit_asks_nobody(host: GitHost) -> None:
    """All 40 digits are an answer by themselves; what is known is returned as it is."""
    access = _access(local=(host.host,))
    known = Revision("ab" * 20, "x")
    assert _resolve(_url(host, f"@{'AB' * 20}"), access).id == "ab" * 20
    assert _resolve(_url(host, f"@{'AB' * 20}"), access, known) is known
    assert host.requests == []


def test_nothing_new_is_what_was_known(host: GitHost) -> None:
    """The very object comes back, for which two requests were made."""
    access = _access(local=(host.host,))
    known = _resolve(_url(host), access)
    host.requests.clear()
    assert _resolve(_url(host), access, known) is known
    assert len(host.requests) == 2


@pytest.mark.parametrize(
    ("rest", "word"),
    [("@none", "no branch or tag 'none'"), ("@deadbee", "40 digits"), ("/none", "no such repository")],
)
def test_what_is_not_there(host: GitHost, rest: str, word: str) -> None:
    """A ref, a short commit, a repository: each has its word, and the url in it."""
    with pytest.raises(SourceUnavailable, match=word) as caught:
        _resolve(_url(host, rest), _access(local=(host.host,)))
    assert "127.0.0.1" in str(caught.value)


def test_an_empty_repository(tmp_path: Path) -> None:
    """It has no default branch."""
    empty = Repository(tmp_path / "empty")
    with pytest.raises(SourceUnavailable, match="no default branch, or no commit"):
        _resolve(f"git+{empty.url}", _access())
    with pytest.raises(SourceUnavailable, match="no such repository"):
        _resolve(f"git+file://{tmp_path}/none", _access())


# ---- the bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("served", ["file", "new", "old"])
def test_what_is_written_is_what_was_committed(repo: Repository, host: GitHost, staging: Path, served: str) -> None:
    """BOM, CRLF, NUL, ids, executable bits, many and deep files; whatever .gitattributes would like to do to them."""
    host.old = served == "old"
    url = f"git+{repo.url}" if served == "file" else _url(host)
    files = {f"a/many/{number}.txt": f"{number}\r\n".encode() for number in range(80)}
    files |= {
        ".gitattributes": HOSTILE_ATTRIBUTES,
        "a/.gitattributes": b"*.txt -text\nsubst export-subst\n",
        "a/SKILL.md": b"\xef\xbb\xbf---\r\nname: a\r\n---\r\n",
        "a/subst": b"$Format:%H$ $Id$ $Id: 0123 $\n",
        "a/gone": b"\r\n\n\r",
        "a/1/2/3/4/5/6/deep": b"\0\xff\xfe",
        "a/empty": b"",
        "a/run.sh": b"#!/bin/sh\n",
        "a/\u00e4 name": b"x",
        "a/big": bytes(range(256)) * 4096,
        "ab/other": b"not wanted",
    }
    repo.commit(files, executable=("a/run.sh", "a/1/2/3/4/5/6/deep"))
    first, second, top = _fetch(url, staging, _access(local=(host.host,)), "a", "b") + _fetch(
        url, staging, _access(local=(host.host,)), ""
    )
    assert (first.error, second.error, top.error) == (None, None, None)
    expected = {path.removeprefix("a/"): data for path, data in files.items() if path.startswith("a/")}
    marked = {f"{path}*" if path in {"run.sh", "1/2/3/4/5/6/deep"} else path: data for path, data in expected.items()}
    assert visible(staging / first.slot) == marked
    assert set(first.facts) == set(expected)
    assert visible(staging / second.slot) == {"SKILL.md": skill_text("b")}
    assert "ab/other" in top.facts
    assert len(top.facts) == len(files) + 1


def test_only_what_is_wanted_is_fetched(repo: Repository, host: GitHost, staging: Path) -> None:
    """A server that can leave files out sends those of the wanted folders, and the cap counts what came."""
    repo.commit({"huge": os.urandom(3_000_000), "b/large": os.urandom(1_500_000)})
    access = _access(local=(host.host,), max_bytes=1_000_000)
    (landing,) = _fetch(_url(host), staging, access, "a")
    assert landing.error is None
    for old in (False, True):
        host.old = old
        with pytest.raises(TooBig, match="SKILLBUS_SKILLS_MAX_ARCHIVE_MB"):
            _fetch(_url(host), staging, access, "a", "b")


def test_what_no_skill_may_have(repo: Repository, staging: Path) -> None:
    """A link, a submodule, a folder that is none: each costs its own skill alone, and elsewhere nothing."""
    repo.link("linked/x", "/etc/passwd")
    repo.link("top", "a")
    repo.add("160000", "12" * 20, "sub/module")
    repo.commit({"linked/SKILL.md": b"x", "sub/SKILL.md": b"x", "file": b"x"})
    found = _fetch(f"git+{repo.url}", staging, _access(), "linked", "sub", "file", "none", "top", "a", "sub/module")
    assert [type(landing.error) for landing in found] == [
        *(LinkInArchive, BadBundle, BadBundle, BadBundle, BadBundle, type(None), BadBundle),
    ]
    assert "submodule" in str(found[1].error)
    assert "no folder 'none'" in str(found[3].error)
    assert visible(staging / found[5].slot) == {"SKILL.md": skill_text("a")}


@pytest.mark.parametrize("name", [b"..", b".git", b"a/../../x", b"\xff", b"nul", b"\xe2\x80\xae"])
def test_names_that_git_itself_would_not_commit(repo: Repository, staging: Path, name: bytes) -> None:
    """A server can send any: the skill is refused, nothing is written outside of it, and its neighbour is fine."""
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"x").decode().strip()
    raw = b"100644 " + name + b"\0" + bytes.fromhex(blob)
    tree = repo.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=raw).decode().strip()
    good = repo.git("rev-parse", "HEAD:a").decode().strip()
    listed = f"040000 tree {tree}\tbad\n040000 tree {good}\tgood\n".encode()
    top = repo.git("mktree", stdin=listed).decode().strip()
    repo.git("update-ref", "refs/heads/main", repo.git("commit-tree", "-m", "x", top).decode().strip())
    bad, fine = _fetch(f"git+{repo.url}", staging, _access(), "bad", "good")
    assert isinstance(bad.error, HostileName)
    assert visible(staging / fine.slot) == {"SKILL.md": skill_text("a")}
    assert sorted(path.name for path in staging.iterdir()) == ["0", "1"]


def test_a_skill_that_is_too_big_costs_its_neighbour_nothing(repo: Repository, host: GitHost, staging: Path) -> None:
    """It is given up in the middle of a file, and what follows is still read at its right place."""
    repo.commit({"a/0": bytes(12 * 1024 * 1024), "a/1": b"b" * (12 * 1024 * 1024), "a/2": b"x"})
    big, fine = _fetch(_url(host), staging, _access(local=(host.host,)), "a", "b")
    assert isinstance(big.error, TooBig)
    assert visible(staging / fine.slot) == {"SKILL.md": skill_text("b")}


def test_exactly_the_resolved_commit(repo: Repository, host: GitHost, staging: Path) -> None:
    """A branch that moved on changes nothing: the commit is fetched that was resolved."""
    access = _access(local=(host.host,))
    for url in (f"git+{repo.url}", _url(host)):
        revision = _resolve(url, access)
        late = f"late-{len(url)}"
        repo.commit({f"a/{late}": b"x"})
        (landing,) = _fetch(url, staging, access, "a", revision=revision)
        assert late not in landing.facts


def test_a_server_that_gives_out_no_commit_by_its_id(repo: Repository, host: GitHost, staging: Path) -> None:
    """The ref is fetched instead; if it is no longer that commit, it is said so."""
    host.old = True
    access = _access(local=(host.host,))
    repo.git("tag", "-a", "heavy", "-m", "x")
    tagged = _resolve(_url(host, "@heavy"), access)
    old = _resolve(_url(host), access)
    repo.commit({"a/late": b"x"})
    (landing,) = _fetch(_url(host, "@heavy"), staging, access, "a", revision=tagged)
    assert "late" not in landing.facts
    repo.git("tag", "-d", "heavy")
    with pytest.raises(SourceUnavailable, match="changed while it was fetched"):
        _fetch(_url(host, "@main"), staging, access, "a", revision=old)
    with pytest.raises(SourceUnavailable, match="does not give out the commit"):
        _fetch(_url(host, f"@{old.id}"), staging, access, "a", revision=old)
    host.old = False
    with pytest.raises(SourceUnavailable, match="does not give out the commit"):
        _fetch(_url(host, f"@{'ab' * 20}"), staging, access, "a")


# ---- who is asked, and what they are told ----------------------------------------------------------------------------


def test_the_token_goes_to_its_host_alone(host: GitHost, staging: Path) -> None:
    """By name and port; without it, or with a wrong one, the error says what to do and shows no secret."""
    host.login = f"x-access-token:{TOKEN}"
    right = _access(token=TOKEN, token_hosts=(host.host,), local=(host.host,))
    assert _fetch(_url(host), staging, right, "a")[0].error is None
    assert f"Basic {LOGIN}" in host.logins
    host.login = "x-access-token:another"
    elsewhere = _access(token=TOKEN, token_hosts=("h.example", "127.0.0.1"), local=(host.host,))
    for access, sent in ((right, True), (elsewhere, False)):
        host.logins.clear()
        with pytest.raises(SourceUnavailable, match="SKILLBUS_SKILLS_TOKEN") as caught:
            _resolve(_url(host), access)
        assert (f"Basic {LOGIN}" in host.logins) is sent
        assert "canary" not in str(caught.value)
        assert LOGIN not in str(caught.value)


def test_a_redirect_is_not_followed(repo: Repository, host: GitHost, staging: Path) -> None:
    """Neither when a ref is resolved nor when it is fetched: nobody else is asked, and no token goes there."""
    with git_host(repo.folder.parent) as other:
        access = _access(token=TOKEN, token_hosts=(host.host,), local=(host.host, other.host))
        revision = _resolve(_url(host), access)
        host.redirect = other.url
        for work in (
            lambda: _resolve(_url(host), access),
            lambda: _fetch(_url(host), staging, access, "a", revision=revision),
        ):
            with pytest.raises(SourceUnavailable, match="redirects"):
                work()
        assert other.requests == []


def test_this_machine_is_not_asked_unless_named(host: GitHost) -> None:
    """Neither over http, nor https, nor ssh, whatever it is called."""
    port = host.host.rpartition(":")[2]
    for scheme in ("http", "https", "ssh"):
        for name in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(BadManifest):
                _resolve(f"git+{scheme}://{name}:{port}/s.git/.git", _access(local=("other",)))
    assert host.requests == []


def test_git_goes_to_the_address_that_was_checked(
    host: GitHost, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once, by us: git is told the address, and asks no name server that may say otherwise."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *a, **k: real("127.0.0.1", *a, **k))
    port = host.host.rpartition(":")[2]
    url = f"git+http://skills.invalid:{port}/s.git/.git"
    assert _fetch(url, staging, _access(local=("skills.invalid",)), "a")[0].error is None


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said so; behind a proxy, which looks names up by itself, it is the proxy that is asked."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceUnavailable, match="cannot be resolved"):
        _resolve("git+https://skills.invalid/s.git", _access())
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match="tried again"):
        _resolve("git+https://skills.invalid/s.git", _access())
    with pytest.raises(BadManifest):
        _resolve("git+https://localhost/s.git", _access())


def test_settings_of_this_machine_run_nothing(repo: Repository, host: GitHost, staging: Path, home: Path) -> None:
    """No hook, template or filter of the operator's runs, and a rewritten protocol is refused."""
    repo.commit({".gitattributes": b"* filter=lfs\n"})
    hooks = home / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("reference-transaction", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {home}/ran\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[init]\n templateDir = {home}/template\n[core]\n hooksPath = {hooks}\n askPass = {hooks}/post-checkout\n"
        f'[filter "lfs"]\n smudge = {hooks}/post-checkout\n required = true\n'
        f'[url "{repo.url}/"]\n insteadOf = {host.url}/rewritten/\n'
    )
    access = _access(local=(host.host,))
    assert _fetch(_url(host), staging, access, "a")[0].error is None
    host.login = "a:b"
    with pytest.raises(SourceUnavailable, match="login"):
        _resolve(_url(host), access)
    assert not (home / "ran").exists()
    with pytest.raises(SourceUnavailable, match="insteadOf"):
        _resolve(f"git+{host.url}/rewritten/.git", access)


def _ssh(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{folder}/arguments\n{script}\n')
    (folder / "ssh").chmod(0o755)


def test_ssh(repo: Repository, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can ask nobody, and leaves no master behind; an unknown host key is said to be one."""
    _ssh(tmp_path / "good", 'for last; do :; done; eval "exec $last"')
    _ssh(tmp_path / "unknown", "echo 'Host key verification failed.' >&2; exit 255")
    _ssh(tmp_path / "refused", "echo 'git@h.example: Permission denied (publickey).' >&2; exit 255")
    url = f"git+ssh://git@127.0.0.1:2222{repo.folder}"
    access, path = _access(local=("127.0.0.1",)), os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{tmp_path}/good:{path}")
    assert _fetch(url, staging, access, "a")[0].error is None
    told = (tmp_path / "good" / "arguments").read_text().splitlines()
    assert {"BatchMode=yes", "ControlMaster=no", "ControlPath=none", "2222", "git@127.0.0.1"} <= set(told)
    for kind, word in (("unknown", "known_hosts"), ("refused", "give this user a key")):
        monkeypatch.setenv("PATH", f"{tmp_path}/{kind}:{path}")
        with pytest.raises(SourceUnavailable, match=word):
            _resolve(url, access)


def test_git_is_not_installed(repo: Repository, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said so."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    revision = _resolve(f"git+{repo.url}", _access())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SourceUnavailable, match="git is not installed"):
        _resolve(f"git+{repo.url}", _access())
    with pytest.raises(SourceUnavailable, match="git is not installed"):
        _fetch(f"git+{repo.url}", staging, _access(), "a", revision=revision)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else(repo: Repository) -> None:
    """git does not trust it, and the error says how it may."""
    for path in (repo.folder, repo.folder / ".git"):
        os.chown(path, 65534, 65534)
    with pytest.raises(SourceUnavailable, match=r"safe\.directory"):
        _resolve(f"git+{repo.url}", _access())


# ---- its end ---------------------------------------------------------------------------------------------------------


def _group(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _children() -> list[list[str]]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            # A server that other tests started is a child of this process, too.
            if process.status() != psutil.STATUS_ZOMBIE and process.name().startswith(("git", "sh", "ssh")):
                found.append(process.cmdline())
    return found


def test_cancelled_while_the_server_stalls(host: GitHost) -> None:
    """When it returns no process of it runs; while it ran, no argument showed the token."""
    host.stalls = "info/refs"
    access = _access(token=TOKEN, token_hosts=(host.host,), local=(host.host,))

    async def scenario() -> None:
        asking = asyncio.create_task(SOURCE.resolve(SOURCE.origin(_url(host), access), None, access))
        await asyncio.to_thread(host.stalled.wait, 20)
        running = _children()
        assert any("ls-remote" in words for words in running)
        assert not any(secret in word for words in running for word in words for secret in (TOKEN, LOGIN))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not _children()

    asyncio.run(scenario())


def test_cancelled_while_it_starts(host: GitHost) -> None:
    """At whatever moment: no process is left."""
    access = _access(local=(host.host,))

    async def scenario(turns: int) -> None:
        asking = asyncio.create_task(SOURCE.resolve(SOURCE.origin(_url(host), access), None, access))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not _children()

    for turns in range(12):
        asyncio.run(scenario(turns))


def test_a_file_bigger_than_the_child_may_write(repo: Repository, host: GitHost, staging: Path) -> None:
    """git meets the limit of the process that started it, and the error says what that means."""
    repo.commit({"a/large": os.urandom(3_000_000)})
    access = _access(local=(host.host,))
    revision = _resolve(_url(host), access)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(TooBig, match="bigger than a download may be"):
            _fetch(_url(host), staging, access, "a", revision=revision)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_server_that_never_answers(host: GitHost, staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both requests have their time limit, and end what they started."""
    access = _access(local=(host.host,))
    revision = _resolve(_url(host), access)
    host.stalls = "s.git"
    monkeypatch.setattr(git, "RESOLVE_S", 0.3)
    monkeypatch.setattr(git, "FETCH_S", 0.3)
    with pytest.raises(SourceUnavailable, match=r"no answer in 0\.3 s"):
        _resolve(_url(host), access)
    with pytest.raises(SourceUnavailable, match=r"took longer than 0\.3 s"):
        _fetch(_url(host), staging, access, "a", revision=revision)
    assert not _children()


_CHILD = """
import os, sys
from skillbus.skills.landing import Landing
from skillbus.skills.sources.git import SOURCE
from skillbus.skills.sources.route import Trust
from skillbus.skills.sources.source import Access, Revision
from skillbus.skills.sources.web import Web
url, host, commit, staging = sys.argv[1:]
access = Access(Web(Trust(None, frozenset(), frozenset([host]))), 0)
landing = Landing(os.open(staging, os.O_RDONLY | os.O_DIRECTORY), "0")
SOURCE.fetch(SOURCE.origin(url, access), Revision(commit), {"a": landing}, access)
"""


@pytest.mark.parametrize("whole", [True, False], ids=["the group is killed", "only the process is killed"])
def test_killed_while_the_server_stalls(host: GitHost, staging: Path, whole: bool) -> None:
    """git and its helpers are of the child's group, and die with it even if only the child itself is killed."""
    commit = _resolve(_url(host), _access(local=(host.host,))).id
    host.stalls = "/git-upload-pack"
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, _url(host), host.host, commit, str(staging)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert host.stalled.wait(20)
        group = _group(process.pid)
        assert {"git", "sh"} <= {one.name() for one in group}
        others = [one for one in group if one.pid != process.pid]
        (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(others, timeout=5)
        assert _group(process.pid) == []


def test_a_fetch_that_fails_leaves_the_staging_clean(host: GitHost, staging: Path) -> None:
    """Whatever the reason: the scratch folder is gone, which _fetch looks at."""
    host.login = "a:b"
    with pytest.raises(SkillbusError):
        _fetch(_url(host), staging, _access(local=(host.host,)), "a", revision=Revision("ab" * 20))


def test_whoever_swaps_the_scratch_folder_gets_nothing(
    repo: Repository, host: GitHost, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved away in the middle, with another in its place: git goes on in its own, and nothing happens in that one.

    What is in the planted one would be taken for what was fetched: the same repository, with other files.
    """
    planted = staging.parent / "planted"
    other = Repository(staging.parent / "other")
    other.commit({"a/SKILL.md": b"planted"})
    real, before = git._Clone.bring_commit, set[Path]()

    def swapping(clone: git._Clone, commit: str, ref: str) -> None:
        (scratch,) = staging.glob("*.git")
        scratch.rename(staging.parent / "moved")
        subprocess.run(["git", "clone", "--quiet", "--bare", str(other.folder), str(planted / "sparing")], check=True)
        before.update(planted.rglob("*"))
        scratch.symlink_to(planted)
        real(clone, commit, ref)

    monkeypatch.setattr(git._Clone, "bring_commit", swapping)
    folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        landing, access = Landing(folder, "0"), _access(local=(host.host,))
        origin = SOURCE.origin(_url(host), access)
        SOURCE.fetch(origin, _resolve(_url(host), access), {"a": landing}, access)
        landing.rest()
    finally:
        os.close(folder)
    assert visible(staging / "0") == {"SKILL.md": skill_text("a")}
    assert set(planted.rglob("*")) == before
    assert list((staging.parent / "moved").iterdir()) == []
