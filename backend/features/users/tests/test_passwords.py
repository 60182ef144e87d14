"""Hashing passwords without being in anybody's way."""

import asyncio
import os
import sys
import threading

import pytest

from backend.features.users.passwords import NICENESS, _aside


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_hashes_run_in_threads_that_step_back_and_nothing_else_does() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await _aside(priority) == NICENESS
    assert await asyncio.to_thread(priority) == before
