# %% [markdown]
# # Stage 5: holding the source where the edit is not
#
# **The claim: where one holds matters. Held where attention is low, an edit survives what stops it when as many tokens
# are held at random.** A held token is the source's own, so nothing there can go wrong, and nothing can be done. How
# much the instruction's words look at each cell is its *heat*, from 0 to 1, and cells whose heat is below the threshold
# **λ** are held. You will step through the two rules by which tokens can be held, move λ, and trace what it buys and
# what it costs against two controls: a random hold, which must fail, and the true region, which no heat map can beat.
#
# About 12 minutes to read, under two minutes to run on a laptop's CPU, 15 more for the exercises.

# %%
import copy
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.evaluation import edit_score, leakage
from editmgt_lab.images import to_tensor

torch.set_grad_enabled(False)
editor = lab.load()
sample = lab.crisp.sample_edit(15, split="test", category="remove")
free = editor.edit(sample.source, sample.instruction, hold_threshold=0, seed=0)
held = editor.edit(sample.source, sample.instruction, hold_threshold=0.2, seed=0)
views.edit_figure(held)

# %% [markdown]
# Under the blue veil is what the last step held with λ = 0.2: there the source's tokens are kept.
#
# ## One step, by hand
#
# The hold is one line inside the decoding step. Here is the first one: all tokens are masked, that is, unknown. After
# the network has guessed every token, and before the least confident are masked again, every place whose heat is
# below λ takes the source's token instead.

# %%
tokens = torch.full_like(free.source_tokens, editor.mask_token_id)
text = editor.encode_text(sample.instruction)
logits = editor.transformer(tokens, text, torch.tensor([11.0]), source=free.source_tokens)  # 11 more steps to come
guesses = logits.argmax(dim=1)
below = free.heat < 0.2
after_hold = torch.where(below, free.source_tokens, guesses)
print(f"{below.float().mean():.0%} of the places are held; "
      f"{(after_hold != guesses)[below].float().mean():.0%} of these had been guessed differently")

# %% [markdown]
# ## Two rules
#
# What happens to a held token next? In the **released** code it competes for being kept like all others, with the
# network's confidence *in the source's token*. Where the network would rather have changed it, that confidence is low:
# the token is masked again, and so the hold leaks until late. A hold that **commits** takes the source's tokens at once
# and for good. How many cells are below λ and masked all the same after each step?


# %%
def with_rule(rule):
    other = copy.copy(editor)
    other.defaults = replace(editor.defaults, hold=rule)
    return other


counts = {}
for rule in ("released", "commit"):
    steps = list(with_rule(rule).steps(sample.source, sample.instruction, hold_threshold=0.2, seed=0))
    counts[f"{rule}: held, yet masked"] = (range(1, 13), [int((s.held & s.masked).sum()) for s in steps])
views.curves_figure([("step", "tokens, of 256", counts)])

# %%
assert not any(counts["commit: held, yet masked"][1]), "what is committed is never masked again"

# %% [markdown]
# ## What λ buys and what it costs
#
# Sixteen removals that the model never saw, pushed by a **guidance** scale of 3: every step runs with and without the
# instruction and goes three times as far as the difference between them. The small model edits best without, and then
# leaks next to nothing; the released one is used at 6. For each λ two numbers: **leakage**, by how much a pixel
# outside the true region changes in the mean, if black is 0 and white is 1, and the **edit score**, how much of the
# asked change was made (0 … 10). Two controls go along: *as many cells at random*, and the *true region*, which frees
# exactly the cells that the true mask touches. These are 14 times 16 edits, so the second cell takes longest.

# %%
samples = [lab.crisp.sample_edit(seed, split="test", category="remove") for seed in range(20, 36)]
pictures, instructions = [s.source for s in samples], [s.instruction for s in samples]
before, wanted = (to_tensor(editor.detokenize(editor.tokenize(p))) for p in (pictures, [s.target for s in samples]))
inside = to_tensor([s.mask for s in samples])[:, 0] > 0.5


