"""A language model behind an OpenAI-compatible endpoint (openai), asked for other words.

The key is read from OPENAI_API_KEY, as the client does; a local server needs none.
"""

import os

import numpy as np

from sae_reasoning.config import ConfigError

_INSTRUCTIONS = (
    "You rewrite one passage of somebody's reasoning. Say the same thing with the same effect, the "
    "same names and numbers, in about the same length, but in other words; above all begin with "
    "other words. The passage makes this reasoning move: {behaviour}. Answer with the new passage "
    "only, without quotation marks."
)
_RETRIES, _SECONDS = 3, 60.0


class Endpoint:
    """Rewrites spans; the same words are asked for once.

    Raises:
        ConfigError: openai isn't installed, or the endpoint can't be reached or refuses.
    """

    def __init__(self, url: str, model: str) -> None:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise ConfigError(
                f"rank.paraphrase_endpoint={url} needs the package openai; "
                "pip install 'sae_reasoning[llm]'"
            ) from error
        self._url, self._model = url, model
        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = OpenAI(base_url=url, api_key=key, max_retries=_RETRIES, timeout=_SECONDS)
        self._known: dict[tuple[str, str], str | None] = {}

    def reword(self, behaviour: str, words: str, rng: np.random.Generator) -> str | None:
        """Other words for a span; None where the model gives the same or none."""
        key = (behaviour, words)
        if key not in self._known:
            self._known[key] = self._ask(behaviour, words, int(rng.integers(1 << 31)))
        return self._known[key]

    def _ask(self, behaviour: str, words: str, seed: int) -> str | None:
        from openai import OpenAIError

        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                seed=seed,
                messages=[
                    {"role": "system", "content": _INSTRUCTIONS.format(behaviour=behaviour)},
                    {"role": "user", "content": words},
                ],
            )
        except OpenAIError as error:
            raise ConfigError(
                f"rank.paraphrase_endpoint={self._url} doesn't answer ({error}); start the server, "
                f"check rank.paraphrase_model={self._model}, or leave the endpoint empty"
            ) from error
        said = " ".join((answer.choices[0].message.content or "").split())
        first = words.split()[:1]
        return said if said and said.split()[:1] != first else None
