"""Documents say what packed rows say: their tables and intervals are made from these."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from scipy import stats

from rtil import report
from rtil.process.command import CONFIGS
from rtil.reporting.documents import MARKER, anchor, regenerate

ROOT = Path(__file__).parents[2]
EVIDENCE = [ROOT / "docs/evidence.md", *sorted((ROOT / "docs/evidence").glob("*.md"))]
OURS = [ROOT / "README.md", *EVIDENCE]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"```.*?```", re.DOTALL)


def test_every_document_is_what_the_rows_make_of_it():
    assert regenerate(ROOT, check=True) == []


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_an_interval_of_a_document_stands_between_markers(path):
    by_hand = MARKER.sub("", path.read_text(encoding="utf-8"))
    assert not re.findall(r".*±.*|.*[ (][+-]\d+\.\d+.*", by_hand)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(path):
    links = LINK.findall(CODE.sub("", path.read_text(encoding="utf-8")))
    near = [link for link in links if "://" not in link]
    for link in near:
        name, _, place = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if place:
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            assert place in map(anchor, headings), link


def test_a_claim_of_the_readme_is_two_links_from_its_rows():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Does RTIL help?")[1].split("\n## ")[0]
    written = re.compile(r"<!-- rtil: means [^>]*-->\n.*?<!-- end -->", re.DOTALL)
    tables = written.findall(section)  # each names its rows itself
    assert tables and all(".jsonl)" in table for table in tables)
    claims = [line for line in written.sub("", section).splitlines() if line.startswith("|")][2:]
    assert len(claims) >= 2
    for claim in claims:
        pages = [link.partition("#")[0] for link in LINK.findall(claim)]
        assert pages, claim
        for page in pages:
            rows = re.findall(r"\(([^)]*\.jsonl)\)", (ROOT / page).read_text(encoding="utf-8"))
            assert rows, page
            assert all((ROOT / page).parent.joinpath(row).is_file() for row in rows)


GAINS = "gains results=letters_mgan"


@pytest.fixture
def library(tmp_path):
    """Writes documents of letters_mgan alone; returns a function of {name: text}."""
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "results/letters_mgan.jsonl", tmp_path / "results")

    def write(text):
        (tmp_path / "README.md").write_text("# Title\n", encoding="utf-8")
        (tmp_path / "docs/page.md").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def marked(told, made=""):
    return f"# Page\n\n<!-- rtil: {told} -->{made}<!-- end -->\n"


def test_a_document_is_written_once_and_a_changed_digit_is_an_error_that_writes_nothing(library):
    folder = library(marked(GAINS))
    page = folder / "docs/page.md"
    assert regenerate(folder, check=False) == [page]
    made = page.read_text(encoding="utf-8")
    assert "+2.42 ± 0.11 (3)" in made and "(../results/letters_mgan.jsonl)" in made
    assert regenerate(folder, check=False) == regenerate(folder, check=True) == []
    wrong = made.replace("+2.42", "+2.43", 1)
    page.write_text(wrong, encoding="utf-8")
    with pytest.raises(ValueError, match=r"page\.md are not those of the rows.*docs="):
        regenerate(folder, check=True)
    assert page.read_text(encoding="utf-8") == wrong
    regenerate(folder, check=False)
    assert page.read_text(encoding="utf-8") == made


def test_the_command_writes_documents(library):
    folder = library(marked("family"))
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        report.run(compose("report", [f"docs={folder}"]))
        assert "0 comparisons over trainings" in (folder / "docs/page.md").read_text()
        report.run(compose("report", [f"docs={folder}", "check=true"]))


@pytest.mark.parametrize(
    "text, why",
    [
        (f"# Page\n\n<!-- rtil: {GAINS} -->\n", "page.md: a marker has no"),
        (f"<!-- rtil: {GAINS} -->\n<!-- rtil: {GAINS} --><!-- end -->", 'line 1, .*no "<!-- end'),
        (marked("tables results=letters_mgan"), "line 3, .*no such view; there are gains, "),
        (marked("gains"), "line 3, rtil: gains: results= names no file"),
        (marked("gains results=letters"), "names no file .*letters.jsonl"),
        (marked("gains results=letters_mgan cs"), "every option is KEY=VALUE"),
        (marked("gains results=letters_mgan at=0.3"), "no row is selected"),
        (marked("gains results=letters_mgan inverter.num_codes=7"), "no row is selected"),
        (marked("gain results=letters_mgan at=0.1"), "one comparison has to be selected"),
        (marked("overview"), "file= has to name the figure"),
        (marked("forest results=letters_mgan arms=vanilla file=x.png"), "no row is selected"),
        (marked(""), "no such view"),
    ],
)
def test_a_marker_that_cannot_be_read_is_named_with_its_document(library, text, why):
    with pytest.raises(ValueError, match=why):
        regenerate(library(text), check=False)


def test_a_key_of_the_configuration_selects_rows_that_do_not_differ_in_it(library):
    folder = library(marked(f"{GAINS} at=0.1 protocols=paper inverter.num_codes=10"))
    regenerate(folder, check=False)
    lines = (folder / "docs/page.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| cs")] == [
        next(line for line in lines if line.startswith("| cs 0.1 | `paper`"))
    ]


def test_a_mean_over_trainings_of_other_settings_has_a_column_of_its_own(library):
    """Without a name for its settings one would stand in the place of the other."""
    folder = library(marked("means results=letters_posterior tasks=cs at=0.1 protocols=paper"))
    shutil.copy(ROOT / "results/letters_posterior.jsonl", folder / "results")
    regenerate(folder, check=False)
    text = (folder / "docs/page.md").read_text(encoding="utf-8")
    heading, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    own = [cell.strip() for cell in heading.split("|") if "posterior, vanilla" in cell]
    assert own == [
        "posterior, vanilla, inverter.map_sigma=1",
        "posterior, vanilla, inverter.maps=0",
    ]
    assert len(lines) == 1 and "–" not in lines[0]
    page = folder / "docs/page.md"
    page.write_text(marked(f"means{GAINS.removeprefix('gains')} at=0.1"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"two rows are of cs 0\.1, mgan, .*: name protocols="):
        regenerate(folder, check=False)


def test_means_over_the_linear_estimate_are_paired(library):
    """Each image's PSNR less that of its own linear estimate, which has no column."""
    options = "tasks=cs at=0.1 protocols=paper over=lmmse"
    folder = library(marked(f"means results=faces32_posterior {options}"))
    file = ROOT / "results/faces32_posterior.jsonl"
    shutil.copy(file, folder / "results")
    regenerate(folder, check=False)
    text = (folder / "docs/page.md").read_text(encoding="utf-8")
    heading, _, line = [
        line.split("|")[2:-1] for line in text.splitlines() if line.startswith("|")
    ]
    assert [name.strip() for name in heading] == ["ilo, vanilla", "posterior, vanilla"]
    for inverter, cell in zip(("ilo", "posterior"), line):
        differences = defaultdict(list)
        for run in map(json.loads, file.open()):
            if f"/cs-ratio0.1-{inverter}," in run["run"]:
                columns = run["columns"]
                for image, *psnr in zip(run["ids"], columns["psnr_db"], columns["lmmse_psnr_db"]):
                    differences[image].append(psnr[0] - psnr[1])
        each = [np.mean(own) for own in differences.values()]
        half = stats.t.ppf(0.975, len(each) - 1) * stats.sem(each)
        assert cell.strip() == f"{np.mean(each):+.2f} ± {half:.2f} ({len(each)})"


