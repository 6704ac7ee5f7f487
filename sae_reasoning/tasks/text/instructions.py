"""What prompts in natural text may ask for: to think, and to use behaviours as tools.

After cognitive tools (Ebouky et al. 2506.12115), whose names and descriptions stand in the prompt.
"""

from collections.abc import Mapping, Sequence

from sae_reasoning.tasks.protocol import Instructions

THINK = "Think step by step, and check your work, before you give the final answer."
_TOOLS = "While you think, use each of these tools where it helps, and say so:"


def text_instructions(behaviours: Sequence[str], meanings: Mapping[str, str]) -> Instructions:
    """Instructions that name behaviours.

    Args:
        behaviours: The tools.
        meanings: What each does, where that is known.
    """
    lines = [
        f"- {name}: {meanings[name]}" if meanings.get(name) else f"- {name}" for name in behaviours
    ]
    tools = "\n".join([_TOOLS, *lines])
    return Instructions(THINK, lambda _seed: tools, lambda prompt, words: f"{prompt}\n\n{words}")
