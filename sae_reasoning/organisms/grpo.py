"""Reinforcement of an organism: GRPO on the validity of its answers, and nothing else.

Each step draws problems, rolls each out several times, and pushes up the log-probability of every
token of a rollout by its advantage, the reward minus the group's mean over its standard deviation
(Shao et al. 2402.03300, §4.1). One update a batch, so the ratio of policies is one and needs no
clipping; there is no KL term. Groups whose rollouts all earn the same teach nothing and are left
out.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sae_reasoning.organisms import grammar
from sae_reasoning.organisms.checkpoint import TrainingState
from sae_reasoning.organisms.corpus import collate
from sae_reasoning.organisms.grammar import answered_path
from sae_reasoning.organisms.pretrain import Progress, next_token_losses
from sae_reasoning.organisms.world import Difficulty, Problem, sample_problem


@dataclass(frozen=True)
class GrpoConfig:
    """How an organism is reinforced.

    Attributes:
        steps: Optimiser steps.
        prompts: Problems a step.
        samples: Rollouts a problem.
        lr: Learning rate of AdamW, after a linear warm-up.
        warmup: Steps of warm-up.
        micro_batch: Rollouts a forward pass.
        seed: Of problems and sampling noise.
        checkpoint_every: Steps between checkpoints.
        curriculum_share: Share of the steps over which problems grow from two edges, where a single
            fork makes each move's worth plain, to full length.
        difficulty: Of the problems, once the curriculum is over.
    """

    steps: int = 120
    prompts: int = 32
    samples: int = 8
    lr: float = 2e-4
    warmup: int = 5
    micro_batch: int = 64
    seed: int = 0
    checkpoint_every: int = 10
    curriculum_share: float = 0.6
    difficulty: Difficulty = Difficulty()

    def difficulty_at(self, step: int) -> Difficulty:
        """Size of the problems at a step."""
        grown = step / (self.curriculum_share * self.steps)
        if grown >= 1:
            return self.difficulty
        return Difficulty(
            min_edges=2,
            max_edges=2 + int(grown * (self.difficulty.max_edges - 1)),
            fork_share=self.difficulty.fork_share,
        )


@dataclass(frozen=True)
class Episode:
    """One rollout of the learner.

    Attributes:
        prompt_ids: Tokens of the prompt, BOS included.
        response_ids: Tokens written, with EOS where it ended.
        text: The response in words.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    text: str


RollOut = Callable[[Sequence[str], Tensor], list[Episode]]
"""Takes prompts and their noise keys (seed, problem, sample); one episode a prompt, in order."""


def path_validity(problem: Problem, episode: Episode) -> float:
    """One for a right answer, nothing else."""
    return float(problem.grade(answered_path(episode.text)))


def reinforce(
    model: nn.Module,
    config: GrpoConfig,
    *,
    roll_out: RollOut,
    reward: Callable[[Problem, Episode], float],
    pad_id: int,
    state_path: Path,
) -> Iterator[Progress]:
    """Train `model` in place, yielding every step; resumes from `state_path` if it is there."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    state = TrainingState(model, optimizer, state_path)
    device = next(model.parameters()).device
    first = state.resume()
    started = time.monotonic()
    for step in range(first, config.steps):
        rng = random.Random(f"grpo/{config.seed}/{step}")
        problems = [
            sample_problem(rng, config.difficulty_at(step), grammar.REMARKS)
            for _ in range(config.prompts)
        ]
        rows = [(p, s) for p in range(config.prompts) for s in range(config.samples)]
        keys = torch.tensor([[config.seed, step * config.prompts + p, s] for p, s in rows])
        model.eval()
        episodes = roll_out([problems[p].prompt() for p, _ in rows], keys)
        rewards = torch.tensor(
            [reward(problems[p], e) for (p, _), e in zip(rows, episodes, strict=True)]
        )
        advantages = group_advantages(rewards.view(config.prompts, config.samples)).flatten()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / config.warmup)
        model.train()
        learned = sorted(
            advantages.nonzero().flatten().tolist(), key=lambda i: len(episodes[i].response_ids)
        )
        num_targets = sum(len(episodes[i].response_ids) for i in learned)
        for start in range(0, len(learned), config.micro_batch):
            chosen = learned[start : start + config.micro_batch]
            batch = collate(
                [(episodes[i].prompt_ids, episodes[i].response_ids) for i in chosen], pad_id
            ).to(device)
            weights = advantages[chosen].repeat_interleave(batch.is_response.sum(1).cpu())
            losses = next_token_losses(model, batch)
            ((losses * weights.to(device)).sum() / num_targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % config.checkpoint_every == 0 or done == config.steps:
            state.save(done)
        thinks = sum(e.text.startswith(grammar.THINK) for e in episodes) / len(episodes)
        length = sum(len(e.response_ids) for e in episodes) / len(episodes)
        metrics = {"reward": rewards.mean().item(), "thinks": thinks, "length": length}
        yield Progress(done, config.steps, metrics, time.monotonic() - started)


def group_advantages(rewards: Tensor) -> Tensor:
    """Rewards [group, sample] as advantages; zero in groups without variance."""
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True, unbiased=False)
    return torch.where(spread > 0, centred / spread.clamp_min(1e-6), torch.zeros_like(centred))
