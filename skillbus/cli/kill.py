"""``skillbus kill``: one obvious act, then the proof."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skillbus.cli.bar import Bar
from skillbus.cli.console import stdout
from skillbus.cli.options import (
    ByOption,
    FleetOption,
    GroupOption,
    OutputOption,
    PodOption,
    RedisOption,
    scope_for,
    seconds_of,
    settings_for,
    whoami,
    words,
)
from skillbus.cli.proof import proof_fields, show_proof
from skillbus.control.telling_orders import (
    failed_sentences,
    found_nobody,
    is_recorded,
    is_unread,
    recorded_sentence,
)
from skillbus.output import (
    ERROR,
    INTERRUPTED,
    OK,
    UNKNOWN,
    UNPROVED,
    Output,
    fail,
    print_json,
    run_async,
    say,
    spoken,
)

if TYPE_CHECKING:
    from skillbus.control.kill import Kill, KillReport
    from skillbus.core.audit import Told
    from skillbus.core.certificate import Certificate
    from skillbus.core.scope import Scope
    from skillbus.settings import Settings

_EXPECT_LIMIT = 4 * 1024 * 1024
"""Bytes of a list of pods: a hundred thousand names."""


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
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="FILE", help="Pods that must be there, one id a line; - for stdin."),
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
        given: dict[str, Any] = {"replicas": replicas, "wait": wait, "until_recorded": until_recorded}
        given["expect"] = _expected(expect, wait=wait)
        raise SystemExit(_give(settings, scope, order, seconds_of("--timeout", timeout), given, output))


def _expected(source: str | None, *, wait: bool) -> frozenset[str]:
    """The pods that ``--expect`` names. A list that cannot be used must not be found out behind the order."""
    import sys
    from pathlib import Path

    from skillbus.core.expect import pods_expected
    from skillbus.errors import BadSettings

    if source is None:
        return frozenset()
    if not wait:
        raise BadSettings("--expect is about the proof, and --no-wait asks for none: leave one of them out")
    where = "--expect: standard input" if source == "-" else f"--expect {source}"
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(_EXPECT_LIMIT + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(_EXPECT_LIMIT + 1)
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{where} cannot be read: {error}") from None
    if len(raw) > _EXPECT_LIMIT:
        raise BadSettings(f"{where} is larger than {_EXPECT_LIMIT // 1024 // 1024} MiB: is that a list of pods?")
    return pods_expected(text, where)


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
    import asyncio

    from skillbus.control.kill import OrderUnconfirmed
    from skillbus.errors import RetryLater

    try:
        report = run_async(_run(settings, scope, order, timeout_s, given))
    except asyncio.CancelledError:
        fail("kill", output, "interrupted before an answer came: the order may be stored: skillbus status", INTERRUPTED)
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

    bar = Bar("stopping")

    def show(certificate: Certificate) -> None:
        bar.show(len(certificate.lines), [line.pod_id for line in certificate.unconfirmed])

    async with operator_bus(settings) as bus:
        one = Kill(bus, scope, order, timeout_s, on_progress=show, **given)
        _let_go_on_interrupt(one)
        try:
            return await one.give()
        finally:
            bar.close()


def _let_go_on_interrupt(one: Kill) -> None:
    """Ctrl-C ends the waiting, not the telling; before the order is given, or pressed again, it ends everything."""
    import asyncio
    import signal

    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def pressed() -> None:
        if one.given and not one.enough.is_set():
            one.enough.set()
        elif task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, pressed)


def _code(report: KillReport, replicas: int | None) -> int:
    if not report.stands and not is_unread(report):
        return ERROR
    if report.interrupted:
        return INTERRUPTED
    proved = report.certificate is None or report.certificate.complete
    if not report.stands or report.not_seen is not None or not proved:
        return UNPROVED
    return UNPROVED if (report.held.replicas or 0) < (replicas or 0) else OK


def _print(report: KillReport, replicas: int | None, code: int, output: Output) -> None:
    if output is Output.JSON:
        print_json("kill", _fields(report, code))
        return
    console = stdout()
    for text in _sentences(report, replicas):
        console.print(text, markup=False)
    told = _told(report)
    if told is not None and told.lines:
        show_proof(told)
    else:
        console.print(f"held {report.held.sentence()}", markup=False)
    if isinstance(report.stored, str):
        console.print(f"kept: skillbus history {report.record.id}", markup=False)
    if not report.stands and not is_unread(report):
        say("skillbus: the order is NOT recorded: restarted pods may run. Pods that heard it keep trying to record it")


def _told(report: KillReport) -> Told | None:
    from skillbus.core.audit import told_of

    if report.certificate is None:
        return None
    return told_of(report.certificate, report.held, interrupted=report.interrupted)


def _sentences(report: KillReport, replicas: int | None) -> list[str]:
    lines = [recorded_sentence(report), *failed_sentences(report)]
    if replicas:
        lines.append(f"held by {report.held.replicas or 0} replicas ({replicas} wanted)")
    if report.not_seen is not None:
        seen = "who has stopped was last seen as below" if report.certificate else "who has stopped is not known"
        lines.append(f"the proof could not be read ({report.not_seen}): {seen}: look with skillbus status")
    elif found_nobody(report):
        others = ", ".join(f"{name} ({count})" for name, count in report.fleets) or "none"
        but = "recorded, but " if report.stands else ""
        lines.append(f"{but}no pod is known in {report.scope}; fleets on this Redis: {others}")
    return lines


def _fields(report: KillReport, code: int) -> dict[str, Any]:
    answers = report.answers
    parts = (answers.recorded, answers.receivers, answers.audited, report.stored, report.not_read, report.not_seen)
    told = _told(report)
    return {
        "exit_code": code,
        "scope": str(report.scope),
        "record": report.record.model_dump(),
        "recorded": is_recorded(report),
        "read_back": report.stands,
        "first": report.first,
        "published": isinstance(answers.receivers, int),
        "audited": isinstance(answers.audited, str),
        "errors": [str(part) for part in parts if _failed(part)],
        "replicas": report.held.replicas,
        "held": {"sentence": report.held.sentence(), **asdict(report.held)},
        "interrupted": report.interrupted,
        "kept": isinstance(report.stored, str),
        "certificate": None if told is None else proof_fields(told),
        "fleets": [{"fleet": name, "pods": count} for name, count in report.fleets],
    }


def _failed(part: object) -> bool:
    return isinstance(part, Exception)
