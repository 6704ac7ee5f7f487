"""Chats that stand whole in a response: what was asked, and what was answered.

Templates of Qwen and others of ChatML, Llama 2 and 3, Gemma, Mistral, Phi, Zephyr and DeepSeek; as
they're written, and as far as they can be told without the special tokens that decoding drops.
"""

import re

_BEGIN = r"\A\s*(?:<s>|<bos>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>|<\|endoftext\|>)?\s*"
_END = r"(?:<\|end\|>|</s>|<\|endoftext\|>)?"

_HEADERS = [
    re.compile(_BEGIN + header, re.DOTALL)
    for header in (
        # Without special tokens: ChatML, Llama 3, Gemma, Phi 4.
        r"(?:system\n.*?\n)?user\n(?P<asked>.*?)\nassistant\n",
        r"(?:system\n\n.*?)?user\n\n(?P<asked>.*?)assistant\n\n",
        r"user\n(?P<asked>.*?)\nmodel\n",
        r"(?:system(?=[A-Z]).*?)?user(?=[A-Z0-9\"“$\\(])(?P<asked>.*?)assistant(?=[A-Z0-9\"“$\\(<*#])",
        # With them.
        r"(?:<\|im_start\|>system.*?<\|im_end\|>\s*)?<\|im_start\|>user(?:\n|<\|im_sep\|>)"
        r"(?P<asked>.*?)<\|im_end\|>\s*<\|im_start\|>assistant(?:\n|<\|im_sep\|>)",
        r"(?:<\|start_header_id\|>system<\|end_header_id\|>.*?<\|eot_id\|>\s*)?"
        r"<\|start_header_id\|>user<\|end_header_id\|>\n\n(?P<asked>.*?)<\|eot_id\|>\s*"
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n",
        r"<start_of_turn>user\n(?P<asked>.*?)<end_of_turn>\s*<start_of_turn>model\n",
        rf"(?:<\|system\|>.*?{_END}\s*)?<\|user\|>\n?(?P<asked>.*?){_END}\s*<\|assistant\|>\n?",
        # Marks that are ordinary text to the tokenizer: Mistral and Llama 2, DeepSeek.
        r"(?:\[SYSTEM_PROMPT\].*?\[/SYSTEM_PROMPT\])?\s*\[INST\](?:\s*<<SYS>>.*?<</SYS>>)?"
        r"(?P<asked>.*?)\[/INST\] ?",
        r"(?:(?!<｜User｜>).)*<｜User｜>(?P<asked>.*?)<｜Assistant｜>",
        r"(?:A conversation between .*?)?(?:User|Human): (?P<asked>.*?)\n+Assistant: ?",
    )
]


def split_chat(text: str) -> tuple[str, str] | None:
    """Question and answer of a chat's first turn; None where the text isn't one."""
    text = text.lstrip()  # Else each pattern tries every way to part the white space.
    found = [match for header in _HEADERS if (match := header.match(text))]
    if not found:
        return None
    first = min(found, key=lambda match: match.end())  # The answer may look like a chat, too.
    return first["asked"].strip(), text[first.end() :]
