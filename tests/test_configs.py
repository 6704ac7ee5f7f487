"""Every YAML of conf/ composes, and what can't be composed says why in one line."""

import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from sae_reasoning.compose import (
    CONF,
    ROOT,
    compose,
    expand,
    group_options,
    option_names,
    quoted,
)
from sae_reasoning.config import AttackConfig, Config, ConfigError, SaeConfig
from sae_reasoning.edges.artifacts import fingerprint
from sae_reasoning.jobs.calibrate import _options

OWN_PAIR = ["pair.name=mine", "pair.base.path=/models/base", "pair.rl.path=/models/rl"]
CHOICES = [(group, choice) for group, choices in group_options().items() for choice in choices]


def test_every_group_has_files():
    assert {group for group, _ in CHOICES} == {
        "pair", "behaviours", "train.sae", "attacks", "organism", "task", "tracker", "experiment",
    }  # fmt: skip


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_yaml_composes(group: str, choice: str):
    needs = OWN_PAIR[1:] if (group, choice) == ("pair", "local") else []
    assert isinstance(compose([f"{group}={choice}", *needs]), Config)


def test_every_command_of_make_real_composes():
    """An option that was renamed would fail there after half an hour."""
    said = subprocess.run(
        ["make", "-n", "real", "ARGS=threads=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in said.replace("\\\n", " ").splitlines() if "-m sae_reasoning" in line]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)
        overrides = [word for word in words[words.index("sae_reasoning") + 1 :] if "=" in word]
        assert compose(overrides).experiment == "real"


def test_a_pair_is_judged_under_the_task_of_the_command_that_calibrates():
    asked = compose(["task.places=new", "traces.temperature=0.9"])
    judged = compose(_options(asked, seed=1))
    assert (judged.task, judged.traces.temperature) == (asked.task, 0.9)


def test_every_yaml_is_in_a_group_or_the_root():
    files = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")}
    assert {len(path.parts) for path in files} <= {1, 2}
    assert {path for path in files if len(path.parts) == 1} == {Path("config.yaml")}


def test_without_overrides_it_is_the_embedded_pair():
    config = compose()
    assert (config.experiment, config.pair.name) == ("default", "organism_deployed_llama")
    assert config.folder == Path("runs/default/organism_deployed_llama")
    assert config.train.sae == SaeConfig()


def test_the_file_of_the_attacks_names_every_bar_and_is_what_the_code_defaults_to():
    config, read = compose(), compose(["rank.attacks.keep=0.6"])
    written = (CONF / "attacks" / "default.yaml").read_text()
    named = {line.split(":")[0] for line in written.splitlines() if line and line[0] not in "# "}
    assert named == set(asdict(AttackConfig()))
    assert config.rank.attacks == AttackConfig()
    assert read.rank.attacks.keep == 0.6
    assert fingerprint(read.settings("rank")) != fingerprint(config.settings("rank"))


def test_a_null_too_small_to_be_passed_is_refused():
    with pytest.raises(ConfigError, match=r"null_p=0.05 can't be reached with .*null_latents=19"):
        compose(["rank.attacks.null_latents=19"])


@pytest.mark.parametrize("architecture", group_options()["train.sae"])
def test_each_sae_is_what_its_file_is_called(architecture: str):
    assert compose([f"train.sae={architecture}"]).train.sae.architecture == architecture
    assert compose([f"sae={architecture}"]) == compose([f"train.sae={architecture}"])


def test_an_experiment_with_an_overlay_applies_it():
    config = compose(["experiment=tiny"])
    assert config.experiment == "tiny"
    assert config.train.sae.d_sae == 64


def test_an_experiment_without_an_overlay_only_names_its_folder():
    named = asdict(compose(["experiment=narrow"]))
    assert named == asdict(compose()) | {"experiment": "narrow"}


def test_options_win_over_the_overlay_wherever_they_stand():
    assert compose(["train.steps=7", "experiment=tiny"]).train.steps == 7
    assert compose(["experiment=tiny", "train.steps=7"]).train.steps == 7


def test_the_full_experiment_asks_for_more_of_everything():
    full, default = compose(["experiment=full"]), compose()
    assert full.train.sae.d_sae == 2048
    assert len(full.layers) > len(default.layers)
    assert full.traces.num_problems > default.traces.num_problems
    assert full.ablate.controls > default.ablate.controls


def test_behaviours_are_a_file_or_a_list():
    assert len(compose(["behaviours=search_moves"]).behaviours) == 5
    assert compose(["behaviours=[backtracking]"]).behaviours == ["backtracking"]


def test_data_of_the_project_is_found_from_anywhere(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = compose([*OWN_PAIR, "pair.base.path=conf"]).pair.base.path
    assert Path(path) == ROOT / "conf"


def test_a_path_from_where_one_stands_comes_first(tmp_path: Path, monkeypatch):
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    assert compose([*OWN_PAIR, "pair.base.path=conf"]).pair.base.path == "conf"


BLOCKS = {
    "qwen2.5-0.5b_orz": 24,
    "qwen2.5-1.5b_orz": 28,
    "qwen2.5-7b_orz": 28,
    "qwen2.5-math-7b_oat_zero": 28,
    "qwen2.5-math-7b_simplerl": 28,
    "llama-3.1-8b_simplerl": 32,
    "olmo-3-7b_rl_zero_math": 32,
    "qwen2.5-math-1.5b_r1_distill": 28,
    "qwen2.5-math-7b_r1_distill": 28,
    "llama-3.1-8b_r1_distill": 32,
    "r1_distill_qwen-1.5b_nemotron": 28,
    "hub": 28,
}
"""Of the pairs from the hub; from their published configs."""


ALONE = {"smollm2", "gemma3_270m", "smollm2_itself", "smollm2_created"}
"""Models out of the package index: by themselves, against themselves, or with adapters."""


def test_every_pair_from_the_hub_has_its_number_of_blocks_here():
    files = {choice for group, choice in CHOICES if group == "pair"}
    assert {f for f in files if not f.startswith("organism_")} - ALONE - {"local"} == set(BLOCKS)


@pytest.mark.parametrize("choice", BLOCKS)
def test_pairs_from_the_hub_bring_layers_and_sizes(choice: str):
    config = compose([f"pair={choice}"])
    assert config.pair.name == choice or choice == "hub"
    assert max(config.layers) < BLOCKS[choice]
    assert len(config.layers) == 3
    assert config.train.sae.d_sae > config.train.sae.k == 64
    assert config.train.sae.architecture == "topk"
    assert config.cache.token_budget > compose().cache.token_budget
    models = config.pair.base, config.pair.rl
    assert all(model.path.count("/") == 1 and model.dtype == "bfloat16" for model in models)
    assert not any(model.trust_remote_code for model in models)
    said = (CONF / "pair" / f"{choice}.yaml").read_text()
    assert "Nobody has run this pair here" in said
    # Options given by hand come first, wherever they stand.
    own = compose(["layers=[3]", "train.sae.k=8", f"pair={choice}", "sae=batchtopk"])
    assert (own.layers, own.train.sae.k, own.train.sae.architecture) == ([3], 8, "batchtopk")


def test_the_distilled_read_as_their_bases_do():
    for choice in BLOCKS:
        pair = compose([f"pair={choice}"]).pair
        assert pair.rl.tokenizer == (pair.base.path if pair.arm == "distill" else "")


def test_a_hub_id_stays_a_hub_id():
    assert compose(["pair=hub"]).pair.base.path == "Qwen/Qwen2.5-1.5B"


def test_the_other_runs_reader_is_found_in_the_file_of_its_pair():
    model = compose(["match.other=mine/organism_created_neox", "match.reader=base"]).match.model
    assert Path(model.path).resolve() == ROOT / "data/organisms/search_base_lacking_neox"
    # A run is named by its pair's name, not by its file's.
    model = compose(["match.other=default/qwen2.5-1.5b_simplerl"]).match.model
    assert (model.path, model.dtype) == ("hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo", "bfloat16")


def test_a_reader_that_is_set_or_unknown_stays_as_it_is():
    own = compose(["match.other=default/organism_created_neox", "match.model.path=/models/mine"])
    assert own.match.model.path == "/models/mine"
    assert compose(["match.other=default/nobody"]).match.model.path == ""
    assert compose(["match.other=default/local"]).match.model.path == ""


def test_every_option_is_dotted_and_unique():
    names = option_names()
    assert len(set(names)) == len(names)
    assert {"train.sae.k", "pair.base.path", "layers"} <= set(names)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.sae.kk=3", "did you mean train.sae.k?"),
        ("train.k=3", "did you mean train.sae.k?"),
        ("behaviors=search_moves", "did you mean behaviours?"),
        ("frobnicate=1", "is no option"),
        ("+train.extra=1", "is no option"),
        ("train.sae.k=abc", "train.sae.k"),
        ("train.sae.k=999", "train.sae.k=999 exceeds train.sae.d_sae=512; lower k"),
        ("train={steps: 3}", "sets a whole part"),
        ("train={steps:3}", "sets a whole part"),
        ("train.seed=1,2", "names several values"),
        ("pair=nowhere", "choose one of gemma3_270m, hub, llama-3.1-8b_r1_distill, "),
        ("pair=organism_crated_neox", "did you mean organism_created_neox?"),
        ("tracker=mlflow", "choose one of none, wandb"),
        ("experiment=tinny", "did you mean tiny? For a folder of yours"),
        ("calibrate.seeds=[1,1]", "names one twice"),
        ("calibrate.seeds=[0,1]", "on seed 0 margins were fitted"),
        ("contrast.execution_value=maybe", "choose one of auto, always, never"),
        ("contrast.headroom=1.5", "is a share of right answers, at most 1; try 0.5"),
        ("contrast.completions=1", "can't be halved"),
        ("contrast.own_share=2", "is a share, at most 1"),
        ("calibrate.families=[lama]", "choose one of llama, neox"),
        ("pair=local", "pair.base.path isn't set"),
        ("layers=3", "layers"),
        ("layers=[]", "name at least one"),
        ("layers=[-1]", "0 the first"),
        ("layers=[one]", "Integer"),
        ("experiment=../elsewhere", "leaves runs=runs"),
        ("experiment=/tmp", "leaves runs=runs"),
        ("experiment=a/b", "leaves runs=runs"),
        ("pair.name=../elsewhere", "must be one folder name"),
        ("cache.dtype=float8", "choose one of float16, bfloat16, float32"),
        ("traces.report_share=1.5", "between 0 and 1"),
        ("train.lr=0", "must be positive"),
        ("match.other=neox", "must be <experiment>/<pair>"),
        ("match.other=../neox", "must be <experiment>/<pair>"),
        ("match.null_draws=5", "raise it to 20"),
        ("device=cudda", "device=cudda is unknown; choose one of auto, cpu, cuda, or"),
        ("device=cuda:x", "as cuda:0"),
        ("~pair", "can't be read"),
        ("train.steps", "can't be read"),
    ],
)
def test_a_bad_override_is_refused_in_one_line_with_its_remedy(override: str, says: str):
    with pytest.raises(ConfigError) as refusal:
        compose([override])
    message = str(refusal.value)
    assert says in message
    assert "\n" not in message
    assert len(message) < 700  # The longest lists every pair.


def test_annotated_traces_go_by_a_name_of_their_own():
    config = compose(["experiment=real", "corpus.annotated=[thinker.json,plain.json]"])
    assert (config.traces.source, config.traces.base_source) == ("thinker.json", "plain.json")
    assert compose(["corpus.annotated=one.jsonl"]).traces.source == "one.jsonl"
    with pytest.raises(ConfigError, match="names 3 files; give one, or"):
        compose(["corpus.annotated=[a,b,c]"])


def test_fetched_models_stand_alone_where_they_were_put():
    config = compose(["pair=smollm2", "fetch.folder=/models", "match.other=real/gemma3_270m"])
    assert config.pair.is_single and list(config.pair.readers) == ["rl"]
    assert config.pair.rl.path == "/models/smollm2"
    assert config.match.model.path == "/models/gemma3_270m"
    assert config.match.model.gguf_file.endswith(".gguf")
    with pytest.raises(ConfigError, match=r"fetch\.models=\['gpt5'\] are not all known"):
        compose(["fetch.models=[gpt5]"])


MINE = ("pair=local", "pair.name=mine", "pair.base.path=a", "pair.rl.path=b")


@pytest.mark.parametrize("name", ["1e3", "3627e41", "1_000", "1.0", "null1", "true", "nan", "007"])
def test_a_name_is_text_whatever_it_looks_like(name: str) -> None:
    config = compose(
        [*MINE, f"experiment={name}", f"pair.name={name}", f"pair.base.revision={name}"]
    )
    assert (config.experiment, config.pair.name, config.pair.base.revision) == (name, name, name)
    lists = compose([*MINE, f"behaviours=[{name},b]", f"transfer.pairs=[a,{name}]"])
    assert (lists.behaviours, lists.transfer.pairs) == ([name, "b"], ["a", name])
    jobs = expand([*MINE, f"experiment={name},other", "layers=[1],[2]"])
    assert [compose(job).experiment for job in jobs] == [name, name, "other", "other"]


def test_none_is_none_where_there_may_be_none_and_a_name_elsewhere() -> None:
    config = compose([*MINE, "pair.base.revision=null", "cache.shard=null", "pair.name=null"])
    assert (config.pair.base.revision, config.cache.shard, config.pair.name) == (None, None, "null")
    assert compose([*MINE, "layers=[1,2]", "train.lr=1e-3", "rank.gate=false"]).train.lr == 1e-3


def test_a_tilde_is_the_users_own_folder_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    models = [
        f"{m}.{o}" for m in ("pair.base", "pair.rl") for o in ("path", "tokenizer", "adapter")
    ]
    single = [*models, "runs", "traces.source", "traces.base_source", "match.model.path"]
    single += ["course.checkpoints", "calibrate.output", "organism.folder", "organism.others"]
    single += ["fetch.folder", "train.released"]
    brought = "train.readers=released"
    for quote in ("", "'"):
        given = [f"{option}={quote}~/it{quote}" for option in single]
        lists = [f"{stage}.reviews=[{quote}~/a{quote},b]" for stage in ("ablate", "report")]
        config = compose([*MINE, "layers=[1]", brought, *given, *lists])
        for option in single:
            value: object = config
            for part in option.split("."):
                value = getattr(value, part)
            assert value == "/home/me/it", option
        assert config.ablate.reviews == config.report.reviews == ["/home/me/a", "b"]
    by_layer = compose([*MINE, brought, "train.released=~/saes/{layer}"])
    assert by_layer.train.released == "/home/me/saes/{layer}"
    assert compose([*MINE, "traces.source=gsm8k:~/data"]).traces.source == "gsm8k:/home/me/data"
    assert compose([*MINE, "traces.source=a~b"]).traces.source == "a~b"


@pytest.mark.parametrize("name", ["it's.jsonl", "two 'of' them's.jsonl", r"a\'s b", "tail\\"])
def test_files_with_an_apostrophe_can_be_named(name: str) -> None:
    for value in (quoted(name), *([name] if "\\" not in name else [])):
        assert compose([*MINE, f"traces.source={value}"]).traces.source == name
        assert compose([*MINE, f"corpus.annotated={value}"]).traces.source == name
        (job,) = expand([*MINE, f"corpus.annotated={value}"])
        assert compose(job).traces.source == name
    both = compose([*MINE, f"corpus.annotated=[{quoted(name)},b.jsonl]"])
    assert (both.traces.source, both.traces.base_source) == (name, "b.jsonl")


@pytest.mark.parametrize("value", ["'half", "a(b", "[a's,b]", "{a's}"])
def test_what_is_quoted_by_halves_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match=r"can't be read; .* quote special signs"):
        compose([*MINE, f"traces.source={value}"])


def test_the_remedy_for_special_signs_is_one() -> None:
    said = r"Put the final answer into \boxed{}."
    with pytest.raises(ConfigError, match=r"as \"traces\.instruction='…'\"$"):
        compose([f"traces.instruction={said}"])
    assert compose([f"traces.instruction='{said}'"]).traces.instruction == said


def test_an_option_of_another_name_now_is_refused_with_its_new_name():
    with pytest.raises(ConfigError, match=r"contrast\.triggers is now contrast\.vectors"):
        compose(["contrast.triggers=1"])


def test_an_option_that_is_gone_is_refused_with_what_does_its_work():
    with pytest.raises(ConfigError, match=r"ablate\.think is gone: the pair's traces .* leave it"):
        compose(["ablate.think=true"])
