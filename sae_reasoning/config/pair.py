"""Which two models, and how each is loaded and read."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_reasoning.config.checks import one_of, require

QUESTION = "{question}"
"""What stands for the question in `ModelConfig.prompt`."""


@dataclass
class ModelConfig:
    """A causal language model: a local folder or a hub id.

    Attributes:
        path: Folder with config.json, weights and a fast tokenizer, or a hub id.
        revision: Hub revision; none for a folder.
        gguf_file: GGUF file in that folder or repository, with weights, config and tokenizer; it's
            unpacked once, to `$SAE_REASONING_CACHE` or `~/.cache/sae_reasoning`. Empty for none.
        tokenizer: Folder or hub id of a tokenizer that is used instead of the model's own, where a
            pair's differ in special tokens only. Empty for the model's own.
        adapter: PEFT adapter on that model (extra `[peft]`): a folder, or a hub id. Empty for none.
        adapter_revision: Hub revision of the adapter.
        merge_adapter: Whether the adapter is added to the weights, in their dtype; otherwise it's
            computed beside them, exactly and slower.
        dtype: Floating-point type of the weights in memory: float32, bfloat16 or float16.
        attention: How attention is computed, in transformers' words: eager, sdpa,
            flash_attention_2, ...; empty leaves it to transformers.
        device_map: Spreads a model over several GPUs, in accelerate's words: auto, balanced,
            sequential; or one device. Empty for the experiment's `device`.
        chat_template: Whether prompts are put into the tokenizer's chat template, as what a user
            says.
        prompt: What this model is asked, with `{question}` where the question stands, as in
            `Question: {question} Answer:`; with a chat template it is what a user says in it.
            By default the question alone, with `traces.instruction` behind it for both models.
        trust_remote_code: Whether code that comes with the model may run.
    """

    option = "model"  # what messages call it; no field, so it can't be set

    path: str = "???"
    revision: str | None = None
    gguf_file: str = ""
    tokenizer: str = ""
    adapter: str = ""
    adapter_revision: str | None = None
    merge_adapter: bool = True
    dtype: str = "float32"
    attention: str = ""
    device_map: str = ""
    chat_template: bool = False
    prompt: str = QUESTION
    trust_remote_code: bool = False

    def checked_as(self, option: str) -> None:
        """Check what is set; messages call the model `option` from now on."""
        self.option = option
        one_of(f"{self.option}.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        require(
            self.prompt.count(QUESTION) == 1,
            f"{self.option}.prompt={self.prompt!r} must hold {QUESTION} once, where the question "
            f"stands; try {QUESTION}",
        )
        require(
            not self.path.endswith(".gguf"),
            f"{self.named} is a file; name its folder there, and the file as "
            f"{self.option}.gguf_file={Path(self.path).name}",
        )

    @property
    def named(self) -> str:
        """Option and value, for messages."""
        return f"{self.option}.path={self.path}"


@dataclass
class PairConfig:
    """A base model and the model that training made of it; or one model by itself.

    Attributes:
        name: Names the run's folder.
        arm: How the second model was made (`rl`, `distill`, ...): a label for people; no measure
            reads it.
        base: The model before; with an empty path there is none, and the other stands alone.
        rl: The model after, or the one that stands alone. It can be cached, trained on, ranked,
            matched and edited; nothing says what training changed, so there is no verdict on it.
    """

    name: str = "???"
    arm: str = "rl"
    base: ModelConfig = field(default_factory=ModelConfig)
    rl: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        require(
            self.name == "???"  # Not set yet: the schema that overrides are checked against.
            # Brackets, commas and blanks come with lists, as in pair.name=mine${layers}.
            or (
                re.fullmatch(r"[\w.,[\] -]+", self.name) is not None and self.name.strip(". ") != ""
            ),
            f"pair.name={self.name} must be one folder name; use letters, digits, '_', '-', '.'",
        )
        self.base.checked_as("pair.base")
        self.rl.checked_as("pair.rl")
        require(
            bool(self.rl.path),
            f"pair.rl.path= is empty (pair.base.path={self.base.path}); a model that stands alone "
            "goes there, with pair.base.path= empty",
        )

    @property
    def readers(self) -> dict[str, ModelConfig]:
        """The models by what they're called: `base` and `rl`, or `rl` alone."""
        both = {"base": self.base, "rl": self.rl}
        return {name: model for name, model in both.items() if model.path}

    @property
    def is_single(self) -> bool:
        """Whether one model stands alone."""
        return not self.base.path

    @property
    def reading(self) -> dict[str, dict[str, Any]]:
        """What results depend on of how both models are read."""
        options = ["dtype", "attention", "chat_template", "merge_adapter"]
        # Results that were made before there was a choice of prompts stay what they are.
        if any(model.prompt != QUESTION for model in self.readers.values()):
            options.append("prompt")
        return {
            option: {name: getattr(model, option) for name, model in self.readers.items()}
            for option in options
        }
