"""The tables, figures and the calculator of book/scaling.md, made from recorded runs.

Nothing on that page is typed by hand: operations come from `electra_tutorial.flops`, measurements
from experiments/results/benchmark_*.json, and the calculator's constants from the same functions as
the table below it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from electra_tutorial import flops, plotting, recorded

PAGE = "scaling.md"
ROOFLINES = {
    "cpu_fp32": "CPU, fp32",
    "cpu_bf16": "CPU, bf16",
    "cuda_bf16": "GPU, bf16",
}
STEPS = {"step": "", "step_onednn": ", linear layers in oneDNN"}
NOT_RUN = "not run"
# What the calculator starts with. Inputs, not measurements: readers put in their own.
START = {"devices": 8, "peak": 312, "share": 25, "price": 2}
DEVICES = (1, 8, 64)
DISTURBED = 1.3  # a matrix product that much slower than the fastest: the machine was busy
PAPER_DAYS = 4  # Small on one V100, table 1 of the paper
STYLE = """
.calculator { display: grid; grid-template-columns: fit-content(16rem) minmax(8rem, 12rem);
  gap: 0.5rem 1rem; align-items: center; margin: 1rem 0; padding: 1rem;
  border: 1px solid var(--book-rule);
  border-radius: 6px; background: var(--book-cell); }
.calculator input, .calculator select { padding: 0.3rem 0.5rem; color: var(--pst-color-text-base);
  background: var(--book-output); border: 1px solid var(--pst-color-text-muted);
  border-radius: 4px; width: 100%; }
.calculator :is(input, select):focus-visible { outline: 3px solid var(--book-cell-edge); }
.calculator output { grid-column: 1 / -1; font-weight: 600; }
@media (max-width: 30rem) { .calculator { grid-template-columns: minmax(0, 1fr); } }
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def provenance(run: dict[str, Any]) -> str:
    """One sentence: by which command, where and when a run was recorded."""
    hardware, versions = run["hardware"], run["package_versions"]
    machine = f"{hardware['processor']}, {hardware['cores']} core(s)"
    if hardware["gpu"] != "none":
        machine += f", {hardware['gpu']}"
    return (
        f"Recorded with `{run['command']}` on {machine}; torch {versions['torch']}, transformers "
        f"{versions['transformers']}; {run['seconds']:.0f} s.\n"
    )


def spread(figure: dict[str, float], digits: int = 2) -> str:
    """Median and range of paired ratios."""
    median, low, high = (f"{figure[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"**{median}** ({low} to {high})"


def power(value: float) -> str:
    """A number as a power of ten, for a table."""
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits} · 10{''.join('⁰¹²³⁴⁵⁶⁷⁸⁹'[int(d)] for d in str(int(exponent)))}"


# ---------------------------------------------------------------- counted


def operations() -> str:
    """Operations of the paper's three runs, by both conventions."""
    rows = []
    for name, run in flops.PAPER_RUNS.items():
        ours = flops.count_training_flops(run)
        official = flops.count_training_flops(run, convention="official")
        rows.append(
            [
                name.capitalize(),
                f"{run.batch_size} × {run.sequence_length}",
                f"{run.steps:,}",
                power(ours.step),
                power(ours.run),
                f"{ours.generator_share:.0%}",
                power(official.run),
            ]
        )
    head = ["Size", "Batch × length", "Steps", "A step", "The run", "Generator", "Official"]
    return table(head, rows)


def costs() -> str:
    """Hours and price of the paper's runs with the calculator's first inputs."""
    rows = []
    for name, run in flops.PAPER_RUNS.items():
        cells = [name.capitalize()]
        for devices in DEVICES:
            cost = flops.training_cost(
                flops.count_training_flops(run).run,
                peak=1e12 * START["peak"],
                share_of_peak=START["share"] / 100,
                devices=devices,
                price_per_hour=START["price"],
            )
            cells.append(duration(cost.hours))
        rows.append([*cells, f"{cost.price:,.0f}"])
    rate = flops.count_training_flops("small").run / (PAPER_DAYS * 24 * 3600) / 1e12
    return table(["Size", *(f"{n} device{'s' * (n > 1)}" for n in DEVICES), "Price"], rows) + (
        f"\nFor Small the paper reports {PAPER_DAYS} days on one V100: by our count a rate of "
        f"{rate:.1f} TFLOP/s. Put {rate:.1f} in as the peak, 100 as the share and 1 device, and "
        f"the form returns the {PAPER_DAYS} days.\n"
    )


def duration(hours: float) -> str:
    """Hours or days, with as many digits as are worth reading."""
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"


# ---------------------------------------------------------------- measured