@pytest.mark.parametrize("view", ["forest results=letters_mgan", "overview"])
def test_a_figure_is_drawn_where_documents_are_written_and_not_where_they_are_checked(
    library, view
):
    folder = library(marked(f"{view} file=gains.png", "\n\n![gains](gains.png)\n\n"))
    summarised = marked(f"{GAINS} summary=true")
    (folder / "README.md").write_text(summarised, encoding="utf-8")
    figure = folder / "docs/gains.png"
    with pytest.raises(ValueError, match="README"):
        regenerate(folder, check=True)
    assert not figure.exists()
    regenerate(folder, check=False)
    with Image.open(figure) as image:
        assert len(image.convert("RGB").getcolors(2**20)) > 100


def test_a_summary_counts_each_comparison_of_a_table_that_asks_for_it_once(library):
    folder = library(marked("summary"))
    tables = marked(f"{GAINS} summary=true") + marked(f"{GAINS} at=0.1")
    (folder / "README.md").write_text(tables, encoding="utf-8")
    regenerate(folder, check=False)
    lines = (folder / "docs/page.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| Page")]
    assert rows == [
        "| Page: [Page](../README.md#page) | mgan_mixture | 3 "
        "| ahead 3 (**3**); +2.42 to +6.44 | ahead 2 (**1**), not known 1; +0.33 to +0.78 |"
    ]


