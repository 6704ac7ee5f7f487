"""Nobody waits for a hub that doesn't answer."""

import os
import socket

import pytest

from sae_reasoning.edges.hub import stay_offline_where_unreachable

NAMES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is said about hubs, and that is as before afterwards."""
    for name in (*NAMES, "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "")
    return monkeypatch


def told() -> set[str]:
    return {os.environ[name] for name in NAMES}


def test_a_hub_that_does_not_answer_is_not_asked(asking: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        asking.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        stay_offline_where_unreachable()
    assert told() == {"1"}


def test_a_hub_that_answers_is_asked(asking: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:
        asking.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        stay_offline_where_unreachable()
    assert told() == {""}


def test_behind_a_proxy_only_the_proxy_knows(asking: pytest.MonkeyPatch) -> None:
    asking.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    asking.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    stay_offline_where_unreachable()
    assert told() == {""}
