"""What gives more problems."""

from sae_reasoning.config import Config


def more_traces(cfg: Config) -> str:
    """What gives more traces, as a message names it: imported ones no option multiplies."""
    source = cfg.traces
    is_graded = (cfg.folder / "traces" / "grades.parquet").exists()  # As problems in words are.
    if source.kind == "file" and not is_graded:
        return f"add traces to traces.source={source.source}"
    return "raise traces.num_problems"
