"""Problems in words for a pair that speaks words."""

import json
from pathlib import Path

from projects import tiny_experiment

from sae_reasoning.config import Config, PairConfig


def sums_experiment(pair: PairConfig, folder: Path) -> Config:
    """An experiment of seconds on sums of two digits, judged by cue words."""
    cfg = tiny_experiment(pair, folder)
    sums = [
        {"problem": f"What is {one} + {two}?", "answer": str(one + two)}
        for one in range(1, 5)
        for two in range(1, 5)
    ]
    source = folder / "sums.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in sums), encoding="utf-8")
    cfg.behaviours, cfg.traces.source = ["backtracking"], str(source)
    cfg.traces.cues = {"backtracking": ["wait"]}
    cfg.traces.meanings = {"backtracking": "leaves a line of thought that fails."}
    cfg.traces.num_problems, cfg.traces.max_new_tokens = len(sums), 48
    cfg.traces.base_samples = cfg.traces.rl_samples = 4
    return cfg
