# %% [markdown]
# # Crisp: from pictures to checked edits
#
# **The claim: rules of one number each can tell which edits are fit to learn from. A filter that looks keeps the good
# pairs and drops the bad ones; the control, which keeps as many by chance, keeps of both about the same.** How many
# edits are bad is no finding here: half of them are spoiled on purpose. The paper's Crisp-2M was made in four stages:
# *curation* of pictures, *instructions*, *edits* by several editors of which a judge picks one, and *quality
# assurance*. Nobody released that pipeline. This one runs on a laptop in the drawn world, where the truth of every edit
# is known, so that each filter can be measured; the same code takes photographs, language models and large editors.
#
# About 15 minutes to read, under two minutes to run on a laptop's CPU, 15 more for the exercises.

# %%
import json
import math
import tempfile
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.checkpoints import data_folder
from editmgt_lab.crisp.assure.rules import DRAWN
from editmgt_lab.crisp.bounds import Bounds
from editmgt_lab.crisp.curate import rules as curation
from editmgt_lab.crisp.curate.decode import opened
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.crisp.drawn.editors import FAULTS, DrawnEditor, ManyFaults
from editmgt_lab.crisp.drawn.judged import judged
from editmgt_lab.crisp.drawn.models import DrawnDescriber, DrawnGround, DrawnJudge, DrawnWriter
from editmgt_lab.crisp.drawn.pictures import draw
from editmgt_lab.crisp.drawn.table import hold_against_truth
from editmgt_lab.crisp.engine.runner import start
from editmgt_lab.crisp.instruct.captions import Caption, Request
from editmgt_lab.crisp.pipeline import Plan, run
from editmgt_lab.crisp.results.card import funnel_figure, funnel_table, refinement_table
from editmgt_lab.crisp.results.publish import publish
from editmgt_lab.crisp.results.statistics import statistics
from editmgt_lab.data.pairs import PairReader
from editmgt_lab.finetuning import load_adapter
from editmgt_lab.images import to_tensor
from editmgt_lab.studies.skills import answers

torch.set_grad_enabled(False)
start()  # Daft, in this process; start("ray") is a cluster
temporary = tempfile.TemporaryDirectory(prefix="crisp")
folder = Path(temporary.name)

# %% [markdown]
# ## A plan, and a run
#
# A hundred scenes of the test split, on which no bound was chosen. Some of the files are spoiled on purpose:
# duplicates, stripes, noise, half a file. A plan names who does what: a *describer* reads the scene from its pixels, a
# *writer* makes instructions by a grammar (every tenth makes no sense), two candidates each are drawn by an *editor*
# half of whose edits have one of the faults that real editors are known for, and a *judge* picks. For photographs all
# four are models; here none knows the truth.

# %%
place = draw(folder / "scenes", 100, split="test", size=128, progress=False)
views.panels_figure([[(Image.open(path), path.name) for path in sorted(place.iterdir())[:7]]])

# %%
plan = Plan(
    curation=curation.DRAWN,
    describer=DrawnDescriber(),
    writer=DrawnWriter(),
    editors=((ManyFaults(), 2),),
    judge=DrawnJudge(),
    bounds=DRAWN,
    ground=DrawnGround(),
)
made = run(Source(str(place)), plan, folder / "shards", progress=False)
print(funnel_table(made))

# %%
funnel_figure(made)

# %% [markdown]
# Nothing is lost without a word: what is dropped lies in a table of its own, with every rule that it breaks and by how
# much. Run the same plan again, and nothing is done twice: each shard's name is a key of all that made it.

# %%
again = run(Source(str(place)), plan, folder / "shards", progress=False)
assert again.shards == made.shards
for name, counts in made.counts().items():
    if name != "edit":  # where every instruction becomes two candidates
        assert counts["came"] == counts["kept"] + counts["dropped"]

# %% [markdown]
# ## Stage 1: which pictures
#
# Each rule is one number with a unit, and the bounds between which it has to lie.

# %%
dropped = [row for row in made.rows("curate", dropped=True, pictures=("picture",))][:6]
views.panels_figure([[(opened(row["picture"]), textwrap.fill(row["reason"], 22)) for row in dropped]])