def training_step() -> str:
    """Our step against electra-pytorch's."""
    run = recorded.load("benchmark_training_step")
    names = {
        "small": "Small, 32 sequences",
        "four_layers": "4 of its layers, 16 sequences",
    }
    arms = {
        "theirs_onednn": "electra-pytorch, linear layers in oneDNN",
        "ours": "ours, as it stands",
        "ours_onednn": "ours, linear layers in oneDNN",
        "ours_onednn_four_parts": "ours, the same in four micro-batches",
        "ours_compiled": "ours, with `torch.compile`",
    }
    rows = []
    for setting, title in names.items():
        figures = run["results"].get(setting)
        for arm, how in arms.items():
            if figures is None or arm not in figures["times_as_fast"]:
                continue
            compiling = figures["compile_seconds"] if arm == "ours_compiled" else None
            both = figures["times_as_fast_onednn"].get(arm)
            rows.append(
                [
                    f"{title}, {how}",
                    spread(figures["times_as_fast"][arm]),
                    spread(both) if both else "",
                    f"{figures['tokens_per_second'][arm]:,.0f}",
                    f"{figures['peak_memory_mb'][arm]:,.0f} MB",
                    f"{figures['share_of_their_memory'][arm]:.2f}",
                    "" if compiling is None else f"{compiling:.0f} s",
                ]
            )
    head = ["Step", "Ratio", "oneDNN in both", "Tokens/s", "Peak memory", "Share of theirs"]
    if any(row[-1] for row in rows):
        head.append("Compiling")
    rows = [row[: len(head)] for row in rows]
    return table(head, rows) + "\n" + provenance(run)


def masked_batch() -> str:
    """Masking against transformers' collator."""
    run = recorded.load("benchmark_masked_batch")
    forms = {
        "lists": "lists of ids",
        "arrays": "NumPy rows",
        "tensors": "torch rows",
        "specials_known": "NumPy rows, special tokens marked",
    }
    figures = run["results"]
    ours = f"{figures['milliseconds']['ours']:.2f} ms"
    rows = [["`mask_tokens`, the whole matrix", ours, "1"]]
    rows += [
        [
            f"`DataCollatorForLanguageModeling`, {title}",
            f"{figures['milliseconds'][form]:.2f} ms",
            spread(figures["times_as_fast"][form], 1),
        ]
        for form, title in forms.items()
    ]
    return table(["From segments to a masked batch", "Time", "Ours is faster by"], rows) + (
        "\n" + provenance(run)
    )


def rooflines() -> dict[str, dict[str, Any]]:
    """The recorded rooflines by name; those that were not run are absent."""
    names = recorded.names()
    return {
        name: recorded.load(f"benchmark_roofline_{name}")
        for name in ROOFLINES
        if f"benchmark_roofline_{name}" in names
    }


def roofline() -> str:
    """Share of the peak that a Small step reaches, and its bounds."""
    found, rows, notes = rooflines(), [], []
    for name, title in ROOFLINES.items():
        if name not in found:
            rows.append([title, *[NOT_RUN] * 6])
            continue
        r = found[name]["results"]
        for step, how in STEPS.items():
            if step not in r["steps"]:
                continue
            figures = r["steps"][step]
            rows.append(
                [
                    f"{title}, {r['batch_size']} × {r['sequence_length']}{how}",
                    f"{r['peak_flops_per_second'] / 1e9:,.0f} GFLOP/s",
                    f"{r['bandwidth_bytes_per_second'] / 1e9:,.0f} GB/s",
                    f"{figures['seconds']:.3g} s",
                    f"{figures['sequences_per_second']:,.1f}",
                    f"{100 * figures['share_of_peak']['median']:.0f} %",
                    f"{100 * r['share_of_peak_on_the_roofline']:.0f} %",
                ]
            )
        if r["peak_by"] != "torch.mm":
            notes.append(
                f"The peak on the {title} is {r['peak_by']}'s; `torch.mm` reaches "
                f"{r['default_product_flops_per_second'] / 1e9:,.0f} GFLOP/s there.\n"
            )
    head = ["Small", "Measured peak", "Bandwidth", "A step", "Sequences/s", "Share of peak"]
    text = table([*head, "Roofline"], rows)
    return text + "\n" + "\n".join([*notes, *map(provenance, found.values())])


def grid() -> str:
    """Cost of a step against size, length, batch and processes."""
    run = recorded.load("benchmark_scaling_cpu")
    results = run["results"]
    titles = {
        "size": "size {size}, length {sequence_length}",
        "sequence_length": "length {sequence_length}",
        "batch_size": "batch {batch_size}",
        "processes": "processes: {processes}",
    }
    points = [point for varied in titles for point in results[varied]]
    undisturbed = DISTURBED * min(point["product_seconds"] for point in points)
    rows = [
        [
            titles[varied].format(**point)
            + ("" if point["product_seconds"] < undisturbed else " \\*"),
            power(point["flops_per_step"]),
            f"{1e3 * point['seconds']:,.0f} ms",
            f"{point['tokens_per_second']:,.0f}",
            f"{100 * point['share_of_peak']:.0f} %",
        ]
        for varied in titles
        for point in results[varied]
    ]
    around = results["around"]
    head = [
        f"`{around['size']}`, {around['batch_size']} × {around['sequence_length']}, but",
        "Operations a step",
        "A step",
        "Tokens/s",
        "Share of one core's peak",
    ]
    text = table(head, rows) + "\n"
    if any(row[0].endswith("*") for row in rows):
        text += (
            "\\* Matrix products were slower then: other programs, or the processes, shared the "
            "cores. Compare the last column only.\n\n"
        )
    return text + provenance(run)


