"""Fine-tuning: the objective's parts, adapters, exact resuming, many processes, and what can go wrong."""

import copy
import dataclasses
import errno
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from accelerate import PartialState

import editmgt_lab as lab
from editmgt_lab.data.tokens import TokenPairs
from editmgt_lab.errors import CheckpointError, DataError, DiskError, SettingError, ShapeError, TrainingError
from editmgt_lab.finetuning import (
    Finetuner,
    FinetuneSettings,
    add_adapter,
    finetuner,
    load_adapter,
    objective,
    save_adapter,
)
from editmgt_lab.finetuning.adapters import WEIGHTS
from editmgt_lab.finetuning.batch import draw_batch
from editmgt_lab.finetuning.settings import MOST_SEED
from editmgt_lab.training.objective import drop_conditions, mask_ratio, ratio_timestep
from editmgt_lab.training.run import Run
from editmgt_lab.transformer import AESTHETIC_SCORE
from tests.support import PATIENCE, ROOT, free_port, until

QUICK = FinetuneSettings(steps=4, batch=4, learning_rate=0.01, save_every=2, validate_every=2, replay_share=0.0)
PROCESS = "tests.finetuning.process"


def random_pairs(editor: lab.Editor, count: int = 6, seed: int = 0) -> TokenPairs:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(editor.transformer.config.codebook_size, (2, count, 8, 8), generator=generator)
    texts = [f"make it {('blue', 'red', 'green')[i % 3]}" for i in range(count)]
    return TokenPairs(tokens[0], tokens[1], texts, [None] * count)


@pytest.fixture
def tuned(editor):
    """A function that fine-tunes a copy of the editor; what it was given can be changed."""

    def make(**options) -> Finetuner:
        settings = dataclasses.replace(options.pop("settings", QUICK), **options.pop("change", {}))
        own = options.pop("editor", None) or copy.deepcopy(editor)
        return Finetuner(own, options.pop("pairs", random_pairs(editor)), settings, **options)

    return make


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(objective, "has_bfloat16", lambda device: False)


def weights(tuner: Finetuner) -> list[torch.Tensor]:
    return [p.detach().clone() for p in tuner.editor.transformer.parameters()]


# The objective


def test_only_the_target_is_hidden(editor):
    pairs = random_pairs(editor)
    before = pairs.source.clone(), pairs.target.clone()
    batch = draw_batch(pairs, torch.tensor([2, 0, 2]), QUICK, torch.Generator().manual_seed(0))
    assert torch.equal(batch.source, before[0][[2, 0, 2]]) and torch.equal(batch.target, before[1][[2, 0, 2]])
    assert torch.equal(pairs.source, before[0]) and torch.equal(pairs.target, before[1])
    assert not torch.equal(batch.hidden[0], batch.hidden[2]), "each pair has its own noise"


def test_the_hidden_share_follows_the_law(editor):
    pairs = random_pairs(editor)
    generator = torch.Generator().manual_seed(0)
    batch = draw_batch(pairs, torch.zeros(4000, dtype=torch.long), QUICK, generator)
    shares = batch.hidden.flatten(1).float().mean(dim=1)
    assert shares.mean().item() == pytest.approx(2 / torch.pi, abs=0.02)  # the mean of cos(πu/2)
    assert shares.min() >= 1 / 64


