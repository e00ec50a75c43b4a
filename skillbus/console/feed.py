"""What the eye sees, as events for any number of listeners: each is encoded once, and memory is bounded.

A listener that reads too slowly loses what is queued for it and gets a fresh snapshot instead. So no reader, however
slow, holds more than a few frames, and none that keeps up is ever behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from pydantic import BaseModel

from skillbus.console import shapes
from skillbus.console.eye import Eye, Look
from skillbus.console.kills import UnderWay
from skillbus.console.views import certificate_now, certificate_of, entry_of
from skillbus.control.audit import Entry
from skillbus.core.audit import unpacked

PING = b": still here\n\n"
PING_EVERY_S = 15.0

_QUEUE_BYTES = 4 * 1024 * 1024
_STATUS_EVERY_MS = 2000
_PROGRESS_EVERY_S = 0.25
_LINES_LIMIT = 50


def frame(event: str, data: BaseModel, event_id: str = "") -> bytes:
    """One event, as it travels. JSON bears no line end, so it is one line."""
    head = f"event: {event}\n" + (f"id: {event_id}\n" if event_id else "")
    return f"{head}data: ".encode() + data.model_dump_json().encode() + b"\n\n"


def audit_frame(entry: Entry) -> bytes:
    """An entry of the audit; its id is what a browser sends back as ``Last-Event-ID``."""
    return frame("audit", entry_of(entry), entry.id)


class Listener:
    """One open stream."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self.needs_snapshot = True
        self.is_over = False

    def put(self, data: bytes) -> None:
        """One more event for it."""
        if self.needs_snapshot:  # Which will hold this, too.
            return
        self._frames.append(data)
        self._size += len(data)
        if self._size > _QUEUE_BYTES:
            self._frames.clear()
            self._size, self.needs_snapshot = 0, True
        self._news.set()

    def end(self) -> None:
        """No more events: the console ends."""
        self.is_over = True
        self._news.set()

    async def take(self, timeout_s: float) -> bytes:
        """Everything that is queued; empty: nothing came in time, or a snapshot is due."""
        if not self._frames and not self.needs_snapshot and not self.is_over:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return b""
        self._news.clear()
        data = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        return data


class Feed:
    """Everybody who listens.

    Attributes:
        status: makes the status as of now.
    """

    def __init__(self, eye: Eye, status: Callable[[], shapes.Status]) -> None:
        self._eye = eye
        self.status = status
        self.listeners: set[Listener] = set()
        self._last_status: shapes.Status | None = None
        self._sent_at: dict[str, float] = {}
        self._snapshot: tuple[object, bytes] = (None, b"")
        self._is_over = False

    def snapshot(self) -> shapes.Snapshot:
        """Everything, as of now. Rows are made by ``row_of`` alone, so they are not validated once more: that takes
        longer than all else."""
        columns = shapes.PodRow._fields
        return shapes.Snapshot.model_construct(status=self.status(), columns=columns, pods=self._eye.rows)

    def _snapshot_frame(self) -> bytes:
        key = (self._eye.look, self._last_status)
        if self._snapshot[0] != key:
            self._snapshot = (key, frame("snapshot", self.snapshot()))
        return self._snapshot[1]

    def _send(self, event: str, data: BaseModel) -> None:
        if self.listeners:
            self._send_all(frame(event, data))

    def _send_all(self, data: bytes) -> None:
        for listener in self.listeners:
            listener.put(data)

    def take_look(self, look: Look) -> None:
        """Pass on what a look found."""
        now_ms = look.seen.server_ms if look.seen else 0
        if look.changed or look.gone:
            self._send("pods", shapes.PodChanges(now_ms=now_ms, changed=look.changed, gone=look.gone))
        if look.beats:
            base_ms = min(look.beats.values())
            beats = {pod_id: at_ms - base_ms for pod_id, at_ms in look.beats.items()}
            self._send("beats", shapes.Beats(now_ms=now_ms, base_ms=base_ms, beats=beats))
        self.tell_status()

    def tell_status(self) -> None:
        """Pass the status on, if it is news."""
        now, last = self.status(), self._last_status
        is_old = last is None or abs(now.now_ms - last.now_ms) >= _STATUS_EVERY_MS
        if is_old or last is None or now != last.model_copy(update={"now_ms": now.now_ms}):
            self._last_status = now
            self._send("status", now)

    def take_entries(self, entries: list[Entry]) -> None:
        """Pass on what was added to the audit; a certificate also as the end of its kill."""
        if not self.listeners:
            return
        for entry in entries:
            self._send_all(audit_frame(entry))
            told = unpacked(entry.fields["certificate"]) if "certificate" in entry.fields else None
            if told is not None:
                certificate = certificate_of(told, lines_limit=_LINES_LIMIT)
                scope = entry_of(entry).scope
                ended = shapes.KillProgress(id=told.record.id, scope=scope, is_under_way=False, certificate=certificate)
                self._send("kill", ended)

    def take_progress(self, kill: UnderWay) -> None:
        """Pass on how a kill goes, a few times a second, and its end."""
        record_id, now_s = kill.report.record.id, asyncio.get_running_loop().time()
        if not kill.is_over and now_s < self._sent_at.get(record_id, 0.0) + _PROGRESS_EVERY_S:
            return
        if kill.is_over:
            self._sent_at.pop(record_id, None)
        else:
            self._sent_at[record_id] = now_s
        if kill.certificate is not None and self.listeners:
            certificate = certificate_now(kill.certificate, kill.report.held, lines_limit=_LINES_LIMIT)
            scope = kill.report.scope.label
            progress = shapes.KillProgress(
                id=record_id, scope=scope, is_under_way=not kill.is_over, certificate=certificate
            )
            self._send("kill", progress)

    # -- a stream ---------------------------------------------------------------------------------------------------

    async def stream(
        self, missed: Callable[[], AsyncIterator[bytes]], is_welcome: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Everything from now on: a snapshot, what was missed of the audit, and then what happens.

        Args:
            missed: gives the entries of the audit that this listener has missed.
            is_welcome: asked now and then; a stream ends with the token that opened it.
        """
        listener = Listener()
        if self._is_over:
            return
        self.listeners.add(listener)
        try:
            yield b"retry: 2000\n\n" + self._fresh(listener)
            async for data in missed():
                yield data
            while not listener.is_over and is_welcome():
                data = await listener.take(PING_EVERY_S)
                yield data or (self._fresh(listener) if listener.needs_snapshot else PING)
        finally:
            self.listeners.discard(listener)

    def _fresh(self, listener: Listener) -> bytes:
        listener.needs_snapshot = False
        return self._snapshot_frame()

    def end(self) -> None:
        """End every stream."""
        self._is_over = True
        for listener in self.listeners:
            listener.end()
