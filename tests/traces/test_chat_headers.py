"""The question of a chat is told from its answer, whichever template wrote it."""

import time

import pytest

from sae_reasoning.traces.chat_headers import split_chat
from sae_reasoning.traces.imported import parse_imported

ASKED, ANSWER = "What is 2 plus 2?\nThe user wants it.", "So it is 5. Wait, no.\nuser\nassistant\n"

CHATS = {
    "chatml": f"user\n{ASKED}\nassistant\n",
    "qwen": f"system\nBe brief.\nuser\n{ASKED}\nassistant\n",
    "qwen, raw": f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{ASKED}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama 3": f"system\n\nCutting Knowledge Date: December 2023\n\nuser\n\n{ASKED}assistant\n\n",
    "llama 3 without system": f"user\n\n{ASKED}assistant\n\n",
    "llama 3 with another system": f"system\n\nBe brief.user\n\n{ASKED}assistant\n\n",
    "llama 3, raw": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief."
    f"<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": f"user\n{ASKED}\nmodel\n",
    "gemma, raw": f"<bos><start_of_turn>user\n{ASKED}<end_of_turn>\n<start_of_turn>model\n",
    "mistral": f"<s>[INST] {ASKED} [/INST]",
    "mistral with system": f"[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]{ASKED}[/INST]",
    "llama 2": f"[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{ASKED} [/INST] ",
    "phi 3": f"<|user|>\n{ASKED}<|end|>\n<|assistant|>\n",
    "phi 3 with system": f"<|system|>\nBe brief.<|end|>\n<|user|>\n{ASKED}<|end|>\n<|assistant|>\n",
    "zephyr": f"<|user|>\n{ASKED}</s>\n<|assistant|>\n",
    "phi 4": f"<|im_start|>user<|im_sep|>{ASKED}<|im_end|><|im_start|>assistant<|im_sep|>",
    "phi 4 without special tokens": f"user{ASKED}assistant",
    "deepseek": f"<｜begin▁of▁sentence｜>Be brief.<｜User｜>{ASKED}<｜Assistant｜>",
    "deepseek without special tokens": f"<｜User｜>{ASKED}<｜Assistant｜>",
    "deepseek 2": f"User: {ASKED}\n\nAssistant: ",
}


@pytest.mark.parametrize("name", CHATS)
def test_a_header_is_taken_off_and_no_more(name: str) -> None:
    assert split_chat(CHATS[name] + ANSWER) == (ASKED, ANSWER)


@pytest.mark.parametrize(
    "text",
    ["So the user asks.\nassistant\n", "user guides are long. The assistant is not.", "",
     "[INST] 3", "The user\nwants it.\nmodel\n", "User error. Assistant: no."],
)  # fmt: skip
def test_what_is_no_chat_stays(text: str) -> None:
    assert split_chat(text) is None


@pytest.mark.parametrize("name", CHATS)
def test_a_bracketed_import_has_its_header_taken_off_and_keeps_a_prompt_it_has(name: str) -> None:
    annotated = '["deduction"]So it is 5.["end-section"]["backtracking"]Wait, no.["end-section"]'
    row = {"response": CHATS[name] + ANSWER, "annotated_response": annotated, "writer": "rl"}
    rows = [("line 1", row), ("line 2", row | {"question": "2+2?"})]
    (bare, asked), _ = parse_imported(rows, "f", ["backtracking", "deduction"])
    assert (bare.prompt, asked.prompt) == (ASKED, "2+2?")
    assert bare.text == asked.text == ANSWER
    assert [bare.text[s.char_start : s.char_end] for s in bare.annotation.spans] == [
        "So it is 5.", "Wait, no.",
    ]  # fmt: skip


def test_white_space_without_end_is_no_chat() -> None:
    began = time.process_time()
    assert split_chat(" " * 100_000) is None
    assert time.process_time() - began < 5  # No time at all, unless it's cubic.
