"""Answers of a model to problems under one condition, graded and annotated."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from sae_reasoning.edges.lm.attach import Attachment
from sae_reasoning.edges.lm.load import LanguageModel, continuation_ids, encode_prompt
from sae_reasoning.elicitation.conditions import Prompting, thinking_format
from sae_reasoning.elicitation.execution import behaviours_made
from sae_reasoning.elicitation.openings import (
    OpeningWriter,
    Words,
    forcing_openings,
    replayed,
)
from sae_reasoning.records import BASE
from sae_reasoning.rollouts.respond import Sampling, prefix_of, respond
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Task, Unlabelled


def answers(
    lm: LanguageModel,
    task: Task,
    rows: Sequence[tuple[Problem, int]],
    prompting: Prompting,
    sampling: Sampling,
    behaviours: Sequence[str],
    *,
    model: str = BASE,
    part: Attachment | None = None,
) -> pd.DataFrame:
    """One row a problem and sample; noise is keyed by these, so it's common to all conditions.

    Columns: problem_id, sample, prompt, text, correct, truncated, num_tokens, num_written (tokens
    of openings that were written for the model), num_openings, num_ends (of sentences, at which
    they could be), prompt_tokens (beyond those of the problem), and of each behaviour
    `made/<behaviour>` and `right/<behaviour>`.

    Args:
        lm: Who answers.
        task: Grades and annotates.
        rows: Problems, with the number of the sample.
        prompting: What it is given to answer with.
        sampling: How.
        behaviours: To be counted.
        model: Whose format the answers have, `base` or `rl`.
        part: Attached while it writes.
    """
    begun = prompting.beginning
    prefixes = [
        prefix_of(lm, prompting.prompt(problem), problem.key, sample, begun=begun)
        for problem, sample in rows
    ]

    def writer_of(row: int) -> OpeningWriter:
        problem, sample = rows[row]
        listen = task.annotator.listen(problem)
        assert listen and prompting.openings
        return OpeningWriter(
            form=thinking_format(task),
            listen=listen,
            choose=partial(prompting.openings, problem, sample),
            words=Words(lm.decode, partial(continuation_ids, lm)),
            said=list(prefixes[row].begun_ids),
        )

    sampler = forcing_openings(writer_of) if prompting.openings else None
    made = respond(lm, prefixes, sampling, sampler=sampler, part=part)
    unlabelled = [
        Unlabelled(problem, one.text, one.truncated)
        for (problem, _), one in zip(rows, made, strict=True)
    ]
    labelled = task.annotate_all(unlabelled, model=model)
    found = []
    for row, ((problem, sample), one) in enumerate(zip(rows, made, strict=True)):
        written = replayed(writer_of(row), one.token_ids) if prompting.openings else None
        plain = encode_prompt(lm.tokenizer, problem.prompt)
        given = len(one.prefix.prompt_ids) + len(one.prefix.begun_ids)
        record = {
            "problem_id": problem.problem_id,
            "sample": sample,
            "prompt": problem.prompt,
            "text": one.text,
            "correct": task.grade(problem, one.text, truncated=one.truncated, model=model),
            "truncated": one.truncated,
            "num_tokens": len(one.token_ids),
            "num_written": written.num_written if written else 0,
            "num_openings": written.num_openings if written else 0,
            "num_ends": written.num_ends if written else 0,
            "prompt_tokens": given - len(plain),
        }
        for behaviour, counts in behaviours_made(one.text, labelled[row], behaviours).items():
            record |= {f"made/{behaviour}": counts.spans, f"right/{behaviour}": counts.right}
        found.append(record)
    return pd.DataFrame(found)
