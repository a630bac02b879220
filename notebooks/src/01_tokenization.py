# %% [markdown]
# # Stage 1: a picture becomes tokens
#
# **The claim: a token is a piece of the picture. Change one, and the picture changes there and right around it, and
# almost nowhere else.** Everything later rests on this. An edit that keeps the source's tokens outside a region can
# only keep the *pixels* there if tokens are local. You will build the tokenizer's two directions in a few lines, look
# at what its codebook knows, and measure how far a single token reaches.
#
# About 10 minutes to read, under a minute to run on a laptop's CPU.

# %%
import inspect
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.images import to_images, to_tensor
from editmgt_lab.metrics.pixels import psnr
from editmgt_lab.views.overlays import held_overlay
from editmgt_lab.views.recording import code_patches
from editmgt_lab.vq import VQModel

torch.set_grad_enabled(False)
editor = lab.load()
vq = editor.vq
sample = lab.world.sample_edit(4, split="test", category="color")
sample.source

# %% [markdown]
# ## Pixels to tokens, by hand
#
# An **encoder**, a small convolutional network, turns every cell of the picture into a short vector, a *latent*. The
# **codebook** is a fixed list of such vectors, the *codes*. A token is nothing but the number of the code that lies
# nearest to the latent.

# %%
pixels = to_tensor([sample.source])
latents = vq.latents(pixels)
codebook = vq.quantize.embedding.weight
print("pixels  ", tuple(pixels.shape))
print("latents ", tuple(latents.shape))
print("codebook", tuple(codebook.shape))

# %%
rows = latents[0].flatten(1).T  # [cells, channels]
distances = torch.cdist(rows, codebook)  # [cells, codes]
tokens = distances.argmin(dim=1).view(1, *latents.shape[2:])
print(tokens[0, :4, :8])

# %% [markdown]
# That is the whole encoder of this stage. The library's own method does the same and is no longer than that:

# %%
assert torch.equal(tokens, editor.tokenize(sample.source))
print(inspect.getsource(VQModel.encode))

# %% [markdown]
# Here is the picture under its grid, its tokens as colours (similar codes, similar colours) and, in the frame, as
# numbers. The last panel goes the way back: the **decoder** looks every token up in the codebook and paints.

# %%
views.tokens_figure(sample.source, tokens[0], codebook, editor.detokenize(tokens)[0])

# %% [markdown]
# ## What is lost
#
# One number cannot hold all of a cell's pixels. What the tokenizer loses, no edit can bring back, so all scores in this
# lab compare with pictures that went through it once. The loss is measured as PSNR, in decibels: 20 is poor, 30
# good, 40 hard to tell from the original.

# %%
samples = [lab.world.sample_edit(seed, split="test") for seed in range(50)]
originals = to_tensor([each.source for each in samples])
grids = torch.cat([vq.encode(part) for part in originals.split(10)])
decoded = torch.cat([vq.decode(part) for part in grids.split(10)])
quality = [psnr(a, b) for a, b in zip(decoded, originals, strict=True)]
print(f"PSNR of {len(samples)} test pictures: {np.mean(quality):.1f} dB, from {min(quality):.1f} to {max(quality):.1f}")

# %%
worst, best = int(np.argmin(quality)), int(np.argmax(quality))
panels = []
for i in (worst, best):
    lost = (decoded[i] - originals[i]).abs().mean(0).numpy()
    ends = [(samples[i].source, "picture"), (to_images(decoded[i : i + 1])[0], f"decoded: {quality[i]:.1f} dB")]
    panels.append([*ends, (plt.cm.magma(np.clip(5 * lost, 0, 1))[..., :3], "lost, five times as bright")])
views.panels_figure(panels, ["the worst of them", "the best of them"])

# %% [markdown]
# ## What the codebook knows
#
# Decode a field of one single code and look at its middle: that is what the code means. Sorted by how often the 50
# pictures use them, the first codes are backgrounds, since most of a picture is background.

