"""The fine-tuning dashboard trains beside the cell, tells the page only what is new, and shows what goes wrong."""

import base64
import io
import json
import sys
import threading
import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.errors import SettingError, TextError
from editmgt_lab.finetuning import Finetuner, FinetuneSettings, TokenPairs, load_adapter
from editmgt_lab.views.finetune_dashboard.finetune_dashboard import FinetuneDashboard
from editmgt_lab.views.finetune_dashboard.samples import ALL, Samples
from editmgt_lab.views.widget import HERE, SHARED, source
from tests.support import PATIENCE, until

INSTRUCTION = "make the ball blue"
SETTINGS = {"steps": 6, "batch": 2, "rank": 2, "validate_every": 3, "save_every": 2}


@pytest.fixture
def fresh(tiny_folder):
    """An editor of the test's own, since training changes it."""
    return lab.load(tiny_folder, device="cpu")


@pytest.fixture
def samples(picture):
    """One of the drawn world, which has a target, and one that has none."""
    return [lab.world.sample_edit(1, category="color", size=32), (picture(), INSTRUCTION)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sys.modules[FinetuneDashboard.__module__], "EVERY", 0.02)
    monkeypatch.setattr(FinetuneDashboard, "opened", weakref.WeakSet())


def finetuner(editor, picture, folder=None, **settings):
    tokens = editor.tokenize([picture(seed=seed) for seed in range(8)])
    pairs = TokenPairs(tokens[:4], tokens[4:], [INSTRUCTION] * 4)
    return Finetuner(editor, pairs, FinetuneSettings(**SETTINGS | settings), validation=pairs, folder=folder)


class Gate:
    """Lets a finetuner's steps through one by one. begun: of each that came to it, whether there was a pause."""

    def __init__(self, trained):
        self.go, self.step, self.trained = threading.Semaphore(0), trained._step, trained
        self.begun = []
        trained._step = self.pass_through

    def pass_through(self):
        self.begun.append(self.trained.paused)
        assert self.go.acquire(timeout=PATIENCE)
        return self.step()


def told(dashboard, monkeypatch):
    """What the page is sent from now on, apart from traits."""
    sent = []
    monkeypatch.setattr(dashboard, "send", lambda content, buffers=None: sent.append(content))
    return sent


def weights(trained):
    return torch.cat([weight.detach().flatten() for weight in trained.trained])


def test_a_training_from_the_first_step_to_the_last(fresh, picture, samples, monkeypatch):
    trained = finetuner(fresh, picture)
    dashboard = views.finetune_dashboard(trained, samples)
    sent = told(dashboard, monkeypatch)
    assert dashboard.state == "ready" and dashboard.data["samples"][1]["target"] is None
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and dashboard.status["done"] == 6 and dashboard.message == ""
    assert dashboard.status["left"] == 0
    losses = [entry["loss"] for entry in trained.history]
    np.testing.assert_allclose([values[0] for values in dashboard.curves], losses, rtol=1e-4)
    assert dashboard.curves[0][1] == dashboard.curves[0][0], "the first mean is of the first step alone"
    assert [step for step, _ in dashboard.validations] == [3, 6]
    assert (dashboard.before["step"], dashboard.now["step"]) == (0, 6)

    page = []
    for content in sent:  # as the page takes them
        assert content["kind"] == "steps" and content["known"] == len(page), "nothing twice, nothing left out"
        page += content["steps"]
    assert page == dashboard.curves


def test_the_samples_are_edited_by_the_editor_as_it_was_and_as_it_is(fresh, picture, samples):
    asked = [samples[0].source, samples[1][0]], [samples[0].instruction, samples[1][1]]
    expected = {"before": fresh.edit(*asked, seed=0)}
    dashboard = views.finetune_dashboard(finetuner(fresh, picture, learning_rate=0.1), samples)
    dashboard.start()
    dashboard.wait(PATIENCE)
    expected["now"] = fresh.edit(*asked, seed=0)
    words = dashboard.samples.words
    assert words == ["all words", *dict.fromkeys(samples[0].instruction.split())]
    for name, result in expected.items():
        edits = dashboard.samples.edits[name]
        for edited, picture_ in zip(edits.pictures, result.images, strict=True):
            np.testing.assert_array_equal(np.asarray(edited), np.asarray(picture_))
        np.testing.assert_allclose(edits.heats[0], result.heat[0], atol=2e-5)
        assert len({heat.tobytes() for heat in edits.heats}) == len(words), "every word has a map of its own"
    assert not np.array_equal(dashboard.samples.edits["before"].heats, dashboard.samples.edits["now"].heats)


