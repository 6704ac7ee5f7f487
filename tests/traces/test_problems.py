"""Problems: what keys their sampling noise."""

from sae_reasoning.tasks.problems import Problem, noise_key
from sae_reasoning.tasks.search.problems import draw_problems


def test_problems_of_this_project_are_keyed_by_their_numbers() -> None:
    drawn = draw_problems(12, 0.5, seed=0)
    assert [problem.key for problem in drawn] == list(range(12))
    assert noise_key("p123456") == 123_456


def test_ids_of_any_text_have_keys_of_their_own_that_fit_63_bits() -> None:
    ids = ["math-12", "p7", "p007", "p0000007", "p1x", "q00007", "", "７", "p٠٠٠٠٧", "a\ud83d", "b"]
    keys = [Problem(problem_id, "report", "?").key for problem_id in ids]
    assert len({*keys, *range(100_000)}) == len(ids) + 100_000
    assert all(0 <= key < 1 << 63 for key in keys)
    # Of another process, and of another version, too: results rest on it.
    assert noise_key("math-12") == 5378133456860560399
