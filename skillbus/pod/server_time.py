"""Server time: the server's last word on it, carried on by the boot-time clock. No wall clock decides anything."""

from __future__ import annotations

from skillbus.clock import Clock


class ServerTime:
    """What the server's clock says now, as far as we know."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._server_ms: int | None = None
        self._server_ms_at_s = 0.0

    def note_server_ms(self, server_ms: int, sent_at_s: float) -> None:
        """The server told its time, in the answer to a request sent at ``sent_at_s`` (boot-time clock).

        It read its clock after that instant, so ours runs ahead by the way there at most. Ahead is the honest side: no
        pod claims to have been quiet, or its lease to have ended, earlier than it was.
        """
        self._server_ms = server_ms
        self._server_ms_at_s = sent_at_s

    @property
    def contact_at_ms(self) -> int:
        """Server time of its last good answer; 0 while there was none."""
        return self._server_ms or 0

    def now_ms(self) -> int:
        """Server time now, milliseconds; 0 while no server ever told its own."""
        return self.ms_at(self._clock.now_s())

    def ms_at(self, at_s: float | None) -> int:
        """Server time at an instant of the boot-time clock; 0 if there is none, or none was ever told."""
        if self._server_ms is None or at_s is None:
            return 0
        return self._server_ms + round((at_s - self._server_ms_at_s) * 1000)
