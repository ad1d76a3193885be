"""The page of several runs that are compared."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...diagnostics.ablation import AblationDirectory
from ...diagnostics.errors import InputError
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.run import RunDirectory, flatten
from ...diagnostics.stats.lives import life_order
from ..codebook import heatmaps
from ..codebook.lives import heat, usage_in_time
from ..codebook.overview import overview, uses
from ..codebook.run_page import verdict
from ..page import logged
from ..page.facts import SEVERITIES, RunFacts, number
from ..page.heat import Heat
from ..page.run_sections import not_measured
from ..page.sections import Panel, Section, hang, lay, write_page
from ..page.tables import METRICS
from ..page.words import counted
from . import curves
from .mechanisms import mechanisms
from .quantizers_table import comparison, group_by_quantizer
from .reconstructions import reconstructions
from .survival import add_survival

Groups = dict[str, list[RunFacts]]
#: The settings that an ablation varies; any other difference is told on the page.
VARIED = ("quantizer.spec", "train.seed")


@dataclass(frozen=True)
class Reduced:
    """What an ablation keeps of a trace: a few numbers per record and a small grid, never the trace."""

    usage: pd.DataFrame
    heat: Heat


def write_ablation_page(runs: list[RunDirectory], folder: Path, progress: Callable[[str], None]) -> Path:
    """Write the comparison of ``runs`` into ``folder`` and return the page."""
    sections = ablation_sections(runs, folder, progress)
    groups = group_by_quantizer(runs)
    subtitle = f"{counted(len(runs), 'run')} of {counted(len(groups), _kind(groups))}"
    return write_page(folder, f"Comparison {folder.resolve().parent.name}", subtitle, sections)


def ablation_sections(runs: list[RunDirectory], folder: Path, progress: Callable[[str], None]) -> list[Section]:
    """The comparison of ``runs`` of the first stage; figures and tables go to ``folder``.

    They stand in the order of the ablation's plan, without one in that of the names of the quantizers and of the seeds.

    Raises:
        InputError: The plan cannot be read.
    """
    runs = AblationDirectory(folder.resolve().parent).in_order(sorted(runs, key=_quantizer_and_seed))
    groups = group_by_quantizer(runs)
    facts = [fact for group in groups.values() for fact in group]
    seeds = ", ".join(f"{name}: n = {len(group)}" for name, group in groups.items())
    both = f"{counted(len(runs), 'run')}, {counted(len(groups), _kind(groups))}"
    short = Section("In short", text=[f"{both} ({seeds})."])
    own = {name: group for name, group in groups.items() if group[0].run.has_config}
    if len(own) < len(groups):
        _add_strangers(short, groups, folder)
    sections = [short]
    if own:
        _add_comparison(short, own, folder)
        sections += [_training_section(own, folder), reconstructions(own, folder)]
    most = max((len(_traces(fact)) for fact in facts), default=0)
    sections += [_codebook(number, groups, folder, progress) for number in range(most)]
    if not any(fact.run.codebook_names() for fact in facts):
        sections.append(Section("Codebooks", missing=["No codebook trace yet in any run."]))
    return sections + [_run(fact, folder) for fact in facts]


def _add_strangers(short: Section, groups: Groups, folder: Path) -> None:
    """What models that vqtool did not train have in common with all others: their records."""
    strangers = [name for name, group in groups.items() if not group[0].run.has_config]
    short.text.append(
        f"vqtool did not train {', '.join(strangers)}: there are no losses, samples and evaluations of them here."
    )
    named = [*_named(groups)]
    short.tables.append(overview([(name, one) for name, fact in named for one in uses(fact.run)], folder))
    if recorded := [(name, fact) for name, fact in named if fact.last_record]:
        short.tables.append(mechanisms(recorded, folder))


def _add_comparison(short: Section, own: Groups, folder: Path) -> None:
    """The table of evaluations; what it misses stands beneath it."""
    facts = [fact for group in own.values() for fact in group]
    short.missing += differences(facts) + not_measured(facts, told={("test", metric.key) for metric in METRICS})
    short.tables.append(lay(comparison([fact.run for fact in facts]), "Comparison", "comparison", folder))


def _kind(groups: Groups) -> str:
    """What is compared: quantizers of vqtool, or models of which some were trained elsewhere."""
    return "quantizer" if all(fact.run.has_config for group in groups.values() for fact in group) else "model"


def _traces(fact: RunFacts) -> list[Path]:
    """The traces of a run, unless it is a single pass of a trained model, which has no course over time."""
    return fact.run.codebooks() if fact.run.has_config or fact.last_record else []


def _named(groups: Groups) -> Iterator[tuple[str, RunFacts]]:
    """Every run with what it is called: by its group, and by its own name where that has several."""
    for name, group in groups.items():
        for fact in group:
            yield name if len(group) == 1 else f"{name}, {fact.name}", fact


def _training_section(groups: Groups, folder: Path) -> Section:
    training = Section("Training", pictures=hang(_training(groups), folder))
    if not training.pictures:
        training.missing.append("No loss/l1 yet: no run has logged one.")
    return training


def _quantizer_and_seed(run: RunDirectory) -> tuple[str, float]:
    fact = RunFacts(run)
    return fact.quantizer, number(fact.setting("train.seed"))


def differences(facts: list[RunFacts]) -> list[str]:
    """One line where the runs differ in more than quantizer and seed, and so for another possible reason."""
    trees = [flatten(fact.config) for fact in facts]
    names = dict.fromkeys(name for tree in trees for name in tree if name not in VARIED)
    differ = [name for name in names if len({str(tree.get(name)) for tree in trees}) > 1]
    return [f"Besides quantizer and seed the configs of these runs differ in: {', '.join(differ)}."] if differ else []


def _training(groups: Groups) -> Iterator[Panel]:
    losses = {name: [logged.series(fact.metrics, "loss/l1") for fact in group] for name, group in groups.items()}
    smooth = {name: [logged.smooth(one) for one in some if len(one)] for name, some in losses.items()}
    if drawn := {name: some for name, some in smooth.items() if some}:
        caption = f"Training loss/l1, each seed smoothed over a fiftieth of its points. {curves.seeds_caption(drawn)}"
        yield Panel("ablation-l1", "loss/l1", caption, curves.loss_by_name(drawn, "loss/l1 (one batch)"), wide=True)


def _codebook(number: int, groups: Groups, folder: Path, progress: Callable[[str], None]) -> Section:
    """The first codebook of every run, or the second and so on: models of others have other names for them."""
    traces = {
        fact: found[number] for group in groups.values() for fact in group if number < len(found := _traces(fact))
    }
    names = dict.fromkeys(trace.name for trace in traces.values())
    section = Section(f"Codebook {', '.join(names)}")
    reduced: dict[str, list[Reduced]] = {}
    read: dict[str, list[tuple[str, Path]]] = {}
    for name, group in groups.items():
        for fact in group:
            if fact not in traces:
                continue
            progress(f"{fact.name}: codebook {traces[fact].name}")
            try:
                one = _reduce(traces[fact])
            except InputError as error:
                section.missing.append(f"{fact.name} is left out: {error}.")
            else:
                reduced.setdefault(name, []).append(one)
                run = f"seed {fact.setting('train.seed', '?')}" if fact.run.has_config else fact.name
                read.setdefault(name, []).append((run, traces[fact]))
    stem = next(iter(names)) if len(names) == 1 else f"codebook-{number + 1}"
    section.pictures = hang(_codebook_panels(stem, reduced), folder)
    add_survival(section, stem, read, folder)
    return section


def _reduce(folder: Path) -> Reduced:
    trace = CodebookTrace.load(folder, columns=())
    return Reduced(usage_in_time(trace), heat(trace, trace.hits, life_order(trace.hits), rows=128, columns=160))


def _codebook_panels(codebook: str, reduced: Mapping[str, list[Reduced]]) -> Iterator[Panel]:
    if not reduced:
        return
    frames = pd.concat([one.usage for some in reduced.values() for one in some])
    label = logged.window_label(frames["window"].to_numpy())
    over = f"{label}, {frames['tokens'].median():,.0f} tokens"
    even = f"Even use would show {frames['ceiling_window'].median():,.0f} codes in a window on average. "
    for column, title in (("codes_used_window", "Codes used"), ("perplexity_window", "Perplexity")):
        drawn = {name: [one.usage.set_index("step")[column] for one in some] for name, some in reduced.items()}
        axis = f"{title.lower()} ({label})" + (", in codes" if title == "Perplexity" else "")
        told = even if title == "Codes used" else ""
        caption = f"{title} per window ({over}), not over a whole split. {told}{curves.seeds_caption(drawn)}"
        figure = curves.usage_by_name(drawn, axis)
        yield Panel(f"{codebook}-{column.replace('_', '-')}", f"{title} ({label})", caption, figure, wide=True)
    heats = {name: some[0].heat for name, some in reduced.items()}
    cells = next(iter(heats.values())).cell
    yield Panel(
        f"{codebook}-collapse-side-by-side",
        "Collapse side by side",
        f"The first run under each name on one colour scale and one axis of steps: hits of every code per"
        f" window ({over}); codes ordered by their last hit, survivors on top; grey: no hit.{cells}",
        heatmaps.side_by_side(heats),
        wide=True,
    )


def _run(fact: RunFacts, folder: Path) -> Section:
    section = verdict(fact)
    section.title = f"Run {fact.name}"
    if fact.run.has_config:
        size = fact.setting("quantizer.codebook_size", "?")
        section.text.insert(0, f"Quantizer {fact.quantizer}, {size} codes, seed {fact.setting('train.seed', '?')}.")
    found = fact.findings()
    section.findings = [finding for finding in found if finding.get("severity") == SEVERITIES[0]]
    if found:
        section.text.append(f"Findings: {len(found)}; problems among them: {len(section.findings)}.")
    page = fact.run.report / "index.html"
    if page.exists():
        section.links["The report of this run"] = Path(os.path.relpath(page, folder)).as_posix()
    else:
        section.text.append("It has no report of its own yet.")
    return section
