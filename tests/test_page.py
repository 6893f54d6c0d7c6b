"""The page of a run: what is on it, and what it does in a browser."""

import dataclasses
import html
import json
import re
import shlex

import numpy as np
import pytest
from browser import found_in, needs_chromium
from results import made_result
from tasks import TINY
from written_run import drawn_results, written_run, written_summary

from arch.baselines import BASELINES
from arch.cost import size_bytes, stored_parameters
from arch.families import FAMILIES
from jaxnas.commands import report
from jaxnas.errors import UsageError
from jaxnas.export.choice import class_for
from jaxnas.export.llama_cpp.architectures import architecture_for
from jaxnas.report.drawing import drawing_file, drawing_text, stages_of
from jaxnas.report.page.genes import AXES
from jaxnas.report.page.overview import completions
from jaxnas.report.page.scales import Scale, scale_over
from jaxnas.report.page.tags import tag
from jaxnas.report.page.view import MOST, PageView
from jaxnas.report.page.write import SECTIONS, page_of
from jaxnas.results.effects import choice_of, effects
from jaxnas.results.growth import growth, growths
from jaxnas.results.record import read_record
from jaxnas.storage.jsonl import to_line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    results = [
        *drawn_results(),
        made_result(24, status="failed", generation=1),
        made_result(25, status="skipped", generation=1),
    ]
    path = tmp_path_factory.mktemp("page") / "<b>a run"
    return written_run(path, results, failures="Traceback: <script>\n")


@pytest.fixture(scope="module")
def page(folder):
    return page_of(read_record(folder.path))


def data_in(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_a_page_holds_every_section_and_every_candidate(page):
    for name in SECTIONS:
        assert page.count(f'id="{name}"') == 1
    assert list(data_in(page)["candidates"]) == [str(n) for n in range(24)]
    table = page[page.index('id="all"') :]
    assert len(set(re.findall(r'data-open="(\d+)"', table))) == 24


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_candidates_draw_no_empty_charts(number, tmp_path):
    run = written_run(tmp_path / "run", drawn_results(number))
    page = page_of(read_record(run.path))
    assert ("One candidate: there is none" in page) == (number == 1)
    assert ("accuracy on validation against size" in page) == (number > 1)
    assert ("hypervolume of the front" in page) == (number > 2)
    assert "first generation alone" not in page  # there is no other
    assert f"{number} candidate{'s' if number > 1 else ''} of nano" in page


def test_a_page_asks_for_nothing_from_elsewhere(page):
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("#", "data:,")) for link in links)
    assert "http" not in page
    assert "@import" not in page
    assert len(page) < 300_000


def test_what_a_run_holds_is_text_and_no_markup(page):
    assert "<b>a run" not in page
    assert "&lt;b&gt;a run" in page
    assert page.count("<script") == 2
    assert "TrainingFailed: nan" in page


def test_a_config_can_be_put_together_from_the_page(folder, page):
    data = data_in(page)
    for one in read_record(folder.path).results[:24]:
        own = data["candidates"][str(one.id)]
        assert data["shared"] | own["config"] == one.config.to_dict()


def test_the_page_knows_the_choices_that_a_family_reads(folder, page):
    data = data_in(page)
    assert "activation" in data["genes"]
    for one in read_record(folder.path).results[:24]:
        own = data["candidates"][str(one.id)]["choices"]
        assert own == [choice_of(one.config, gene) for gene in data["genes"]]
        if one.config.arch_type == "rwkv":
            assert own[data["genes"].index("activation")] is None


