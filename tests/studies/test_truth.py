"""What is measured of an edit's maps is what the editor makes of them, whatever its defaults."""

import pytest
import torch

import editmgt_lab as lab
from editmgt_lab.metrics.truth import draw_truths, heat_of
from editmgt_lab.views.finetune_dashboard.samples import ALL, Samples

DEFAULTS = [
    {"heat_from": "both", "smooth": False, "hold_by": "mean"},
    {"heat_from": "image", "heat_keys": "generated", "heat_padding": True, "hold_by": "mean"},
]


@pytest.mark.parametrize("defaults", DEFAULTS, ids=["both", "released"])
def test_heat_of_the_captured_steps(editor, defaults):
    own = editor.with_defaults(**defaults)
    (truth,) = draw_truths(own, split="validation", count=2)
    result, steps = truth.edit_with_maps(own, 0, steps=3, guidance_scale=2.0)
    torch.testing.assert_close(heat_of(own, steps, own.defaults.blocks), result.mean_heat, atol=1e-4, rtol=0)


@pytest.mark.parametrize("defaults", DEFAULTS, ids=["both", "released"])
def test_heat_of_the_dashboards_samples(editor, defaults):
    own = editor.with_defaults(**defaults)
    sample = lab.world.sample_edit(1, category="color", size=32)
    samples = Samples(own, [sample], None)
    found = samples.edit(own, 0).heats[samples.words.index(ALL)]
    heat = own.edit(sample.source, sample.instruction, seed=0).heat[0]
    torch.testing.assert_close(torch.from_numpy(found), heat, atol=1e-4, rtol=0)