@torch.no_grad()
def test_the_network_is_given_what_the_batch_says(editor, monkeypatch):
    pairs = random_pairs(editor)
    settings = dataclasses.replace(QUICK, text_dropout=0.5, asked_share=0.5)
    batch = draw_batch(pairs, torch.arange(6), settings, torch.Generator().manual_seed(0))
    assert {"", "make it blue", "make it red"} <= {*batch.texts} and len({*batch.timestep.tolist()}) > 3
    assert batch.hidden.any() and not batch.hidden.all() and not torch.equal(batch.asked, batch.hidden)
    forward, seen = editor.transformer.forward, {}

    def spy(tokens, text, timestep, **others):
        seen.update(others, tokens=tokens, text=text, timestep=timestep)
        return forward(tokens, text, timestep, **others)

    monkeypatch.setattr(editor.transformer, "forward", spy)
    logits = objective.Objective(editor, settings, replay=False).logits(editor.transformer, batch)
    assert seen["tokens"][batch.hidden].eq(editor.mask_token_id).all()
    assert torch.equal(seen["tokens"][~batch.hidden], batch.target[~batch.hidden])
    assert torch.equal(seen["source"], batch.source) and torch.equal(seen["timestep"], batch.timestep)
    assert torch.equal(seen["only"], batch.asked) and logits.shape == (int(batch.asked.sum()), 32)
    assert seen["micro_conditions"].tolist() == [[32, 32, 0, 0, AESTHETIC_SCORE]] * 6
    text = editor.text_encoder(batch.texts)
    assert seen["text"].texts == tuple(batch.texts) and torch.equal(seen["text"].tokens, text.tokens)


def test_texts_are_dropped_as_often_as_asked():
    dropped = drop_conditions(["a"] * 5000, 0.2, torch.Generator().manual_seed(0))
    assert dropped.count("") / 5000 == pytest.approx(0.2, abs=0.02)
    assert drop_conditions(["a"] * 50, 0.0) == ["a"] * 50


def test_the_released_timestep_is_the_mask_ratio():
    u = torch.tensor([0.0, 0.5])
    assert torch.equal(ratio_timestep(u), 1000 * mask_ratio(u))


# Training


def test_it_learns(tuned, editor):
    pairs = random_pairs(editor)
    pairs = dataclasses.replace(pairs, target=torch.full_like(pairs.target, 3))
    tuner = tuned(pairs=pairs, validation=pairs, change={"steps": 20, "learning_rate": 0.02, "validate_every": 10})
    before = tuner.validation_loss()
    tuner.run()
    assert tuner.validation_loss() < 0.7 * before
    assert [entry["step"] for entry in tuner.history if "validation" in entry] == [10, 20]
    rates = [entry["learning_rate"] for entry in tuner.history]
    assert rates[0] < rates[2] > rates[10] > rates[19] > 0


def test_text_encoder_and_tokenizer_stay(tuned, editor):
    tuner = tuned()
    tuner.run()
    for part in ("vq", "text_encoder"):
        kept = getattr(editor, part).state_dict()
        assert all(torch.equal(tensor, kept[name]) for name, tensor in getattr(tuner.editor, part).state_dict().items())


@pytest.mark.parametrize("rank", [0, 2])
def test_old_pairs_ask_for_what_was_said_before(tuned, editor, in_float32, rank):
    change = {"rank": rank, "replay_share": 0.5}
    with_it, without = (
        tuned(change=change | {"distillation": weight}, replay=random_pairs(editor)) for weight in (2.0, 0.0)
    )
    batch = with_it.joint_batch(0)
    old, new = batch[batch.replayed], batch[~batch.replayed]

    def losses(tuner, part):
        return tuner.objective.loss(tuner.model, part).item()

    assert losses(with_it, old) == pytest.approx(losses(without, old)), "nothing has changed yet"
    with torch.no_grad():
        for tuner in (with_it, without):
            for weight in tuner.trained:
                weight.add_(0.05)
    assert losses(with_it, new) == pytest.approx(losses(without, new)), "new pairs are free to change"
    now, before = (
        with_it.objective.logits(each, old).double().softmax(-1) for each in (with_it.model, editor.transformer)
    )
    gone = (before * (before / now).log()).sum(-1)  # [n]
    expected = 2.0 * (gone * old.weights[old.weights > 0]).sum().item()
    assert expected > 0.01
    assert losses(with_it, old) - losses(without, old) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("rank", [0, 2])
