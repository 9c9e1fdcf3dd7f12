from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from electra_tutorial import __version__, cli, corpora, environment, runner
from electra_tutorial.checkpoints import reading_of
from electra_tutorial.cli_pretraining import given_settings
from electra_tutorial.config import FineTuningConfig, PretrainingConfig
from electra_tutorial.modeling import ElectraForJointPreTraining
from electra_tutorial.tokenization import load_tokenizer


def fake_report(*errors: str | None) -> runner.Report:
    runs = [
        runner.NotebookRun(f"0{i}_x", 1.0, 500.0, {}, Path("x"), error)
        for i, error in enumerate(errors)
    ]
    return runner.Report("laptop", "2 cores, no GPU", "3.11.7", "2.13.0", "2026-01-01", runs)


def test_env_prints_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed == environment.describe()


def test_env_refuses_a_python_that_is_too_new(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "NEWEST_PYTHON", (3, 5))
    monkeypatch.setattr(environment, "OLDEST_PYTHON", (3, 4))
    assert cli.main(["env"]) == 2
    assert "is too new: install a Python from 3.4 to 3.5" in capsys.readouterr().err


def test_run_hands_on_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def run(*arguments: object, **options: object) -> runner.Report:
        given.update(options, arguments=arguments)
        return fake_report(None, None)

    monkeypatch.setattr(runner, "run_notebooks", run)
    line = "run 04 05_2 --profile ci --output out --notebooks in -p steps=3 -p word=x --timeout 9"
    assert cli.main(line.split()) == 0
    assert given == {
        "arguments": (["04", "05_2"], "ci", "out"),
        "notebooks": "in",
        "parameters": {"steps": 3, "word": "x"},
        "timeout": 9.0,
    }
    assert capsys.readouterr().out == "2 of 2 notebooks passed in 2 s, at most 0.5 GB; see out.\n"


