"""What is shown below the bar of a sync: a pod a line, or what many are at."""

from __future__ import annotations

from skillbus.cli.bar import lines_of


def test_a_few_pods_are_told_one_by_one() -> None:
    """In a column, and nothing of it can move the cursor."""
    doing = [("a", "fetches github.com/o/r: 2 skills, 3.1 MiB"), ("long-name", "changes \x1b[2Jpdf")]
    assert lines_of(doing) == [
        "  a          fetches github.com/o/r: 2 skills, 3.1 MiB",
        "  long-name  changes  [2Jpdf",
    ]
    assert lines_of([]) == []


def test_many_pods_are_summed_up() -> None:
    """By what they are at, whatever count stands behind its colon; no more than eight lines, and one for the rest."""
    many = [(f"p{n}", f"fetches https://h/r: {n} skills") for n in range(4_000)] + [("q", "asks https://h/r")]
    assert lines_of(many) == ["   4000 pods: fetches https://h/r", "      1 pod: asks https://h/r"]
    odd = [(f"p{n}", f"thing {n}") for n in range(20)]
    assert len(lines_of(odd)) == 9
    assert lines_of(odd)[-1] == "     12 at something else"