def test_a_words_map_is_that_of_the_word(fresh, picture):
    """With nothing held, the focus changes the heat map and not the edit."""
    fresh.defaults = replace(fresh.defaults, hold_threshold=0)
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), [(picture(), INSTRUCTION)], word="ball blue")
    dashboard.pending.result(timeout=PATIENCE)
    assert dashboard.word == "ball blue" and dashboard.samples.words[-1] == "ball blue"
    for name in ("ball", "ball blue"):
        heat = fresh.edit(picture(), INSTRUCTION, seed=0, focus=name).heat[0]
        place = dashboard.samples.words.index(name)
        np.testing.assert_allclose(dashboard.samples.edits["before"].heats[place], heat, atol=2e-5)


def test_a_validation_is_told_whenever_it_comes(fresh, picture, samples):
    """The dashboard may look at a step before it is validated."""
    trained = finetuner(fresh, picture)
    loss, entered, go = trained.validation_loss, threading.Event(), threading.Event()

    def slowly():
        entered.set()
        assert go.wait(PATIENCE)
        return loss()

    trained.validation_loss = slowly
    dashboard = views.finetune_dashboard(trained, samples)
    dashboard.start()
    assert entered.wait(PATIENCE)
    until(lambda: len(dashboard.curves) == 3, "the step that is being validated")
    assert dashboard.validations == []
    go.set()
    dashboard.wait(PATIENCE)
    assert [step for step, _ in dashboard.validations] == [3, 6] and len(dashboard.curves) == 6


def test_it_can_be_waited_for_the_first_edits(fresh, picture, samples):
    trained = finetuner(fresh, picture)
    gate, dashboard = Gate(trained), views.finetune_dashboard(trained, samples)
    dashboard.wait(edits=True)  # nothing has begun
    dashboard.start()
    dashboard.wait(0.01, edits=True)
    assert dashboard.now.get("step", 0) == 0
    gate.go.release(3)
    dashboard.wait(PATIENCE, edits=True)
    assert dashboard.now["step"] == 3 and dashboard.training
    gate.go.release(3)
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished"


@pytest.mark.parametrize("end", ["stop", "error"])
def test_who_waits_for_edits_is_told_of_the_end(fresh, picture, samples, monkeypatch, end):
    trained = finetuner(fresh, picture, steps=500, validate_every=500)
    dashboard = views.finetune_dashboard(trained, samples)
    if end == "error":
        monkeypatch.setattr(trained.objective, "loss", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    dashboard.start()
    if end == "error":
        with pytest.raises(lab.LabError, match="the loss of step 0"):
            dashboard.wait(PATIENCE, edits=True)
    else:
        dashboard.stop()
        dashboard.wait(PATIENCE, edits=True)
        dashboard.wait(PATIENCE)
    assert dashboard.state == ("failed" if end == "error" else "stopped") and trained.done < 500


def test_samples_of_several_sizes(fresh, picture):
    samples = [(picture(64, 24), INSTRUCTION), (picture(), INSTRUCTION)]
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), samples)
    dashboard.pending.result(timeout=PATIENCE)
    sizes = [sample.source.size for sample in dashboard.samples.shown]
    assert len(set(sizes)) == 2 and [edit.size for edit in dashboard.samples.edits["now"].pictures] == sizes
    heat = fresh.edit(*samples[0], seed=0).heat[0]
    np.testing.assert_allclose(dashboard.samples.edits["now"].heats[0], heat, atol=2e-5)