# %% [markdown]
# The same measures on photographs, with the paper's threshold for the short side (1024 px) lowered to 300, since these
# come with scikit-image and are small. Gravel is nothing but edges, and a silhouette has two tones. The page of text is
# dropped for being small: only the text detector of the extra `[writing]` knows what it is. (Without scikit-image there
# is one photograph, matplotlib's.)


# %%
def photographs():
    """name → picture, of those that come with an installed package."""
    found = {"hopper": Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")}
    try:
        from skimage import data
    except ImportError:
        return found
    for name in ("astronaut", "coffee", "chelsea", "gravel", "horse", "page"):
        found[name] = Image.fromarray(np.uint8(getattr(data, name)() * (255 if name == "horse" else 1)))
    return found


pictures = photographs()
(folder / "photographs").mkdir(exist_ok=True)
for name, picture in pictures.items():
    picture.save(folder / "photographs" / f"{name}.png")
sensible = curation.PHOTOGRAPHS | {"short_side": Bounds(low=300)}
plan_of_photographs = Plan(sensible, DrawnDescriber(), DrawnWriter(), ((DrawnEditor(), 1),), DrawnJudge(), DRAWN)
told = run(Source(str(folder / "photographs")), plan_of_photographs, folder / "shards", until="curate", progress=False)
verdicts = {row["origin"]: row["reason"] for row in told.rows("curate", dropped=True)}
captions = [verdicts.get(f"{name}.png", "kept") for name in pictures]
square = [picture.convert("RGB").resize((256, 256)) for picture in pictures.values()]
views.panels_figure([list(zip(square, captions, strict=True))])

# %% [markdown]
# ## Stage 2: instructions, round by round
#
# From a caption to an instruction, which is then refined: more words that say which object is meant, other verbs. Each
# round is kept, and what it raised is measured: *length* is the mean number of words, *verbs* how many different verbs
# there are, *distinct_n* the different runs of n words as a share of all such runs, and *spread* how far two
# instructions lie apart in the mean, by the words that they use.

# %%
for row in list(made.rows("instruct"))[:4]:
    print(*json.loads(row["rounds"]), sep="  →  ")
print("\n" + refinement_table(made))

# %% [markdown]
# The first round raises every number. The second puts in places (*at the bottom left*): they make the instructions
# longer, and more alike, so that distinct_n and spread fall below where they began.
#
# Before anything is spent on an edit, requests are dropped that cannot be right:

# %%
for row in list(made.rows("instruct", dropped=True))[:4]:
    print(f"{row['instruction']!r}: {row['problem']}")

# %% [markdown]
# ## Stage 3: candidates, and a judge
#
# Two edits for each instruction, from two seeds. The judge draws what was asked and compares: how much of the change
# was made, how little changed elsewhere, how well the result can be explained as a drawing at all. Above what it took,
# below what it left. It only compares: the better of two bad edits is taken too, which is why stage 4 follows.

# %%
groups = {}
for name in (False, True):
    for row in made.rows("pick", dropped=name, pictures=("picture", "output")):
        if row["overall"] is not None:  # an edit that cannot be read at all is an error of its row
            groups.setdefault(row["instruction_id"], {})[name] = row
clear = [each for each in groups.values() if len(each) == 2 and each[False]["overall"] - each[True]["overall"] > 2][:5]
asked = [(opened(each[False]["picture"]), textwrap.fill(each[False]["instruction"], 24)) for each in clear]
lines = [
    [(opened(each[lost]["output"]), f"{each[lost]['overall']:.1f} of 10") for each in clear] for lost in (False, True)
]
views.panels_figure([asked, *lines], ["source", "picked", "left"])

# %% [markdown]
# ## Stage 4, by hand
#
# After the edit: does a reader of the result agree with the target text, did what was to change change, and did the
# rest stay? The last one is a mean over pixels outside the region that the captions say. For one edit:

# %%
row = next(row for row, _ in judged(made, folder / "scenes") if (row["outside"] or 0) > 0.01)
source, output = to_tensor([opened(row["picture"]), opened(row["output"])])
caption, request = Caption.of(row["caption"]), Request.of(row["request"])
region = DrawnGround().region(opened(row["picture"]), caption, request)
outside = (output - source).abs().mean(0)[~region].mean().item()
print(f"{row['instruction']!r}: {outside:.4f} outside, {row['outside']:.4f} in the table")
assert math.isclose(outside, row["outside"], abs_tol=1e-6)

# %% [markdown]
# ## Every filter against the truth
#
# What each rule keeps of the good and of the bad edits, and the control: as many by random scores. Good means that the
# edit was done and nothing else broken, also in no one place.

# %%
findings = hold_against_truth(made, folder / "scenes", progress=False)
print(findings.table())
together = next(each for each in findings.filters if each.stage == "assure" and each.name == "all")
assert together.recall >= 0.9 and together.bad_kept <= 0.1
chance = together.control_good / together.good - together.control_bad / together.bad
assert abs(chance) < 0.25, "chance keeps both alike"

# %% [markdown]
# One rule does most of it: *alignment*, whether a reader of the result agrees with the target text, alone keeps all of
# the good edits and 9% of the bad ones. Each of the others alone keeps 46% of the bad or more. All together keep 3%, at
# the same 100% of the good, where chance keeps about half of both. A rule misses what it does not ask: a drift of all
# colours may leave the target text as true as before, and a wrong object at the right place harms nothing outside. The
# faults are ours, though, and the reader of drawn scenes is all but exact. On photographs a CLIP stands in its place:
# how much worse the small CLIP of the drawn world does on the same edits, `make crisp` prints.
#
# ## Touch it: the filter studio
#
# Move a bound, or switch a rule off, and edits come and go. Which bad ones does a rule catch that no other does?

# %%
edits = list(judged(made, folder / "scenes"))
studio = views.filter_studio(edits)
studio.pending.result()
studio

# %% [markdown]
# ## The data set
#
# Published as CrispEdit-2M is: parquet with `input_img`, `output_img`, `instruction`, `type`. The trainer reads it as
# it is. Beside it lie the losers, each with the rule that it broke, and the winner for the same instruction where there
# is one: preference pairs.

# %%
dataset, losers = publish(made, folder, progress=False)
pairs = list(PairReader(dataset))
print(len(pairs), "pairs;", pairs[0].instruction)
statistics(dataset, progress=False).figure()

# %% [markdown]
# ## What it is good for
#
# The small model was fine-tuned three times by `make filtering ARGS="--scenes 300 --count 30"`, each time on as many
# pairs: on edits of a sloppy editor as they came, on those that passed the filters, and on true ones. **Leakage** is
# how much changes outside the true edit.

# %%
study = json.loads((data_folder() / "filtering.json").read_text(encoding="utf-8"))
print(f"{study['pairs']} pairs of each kind; {study['count']} edits of the {study['split']} split")
for each in study["results"]:
    numbers = ", ".join(f"{name} {each[name]['mean']:.3f}" for name in ("success", "leakage", "score"))
    print(f"{each['way']:10}  λ = {each['hold']:g}: {numbers}")

# %% [markdown]
# **A model that was trained on imperfect pairs leaks, and the hold stops most of it**: at λ = 0.2 the leakage falls
# from 0.086 to 0.012, where the shipped model's is 0.002, and the success rises from 10% to 37%. The paper's λ figure
# may be understood so. The other three leak 0.003 or less, and there so much of the paper's hold only costs: 20 points
# of success after filtered pairs, 17 after true ones, 23 as shipped. Every fine-tuning lowered success: it is 97% as
# shipped, 93% with filtered pairs, 90% with true ones, 10% with unfiltered ones. Success and score are of 30 edits,
# leakage of the 25 that are to leave something alone: a few points are chance.
#
# The adapter of the unfiltered pairs is here, so look for yourself, at the first test edit of three categories. The
# sloppy editor's sin was oversaturation, as by too much guidance, and the model has learned just that. Held by the
# paper's rule, most of what the words do not look at stays the source's. What they do look at, the edit and much of
# what stands around it, keeps the sin; and parts of the edit are held as well: the apple stays, but for some specks.
# What the hold cannot do is mend an edit: of the balloon the leaky model makes scraps, held or not. (That the shipped
# model's balloon stands in the meadow like a tree is a fault of its own, and no leak.)

# %%
shipped, leaky = (lab.load().with_defaults(hold="released") for _ in range(2))  # the paper's hold
load_adapter(leaky.transformer, data_folder() / "adapters" / "leaky")
categories = ("color", "add", "remove")
samples = [lab.world.sample_edit(i, split="test", category=each) for i, each in enumerate(categories)]
leaks, lines = {}, [[(sample.source, sample.instruction) for sample in samples]]
for name, editor, level in (("as shipped", shipped, 0.0), ("leaky", leaky, 0.0), ("leaky, λ = 0.2", leaky, 0.2)):
    scores, shown = answers(editor, samples, hold=level)
    leaks[name] = sum(each.leakage for each in scores) / len(scores)
    told = [f"leakage {each.leakage:.3f}, score {each.score:.1f}" for each in scores]
    lines.append(list(zip(shown, told, strict=True)))
assert leaks["leaky"] > 1.5 * leaks["as shipped"] and leaks["leaky, λ = 0.2"] < 0.5 * leaks["leaky"]
views.panels_figure(lines, ["source", *leaks])

# %% [markdown]
# `make figure ARGS="--adapter leaky"` draws the whole λ figure for it, controls and all.
#
# ## Exercises
#
# **1. The worst place.** (5 minutes) The mean outside misses one small object that was redrawn. Write `worst(source,
# output, region)`: the mean |output − source| of each of 8 × 8 cells, counting pixels outside the region only (those
# inside count as 0), and of these the largest.


# %%
def worst(source, output, region):
    """source, output: [3, H, W] in 0 … 1; region: bool [H, W], True where the edit is. Returns a float."""
    ...  # your lines here


def check_worst(worst):
    for row, _ in edits[:20]:
        if row["worst"] is None:
            continue
        caption, request = Caption.of(row["caption"]), Request.of(row["request"])
        region = DrawnGround().region(opened(row["picture"]), caption, request)
        found = worst(*to_tensor([opened(row["picture"]), opened(row["output"])]), region)
        assert found is not None, "the function has to return a number"
        assert abs(found - row["worst"]) < 1e-5, f"{found:.4f}, not {row['worst']:.4f}: {row['instruction']}"
    print("yes")


# check_worst(worst)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def worst(source, output, region):
#     apart = (output - source).abs().mean(0) * ~region
#     return torch.nn.functional.adaptive_avg_pool2d(apart[None], 8).max().item()
#
# check_worst(worst)
# ```
#
# </details>
#
# **2. A bound that does not know the test.** (10 minutes) Choose one bound for `outside` on edits of the *train* split:
# the lowest that keeps at least 95% of the good ones. Then see what it keeps of the test split's.


# %%
def bound_for(good_values, share):
    """The lowest bound that keeps `share` of these values, which are kept where they are not above it."""
    ...  # your line here


def check_bound_for(bound_for):
    place = draw(folder / "train", 60, size=128, progress=False)
    trained = run(Source(str(place)), plan, folder / "shards", progress=False)
    train, test = (
        [(row["outside"], truth.good) for row, truth in known if row["outside"] is not None]
        for known in (judged(trained, folder / "train"), edits)
    )
    values = [value for value, good in train if good]
    bound = bound_for(values, 0.95)
    assert bound is not None, "the function has to return the bound"
    assert sum(value <= bound for value in values) >= 0.95 * len(values), "it keeps too few"
    lower = max((value for value in values if value < bound), default=-1)
    assert sum(value <= lower for value in values) < 0.95 * len(values), "a lower one would do"
    for name, wanted in (("good", True), ("bad", False)):
        kept = [value <= bound for value, good in test if good == wanted]
        print(f"{name}: {sum(kept)} of {len(kept)} kept on the test split, at {bound:.4f}")


# check_bound_for(bound_for)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def bound_for(good_values, share):
#     return sorted(good_values)[math.ceil(share * len(good_values)) - 1]
#
# check_bound_for(bound_for)
# ```
#
# </details>
#
# And one to play with: `FAULTS` are the sins that the drawn editor knows. Set the shares of `ManyFaults(shares)` to one
# of them alone, run the plan again, and see in the table which rule finds it.

# %%
print(FAULTS)

# %% [markdown]
# ## With real models
#
# A folder of photographs, a server that speaks OpenAI's protocol with a vision-language model behind it, and an editor
# of diffusers. (Not run here: no such server and no GPU. A tiny random model behind a real server is in the tests.)
#
# ```bash
# make crisp ARGS="PHOTOS --endpoint http://localhost:8000/v1 --endpoint-model NAME --editor FluxKontextPipeline:FOLDER"
# ```
