"""Decompressing a little ahead of who reads, in a second thread: zlib lets go of the interpreter, and so does a disk.

The bytes to decompress are asked for in the reader's own thread, so that a reader who gives up never waits for a
network that stalls. Both queues are short: a bomb fills neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol

_CHUNKS = 2
"""Pieces handed over before the first result is waited for."""

_BLOCKS = 4


class Decompressor(Protocol):
    """What the second thread runs."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What comes out for one piece."""
        ...

    def end(self) -> None:
        """No more pieces come."""
        ...


@contextmanager
def ahead(chunks: Iterable[bytes], make: Callable[[], Decompressor]) -> Iterator[Iterator[bytes]]:
    """The blocks that come out for ``chunks``. Whatever the second thread or ``chunks`` raises is raised by them."""
    work = _Work(make())
    thread = threading.Thread(target=work.run, name="skills.inflate", daemon=True)
    thread.start()
    try:
        yield work.blocks(chunks)
    finally:
        work.stop()
        thread.join()


class _Done:
    """One piece, or all of them, is dealt with."""


_DONE = _Done()


class _Work:
    def __init__(self, decompressor: Decompressor) -> None:
        self._decompressor = decompressor
        self._in: SimpleQueue[bytes | None] = SimpleQueue()
        self._out: SimpleQueue[bytes | _Done | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(_BLOCKS)
        self._stopped = False

    def run(self) -> None:
        try:
            while (chunk := self._in.get()) is not None:
                for block in self._decompressor.feed(chunk):
                    self._room.acquire()
                    if self._stopped:
                        return
                    self._out.put(block)
                self._out.put(_DONE)
            self._decompressor.end()
            self._out.put(_DONE)
        except BaseException as error:  # the reader's to raise, whatever it is
            self._out.put(error)

    def stop(self) -> None:
        self._stopped = True
        self._in.put(None)
        self._room.release()

    def blocks(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        waiting = 0
        for chunk in chunks:
            self._in.put(chunk)
            waiting += 1
            while waiting > _CHUNKS:
                yield from self._of_one()
                waiting -= 1
        self._in.put(None)
        for _ in range(waiting + 1):
            yield from self._of_one()

    def _of_one(self) -> Iterator[bytes]:
        while True:
            block = self._out.get()
            if isinstance(block, bytes):
                self._room.release()
                yield block
            elif isinstance(block, _Done):
                return
            else:
                raise block
