"""What a person at a shell sees of a stage: its plan, its progress, its findings.

A stage ends in at most a screen: what was found, what it means, what comes next. Tables of detail
are printed with `verbose=true` alone; their content is in the stage's files either way. On a
terminal progress is a bar with rate and time left; elsewhere (a log, a pipe) it is a line now and
then, so that a log stays short and still shows that the stage lives.
"""

import math
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, overload, runtime_checkable

from tqdm import tqdm

from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.texts import number

Item = TypeVar("Item")

_DRAWS = True


def draw_no_bars() -> None:
    """Print lines from now on, as processes that share a terminal must: bars would overlap."""
    global _DRAWS
    _DRAWS = False


_UNITS = ("B", "kB", "MB", "GB", "TB")

_INTERVAL, _VERBOSE_INTERVAL = 30.0, 5.0
"""Seconds between progress lines where there is no terminal."""

_WIDTH = 100
"""Characters of a line of prose."""


@runtime_checkable
class Stream(Protocol):
    """Where lines go: standard output, a file, a buffer."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> object:
        """Pass it on."""

    def isatty(self) -> bool:
        """Whether a person watches."""
        ...


class Progress(Generic[Item]):
    """Work under way: iterate over its items, or enter it and `advance`.

    for shard in console.progress(shards, "shards", "cache base"): ...

    with console.progress(num_tokens, "tokens", "cache base", done=resumed) as progress:
        progress.advance(len(batch))
    """

    def __init__(
        self,
        items: Iterable[Item] | None,
        total: int | None,
        unit: str,
        label: str,
        done: int,
        stream: Stream,
        interval: float,
        worth_telling: float = 0.0,
    ) -> None:
        self._items, self._total, self._unit, self._label = items, total, unit, label
        self._stream, self._interval, self._worth_telling = stream, interval, worth_telling
        self._resumed = self._done = done
        self._started = self._printed = time.monotonic()
        self._note = ""
        self._bar: tqdm[Any] | None = None
        if stream.isatty() and _DRAWS:
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=f" {unit}",
                desc=label,
                file=stream,
                dynamic_ncols=True,
                unit_scale=total is not None and total >= 10_000,
                leave=False,
            )

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` as done; `note` (say, the loss) stands behind the rate."""
        self._done += amount
        self._note = note or self._note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._printed >= self._interval:
            self._printed = now
            self._line(self._state(now))

    def reach(self, done: int, note: str = "") -> None:
        """Count all up to `done`; what was there before counts for nothing more."""
        self.advance(max(done - self._done, 0), note)

    def __iter__(self) -> Iterator[Item]:
        if self._items is None:
            raise TypeError("progress over a total has no items; enter it and call advance()")
        with self:
            for item in self._items:
                yield item
                self.advance()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        seconds = time.monotonic() - self._started
        if kind is None and seconds >= self._worth_telling:
            rate = (self._done - self._resumed) / max(seconds, 1e-9)
            self._line(
                f"{self._done:,} {self._unit} in {duration(seconds)} ({_rate(rate, self._unit)})"
                + (f"  {self._note}" if self._note else "")
            )

    def _state(self, now: float) -> str:
        rate = (self._done - self._resumed) / max(now - self._started, 1e-9)
        parts = [f"{self._done:,}"]
        if self._total:
            parts = [f"{self._done:,}/{self._total:,} ({self._done / self._total:.0%})"]
        parts.append(f"{self._unit}  {_rate(rate, self._unit)}")
        if self._total and rate > 0:
            parts.append(f" {duration(max(self._total - self._done, 0) / rate)} left")
        if self._note:
            parts.append(f" {self._note}")
        return " ".join(parts)

    def _line(self, text: str) -> None:
        print(f"  {self._label}: {text}", file=self._stream, flush=True)