def test_micro_batches_give_the_gradient_of_the_whole(tuned, editor, in_float32, rank):
    change, replay = {"rank": rank, "replay_share": 0.5}, random_pairs(editor, seed=1)
    whole = tuned(change=change, replay=replay)
    parts = tuned(change=change | {"micro_batch": 1, "checkpointing": True}, replay=replay)
    losses = [tuner.gradients(tuner.joint_batch(0)) for tuner in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert_same_gradients(whole.trained, [p.grad for p in parts.trained])


def assert_same_gradients(parameters, others) -> None:
    largest = max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
    assert largest > 1e-3
    for p, other in zip(parameters, others, strict=True):
        mine = torch.zeros_like(p) if p.grad is None else p.grad
        other = torch.zeros_like(p) if other is None else other
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_two_processes_give_the_gradient_of_one(tiny_folder, tuned, in_float32, tmp_path):
    # accelerate's own --cpu starts one process; --multi_gpu is its name for torchrun, whatever the device.
    command = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no",
               "--main_process_port", str(free_port())]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", *command, "-m", PROCESS, "gradients", tiny_folder, tmp_path / "g.pt"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    two = torch.load(tmp_path / "g.pt")
    assert two["processes"] == 2
    tuner = tuned()
    assert tuner.gradients(tuner.joint_batch(0)) == pytest.approx(two["loss"], rel=1e-6)
    assert_same_gradients(tuner.trained, two["gradients"])


