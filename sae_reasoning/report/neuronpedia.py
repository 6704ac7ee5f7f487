"""Features in the shape in which Neuronpedia exports and imports them.

Its public documentation says of its exports: a folder a model, in it a folder a source (layer and
name of a dictionary), in it `features/` and `activations/`, each in batches of gzipped JSON lines,
beside one line about model, release, source and source set. The names of fields are those of the
open-source importer. What nobody measured here (neurons' alignment, explanations) is left empty.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

CREATOR = "sae_reasoning"
SET = "sae_reasoning"


def source_id(layer: int, dictionary: str) -> str:
    """Layer and name of a dictionary, as Neuronpedia writes them."""
    return f"{layer}-{SET}-{dictionary.partition('/')[0]}"


def feature(
    model: str, reader: str, record: Mapping[str, Any], evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """One latent, as one reader shows it.

    Args:
        model: Name of the reader's model.
        reader: `base` or `rl`.
        record: Its layer, latent and dictionary.
        evidence: Histogram, output tokens and neighbours.
    """
    histogram, output = evidence["histogram"], evidence["output"]
    edges, logits = histogram["edges"], output["edges"]
    return {
        "modelId": model,
        "layer": source_id(record["layer"], record["dictionary"]),
        "index": str(record["latent"]),
        "creatorId": CREATOR,
        "maxActApprox": max(
            (a["maxValue"] for a in activations(model, reader, record, evidence)), default=0.0
        ),
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "hookName": f"blocks.{record['layer']}.hook_resid_post",
        "topkCosSimIndices": [n["latent"] for n in evidence["neighbours"]],
        "topkCosSimValues": [n["cosine"] for n in evidence["neighbours"]],
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "correlated_features_indices": [c["latent"] for c in evidence["companions"]],
        "correlated_features_pearson": [c["pearson"] for c in evidence["companions"]],
        "correlated_features_l1": [],
        "neg_str": [token for token, _ in output["bottom"]],
        "neg_values": [value for _, value in output["bottom"]],
        "pos_str": [token for token, _ in output["top"]],
        "pos_values": [value for _, value in output["top"]],
        "frac_nonzero": histogram["active"].get(reader, 0) / max(histogram["tokens"], 1),
        "freq_hist_data_bar_heights": list(histogram["counts"].get(reader, ())),
        "freq_hist_data_bar_values": _middles(edges),
        "logits_hist_data_bar_heights": list(output["counts"]),
        "logits_hist_data_bar_values": _middles(logits),
        "decoder_weights_dist": [],
    }


def activations(
    model: str, reader: str, record: Mapping[str, Any], evidence: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A latent's examples, with one reader's activation of every token."""
    made = []
    source = source_id(record["layer"], record["dictionary"])
    bins = _bins(evidence["examples"])
    for number, example in enumerate(evidence["examples"]):
        fired = example["values"].get(reader, {})
        values = [float(fired.get(i, 0.0)) for i in range(len(example["tokens"]))]
        most = max(values, default=0.0)
        low, high, share = bins[example["band"]]
        made.append(
            {
                "id": f"{model}-{source}-{record['latent']}-{number}",
                "tokens": list(example["tokens"]),
                "dataIndex": str(number),
                "index": str(record["latent"]),
                "layer": source,
                "modelId": model,
                "dataSource": example["trace"],
                "maxValue": most,
                "maxValueTokenIndex": values.index(most) if values else 0,
                "minValue": min(values, default=0.0),
                "values": values,
                "dfaValues": [],
                "dfaTargetIndex": None,
                "dfaMaxValue": None,
                "creatorId": CREATOR,
                "lossValues": [],
                "logitContributions": None,
                "binMin": low,
                "binMax": high,
                "binContains": share,
                "qualifyingTokenIndex": example["chosen"],
            }
        )
    return made


def export(
    models: Mapping[str, str],
    pair: str,
    found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> dict[str, list[dict[str, Any]]]:
    """JSON lines of latents, by file below a folder a model and, in it, one a dictionary.

    Args:
        models: Names of the readers' models, by reader.
        pair: Its name.
        found: Record and evidence of each latent.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for layer, dictionary in dict.fromkeys((r["layer"], r["dictionary"]) for r, _ in found):
        own = [
            one for one in found if (one[0]["layer"], one[0]["dictionary"]) == (layer, dictionary)
        ]
        for reader, model in models.items():
            folder = f"{model}/{source_id(layer, dictionary)}"
            files[f"{folder}/features/batch-0"] = [feature(model, reader, *one) for one in own]
            files[f"{folder}/activations/batch-0"] = [
                line for one in own for line in activations(model, reader, *one)
            ]
            for name, line in about(models, pair, layer, dictionary, reader).items():
                files[f"{folder}/{name}"] = [line]
    return files


def about(
    models: Mapping[str, str], pair: str, layer: int, dictionary: str, reader: str
) -> dict[str, dict[str, Any]]:
    """The lines about model, release, source and source set of one reader, by file name."""
    model, source = models[reader], source_id(layer, dictionary)
    named = source.partition("-")[2]
    return {
        "model": {
            "id": model,
            "displayName": model,
            "displayNameShort": model,
            "creatorId": CREATOR,
            "instruct": False,
        },
        "release": {
            "name": f"{SET}-{pair}",
            "description": f"Shortlisted latents of {pair}, by sae_reasoning",
            "descriptionShort": f"Shortlisted latents of {pair}",
            "urls": [],
            "creatorName": CREATOR,
            "creatorNameShort": CREATOR,
            "creatorId": CREATOR,
        },
        "source": {
            "id": source,
            "modelId": model,
            "setName": named,
            "visibility": "PRIVATE",
            "dataset": f"report traces of {pair}",
            "creatorId": CREATOR,
        },
        "sourceset": {
            "modelId": model,
            "name": named,
            "releaseName": f"{SET}-{pair}",
            "description": f"Residual stream; trained on {dictionary.partition('/')[0]}",
            "visibility": "PRIVATE",
            "creatorName": CREATOR,
            "creatorId": CREATOR,
        },
    }


def _bins(examples: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Of each band of examples: least and largest chosen activation, and share of active values."""
    found: dict[str, tuple[float, float, float]] = {}
    for band in {example["band"] for example in examples}:
        own = [e for e in examples if e["band"] == band]
        values = [float(e["values"]["rl"].get(e["chosen"], 0.0)) for e in own]
        found[band] = min(values), max(values), 0.25 if "%" in band else -1.0
    return found


def _middles(edges: Sequence[float]) -> list[float]:
    return [round((a + b) / 2, 6) for a, b in pairwise(edges)]
