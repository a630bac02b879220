# %% [markdown]
# # Stage 3: how text to image becomes editing
#
# **The claim: no new parameter makes an editor out of a text-to-image network. It is enough to let it look at the
# source's tokens, and one number, the strength γ, says how hard it looks.** That is not to say “no training”: the
# weights are the same for both, and were trained on edits too, beside captions. At γ = 0 the network makes pictures
# from text alone; as γ grows it keeps, on the whole, more and more of the source, and far above 1 it forgets what it
# was asked to do. You will build the joint attention and its bias by hand, turn γ, and check that it is really the
# *right* source that matters.
#
# About 15 minutes to read, under two minutes to run on a laptop's CPU, 15 more for the exercises.

# %%
import inspect
import math
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.attention import attention_probabilities, injection_bias, position_ids
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics import edit_score

torch.set_grad_enabled(False)
editor = lab.load()
transformer = editor.transformer
sample = lab.world.sample_edit(4, split="test", category="color")
instruction, MASK = sample.instruction, editor.mask_token_id

# %% [markdown]
# ## Three things side by side
#
# The network sees one long row of positions: the **text**, the **image** it is making (all masked at first), and, in an
# edit, the **source**. Image and source go through the same weights and stand at the same places: the position ids of
# the second are those of the first, once more. Here for two positions of text and pictures of 2 × 2: a line is one
# position, its last two numbers are row and column. Text stands nowhere, so it has zeros.

# %%
print(position_ids(text=2, grid=(2, 2), pictures=2))

# %% [markdown]
# What tells them apart is the **timestep**, the number of steps that are still to come: 11 in the first of 12, 0 in the
# last. It becomes a vector that *modulates* every block: it sets by how much each channel is scaled and shifted. The
# image has the step's own vector. The source always has that of timestep 0, as if it were finished, and it is finished.
# So at the last step, and only there, the network treats both alike.

# %%
text = editor.encode_text(instruction)
source = editor.tokenize(sample.source)
prepared = transformer.prepare(source, text, source=source)  # what all steps of an edit share, the source's vector too
for timestep in (11, 6, 1, 0):
    vector = transformer.time_text_embed(torch.tensor([1000.0 * timestep]), prepared.pooled)
    apart = (vector - prepared.source_condition).norm() / prepared.source_condition.norm()
    print(f"timestep {timestep:2}: the image's vector differs from the source's by {apart:.0%} of its length")

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
print("of the cells, the most probable token is the source's in")
print(f"  text to image  {(without.argmax(1) == source).float().mean():.0%}")
print(f"  with a source  {(with_source.argmax(1) == source).float().mean():.0%}")

# %% [markdown]
# ## The bias, by hand
#
# Attention is a softmax over scores. To make the image look at the source γ times as hard, multiply those weights by γ
# before they are normalised, which is to add **ℰ = log γ** to the scores. γ = 1 adds nothing, less than 1 makes it look
# away. Here are four positions of text, three of image and three of source, and a γ of 3.


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
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
for axis, (form, name) in zip(axes, forms.items(), strict=True):
    axis.imshow(bias_matrix(4, 3, 3.0, form), cmap="Purples", vmax=1.4)
    axis.set(title=name, xlabel="is looked at", ylabel="looks")
    axis.set_xticks([1.5, 5, 8], ["text", "image", "source"])
    axis.set_yticks([1.5, 5, 8], ["text", "image", "source"])
plt.close(figure)
figure

# %% [markdown]
# Purple is log γ, white is 0. The paper leaves every pair with text in it alone. The released code strengthens text
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
# At γ = 0 the source is left out, and what remains is text to image, exactly. Just above 0, here at a millionth, the
# two forms differ. With the released bias nobody looks at the source any more. With the paper's bias the *text* still
# does, and tells the image.

# %%
zero = transformer(masked, text, torch.tensor([11.0]), source=source, strength=0.0)
assert torch.equal(zero, without)
for form, name in ((True, "released"), (False, "paper's")):
    tiny = transformer(masked, text, torch.tensor([11.0]), source=source, strength=1e-6, bias_text=form)
    print(f"γ = 0.000001, {name:8} bias: logits up to {(tiny - without).abs().max():.4f} from those of text to image")

# %% [markdown]
# ## Turn it
#
# The same edit at rising γ, the same seed, nothing held. ℰ is a logarithm, so γ rises by factors. Watch the objects
# that the instruction does not name.