# ---------------------------------------------------------------- the calculator


def constants() -> dict[str, Any]:
    """What the calculator knows: the paper's runs and its first inputs."""
    return {
        "runs": {
            name: {"steps": run.steps, "step": flops.count_training_flops(run).step}
            for name, run in flops.PAPER_RUNS.items()
        },
        "start": START,
    }


def calculator() -> str:
    """The form, as raw HTML; its script is book/_static/calculator.js."""
    options = "".join(
        f'<option value="{name}">{name.capitalize()}</option>' for name in flops.PAPER_RUNS
    )
    first = next(iter(flops.PAPER_RUNS.values()))
    fields = [
        ("steps", "Steps", first.steps, 'min="1" step="1"'),
        ("devices", "Devices (GPUs)", START["devices"], 'min="1" step="1"'),
        ("peak", "Peak of one device, TFLOP/s", START["peak"], 'min="0.001" step="any"'),
        ("share", "Share of the peak, %", START["share"], 'min="0.01" max="100" step="any"'),
        ("price", "Price of a device-hour", START["price"], 'min="0" step="any"'),
    ]
    inputs = "".join(
        f'<label for="calculator-{name}">{label}</label>'
        f'<input id="calculator-{name}" type="number" value="{value}" {limits} required>\n'
        for name, label, value, limits in fields
    )
    return f"""```{{raw}} html
<style>{STYLE}</style>
<form id="calculator" class="calculator" aria-label="Cost of a pre-training run">
<label for="calculator-size">Size</label><select id="calculator-size">{options}</select>
{inputs}<output id="calculator-result" aria-live="polite" for="calculator-size calculator-steps
calculator-devices calculator-peak calculator-share calculator-price">Needs JavaScript; the table
below is the same without.</output>
</form>
<script type="application/json" id="calculator-constants">{json.dumps(constants())}</script>
<script src="../_static/calculator.js"></script>
```
"""


# ---------------------------------------------------------------- all of it


def roofline_figure() -> tuple[Any, str]:
    """Computing speed over operations per byte, with the limits of each machine; and alt text."""
    machines, told = {}, []
    for name, run in rooflines().items():
        r = run["results"]
        fastest = min(step["seconds"] for step in r["steps"].values())
        reached = r["flops_per_step"] / fastest
        intensity = r["flops_per_step"] / r["bytes_per_step"]
        peak, bandwidth = r["peak_flops_per_second"], r["bandwidth_bytes_per_second"]
        machines[ROOFLINES[name]] = (peak, bandwidth, intensity, reached)
        told.append(
            f"{ROOFLINES[name]}: {reached / 1e9:,.0f} of at most {peak / 1e9:,.0f} GFLOP/s, at "
            f"{intensity:.0f} operations a byte; memory would limit it below "
            f"{peak / bandwidth:.1f}."
        )
    return plotting.roofline(machines), " ".join(
        ["A training step of ELECTRA-Small under the limits of the machine, both axes logarithmic."]
        + told
    )


def grid_figure() -> tuple[Any, str]:
    """Tokens a second over length and over batch; and alt text."""
    results = recorded.load("benchmark_scaling_cpu")["results"]
    lines, told = {}, []
    for varied, title in (("sequence_length", "length"), ("batch_size", "batch size")):
        x = [point[varied] for point in results[varied]]
        y = [point["tokens_per_second"] for point in results[varied]]
        lines[title] = (x, y)
        told.append(
            f"Over {title}: " + ", ".join(f"{a}: {b:,.0f}" for a, b in zip(x, y, strict=True))
        )
    figure = plotting.curves(
        lines, xlabel="tokens in a sequence, or sequences in a batch", ylabel="tokens a second"
    )
    return figure, f"Tokens a second of mini on one core. {'. '.join(told)}."


FIGURES = {"roofline": roofline_figure, "grid": grid_figure}
PARTS = {
    "operations": operations,
    "training_step": training_step,
    "masked_batch": masked_batch,
    "roofline": roofline,
    "grid": grid,
    "calculator": calculator,
    "costs": costs,
}


def write(generated: Path) -> None:
    """Write every part of the page as `scaling_<part>.md` into `generated`."""
    for name, part in PARTS.items():
        (generated / f"scaling_{name}.md").write_text(part(), encoding="utf-8")
    for name, draw in FIGURES.items():
        figure, alt = draw()
        picture = generated / f"scaling_{name}.png"
        plotting.save(figure, picture)
        text = f"![{alt}]({generated.name}/{picture.name})\n"
        (generated / f"scaling_{name}_figure.md").write_text(text, encoding="utf-8")
