"""Other words from a server that speaks OpenAI's protocol."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest

from sae_reasoning.config import ConfigError, RankConfig
from sae_reasoning.edges.endpoint import Chat, Endpoint, Question

ANSWERS = {
    "wait , no": "  hold on ,\n no ",
    "say nothing": "",
    "stay here": "stay there",
    "so ash": "<think>\nI could say thus.\n</think>\n\nthus ash",
    "so oak": "thus \ud83e\udd14 \ud83d oak",
    "so birch": "<think>\nI could say thus",
}


class _Server(BaseHTTPRequestHandler):
    """Answers as told, and keeps what it was asked."""

    asked: ClassVar[list[dict]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        known = body["model"] == "there"
        content = ANSWERS.get(body["messages"][-1]["content"])
        message = {"role": "assistant", "content": content}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        sent = json.dumps(answer if known else {"error": {"message": "no such model"}}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    _Server.asked = []
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_span_is_put_in_other_words_and_the_same_span_is_asked_for_once(url: str) -> None:
    endpoint, rng = Endpoint(url, "there"), np.random.default_rng(0)
    for _ in range(2):
        assert endpoint.reword("backtracking", "wait , no", rng) == "hold on , no"
    (asked,) = _Server.asked
    assert "backtracking" in asked["messages"][0]["content"]
    assert asked["model"] == "there"


@pytest.mark.parametrize("words", ["say nothing", "stay here"])
def test_no_words_and_the_same_first_word_are_none(url: str, words: str) -> None:
    assert Endpoint(url, "there").reword("a", words, np.random.default_rng(0)) is None


def test_thoughts_are_no_other_words(url: str) -> None:
    endpoint, rng = Endpoint(url, "there"), np.random.default_rng(0)
    assert endpoint.reword("deduction", "so ash", rng) == "thus ash"
    assert endpoint.reword("deduction", "so birch", rng) is None


def test_half_an_emoji_in_an_answer_is_kept_as_one_character(url: str, tmp_path: Path) -> None:
    chat, question = Chat(url, "there", "x", tmp_path), Question("", "so oak")
    assert chat.ask(question) == chat.known(question) == "thus 🤔 \ufffd oak"


def test_a_model_that_isnt_there_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"rank.paraphrase_model=elsewhere, or leave"):
        Endpoint(url, "elsewhere").reword("a", "wait , no", np.random.default_rng(0))


def test_endpoint_and_model_go_together() -> None:
    for wrong in (
        {"paraphrase_endpoint": "localhost:8000", "paraphrase_model": "m"},
        {"paraphrase_endpoint": "http://localhost:8000/v1"},
    ):
        with pytest.raises(ConfigError, match="set both or neither"):
            RankConfig(**wrong)
    RankConfig(paraphrase_endpoint="http://localhost:8000/v1", paraphrase_model="m")
