"""The verbs about skills on one machine, as real processes: what they say, what they leave alone, how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.skills.world import World, everything, skill_text
from tests.pods import arm, environ_of, order, skillbus
from tests.servers import RealServer

NOWHERE = "redis://127.0.0.1:1/0"
HOSTILE = "evil\x1b[2J\u202e.md"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Sources, a manifest and a root, empty."""
    return World(tmp_path)


def environ(world: World, redis: RealServer | str = NOWHERE) -> dict[str, str]:
    """A home and a state folder of this test's own; the one manifest and the one target are set."""
    return environ_of(
        redis,
        HOME=str(world.folder / "home"),
        SKILLBUS_STATE_DIR=str(world.folder / "state"),
        SKILLBUS_SKILLS_TARGETS=str(world.root),
        SKILLBUS_SKILLS_MANIFEST=str(world.manifest),
    )


def place(world: World, *versions: str) -> None:
    """A pass for each version of ``pdf``."""
    for text in versions:
        world.skill("pdf", text, {"notes.txt": text.encode()})
        world.list("./skills/pdf")
        assert world.run().errors == ()


# ---- verify ----------------------------------------------------------------------------------------------------------


def test_verify_says_what_differs(world: World) -> None:
    """0 while all is as placed; 6 with each file that is not, hostile names made harmless; nothing is written."""
    place(world, "one")
    (world.root / "mine").mkdir()
    good = skillbus("verify", env=environ(world))
    assert (good.code, good.err) == (0, "")
    assert "all 1 managed skills are as they were placed; 1 other is not skillbus's" in good.out
    (world.root / "pdf/notes.txt").write_text("changed")
    (world.root / "pdf" / HOSTILE).write_text("x")
    (world.root / "pdf/SKILL.md").chmod(0o755)
    before = everything(world.root)
    told, as_json = skillbus("verify", env=environ(world)), skillbus("verify", "-o", "json", env=environ(world))
    assert (told.code, as_json.code) == (6, 6)
    assert [line.split()[:2] for line in told.out.splitlines()[1:]] == [
        ["changed", "pdf"],
        ["x", "SKILL.md"],
        ["+", "evil"],
        ["~", "notes.txt"],
    ]
    assert "\x1b" not in told.out + as_json.out
    assert "\u202e" not in told.out + as_json.out
    (root,) = as_json.json["roots"]
    (skill,) = root["skills"]
    assert (root["drifted"], root["others_count"], root["error"], skill["state"]) == (True, 1, "", "changed")
    assert {file["path"]: file["change"] for file in skill["files"]} == {
        "SKILL.md": "mode",
        HOSTILE: "added",
        "notes.txt": "changed",
    }
    assert everything(world.root) == before


def test_verify_where_nothing_is(world: World) -> None:
    """No root, no lock: nothing is wrong, and no folder of ours appears. A lock that cannot be read is."""
    env = environ(world)
    assert skillbus("verify", env=env).code == 0
    assert not world.root.exists()
    world.root.mkdir()
    (world.root / "skillbus.lock").write_text("{")
    told = skillbus("verify", env=env)
    assert (told.code, "cannot be understood" in told.out) == (6, True)
    assert [path.name for path in world.root.iterdir()] == ["skillbus.lock"]


# ---- validate --------------------------------------------------------------------------------------------------------