def test_watching_saving_and_pausing_change_nothing(tiny_folder, picture, samples, tmp_path):
    alone, watched = (finetuner(lab.load(tiny_folder, device="cpu"), picture) for _ in range(2))
    alone.run(bar=False)
    gate, dashboard = Gate(watched), views.finetune_dashboard(watched, samples)
    resting, wait = threading.Event(), watched._going.wait
    watched._going.wait = lambda: (watched.paused and resting.set(), wait())
    dashboard.start()
    gate.go.release(2)
    until(lambda: len(gate.begun) == 3, "step 3 to begin")
    dashboard.pause()
    assert dashboard.state == "paused"
    saving = threading.Thread(target=dashboard.save, args=(tmp_path / "adapter",))
    saving.start()
    gate.go.release()
    saving.join(PATIENCE)
    assert (tmp_path / "adapter").is_dir()
    until(lambda: watched.done == 3, "step 3")
    gate.go.release(100)
    until(lambda: resting.is_set() or len(gate.begun) > 3, "the training to rest, or not to")
    dashboard.resume()
    dashboard.wait(PATIENCE)
    assert not any(gate.begun), "a pause holds"
    assert torch.equal(weights(alone), weights(watched))


def test_a_stop_keeps_what_was_learned_and_start_goes_on(fresh, picture, samples, tmp_path):
    trained = finetuner(fresh, picture, tmp_path / "run")
    gate, dashboard = Gate(trained), views.finetune_dashboard(trained, samples)
    assert dashboard.folder == str(tmp_path / "run" / "adapter")
    dashboard.start()
    gate.go.release(3)
    until(lambda: trained.done == 3, "step 3")
    dashboard.stop()
    assert dashboard.state == "stopping"
    gate.go.release()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "stopped" and dashboard.status["done"] == dashboard.now["step"] in (3, 4)
    gate.go.release(10)
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and len(dashboard.curves) == 6


@contextmanager
def held_up(transformer):
    """Inside the context every pass waits for `go`; `begun` is set with the first; `passes` counts them."""
    begun, go, passes = threading.Event(), threading.Event(), []

    def decoding(*_):
        passes.append(1)
        begun.set()
        assert go.wait(PATIENCE)

    with transformer.register_forward_pre_hook(decoding):
        yield begun, go, passes


def test_the_edits_before_the_training_end_with_their_cancel(fresh, picture, samples):
    trained = finetuner(fresh, picture)
    with held_up(fresh.transformer) as (begun, go, passes):
        dashboard = views.finetune_dashboard(trained, samples)
        assert begun.wait(PATIENCE)
        dashboard.cancel()
        go.set()
        dashboard.pending.result(timeout=PATIENCE)
    assert len(passes) == 1 < fresh.defaults.steps and dashboard.before == {} and dashboard.message == "cancelled"
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and dashboard.before["step"] == 0


def test_a_training_whose_edits_before_it_were_cancelled(fresh, picture, samples):
    trained = finetuner(fresh, picture)
    with held_up(fresh.transformer) as (begun, go, _):
        dashboard = views.finetune_dashboard(trained, samples)
        assert begun.wait(PATIENCE)
        dashboard.start()
        dashboard.cancel()
        go.set()
        dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and dashboard.before == {} and dashboard.now["step"] == 6
    assert dashboard.message == "", "that they were cancelled was said before"


def test_a_cancel_from_a_cell_is_a_stop_after_which_it_goes_on(fresh, picture, samples, tmp_path):
    trained = finetuner(fresh, picture, tmp_path / "run")
    gate, dashboard = Gate(trained), views.finetune_dashboard(trained, samples)
    dashboard.start()
    gate.go.release(3)
    until(lambda: len(gate.begun) == 4, "step 4 to begin")
    trained.cancel()
    gate.go.release(10)
    dashboard.wait(PATIENCE)
    assert trained.done == 4 and dashboard.status["state"] == "stopped"
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and len(dashboard.curves) == 6


def test_a_validation_that_diverged_is_no_number(fresh, picture, samples, tmp_path, monkeypatch):
    trained = finetuner(fresh, picture)
    losses = iter([1.5, np.nan])
    monkeypatch.setattr(trained, "validation_loss", lambda: next(losses))
    dashboard = views.finetune_dashboard(trained, samples)
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.validations == [[3, 1.5], [6, None]]
    np.testing.assert_array_equal(dashboard.arrays()["validation"], [[3, 1.5], [6, np.nan]])
    assert dashboard.save_figure(tmp_path / "figure.png").exists()


