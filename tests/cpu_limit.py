"""A test that costs more than it may fails, unless it's marked as heavy.

What counts is CPU time, of this process and of those that it waited for: on a busy machine a test
takes longer, but costs about the same, or half as much again where others use the same caches.
Where one costs too much, fixed work is timed on the spot, and a machine that is slow at that may
be slow at the test.
"""

import os
import resource
import time
from collections.abc import Generator
from typing import Any

import pytest
from command_runner import seconds_of_commands

TEST_SECONDS = 10.0
FIXTURE_SECONDS = 60.0
"""Of a fixture that several tests share."""
HEAVY = ("slow", "e2e", "gpu")
_FIXED_WORK_SECONDS = 0.03
"""What `_fixed_work` takes where the limits were set."""


class CpuLimit:
    """Holds each test, with the fixtures of its own, and each shared fixture to their limits.

    Args:
        num_shown: Show this many of those that cost most.
        is_enforced: Whether what costs more fails; checking shapes costs a multiple.
    """

    def __init__(self, num_shown: int, is_enforced: bool) -> None:
        self._num_shown, self._is_enforced = num_shown, is_enforced
        self._own = self._shared = 0.0  # Of the present test.
        self._over = ""
        self._costs: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        self._own = self._shared = 0.0
        self._over = ""
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        began, before = _cpu_seconds(), self._shared
        try:
            return (yield)
        finally:
            used = _cpu_seconds() - began
            own = used - (self._shared - before)  # Without those that it asked for meanwhile.
            self._shared = before + used
            name = f"{fixturedef.baseid}::{fixturedef.argname} (shared fixture)"
            self._costs[name] = own
            self._over += _complaint(name, own, FIXTURE_SECONDS)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        return (yield from self._timed())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        return (yield from self._timed())

    def _timed(self) -> Generator[None, Any, Any]:
        began = _cpu_seconds()
        try:
            return (yield)
        finally:
            self._own += _cpu_seconds() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report: pytest.TestReport = yield
        if report.when != "call":
            return report
        self._costs[item.nodeid] = own = self._own - self._shared
        report.user_properties.append(("cpu_seconds", self._costs))
        self._costs = {}
        is_heavy = any(map(item.get_closest_marker, HEAVY))
        if self._is_enforced and report.passed and not is_heavy:
            said = self._over + _complaint("it", own, TEST_SECONDS)
            if said:
                report.outcome, report.longrepr = "failed", said
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._num_shown:
            return
        costs = {
            name: seconds
            for reports in terminalreporter.stats.values()
            for report in reports
            if getattr(report, "when", "") == "call"
            for name, seconds in dict(report.user_properties)["cpu_seconds"].items()
        }
        most = sorted(costs.items(), key=lambda item: -item[1])[: self._num_shown]
        terminalreporter.section(f"CPU seconds; {sum(costs.values()):.0f} in all")
        for name, seconds in most:
            terminalreporter.write_line(f"{seconds:7.2f}  {name}")


def _complaint(name: str, seconds: float, limit: float) -> str:
    """What to say of a cost above its limit, on a machine as quick as this one is just now."""
    if seconds <= limit:
        return ""
    limit *= _slowness()
    if seconds <= limit:
        return ""
    return (
        f"{name} costs {seconds:.1f} CPU seconds, more than {limit:.1f}: make it quicker, or mark "
        "it slow or e2e\n"
    )


def _cpu_seconds() -> float:
    """Of this process, of those it has waited for, and of its commands."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + seconds_of_commands()


def _slowness() -> float:
    """How much longer work takes on this machine now than where the limits were set."""
    is_busy = os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
    return max(1.0, _fixed_work() / _FIXED_WORK_SECONDS) * (1.5 if is_busy else 1.0)


def _fixed_work() -> float:
    """CPU seconds that a loop takes; the second longest of five."""
    found = []
    for _ in range(5):
        began = time.process_time()
        sum(number * number for number in range(1_000_000))
        found.append(time.process_time() - began)
    return sorted(found)[-2]
