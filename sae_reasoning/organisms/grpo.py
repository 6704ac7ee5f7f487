"""RL on right answers: GRPO, and nothing else.

Each step draws problems, rolls each out several times, and raises the log-probability of every
token of a rollout by its advantage, the reward minus the group's mean over its standard deviation
(Shao et al. 2402.03300, §4.1). One update a batch, so the ratio of policies is one and needs no
clipping. A KL term holds the learner to the base at the same tokens (ibid., eq. 4): without it the
words of behaviours garble, since only their consequences are rewarded. Groups whose rollouts all
earn the same reward teach nothing and are left out, of the KL term and of its reported mean too.

Groups begin at the prompt, or at what `begin` gives them.
"""

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from sae_reasoning.config import GrpoConfig
from sae_reasoning.organisms.checkpoint import TrainingState
from sae_reasoning.organisms.corpus import collate
from sae_reasoning.organisms.pretrain import (
    Progress,
    Run,
    next_token_losses,
    rows_at_once,
    seconds_left,
)
from sae_reasoning.tasks.protocol import ResponseFormat


@dataclass(frozen=True)
class Episode:
    """One rollout of the learner.

    Attributes:
        prompt_ids: Tokens of the prompt and of the beginning it was given, BOS included.
        response_ids: Tokens written, with EOS where it ended.
        text: The whole response in words, the beginning included.
        truncated: Whether it was cut.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    text: str
    truncated: bool = False


RollOut = Callable[[Sequence[str], Sequence[str], Tensor], list[Episode]]
"""Takes prompts, beginnings of responses and noise keys (seed, problem, sample)."""


@runtime_checkable
class Posed(Protocol):
    """A problem to learn on."""

    def prompt(self) -> str:
        """The problem in words."""
        ...


P = TypeVar("P", bound=Posed)
Pose = Callable[[random.Random], P]
"""Draws a problem to learn on."""
Begin = Callable[[Sequence[str], RollOut, Tensor, random.Random], list[str]]
"""Takes the prompts of some groups, how the learner rolls out, a noise key for each group, and what
draws; gives the beginning of each group's responses, empty where they begin at the prompt."""


def reinforce(
    model: nn.Module,
    config: GrpoConfig,
    pose: Pose[P],
    run: Run,
    *,
    roll_out: RollOut,
    reward: Callable[[P, Episode], float],
    form: ResponseFormat,
    begin: Begin | None = None,
) -> Iterator[Progress]:
    """Train `model` in place, yielding every step; resumes from the checkpoint if there is one.

    Args:
        model: Holds the parameters that are trained. It may be a small part of the policy: the
            run's reader and `roll_out` know the rest.
        config: Options.
        pose: Draws problems.
        run: Seed, reader and checkpoint.
        roll_out: Lets the policy answer.
        reward: Of an answer.
        form: The policy's; where it chooses to think, the share of rollouts that do is a metric.
        begin: Where groups begin; None for all at the prompt.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0
    )
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    state = TrainingState(model, optimizer, run.state_path)
    device = next(model.parameters()).device
    size = rows_at_once(device, config.micro_batch)
    first = state.resume()
    read, read_reference = run.reader(model), run.reader(reference)
    started = time.monotonic()
    for step in range(first, config.steps):
        rng = random.Random(f"grpo/{run.seed}/{step}")
        problems = [pose(rng) for _ in range(config.prompts)]
        rows = [(p, s) for p in range(config.prompts) for s in range(config.samples)]
        keys = torch.tensor([[run.seed, step * config.prompts + p, s] for p, s in rows])
        prompts = [problem.prompt() for problem in problems]
        model.eval()
        starts = [""] * len(prompts)
        if begin:
            starts = begin(prompts, roll_out, keys[:: config.samples], rng)
        episodes = roll_out([prompts[p] for p, _ in rows], [starts[p] for p, _ in rows], keys)
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
        kl = 0.0
        for start in range(0, len(learned), size):
            chosen = learned[start : start + size]
            batch = collate(
                [(episodes[i].prompt_ids, episodes[i].response_ids) for i in chosen], run.pad_id
            ).to(device)
            weights = advantages[chosen].repeat_interleave(batch.is_response.sum(1).cpu())
            losses = next_token_losses(read, batch)
            with torch.no_grad():
                held = next_token_losses(read_reference, batch)
            terms = losses * weights.to(device) + config.kl * kl_estimates(losses, held)
            (terms.sum() / num_targets).backward()
            kl += (losses.detach() - held).neg().sum().item() / num_targets
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % config.checkpoint_every == 0 or done == config.steps:
            state.save(done)
        free = [i for i, (p, _) in enumerate(rows) if not starts[p]]
        metrics = {
            "reward": rewards[free].mean().item(),
            "kl": kl,
            "length": sum(len(episodes[i].response_ids) for i in free) / len(free),
        }
        if form.enters_by_choice:
            thinking = sum(episodes[i].text.startswith(form.thinking_prefix) for i in free)
            metrics["thinks"] = thinking / len(free)
        if len(free) < len(rows):
            elsewhere = rewards.sum() - rewards[free].sum()
            metrics["reward_midway"] = elsewhere.item() / (len(rows) - len(free))
        left = seconds_left(started, first, done, config.steps)
        yield Progress(done, config.steps, metrics, left)


def kl_estimates(losses: Tensor, reference: Tensor) -> Tensor:
    """Schulman's low-variance estimate of the KL at each token, in nats; never negative.

    Args:
        losses: Cross-entropies of the learner at its own tokens; gradients flow through them.
        reference: Cross-entropies of the reference at the same tokens.
    """
    ratio = losses - reference
    return torch.exp(ratio) - ratio - 1


def group_advantages(rewards: Tensor) -> Tensor:
    """Rewards [group, sample] as advantages; zero in groups without variance."""
    centred = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True, unbiased=False)
    return torch.where(spread > 0, centred / spread.clamp_min(1e-6), torch.zeros_like(centred))
