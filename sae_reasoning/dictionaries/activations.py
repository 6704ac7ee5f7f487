"""What dictionaries are made and measured on: activations of both readers, of the same rows."""

from dataclasses import dataclass

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_norms import Norms
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.lm.load import ModelFacts
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.records import Trace
from sae_reasoning.traces.problems import more_traces


@dataclass(frozen=True)
class Activations:
    """Activations of both readers, the rows of each split, and the traces behind them."""

    models: dict[str, ModelFacts]
    stores: dict[tuple[str, int], ActivationStore]
    select: range
    report: range
    traces: list[Trace]
    norms: dict[tuple[str, int], Norms]

    @property
    def d_model(self) -> int:
        """Width of the residual."""
        return next(iter(self.stores.values())).d_model

    def of_layer(self, layer: int) -> list[ActivationStore]:
        """The readers' stores, in order."""
        return [self.stores[reader, layer] for reader in self.models]

    @property
    def problems(self) -> list[str]:
        """Ids of the problems of the report split, sorted."""
        return sorted({trace.problem_id for trace in self.traces if trace.split != "select"})

    def norms_of(self, layer: int) -> list[Norms]:
        """The readers' norms, in order."""
        return [self.norms[reader, layer] for reader in self.models]


def open_activations(
    cfg: Config, models: dict[str, ModelFacts], traces_fingerprint: str
) -> Activations:
    """Open every store; refuse what was read from other models or traces than the config's."""
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    num_select = sum(trace.split == "select" for trace in traces)
    stores = {
        (reader, layer): ActivationStore.open(
            cfg.folder / "cache" / reader / f"layer_{layer}",
            {
                "model_fingerprint": facts.fingerprint,
                "tokenizer_fingerprint": facts.tokenizer_fingerprint,
                "traces_fingerprint": traces_fingerprint,
                "layer": layer,
            },
        )
        for reader, facts in models.items()
        for layer in cfg.layers
    }
    check_same_rows(*stores.values())
    first = next(iter(stores.values()))
    border = int(first.row_of_trace[num_select])
    select, report = range(border), range(border, first.num_tokens)
    if not select or not report:
        raise ConfigError(
            f"traces.report_share={cfg.traces.report_share} leaves {len(select)} tokens to select "
            f"on and {len(report)} to report on; {more_traces(cfg)}"
        )
    norms = {key: Norms.of(store, select) for key, store in stores.items()}
    return Activations(models, stores, select, report, traces, norms)
