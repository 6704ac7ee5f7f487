"""A saved workspace of W&B over what an experiment's stages logged."""

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.edges.workspace import save


def dashboard(cfg: Config, *, tracker: Tracker, console: Console) -> None:
    """Save the workspace; nothing is written here."""
    console.say(f"  open {save(cfg)}")
