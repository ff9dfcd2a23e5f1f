from pathlib import Path

from bench.report import plots
from tests.bench.measured import MET, result


def test_comparisons_and_growth_have_a_plot_each(tmp_path: Path) -> None:
    plots.write(result(MET), tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(plots.names(result(MET)))
    rounds = (tmp_path / "beats.svg").read_text()
    assert "the API" in rounds
    assert "a constant" in rounds
    assert "1,000" in (tmp_path / "beats-growth.svg").read_text()


def test_the_same_results_make_the_same_files(tmp_path: Path) -> None:
    for name in ("once", "twice"):
        plots.write(result(MET), tmp_path / name)
    for name in plots.names(result(MET)):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_a_result_of_figures_only_has_no_plot(tmp_path: Path) -> None:
    bare = result(MET).model_copy(update={"comparisons": (), "lines": ()})
    plots.write(bare, tmp_path / "none")
    assert plots.names(bare) == []