def test_run_returns_one_where_a_notebook_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run_notebooks", lambda *_, **__: fake_report(None, "bad"))
    assert cli.main(["run"]) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --notebooks absent", "absent holds no notebooks"),
        ("run -p steps", "'steps' is not NAME=VALUE"),
        ("run 04 --profile tpu --notebooks {sample}", "Unknown profile 'tpu'"),
        ("run 99 --notebooks {sample}", "Unknown chapter '99'"),
        ("run --notebooks {sample} -p stps=3", "has no parameter 'stps'"),
        ("run --notebooks {sample} -p steps=x", "must be a whole number like 3, not 'x'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    sample_book: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert cli.main(line.format(sample=sample_book / "notebooks").split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("electra-tutorial run: ")
    assert message in said
    assert said.count("\n") == 1


def test_debug_shows_where_an_error_arose() -> None:
    with pytest.raises(FileNotFoundError, match="holds no notebooks"):
        cli.main(["run", "--notebooks", "absent", "--debug"])


@pytest.mark.parametrize("line", ["", "unknown", "run --unknown", "run --timeout soon"])
def test_a_command_that_is_none_shows_the_usage(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(line.split())
    assert stopped.value.code == 2
    assert "usage: electra-tutorial" in capsys.readouterr().err


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"electra-tutorial {__version__}\n"


# --- training and using a model ---------------------------------------------------------------

TINY = "--size nano --sequence-length 16 --batch-size 4 --log-every 1"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "ferry.txt"
    documents = [f"Ferry {n} left at dawn.\nIts {n} lamps burned in the fog." for n in range(30)]
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Segments are cached in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ELECTRA_TUTORIAL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    output = tmp_path_factory.mktemp("pretrain") / "run"
    line = f"pretrain --corpus {text} --output {output} --steps 2 --held-out 0.2 {TINY}"
    assert cli.main(line.split()) == 0
    return output


@pytest.fixture(scope="module")
def classifier(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finetune") / "classifier"
    line = "finetune --task topics --epochs 1 --max-length 16 --batch-size 64"
    checkpoint = run / "final" / "discriminator"
    assert cli.main([*line.split(), "--checkpoint", str(checkpoint), "--output", str(output)]) == 0
    return output


def test_settings_become_options() -> None:
    given = ["pretrain", "--corpus", "x", "--output", "y", "--learning-rate", "0.1"]
    options = cli._parser().parse_args([*given, "--generator-fraction", "0.5"])
    assert PretrainingConfig(**given_settings(options, PretrainingConfig)) == PretrainingConfig(
        learning_rate=0.1, generator_fraction=0.5
    )
    options = cli._parser().parse_args([*given, "--no-bias-correction", "--compile"])
    settings = PretrainingConfig(**given_settings(options, PretrainingConfig))
    assert (settings.bias_correction, settings.compile) == (False, True)


def test_a_recipe_decides_what_is_not_given() -> None:
    def chosen(rows: int, *more: str) -> tuple[str, FineTuningConfig]:
        line = ["finetune", "--task", "topics", "--output", "y", *more]
        options = cli._parser().parse_args(line)
        assert options.checkpoint == "mini"
        return cli._recipe(options, rows)

    assert chosen(288) == ("small", FineTuningConfig.small_set(288))
    assert chosen(1_999)[0] == "small"
    assert chosen(2_241) == chosen(288, "--recipe", "paper") == ("paper", FineTuningConfig())
    assert chosen(9_999, "--recipe", "small") == ("small", FineTuningConfig.small_set(9_999))
    given = ("--learning-rate", "1e-3", "--dropout", "0.1", "--no-bias-correction", "--seed", "0")
    expected = FineTuningConfig.small_set(
        288, learning_rate=1e-3, dropout=0.1, bias_correction=False
    )
    assert chosen(288, *given) == ("small", expected)
    assert chosen(5_000, "--epochs", "10")[1] == FineTuningConfig(epochs=10)


def test_finetune_says_what_the_paper_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["finetune", "--help"])
    said = capsys.readouterr().out
    assert "10 epochs for RTE\n         and STS-B and 2 for SQuAD" in said
    assert "default: 0.0003" in said  # the paper's, although a recipe may decide


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_texts_of_one_s_own_go_in_and_answers_come_out(
    suffix: str,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A word gives each label away, so that a model that reads the right columns answers right."""
    words = ["good", "great", "bad", "poor", "film", "play", "the", "was"]
    checkpoint = make_checkpoint(tmp_path / "toy", words, initializer_range=0.1)
    rows = [
        {"nr": i, "body": f"the {place} was {word}", "topic": "praise" if i % 2 else "blame"}
        for i in range(60)
        for word in [("bad", "good", "poor", "great")[i % 4]]
        for place in [("film", "play", "film play")[i % 3]]
    ]
    for row in rows:  # no two texts alike, for these stay on one side
        row["body"] += " the" * (row["nr"] // 12)
    path = tmp_path / f"my{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    output = tmp_path / "model"
    line = f"finetune --train {path} --text-column body --label-column topic --output {output}"
    settings = "--learning-rate 1e-2 --epochs 4 --batch-size 8 --max-length 16"
    capsys.readouterr()  # of the checkpoint's
    assert cli.main([*line.split(), *settings.split(), "--checkpoint", str(checkpoint)]) == 0
    said = capsys.readouterr()
    assert "Recipe 'small' for 54 rows: learning_rate 0.01, layerwise_decay 1, " in said.out
    assert said.err == ""
    assert (
        cli.main(["predict", "--checkpoint", str(output), "the play was great", "poor film"]) == 0
    )
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [
        "praise",
        "blame",
    ]


def test_finetune_warns_of_a_run_at_chance(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "toy", ["the"])
    capsys.readouterr()  # of the checkpoint's
    path = tmp_path / "my.csv"
    path.write_text("text,label\n" + "".join(f"{'the ' * (i + 1)},{i % 2}\n" for i in range(40)))
    line = f"finetune --train {path} --checkpoint {checkpoint} --output {tmp_path / 'model'}"
    settings = "--learning-rate 1e-7 --epochs 1 --max-length 16"
    assert cli.main([*line.split(), *settings.split()]) == 0
    said = capsys.readouterr().err
    assert said.startswith("electra-tutorial finetune: warning: the model has hardly learned")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_pretrain_writes_two_halves_and_resumes(
    run: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (run / "final" / "discriminator" / "config.json").is_file()
    assert (run / "final" / "generator" / "config.json").is_file()
    log = (run / "log.jsonl").read_text(encoding="utf-8")
    line = f"pretrain --corpus {text} --output {run} --steps 2 --held-out 0.2 {TINY} --resume"
    assert cli.main(line.split()) == 0
    assert (run / "log.jsonl").read_text(encoding="utf-8") == log
    assert "held_out_auc" in capsys.readouterr().out


def test_pretrain_says_how_to_launch_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    said = capsys.readouterr().out
    assert (
        "accelerate launch --multi_gpu --num_processes 8 -m electra_tutorial.cli pretrain" in said
    )
    assert "--num_machines 2 --num_processes 16 --machine_rank 0" in said


@pytest.mark.slow
def test_pretrain_runs_from_a_file_of_segments(
    run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = max((cache / "segments").glob("*.npy"), key=lambda path: path.stat().st_size)
    line = f"pretrain --segments {file} --output {tmp_path / 'new'} --steps 2 {TINY} --held-out 0.2"
    assert cli.main([*line.split(), "--tokenizer", str(run / "tokenizer")]) == 0
    assert "held_out_auc" in capsys.readouterr().out
    assert cli.main([*line.split(), "--resume"]) == 0
    changed = line.replace("--held-out 0.2", "--held-out 0").split()
    assert cli.main([*changed, "--resume"]) == 2
    assert "was started with another text" in capsys.readouterr().err


@pytest.mark.slow
def test_pretrain_starts_from_a_checkpoint_of_another_run(
    run: Path, text: Path, tmp_path: Path
) -> None:
    start = run / "checkpoint-00000002"
    line = f"pretrain --corpus {text} --output {tmp_path / 'new'} --steps 1 --held-out 0 {TINY}"
    assert cli.main([*line.split(), "--checkpoint", str(start), "--learning-rate", "0"]) == 0
    before = load_file(start / "model.safetensors")
    after = load_file(tmp_path / "new" / "checkpoint-00000001" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.slow
def test_pretrain_goes_on_from_a_checkpoint(
    run: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"pretrain --corpus {text} --output {tmp_path / 'more'} --steps 99 --held-out 0 {TINY}"
    assert (
        cli.main([*line.split(), "--checkpoint", str(run / "final"), "--max-seconds", "0.1"]) == 0
    )
    assert "Stopped early (time limit); go on with --resume." in capsys.readouterr().out
    kept = tmp_path / "more" / "tokenizer" / "tokenizer.json"
    assert kept.read_bytes() == (run / "tokenizer" / "tokenizer.json").read_bytes()


@pytest.mark.slow
def test_pretrain_reads_the_text_as_it_comes_and_cuts_it_once(
    text: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows as from a text in memory; a second run finds them, whatever its seed."""
    line = f"pretrain --corpus {text} --held-out 0.2 --steps 1 {TINY}"
    in_memory = corpora.load_corpus(text).split(0.2)
    monkeypatch.setattr(corpora, "load_corpus", None)  # must not be called
    assert cli.main([*line.split(), "--output", str(tmp_path / "one")]) == 0
    files = set((cache / "segments").iterdir())
    tokenizer = load_tokenizer(tmp_path / "one" / "tokenizer")
    for side in in_memory:
        segments = corpora.segments_for(side, tokenizer, 16, cache / "segments")
        assert segments.num_tokens > 0
    assert cli.main([*line.split(), "--output", str(tmp_path / "two"), "--seed", "5"]) == 0
    assert set((cache / "segments").iterdir()) == files
    one, two = (
        (tmp_path / name / "tokenizer/tokenizer.json").read_bytes() for name in ("one", "two")
    )
    assert one == two
    states = [
        json.loads((tmp_path / name / "checkpoint-00000001/state.json").read_text())
        for name in ("one", "two")
    ]
    assert states[0]["text"] == states[1]["text"]


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
def test_pretrain_goes_on_from_a_pair_as_it_lies_on_the_hub(
    run: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wide: bool
) -> None:
    """Two folders without a word about each other; the wide one has google's small's widths."""
    width = 128 if wide else 32
    vocabulary = len(load_tokenizer(run / "tokenizer"))
    pair = ElectraForJointPreTraining.from_size("nano", vocabulary, generator_fraction=width / 128)
    pair.save_halves(tmp_path / "pair", load_tokenizer(run / "tokenizer"))
    ours, theirs = (tmp_path / "pair" / half for half in ("discriminator", "generator"))
    line = f"pretrain --corpus {text} --output {tmp_path / 'new'} --steps 1 --held-out 0"
    line += " --sequence-length 16 --batch-size 4 --log-every 1"
    capsys.readouterr()
    assert cli.main([*line.split(), "--checkpoint", str(ours), "--generator", str(theirs)]) == 0
    said = capsys.readouterr().err
    expected = "electra-tutorial pretrain: warning: the generator is as wide as the discriminator"
    assert (expected in said) == wide
    state = json.loads((tmp_path / "new" / "checkpoint-00000001" / "state.json").read_text())
    assert state["config"]["size"] == "nano"
    assert state["config"]["generator_fraction"] == (1.0 if wide else None)
    assert (tmp_path / "new" / "final" / "generator" / "config.json").is_file()


@pytest.mark.slow
def test_runs_of_other_settings_are_judged_on_one_fixed_set(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"pretrain --corpus {text} --held-out 0.2 --fixed-corruptions --steps 1 {TINY}"
    others = "--seed 3 --mask-probability 0.4 --generator-fraction 0.5 --learning-rate 0.01"
    described, entries = [], []
    for name, settings in (("one", ""), ("other", others)):
        given = f"{line} --output {tmp_path / name} {settings}".split()
        assert cli.main(given) == 0
        said = capsys.readouterr().out
        assert "fixed_...: corrupted by word frequency" in said
        assert "held_out_...: corrupted by this run's own generator" in said
        described.append(json.loads((tmp_path / name / "fixed_corruptions.json").read_text()))
        entries.append(json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]))
        assert cli.main([*given, "--resume"]) == 0
    assert described[0] == described[1]
    assert described[0]["filled_by"] == "word frequency"
    assert 0 < described[0]["base_rate"] < 0.2
    assert all({"fixed_auc", "held_out_auc"} <= entry.keys() for entry in entries)
    assert cli.main([*given, "--resume", "--held-out-segments", "1"]) == 2
    assert "was judged on another fixed set" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("start", ["final", "checkpoint-00000001"])
def test_pretrain_records_what_the_checkpoint_has(text: Path, tmp_path: Path, start: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    line = f"pretrain --corpus {text} --steps 1 --held-out 0 --sequence-length 16 --batch-size 4"
    made = f"{line} --output {first} --size nano --sharing none --generator-fraction 0.5"
    assert cli.main(f"{made} --dropout 0 --discriminator-weight 9".split()) == 0
    line = f"{line} --output {second} --checkpoint {first / start}"
    assert cli.main(f"{line} --dropout 0.3".split()) == 0
    state = json.loads((second / "checkpoint-00000001" / "state.json").read_text())
    recorded, model = state["config"], state["model"]
    assert (recorded["size"], recorded["sharing"], model["sharing"]) == ("nano", "none", "none")
    assert recorded["generator_fraction"] == 0.5
    assert model["generator"]["hidden_size"] == 64
    assert recorded["discriminator_weight"] == model["discriminator_weight"] == 9
    assert recorded["dropout"] == 0.3
    for half in ("discriminator", "generator"):
        assert model[half]["hidden_dropout_prob"] == 0.3
        kept = json.loads((second / "final" / half / "config.json").read_text())
        assert kept["attention_probs_dropout_prob"] == 0.3
    assert cli.main(f"{line} --dropout 0.3 --resume".split()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--sharing none", "has sharing 'embeddings', and 'none' is asked for"),
        ("--size small", "has size 'nano', and 'small' is asked for"),  # a default, but chosen
        ("--generator-fraction 0.5", "has generator_fraction 0.25 (32 of 128 units), and 0.5"),
        ("--objective mlm", "has objective 'electra', and 'mlm' is asked for"),
        ("--initializer-range 0.1", "has initializer_range 0.02"),
        ("--embeddings cooccurrence", "say how a new model starts: leave them out"),
        ("--sequence-length 100", "longer than the 64 positions of the model"),
    ],
)
def test_pretrain_refuses_what_contradicts_the_checkpoint(
    run: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: str,
    message: str,
) -> None:
    line = f"pretrain --corpus {text} --output {tmp_path / 'new'} --checkpoint {run / 'final'}"
    assert cli.main([*line.split(), *given.split()]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_classifier_is_evaluated_and_used(
    classifier: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = ["--checkpoint", str(classifier)]
    assert cli.main(["evaluate", "--task", "topics", *checkpoint]) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert cli.main(["predict", *checkpoint, "One text.", "Another text."]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[2] for row in rows] == ["One text.", "Another text."]
    assert 0 < float(rows[0][1]) <= 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("From the input.\n\n"))
    assert cli.main(["predict", *checkpoint]) == 0
    assert capsys.readouterr().out.endswith("From the input.\n")


@pytest.mark.slow
def test_texts_of_one_s_own_are_learnt_and_evaluated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my.csv"
    rows = [f"Ferry {i} left at dawn.,{'odd' if i % 2 else 'even'}" for i in range(40)]
    path.write_text("\n".join(["body,topic", *rows]), encoding="utf-8")
    columns = "--text-column body --label-column topic"
    output = tmp_path / "model"
    line = f"finetune --train {path} {columns} --output {output} --epochs 1 --max-length 16"
    assert cli.main([*line.split(), "--checkpoint", str(run / "final" / "discriminator")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("my: 36 train, 4 validation, 0 test rows from 'file'")
    assert said.endswith(f"The model is in {output}.\n")
    assert reading_of(output) == {"max_length": 16, "window_overlap": 64}
    assert cli.main(f"evaluate --data {path} {columns} --checkpoint {output}".split()) == 0
    said = capsys.readouterr().out
    assert "even" in said
    assert "95 % interval" in said
    assert cli.main(f"evaluate --data {path} --checkpoint {output}".split()) == 2
    assert "has no column 'text'; it has body, topic" in capsys.readouterr().err


@pytest.mark.slow
def test_names_and_answers_are_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--checkpoint", str(run / "final" / "discriminator")]
    settings = ["--epochs", "1", "--max-length", "48", "--batch-size", "32", "--output"]
    for task in ("entities", "passages"):
        model = tmp_path / task
        assert cli.main(["finetune", "--task", task, *start, *settings, str(model)]) == 0
        assert cli.main(["evaluate", "--task", task, "--checkpoint", str(model)]) == 0
        assert "\nf1 0." in capsys.readouterr().out
    checkpoint = ["--checkpoint", str(tmp_path / "entities")]
    assert cli.main(["predict", *checkpoint, "Ada met Bob."]) == 0
    assert capsys.readouterr().out.endswith("\tAda met Bob.\n")
    assert cli.main(["predict", *checkpoint, "Ada met Bob.", "--context", "x"]) == 2
    assert "--context is for question-answering" in capsys.readouterr().err
    checkpoint = ["--checkpoint", str(tmp_path / "passages")]
    assert cli.main(["predict", *checkpoint, "Who?", "--context", "Ada met Bob."]) == 0
    answer, _, question = capsys.readouterr().out.rstrip("\n").split("\t")
    assert question == "Who?"
    assert answer == "no answer" or answer in "Ada met Bob."
    assert cli.main(["predict", *checkpoint, "Who?"]) == 2
    assert cli.main(["evaluate", "--task", "topics", *checkpoint]) == 2
    assert "the data has no column question" in capsys.readouterr().err


def test_a_task_or_a_file_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("finetune --output x", "finetune --output x --task a --train b"):
        with pytest.raises(SystemExit):
            cli.main(line.split())
        assert "--task" in capsys.readouterr().err


@pytest.mark.slow
def test_detect_scores_every_token(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(run / "final" / "discriminator")
    assert cli.main(["detect", "--checkpoint", checkpoint, "Ferry at dawn."]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows] == ["ferry", "at", "dawn", "."]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain --corpus absent --output {out}", "no corpus at absent"),
        ("pretrain --corpus {empty} --output {out}", "is empty: there is no text to learn from"),
        ("pretrain --corpus {text} --output {out} --held-out 1e-9", "too few to set 0% aside"),
        ("pretrain --corpus {text} --output {out} --size huge", "unknown size 'huge'"),
        ("pretrain --corpus {text} --output {out} --sequence-length 999", "is longer than the"),
        ("pretrain --corpus {text} --output {out} --held-out 2", "a share between 0 and 1"),
        (
            "pretrain --corpus {text} --output {out} --checkpoint {out}",
            "is no folder with discriminator/ and generator/ in it",
        ),
        (
            "pretrain --corpus {text} --output {out} --checkpoint {half}",
            "its generator too (--generator)",
        ),
        ("pretrain --corpus {text} --output {out} --generator x", "--generator needs --checkpoint"),
        (
            "pretrain --corpus {text} --output {out} --held-out 0 --fixed-corruptions",
            "needs text set aside",
        ),
        ("pretrain --corpus {text} --output {run}", "resume it, or name another folder"),
        ("pretrain --corpus {text} --output {out} --packing x", "unknown packing 'x'"),
        ("pretrain --corpus {text} --output {out} --tracker x", "unknown tracker 'x'"),
        ("pretrain --segments absent --output {out} --tokenizer mini", "no segments at absent"),
        ("pretrain --segments absent --output {out}", "--segments needs --tokenizer"),
        ("finetune --task absent --output {out}", "Unknown task 'absent'"),
        ("finetune --train absent.csv --output {out}", "There is no file absent.csv"),
        ("finetune --task topics --checkpoint absent --output {out}", "no checkpoint at absent"),
        ("finetune --task topics --output {out} --resume", "leave out resume"),
        ("finetune --task topics --checkpoint {half} --output {run}", "is there already"),
        ("evaluate --task topics --checkpoint {half}", "has no head for a task in it"),
        ("evaluate --task topics --checkpoint {half} --split x", "Unknown split 'x'"),
        ("predict --checkpoint {half} text", "has no head for a task in it"),
        ("detect --checkpoint absent text", "no checkpoint at absent"),
    ],
)
def test_bad_input_for_a_model_is_refused(
    run: Path,
    text: Path,
    tmp_path: Path,
    line: str,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    places = {
        "run": run,
        "text": text,
        "out": tmp_path / "out",
        "half": run / "final/discriminator",
        "empty": tmp_path / "empty.txt",
    }
    places["empty"].write_text(" \n\n")
    assert cli.main(line.format(**places).split()) == 2
    said = capfd.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_predict_needs_a_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli.main(["predict", "--checkpoint", "x"]) == 2
    assert "There is no text: give one as an argument" in capsys.readouterr().err


@pytest.mark.slow
def test_the_module_is_a_command_with_an_exit_status(sample_book: Path) -> None:
    command = [sys.executable, "-m", "electra_tutorial.cli", "run", "99", "--notebooks"]
    done = subprocess.run(
        [*command, str(sample_book / "notebooks")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_exported_model_is_served(
    classifier_checkpoint: Path,
    exported_classifier: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from electra_tutorial import export, serving

    graph = (exported_classifier / export.FULL).read_bytes()
    monkeypatch.setattr(export, "_write_graph", lambda _, path: path.write_bytes(graph))
    output = tmp_path / "out"
    line = ["export", "--checkpoint", str(classifier_checkpoint), "--output", str(output)]
    assert cli.main([*line, "--int8", "--max-length", "16"]) == 0
    full, small = capsys.readouterr().out.splitlines()
    assert full.startswith(f"{output / 'model.onnx'}  0.")
    assert "largest difference of a logit to PyTorch" in full
    assert full.endswith("same answers 100.0%")
    assert small.startswith(f"{output / 'model.int8.onnx'}  0.")
    assert cli.main(line) == 2
    assert "is there already: name another folder" in capsys.readouterr().err

    served = []
    monkeypatch.setattr(serving, "serve", lambda *given: served.append(given))
    assert cli.main(["serve", str(output), "--port", "0", "--int8", "--most-texts", "2"]) == 0
    ((app, host, port),) = served
    assert (host, port) == ("127.0.0.1", 0)
    assert {"/predict", "/health"} <= set(app.openapi()["paths"])
    assert cli.main(["serve", "absent"]) == 2
    assert "There is no export.json in absent" in capsys.readouterr().err
    assert cli.main(["serve", str(output), "--most-texts", "0"]) == 2
    assert "Limits must be at least 1" in capsys.readouterr().err