def test_a_stop_before_the_first_step_is_not_lost(fresh, picture, samples):
    trained = finetuner(fresh, picture, steps=500)
    dashboard = views.finetune_dashboard(trained, samples)
    dashboard.start()
    dashboard.stop()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "stopped" and trained.done < 500


def test_after_an_error_it_goes_on_from_the_last_checkpoint(fresh, picture, samples, tmp_path, monkeypatch):
    trained = finetuner(fresh, picture, tmp_path)
    dashboard, loss, bad = views.finetune_dashboard(trained, samples), trained.objective.loss, [True]

    def broken(*asked):
        return loss(*asked) * (np.nan if bad and trained.done == 5 else 1)

    monkeypatch.setattr(trained.objective, "loss", broken)
    dashboard.start()
    with pytest.raises(lab.LabError, match="the loss of step 5"):
        dashboard.wait(PATIENCE)
    assert dashboard.state == "failed" and dashboard.wrong and "the loss of step 5" in dashboard.message
    assert len(dashboard.curves) == 5
    bad.clear()
    sent = told(dashboard, monkeypatch)
    dashboard._handle_custom_msg({"kind": "start"}, [])
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and dashboard.message == "" and not dashboard.wrong
    assert len(dashboard.curves) == 6 and [step for step, _ in dashboard.validations] == [3, 6]
    assert sent[0]["known"] == 0 and len(sent[0]["steps"]) == 4, "what was taken back, anew"


def test_it_opens_on_a_run_that_was_interrupted(tiny_folder, picture, samples, tmp_path):
    first, second = (lab.load(tiny_folder, device="cpu") for _ in range(2))
    trained = finetuner(first, picture, tmp_path, learning_rate=0.1)
    trained.show = lambda editor: trained.cancel()  # at step 3
    trained.run(bar=False)
    dashboard = views.finetune_dashboard(finetuner(second, picture, tmp_path, learning_rate=0.1), samples)
    assert dashboard.state == "ready" and dashboard.status["done"] == 3 == len(dashboard.curves)
    dashboard.pending.result(timeout=PATIENCE)
    stopped = first.edit([samples[0].source, samples[1][0]], [samples[0].instruction, INSTRUCTION], seed=0)
    for picture_, edit in zip(dashboard.samples.edits["before"].pictures, stopped.images, strict=True):
        np.testing.assert_array_equal(np.asarray(picture_), np.asarray(edit), "with averaged weights")
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert (dashboard.before["step"], dashboard.now["step"]) == (3, 6) and len(dashboard.curves) == 6


def test_a_full_disk_is_said_and_no_training_is_lost(fresh, picture, samples, tmp_path, monkeypatch):
    trained = finetuner(fresh, picture, tmp_path)
    dashboard = views.finetune_dashboard(trained, samples)
    with monkeypatch.context() as full:
        full.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
        dashboard.start()
        with pytest.raises(lab.LabError, match="No space left"):
            dashboard.wait(PATIENCE)
    assert dashboard.state == "failed" and "No space left" in dashboard.message
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished"


def test_samples_that_cannot_be_edited_do_not_end_the_training(fresh, picture, samples, monkeypatch):
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), samples)
    dashboard.pending.result(timeout=PATIENCE)
    monkeypatch.setattr(fresh, "edit", None)
    dashboard.start()
    dashboard.wait(PATIENCE)
    assert dashboard.state == "finished" and dashboard.wrong and dashboard.message.startswith("TypeError")
    assert not dashboard.status["editing"]


def test_opened_again_it_is_the_same(fresh, picture, samples):
    trained = finetuner(fresh, picture, rank=0)
    gate, dashboard = Gate(trained), views.finetune_dashboard(trained, samples)
    dashboard.start()
    gate.go.release()
    until(lambda: len(dashboard.curves) == 1, "a step's losses")
    assert views.finetune_dashboard(trained, samples) is dashboard
    state = dashboard.get_state()  # what a page that opens asks for
    assert len(state["curves"]) == 1 and state["status"]["state"] == "training"

    other = finetuner(fresh, picture, rank=0)
    with pytest.raises(lab.LabError, match="another dashboard"):
        views.finetune_dashboard(other, samples)
    gate.go.release(10)
    dashboard.wait(PATIENCE)
    second = views.finetune_dashboard(other, samples)
    assert second is not dashboard and second.state == "ready"
    second.start()
    with pytest.raises(lab.LabError, match="another dashboard"):
        dashboard.start()
    second.wait(PATIENCE)


