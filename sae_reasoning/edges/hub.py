"""Whether the hub can be reached; where it can't, its libraries look on this machine only.

By themselves they ask five times, each time later, and give up on a file after half a minute.
"""

import os
import socket
import threading
from functools import cache
from urllib.parse import urlsplit

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_ENDPOINT = "https://huggingface.co"
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
_SECONDS = 4.0


def stay_offline_where_unreachable() -> None:
    """Tell the hub's libraries, before they're imported, not to ask where nobody would answer.

    Behind a proxy only the proxy knows, so nothing is told.
    """
    if any(os.environ.get(name) for name in (*_OFFLINE, *_PROXIES)):
        return
    if not _answers(os.environ.get("HF_ENDPOINT") or _ENDPOINT):
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))


@cache
def _answers(endpoint: str, seconds: float = _SECONDS) -> bool:
    """Whether something listens there."""
    place = urlsplit(endpoint)
    port = place.port or (80 if place.scheme == "http" else 443)
    found = threading.Event()

    def ask() -> None:
        try:
            socket.create_connection((place.hostname or "", port), timeout=seconds).close()
            found.set()
        except OSError:
            return

    # Names are resolved without a time limit, so a thread of its own waits for that.
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(seconds)
    return found.is_set()
