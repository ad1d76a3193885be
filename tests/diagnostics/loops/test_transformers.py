"""The callback under the Trainer of transformers."""

import pytest
import torch
from token_loops import SIZES, Model, assert_same_trace, batches, frame, tokens
from transformers import Trainer, TrainerCallback, TrainingArguments

from vqtool.diagnostics import InputError, LogSink, TransformersMonitor
from vqtool.diagnostics.recording.board import BoardSink


class BreakOff(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise RuntimeError("broke")


def trainer(folder, callbacks, model=None, times=1, eval_dataset=None, **options):
    settings = {"per_device_train_batch_size": 1, "train_sampling_strategy": "sequential", "num_train_epochs": 1}
    settings |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    settings |= {"learning_rate": 1e-2, "output_dir": str(folder)}
    return Trainer(
        Model(learnable=True) if model is None else model,
        TrainingArguments(**(settings | options)),
        train_dataset=batches(times),
        eval_dataset=eval_dataset,
        data_collator=lambda items: {"x": items[0]},
        callbacks=callbacks,
    )


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 1e-3}, {"bf16": True}], ids=str)
def test_each_record_has_the_tokens_of_its_own_step(tmp_path, options):
    trainer(tmp_path, [TransformersMonitor(tmp_path / "run", every=1)], **options).train()
    assert tokens(tmp_path / "run") == dict(enumerate(SIZES, start=1))
    gradients = frame(tmp_path / "run").groupby("step").grad_norm.max()
    assert (gradients > 0).all()
    assert (gradients <= options.get("max_grad_norm", 1) + 1e-6).all()  # the Trainer clips to 1 where nothing is said


def test_micro_batches_are_of_the_step_that_they_are_accumulated_for(tmp_path):
    trainer(tmp_path, [TransformersMonitor(tmp_path / "run", every=1)], gradient_accumulation_steps=2).train()
    assert tokens(tmp_path / "run") == {1: 4 + 6, 2: 8 + 10, 3: 12 + 14}


def test_evaluation_is_not_recorded_and_the_model_is_left_as_if_never_watched(tmp_path):
    logged, model = [], Model()
    callback = TransformersMonitor(tmp_path / "run", [LogSink(lambda values, step: logged.append(step))], every=4)
    trainer(tmp_path, [callback], model, eval_dataset=batches()[:1], eval_strategy="steps", eval_steps=1).train()
    assert tokens(tmp_path / "run") == {4: 4 + 6 + 8 + 10, 6: 12 + 14}
    assert logged == [4, 6]
    assert callback.monitor is None
    assert not any(each._forward_hooks for each in model.modules())


def test_training_is_what_it_is_without_the_callback(tmp_path):
    plain, watched = Model(), Model()
    trainer(tmp_path, [], plain).train()
    trainer(tmp_path, [TransformersMonitor(tmp_path / "run", every=1)], watched).train()
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("saved_at", "end", "accumulate"), [(3, "broken", 1), (4, "broken", 1), (4, "finished", 1), (4, "broken", 2)]
)
def test_a_resumed_run_leaves_the_trace_of_an_uninterrupted_one(tmp_path, saved_at, end, accumulate):
    """Windows of three steps; the checkpoint stands at the end of one or within one."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    options = {"times": 2, "gradient_accumulation_steps": accumulate, "lr_scheduler_type": "constant", "max_steps": 6}
    trainer(tmp_path / "a", [TransformersMonitor(whole, every=3)], **options).train()

    saving = options | {"save_strategy": "steps", "save_steps": saved_at}
    if end == "broken":
        with pytest.raises(RuntimeError, match="broke"):
            trainer(tmp_path / "b", [TransformersMonitor(resumed, every=3), BreakOff(5)], **saving).train()
    else:
        trainer(tmp_path / "b", [TransformersMonitor(resumed, every=3)], **(saving | {"max_steps": saved_at})).train()
    checkpoint = tmp_path / "b" / f"checkpoint-{saved_at}"
    assert torch.load(checkpoint / "codebook_monitor.pt", weights_only=True)["step"] == saved_at

    trainer(tmp_path / "b", [TransformersMonitor(resumed, every=3)], **options).train(resume_from_checkpoint=True)
    assert_same_trace(whole, resumed)


def test_a_checkpoint_that_was_moved_is_found_where_the_arguments_name_it(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 4}
    trainer(tmp_path / "a", [TransformersMonitor(tmp_path / "run", every=3)], **saving).train()
    moved = (tmp_path / "a" / "checkpoint-4").rename(tmp_path / "moved")
    again = trainer(tmp_path / "b", [TransformersMonitor(tmp_path / "run", every=3)], resume_from_checkpoint=str(moved))
    again.train(resume_from_checkpoint=again.args.resume_from_checkpoint)
    assert tokens(tmp_path / "run") == {3: 4 + 6 + 8, 6: 10 + 12 + 14}


class Board(BoardSink):
    """Knows which steps it has seen, by records or by what it was told to recall."""

    def __init__(self):
        self.seen = []

    def recall(self, run):
        self.seen += tokens(run.path)

    def write(self, record):
        self.seen.append(record.step)

    def flush(self):
        pass

    def _write_details(self, record):
        raise NotImplementedError


def test_a_board_of_a_resumed_run_is_told_of_what_was_recorded_before(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 4}
    for resume in (False, True):
        board = Board()
        callback = TransformersMonitor(tmp_path / "run", [board], every=2)
        trainer(tmp_path, [callback], **saving).train(resume_from_checkpoint=resume and str(tmp_path / "checkpoint-4"))
        assert board.seen == [2, 4, 6]


def test_a_second_run_in_the_same_folder_is_refused_and_leaves_no_hook(tmp_path):
    trainer(tmp_path, [TransformersMonitor(tmp_path / "run", every=2)]).train()
    model = Model()
    with pytest.raises(InputError, match="holds the records of a run already, up to step 6"):
        trainer(tmp_path, [TransformersMonitor(tmp_path / "run", every=2)], model).train()
    assert not any(each._forward_hooks for each in model.modules())
    trainer(tmp_path, [TransformersMonitor(tmp_path / "run", every=3, overwrite=True)]).train()
    assert list(tokens(tmp_path / "run")) == [3, 6]
