"""Prompts as a model gets them: put into its chat template, where it has one that is to be used.

Templates come with models, and some expect what a plain question isn't: parts of content instead
of a string, or a system message first. So what one makes of a prompt is held against the prompt.
"""

import re
from typing import Any, cast

from transformers import PreTrainedTokenizerFast

from sae_reasoning.config import QUESTION, ConfigError
from sae_reasoning.edges.lm.refusals import first_line

_THINKING = re.compile(
    r"(?P<closes></(?:think|thinking|thought)>|\[/THINK\]|<\|end_of_thought\|>)"
    r"|<(?:think|thinking|thought)>|\[THINK\]|<\|begin_of_thought\|>"
)
"""Marks with which chat templates open and close a chain of thought."""


def set_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> None:
    """Have every question put to a model in its own words, as `ModelConfig.prompt` says.

    Args:
        tokenizer: The model's, which goes wherever the model is asked anything.
        prompt: With `QUESTION` where the question stands.
    """
    tokenizer.asked_as = prompt


def asked_of(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """A question in the words in which a model is asked, before any chat template."""
    before, _, after = str(getattr(tokenizer, "asked_as", QUESTION)).partition(QUESTION)
    return f"{before}{question}{after}"


def render_prompt(
    tokenizer: PreTrainedTokenizerFast, prompt: str, option: str = "chat_template"
) -> str:
    """Text that a model reads before its response; the prompt itself where there's no template.

    Args:
        tokenizer: With a chat template, the prompt is what a user says in it.
        prompt: What is asked, in the words for all models.
        option: That has the template used, for messages.

    Raises:
        ConfigError: The template can't be used, or leaves the prompt out.
    """
    prompt = asked_of(tokenizer, prompt)
    if not tokenizer.chat_template:
        return prompt
    said = ""
    # Some templates go through parts of content, and find none in a string.
    for content in (prompt, [{"type": "text", "text": prompt}]):
        asked: Any = [{"role": "user", "content": content}]
        try:
            rendered: Any = tokenizer.apply_chat_template(
                asked, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # Whatever a template raises, or its parser.
            said = said or first_line(error)
            continue
        # A template that takes the parts for a string writes them down as Python does.
        if prompt.strip() in rendered and "{'type': 'text'" not in rendered.replace(prompt, ""):
            return cast(str, rendered)
        said = said or "it leaves the prompt out"
    raise ConfigError(
        f"{option}=true, but the chat template of {tokenizer.name_or_path} can't hold a question "
        f"alone ({said}); set it to false, or name a tokenizer with another template"
    )


def opened_by_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """The mark with which a prompt has opened a chain of thought; "" where it has opened none.

    A response then begins within the chain of thought, and holds its end only. What opens it is the
    chat template, or a prompt that ends in the mark; marks that a question merely names open
    nothing.
    """
    rendered = render_prompt(tokenizer, prompt)
    asked = asked_of(tokenizer, prompt).strip()
    after = rendered.rpartition(asked)[2] if tokenizer.chat_template else rendered
    marks = list(_THINKING.finditer(after))
    if not marks or marks[-1]["closes"]:
        return ""
    is_open = bool(tokenizer.chat_template) or not after[marks[-1].end() :].strip()
    return marks[-1][0] if is_open else ""


def after_answer(tokenizer: PreTrainedTokenizerFast) -> str:
    """What the chat template writes after an answer; nothing without one."""
    if not tokenizer.chat_template:
        return ""
    answer = "It is 4 in all."
    for wrap in (str, lambda text: [{"type": "text", "text": text}]):
        asked: Any = [
            {"role": "user", "content": wrap("What is 2 plus 2?")},
            {"role": "assistant", "content": wrap(answer)},
        ]
        try:
            rendered = str(tokenizer.apply_chat_template(asked, tokenize=False))
        except Exception:  # Some have no place for answers; what ends them is then said elsewhere.
            continue
        if answer in rendered:
            return rendered.rpartition(answer)[2].strip()
    return ""
