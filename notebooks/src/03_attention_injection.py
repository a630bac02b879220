# %% [markdown]
# # Stage 3: how text to image becomes editing
#
# **The claim: no parameter makes an editor out of a text-to-image network. It is enough to let it look at the source's
# tokens, and one number, γ, says how hard it looks.** At γ = 0 the network makes pictures from text alone; as γ grows
# it keeps more and more of the source. You will build the joint attention and its bias by hand, turn γ, and check that
# it is really the *right* source that matters.
#
# About 12 minutes to read, under two minutes to run on a laptop's CPU.

# %%
import inspect
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.attention import attention_probabilities, injection_bias, position_ids
from editmgt_lab.evaluation import edit_score
from editmgt_lab.images import to_tensor

torch.set_grad_enabled(False)
editor = lab.load()
transformer = editor.transformer
sample = lab.crisp.sample_edit(0, split="test", category="remove")
instruction, MASK = sample.instruction, editor.mask_token_id

# %% [markdown]
# ## Three things side by side
#
# The network sees one long row of positions: the **text**, the **image** it is making (all masked at first), and, in an
# edit, the **source**. Image and source go through the same weights and stand at the same places: the position ids of
# the second are those of the first, once more.

# %%
print(position_ids(text=2, grid=(2, 2), pictures=2))

# %% [markdown]
# What tells them apart is the **timestep**. It modulates every block. The image's timestep says how far decoding has
# come; the source's is fixed at 0, as if it were finished, and it is finished. So at the last step, and only there, the
# network treats both alike.

# %%
text = editor.encode_text(instruction)
source = editor.tokenize(sample.source)
for step in (11, 6, 1, 0):
    image_condition, source_condition = transformer.conditions(source, text, torch.tensor([step]), None, True)
    print(f"timestep {step:2}: image and source are modulated {(image_condition - source_condition).norm():6.2f} apart")

# %% [markdown]
# ## No new parameter
#
# The forward pass takes a source or it does not. Nothing in the network's list of parameters is used in one case only,
# except that with a source there is more to look at.

# %%
print(inspect.signature(transformer.forward))
masked = torch.full_like(source, MASK)
without = transformer(masked, text, torch.tensor([11.0]))
with_source = transformer(masked, text, torch.tensor([11.0]), source=source)
print("the most probable token is the source's:")
print(f"  text to image  {(without.argmax(1) == source).float().mean():.0%}")
print(f"  with a source  {(with_source.argmax(1) == source).float().mean():.0%}")

# %% [markdown]
# ## The bias, by hand
#
# Attention is a softmax over scores. To make the image look at the source γ times as hard, multiply those weights by γ
# before they are normalised, which is to add **ℰ = log γ** to the scores. Here are four positions of text, three of
# image and three of source, and a γ of 3.


# %%
def bias_matrix(text, image, strength, bias_text=False):
    """[T, T]: log γ where image and source look at each other. bias_text: and where text and source do."""
    total = text + 2 * image
    E = torch.zeros(total, total)
    source = slice(text + image, total)
    others = slice(0 if bias_text else text, text + image)
    E[source, others] = E[others, source] = math.log(strength)
    return E


for form in (False, True):
    assert torch.equal(bias_matrix(4, 3, 3.0, form), injection_bias(4, 3, 3.0, bias_text=form))

# %%
forms = {False: "the paper's bias", True: "the released code's bias"}
shown = {form: plt.cm.Purples(bias_matrix(4, 3, 3.0, form) / 1.4)[..., :3] for form in forms}
views.panels_figure([[(shown[form], name) for form, name in forms.items()]])

# %% [markdown]
# From the left and from the top: four positions of text, three of image, three of source. Rows look, columns are looked
# at; purple is log γ, white is 0. The paper leaves every pair with text in it alone. The released code strengthens text
# ↔ source as well. Both are here; `bias_text` chooses. And this is what the bias does to one row of a softmax: the
# weights on the source are multiplied by γ, then all are normalised again.

# %%
torch.manual_seed(0)
q, k = torch.randn(2, 1, 1, 10, 8)
plain = attention_probabilities(q, k)[0, 0, 4]  # an image position's row: 4 text, 3 image, 3 source
biased = attention_probabilities(q, k, bias_matrix(4, 3, 3.0))[0, 0, 4]
print("plain  ", plain.numpy().round(2))
print("γ = 3  ", biased.numpy().round(2))
by_hand = plain * torch.tensor([1.0] * 7 + [3.0] * 3)
torch.testing.assert_close(biased, by_hand / by_hand.sum())

# %% [markdown]
# ## γ at its ends
#
# At γ = 0 the source is left out, and what remains is text to image, exactly. Just above 0 the two forms differ. With
# the released bias nobody looks at the source any more. With the paper's bias the *text* still does, and tells the
# image.

# %%
zero = transformer(masked, text, torch.tensor([11.0]), source=source, strength=0.0)
assert torch.equal(zero, without)
for form, name in ((True, "released"), (False, "paper's")):
    tiny = transformer(masked, text, torch.tensor([11.0]), source=source, strength=1e-6, bias_text=form)
    print(f"γ = 0.000001, {name:8} bias: {(tiny - without).abs().max():.5f} from text to image")

# %% [markdown]
# ## Turn it
#
# The same edit at rising γ, the same seed. Watch the objects that the instruction does not name.

# %%
strengths = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
edits = [editor.edit(sample.source, instruction, strength=s, hold_threshold=0, seed=0) for s in strengths]
row = [(sample.source, "source"), *((e.image, f"γ = {s:g}") for s, e in zip(strengths, edits, strict=True))]
views.panels_figure([row[:4], row[4:]], [f"“{instruction}”", ""])

