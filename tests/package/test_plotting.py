from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from IPython.display import Image
from matplotlib.figure import Figure
from PIL import Image as Picture

from electra_tutorial import plotting
from electra_tutorial.breakdowns import Calibration

CALIBRATION = Calibration(np.array([0.4, 0.8]), np.array([0.5, 0.7]), np.array([10, 30]), 0.1)


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Image]:
    """What `show()` displayed."""
    outputs: list[Image] = []
    monkeypatch.setattr("IPython.display.display", outputs.append)
    return outputs


def figures() -> dict[str, Figure]:
    return {
        "curves": plotting.curves(
            {"three runs": ([1, 10, 100], np.arange(9).reshape(3, 3)), "one": ([1, 100], [2, 3])},
            xlabel="step",
            ylabel="loss",
            levels={"unigram entropy": 5.0, "chance": 1.0},
            log_x=True,
        ),
        "bars": plotting.bars(
            ["World", "Sports"],
            {"mini": [0.7, 0.8], "bag of words": [0.6, 0.5]},
            errors={"mini": [0.1, 0.05], "bag of words": [[0.1, 0.1], [0.2, 0.0]]},
            ylabel="F1",
        ),
        "matrix": plotting.matrix([[1, 0], [3, 4]], ["a", "b"], ["c", "d"], digits=0),
        "reliability": plotting.reliability(CALIBRATION),
        "token_heatmap": plotting.token_heatmap(
            list("thirteentoken"), np.full((2, 13), 0.5), ["before", "after"], marked=[2, 12]
        ),
        "roofline": plotting.roofline(
            {"CPU": (1e11, 2e10, 20.0, 6e10), "GPU": (9e14, 4e12, 25.0, 5e13)}
        ),
    }


@pytest.mark.parametrize(
    "name", ["curves", "bars", "matrix", "reliability", "token_heatmap", "roofline"]
)
def test_show_displays_a_white_png_with_alt_text(name: str, displayed: list[Image]) -> None:
    plotting.show(figures()[name], f"A figure\n  called {name}.")
    data, metadata = displayed[0]._repr_png_()
    assert metadata["alt"] == f"A figure called {name}."
    assert metadata["width"] == 614  # 6.4 inches at 96 pixels
    picture = Picture.open(io.BytesIO(displayed[0].data))
    assert picture.size[0] == 1024
    assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    assert set(picture.info) <= {"dpi"}  # no date, path or version


def test_the_same_figure_gives_the_same_bytes(displayed: list[Image]) -> None:
    for _ in range(2):
        plotting.show(figures()["bars"], "Two groups of bars.")
    assert displayed[0].data == displayed[1].data


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_alt_text_is_refused(alt: str) -> None:
    with pytest.raises(ValueError, match="alt text"):
        plotting.show(Figure(), alt)


def test_something_else_than_a_figure_is_refused() -> None:
    with pytest.raises(TypeError, match="not Axes"):
        plotting.show(Figure().subplots(), "axes")  # type: ignore[arg-type]


def test_curves_draw_the_mean_and_a_band_from_lowest_to_highest() -> None:
    figure = plotting.curves({"loss": ([0, 1], [[1, 3], [3, 7]])}, xlabel="x", ylabel="y")
    axes = figure.axes[0]
    assert axes.lines[0].get_ydata().tolist() == [2, 5]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} == {(0, 1), (0, 3), (1, 3), (1, 7)}
    assert axes.get_legend() is None  # one line needs none


def test_token_heatmap_continues_on_the_next_line_and_marks_tokens() -> None:
    axes = figures()["token_heatmap"].axes
    labels = [[label.get_text() for label in part.get_xticklabels()] for part in axes[:2]]
    assert "".join(labels[0]) == "thirteento"
    assert "".join(labels[1]) == "ken"
    assert axes[1].get_xticklabels()[2].get_fontweight() == "bold"
    assert axes[1].get_xticklabels()[1].get_fontweight() == "normal"


def test_cells_carry_their_values() -> None:
    texts = [text.get_text() for text in figures()["matrix"].axes[0].texts]
    assert texts == ["1", "0", "3", "4"]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 x values but 2 y values"):
        plotting.curves({"a": ([1, 2, 3], [1, 2])}, xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="each of the 2 names"):
        plotting.bars(["a", "b"], {"s": [1.0]}, ylabel="y")
    with pytest.raises(ValueError, match="row names"):
        plotting.matrix([[1.0]], ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="row names"):
        plotting.token_heatmap(["a"], [[0.1, 0.2]], ["before"])


def test_use_style_sets_a_white_background() -> None:
    with matplotlib.rc_context():
        plotting.use_style()
        assert matplotlib.rcParams["figure.facecolor"] == "white"
        assert matplotlib.rcParams["font.size"] >= 12


def test_reliability_draws_each_bin_with_its_count() -> None:
    axes = plotting.reliability(CALIBRATION).axes[0]
    points = axes.collections[0]
    assert points.get_offsets().tolist() == [[0.4, 0.5], [0.8, 0.7]]
    small, large = points.get_sizes()
    assert small < large
    assert [text.get_text() for text in axes.texts] == ["10", "30"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "bins, expected calibration error 0.100" in labels


def test_a_roofline_is_flat_where_computing_limits() -> None:
    axes = plotting.roofline({"CPU": (1e11, 2e10, 20.0, 6e10)}).axes[0]
    limit, reached = axes.lines
    x, y = limit.get_data()
    assert np.allclose(y, np.minimum(100, 20 * x))  # in GFLOP/s
    assert [float(value[0]) for value in reached.get_data()] == [20.0, 60.0]


def test_a_roofline_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="needs at least one machine"):
        plotting.roofline({})
    with pytest.raises(ValueError, match="The numbers of 'CPU' must be positive"):
        plotting.roofline({"CPU": (1e11, 0.0, 20.0, 6e10)})


def test_save_writes_what_show_displays(displayed: list[Image], tmp_path: Path) -> None:
    plotting.show(figures()["bars"], "Two groups of bars.")
    plotting.save(figures()["bars"], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes() == displayed[0].data
