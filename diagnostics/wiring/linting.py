"""``lint``: is a model wired as it should be? Three training steps on a copy say it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import in_short
from ..findings import Finding
from ..probes import FoundCodebooks, Reader, find_codebooks
from ..ranks import rank_and_size
from ..recording.attachment import check_compiled
from ..recording.optimizer_steps import OptimizerSteps, plain_optimizers
from ..recording.step_monitor import Optimizers
from .check import Skipped
from .checks import CHECKS
from .decoder import decoder_heard, downstream, without_decoder
from .evidence import Trial
from .group import Group, averaged_by_itself, compare_ranks, start_alike
from .outcome import baseline
from .part import seen_before
from .planting import plant
from .pulls import output_pulls
from .replay import Bench, replay
from .report import SEVERITIES, LintReport
from .revival import revive
from .subject import Loss, Subject, untouched
from .trial import STEPS, run_trial
from .weights import weights_of


def lint(
    model: nn.Module,
    batch: Any = None,
    loss: Loss | None = None,
    optimizer: Optimizers | None = None,
    *,
    read: Mapping[str, Reader] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> LintReport:
    """Check how a vector-quantized model is wired, by three training steps on copies of everything.

        report = lint(model, batch, loss=lambda model, batch: model(batch).loss, optimizer=optimizer)
        print(report)

    Model, optimizer and random numbers are left bit-identical.

    In a process group every rank calls it, with its own replica of the model and a batch of its own. Where nothing in
    the model averages gradients, as ``DistributedDataParallel`` does, the copies start from the first rank's values
    and their gradients are averaged by the lint. Every rank is told what any of them found.

    Args:
        model: Any module with quantizers in it that a probe recognises.
        batch: What the loss takes beside the model. A few hundred tokens tell more than a few. Without a batch and a
            loss no step is taken, and what can be judged of the model as it stands is judged.
        loss: Of a model and a batch the scalar that is minimised; it has to use the model that it is given. What a loop
            does to the model beside it, such as an update of moving averages after each step, belongs at its beginning.
            None: the model's own output is the loss.
        optimizer: The optimizer that trains it, or a list. None: steps are taken with Adam at 1e-3, and the checks of
            the optimizer are skipped.
        read: Readers for quantizers that no probe recognises, by their paths in the model.
        tell: Told what is watched before anything is tried, and then of each thing that is.

    Raises:
        InputError: No quantizer is recognised, the model cannot be copied or is compiled, or the loss is no scalar, has
            no gradient, or does not train the model that it is given; or another rank fails, or does not call this.
    """
    model = getattr(model, "_orig_mod", model)
    passed = [] if optimizer is None else plain_optimizers(optimizer)
    check_compiled(model, find_codebooks(model, read))
    stepped = batch is not None or loss is not None
    group = Group(rank_and_size()[1] if stepped else 1)
    subject = Subject(model, batch, loss or _own_loss, passed, group)
    with group.together(), untouched(subject), torch.enable_grad():
        group.exchange(None)
        copy = subject.copy()
        found = find_codebooks(copy.model, read)
        tell(_watched(found, subject))
        if stepped:
            trial = _tried(copy, found, read, tell)
        else:
            seen = {name: seen_before(name, codebook, copy.model) for name, codebook in found.items()}
            trial = Trial(seen, [], [], None)
        return _judged(_watched(found, subject), trial, group)


def _watched(found: FoundCodebooks, subject: Subject) -> str:
    """What is watched and what is not, what the copies do without, and what makes one gradient of those of ranks."""
    lines = [str(found)]
    hooks = [hook for own in subject.hooks() for hook in own.values()]
    if others := [hook for hook in hooks if not isinstance(getattr(hook, "__self__", None), OptimizerSteps)]:
        lines.append(
            f"not run: {len(others)} of the optimizer's hooks; what they do to the model belongs into the loss here"
        )
    if subject.group.size > 1:
        by = "the model's wrapper" if averaged_by_itself(subject.model) else "the lint, for nothing in the model does"
        lines.append(f"{subject.group.size} ranks; gradients are averaged by {by}")
    return "\n".join(lines)


def _own_loss(model: nn.Module, batch: Any) -> Any:
    return model(batch)


def _tried(
    copy: Subject, found: FoundCodebooks, read: Mapping[str, Reader] | None, tell: Callable[[str], None]
) -> Trial:
    """The trial on ``copy``, and what is tried on copies of it."""
    kind = type(copy.optimizers[0]).__name__ if copy.optimizers else None
    if not copy.model.training:
        copy.model.train()  # it was just evaluated; what is in evaluation mode within a model in training stays so
    if not copy.optimizers:
        parameters = [p for p in copy.model.parameters() if p.requires_grad]
        copy = replace(copy, optimizers=[torch.optim.Adam(parameters, 1e-3)] if parameters else [])
    group = copy.group
    if group.size > 1 and not averaged_by_itself(copy.model):
        start_alike(copy.model)
    tell(f"taking {STEPS} training steps on a copy")
    trial, parts = run_trial(copy, found, kind)
    if group.size > 1:
        for seen in trial.seen.values():
            compare_ranks(seen)
    for name, part in parts.items():
        if part.repeatable is not None and part.seen.steps:
            tell(f"making the call of {name} again")
            bench = Bench(copy, name, part.repeatable, read)
            _try("replay", partial(replay, part.seen, bench), part.seen.not_done, group)
            _try("revival", partial(revive, part.seen, bench), part.seen.not_done, group)
            _try("planting", partial(plant, part.seen, copy, read), part.seen.not_done, group)
    tell("taking the step again with one thing changed at a time")
    _try("repetition", partial(_repeat, copy, trial, read), trial.not_done, group)
    return trial


def _repeat(after: Subject, trial: Trial, read: Mapping[str, Reader] | None) -> None:
    """What takes the same step again, with something changed."""
    base = baseline(after)
    trial.weights.extend(weights_of(after, base))
    inside = tuple(f"{seen.path}." if seen.path else "" for seen in trial.seen.values())
    own = {name for name, _ in after.model.named_parameters() if name.startswith(inside)}
    later = downstream(after.model, base, trial.before, own)
    trial.decoder_heard = decoder_heard(after, base, trial.before, later)
    if later:
        silent = without_decoder(after, later)
        for name, pull in output_pulls(silent, find_codebooks(silent.model, read)).items():
            trial.seen[name].output_pull = pull


def _try(name: str, experiment: Callable[[], None], not_done: dict[str, str], group: Group) -> None:
    """Do what takes copies of the model after the trial: it may fail, and is named then."""
    try:
        with group.together():
            experiment()
    except Exception as error:
        not_done[name] = f"{name} failed: {in_short(error)}"


def _judged(watched: str, trial: Trial, group: Group) -> LintReport:
    told = [one for check in CHECKS.values() for one in check.look(trial)]
    findings = _of_all_ranks([one for one in told if isinstance(one, Finding)], group)
    findings.sort(key=lambda finding: [*SEVERITIES].index(finding.severity))
    return LintReport(watched, findings, [one for one in told if isinstance(one, Skipped)], trial)


def _of_all_ranks(own: list[Finding], group: Group) -> list[Finding]:
    """What this rank found, and what others found and it did not."""
    findings, told = [*own], {(finding.check, finding.codebook) for finding in own}
    for rank, others in enumerate(group.exchange(own)):
        for finding in others:
            if (finding.check, finding.codebook) not in told:
                statement = f"on rank {rank} {finding.statement}"
                findings.append(replace(finding, statement=statement, evidence=finding.evidence | {"rank": rank}))
        told.update((finding.check, finding.codebook) for finding in others)
    return findings