# %%
strengths = (0.0, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
edits = [editor.edit(sample.source, instruction, strength=s, hold_threshold=0, seed=0) for s in strengths]
row = [(sample.source, "source"), *((e.image, f"γ = {s:g}") for s, e in zip(strengths, edits, strict=True))]
views.panels_figure([row[:5], [*row[5:], (sample.target, "target")]], [f"“{instruction}”", ""])

# %% [markdown]
# An instruction is no caption, so what text to image makes of it at γ = 0 is anything. A trace of γ brings the
# background; then come the objects, and not at once as they were: at 0.1 the butterfly is a green clump, and the snail
# is red, with specks. At 0.3 both are back. Around 1, where the network was trained, the edit is done, though ragged;
# at 3 the balloon has white patches, and at 10, where the source is nearly all that it sees, it stays white.
#
# Now the numbers, on four edits of four kinds (one replaces, one adds, one restyles, one recolours) in a third of the
# steps, with both forms of the bias. **L1 to the source** is how much changes at all: the mean difference over pixels
# and channels, if black is 0 and white is 1. The **edit score** is how much of the asked change was made, 0 … 10. It is
# not 0 at γ = 0, but about 3.0: a picture made without the source can still lie nearer to the target than the source
# does, where the two differ. At γ = 0 and at γ = 1 the two forms are one. This cell takes longest.

# %%
samples = [lab.world.sample_edit(seed, split="test") for seed in range(2, 6)]
pictures, instructions = [s.source for s in samples], [s.instruction for s in samples]
before, wanted = (to_tensor(editor.detokenize(editor.tokenize(p))) for p in (pictures, [s.target for s in samples]))
inside = to_tensor([s.mask for s in samples])[:, 0] > 0.5


def measure(outputs):
    """Mean L1 to the source and mean edit score of pictures, one for each sample."""
    outputs = to_tensor(outputs)
    scores = [edit_score(o, b, w, m) for o, b, w, m in zip(outputs, before, wanted, inside, strict=True)]
    return float((outputs - before).abs().mean()), float(np.nanmean(scores))


def measured(strength, form):
    asked = {"strength": strength, "hold_threshold": 0, "guidance_scale": 1.0, "steps": STEPS, "seed": 0}
    return measure(editor.with_defaults(bias_text=form).edit(pictures, instructions, **asked).images)


STEPS, some = 4, (0.0, 0.01, 0.1, 1.0, 3.0, 10.0)
points = {s: {False: measured(s, False)} for s in some}
for s in some:
    points[s][True] = points[s][False] if s in (0, 1) else measured(s, True)
curves = {form: [points[s][form] for s in some] for form in forms}

# %%
panels, names = [], [f"{s:g}" for s in some]
for which, name in enumerate(("L1 to the source", "edit score")):
    by_form = {forms[form]: (names, [point[which] for point in points]) for form, points in curves.items()}
    panels.append(("γ", name, by_form))
views.curves_figure(panels)

# %% [markdown]
# The left curves fall: more and more of the source. The right ones rise and fall again: too little of it and the rest
# of the picture is not there, too much and little is changed. These are means; one edit alone need not fall at every
# step. In the strip of the dial below, the L1 is 0.037 at γ = 0.01, where there is nothing but the background, and
# 0.052 at 0.1, where things of other colours stand on it. The steps along γ are not even; mind that when you compare
# slopes.
#
# ## The control: another source
#
# If the network only needed *some* picture to look at, any would do. So give each edit the source of its neighbour. The
# result must now resemble the neighbour, and not its own source.


# %%
def edit_with(sources):
    """Decode with the instructions of `samples` and any sources [B, h, w]: the editor's loop, without a hold."""
    tokens, texts = torch.full_like(sources, MASK), editor.encode_text(instructions)
    sampler = lab.RegionHoldSampler(MASK, STEPS, token_temperature=editor.defaults.token_temperature)
    generator = torch.Generator().manual_seed(0)
    for k in range(STEPS):
        logits = transformer(tokens, texts, torch.full((len(sources),), STEPS - 1.0 - k), source=sources)
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
l1, score = zip(*curves[False], strict=True)
at_one = some.index(1.0)
assert l1[0] > 1.5 * l1[at_one], "γ = 0 makes another picture"
assert l1[1] > l1[at_one] > l1[-1], "as γ grows, more of the source is kept"
assert score[at_one] > score[0] + 2 and score[at_one] > score[-1] + 1, "and the edit needs a γ between"

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
dial = views.injection_dial(editor, sample.source, instruction, strengths=(0, 0.01, 0.1, 0.3, 1, 3))
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
    assert isinstance(share, float), "a number between 0 and 1"
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
# that matter? Build a bias that strengthens only *image looks at source*, and leaves *source looks at image* at 0. The
# check then puts it into the network and shows both.


# %%
def one_way(text, image, strength):
    """[T, T] with T = text + 2 · image; rows look, columns are looked at."""
    ...  # your lines here


def check_one_way(one_way):
    for text, image, strength in ((4, 3, 3.0), (2, 5, 0.5)):
        E = one_way(text, image, strength)
        assert E is not None and E.shape == (text + 2 * image,) * 2, "the function has to return [T, T]"
        looks, looked_at = slice(text, text + image), slice(text + image, None)
        assert torch.allclose(E[looks, looked_at], torch.tensor(math.log(strength))), "log γ where image looks"
        others = E.clone()
        others[looks, looked_at] = 0
        assert not others.any(), "every other pair stays at 0"
    print("right")
    return compared(one_way)


def compared(one_way, some=(0.1, 3.0, 10.0)):
    """The edits with the paper's bias, and below them with yours: your function takes the place of the network's."""

    def mine(text, image, strength, **_):
        return one_way(text, image, strength)

    above = [(edits[strengths.index(s)].image, f"γ = {s:g}, both ways") for s in some]
    with mock.patch("editmgt_lab.transformer.injection_bias", mine):
        made = [editor.edit(sample.source, instruction, strength=s, hold_threshold=0, seed=0) for s in some]
    return views.panels_figure([above, [(e.image, f"γ = {s:g}, one way") for s, e in zip(some, made, strict=True)]])


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
# What differs between the rows is what the source learns from the image. The image learns of the source either way.
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