class Console:
    """Prints a stage's plan, progress and findings.

    Args:
        stream: Where to; none for standard output.
        interval: Seconds between progress lines where there is no terminal; none for 30, or 5 where
            `verbose`.
        options: That the next stage must be given, too, to find what this one makes.
        verbose: Whether tables of detail, and how long short work took, are printed.
    """

    def __init__(
        self,
        stream: Stream | None = None,
        interval: float | None = None,
        options: Sequence[str] = (),
        *,
        verbose: bool = False,
    ) -> None:
        self._stream = stream
        usual = _VERBOSE_INTERVAL if verbose else _INTERVAL
        self._interval = usual if interval is None else interval
        self._options = options
        self._is_verbose = verbose

    @property
    def stream(self) -> Stream:
        """Where lines go; looked up late, so that a redirected standard output is honoured."""
        return self._stream if self._stream is not None else sys.stdout

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, file=self.stream, flush=True)

    def plan(self, stage: str, lines: Mapping[str, Any]) -> None:
        """Print what a stage is about to do: inputs, sizes, disk needed."""
        self.say(f"\n== {stage}")
        width = max(map(len, lines), default=0)
        for name, value in lines.items():
            self.say(f"  {name:<{width}}  {value}")

    @overload
    def progress(
        self,
        items: int | None,
        unit: str = ...,
        label: str = ...,
        *,
        total: int | None = ...,
        done: int = ...,
    ) -> Progress[None]: ...

    @overload
    def progress(
        self,
        items: Iterable[Item],
        unit: str = ...,
        label: str = ...,
        *,
        total: int | None = ...,
        done: int = ...,
    ) -> Progress[Item]: ...

    def progress(
        self,
        items: Iterable[Any] | int | None,
        unit: str = "items",
        label: str = "",
        *,
        total: int | None = None,
        done: int = 0,
    ) -> Progress[Any]:
        """A progress over `items`, or over a number that the caller advances.

        Args:
            items: What to iterate over, or how much there is to do; none where nobody knows.
            unit: Plural noun of what is counted.
            label: What is being done, in a few words.
            total: Number of items where they have no length.
            done: How much an earlier, killed run had done; it doesn't count towards the rate.
        """
        if items is None or isinstance(items, int):
            things, number = None, items if total is None else total
        else:
            things, number = items, total
            if number is None:
                with suppress(TypeError):
                    number = len(items)  # type: ignore[arg-type]
        worth_telling = 0.0 if self._is_verbose else self._interval
        return Progress(
            things, number, unit, label, done, self.stream, self._interval, worth_telling
        )

    def detail(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table that only `verbose=true` asks for."""
        if self._is_verbose:
            self.table(title, columns, rows)

    def tell(self, text: str) -> None:
        """Print a sentence or two, wrapped."""
        for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False):
            self.say(f"  {line}")

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        at_most: int | None = None,
    ) -> None:
        """Print a small table; numbers to the right.

        Args:
            title: Above it.
            columns: Their names.
            rows: Values, one a column.
            at_most: Rows that are printed unless `verbose=true`; none for all.
        """
        rows = [list(row) for row in rows]
        num_hidden = 0 if at_most is None or self._is_verbose else len(rows) - at_most
        rows = rows[: len(rows) - max(num_hidden, 0)]
        counts = [_are_counts([row[i] for row in rows]) for i in range(len(columns))]
        cells = [
            [_cell(value, count) for value, count in zip(row, counts, strict=True)] for row in rows
        ]
        widths = [
            max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)
        ]
        numeric = [
            all(_is_number(row[i]) or row[i] is None for row in rows) and bool(rows)
            for i in range(len(columns))
        ]

        def line(values: Sequence[str]) -> str:
            aligned = (
                f"{value:>{width}}" if right else f"{value:<{width}}"
                for value, width, right in zip(values, widths, numeric, strict=True)
            )
            return ("  " + "  ".join(aligned)).rstrip()

        self.say(f"\n  {title}")
        self.say(line(list(columns)))
        self.say("  " + "  ".join("-" * width for width in widths))
        for row in cells:
            self.say(line(row))
        if num_hidden > 0:
            self.say(f"  … {num_hidden:,} more rows with verbose=true")

    def wrote(self, path: Path, manifest: Manifest) -> None:
        """Print what a stage has published."""
        size = megabytes(sum(manifest.files.values()))
        count = len(manifest.files)
        files = "1 file" if count == 1 else f"{count} files"
        self.say(f"  wrote {path} ({files}, {size}) in {duration(manifest.seconds)}")

    def up_to_date(self, stage: Stage) -> Manifest | None:
        """The manifest of a stage that has nothing to do, which is said; None if there's work."""
        if not stage.is_current:
            return None
        self.say(f"{stage.final.name}: {stage.final} is up to date")
        return stage.manifest

    def next(
        self, stages: str, when: str = "", *, without: str = "", added: Sequence[str] = ()
    ) -> None:
        """Print the command that makes the next stages of the same run.

        Args:
            stages: As make calls them.
            when: What it waits for.
            without: A group whose options have no part in it.
            added: Options that it needs beside the others.
        """
        given = [o for o in self._options if not (without and re.match(rf"{without}[.=]", o))]
        options = [*given, *added]
        arguments = f' ARGS="{_for_make(options)}"' if options else ""
        self.say(f"  next: make {stages}{arguments}{when and f', {when}'}")

    def warn(self, text: str) -> None:
        """Print one line that a person should not miss."""
        self.say(f"  warning: {text}")


def megabytes(num_bytes: float) -> str:
    """A number of bytes for people: `12.3 MB`."""
    size = float(num_bytes)
    for unit in _UNITS:
        if abs(size) < 1000 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """A time for people: `3.2 s`, `2 min 05 s`, `1 h 04 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _for_make(options: Sequence[str]) -> str:
    """Options as they are typed between the double quotes of `make ARGS="…"`."""
    for_recipe = " ".join(shlex.quote(option) for option in options).replace("$", "$$")
    return re.sub(r'([\\"$`])', r"\\\1", for_recipe)


def _rate(rate: float, unit: str) -> str:
    return f"{number(rate, 0 if rate >= 10 else 2)} {unit}/s"


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (str, bool))


def _are_counts(values: Sequence[Any]) -> bool:
    """Whether a column holds whole numbers, be it as floats since one of them is missing."""
    numbers = [float(value) for value in values if _is_number(value)]
    numbers = [number for number in numbers if math.isfinite(number)]
    whole = all(number.is_integer() for number in numbers)
    floats = any("float" in type(value).__name__ for value in values)
    return whole and (not floats or max(map(abs, numbers), default=0) > 1)


def _cell(value: Any, is_count: bool) -> str:
    if value is None:
        return "-"
    if not _is_number(value):
        return str(value) or "-"
    found = float(value)
    if math.isnan(found):
        return "-"
    if is_count and abs(found) < 1e15:
        return f"{found:,.0f}"
    return number(found, 3)
