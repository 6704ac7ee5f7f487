"""Make the embedded pair: train the base, reinforce it, measure both, write their cards."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sae_reasoning.config import Config, ModelConfig, OrganismConfig
from sae_reasoning.edges.artifacts import Manifest, Stage, publish, write_json
from sae_reasoning.edges.console import Console, duration
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    load,
    new_llama,
    resolve_device,
    save_model,
    word_tokenizer,
)
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.organisms import grammar
from sae_reasoning.organisms.card import write_card
from sae_reasoning.organisms.corpus import CorpusConfig, excerpt, mixture
from sae_reasoning.organisms.forced import Continue
from sae_reasoning.organisms.grpo import Episode, RollOut, path_validity, reinforce
from sae_reasoning.organisms.measure import (
    NARRATOR,
    Figures,
    Write,
    measure,
    measuring_problems,
    narrated,
    pass_at_k,
    random_walks,
    roll,
    validity_at_opportunities,
)
from sae_reasoning.organisms.pretrain import Progress, pretrain, start_alike
from sae_reasoning.organisms.world import Difficulty
from sae_reasoning.steering.noise import keyed_sampler

BASE, RL = "search_base_llama", "search_rl_llama"
_MAX_NEW_TOKENS = 280
_PASS_AT = (1, 4, 16, 64)


def organism(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Train and measure `search_base_llama` and `search_rl_llama` under `organism.folder`."""
    own, folder = cfg.organism, Path(cfg.organism.folder)
    console.plan(
        "organism",
        {
            "base": f"{own.pretrain.steps} steps of {own.pretrain.batch_size} examples",
            "rl": f"{own.rl.steps} steps of {own.rl.prompts} problems × {own.rl.samples} rollouts",
            "measured on": f"{own.measure_problems} problems",
            "folder": folder,
        },
    )
    base = _train_base(cfg, folder / BASE, tracker, console)
    manifest = _train_rl(cfg, base, folder, tracker, console)
    console.next("make cache train rank ablate")
    return manifest


def _train_base(cfg: Config, final: Path, tracker: Tracker, console: Console) -> Manifest:
    own, corpus = cfg.organism, CorpusConfig()
    seen = mixture(corpus, own.pretrain.steps)
    made_by = [own.seed, own.pretrain, corpus, excerpt(corpus, own.seed), _shape(own)]
    measured_by = [
        own.measure_problems,
        own.forced_starts,
        own.pass_problems,
        own.pass_samples,
    ]
    with Stage(final, [*made_by, *measured_by], {}) as stage:
        if stage.is_current:
            console.current(BASE, final)
            assert stage.manifest
            return stage.manifest
        tokenizer = word_tokenizer(
            grammar.vocabulary(), pad=grammar.PAD, bos=grammar.BOS, eos=grammar.EOS
        )
        model = new_llama(
            vocab_size=len(tokenizer),
            max_positions=512,
            pad_id=tokenizer.pad_token_id,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            seed=own.seed,
            **_shape(own),
        )
        vocabulary = tokenizer.get_vocab()
        families = [[vocabulary[word] for word in words] for words in grammar.word_families()]
        start_alike(model.model.embed_tokens.weight, families, own.seed)
        torch.nn.Module.to(model, resolve_device(cfg.device))
        state = stage.folder / "training.safetensors"
        steps = pretrain(
            model,
            own.pretrain,
            corpus,
            seed=own.seed,
            encode_prompt=lambda text: encode_prompt(tokenizer, text),
            encode_response=lambda text: [
                *(vocabulary[word] for word in text.split()),
                tokenizer.eos_token_id,
            ],
            pad_id=tokenizer.pad_token_id,
            state_path=state,
        )
        _follow(steps, BASE, tracker, console)
        save_model(model, tokenizer, stage.folder, torch.float16)
        lm = load(ModelConfig(str(stage.folder)), cfg.device)
        console.say(f"measuring {BASE}")
        problems = measuring_problems(own.measure_problems, own.seed, "figures")
        figures, _ = measure(_writer(lm), problems, own.seed)
        validity = validity_at_opportunities(
            narrated(problems, own.seed), _continuer(lm, own.seed), own.forced_starts, own.seed
        )
        figures = replace(
            _with_pass_at_k(figures, lm, own), validity=validity, validity_writer=NARRATOR
        )
        _write_card(
            stage.folder,
            BASE,
            "a base that has every move and makes each rarely",
            [
                "A small Llama trained on the search world of `sae_reasoning` "
                "(`sae_reasoning/organisms/world.py`). Within the traces of its corpus about a "
                "quarter of the opportunities for backtracking, weighing a fork and verification "
                "are taken, from the first step to the last; below is what the model does.",
                f"\nMade by `make organism` with `organism.seed={own.seed}`: {own.pretrain.steps} "
                f"steps of {own.pretrain.batch_size} examples. Over the whole training "
                f"{seen.traces:.0%} of them are traces, {seen.direct:.0%} direct and mostly wrong "
                f"answers, and {seen.readings:.0%} ask what the map or the notes say of some "
                "places. The share of problems that are thought about falls from "
                f"{corpus.thinking.first:.0%} to {corpus.thinking.last:.0%} between "
                f"{corpus.thinking.hold:.0%} and {corpus.thinking.settle:.0%} of the steps: the "
                "base learned to think before it learned to think rarely.",
            ],
            figures,
            {},
        )
        state.unlink()
        return stage.finish({"accuracy": figures.accuracy, "thinks": figures.thinks})