def test_opened_again_with_something_else_it_is_refused(fresh, picture, samples):
    trained = finetuner(fresh, picture)
    dashboard = views.finetune_dashboard(trained, samples, word="the")
    again = [lab.world.sample_edit(1, category="color", size=32), (picture(), INSTRUCTION)]
    assert views.finetune_dashboard(trained, again, word="the") is dashboard
    for others, word in ((samples, None), (samples, "ball"), (samples[:1], "the"), (samples[::-1], "the"), ([], "the"),
                         ([samples[0], (picture(seed=1), INSTRUCTION)], "the"),
                         ([samples[0], (picture(), "remove it")], "the")):  # fmt: skip
        with pytest.raises(SettingError, match="close it first" if others else "0 samples"):
            views.finetune_dashboard(trained, others, word=word)
    dashboard.close()
    assert views.finetune_dashboard(trained, samples) is not dashboard


def test_after_a_close_there_is_another(fresh, picture, samples):
    trained = finetuner(fresh, picture)
    given = trained.show
    first = views.finetune_dashboard(trained, samples)
    first.close()
    assert trained.show == given
    second = views.finetune_dashboard(trained, samples)
    assert second is not first and second.comm is not None
    second.start()
    second.close()
    second.wait(PATIENCE)
    assert trained.done == SETTINGS["steps"], "the training does not end with its page"
    assert trained.show == given and views.finetune_dashboard(trained, samples).state == "finished"


def test_a_page_that_missed_something_gets_it(fresh, picture, samples, monkeypatch):
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), samples)
    dashboard._handle_custom_msg({"kind": "start"}, [])
    dashboard.wait(PATIENCE)
    sent = told(dashboard, monkeypatch)
    dashboard._handle_custom_msg({"kind": "since", "known": 4}, [])
    assert sent == [{"kind": "steps", "known": 4, "steps": dashboard.curves[4:]}]


def test_an_adapter_is_saved_as_it_edits(fresh, tiny_folder, picture, samples, tmp_path):
    dashboard = views.finetune_dashboard(finetuner(fresh, picture, learning_rate=0.1), samples)
    dashboard.start()
    dashboard.wait(PATIENCE)
    folder = dashboard.save(tmp_path / "mine" / "adapter")
    assert str(folder) in dashboard.saved and "adapter of step 6 saved" in dashboard.saved
    assert dashboard.save(folder) == folder, "its own it may write again"
    other = lab.load(tiny_folder, device="cpu")
    load_adapter(other.transformer, folder)
    asked = picture(), INSTRUCTION
    assert torch.equal(other.edit(*asked, seed=1).tokens, fresh.edit(*asked, seed=1).tokens)


def test_an_editor_is_saved_whole(fresh, picture, samples, tmp_path):
    dashboard = views.finetune_dashboard(finetuner(fresh, picture, rank=0, learning_rate=0.01), samples)
    dashboard.start()
    dashboard.wait(PATIENCE)
    again = lab.load(dashboard.save(tmp_path / "editor"), device="cpu")
    asked = picture(), INSTRUCTION
    assert torch.equal(again.edit(*asked, seed=1).tokens, fresh.edit(*asked, seed=1).tokens)
    assert again.defaults == fresh.defaults and "editor of step 6 saved" in dashboard.saved


@pytest.mark.parametrize("place, said", [("file/deep", "cannot save"), ("full", "there are files"), (" ", "no folder")])
def test_a_folder_that_will_not_do_is_said(fresh, picture, samples, tmp_path, place, said):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").touch()
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), samples)
    folder = str(tmp_path / place) if place.strip() else place
    dashboard._handle_custom_msg({"kind": "save", "folder": folder}, [])
    until(lambda: dashboard.wrong, "what is wrong")
    assert said in dashboard.message and dashboard.saved == ""


