"""What ranking reads, opened and checked to belong together."""

from sae_reasoning.behaviours.scores import label_rows
from sae_reasoning.behaviours.windows import NO_SPANS, Rows
from sae_reasoning.behaviours.wordings import hold_out
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.sae_checkpoint import load_trained
from sae_reasoning.edges.sae_quality import require_transfer
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.readings.data import Readings
from sae_reasoning.traces.problems import more_traces


def open_data(cfg: Config, inputs: dict[str, str]) -> Readings:
    """Open traces, stores and dictionaries; refuse what doesn't belong together."""
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    if not any(span.behaviour in cfg.behaviours for trace in traces for span in trace.spans):
        raise ConfigError(
            f"behaviours={cfg.behaviours} have no span in {len(traces)} traces; annotate other "
            f"behaviours, or {more_traces(cfg)}"
        )
    stores, dictionaries = {}, {}
    for layer in cfg.layers:
        for reader in cfg.pair.readers:
            expected = {
                "traces_fingerprint": inputs["traces"],
                "model_fingerprint": inputs[reader],
                "layer": layer,
            }
            folder = cfg.folder / "cache" / reader / f"layer_{layer}"
            stores[reader, layer] = ActivationStore.open(folder, expected)
        folder = cfg.folder / "train" / cfg.train.readers / f"layer_{layer}"
        d_model = stores["rl", layer].d_model
        dictionaries[layer] = load_trained(folder, layer, d_model, resolve_device(cfg.device))
        if cfg.rank.gate:
            require_transfer(folder)
    first, *others = stores.values()
    check_same_rows(first, *others)
    rows = Rows.cached(first.token_id, first.row_of_trace, first.position)
    labels = label_rows(traces, rows, cfg.behaviours, cfg.rank.seed)
    if all(status == NO_SPANS for status in labels.status.values()):
        raise ConfigError(
            f"behaviours={cfg.behaviours}: neither writer has enough spans of any in both splits, "
            f"select and report, so there is nothing to rank; {more_traces(cfg)}, or let both "
            "splits have some (traces.report_share)"
        )
    return Readings(hold_out(traces, labels.wordings), rows, labels, stores, dictionaries)