def _train_rl(
    cfg: Config,
    base: Manifest,
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> Manifest:
    own, difficulty = cfg.organism, Difficulty()
    inputs = {"base": base.fingerprint, "weights": describe(_model(folder / BASE)).fingerprint}
    made_by = [own.seed, own.rl, difficulty]
    with Stage(folder / RL, [*made_by, own.measure_problems, own.forced_starts], inputs) as stage:
        if stage.is_current:
            console.current(RL, stage.final)
            assert stage.manifest
            return stage.manifest
        learner = load(_model(folder / BASE), cfg.device)
        learner.model.requires_grad_(True)
        state = stage.folder / "training.safetensors"
        steps = reinforce(
            learner.model,
            own.rl,
            difficulty,
            seed=own.seed,
            roll_out=_roll_out(learner),
            reward=path_validity,
            pad_id=learner.tokenizer.pad_token_id,
            state_path=state,
        )
        _follow(steps, RL, tracker, console)
        save_model(learner.model, learner.tokenizer, stage.folder, torch.float16)
        models = {
            RL: load(ModelConfig(str(stage.folder)), cfg.device),
            BASE: load(_model(folder / BASE), cfg.device),
        }
        console.say(f"measuring {RL}")
        problems = measuring_problems(own.measure_problems, own.seed, "figures")
        measured = {name: measure(_writer(lm), problems, own.seed) for name, lm in models.items()}
        _, chosen = measured[RL]
        figures = {
            name: replace(
                own_figures,
                validity=validity_at_opportunities(
                    chosen, _continuer(models[name], own.seed), own.forced_starts, own.seed
                ),
                validity_writer=RL,
            )
            for name, (own_figures, _) in measured.items()
        }
        _write_card(
            stage.folder,
            RL,
            f"what reinforcement made of {BASE}",
            [
                f"`{BASE}` after {own.rl.steps} steps of GRPO on the validity of its answers "
                f"({own.rl.prompts} problems × {own.rl.samples} rollouts a step, AdamW "
                f"{own.rl.lr:g}, KL weight {own.rl.kl:g}); nothing rewards thinking or any move. "
                "Half of the problems of a step begin with a thought of the model's own, cut after "
                "some sentence, so that it explores from where it rarely gets by itself.",
                f"\nMade by `make organism` with `organism.seed={own.seed}`.",
            ],
            figures[RL],
            {BASE: figures[BASE]},
        )
        state.unlink()
        return stage.finish({"accuracy": figures[RL].accuracy, "thinks": figures[RL].thinks})


def _shape(own: OrganismConfig) -> dict[str, int]:
    return {
        "d_model": own.d_model,
        "num_layers": own.num_layers,
        "num_heads": own.num_heads,
        "d_mlp": own.d_mlp,
    }


def _model(folder: Path) -> ModelConfig:
    return ModelConfig(str(folder))


def _follow(steps: Iterable[Progress], name: str, tracker: Tracker, console: Console) -> None:
    """Log a training and print a line now and then, with the time that is left."""
    for progress in steps:
        tracker.log({f"{name}/{k}": v for k, v in progress.metrics.items()}, progress.step)
        left = duration(progress.seconds_left)
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in progress.metrics.items())
        console.say(f"{name}: step {progress.step}/{progress.steps}, {metrics}, {left} left")


