"""``skillbus verify``: the disk against ``skillbus.lock``. No Redis, no network, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.changes import print_files
from skillbus.cli.console import stdout
from skillbus.cli.options import OutputOption, TargetOption, skills_options_for
from skillbus.output import DRIFT, OK, Output, print_json, spoken

if TYPE_CHECKING:
    from skillbus.skills.verify import RootState, SkillState


def verify(
    target: TargetOption = None,
    every_file: Annotated[bool, typer.Option("--all", help="Name every file, however many they are.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Hold the skills on this disk against skillbus.lock. Exits 6 if anything differs."""
    with spoken("verify", output):
        from skillbus.skills.verify import verify as look

        options = skills_options_for(target=target)
        roots = [look(path) for path in dict.fromkeys((*options.targets, *options.project_targets))]
        code = DRIFT if any(root.drifted for root in roots) else OK
        if output is Output.JSON:
            print_json("verify", {"exit_code": code, "roots": [_fields(root) for root in roots]})
        else:
            for root in roots:
                _print(root, every_file=every_file)
        raise SystemExit(code)


def _print(root: RootState, *, every_file: bool) -> None:
    from skillbus.core.text import harmless

    console = stdout()
    path = harmless(str(root.path))
    if root.error:
        console.print(harmless(root.error, 2000), markup=False, style="bold red")
        return
    console.print(f"{path}: {_headline(root)}", markup=False, style="bold red" if root.drifted else None)
    if root.at_work:
        console.print("  a pass is at work there just now: look again when it is over", markup=False)
    elif root.unsettled:
        names = harmless(", ".join(root.unsettled))
        console.print(f"  unsettled: a pass died while it changed {names}; the next one undoes that", markup=False)
    for skill in root.skills:
        if skill.state != "ok":
            console.print(f"  {skill.state:<9}{skill.name}", markup=False)
            print_files(skill.files, 4, every=every_file)


def _headline(root: RootState) -> str:
    if not root.skills:
        words = "no managed skills"
    else:
        good_count = sum(skill.state == "ok" for skill in root.skills)
        of_all = f"all {len(root.skills)}" if good_count == len(root.skills) else f"{good_count} of {len(root.skills)}"
        words = f"{of_all} managed skills are as they were placed"
    others = "1 other is" if root.others_count == 1 else f"{root.others_count} others are"
    return words + (f"; {others} not skillbus's" if root.others_count else "")


def _fields(root: RootState) -> dict[str, Any]:
    return {
        "path": str(root.path),
        "drifted": root.drifted,
        "error": root.error,
        "at_work": root.at_work,
        "unsettled": list(root.unsettled),
        "others_count": root.others_count,
        "skills": [_skill_fields(skill) for skill in root.skills],
    }


def _skill_fields(skill: SkillState) -> dict[str, Any]:
    receipt = skill.receipt
    words = {word: getattr(receipt, word) for word in ("url", "revision", "digest", "placed_at", "instead_of")}
    files = [{"path": file.path, "change": file.change} for file in skill.files]
    return {"name": skill.name, "state": skill.state, **words, "files": files}