def test_a_batch_is_shared_out_whole(tuned, monkeypatch):
    monkeypatch.setattr(finetuner.Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(SettingError, match="3 processes"):
        tuned()


def test_replay_takes_a_share_that_rises(tuned, editor):
    tuner = tuned(change={"replay_share": 0.25, "text_dropout": 0.0}, replay=random_pairs(editor, seed=1))
    shares = []
    for step in range(tuner.settings.steps):
        batch = tuner.joint_batch(step)
        old = [any(torch.equal(row, other) for other in tuner.replay.source) for row in batch.source]
        assert old == batch.replayed.tolist() and len(old) == 4
        shares.append(sum(old))
    assert shares == [1, 2, 2, 3], "one pair is new to the end"
    assert not tuned(change={"replay_share": 0.0}, replay=tuner.replay).joint_batch(3).replayed.any()


def test_early_stop(tuned, monkeypatch):
    tuner = tuned(change={"steps": 40, "validate_every": 2, "patience": 2}, validation=True)
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr(tuner, "validation_loss", lambda: next(losses))
    tuner.run()
    assert tuner.done == 8


def test_a_step_whose_validation_is_interrupted_is_in_the_history(tuned, editor):
    tuner = tuned(validation=random_pairs(editor))
    interrupts = iter([KeyboardInterrupt()])

    def show(editor):
        for interrupt in interrupts:
            raise interrupt

    tuner.show = show
    with pytest.raises(KeyboardInterrupt):
        tuner.run()
    tuner.run()
    assert [entry["step"] for entry in tuner.history] == [1, 2, 3, 4]
    assert [entry["step"] for entry in tuner.history if "validation" in entry] == [4]


def test_the_average_is_what_is_kept(tuned):
    shown = []
    tuner = tuned(show=lambda editor: shown.append([p.detach().clone() for p in editor.transformer.parameters()]))
    tuner.run()
    assert len(shown) == 2  # in the middle and at the end
    assert all(torch.equal(a, b) for a, b in zip(shown[-1], weights(tuner), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tuner.average, weights(tuner), strict=True))


# Pause, resume, cancel, and going on


def test_pause_resume_and_cancel(tuned):
    tuner = tuned(change={"steps": 100_000})
    gate, resting, step, going = threading.Semaphore(0), threading.Event(), tuner._step, tuner._going.wait

    def one_step():
        assert gate.acquire(timeout=PATIENCE)
        return step()

    def rest():
        if tuner.paused:
            resting.set()
        going()

    def reached(condition, what):
        until(lambda: condition() or not thread.is_alive(), what)
        assert thread.is_alive()

    tuner._step, tuner._going.wait = one_step, rest
    tuner.pause()
    thread = threading.Thread(target=tuner.run)
    thread.start()
    reached(resting.is_set, "a rest before the first step")
    gate.release(2)
    tuner.resume()
    reached(lambda: tuner.done == 2, "two steps")
    resting.clear()
    tuner.pause()
    gate.release()
    reached(resting.is_set, "a rest before the next step, or behind the one under way")
    done = tuner.done
    gate.release(10)
    tuner.cancel()
    thread.join(PATIENCE)
    assert not thread.is_alive() and tuner.done == done and done in (2, 3)


def test_a_cancelled_run_goes_on_exactly(tuned):
    straight, tuner = tuned(), tuned()
    straight.run(bar=False)
    tuner._step = stopping(tuner, after=2)
    tuner.run(bar=False)
    assert tuner.done == 2 and not all(map(torch.equal, weights(tuner), weights(straight)))
    with pytest.raises(KeyboardInterrupt):
        tuner.run(bar=False)
    tuner.run(bar=False)
    assert all(map(torch.equal, weights(tuner), weights(straight)))
    assert [each["loss"] for each in tuner.history] == [each["loss"] for each in straight.history]


def stopping(tuner, after):
    """Its step, which cancels the run once it was taken so often, and interrupts the next one after a step."""
    step, broken = tuner._step, iter((KeyboardInterrupt,))

    def one():
        if tuner.done == after + 1 and (error := next(broken, None)):
            raise error
        entry = step()
        if tuner.done == after:
            tuner.cancel()
        return entry

    return one


@pytest.mark.parametrize("rank", [0, 2])
def test_half_precision_learns_in_float32(tuned, tiny_folder, in_float32, rank):
    tuner = tuned(editor=lab.load(tiny_folder, dtype="float16"), change={"rank": rank})
    tuner.run(bar=False)
    assert tuner.editor.transformer.dtype == torch.float32 and tuner.editor.vq.quant_conv.weight.dtype == torch.float16
    assert all(np.isfinite(each["loss"]) for each in tuner.history)
    assert all(each.isfinite().all() for each in weights(tuner))


@pytest.mark.parametrize("rank", [0, 2])
def test_an_interrupted_run_goes_on_exactly(tuned, tmp_path, rank):
    whole = tuned(change={"rank": rank})
    whole.run()
    first = tuned(change={"rank": rank}, folder=tmp_path)
    monkey = iter([None, None, None])
    first_step = first._step

    def step():
        if next(monkey, "over") == "over":
            raise KeyboardInterrupt
        return first_step()

    first._step = step
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = tuned(change={"rank": rank}, folder=tmp_path)
    assert second.done == 2  # the last checkpoint
    second.run()
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert [entry["loss"] for entry in whole.history] == [entry["loss"] for entry in second.history]


@pytest.mark.parametrize("save_every", [1, 5])  # after the step, and at the end alone
def test_who_looks_between_steps_changes_no_checkpoint(tuned, tmp_path, monkeypatch, save_every):
    """Somebody waits for the step under way, and comes in before all that the training does behind it."""
    tuner = tuned(folder=tmp_path, change={"steps": 1, "save_every": save_every})
    step, alone, state = tuner._step, tuner._alone, tmp_path / "state.pt"
    inside, turns, left = threading.Event(), [], []

    def look():
        with tuner.between_steps():
            inside.set()
            until(lambda: state.exists() or len(turns) == 2, "a checkpoint, or whoever wants to write it")

    def step_that_is_waited_for():
        looker.start()
        until(tuner._turn.locked, "somebody who waits for the step")
        entry = step()
        left.extend(p.detach().clone() for p in tuner.trained)
        return entry

    def turn():
        turns.append(None)
        return alone()

    class Bar(finetuner.tqdm):
        def update(self, n=1):
            assert inside.wait(PATIENCE)
            return super().update(n)

    looker = threading.Thread(target=look)
    tuner._step, tuner._alone = step_that_is_waited_for, turn
    monkeypatch.setattr(finetuner, "tqdm", Bar)
    tuner.run()
    looker.join(PATIENCE)
    kept = Run(tmp_path).load()
    assert all(torch.equal(a, b) for a, b in zip(kept["weights"], left, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(kept["average"], left, strict=True)), "what would be wrong"


def test_twenty_kills_change_nothing(tiny_folder, tmp_path):
    """Killed in steps, between them and in every part of a write: what comes out is bit for bit the same."""
    run = subprocess.run(
        [sys.executable, "-m", PROCESS, "kills", tiny_folder, tmp_path],
        cwd=ROOT, capture_output=True, text=True, timeout=5 * PATIENCE,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    told = json.loads(run.stdout)
    assert told["kills"] == 20
    assert told["while writing"] >= 5
    assert told["undisturbed"] == told["killed"]


def test_another_run_in_the_folder(tuned, tmp_path):
    tuned(folder=tmp_path).run()
    state = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(CheckpointError, match="learning_rate"):
        tuned(folder=tmp_path, change={"learning_rate": 0.5})
    assert (tmp_path / "state.pt").read_bytes() == state


def test_a_refused_checkpoint_leaves_the_editor_as_it_was(tuned, editor, tmp_path):
    tuned(folder=tmp_path / "other").run()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.pt").write_bytes(b"no state")
    own = copy.deepcopy(editor)
    for place in ("other", "damaged"):
        with pytest.raises(CheckpointError):
            tuned(folder=tmp_path / place, change={"rank": 2}, editor=own)
    assert list(own.transformer.state_dict()) == list(editor.transformer.state_dict())
    assert all(p.requires_grad for p in own.transformer.parameters())
    tuned(folder=tmp_path / "own", change={"rank": 2}, editor=own).run()


# What can go wrong


def test_a_loss_that_is_no_number(tuned, tmp_path):
    tuner = tuned(folder=tmp_path)
    tuner._save()
    state = (tmp_path / "state.pt").read_bytes()
    with torch.no_grad():
        tuner.trained[0].fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss of step 0 is nan"):
        tuner.run()
    assert (tmp_path / "state.pt").read_bytes() == state


def test_a_full_disk(tuned, tmp_path, monkeypatch):
    tuner = tuned(folder=tmp_path)
    tuner._save()
    state = (tmp_path / "state.pt").read_bytes()

    def full(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskError, match="No space left"):
        tuner.run()
    assert (tmp_path / "state.pt").read_bytes() == state and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"steps": "4"}, {"batch": 0}, {"batch": 2.5}, {"batch": None}, {"micro_batch": 0},
        {"micro_batch": -1}, {"learning_rate": 0.0}, {"learning_rate": 1}, {"learning_rate": float("nan")},
        {"warm_up": 1.5}, {"warm_up": -0.1}, {"clip": 0}, {"clip": -1.0}, {"rank": -1}, {"replay_share": 1.0},
        {"distillation": -1.0}, {"text_dropout": 1.1}, {"asked_share": 0.0}, {"look_weight": float("inf")},
        {"timestep": "sigma"}, {"timestep": None}, {"average_decay": -0.1}, {"average_decay": 1.5},
        {"save_every": 0}, {"validate_every": True}, {"patience": 0}, {"patience": -1}, {"seed": -1}, {"seed": 2**63},
        {"branch": "xyz"}, {"branch": []}, {"branch": "source", "rank": 0}, {"checkpointing": "no"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        FinetuneSettings(**wrong)


def test_settings_at_the_end_of_their_range(tuned, editor):
    ends = {
        "steps": 1, "micro_batch": 1, "warm_up": 1, "replay_share": 0, "distillation": 0, "text_dropout": 1,
        "asked_share": 1, "look_weight": 0, "average_decay": 1, "patience": 1, "seed": MOST_SEED, "rank": 1,
    }  # fmt: skip
    tuner = tuned(change=ends, validation=random_pairs(editor))
    tuner.run()
    assert tuner.done == 1


def test_settings_may_be_numpys_numbers(tuned, tmp_path):
    change = {"steps": np.int64(1), "micro_batch": np.int32(2), "learning_rate": np.float32(0.5), "warm_up": 1}
    settings = dataclasses.replace(QUICK, **change)
    assert json.loads(json.dumps(dataclasses.asdict(settings))) == dataclasses.asdict(QUICK) | change
    tuned(settings=settings, folder=tmp_path).run()


def test_patience_wants_pairs_to_validate_on(tuned, editor, tmp_path):
    for validation in (None, random_pairs(editor, 0)):
        with pytest.raises(SettingError, match="patience is 1"):
            tuned(change={"patience": 1}, validation=validation, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pairs_to_replay_of_another_grid(tuned, editor, tmp_path):
    tokens, own = torch.zeros(2, 4, 4, dtype=torch.long), copy.deepcopy(editor)
    other = TokenPairs(tokens, tokens, ["a", "b"])
    with pytest.raises(ShapeError, match="8×8 tokens, and 4×4"):
        tuned(editor=own, change={"rank": 2, "replay_share": 0.5}, replay=other, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists() and all(p.requires_grad for p in own.transformer.parameters())
    tuned(replay=other).run()  # of which QUICK takes none


def test_old_pairs_for_which_no_batch_has_room(tuned, editor):
    with pytest.raises(SettingError, match="a batch of 1 has no room"):
        tuned(replay=random_pairs(editor), change={"batch": 1, "replay_share": 0.5})


def test_no_pairs(tuned, editor, tmp_path):
    none = random_pairs(editor, 0)
    with pytest.raises(DataError, match="no pair"):
        tuned(pairs=none, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    tuner = tuned(validation=none, replay=none, change={"replay_share": 0.5}, folder=tmp_path / "run")
    tuner.run()
    assert not any("validation" in entry for entry in tuner.history), "none are as good as none given"


@pytest.mark.parametrize("rank", [0, 2])
def test_folders_may_be_texts(tuned, tmp_path, rank):
    tuner = tuned(folder=str(tmp_path / "run"), change={"rank": rank})
    tuner._save()
    assert Run(tmp_path / "run").load()["done"] == 0
    tuner.save(str(tmp_path / "out"))
    assert (tmp_path / "out" / (WEIGHTS if rank else "lab.json")).exists()


@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_a_process_trains_on_one_kind_of_device(tuned, tmp_path, monkeypatch, first):
    """What accelerate has chosen for the first editor stays; the second is not moved there in silence."""
    tuned()  # on the CPU
    if first == "cpu":
        monkeypatch.setattr(lab.Editor, "device", torch.device("cuda"))
    else:
        monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda"))
    with pytest.raises(SettingError, match=f"trains on {first}") as said:
        tuned(folder=tmp_path / "run")
    assert "restart the kernel" in said.value.fix and not (tmp_path / "run").exists()


# Adapters


@pytest.fixture
def adapted(editor):
    """An editor with an adapter that does something; which branch it is on can be said."""

    def make(branch: str) -> lab.Editor:
        own = copy.deepcopy(editor)
        add_adapter(own.transformer, rank=2, branch=branch)
        with torch.no_grad():
            for name, p in own.transformer.named_parameters():
                if "lora_B" in name:
                    p.normal_(std=0.5)
        return own

    return make


@pytest.mark.parametrize("branch", ["both", "source"])
def test_a_fresh_adapter_changes_nothing(editor, picture, branch):
    own = copy.deepcopy(editor)
    add_adapter(own.transformer, rank=2, branch=branch)
    edits = [each.edit(picture(), "make it blue", seed=0).tokens for each in (editor, own)]
    assert torch.equal(*edits)


@pytest.mark.parametrize("branch", ["both", "source"])
def test_only_the_adapter_learns(tuned, editor, branch):
    tuner = tuned(change={"rank": 2, "branch": branch})
    base = editor.transformer.state_dict()
    tuner.run()
    after = tuner.editor.transformer.state_dict()
    for name, tensor in base.items():
        layer, _, kind = name.rpartition(".")
        now = after.get(name, after.get(f"{layer}.base_layer.{kind}"))
        assert torch.equal(tensor, now), name
    still = {name.split(".lora_B")[0] for name, tensor in after.items() if "lora_B" in name and not tensor.any()}
    last = "single_transformer_blocks.1."  # what its source rows come to is not decoded
    assert still == (set() if branch == "both" else {last + "attn.to_q", last + "proj_mlp", last + "proj_out"})


def test_the_source_adapter_leaves_text_to_image_alone(editor, adapted):
    own, both = adapted("source"), adapted("both")
    pictures = [each.generate("a blue ball", seed=0).tokens for each in (editor, own, both)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_the_source_adapter_changes_the_source_rows_alone(adapted, picture):
    own = adapted("source")
    block, seen = own.transformer.transformer_blocks[0], {}
    layer = block.attn.to_q
    layer.register_forward_hook(lambda module, inputs, output: seen.update(inputs=inputs[0], output=output))
    list(own.steps(picture(), "make it blue", steps=1, seed=0))
    plain = layer.base_layer(seen["inputs"])  # [B, image + source, D]
    half = plain.shape[1] // 2
    assert torch.equal(seen["output"][:, :half], plain[:, :half])
    assert not torch.allclose(seen["output"][:, half:], plain[:, half:])


def test_the_source_adapter_works_in_two_threads(adapted, picture):
    """Text to image in one thread, an edit in another, at once: neither takes the other's rows."""
    own = adapted("source")
    alone = own.edit(picture(), "make it blue", seed=0).tokens, own.generate("a blue ball", seed=0).tokens
    found = {}
    work = {
        "edit": lambda: [own.edit(picture(), "make it blue", seed=0).tokens for _ in range(3)],
        "generate": lambda: [own.generate("a blue ball", seed=0).tokens for _ in range(3)],
    }
    threads = [threading.Thread(target=lambda name=name: found.update({name: work[name]()})) for name in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(tokens, alone[0]) for tokens in found["edit"])
    assert all(torch.equal(tokens, alone[1]) for tokens in found["generate"])


@pytest.mark.parametrize("branch", ["both", "source"])
def test_an_adapter_is_saved_and_loaded(editor, adapted, picture, tmp_path, branch):
    own, fresh = adapted(branch), copy.deepcopy(editor)
    file = save_adapter(own.transformer, tmp_path)
    assert file.stat().st_size < 2_000_000
    load_adapter(fresh.transformer, tmp_path)
    for each in (fresh, copy.deepcopy(fresh)):
        edits = [editor.edit(picture(), "make it blue", seed=0).tokens for editor in (own, each)]
        assert torch.equal(*edits)
    assert torch.equal(own.generate("a ball", seed=0).tokens, fresh.generate("a ball", seed=0).tokens)


def test_an_adapter_for_another_model(editor, adapted, tmp_path):
    save_adapter(adapted("both").transformer, tmp_path)
    other = copy.deepcopy(editor)
    with torch.no_grad():
        other.transformer.project_from_hidden.weight.mul_(2)
    before = list(other.transformer.state_dict())
    with pytest.raises(CheckpointError, match="another model"):
        load_adapter(other.transformer, tmp_path)
    assert list(other.transformer.state_dict()) == before


def test_no_adapter(editor, adapted, tmp_path):
    with pytest.raises(CheckpointError, match="is no adapter"):
        load_adapter(editor.transformer, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="is no adapter"):
        load_adapter(editor.transformer, tmp_path)
    with pytest.raises(SettingError, match="no adapter"):
        save_adapter(editor.transformer, tmp_path)
    with pytest.raises(SettingError, match="already"):
        add_adapter(adapted("both").transformer, rank=2)


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 0}, {"rank": 2.5}, {"rank": "8"}, {"rank": True}, {"rank": None}, {"branch": "image"}, {"branch": []}],
    ids=str,
)
def test_adapters_that_cannot_be(editor, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        add_adapter(editor.transformer, **{"rank": 2} | wrong)