@pytest.mark.parametrize(
    "instruction, names",
    [("enle\u0300ve l'e\u0301toile", ["enlève", "l'étoile"]), ("don't move, ball!", ["don't", "move", "ball"]),
     ("remove the Lego™ ball", ["remove", "the", "ball"])],
)  # fmt: skip
def test_a_valid_instruction_is_taken_with_its_words_whole(editor, picture, instruction, names):
    samples = Samples(editor, [(picture(), instruction)], None)
    assert samples.words == [ALL, *names]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("bad, said", [("  ", "blank"), ("ball " * 500, "text tokens"), (7, "int")])
def test_every_samples_instruction_is_checked(editor, picture, place, bad, said):
    samples = [(picture(), INSTRUCTION)] * 2
    samples[place] = (picture(), bad)
    with pytest.raises(TextError, match=said):
        Samples(editor, samples, None)


@pytest.mark.parametrize("many, word, said", [(0, None, "0 samples"), (7, None, "7 samples"), (1, "hat", "'hat'")])
def test_bad_samples_and_words_are_refused(fresh, picture, many, word, said):
    trained = finetuner(fresh, picture)
    with pytest.raises(lab.LabError, match=said):
        views.finetune_dashboard(trained, [(picture(), INSTRUCTION)] * many, word=word)
    assert not FinetuneDashboard.opened


@pytest.mark.parametrize(
    "bad", [lambda sample: sample, lambda sample: [sample.source], lambda sample: [(sample.source,)],
            lambda sample: (sample.source, INSTRUCTION), lambda sample: ["ab"], lambda sample: None],
)  # fmt: skip
def test_what_are_no_samples_is_refused(fresh, picture, samples, bad):
    with pytest.raises(SettingError, match="no samples"):
        views.finetune_dashboard(finetuner(fresh, picture), bad(samples[0]))
    assert not FinetuneDashboard.opened


def test_the_figure_counts_whole_steps(fresh, picture, samples):
    dashboard = views.finetune_dashboard(finetuner(fresh, picture, steps=2, rank=np.int64(2)), samples)
    dashboard.start()
    dashboard.wait(PATIENCE)
    for axes in dashboard.figure().subfigs[0].axes:
        low, high = axes.get_xlim()
        assert {tick for tick in axes.get_xticks() if low <= tick <= high} == {1, 2}
    assert json.dumps(dashboard.described())


@pytest.fixture
def finished(fresh, picture, samples):
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), samples, word="the")
    dashboard.start()
    dashboard.wait(PATIENCE)
    return dashboard


def test_it_exports_what_it_shows(finished, tmp_path):
    page = finished.export(tmp_path / "page.html").read_text(encoding="utf-8")
    assert source(FinetuneDashboard.script) in page and page.count("</script>") == 2
    assert page.count("://") == page.count("http://www.w3.org/2000/svg"), "a name, which nothing is fetched from"
    with np.load(finished.save_arrays(tmp_path / "arrays.npz")) as saved:
        assert saved["loss"].shape == (6,) and saved["validation"].shape == (2, 2)
        assert saved["now_1"].shape == saved["target_0"].shape == (32, 32, 3) and "target_1" not in saved
        assert len(saved["heats_now"]) == len(json.loads(str(saved["settings"]))["words"])
    data = finished._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))
    assert drawn.shape[1] > 600 and drawn.std() > 10


def test_before_the_first_edits_there_is_a_page_and_a_figure(fresh, picture, samples, monkeypatch):
    monkeypatch.setattr(fresh, "edit", None)
    dashboard = views.finetune_dashboard(finetuner(fresh, picture), samples)
    dashboard.pending.result(timeout=PATIENCE)
    assert dashboard.wrong and dashboard.message.startswith("TypeError")
    assert dashboard.figure() is not None and dashboard.arrays()["loss"].shape == (0,)


def test_the_module_is_plain():
    shared, own = (file.read_text(encoding="utf-8") for file in (HERE / SHARED, FinetuneDashboard.script))
    assert source(FinetuneDashboard.script) == shared + own.split('from "../lab.js";\n')[1]
