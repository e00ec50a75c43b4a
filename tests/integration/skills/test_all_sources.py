"""The example that mixes all sources, with hosts of this machine in the place of its made-up ones."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from tests.fakes.git_host import Repository, git_host, own_home
from tests.fakes.github import FakeGitHub
from tests.integration.skills.world import Server, skill_text, tarball, visible
from tests.pods import arm, environ_of, skillbus
from tests.servers import RealServer

EXAMPLE = Path(__file__).parents[3] / "examples" / "all-sources.yaml"
NAMES = {"data-eda", "sql-house-style", "pdf", "charts", "forms", "changelog-entry"}


def _zip(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return raw.getvalue()


def _localised(folder: Path, github: FakeGitHub, git_url: str, web: Server) -> Path:
    """The example with other hosts; the pinned digest is dropped."""
    text = EXAMPLE.read_text().replace("https://github.com", github.url)
    text = text.replace("git+https://gitlab.example.org/team", f"git+{git_url}")
    text = text.replace("https://files.example.org", web.url).replace("./skills", str(EXAMPLE.parent / "skills"))
    manifest = folder / "manifest.yaml"
    manifest.write_text(re.sub(r"\n +sha256: [0-9a-f]+", "", text))
    return manifest


def test_a_manifest_that_mixes_all_sources(redis_server: RealServer, tmp_path: Path, web: Server) -> None:
    """``run --once`` on it places one skill from each, ``plan`` then has nothing to do, and ``verify`` is content."""
    arm(redis_server)
    with own_home(tmp_path), git_host(tmp_path / "git") as git, FakeGitHub() as github:
        repo = github.repo("example-org/skills")
        repo.commit({f"skills/{name}/SKILL.md": skill_text(name) for name in ("data-eda", "sql")})
        team = Repository(tmp_path / "git" / "skills.git")
        team.commit({"pdf/SKILL.md": skill_text("pdf")})
        team.git("branch", "v3")
        web.routes["/skills/charts-1.4.tar.gz"] = (200, {}, tarball({"SKILL.md": skill_text("charts")}, "charts-1.4/"))
        web.routes["/skills/all.zip"] = (200, {}, _zip({"skills/forms/SKILL.md": skill_text("forms")}))
        manifest = _localised(tmp_path, github, git.url, web)
        env = environ_of(
            redis_server,
            SKILLBUS_STATE_DIR=str(tmp_path / "state"),
            GITHUB_SERVER_URL=github.url,
            GITHUB_API_URL=github.api,
            SKILLBUS_SKILLS_LOCAL_HOSTS=f"{github.host},{git.host},{web.host}",
        )
        words = ("--manifest", str(manifest), "--target", str(tmp_path / "root"))
        done = skillbus("run", "--once", *words, env=env)
        assert done.code == 0, done
        planned = skillbus("plan", "--exit-code", *words, env=env)
        verified = skillbus("verify", "--target", str(tmp_path / "root"), env=env)
    assert {path.split("/")[0] for path in visible(tmp_path / "root")} == NAMES | {"skillbus.lock"}
    assert planned.code == 0, planned
    assert verified.code == 0, verified