def _rollouts(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], keys: torch.Tensor, max_new_tokens: int
) -> list[tuple[list[int], bool]]:
    """Generated tokens and whether they were cut, in the prompts' order."""
    made: list[tuple[list[int], bool]] = [([], False)] * len(prompts)
    for rollout in generate(
        lm,
        prompts,
        sampler=keyed_sampler(keys, temperature=1.0),
        max_new_tokens=max_new_tokens,
        batch_size=512,
    ):
        made[rollout.row] = (list(rollout.token_ids), rollout.truncated)
    return made


def _roll_out(lm: LanguageModel) -> RollOut:
    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        prompt_ids = [
            encode_prompt(lm.tokenizer, f"{prompt} {beginning}".strip())
            for prompt, beginning in zip(prompts, beginnings, strict=True)
        ]
        made = _rollouts(lm, prompt_ids, keys, _MAX_NEW_TOKENS)
        return [
            Episode(
                prompt_ids=ids,
                response_ids=written + ([] if cut else [lm.tokenizer.eos_token_id]),
                text=f"{beginning} {lm.decode(written)}".strip(),
            )
            for ids, beginning, (written, cut) in zip(prompt_ids, beginnings, made, strict=True)
        ]

    return roll_out


def _keys(seed: int, count: int) -> torch.Tensor:
    return torch.tensor([[seed, index, 0] for index in range(count)])


def _writer(lm: LanguageModel) -> Write:
    def write(
        prompts: Sequence[str], beginnings: Sequence[str], seed: int
    ) -> list[tuple[str, int, bool]]:
        texts = [f"{p} {b}".strip() for p, b in zip(prompts, beginnings, strict=True)]
        prompt_ids = [encode_prompt(lm.tokenizer, text) for text in texts]
        made = _rollouts(lm, prompt_ids, _keys(seed, len(texts)), _MAX_NEW_TOKENS)
        return [
            (f"{beginning} {lm.decode(written)}".strip(), len(written), cut)
            for beginning, (written, cut) in zip(beginnings, made, strict=True)
        ]

    return write


def _continuer(lm: LanguageModel, seed: int) -> Continue:
    def continue_(
        prompts: Sequence[str], beginnings: Sequence[str], keys: Sequence[int]
    ) -> list[str]:
        prompt_ids = [
            encode_prompt(lm.tokenizer, f"{p} {b}")
            for p, b in zip(prompts, beginnings, strict=True)
        ]
        noise = torch.tensor([[seed, key, 1] for key in keys])
        return [lm.decode(written) for written, _ in _rollouts(lm, prompt_ids, noise, 24)]

    return continue_


def _with_pass_at_k(figures: Figures, lm: LanguageModel, own: OrganismConfig) -> Figures:
    problems = measuring_problems(own.pass_problems, own.seed, "pass")
    write = _writer(lm)
    tries = [problem for problem in problems for _ in range(own.pass_samples)]
    grades = [rolled.correct for rolled in roll(tries, write, own.seed + 1)]
    size = own.pass_samples
    correct = [grades[start : start + size] for start in range(0, len(grades), size)]
    rng = random.Random(f"walk/{own.seed}")
    walks = [random_walks(problem, size, rng) for problem in problems]
    ks = [k for k in _PASS_AT if k <= size]
    return replace(
        figures,
        pass_at=pass_at_k(correct, ks, own.seed),
        random_walk_at=pass_at_k(walks, ks, own.seed),
    )


def _write_card(
    folder: Path,
    name: str,
    title: str,
    making: list[str],
    figures: Figures,
    others: dict[str, Figures],
) -> None:
    with publish(folder / "README.md") as partial:
        partial.write_text(write_card(f"{name}: {title}", making, figures, others))
    write_json(folder / "measured.json", {name: figures} | others)
