"""What the attacks left, counted by hand."""

import pandas as pd

from sae_reasoning.behaviours.outcomes import INJECTED, LEFT_OUT, RANDOM, calls, toll

ROWS = [
    # shortlist, behaviour, reader, latent, kind, outcome, called
    ("trackers", "a", "base", 1, "all", "survives", "lexical"),
    ("trackers", "a", "base", 1, "token", "killed", "lexical"),
    ("trackers", "a", "base", 1, "bigram", "killed", "lexical"),
    ("trackers", "a", "base", 2, "token", "survives", "contextual"),
    ("trackers", "b", "base", 3, "token", "killed", "lexical"),
    ("trackers", "a", "rl", 1, "token", "survives", "contextual"),
    ("trackers", "a", "rl", 2, "token", "survives", "contextual"),
    ("trackers", "b", "rl", 3, "token", "survives", "unclear"),
    ("trackers", "a", RANDOM, 1, "token", "survives", "contextual"),
    ("announcers", "a", "base", 1, "length", "killed", "positional"),
]


def _attacks() -> pd.DataFrame:
    columns = ["shortlist", "behaviour", "reader", "latent", "kind", "outcome", "called"]
    return pd.DataFrame(ROWS, columns=columns).assign(layer=1)


def test_the_toll_counts_each_attack_that_killed_and_no_other_list() -> None:
    found = toll(_attacks(), "trackers")
    assert found.values.tolist() == [
        ["a", "base", 2, 1, 1],
        ["a", "rl", 2, 0, 0],
        ["a", RANDOM, 1, 0, 0],
        ["b", "base", 1, 1, 0],
        ["b", "rl", 1, 0, 0],
    ]
    assert list(found)[3:] == ["token", "bigram"]


def test_a_text_that_the_dictionary_could_not_read_is_no_attack_that_killed_nobody() -> None:
    attacks = _attacks()
    is_rl = attacks.reader == "rl"
    unread = attacks[is_rl].assign(kind=INJECTED, outcome=LEFT_OUT)
    found = toll(pd.concat([attacks, unread]), "trackers").set_index(["behaviour", "reader"])
    assert found[INJECTED].to_dict() == {
        ("a", "base"): 0,
        ("a", "rl"): LEFT_OUT,
        ("a", RANDOM): 0,
        ("b", "base"): 0,
        ("b", "rl"): LEFT_OUT,
    }
    assert found.token["a", "base"] == 1


def test_a_latent_is_contextual_in_both_where_both_trained_readers_say_so() -> None:
    found = calls(_attacks(), "trackers").set_index(["behaviour", "reader"])
    assert list(found) == ["latents", "contextual", "lexical", "unclear", "contextual in both"]
    assert found.loc[("a", "base")].tolist() == [2, 1, 1, 0, 1]
    assert found.loc[("a", "rl")].tolist() == [2, 2, 0, 0, 1]
    assert found.loc[("b", "rl")].tolist() == [1, 0, 0, 1, 0]
    assert found.loc[("a", RANDOM), "contextual in both"] is None
