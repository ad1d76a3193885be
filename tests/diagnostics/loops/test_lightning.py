"""The callback under the trainers of both packages of Lightning."""

import sys

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
import torch
from token_loops import SIZES, Model, assert_same_trace, batches, frame, tokens
from torch.utils.data import DataLoader

from vqtool.diagnostics import InputError, LightningMonitor, LogSink
from vqtool.diagnostics.loops.lightning import callback_bases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on loaders and checkpoints
PACKAGES = [lightning, pytorch_lightning]
CALLBACKS = {package: f"{package.__name__}.callbacks" for package in PACKAGES}
both_packages = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


def module(package, manual=False, clip=None, broken_at=None):
    """A model that knows its batches by their number, so that training that is resumed goes on with the next one."""

    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = not manual
            self.model = Model(learnable=True)
            self.data = batches(times=2)
            self.seen = []

        def training_step(self, batch, batch_idx):
            if self.global_step == broken_at:
                raise RuntimeError("broke")
            self.seen.append(batch_idx)
            loss = self.model(self.data[batch_idx])["loss"]
            if not manual:
                return loss
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            if clip:
                self.clip_gradients(optimizer, gradient_clip_val=clip)
            optimizer.step()
            return None

        def validation_step(self, batch, batch_idx):
            self.model(self.data[0])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    return Module()


def trainer(package, folder, callbacks, **options):
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings |= {"max_epochs": 1, "default_root_dir": folder, "enable_checkpointing": False, "callbacks": callbacks}
    return package.Trainer(**(settings | options))


def numbers(count=6):
    return DataLoader(range(count), batch_size=None)


