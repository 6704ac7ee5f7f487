"""A language model behind an OpenAI-compatible endpoint (openai).

The key is read from OPENAI_API_KEY, as the client does; a local server needs none. Answers that are
kept on disk are filed by what was asked of which model, so the same question is paid for once, from
whatever address.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.artifacts import BrokenArtifact, fingerprint, read_json, write_json

_INSTRUCTIONS = (
    "You rewrite one passage of somebody's reasoning. Say the same thing with the same effect, the "
    "same names and numbers, in about the same length, but in other words; above all begin with "
    "other words. The passage shows this reasoning behaviour: {behaviour}. Answer with the new "
    "passage only, without quotation marks."
)
_RETRIES, _SECONDS = 5, 300.0


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        system: Instructions.
        user: What they're about.
        schema: JSON schema of the answer; none for free text.
        seed: Of the model's sampling; another one asks again.
    """

    system: str
    user: str
    schema: Mapping[str, Any] | None = None
    seed: int = 0


class Chat:
    """A model that answers questions; busy and broken servers are asked again, with patience.

    Args:
        url: Of the endpoint, down to the version.
        model: Name of the model there.
        option: What messages call the two, without `_endpoint` and `_model`.
        kept: Folder of answers kept from run to run; none keeps none.

    Raises:
        ConfigError: openai isn't installed.
    """

    def __init__(self, url: str, model: str, option: str, kept: Path | None = None) -> None:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise ConfigError(
                f"{option}_endpoint={url} needs the package openai; "
                "pip install 'sae_reasoning[llm]'"
            ) from error
        self._url, self._model, self._option, self._kept = url, model, option, kept
        key = os.environ.get("OPENAI_API_KEY", "none")
        # The client waits longer after each 408, 409, 429 and 5xx, or as long as the server says.
        self._client = OpenAI(base_url=url, api_key=key, max_retries=_RETRIES, timeout=_SECONDS)
        self._takes_schema = True

    def known(self, question: Question) -> str | None:
        """The answer that was kept, if there is one."""
        path = self._place(question)
        if path is None or not path.exists():
            return None
        try:
            return str(read_json(path)["answer"])
        except (BrokenArtifact, KeyError, TypeError):
            return None

    def ask(self, question: Question) -> str:
        """The answer, from disk where it's kept.

        Raises:
            ConfigError: The endpoint can't be reached, or refuses.
        """
        if (kept := self.known(question)) is not None:
            return kept
        answer = self._request(question)
        if path := self._place(question):
            write_json(path, {"model": self._model, "answer": answer})
        return answer

    def ask_all(self, questions: Sequence[Question], concurrency: int) -> Iterator[tuple[int, str]]:
        """Answers as they come, each with its question's number; equal questions are asked once.

        Raises:
            ConfigError: The endpoint can't be reached, or refuses; answers so far are kept.
        """
        pool = ThreadPoolExecutor(max_workers=concurrency)
        try:
            alike: dict[str, list[int]] = {}
            for number, question in enumerate(questions):
                alike.setdefault(fingerprint(question), []).append(number)
            running = {pool.submit(self.ask, questions[same[0]]): same for same in alike.values()}
            for done in as_completed(running):
                answer = done.result()
                yield from ((number, answer) for number in running[done])
        finally:
            pool.shutdown(cancel_futures=True)

    def _place(self, question: Question) -> Path | None:
        if self._kept is None:
            return None
        name = fingerprint([self._model, question])
        return self._kept / name[:2] / f"{name}.json"

    def _request(self, question: Question) -> str:
        from openai import BadRequestError, OpenAIError

        try:
            try:
                return self._complete(question, self._takes_schema)
            except BadRequestError:
                if question.schema is None or not self._takes_schema:
                    raise
                self._takes_schema = False  # Not every server takes one; the words ask for it too.
                return self._complete(question, False)
        except OpenAIError as error:
            reason = str(error).strip().splitlines()[0][:300]
            raise ConfigError(
                f"{self._option}_endpoint={self._url} doesn't answer ({reason}); start the server, "
                f"check {self._option}_model={self._model}, or leave the endpoint empty"
            ) from error

    def _complete(self, question: Question, with_schema: bool) -> str:
        options: dict[str, Any] = {}
        if question.schema is not None and with_schema:
            options["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": dict(question.schema)},
            }
        answer = self._client.chat.completions.create(
            model=self._model,
            seed=question.seed,
            messages=[
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            **options,
        )
        said = answer.choices[0].message.content or "" if answer.choices else ""
        # Half an emoji, where tokens were cut within one, can't be written to disk.
        return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Endpoint:
    """Rewrites spans; the same words are asked for once.

    Raises:
        ConfigError: openai isn't installed, or the endpoint can't be reached or refuses.
    """

    def __init__(self, url: str, model: str) -> None:
        self._chat = Chat(url, model, "rank.paraphrase")
        self._known: dict[tuple[str, str], str | None] = {}

    def reword(self, behaviour: str, words: str, rng: np.random.Generator) -> str | None:
        """Other words for a span; None where the model gives the same or none."""
        key = (behaviour, words)
        if key not in self._known:
            self._known[key] = self._ask(behaviour, words, int(rng.integers(1 << 31)))
        return self._known[key]

    def _ask(self, behaviour: str, words: str, seed: int) -> str | None:
        question = Question(_INSTRUCTIONS.format(behaviour=behaviour), words, seed=seed)
        said = " ".join(self._chat.ask(question).rpartition("</think>")[2].split())
        if "<think>" in said and "<think>" not in words:
            return None  # Cut within its thoughts.
        first = words.split()[:1]
        return said if said and said.split()[:1] != first else None