def test_a_row_of_sources_that_no_commit_holds_is_marked(library):
    folder = library(marked(f"{GAINS} at=0.1 protocols=paper"))
    regenerate(folder, check=False)
    page = folder / "docs/page.md"
    assert "uncommitted" not in page.read_text(encoding="utf-8")
    file = folder / "results/letters_mgan.jsonl"
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["provenance"][0]["commit"] += "-dirty"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    regenerate(folder, check=False)
    table = page.read_text(encoding="utf-8")
    assert re.search(r"verdict \| uncommitted \|", table)
    assert re.search(r"^\| cs 0\.1 .*\| inversion \|$", table, re.MULTILINE)


def test_what_an_oracle_chose_is_shown_as_no_result_and_not_counted(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "results/faces32_authors.jsonl", tmp_path / "results")
    (tmp_path / "README.md").write_text(marked("gains results=faces32_authors tasks=cs"))
    (tmp_path / "docs/page.md").write_text(marked("family"))
    regenerate(tmp_path, check=False)
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if line.startswith("| cs")]
    assert len(shown) == 4 and all("oracle" in line and "no result" in line for line in shown)
    assert "0 comparisons over trainings" in (tmp_path / "docs/page.md").read_text()


def test_the_correction_is_over_the_tables_of_all_documents(library):
    """A table more elsewhere can make a verdict no longer survive, never the other way."""
    folder = library(marked(f"{GAINS} protocols=fair at=0.5"))
    page = folder / "docs/page.md"
    regenerate(folder, check=False)
    assert "**ahead**" in page.read_text(encoding="utf-8")
    (folder / "README.md").write_text(marked(GAINS), encoding="utf-8")
    regenerate(folder, check=False)
    text = page.read_text(encoding="utf-8")
    assert "| ahead |" in text and "**ahead**" not in text


def test_means_of_another_score(library):
    options = "inverter.name=ilo at=0.25 tasks=cs arms=vanilla protocols=paper metric=st_lpips"
    folder = library(marked(f"means results=pair {options}"))
    shutil.copy(ROOT / "results/pair.jsonl", folder / "results")
    regenerate(folder, check=False)
    text = (folder / "docs/page.md").read_text(encoding="utf-8")
    (cell,) = [line.split("|")[2] for line in text.splitlines() if line.startswith("| cs")]
    (run,) = [
        run
        for run in map(json.loads, (ROOT / "results/pair.jsonl").open())
        if "-vanilla-" in run["run"] and "/cs-ratio0.25-ilo,hardware.precision=bf16-" in run["run"]
    ]
    values = run["columns"]["st_lpips"]
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert cell.strip() == f"{np.mean(values):.3f} ± {half:.3f}"


@pytest.mark.parametrize("options", [
    "metric=seconds", "over=lmmse metric=st_lpips", "metric=st_lpips,psnr_db",
])  # fmt: skip
def test_a_score_that_means_do_not_show_is_refused(library, options):
    folder = library(marked(f"means results=pair protocols=paper {options}"))
    shutil.copy(ROOT / "results/pair.jsonl", folder / "results")
    with pytest.raises(ValueError, match=r"metric=[\w,]+ must be one of psnr_db, "):
        regenerate(folder, check=False)


@pytest.mark.parametrize(
    "told", ["gains results=pair metric=st_lpips", "gain results=pair others=true"]
)
def test_an_option_of_another_view_is_refused(library, told):
    folder = library(marked(told))
    shutil.copy(ROOT / "results/pair.jsonl", folder / "results")
    with pytest.raises(ValueError, match=r"(metric|others)= is of other views"):
        regenerate(folder, check=False)
