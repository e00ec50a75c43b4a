"""``skillbus kill``: one obvious act, then the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.console import stderr, stdout
from skillbus.cli.options import (
    ByOption,
    FleetOption,
    GroupOption,
    OutputOption,
    PodOption,
    RedisOption,
    scope_for,
    settings_for,
    timeout_s_of,
    whoami,
    words,
)
from skillbus.output import ERROR, OK, UNKNOWN, UNPROVED, Output, fail, print_json, run_async, say, spoken

if TYPE_CHECKING:
    from skillbus.control.kill import KillReport
    from skillbus.core.certificate import Certificate
    from skillbus.core.scope import Scope
    from skillbus.settings import Settings

_ROWS = 60


def kill(
    reason: Annotated[str, typer.Argument(help="Why. It is shown on every pod.")] = "",
    group: GroupOption = None,
    pod: PodOption = None,
    by: ByOption = None,
    incident: Annotated[str, typer.Option("--incident", help="URL of the incident.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the order until it is proved.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to try, and then to wait.")] = "30s",
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=0, help="Fail unless so many replicas hold it.")
    ] = None,
    until_recorded: Annotated[bool, typer.Option("--until-recorded", help="Keep trying until it is recorded.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whom it would stop, and stop nobody.")] = False,
    output: OutputOption = Output.TABLE,
    fleet: FleetOption = None,
    redis: RedisOption = None,
) -> None:
    """Stop a fleet, a group or a pod now, and wait for the proof. Restarted pods stay stopped until a reset."""
    with spoken("kill", output):
        from skillbus.core.orders import KillOrder

        settings = settings_for(fleet, redis)
        scope = scope_for(settings, group, pod)
        order = KillOrder(by=words(by or whoami()), via="cli", reason=words(reason), incident=words(incident))
        if dry_run:
            run_async(_preview(settings, scope, output))
            return
        given = {"replicas": replicas, "wait": wait, "until_recorded": until_recorded}
        raise SystemExit(_give(settings, scope, order, timeout_s_of(timeout), given, output))


async def _preview(settings: Settings, scope: Scope, output: Output) -> None:
    from skillbus.control.kill import preview
    from skillbus.wiring import operator_bus

    async with operator_bus(settings) as bus:
        record, who = await preview(bus, scope)
    names = sorted({pod_id for pod_id, _ in who})
    if output is Output.JSON:
        print_json("kill", {"dry_run": True, "scope": str(scope), "killed": record is not None, "would_stop": names})
        return
    already = f"; it is killed already: {record.sentence()}" if record else ""
    stdout().print(
        f"would stop {len(names)} pods of {scope}: {', '.join(names) or 'none is known'}{already}", markup=False
    )


def _give(settings: Settings, scope: Scope, order: Any, timeout_s: float, given: dict[str, Any], output: Output) -> int:
    from skillbus.control.kill import OrderUnconfirmed
    from skillbus.errors import RetryLater

    try:
        report = run_async(_run(settings, scope, order, timeout_s, given))
    except OrderUnconfirmed as error:
        text = f"{error} — the order is NOT confirmed as stored, though it was sent: give it again, or skillbus status"
        fail("kill", output, text, UNKNOWN)
    except RetryLater as error:
        text = f"{error} — pods hold once their lease runs out; the order is NOT stored (--until-recorded keeps trying)"
        fail("kill", output, text, UNKNOWN)
    code = _code(report, given["replicas"])
    _print(report, given["replicas"], code, output)
    return code


async def _run(settings: Settings, scope: Scope, order: Any, timeout_s: float, given: dict[str, Any]) -> KillReport:
    from skillbus.control.kill import Kill
    from skillbus.wiring import operator_bus

    progress = _Progress()
    async with operator_bus(settings) as bus:
        try:
            return await Kill(bus, scope, order, timeout_s, on_progress=progress.show, **given).give()
        finally:
            progress.close()


class _Progress:
    """A bar of acknowledgements on stderr, naming who is missing; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def show(self, certificate: Certificate) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = stderr()
        if not console.is_terminal:
            return
        missing = certificate.unconfirmed
        if self._bar is None:
            columns = (TextColumn("stopping"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=len(certificate.lines))
            self._bar.start()
        names = ", ".join(line.pod_id for line in missing[:3]) + (" …" if len(missing) > 3 else "")
        done = len(certificate.lines) - len(missing)
        self._bar.update(self._task, completed=done, description=f"waiting for {names}" if missing else "")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _code(report: KillReport, replicas: int | None) -> int:
    if not report.stands and not _unread(report):
        return ERROR
    proved = report.certificate is None or report.certificate.complete
    if not report.stands or report.not_seen is not None or not proved:
        return UNPROVED
    return UNPROVED if (report.replicas or 0) < (replicas or 0) else OK


def _unread(report: KillReport) -> bool:
    """Whether the server said that a record stands, but did not let us read it back."""
    return report.not_read is not None and isinstance(report.answers.recorded, bool)


def _print(report: KillReport, replicas: int | None, code: int, output: Output) -> None:
    if output is Output.JSON:
        print_json("kill", _fields(report, code))
        return
    console = stdout()
    for text in _sentences(report, replicas):
        console.print(text, markup=False)
    if report.certificate is not None and report.certificate.lines:
        _print_lines(report.certificate)
        console.print(_percentiles(report.certificate), markup=False)
        console.print(report.certificate.sentence(), markup=False, style="bold")
    if not report.stands and not _unread(report):
        say("skillbus: the order is NOT recorded: restarted pods may run. Pods that heard it keep trying to record it")


def _sentences(report: KillReport, replicas: int | None) -> list[str]:
    from skillbus.errors import SkillbusError

    lines = [_recorded(report)]
    if isinstance(report.answers.receivers, SkillbusError):
        lines.append(f"NOT published ({report.answers.receivers}): pods find the record at their next heartbeat")
    if isinstance(report.answers.audited, SkillbusError):
        lines.append(f"NOT audited: {report.answers.audited}")
    if replicas:
        lines.append(f"held by {report.replicas or 0} replicas ({replicas} wanted)")
    if report.not_seen is not None:
        seen = "who has stopped was last seen as below" if report.certificate else "who has stopped is not known"
        lines.append(f"the proof could not be read ({report.not_seen}): {seen}: look with skillbus status")
    elif _nobody(report):
        others = ", ".join(f"{name} ({count})" for name, count in report.fleets) or "none"
        but = "recorded, but " if report.stands else ""
        lines.append(f"{but}no pod is known in {report.scope}; fleets on this Redis: {others}")
    return lines


def _nobody(report: KillReport) -> bool:
    return report.certificate is not None and not report.certificate.lines


def _recorded(report: KillReport) -> str:
    answers, killed = report.answers, f"{report.scope} is killed: {report.record.sentence()}"
    if _unread(report):
        said = "that it took the record" if answers.recorded else "that one stands from before"
        return f"recorded, but the proof could not be read back ({report.not_read}): the server only said {said}"
    if isinstance(answers.recorded, bool) and not report.stands:
        return "recorded, but the record is gone again: it was reset, or Redis has lost its data: look, and kill again"
    if not report.stands:
        return f"published, NOT recorded: {answers.recorded}"
    if not report.first:
        return f"{report.scope} was killed before, and that record stands: {report.record.sentence()}"
    return killed if _nobody(report) else f"recorded: {killed}"


def _print_lines(certificate: Certificate) -> None:
    from rich.table import Table

    from skillbus.core.certificate import Proof
    from skillbus.core.orders import iso

    lines = sorted(certificate.lines, key=lambda line: (line.proof is Proof.STOPPED, line.pod_id))
    table = Table("pod", "proved", "when", "note", box=None, pad_edge=False, header_style="bold")
    for line in lines[:_ROWS]:
        when = {
            Proof.STOPPED: f"after {line.seconds * 1000:.0f} ms",
            Proof.FENCED: f"at {iso(line.at_ms)}",
            Proof.UNCONFIRMED: f"last heard {iso(line.last_beat_ms)}" if line.last_beat_ms else "never heard",
        }[line.proof]
        style = {Proof.STOPPED: "green", Proof.FENCED: "yellow", Proof.UNCONFIRMED: "bold red"}[line.proof]
        table.add_row(line.pod_id, f"[{style}]{line.proof}[/]", when, line.note)
    console = stdout()
    console.print(table)
    if len(lines) > _ROWS:
        console.print(f"… and {len(lines) - _ROWS} more, all of them stopped" if _rest_stopped(lines) else "…")


def _percentiles(certificate: Certificate) -> str:
    found = [certificate.percentile_s(percent) for percent in (50, 99, 100)]
    times = [f"{seconds * 1000:.0f} ms" for seconds in found if seconds is not None]
    return f"from order to quiet: p50 {times[0]}, p99 {times[1]}, max {times[2]}" if times else "nobody is stopped yet"


def _rest_stopped(lines: list[Any]) -> bool:
    return all(line.proof == "stopped" for line in lines[_ROWS:])


def _fields(report: KillReport, code: int) -> dict[str, Any]:
    answers = report.answers
    parts = (answers.recorded, answers.receivers, answers.audited, report.not_read, report.not_seen)
    return {
        "exit_code": code,
        "scope": str(report.scope),
        "record": report.record.model_dump(),
        "recorded": report.stands or _unread(report),
        "read_back": report.stands,
        "first": report.first,
        "published": isinstance(answers.receivers, int),
        "audited": isinstance(answers.audited, str),
        "errors": [str(part) for part in parts if _failed(part)],
        "replicas": report.replicas,
        "certificate": _certificate(report.certificate),
        "fleets": [{"fleet": name, "pods": count} for name, count in report.fleets],
    }


def _failed(part: object) -> bool:
    return isinstance(part, Exception)


def _certificate(certificate: Certificate | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    from dataclasses import asdict

    from skillbus.core.certificate import Proof

    return {
        "sentence": certificate.sentence(),
        "complete": certificate.complete,
        **{str(proof): certificate.count(proof) for proof in Proof},
        "p50_s": certificate.percentile_s(50),
        "p99_s": certificate.percentile_s(99),
        "max_s": certificate.percentile_s(100),
        "pods": [asdict(line) for line in certificate.lines],
    }
