"""The page of one run of the second stage."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...diagnostics import stats
from ...diagnostics.errors import InputError
from ...diagnostics.recording.code_use import CodeUse, PositionUse
from ..page import images, logged
from ..page.facts import RunFacts, number
from ..page.run_sections import (
    circumstances,
    findings,
    looked_at,
    newest_picture,
    not_measured,
    numbers,
    single_look,
    single_points,
)
from ..page.sections import Card, Panel, Section, Table, hang, lay_cells, write_page
from ..page.style import short
from ..page.tables import plus_minus
from ..page.words import counted
from . import token_figures
from .code_panels import code_panels, position_panels
from .code_tables import NOTE, codes_for_people, largest_gaps, worst_learned
from .token_panels import token_panels

PICTURES = {
    "samples": ("Samples", "Samples of the transformer at step {step:,}, decoded by the first stage."),
    "completions": (
        "Completions",
        "Images of the validation split at step {step:,}: what the first stage makes of them, and what the transformer"
        " makes of a half of their codes and of none.",
    ),
}


def write_transformer_page(fact: RunFacts, folder: Path, progress: Callable[[str], None]) -> Path:
    """Write the report of one run of a transformer into ``folder`` and return the page."""
    progress(f"{fact.name}: losses and samples")
    uses, broken = codes_of_splits(fact)
    short = in_short(fact, uses)
    short.missing += not_measured([fact]) + broken
    sections = [short, *findings(fact), _training(fact, uses, folder), _samples(fact, folder)]
    if not uses:
        sections.append(Section("Codes", missing=["No codes yet: no split was evaluated, no codes-test.parquet."]))
    for split, use in uses.items():
        progress(f"{fact.name}: codes of the {split} split")
        sections.append(_codes(fact, split, use, folder))
    progress(f"{fact.name}: trace of the tokens")
    sections.append(_trace(fact, uses, folder))
    sections += [numbers(fact, folder), *circumstances(fact)]
    progress(f"{fact.name}: page")
    return write_page(folder, f"Run {fact.name}", _subtitle(fact), sections)


def _subtitle(fact: RunFacts) -> str:
    first = Path(str(fact.setting("first_stage", "unknown"))).name
    return (
        f"transformer {fact.setting('transformer.size', 'of unknown size')} over the"
        f" {fact.setting('codebook_size', '?')} codes of {first}, condition"
        f" {fact.setting('condition.kind', 'unknown')}, data {fact.setting('data.spec', 'unknown')}, {fact.status}"
    )


def codes_of_splits(fact: RunFacts) -> tuple[dict[str, CodeUse], list[str]]:
    """The codes of every evaluated split, ``test`` first, and what is wrong with those that cannot be read."""
    uses, broken = {}, []
    for split in fact.splits():
        path = fact.run.codes(split)
        if not path.exists():
            continue
        try:
            uses[split] = CodeUse.load(path)
        except InputError as error:
            broken.append(f"The codes of the {split} split are not shown: {error}.")
    return uses, broken


def in_short(fact: RunFacts, uses: dict[str, CodeUse]) -> Section:
    """The numbers of the evaluation first: of the test split, or of whichever was evaluated."""
    section = Section("In short", text=[f"The run is {fact.status}."])
    splits = fact.splits()
    if "test" not in splits:
        section.missing.append("The test split was not evaluated: no evaluation-test.json.")
    for split in splits[:1]:
        section.cards = _cards(split, fact.evaluation(split))
        if split in uses:
            section.cards.insert(-1, _learned(split, uses[split]))
            section.missing += _disagreement(split, fact.evaluation(split), uses[split])
            section.findings = _dead_sampled(split, uses[split])
    return section


def _cards(split: str, evaluation: dict[str, Any]) -> list[Card]:
    def value(key: str, decimals: int | None = None) -> str:
        return plus_minus(number(evaluation.get(key)), decimals=decimals)

    step, tokens, images = (value(key, 0) for key in ("step", "tokens", "images"))
    over = f"whole {split} split, {tokens} tokens, step {step}"
    top1, top5, top10 = (_share(number(evaluation.get(key))) for key in ("top1", "top5", "top10"))
    size = f"{value('codes_in_train', 0)} in train and of K = {value('codebook_size', 0)}"
    drawn = f"{value('samples', 0)} samples against {images} images"
    return [
        Card(value("nll", 3), "NLL, nats per token", over),
        Card(value("bits_per_dim", 4), "bits per dimension", f"codes alone, {over}"),
        Card(top1, "top-1 accuracy", f"top-5 {top5}, top-10 {top10}; {over}"),
        Card(
            value("total_variation", 3),
            "total variation, data against samples",
            f"of the distributions, 95 %: {value('total_variation_low', 3)} to {value('total_variation_high', 3)};"
            f" equal ones would show {value('total_variation_floor', 3)}; {drawn}",
        ),
        Card(value("codes_sampled", 0), f"codes sampled, of {size}", f"{value('samples', 0)} sampled images"),
        Card(
            _small(number(evaluation.get("dead_mass"))),
            "dead mass",
            f"probability given to codes that are not in train; {over}",
        ),
        Card(value("fid", 2), "FID ↓", "not measured" if math.isnan(number(evaluation.get("fid"))) else drawn),
    ]


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _small(value: float) -> str:
    return "–" if math.isnan(value) else short(value)


def _learned(split: str, use: CodeUse) -> Card:
    never, judged = use.never_learned.sum(), use.judged.sum()
    return Card(f"{never:,} of {judged:,}", "codes never learned", f"NLL ≥ −ln p; codes of the {split} split")


def _disagreement(split: str, evaluation: dict[str, Any], use: CodeUse) -> list[str]:
    """Where the evaluation and the codes that it left tell different numbers."""
    told = {
        "unlearned_codes": use.never_learned.sum(),
        "codes_in_train": stats.codes_used(use.train),
        "codes_in_split": stats.codes_used(use.data),
        "codes_sampled": stats.codes_used(use.sampled),
        "tokens": use.tokens,
    }
    said = {key: (number(evaluation.get(key)), float(value)) for key, value in told.items()}
    return [
        f"{key}: evaluation-{split}.json says {json:,.0f}, codes-{split}.parquet gives {parquet:,.0f}."
        for key, (json, parquet) in said.items()
        if not math.isnan(json) and json != parquet
    ]


def _training(fact: RunFacts, uses: dict[str, CodeUse], folder: Path) -> Section:
    section, rows = Section("Training"), fact.metrics
    points, looks = len(logged.series(rows, "loss/nll")), len(logged.series(rows, "validation/nll"))
    if not points:
        section.missing.append("No loss yet: metrics.jsonl holds no loss/nll.")
    if not looks:
        section.missing.append("No validation figures yet: metrics.jsonl holds none.")
    if not points and not looks:
        return section
    if looks == 1:
        section.tables.append(_only_look(rows, folder))
    if points == 1:
        names = {"loss/nll": ("NLL", token_figures.NATS), "optimizer/lr": ("learning rate", "no unit")}
        section.tables.append(single_points(rows, names, "Training over one batch", "training", folder))
    if max(points, looks) == 1:
        return section
    known = next((float(stats.entropy(use.train)) for use in uses.values()), None)
    over = looked_at(rows)
    caption = (
        f"NLL in nats per token, logged at {counted(points, 'step')} up to step {fact.last_step:,}: faint, one batch"
        " each; strong, a centred running mean over a fiftieth of them; dashed, "
        + f"{counted(looks, 'look')} at the validation split"
        + (f" ({counted(over, 'image')} each)" if over else "")
        + ". A validation NLL that rises while the training NLL falls is learning by heart."
        + (" Horizontal: what a model that knows only how frequent each code is would reach." if known else "")
    )
    section.pictures = hang([Panel("learning", "NLL", caption, token_figures.learning(rows, known), wide=True)], folder)
    return section


def _only_look(rows: token_figures.Rows, folder: Path) -> Table:
    units = {"nll": token_figures.NATS, "top1": "share of the tokens"}
    names = [key.removeprefix("validation/") for key in logged.keys(rows, "validation/")]
    names = {f"validation/{name}": (name, units.get(name, "no unit")) for name in names if name != "images"}
    return single_look(rows, names, folder)


def _samples(fact: RunFacts, folder: Path) -> Section:
    section = Section("Samples")
    found = {name: newest_picture(fact.run.samples, name) for name in PICTURES}
    section.missing = [f"No {name} yet: samples/ holds none." for name, one in found.items() if one is None]

    def panels() -> Iterator[Panel]:
        for name, one in found.items():
            if one is not None:
                (step, image), (title, caption) = one, PICTURES[name]
                yield Panel(name, title, caption.format(step=step), images.magnified(image), wide=True, photos=True)

    section.pictures = hang(panels(), folder)
    return section


def _codes(fact: RunFacts, split: str, use: CodeUse, folder: Path) -> Section:
    section = Section(f"Codes ({split} split)", findings=_dead_sampled(split, use))
    section.pictures = hang(code_panels(split, use), folder)
    if not use.sampled_tokens:
        section.missing.append("Nothing was sampled: there is no comparison of data and samples.")
    path = fact.run.positions(split)
    if path.exists():
        try:
            section.pictures += hang(position_panels(split, use, PositionUse.load(path)), folder)
        except InputError as error:
            section.missing.append(f"The maps over the grid are not shown: {error}.")
    else:
        section.missing.append(f"No maps over the grid: no positions-{split}.parquet.")
    tables = {
        "gaps": (f"The codes that add most to the total variation of {use.gap.sum():.3f}", largest_gaps(use)),
        "worst-learned": ("The codes learned worst, by how far their NLL lies above −ln p", worst_learned(use)),
    }
    for name, (title, frame) in tables.items():
        if not frame.empty and (use.sampled_tokens or name != "gaps"):
            section.tables.append(lay_cells(frame, codes_for_people(frame), [NOTE], title, f"{split}-{name}", folder))
    return section


def _dead_sampled(split: str, use: CodeUse) -> list[dict[str, Any]]:
    """The finding that stands out: codes without a training token that the model samples nonetheless."""
    codes = (use.absent & (use.sampled > 0)).nonzero()[0]
    if not len(codes):
        return []
    times = use.sampled[codes].sum()
    share = short(times / use.sampled_tokens)
    named = ", ".join(map(str, codes[:10])) + (" and others" if len(codes) > 10 else "")
    return [
        {
            "severity": "problem",
            "check": f"codes-{split}.parquet",
            "statement": f"{len(codes):,} of the {use.absent.sum():,} codes that never occur in training were sampled,"
            f" {times:,} times in {use.sampled_tokens:,} tokens ({share} of them): {named}.",
            "advice": "The decoder has never seen them. Mask codes that do not occur in training when sampling.",
        }
    ]


def _trace(fact: RunFacts, uses: dict[str, CodeUse], folder: Path) -> Section:
    section = Section("Codes in training")
    if not (fact.run.trace / "tokens").is_dir():
        section.missing.append("No trace of the tokens yet: no record was written.")
        return section
    train = next((use.train for use in uses.values()), None)
    try:
        section.pictures = hang(token_panels(fact.run.trace / "tokens", train), folder)
    except InputError as error:
        section.missing.append(f"Not shown: {error}.")
    return section