@both_packages
@pytest.mark.parametrize(
    "options", [{}, {"gradient_clip_val": 1e-3}, {"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}], ids=str
)
def test_each_record_has_the_tokens_of_its_own_step(tmp_path, package, options):
    fitted = trainer(package, tmp_path, [LightningMonitor(tmp_path / "run", every=1)], **options)
    fitted.fit(module(package), numbers())
    if "accumulate_grad_batches" in options:
        assert tokens(tmp_path / "run") == {1: 4 + 6, 2: 8 + 10, 3: 12 + 14}
    else:
        assert tokens(tmp_path / "run") == dict(enumerate(SIZES, start=1))
    gradients = frame(tmp_path / "run").groupby("step").grad_norm
    assert (gradients.max() > 0).all()
    if "gradient_clip_val" in options:
        assert (gradients.max() <= 1e-3).all()


@both_packages
@pytest.mark.parametrize("clip", [None, 1e-3])
def test_manual_optimization_is_recorded_as_well(tmp_path, package, clip):
    fitted = trainer(package, tmp_path, [LightningMonitor(tmp_path / "run", every=1)])
    fitted.fit(module(package, manual=True, clip=clip), numbers())
    assert tokens(tmp_path / "run") == dict(enumerate(SIZES, start=1))
    assert (frame(tmp_path / "run").groupby("step").grad_norm.max() <= (clip or 100)).all()


def test_of_two_optimizers_the_steps_of_the_first_are_counted(tmp_path):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.model, self.data = Model(learnable=True), batches()

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            for optimizer in (first, second, second):
                optimizer.zero_grad()
                self.manual_backward(self.model(self.data[batch_idx])["loss"])
                optimizer.step()

        def configure_optimizers(self):
            book = list(self.model.quantize.parameters())
            others = [*self.model.encoder.parameters(), *self.model.decoder.parameters()]
            return [torch.optim.Adam(parameters, lr=1e-2) for parameters in (others, book)]

    trainer(lightning, tmp_path, [LightningMonitor(tmp_path / "run", every=1)]).fit(Module(), numbers())
    # The two passes for the second come after the step of the first.
    before = (0, *SIZES)
    assert tokens(tmp_path / "run") == {step: SIZES[step - 1] + 2 * before[step - 1] for step in range(1, 7)}


@both_packages
def test_both_packages_take_the_callback_for_one_of_theirs(package):
    callback = LightningMonitor(None)
    assert isinstance(callback, package.Callback)
    assert callback in trainer(package, None, callback).callbacks  # not in a list


def test_validation_is_not_recorded_and_the_model_is_left_as_if_never_watched(tmp_path):
    model, logged = module(lightning), []
    callback = LightningMonitor(tmp_path / "run", [LogSink(lambda values, step: logged.append(step))], every=4)
    trainer(lightning, tmp_path, [callback], val_check_interval=2).fit(model, numbers(), numbers(2))
    assert tokens(tmp_path / "run") == {4: 4 + 6 + 8 + 10, 6: 12 + 14}  # a last window may be short
    assert logged == [4, 6]
    assert callback.monitor is None
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_training_is_what_it_is_without_the_callback(tmp_path):
    plain, watched = module(lightning), module(lightning)
    for model, callbacks in ((plain, []), (watched, [LightningMonitor(tmp_path / "run", every=1)])):
        torch.manual_seed(3)
        trainer(lightning, tmp_path, callbacks).fit(model, numbers())
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@both_packages
@pytest.mark.parametrize("end", ["broken", "finished"])
@pytest.mark.parametrize("saved_at", [6, 7, 11])
def test_a_resumed_run_leaves_the_trace_of_an_uninterrupted_one(tmp_path, package, end, saved_at):
    """Windows of three steps; the checkpoint stands at the end of one or within one."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    trainer(package, tmp_path, [LightningMonitor(whole, every=3)], max_steps=12).fit(module(package), numbers(100))

    saver = package.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=saved_at)
    options = {"enable_checkpointing": True, "max_steps": saved_at if end == "finished" else 12}
    first = trainer(package, tmp_path, [LightningMonitor(resumed, every=3), saver], **options)
    if end == "broken":
        with pytest.raises(RuntimeError, match="broke"):
            first.fit(module(package, broken_at=11), numbers(100))
    else:
        first.fit(module(package), numbers(100))
    (checkpoint,) = (tmp_path / "saved").iterdir()
    assert torch.load(checkpoint, weights_only=True)["callbacks"]["LightningMonitor"]["step"] == saved_at

    second = module(package)
    again = trainer(package, tmp_path, [LightningMonitor(resumed, every=3)], max_steps=12)
    again.fit(second, numbers(100), ckpt_path=checkpoint)
    assert second.seen == list(range(saved_at, 12))
    assert_same_trace(whole, resumed)


def test_a_second_run_in_the_same_folder_is_refused_and_leaves_no_hook(tmp_path):
    for _ in range(2):
        trainer(lightning, tmp_path, [LightningMonitor(tmp_path / "run", every=2, overwrite=True)]).fit(
            module(lightning), numbers()
        )
    model = module(lightning)
    with pytest.raises(InputError, match="holds the records of a run already, up to step 6"):
        trainer(lightning, tmp_path, [LightningMonitor(tmp_path / "run", every=2)]).fit(model, numbers())
    assert not any(each._forward_hooks for each in model.modules())


def test_one_trainer_that_fits_on_goes_on_with_its_trace(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(lightning, tmp_path, [LightningMonitor(whole, every=4)], max_epochs=2).fit(module(lightning), numbers())
    model, fitted = module(lightning), trainer(lightning, tmp_path, [LightningMonitor(parts, every=4)])
    fitted.fit(model, numbers())
    assert tokens(parts) == {4: 4 + 6 + 8 + 10, 6: 12 + 14}
    fitted.fit_loop.max_epochs = 2
    fitted.fit(model, numbers())
    assert tokens(parts) == tokens(whole) == {4: 4 + 6 + 8 + 10, 8: 12 + 14 + 4 + 6, 12: 8 + 10 + 12 + 14}


def test_a_run_that_breaks_off_keeps_its_records_and_lets_go_of_the_model(tmp_path):
    model = module(lightning, broken_at=5)
    with pytest.raises(RuntimeError, match="broke"):
        trainer(lightning, tmp_path, [LightningMonitor(tmp_path / "run", every=2)]).fit(model, numbers())
    assert tokens(tmp_path / "run") == {2: 4 + 6, 4: 8 + 10}
    assert not any(each._forward_hooks for each in model.modules())


@both_packages
def test_one_of_the_packages_is_enough(monkeypatch, package):
    (missing,) = (name for other, name in CALLBACKS.items() if other is not package)
    monkeypatch.setitem(sys.modules, missing, None)
    assert callback_bases() == [package.Callback]


def test_without_either_package_the_error_names_both(monkeypatch):
    for name in CALLBACKS.values():
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="LightningMonitor needs lightning or pytorch_lightning"):
        callback_bases()