# %%
counts = torch.bincount(grids.flatten(), minlength=len(codebook))
order = counts.argsort(descending=True)
patches = code_patches(editor, order[:768].numpy())
side = patches.shape[1]  # px
wall = patches.reshape(16, 48, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(16 * side, 48 * side, 3)
print(f"{int((counts > 0).sum())} of {len(codebook)} codes are used; the commonest 100 make up "
      f"{counts[order[:100]].sum() / counts.sum():.0%} of all tokens")
Image.fromarray(wall).resize((1152, 384), Image.Resampling.NEAREST)  # the 768 commonest, row by row

# %% [markdown]
# ## The claim, measured
#
# Put another code in one cell, decode, and see where the pixels move. One cell first: which pixels change, and by how
# much?


# %%
def change(grid, row, column, code):
    """How much every cell of the decoded picture changes when one cell gets another code: [h, w]."""
    swapped = grid.clone()
    swapped[row, column] = code
    before, after = vq.decode(torch.stack([grid, swapped]))
    difference = (after - before).abs().mean(0)  # [H, W]
    return torch.nn.functional.avg_pool2d(difference[None], vq.config.factor)[0], after


size = tokens.shape[-1]  # cells along a side
middle = size // 2
there = codebook[tokens[0, middle, middle]]
unlike = int(torch.cdist(there[None], codebook).argmax())  # the code farthest from what is there
by_cell, after = change(tokens[0], middle, middle, unlike)
pictures = [(editor.detokenize(tokens)[0], "decoded"), (to_images(after[None])[0], "another code in the middle")]
views.panels_figure([[*pictures, (plt.cm.magma((by_cell / by_cell.max()).numpy())[..., :3], "change, cell by cell")]])

# %% [markdown]
# Now 50 swaps, each in a random cell of a random picture. We sort the change by its distance from the swapped cell, in
# cells. The control does the same with the distance to a *random* cell: if tokens were not local, both would look the
# same.

# %%
numbers = np.random.default_rng(0)
near, control = np.zeros(size), np.zeros(size)
grid_rows, grid_columns = np.indices((size, size))
for _ in range(50):
    row, column, other_row, other_column = numbers.integers(0, size, 4)
    by_cell, _ = change(grids[numbers.integers(len(grids))], row, column, int(numbers.integers(len(codebook))))
    for total, (r, c) in ((near, (row, column)), (control, (other_row, other_column))):
        distance = np.maximum(abs(grid_rows - r), abs(grid_columns - c))
        total += np.bincount(distance.ravel(), weights=by_cell.numpy().ravel(), minlength=size)

# %%
within = {"from the swapped cell": near, "control: from a random cell": control}
curves = {name: (range(13), 100 * total.cumsum()[:13] / total.sum()) for name, total in within.items()}
for name, total in within.items():
    print(f"{name:28} {total[:4].sum() / total.sum():.0%} of the change lies within three cells")
views.curves_figure([("distance in cells", "% of the change within it", curves)])

# %%
assert near[:4].sum() / near.sum() > 0.85, "a token is local ..."
assert control[:4].sum() / control.sum() < 0.3, "... and that is no accident of how we count"
assert near[1:].sum() / near.sum() > 0.3, "... but it is not its own cell alone: the decoder blends neighbours"

# %% [markdown]
# By the curve a good half of the change lies in the swapped cell itself, 88% within one cell of it, 99% within three: a
# token is local, but not its own cell alone. The last line above matters later. A token that is *held* keeps its
# number, and still its pixels can move a little, because its neighbour's token was changed. Region hold stops leakage
# of tokens; a thin seam of pixels remains.
#
# ## What an edit is, in tokens
#
# If tokens are local, then an edit should change the tokens where it is, and no others. In the drawn world we have both
# pictures, so we can look: the tokens that differ between source and target, over the target.

# %%
rows, shares = [], []
for category in ("color", "remove", "add", "style"):
    edit = lab.world.sample_edit(4, split="test", category=category)
    source, target = editor.tokenize([edit.source, edit.target])
    differs = (source != target).numpy()
    shown = held_overlay(edit.target, ~differs)
    rows.append([(edit.source, edit.instruction), (edit.target, "target"), (shown, f"{differs.mean():.0%} differ")])
    shares.append(differs.mean())
views.panels_figure(rows)

# %% [markdown]
# The blue veil covers the tokens that source and target share. A new colour leaves most of the picture alone; a new
# style leaves next to nothing. Where a thing was or is, the hole in the veil is a little larger than the thing: the
# *encoder* looks past the edge of a cell, too. Farther off nothing differs at all. That is not to be had for nothing:
# the group norms of most such networks average over the whole picture, so that a new object anywhere moves all
# latents a little, and some tokens with them. This small model was trained to do without them. Hold on to that
# picture: the notebook on region hold asks the network's *attention* to find that veil without being shown the
# target.
#
# ## Touch it: the token lab
#
# Hover over a cell to see its code and its patch. Click it and choose another code: you see the decoded picture, and
# how far the change reaches.

# %%
token_lab = views.token_lab(editor, sample.source)
token_lab.pending.result()
token_lab.swap(middle, middle, unlike).result()  # one change to begin with; undo takes it back
token_lab

# %% [markdown]
# ## Exercises
#
# **1. How much is saved?** (2 minutes) A pixel has three bytes, and a token is a number below the number of codes. How
# many times fewer bits than the picture do its tokens take?

# %%
print(f"{sample.source.width} × {sample.source.height} pixels; {tokens.numel()} tokens, {len(codebook)} codes")
saved = ...  # your answer, a number


def check_saved(saved):
    bits = math.ceil(math.log2(len(codebook)))
    right = pixels.numel() * 8 / (tokens.numel() * bits)
    assert abs(saved - right) < 0.1, f"a number below {len(codebook)} takes {bits} bits"
    print("right:", saved)


# check_saved(saved)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# bits = math.ceil(math.log2(len(codebook)))
# saved = (sample.source.width * sample.source.height * 3 * 8) / (tokens.numel() * bits)
# check_saved(saved)
# ```
#
# </details>
#
# **2. Edit without a network.** (10 minutes) Tokens are local, so an object can be moved by moving its tokens. The
# scene below has one object. Copy its block of tokens to the other side, fill the hole with background tokens from
# somewhere else, and decode. You need nothing but slices.

# %%
item = lab.world.Item("ball", "red", "left", "big")
scene = lab.world.Scene("snow", (item,))
before = editor.tokenize(lab.world.render(scene))[0]
unit = len(before) // 16  # cells: the drawn world has 16 × 16 units
left, top, right, bottom = (unit * edge for edge in item.box)  # in cells
moved = before.clone()
# your slices here


def check_moved(moved):
    wanted = lab.world.render(lab.world.Scene("snow", (lab.world.Item("ball", "red", "right", "big"),)))
    quality = psnr(to_tensor(editor.detokenize(moved[None]))[0], to_tensor([wanted])[0])
    assert quality > 23, f"{quality:.1f} dB: not there yet"
    print(f"right: {quality:.1f} dB")


# check_moved(moved)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# width = right - left
# moved[top:bottom, -width:] = before[top:bottom, left:right]  # the ball
# moved[top:bottom, left:right] = before[top:bottom, -width:]  # what was there instead
# check_moved(moved)
# ```
#
# The seam around the ball is the decoder's blending of neighbours again.
#
# </details>
#
# ## With the full model
#
# The released tokenizer has the same parts: 8192 codes of 64 channels, a cell is 16 × 16 pixels, and a picture of 1024
# × 1024 becomes 64 × 64 tokens. The same lines run on a GPU; the cell is only text here, since it downloads the model.
#
# ```python
# editor = lab.load("WeiChow/EditMGT", dtype=torch.bfloat16)
# tokens = editor.tokenize("photo.jpg")
# editor.detokenize(tokens)[0]
# ```
