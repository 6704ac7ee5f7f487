"""Training state that survives a kill: trained weights, AdamW moments, the step (safetensors)."""

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TrainingState:
    """Saves and resumes a model with its optimiser."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
        self._model, self._optimizer, self._path = model, optimizer, path
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def save(self, step: int) -> None:
        """Publish the state after `step` steps under its final name, whole."""
        tensors = {f"weight/{name}": p.detach() for name, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            # Empty until the first gradient: a batch that teaches nothing makes no moments.
            moments = self._optimizer.state.get(parameter, {})
            tensors |= {f"{key}/{name}": moment for key, moment in moments.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".tmp")
        save_file(
            {k: v.contiguous().cpu() for k, v in tensors.items()}, partial, {"step": str(step)}
        )
        os.replace(partial, self._path)

    def resume(self) -> int:
        """Load the last state, if there is one; the number of steps done."""
        if not self._path.exists():
            return 0
        with safe_open(self._path, framework="pt") as file, torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(file.get_tensor(f"weight/{name}"))
                known = file.keys()
                moments = {
                    key: file.get_tensor(f"{key}/{name}")
                    for key in _MOMENTS
                    if f"{key}/{name}" in known
                }
                if moments:
                    self._optimizer.state[parameter] = {
                        key: moment if key == "step" else moment.to(parameter.device)
                        for key, moment in moments.items()
                    }
            return int(file.metadata()["step"])
