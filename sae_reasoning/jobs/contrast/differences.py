"""Where the models differ, token by token, on the RL model's text."""

from collections.abc import Sequence

from sae_reasoning.contrast.divergence import kl_by_place, sentence_tokens
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.edges.lm.divergence import token_divergences
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import BASE, REPORT, RL, Trace
from sae_reasoning.traces.align import under_prompt


def differences(setting: Setting) -> list[Measure]:
    """KL(RL‖base) at onsets, within behaviours, at other sentence starts and elsewhere."""
    own = [t for t in setting.traces if (t.split, t.writer) == (REPORT, RL)]
    rl, base = setting.models[RL], setting.models[BASE]
    said = [trace.token_ids[trace.num_prompt_tokens :] for trace in own]
    prompts = _prompts(rl, own), _prompts(base, own)
    apart = token_divergences((rl, base), prompts, said, setting.own.token_budget)
    starts = [
        sentence_tokens(
            setting.task.sentences(trace.text), offsets_of(rl.tokenizer, ids, trace.text)
        )
        for trace, ids in zip(own, said, strict=True)
    ]
    return kl_by_place(
        own,
        starts,
        [one.nats for one in apart],
        [one.differs for one in apart],
        setting.behaviours,
        setting.resampling,
    )


def _prompts(reader: LanguageModel, traces: Sequence[Trace]) -> list[tuple[int, ...]]:
    """The prompt of each trace as a reader is asked it."""
    read = (under_prompt(trace, encode_prompt(reader.tokenizer, trace.prompt)) for trace in traces)
    return [trace.token_ids[: trace.num_prompt_tokens] for trace in read]