def test_validate_points_at_lines(world: World) -> None:
    """0 for good skills; warnings are 0 without --strict and 6 with it; errors are 6, with the file and the line."""
    env = environ(world)
    good, bad = world.skill("good"), world.skill("bad")
    assert skillbus("validate", str(good), env=env).code == 0
    (bad / "SKILL.md").write_text("---\nname: bad\ndescription: d\nflavour: sour\n---\n")
    told = skillbus("validate", str(world.folder / "skills"), env=env)
    assert told.code == 0, told
    assert f"{bad}/SKILL.md:4: " in told.out
    assert told.out.splitlines()[-1] == "2 skills: 1 warning"
    strict = skillbus("validate", "--strict", "-o", "json", str(bad / "SKILL.md"), env=env)
    assert (strict.code, strict.json["exit_code"], strict.json["warnings_count"]) == (6, 6, 1)
    (finding,) = strict.json["skills"][0]["findings"]
    assert (finding["path"], finding["line"], finding["severity"]) == ("SKILL.md", 4, "warning")
    (bad / "SKILL.md").write_text(f"---\nname: bad\ndescription: {'x' * 1068}\n---\n")
    long = skillbus("validate", str(bad), env=env)
    assert (long.code, f"{bad}/SKILL.md:3: the description has " in long.out) == (6, True), long
    (bad / "SKILL.md").write_text("no frontmatter\n")
    broken = skillbus("validate", str(bad), str(good), env=env)
    assert broken.code == 6
    assert broken.out.splitlines()[-1] == "2 skills: 1 error"


def test_validate_of_what_is_not_there(world: World) -> None:
    """A path that is nothing, or a file that is no SKILL.md: exit 2, one sentence. An empty folder is no skill: 6."""
    env = environ(world)
    missing = skillbus("validate", str(world.folder / "nope"), env=env)
    assert (missing.code, missing.out, len(missing.err.splitlines())) == (2, "", 1)
    (world.folder / "file.txt").write_text("x")
    assert "is no folder" in skillbus("validate", str(world.folder / "file.txt"), env=env).err
    (world.folder / "empty").mkdir()
    assert skillbus("validate", str(world.folder / "empty"), env=env).code == 6


# ---- manifest --------------------------------------------------------------------------------------------------------


def test_manifest_schema_is_printed(world: World) -> None:
    """As it lies in the package: one JSON document, and nothing else."""
    told = skillbus("manifest", "schema", env=environ(world))
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_manifest_check_names_source_index_and_field(world: World) -> None:
    """0 for a good one; 6 with each fault at its place; a manifest that cannot be parsed stops no other."""
    world.list("./skills/pdf")
    env = environ(world)
    good = skillbus("manifest", "check", str(world.manifest), env=env)
    assert (good.code, good.out) == (0, "1 entry: good\n")
    bad = world.folder / "bad.yaml"
    bad.write_text(
        "skills:\n  - url: ./a\n    name: Bad Name\n  - url: ftp://h/x\n  - url: ./skills/pdf\n    nmae: x\n"
    )
    broken = world.folder / "broken.yaml"
    broken.write_text("skills: [" * 10)
    told = skillbus("manifest", "check", "-o", "json", str(world.manifest), str(bad), str(broken), env=env)
    assert (told.code, told.json["entries_count"]) == (6, 2)
    errors = "\n".join(told.json["errors"])
    assert f"{bad}, skills[0].name: " in errors
    assert f"{bad}, skills[1]" in errors
    assert str(broken) in errors
    assert any("nmae" in text for text in told.json["warnings"])
    assert any("wins" in text for text in told.json["warnings"]), "the same url twice"


# ---- plan ------------------------------------------------------------------------------------------------------------


def planned(*words: str, world: World) -> Any:
    """The steps of the one root, by name."""
    told = skillbus("plan", "-o", "json", *words, env=environ(world))
    return {step["name"]: step for root in told.json["roots"] for step in root["steps"]}, told