# %% [markdown]
# Now the numbers, on 16 edits without guidance, with both forms of the bias: **L1 to the source**, how much changes at
# all, and the **edit score**, how much of the asked change was made (0 … 10).

# %%
samples = [lab.crisp.sample_edit(seed, split="test") for seed in range(16)]
pictures, instructions = [s.source for s in samples], [s.instruction for s in samples]
before, wanted = (to_tensor(editor.detokenize(editor.tokenize(p))) for p in (pictures, [s.target for s in samples]))
inside = to_tensor([s.mask for s in samples])[:, 0] > 0.5


def measure(outputs):
    """Mean L1 to the source and mean edit score of pictures, one for each sample."""
    outputs = to_tensor(outputs)
    scores = [edit_score(o, b, w, m) for o, b, w, m in zip(outputs, before, wanted, inside, strict=True)]
    return float((outputs - before).abs().mean()), float(np.nanmean(scores))


curves = {}
for form in (False, True):
    editor.defaults = replace(editor.defaults, bias_text=form)
    curves[form] = [
        measure(editor.edit(pictures, instructions, strength=s, hold_threshold=0, guidance_scale=1.0, seed=0).images)
        for s in strengths
    ]
editor.defaults = replace(editor.defaults, bias_text=False)

# %%
panels = []
for which, name in enumerate(("L1 to the source", "edit score")):
    by_form = {forms[form]: (strengths, [point[which] for point in points]) for form, points in curves.items()}
    panels.append(("γ", name, by_form))
views.curves_figure(panels)

# %% [markdown]
# ## The control: another source
#
# If the network only needed *some* picture to look at, any would do. So give each edit the source of its neighbour. The
# result must now resemble the neighbour, and not its own source.


# %%
def edit_with(sources):
    """Decode with the instructions of `samples` and any sources [B, 16, 16]: the editor's loop, without a hold."""
    tokens, texts = torch.full_like(sources, MASK), editor.encode_text(instructions)
    sampler = lab.RegionHoldSampler(MASK, 12)
    generator = torch.Generator().manual_seed(0)
    for k in range(12):
        logits = transformer(tokens, texts, torch.full((len(sources),), 11.0 - k), source=sources)
        tokens = sampler.step(logits, tokens, k, generator=generator)
    return to_tensor(editor.detokenize(tokens))


own = editor.tokenize(pictures)
right, wrong = edit_with(own), edit_with(own.roll(1, 0))
distances = {
    "own source, compared with it": (right - before).abs().mean(),
    "neighbour's source, compared with its own": (wrong - before).abs().mean(),
    "neighbour's source, compared with that": (wrong - before.roll(1, 0)).abs().mean(),
}
for name, distance in distances.items():
    print(f"{name:42} L1 {distance:.3f}")

# %%
own_l1, wrong_l1, swapped_l1 = distances.values()
assert swapped_l1 < 0.7 * wrong_l1, "the edit follows the source that it is shown ..."
assert wrong_l1 > 1.3 * own_l1, "... and that alone"
l1 = [point[0] for point in curves[False]]
assert l1[0] > 1.5 * l1[3], "γ = 0 makes another picture"

# %% [markdown]
# ## What can go wrong
#
# In the released code γ is *stored on the modules* when an edit is made and never reset, so the strength of the last
# edit leaks into the next. Here it is an argument of the forward pass, and nothing remains:

# %%
before_it = transformer(masked, text, torch.tensor([11.0]), source=source)
transformer(masked, text, torch.tensor([11.0]), source=source, strength=3.0)
assert torch.equal(before_it, transformer(masked, text, torch.tensor([11.0]), source=source))

# %% [markdown]
# ## Touch it: the injection dial
#
# Turn γ and let go. Every strength that you try stays in the strip below, so that you can compare them; the two tabs
# switch between the two forms of the bias.

# %%
dial = views.injection_dial(editor, sample.source, instruction)
dial.pending.result()
dial

# %% [markdown]
# ## Exercises
#
# **1. Double it.** (3 minutes) An image position gives 40% of its attention to the source, 35% to the image, 25% to the
# text. What share does the source get at γ = 2, with the paper's bias?

# %%
share = ...  # your answer, between 0 and 1


def check_share(share):
    assert abs(share - 0.8 / 1.4) < 0.01, "multiply by γ, then make the sum 1 again"
    print("right:", round(share, 3))


# check_share(share)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# share = 2 * 0.40 / (2 * 0.40 + 0.35 + 0.25)  # 0.571
# check_share(share)
# ```
#
# </details>
#
# **2. Which way does it flow?** (10 minutes) The bias is symmetric: it also makes the source look at the image. Does
# that matter? Build a bias that strengthens only *image looks at source*, and leaves *source looks at image* at 0.


# %%
def one_way(text, image, strength):
    """[T, T] with T = text + 2 · image."""
    ...  # your lines here


def check_one_way(one_way):
    E = one_way(4, 3, 3.0)
    assert E.shape == (10, 10) and torch.allclose(E[4:7, 7:], torch.tensor(math.log(3.0)))
    E[4:7, 7:] = 0
    assert not E.any(), "every other pair stays at 0"
    print("right")


# check_one_way(one_way)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def one_way(text, image, strength):
#     E = torch.zeros(text + 2 * image, text + 2 * image)
#     E[text : text + image, text + image :] = math.log(strength)
#     return E
#
# check_one_way(one_way)
# ```
#
# To try it on the network, patch `editmgt_lab.transformer.injection_bias` with it.
#
# </details>
#
# ## With the full model
#
# The released editor is used at γ = 1.1 with the released bias. On a GPU, in a new cell:
#
# ```python
# editor = lab.load("WeiChow/EditMGT", dtype=torch.bfloat16)
# views.injection_dial(editor, "photo.jpg", "make it autumn", steps=36)
# ```
