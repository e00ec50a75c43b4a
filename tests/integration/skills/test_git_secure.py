"""git over https with an authority of the company's own, and over ssh: real git, real TLS, a real sshd on loopback."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from skillbus.errors import SourceUnavailable
from skillbus.skills.landing import Landing
from skillbus.skills.sources.git import SOURCE
from skillbus.skills.sources.route import Trust
from skillbus.skills.sources.source import Access, Revision
from skillbus.skills.sources.web import Web
from tests.fakes.git_host import Certificate, GitHost, Repository, certificate, git_host, own_home
from tests.integration.skills.world import skill_text, visible
from tests.pods import eventually

TOKEN = "canary-token-91c3"


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """No git settings but those of the test."""
    with own_home(tmp_path / "home") as folder:
        yield folder


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A repository with one skill."""
    made = Repository(tmp_path / "repos" / "s.git")
    made.commit({"a/SKILL.md": skill_text("a"), "a/run.sh": b"#!/bin/sh\n"}, executable=("a/run.sh",))
    return made


def _access(host: str, token: str | None = None) -> Access:
    return Access(Web(Trust(token, frozenset([host] if token else []), frozenset([host]))), 0)


def _resolve(url: str, access: Access) -> Revision:
    return asyncio.run(SOURCE.resolve(SOURCE.origin(url, access), None, access))


def _fetched(url: str, access: Access, staging: Path) -> dict[str, bytes]:
    """What lands of the skill ``a``."""
    revision = _resolve(url, access)
    staging.mkdir()
    folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        landing = Landing(folder, "0")
        SOURCE.fetch(SOURCE.origin(url, access), revision, {"a": landing}, access)
        landing.rest()
    finally:
        os.close(folder)
    assert landing.error is None
    return visible(staging / "0")


WANTED = {"SKILL.md": skill_text("a"), "run.sh*": b"#!/bin/sh\n"}

# ---- https -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> Certificate:
    """For 127.0.0.1, by an authority that this machine does not know."""
    return certificate(tmp_path / "tls", "IP:127.0.0.1")


@pytest.fixture
def host(repo: Repository, tls: Certificate) -> Iterator[GitHost]:
    """An https host of that repository."""
    with git_host(repo.folder.parent, tls) as running:
        yield running


def test_https_with_an_authority_of_ones_own(
    host: GitHost, tls: Certificate, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused as long as nobody vouches for it, and nothing was asked then; SSL_CERT_FILE or git's own setting does."""
    access = _access(host.host, TOKEN)
    host.login = f"x-access-token:{TOKEN}"
    url = f"git+{host.url}/s.git/.git"
    assert url.startswith("git+https://")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(SourceUnavailable, match=r"certificate was not accepted .*SSL_CERT_FILE") as caught:
        _resolve(url, access)
    assert host.requests == []
    assert TOKEN not in str(caught.value)
    (home / ".gitconfig").write_text(f"[http]\n sslCAInfo = {tls.authority}\n")
    assert _fetched(url, access, tmp_path / "one") == WANTED
    (home / ".gitconfig").unlink()
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    assert _fetched(url, access, tmp_path / "two") == WANTED
    assert all(line.startswith(("GET /s.git", "POST /s.git")) for line in host.requests)


def test_https_to_another_name_is_refused(host: GitHost, tls: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is of 127.0.0.1 and not of localhost, which is the same machine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    port = host.host.rpartition(":")[2]
    with pytest.raises(SourceUnavailable, match="certificate was not accepted"):
        _resolve(f"git+https://localhost:{port}/s.git/.git", _access("localhost"))
    assert host.requests == []


# ---- ssh -------------------------------------------------------------------------------------------------------------


@dataclass
class Sshd:
    """A running sshd, and what its one user may set.

    Attributes:
        port: on 127.0.0.1.
        folder: with ``authorized``, ``known``, and the client's ``key``.
    """

    port: int
    folder: Path

    def url(self, repo: Repository) -> str:
        """Of a repository of this machine."""
        return f"git+ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repo.folder}"

    def let_in(self, before: str = "") -> None:
        """The client's key may do anything, or as ``before`` says."""
        (self.folder / "authorized").write_text(f"{before}{(self.folder / 'key.pub').read_text()}")


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """It lets nobody in yet, and the client knows its key. The client is the real ssh, with settings of its own."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    ssh, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if program is None or ssh is None or keygen is None:
        pytest.skip("no sshd here: apt-get install openssh-server, or make test as root on Debian")
    folder = tmp_path / "ssh"
    folder.mkdir()
    for name in ("host", "key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "authorized").write_text("")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    (folder / "client").write_text(
        f"IdentityFile {folder}/key\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\nGlobalKnownHostsFile none\n"
    )
    (folder / "bin").mkdir()
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {folder}/client "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with _running(program, folder, port):
        yield Sshd(port, folder)


@contextmanager
def _running(program: str, folder: Path, port: int) -> Iterator[None]:
    private = Path("/run/sshd")  # a root's sshd wants it, and its service, which is not started, makes it
    made = os.geteuid() == 0 and not private.exists()
    if made:
        private.mkdir(mode=0o755)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "server")], stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or _listens(port), "sshd listens")
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {(folder / 'log').read_text()[-300:]}")
        yield
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(10)
        psutil.wait_procs(children, timeout=5)
        if made:
            private.rmdir()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_ssh(repo: Repository, sshd: Sshd, tmp_path: Path) -> None:
    """With a key that is let in: what was committed, with its executable bits."""
    sshd.let_in()
    assert _fetched(sshd.url(repo), _access("127.0.0.1"), tmp_path / "staging") == WANTED


def test_ssh_refuses(repo: Repository, sshd: Sshd) -> None:
    """A key that is not let in; then a host whose key nobody knows, which is never learned by asking nobody."""
    with pytest.raises(SourceUnavailable, match="give this user a key that may read it"):
        _resolve(sshd.url(repo), _access("127.0.0.1"))
    sshd.let_in()
    (sshd.folder / "known").write_text("")
    with pytest.raises(SourceUnavailable, match="does not know this host's key"):
        _resolve(sshd.url(repo), _access("127.0.0.1"))
    assert (sshd.folder / "known").read_text() == ""


def test_ssh_cancelled_while_the_server_stalls(repo: Repository, sshd: Sshd) -> None:
    """Logged in, and no answer: when it has returned, no ssh and no git of it runs."""
    sshd.let_in(f'command="echo in >{sshd.folder}/stalled; exec cat >/dev/null" ')
    access = _access("127.0.0.1")

    async def scenario() -> None:
        asking = asyncio.create_task(SOURCE.resolve(SOURCE.origin(sshd.url(repo), access), None, access))
        while not (sshd.folder / "stalled").exists():
            await asyncio.sleep(0.02)
        assert {"git", "ssh"} <= {one.name() for one in _clients()}
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert _clients() == []

    asyncio.run(scenario())


def _clients() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            of_the_server = any(parent.name().startswith("sshd") for parent in process.parents())
            alive = process.status() != psutil.STATUS_ZOMBIE and not of_the_server
            if alive and process.name() in {"git", "ssh", "sh"}:
                found.append(process)
    return found