def test_plan_is_a_diff_of_what_a_pass_would_do(world: World) -> None:
    """Added, updated with its files, repaired, removed, unchanged; no Redis; the root is not touched."""
    for name in ("gone", "same", "moved", "edited"):
        world.skill(name, "one", {"keep.txt": b"k", "old.txt": b"o", "run": b"r"})
    world.list(*(f"./skills/{name}" for name in ("gone", "same", "moved", "edited")))
    assert world.run().errors == ()
    world.skill("new")
    moved = world.skill("moved", "two", {"more.txt": b"m"})
    (moved / "old.txt").unlink()
    (moved / "run").chmod(0o755)
    (world.root / "edited/keep.txt").write_text("edited")
    world.list(*(f"./skills/{name}" for name in ("same", "moved", "edited", "new")))
    before = everything(world.root)
    steps, told = planned("--exit-code", world=world)
    assert told.code == 6
    assert {name: step["kind"] for name, step in steps.items()} == {
        "same": "unchanged",
        "moved": "updated",
        "edited": "repaired",
        "new": "added",
        "gone": "removed",
    }
    assert {file["path"]: file["change"] for file in steps["moved"]["files"]} == {
        "SKILL.md": "changed",
        "more.txt": "added",
        "old.txt": "removed",
        "run": "mode",
    }
    table = skillbus("plan", env=environ(world))
    assert table.code == 0
    lines = [line.strip() for line in table.out.splitlines()]
    assert {
        "- gone",
        "= 1 unchanged",
        "+ SKILL.md",
        "+ more.txt",
        "- old.txt",
        "~ SKILL.md",
        "x run (executable bit)",
    } <= set(lines)
    assert any(line.startswith("+ new  from ") for line in lines)
    assert lines[-1] == "plan: 1 to add, 1 to update, 1 to repair, 1 to remove"
    assert everything(world.root) == before


def test_plan_with_nothing_to_do_or_nothing_to_go_by(world: World) -> None:
    """0 with --exit-code when all is in place; no folder appears where nothing is yet; errors are 1; no manifest, 2."""
    world.skill("pdf")
    world.list("./skills/pdf")
    assert planned("--exit-code", world=world)[1].code == 6
    assert not world.root.exists()
    world.run()
    steps, told = planned("--exit-code", world=world)
    assert (told.code, steps["pdf"]["kind"]) == (0, "unchanged")
    world.list("./skills/pdf", "./skills/missing")
    broken = skillbus("plan", "--exit-code", env=environ(world))
    assert (broken.code, "error: " in broken.out) == (1, True)
    nothing = skillbus("plan", env={**environ(world), "SKILLBUS_SKILLS_MANIFEST": ""})
    assert (nothing.code, nothing.out) == (2, "")


# ---- rollback --------------------------------------------------------------------------------------------------------


def test_rollback_goes_through_the_gate(world: World, redis_server: RealServer) -> None:
    """Unarmed: 4. Armed: 0, the version before is back. Killed: 3, and nothing is changed."""
    place(world, "one", "two")
    env = environ(world, redis_server)
    assert skillbus("rollback", "pdf", env=env).code == 4
    arm(redis_server)
    told = skillbus("rollback", "pdf", "-o", "json", env=env)
    assert (told.code, told.json["command"], told.json["counts"]["restored"]) == (0, "rollback", 1), told
    assert (world.root / "pdf/SKILL.md").read_bytes() == skill_text("pdf", "one")
    order(redis_server, reason="token leaked")
    before = everything(world.root)
    killed = skillbus("rollback", "pdf", env=env)
    assert killed.code == 3
    assert "nothing done: fleet 'prod' killed" in killed.err
    assert everything(world.root) == before


def test_rollback_lists_and_refuses_without_redis(world: World) -> None:
    """--list shows what is kept; what cannot be chosen is said before a pod starts; Redis away is 4."""
    env = environ(world)
    place(world, "one")
    nothing = skillbus("rollback", "pdf", env=env)
    assert (nothing.code, "no earlier version of 'pdf' is kept" in nothing.err) == (1, True)
    place(world, "two")
    listed = skillbus("rollback", "pdf", "--list", "-o", "json", env=env)
    (root,) = listed.json["roots"]
    (kept,) = root["kept"]
    assert listed.code == 0
    assert kept["digest"] != root["now"]["digest"]
    table = skillbus("rollback", "pdf", "--list", env=env)
    assert kept["digest"][:12] in table.out
    assert "in place" in table.out
    before = everything(world.root)
    for words, code in {("nope",): 2, ("pdf", "--to", "xyz"): 2, ("../pdf",): 2, ("pdf",): 4}.items():
        told = skillbus("rollback", *words, env=env)
        assert (told.code, told.out) == (code, ""), told
        assert "skillbus: " in told.err
    assert everything(world.root) == before
