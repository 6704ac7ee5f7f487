"""The console shows plan, progress and findings, with and without a terminal."""

import io
import subprocess
import time
from pathlib import Path

from sae_reasoning.edges.artifacts import Stage
from sae_reasoning.edges.console import Console, duration, megabytes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_prints_a_line_every_few_seconds_where_there_is_no_terminal():
    stream = io.StringIO()
    console = Console(stream, interval=0.01)
    for _ in console.progress(range(4), "shards", "cache base"):
        time.sleep(0.02)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("  cache base: 1/4 (25%) shards")
    assert "left" in lines[0] and "shards/s" in lines[0]
    assert lines[-1].startswith("  cache base: 4 shards in ")


def test_progress_stays_silent_between_its_lines():
    stream = io.StringIO()
    with Console(stream, interval=60, verbose=True).progress(1000, "tokens", "read") as progress:
        for _ in range(100):
            progress.advance(10)
    assert len(stream.getvalue().splitlines()) == 1


def test_short_work_leaves_no_line_unless_asked_for():
    stream = io.StringIO()
    with Console(stream).progress(10, "tokens", "read") as progress:
        progress.advance(10)
    assert stream.getvalue() == ""


def test_detail_is_printed_where_it_is_asked_for_and_long_tables_are_cut_where_not():
    rows = [[f"b{i}", i] for i in range(5)]
    short, full = io.StringIO(), io.StringIO()
    for stream, verbose in ((short, False), (full, True)):
        console = Console(stream, verbose=verbose)
        console.detail("all of it", ["name", "n"], rows)
        console.table("some of it", ["name", "n"], rows, at_most=2)
    assert "all of it" not in short.getvalue() and "b2" not in short.getvalue()
    assert short.getvalue().endswith("  … 3 more rows with verbose=true\n")
    assert full.getvalue().count("b4") == 2 and "more rows" not in full.getvalue()


def test_prose_is_wrapped():
    stream = io.StringIO()
    Console(stream).tell("word " * 60)
    lines = stream.getvalue().splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 100
    assert " ".join(lines).split() == ["word"] * 60


def test_progress_is_a_bar_with_rate_and_time_left_on_a_terminal():
    stream = Terminal()
    with Console(stream).progress(100, "steps", "train layer 1", done=40) as progress:
        progress.advance(10, note="loss 0.5")
        time.sleep(0.15)
        progress.advance(10)
    drawn = stream.getvalue()
    assert "train layer 1:  40%" in drawn and "/100" in drawn and "loss 0.5" in drawn


def test_resumed_work_does_not_count_towards_the_rate():
    stream = io.StringIO()
    with Console(stream, interval=0).progress(10_000_000, "t", "x", done=9_999_990) as progress:
        time.sleep(0.1)
        progress.advance(1)
    assert "9,999,991/10,000,000" in stream.getvalue()
    assert float(stream.getvalue().split("(")[-1].split()[0].replace(",", "")) < 11


def test_progress_counts_up_to_what_was_reached_and_nothing_twice():
    stream = io.StringIO()
    with Console(stream, interval=0).progress(10, "steps", "x", done=4) as progress:
        progress.reach(3)
        progress.reach(7)
        progress.reach(7)
    assert "4/10" in stream.getvalue() and "7/10" in stream.getvalue()
    assert "8/10" not in stream.getvalue()


def test_an_unfinished_progress_does_not_claim_to_be_done():
    stream = io.StringIO()
    try:
        for _ in Console(stream).progress([1, 2, 3], "items", "work"):
            raise RuntimeError("killed")
    except RuntimeError:
        pass
    assert "3 items" not in stream.getvalue()


def test_table_aligns_numbers_to_the_right_and_shows_what_is_missing():
    stream = io.StringIO()
    Console(stream).table(
        "best latents",
        ["behaviour", "auroc", "n"],
        [["backtracking", 0.91234, 12345], ["x", float("nan"), 3], ["", None, 1]],
    )
    assert stream.getvalue().splitlines()[1:] == [
        "  best latents",
        "  behaviour     auroc       n",
        "  ------------  -----  ------",
        "  backtracking  0.912  12,345",
        "  x                 -       3",
        "  -                 -       1",
    ]


def test_counts_that_came_as_floats_read_as_counts():
    stream = io.StringIO()
    rows = [[14.0, 1.0, 0.5], [float("nan"), 0.0, 2.0]]
    Console(stream).table("counts and shares", ["n", "share", "x"], rows)
    assert [line.split() for line in stream.getvalue().splitlines()[4:]] == [
        ["14", "1.000", "0.500"],
        ["-", "0.000", "2.000"],
    ]


def test_wrote_names_folder_size_and_time(tmp_path: Path):
    stream = io.StringIO()
    with Stage(tmp_path / "cache", {}, {}) as stage:
        (stage.folder / "x.bin").write_bytes(b"0" * 1500)
        manifest = stage.finish({})
    Console(stream).wrote(tmp_path / "cache", manifest)
    assert f"wrote {tmp_path / 'cache'} (1 file, 1.5 kB) in" in stream.getvalue()


def test_a_stage_that_is_up_to_date_is_said_to_be_and_given(tmp_path: Path):
    console = Console(stream := io.StringIO())
    with Stage(tmp_path / "cache", {}, {}) as stage:
        assert console.up_to_date(stage) is None and not stream.getvalue()
        manifest = stage.finish({})
    with Stage(tmp_path / "cache", {}, {}) as stage:
        assert console.up_to_date(stage) == manifest
    assert stream.getvalue() == f"cache: {tmp_path / 'cache'} is up to date\n"


def test_plan_and_next_are_one_line_each(capsys):
    console = Console()
    console.plan("cache", {"traces": "6,000", "disk": megabytes(2.5e6)})
    console.next("rank")
    console.next("report", added=["pair=local"])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "== cache",
        "  traces  6,000",
        "  disk    2.5 MB",
        "  next: make rank",
        '  next: make report ARGS="pair=local"',
    ]


def test_what_comes_next_has_the_options_that_make_must_pass_on():
    stream = io.StringIO()
    options = ["experiment=tiny", "layers=[0,1]", "pair.name=k${train.sae.k}"]
    given = ["organism=neox", *options, "organism.only=[a]"]
    Console(stream, options=given).next("train", "once all parts are", without="organism")
    (line,) = stream.getvalue().splitlines()
    command = line.removeprefix("  next: ").removesuffix(", once all parts are")
    assert command.startswith('make train ARGS="experiment=tiny ')
    makefile = "train:\n\t@printf '%s\\n' $(ARGS)\n"
    typed = command.replace("make ", "make --no-print-directory -f - ", 1)
    found = subprocess.run(
        ["bash", "-c", typed], input=makefile, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == options


def test_durations_and_sizes_are_for_people():
    assert [duration(3.21), duration(125), duration(3840)] == ["3.2 s", "2 min 05 s", "1 h 04 min"]
    assert [megabytes(12), megabytes(1.5e9)] == ["12 B", "1.5 GB"]