def commands_of(page):
    """The words of each command under "From here", and of the one to run it again."""
    shown = page[: page.index("<script")]
    found = re.findall(r"python -m jaxnas\.run ([^<]*)<", shown)
    return [shlex.split(html.unescape(words)) for words in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_an_export_that_there_is_is_suggested(tmp_path, family):
    [best, *others] = drawn_results(4)
    llama = BASELINES["llama-like"]
    config = dataclasses.replace(llama, arch_type=family).canonical()
    best = dataclasses.replace(best, config=config, fitness=9.0)
    run = written_run(tmp_path / "a run", [best, *others], written_summary(1.5))
    exports = [words for words in commands_of(page_of(read_record(run.path)))
               if words[0] == "export"]  # fmt: skip
    assert bool(exports) == (family != "linear_transformer")
    for _, model, *flags in exports:
        assert model == str(run.model)
        checks = {"gguf": architecture_for, "hf": class_for}
        checks[flags[1]](config)
    assert [words for words in exports if "gguf" in words] or family in (
        "rwkv",
        "linear_transformer",
    )


def test_commands_can_be_copied(tmp_path):
    """Whatever the folder is called; the space is the one that the run kept."""
    run = written_run(tmp_path / "it's a run; <b>", summary=written_summary(1.5))
    run.space.write_text("")
    found = commands_of(page_of(read_record(run.path)))
    assert ["show", str(run.path)] in found
    assert ["serve", str(run.path)] in found
    again = ["--config", str(run.config), "--space", str(run.space), "--out", "NEW"]
    assert again in found
    data = data_in(page_of(read_record(run.path)))
    assert shlex.split(data["show"])[3:] == ["show", str(run.path), "--id"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_run_that_has_just_begun_has_a_page(tmp_path, number):
    run = written_run(tmp_path / "new", drawn_results()[:number])
    run.timings.unlink()
    page = page_of(read_record(run.path))
    assert len(data_in(page)["candidates"]) == number


def test_the_users_objectives_are_on_the_page(tmp_path):
    results = [
        dataclasses.replace(one, objectives=[*one.objectives, 7.25 + one.id])
        for one in drawn_results(6)
    ]
    run = written_run(tmp_path / "own", results)
    run.config.write_text('space = "nano"\nobjectives = "mine:depth"\n')
    page = page_of(read_record(run.path))
    [name] = read_record(run.path).objectives
    assert f">{name}</th>" in page
    assert data_in(page)["candidates"]["3"]["own"] == {name: 10.25}
    assert ">10.25<" in page


def test_the_front_and_the_best_are_always_drawn(tmp_path):
    results = drawn_results(50)
    many = [
        dataclasses.replace(results[n % 50], id=n, objectives=[0.9, 2.0, 9.0 + n])
        for n in range(50, 3 * MOST)
    ]
    view = PageView(read_record(written_run(tmp_path / "many", [*results, *many]).path))
    assert len(view.drawn) <= MOST + 1
    assert view.front <= {one.id for one in view.drawn}
    assert view.best.id in {one.id for one in view.drawn}


def test_the_winner_of_a_later_phase_is_always_drawn(tmp_path):
    """After the first phase it may be anywhere among thousands."""
    results = drawn_results(50)
    many = [
        dataclasses.replace(results[n % 50], id=n, objectives=[0.9, 2.0, 9.0 + n])
        for n in range(50, 3 * MOST)
    ]
    plain = many[1001]
    run = written_run(tmp_path / "many", [*results, *many])
    assert plain.id not in {one.id for one in PageView(read_record(run.path)).drawn}
    later = dataclasses.replace(plain, phase="1600", fitness=9.0)
    run.rungs.write_bytes(to_line(later.to_row()))
    view = PageView(read_record(run.path))
    assert view.best.id == plain.id in {one.id for one in view.drawn}
    assert len(view.drawn) <= MOST + 1


def test_a_run_stands_beside_another(folder, tmp_path, capsys):
    """On one scale: from the worst candidate of both to the best."""
    other = written_run(tmp_path / "random one", drawn_results(18, seed=5))
    out = tmp_path / "page.html"
    report.main([str(folder.path), "--beside", str(other.path), "--out", str(out)])
    page = out.read_text()
    assert page.count('class="line other"') == 1
    assert ">random one</text>" in page
    assert ">this run</text>" in page
    records = [read_record(one.path) for one in (folder, other)]
    both = growths([one.results for one in records])
    assert [len(one) for one in both] == [24, 18]
    assert [len(one) for one in growths([[], records[0].results])] == [0, 24]
    assert [len(one) for one in growths([[], []])] == [0, 0]
    alone = growth(records[0].results)
    assert both[0][-1] != alone[-1]  # the other has a candidate outside its range
    other.config.write_text(other.config.read_text() + 'latency = "decode"\n')
    with pytest.raises(UsageError, match=r"cannot stand beside .* latency is another"):
        report.main([str(folder.path), "--beside", str(other.path)])


def test_growth_never_falls_and_ends_with_the_front_alone():
    results = drawn_results()
    volumes = growth(results)
    assert len(volumes) == len(results)
    assert (np.diff(volumes) >= -1e-6).all()
    assert 0 < volumes[-1] <= 1
    backwards = growth(results[::-1])
    np.testing.assert_allclose(backwards[-1], volumes[-1], rtol=1e-5)


def test_growth_is_the_volume_of_a_box_for_two_candidates():
    first = made_result(0, objectives=[0.5, 2.0, 4.0])
    second = made_result(1, objectives=[1.0, 1.0, 2.0])
    # Each is best where the other is worst: a sliver of 1 % remains there.
    edge = 0.01 / 1.01
    both = edge * edge + edge - edge**3
    np.testing.assert_allclose(growth([first, second]), [edge**2, both], rtol=1e-4)


def test_effects_find_what_matters_and_doubt_the_rest():
    doubted = []
    for seed in range(4):
        found = {gene.name: gene for gene in effects(drawn_results(60, seed))}
        assert next(iter(found)) == "hidden_dim"
        least, *_, greatest = found["hidden_dim"].choices
        assert least.high < 0 < greatest.low
        assert int(least.value) < int(greatest.value)
        for name in ("quantization", "normalization", "activation"):
            choices = found[name].choices
            doubted += [choice.low <= 0 <= choice.high for choice in choices]
    assert np.mean(doubted) > 0.85  # 0.95 is what the intervals promise


def test_effects_count_a_gene_only_where_its_family_reads_it():
    results = drawn_results(40)
    [heads] = [gene for gene in effects(results) if gene.name == "num_heads"]
    readers = [one for one in results if one.config.arch_type not in ("mamba", "rwkv")]
    assert sum(choice.number for choice in heads.choices) == len(readers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_stages_add_up_to_the_model(family, tied):
    changes = {"arch_type": family, "tie_embeddings": tied, "pruning_ratio": 0.25}
    config = dataclasses.replace(BASELINES["llama-like"], **changes).canonical()
    stages = stages_of(config)
    assert sum(stage.parameters for stage in stages) == stored_parameters(config)
    assert sum(stage.bytes for stage in stages) == size_bytes(config)
    text = drawing_text(config, plain=True)
    assert text.isascii()
    for columns in (60, 80, 85):
        text = drawing_text(config, columns=columns)
        assert max(map(len, text.splitlines())) <= columns
    squeezed = " ".join(drawing_text(config, columns=60).split())
    assert all(stage.name.split()[0] in squeezed for stage in stages_of(config))
    assert drawing_file(config).startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_ticks_lie_inside_and_are_few():
    for low, high, log in (
        (0.0, 1.0, False),
        (0.03, 700.0, True),
        (-2e-3, 1e-3, False),
    ):
        ticks = Scale(low, high, 0, 100, log).ticks()
        assert 2 <= len(ticks) <= 7
        assert all(low <= tick <= high for tick in ticks)
    assert scale_over([3.0], 0, 10).at(3.0) == pytest.approx(5)


def test_attributes_are_escaped():
    assert tag("a", "x", title='"<', hidden=None, class_="c") == (
        '<a title="&quot;&lt;" class="c">x</a>'
    )


# What the page does.
SCRIPT = """
const said = [];
const press = (element, key, more) =>
  element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ...more }));
const chart = document.querySelector(".points");
press(chart, "ArrowRight");
said.push(!document.getElementById("tip").hidden);
said.push(document.querySelectorAll(".p.at").length > 3);
press(chart, "Enter");
said.push(document.getElementById("card").textContent.includes('"arch_type"'));
press(document, "Escape");
said.push(document.getElementById("card").hidden);
const cube = document.querySelector(".cube");
const before = cube.innerHTML;
press(cube, "ArrowRight", { shiftKey: true });
said.push(cube.innerHTML !== before);
const rowsLeft = () => document.querySelectorAll("#all tbody tr:not(.off)").length;
const choice = document.querySelector(".choice");
press(choice, "Enter");
said.push(rowsLeft() > 0 && rowsLeft() < 24);
said.push(choice.getAttribute("aria-pressed") === "true");
press(choice, "Enter");
const left = {};
for (const one of document.querySelectorAll(".choice")) {
  one.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  left[`${one.dataset.gene} ${one.dataset.value}`] = rowsLeft();
  one.dispatchEvent(new MouseEvent("click", { bubbles: true }));
}
press(choice, "Enter");
document.getElementById("clear").click();
said.push(document.querySelectorAll("#all tbody tr:not(.off)").length === 24);
const head = document.querySelectorAll("#all th button")[4];
head.click();
const rows = [...document.querySelectorAll("#all tbody tr")];
const sizes = rows.map((row) => +row.cells[4].textContent);
said.push(sizes.every((size, n) => !n || sizes[n - 1] <= size));
const root = document.documentElement;
said.push(root.scrollWidth <= root.clientWidth);
done({ said, left });
"""


@needs_chromium
@pytest.mark.parametrize("width", [800, 1600])
def test_a_browser_runs_the_page_without_a_complaint(folder, page, tmp_path, width):
    found = found_in(page, SCRIPT, tmp_path, width)
    assert found["said"] == [True] * 10
    genes = effects(read_record(folder.path).results)[:AXES]
    # A model that does not read a gene has no value of it, whatever its config says.
    assert found["left"] == {
        f"{gene.name} {choice.value}": choice.number
        for gene in genes
        for choice in gene.choices
    }


def test_tiny_configs_are_drawn():
    assert "transformer" in drawing_text(TINY)


@pytest.mark.parametrize(
    ("drawn", "space", "marked"),
    [
        ({"text": "\n\n    x = 1", "written": "x = 1"}, "\n\n    ", "x = 1"),
        ({"text": "ing the", "written": "ing the"}, "", "ing the"),
        ({"text": "", "written": ""}, "\n", "(nothing)"),
        ({"written": "a < b"}, "\n", "a &lt; b"),  # as earlier versions kept it
    ],
)
def test_what_was_written_stands_where_it_was_drawn(drawn, space, marked):
    text = completions([{"before": "if y:", "line": "x = 1", **drawn}])
    assert f"<pre>if y:{space}<mark>{marked}</mark></pre>" in text
