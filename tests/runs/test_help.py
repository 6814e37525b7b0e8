"""Help says what there is: every choice, key and example is one that Hydra takes."""

import re
import resource
import shlex
import subprocess
import sys
from itertools import zip_longest

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs import help, keys, reference
from rtil.runs.kinds import ANYTHING
from rtil.runs.setup import check, composed

# Tables of an arm's and a task's settings, of files that another choice names, and plans.
APART = ("appendix", "search", "experiment")


def composed_keys(command, *words):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        tree = OmegaConf.to_container(compose(command, [*words]))
    names = keys.flatten(tree)
    tables = {keys.SIZE.sub("", key) for key in names}
    return {key for key in tables if not keys.is_under(key, APART)}


def test_every_command_has_a_page():
    assert help.PAGES.keys() == set(reference.commands())


@pytest.mark.parametrize(
    "command",
    # The others are composed of the same files.
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("tune", "app", "diagnose") else ())
        for name in reference.commands()
    ],
)
def test_the_reference_has_every_key_that_a_command_composes_and_no_other(command):
    listed = {one.key for one in reference.of_command(command)}
    groups = [name for name in reference.groups(command) if keys.kind(name) is not ANYTHING]
    # Each choice stands in some composition, those of several groups side by side.
    for choices in zip_longest(*map(reference.choices, groups)):
        chosen = {group: name for group, name in zip(groups, choices) if name}
        found = composed_keys(command, *(f"{group}={name}" for group, name in chosen.items()))
        assert {key for key in found if not above(key, listed)} == set(), chosen
        for group, name in chosen.items():
            said = {one.key for one in reference.of_group(group) if name in one.defaults}
            assert {key for key in said if not above(key, found)} == set(), chosen


def above(key, names):
    """Whether a key, one that it is below or one below it is among the names."""
    return keys.is_under(key, names) or any(keys.is_under(name, [key]) for name in names)


@pytest.mark.parametrize("command", reference.commands())
def test_a_default_is_what_hydra_composes(command):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        written = keys.flatten(OmegaConf.to_container(compose(command)))
    chosen = reference.groups(command)
    compared = 0
    for one in reference.of_command(command):
        group = one.source.split("/")[1]
        text = one.defaults.get("" if "" in one.defaults else chosen.get(group, ""))
        if text in (None, "...") or one.key not in written or keys.is_under(one.key, APART):
            continue
        value = written[one.key]
        assert OmegaConf.create(f"value: {text}") == {"value": value} or "${" in str(value), one
        compared += 1
    assert compared > 10 or command == "theory"


@pytest.mark.parametrize("command", reference.commands())
def test_a_screen_is_one_screen_with_choices_keys_and_examples_that_there_are(command):
    page, known = help.PAGES[command], {one.key for one in reference.of_command(command)}
    assert len(page.keys) == help.KEYS and set(page.keys) <= known
    assert set(page.groups) <= reference.offered(command).keys()
    text = help.screen(command, composed(command, ())[0])
    lines = text.splitlines()
    assert len(lines) <= help.LINES and max(map(len, lines)) <= help.WIDTH
    for group in reference.offered(command):
        assert re.search(rf"^  {group} ", text, re.MULTILINE)
    for group in page.groups[:1]:
        for choice in reference.choices(group):
            line = reference.line_of(group, choice)
            assert re.search(rf"{re.escape(choice)}\*? +{re.escape(line[:30])}", text)
    for example in page.examples:
        assert example in lines or f"  {example}" in lines
        python, flag, module, *words = shlex.split(example)
        assert (python, flag, module) == ("python", "-m", f"rtil.{command}")
        check(command, words)


@pytest.mark.parametrize("command", reference.commands())
def test_groups_that_a_command_does_not_read_or_decides_are_not_in_its_help(command):
    text = help.everything(command, {}) + help.screen(command, {})
    groups = {group for name in reference.commands() for group in reference.groups(name)}
    for group in groups - reference.offered(command).keys():
        # Keys of a group whose choice is decided can still be set.
        ends = "=" if group in reference.groups(command) else "[ =.]"
        assert not re.search(rf"^  {group}{ends}", text, re.MULTILINE), group
        assert group not in [line[2:].split(" ")[0] for line in text.splitlines()]


def test_a_note_is_of_the_choices_that_say_it():
    """What a key means in one choice is not said of another that has the same key."""
    notes = {one.key: one.notes for one in reference.of_group("inverter")}
    assert "of Adam" in notes["inverter.steps"]["dip"]
    for inverter in ("dip", "ilo"):
        settings = composed("invert", (f"inverter={inverter}",))[0]
        said = re.search(r"inverter.steps.*", help.screen("invert", settings))[0]
        assert ("of Adam" in said) == (inverter == "dip")
    (steps,) = (one for one in reference.of_group("inverter") if one.key == "inverter.steps")
    assert "dip: of Adam" in steps.note and "of each stage" in steps.note


def test_every_choice_of_every_group_has_a_line():
    for command in reference.commands():
        for group in reference.groups(command):
            for choice in reference.choices(group):
                assert len(reference.line_of(group, choice)) > 5, f"configs/{group}/{choice}.yaml"


def test_all_keys_are_listed_with_what_they_take_and_their_file():
    text = help.text("invert", ["--help", "all"], {"ratio": 0.25})
    assert "  ratio=0.25\n      takes a number from 0 to 10^9; configs/task/*.yaml" in text
    assert all(f"  {one.key}=" in text for one in reference.of_command("invert"))


def test_help_shows_the_defaults_of_what_is_typed():
    text = help.text("invert", ["--help"], composed("invert", ("inverter=mgan",))[0])
    assert re.search(r"mgan\* +mGANprior", text) and re.search(r"inverter\.steps +300 ", text)


def test_help_of_every_command_needs_no_torch():
    code = (
        "import importlib, sys\n"
        "for name in sys.argv.pop(1).split(','):\n"
        "    importlib.import_module(f'rtil.{name}').main()\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    arguments = [sys.executable, "-c", code, ",".join(reference.commands()), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("Examples:") == len(reference.commands())


def test_help_takes_less_than_a_second_of_a_processor():
    """The least of a few calls: what else a machine does only adds to one."""
    seconds = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "rtil.invert", "--help"], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0


def test_help_whose_end_nobody_reads_ends_without_a_traceback():
    arguments = [sys.executable, "-m", "rtil.invert", "--help", "all"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0