def measure(outputs):
    """Mean edit score and mean leakage of pictures, one for each sample."""
    outputs = to_tensor(outputs)
    scores = [edit_score(o, b, w, m) for o, b, w, m in zip(outputs, before, wanted, inside, strict=True)]
    leaks = [leakage(o, b, m) for o, b, m in zip(outputs, before, inside, strict=True)]
    return float(np.nanmean(scores)), float(np.nanmean(leaks))


def at_random(held):
    """Mask pictures that free as many cells as each `held` leaves free, anywhere."""
    numbers, masks = np.random.default_rng(0), []
    for cells in held.numpy():
        free = numbers.permutation(~cells.ravel()).reshape(cells.shape)
        masks.append(Image.fromarray(free.astype(np.uint8) * 255).resize((64, 64), Image.Resampling.NEAREST))
    return masks


def edits(**hold):
    return editor.edit(pictures, instructions, seed=0, guidance_scale=3.0, **hold)


# %%
levels = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
by_heat = [edits(hold_threshold=level) for level in levels]
random = [edits(hold_threshold=0, mask=at_random(e.held)) if e.held.any() else e for e in by_heat]
truly = measure(edits(hold_threshold=0, mask=[s.mask for s in samples]).images)
ways = {"held by heat": by_heat, "control: at random": random}
points = {way: [measure(edit.images) for edit in made] for way, made in ways.items()}

# %%
panels = []
for which, name in ((1, "leakage"), (0, "edit score")):
    curves = {label: (levels, [point[which] for point in row]) for label, row in points.items()}
    panels.append(("λ", name, curves | {"the true region": (levels, [truly[which]] * len(levels))}))
views.curves_figure(panels)

# %% [markdown]
# By heat, leakage falls long before the score does: there lies the use of λ. At random the score is lost at once, and
# leakage can even *rise* at first: what is left of the object in held cells is completed into something else. In the
# end it falls, too, since nothing changes any more. Not even the true region comes to 0; why, we shall see below.

# %%
score, leaked = (np.array([point[i] for point in points["held by heat"]]) for i in (0, 1))
random_score = np.array([point[0] for point in points["control: at random"]])
print("λ          ", *(f"{level:6.2f}" for level in levels))
print("edit score ", *(f"{value:6.2f}" for value in score))
print("at random  ", *(f"{value:6.2f}" for value in random_score))
print("leakage    ", *(f"{value:6.4f}" for value in leaked))

# %%
some = slice(1, 5)
assert leaked[-1] < leaked[0], "the more is held, the less leaks"
assert (score[some] - random_score[some]).max() > 0.5, "where one holds matters"
assert score[-1] < score[0], "and too much hold stops the edit"

# %% [markdown]
# ## In pictures
#
# The same edit as λ rises, until nothing changes any more; below it, as many cells held at random.

# %%
shown = (0, 2, 3, 5, 6)
rows = [
    [(editions[j].images[0], f"λ = {levels[j]:g}" if editions is by_heat else "at random") for j in shown]
    for editions in (by_heat, random)
]
views.panels_figure([[(pictures[0], "source"), *rows[0]], [(samples[0].target, "target"), *rows[1]]],
                    [f"“{instructions[0]}”", ""])  # fmt: skip

# %% [markdown]
# ## Tokens held, pixels moved
#
# A held token keeps its number, but the decoder paints with its neighbours in view, so a seam of pixels moves even
# where everything is held but the edit. And what the tokenizer loses is lost in held cells as well. `pasted()` puts the
# source's own pixels back over the held cells: all of their detail is back, and nothing there moves any more.

