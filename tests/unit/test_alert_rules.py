"""The alert rules ask for what is exported, and nothing else; promtool has its say where it is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from skillbus.core.latch import State
from skillbus.core.metrics import Figures, exposition
from tests.exposition import PROMTOOL, parsed

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
EXPORTED = parsed(exposition(Figures(State.RUNNING)))
LABELS = {name: {label for labels in family.samples for label, _ in labels} for name, family in EXPORTED.items()}
SCRAPED = {"instance", "job"}
"""What Prometheus adds to every series that it scrapes."""

KEYWORDS = {"and", "by", "for", "ignoring", "increase", "max", "max_over_time", "time", "timestamp", "unless"}


def rules() -> list[dict[str, Any]]:
    """Every rule of the file."""
    loaded = yaml.safe_load((FOLDER / "skillbus.rules.yaml").read_text("utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def selectors(expr: str) -> list[tuple[str, str]]:
    """``(metric, matchers)`` of every selector; everything else in it must be a known word, number or sign."""
    found = [(name, matchers or "") for name, matchers in re.findall(r"\b(skillbus_\w+)(?:\{([^}]*)\})?", expr)]
    rest = re.sub(r"\b(skillbus_\w+)(\{[^}]*\})?(\[\d+[smhd]\])?", " ", expr)
    unknown = set(re.findall(r"[a-z_]+", rest)) - KEYWORDS - SCRAPED - {"outcome", "state"}
    assert not unknown, f"{unknown} in {expr}"
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_is_exported(rule: dict[str, Any]) -> None:
    """Known metrics, known labels, and of these only values that there are."""
    found = selectors(rule["expr"])
    assert found
    for name, matchers in found:
        assert name in EXPORTED, name
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            assert label in LABELS[name] | SCRAPED, f"{name}{{{label}}}"
            assert value in EXPORTED[name].by(label), f'{name}{{{label}="{value}"}}'


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_helps_whom_it_wakes(rule: dict[str, Any]) -> None:
    """A severity, one line, a description that ends, and a place in the runbook that is there."""
    assert rule["labels"]["severity"] in ("warning", "critical")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert "\n" not in told["summary"]
    assert told["description"].endswith((".", ")"))
    page, _, anchor = told["runbook_url"].partition("#")
    assert page == "docs/runbook.md"
    assert anchor in anchors(ROOT / page)
    known = SCRAPED | set().union(*(LABELS[name] for name, _ in selectors(rule["expr"])))
    assert set(re.findall(r"\$labels\.(\w+)", str(told))) <= known


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the web faces of git hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_cause_for_alarm_has_its_rule() -> None:
    """And each metric is asked for by one, but how long a pass took, for which nobody knows what is too long."""
    found = rules()
    names = {rule["alert"] for rule in found}
    assert len(names) == len(found)
    assert names == {
        "SkillbusPodStopped",
        "SkillbusPodDeaf",
        "SkillbusPodOutOfContact",
        "SkillbusPodHolds",
        "SkillbusPassesFail",
        "SkillbusNoDrill",
        "SkillbusStopIsSlow",
    }
    asked = {name for rule in found for name, _ in selectors(rule["expr"])}
    assert set(EXPORTED) - asked == {"skillbus_pass_duration_seconds"}


def test_the_documentation_names_each_metric() -> None:
    """As it is exported."""
    told = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    named = {name.partition("{")[0] for name in re.findall(r"`(skillbus_[a-z_]+(?:\{\w+\})?)`", told)}
    assert named == set(EXPORTED)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_agrees() -> None:
    """It reads the rules, and each fires when skillbus.test.yaml says so, and not for a healthy pod."""
    for words in (["check", "rules", "skillbus.rules.yaml"], ["test", "rules", "skillbus.test.yaml"]):
        ran = subprocess.run(
            [str(PROMTOOL), *words], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran
    text = exposition(Figures(State.RUNNING))
    ran = subprocess.run([str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), ran