# %%
placed = edits(hold_threshold=0, mask=[s.mask for s in samples])
kept = (placed.tokens == placed.source_tokens)[placed.held].float().mean()
moved = (to_tensor(placed.images) - before).abs().mean(1)
outside = torch.nn.functional.interpolate(placed.held[:, None].float(), scale_factor=4)[:, 0] > 0
print(f"tokens kept where held: {kept:.0%}; pixels there that move by more than 1/255: "
      f"{(moved[outside] > 1 / 255).float().mean():.0%}, in the mean by {moved[outside].mean():.4f}")
views.panels_figure([[(pictures[0], "source"), (placed.images[0], "true region"), (placed.pasted()[0], "and pasted")]])

# %% [markdown]
# ## Touch it: the hold studio
#
# Move λ: what it would hold turns blue at once. Let go, and the edit is made anew beside a random hold of the same
# size; the table keeps every λ that you tried, with its numbers. L1 is how much a pixel changes in the mean, anywhere.

# %%
studio = views.hold_studio(editor, sample, threshold=0.2)
studio.pending.result()
studio

# %% [markdown]
# ## Exercises
#
# **1. λ for a share.** (5 minutes) You want to hold half of the cells. Which λ does that, for a given heat map? A
# cell is held where its heat is *below* λ.


# %%
def threshold_for(heat, share):
    """The λ at which `share` of the cells of heat [16, 16] are held."""
    ...  # your line here


def check_threshold_for(threshold_for):
    for share in (0.25, 0.5, 0.75):
        threshold = threshold_for(free.heat[0], share)
        assert threshold is not None, "the function has to return λ"
        held = (free.heat[0] < threshold).float().mean()
        print(f"λ = {threshold:.2f} holds {held:.0%}")
        assert abs(held - share) < 0.05, f"and should hold {share:.0%}"


# check_threshold_for(threshold_for)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def threshold_for(heat, share):
#     return float(heat.flatten().sort().values[round(share * heat.numel())])  # or heat.quantile(share)
#
# check_threshold_for(threshold_for)
# ```
#
# </details>
#
# **2. A hold of your own.** (10 minutes) λ is one number for all pictures, but some maps are flatter than others. Write
# a rule that frees a fixed *share* of the cells, the hottest ones. Use it as a `mask`.


# %%
def hottest(heat, share):
    """A mask picture (64 × 64, "L") that frees the hottest `share` of the cells of heat [16, 16]."""
    ...  # your lines here


def check_hottest(hottest):
    heat = free.heat[0].numpy()
    for share in (0.25, 0.5):
        mask = hottest(free.heat[0], share)
        assert isinstance(mask, Image.Image) and mask.size == (64, 64), "a picture, 64 × 64: enlarge the 16 × 16 cells"
        pixels = np.asarray(mask.convert("L")).reshape(16, 4, 16, 4)
        cells = pixels[:, 0, :, 0] > 0
        assert (pixels == 255 * cells[:, None, :, None]).all(), "whole cells, 0 or 255: enlarge with NEAREST"
        assert abs(cells.mean() - share) < 0.02, f"{cells.mean():.0%} of the cells are free, asked for were {share:.0%}"
        assert heat[cells].min() >= heat[~cells].max(), "these are not the hottest ones"
    masks = [hottest(heat, 0.25) for heat in by_heat[0].heat]
    print("edit score {:.2f}, leakage {:.4f}".format(*measure(edits(hold_threshold=0, mask=masks).images)))


# check_hottest(hottest)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def hottest(heat, share):
#     free = np.zeros(heat.numel(), np.uint8)
#     free[heat.flatten().argsort(descending=True)[: round(share * heat.numel())].numpy()] = 255
#     return Image.fromarray(free.reshape(16, 16)).resize((64, 64), Image.Resampling.NEAREST)
#
# check_hottest(hottest)
# ```
#
# </details>
#
# ## With the full model
#
# The paper's example uses λ = 0.01, and its figure goes to 0.7. On a GPU, in a new cell:
#
# ```python
# editor = lab.load("WeiChow/EditMGT", dtype=torch.bfloat16)
# views.hold_studio(editor, "photo.jpg", "remove the tree", steps=36)
# ```
