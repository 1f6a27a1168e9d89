# %% [markdown]
# # From pictures to predictions
#
# The whole way of an image classifier, in the order you would walk it with your own pictures:
#
# **look at the data → search good settings → train, watched → read the report → serve → ask → score a folder
# → clean up**
#
# Every step is one `make` verb, and the same verb works in two places. The one variable `ON` below chooses:
#
# | `ON` | where | what it needs |
# |---|---|---|
# | `"local"` | this machine | nothing: no account, no Docker, no GPU; a few minutes on two cores |
# | `"aws"` | Amazon SageMaker | credentials, and patience; **costs money** until the last cell has run |
#
# To run it: `make setup`, then open this file with the Python of `.venv` as its kernel.

# %%
ON = "local"  # or "aws"

# %% [markdown]
# Your own pictures? Point `DATA` at a folder with `train`, `valid` and `test` inside, and in each of them a
# folder per class. The recipe says what is trained and how.

# %%
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image, ImageOps

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "Makefile").is_file())
os.chdir(ROOT)
DATA, OUT = Path("build/notebook/data"), Path("build/notebook/run")
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
os.environ |= {  # what the cells below, and make, read
    "ON": ON,
    "RECIPE": "recipes/shapes.toml",
    "DATA": str(DATA),
    "OUT": str(OUT),
    "PORT": str(port),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def show(paths: list[Path], titles: list[str]) -> None:
    """Pictures in a row."""
    figure, places = plt.subplots(1, len(paths), figsize=(1.7 * len(paths), 2.0), squeeze=False)
    for place, path, title in zip(places[0], paths, titles, strict=True):
        place.imshow(ImageOps.exif_transpose(Image.open(path)))  # upright, as the network sees it
        place.set_title(title, fontsize=9)
        place.axis("off")
    figure.tight_layout()
    plt.show()


# %% [markdown]
# ## 1. Look at the data
#
# Without pictures of your own, some hundreds are drawn: circles, squares, stars and triangles.

# %% language="bash"
# rm -rf build/notebook
# python -m examples.shapes $DATA

# %%
samples = [sorted(folder.iterdir())[0] for folder in sorted((DATA / "train").iterdir())[:8]]
show(samples, [path.parent.name for path in samples])

# %% [markdown]
# Before anything is trained, the **data doctor** looks every file over. A broken file is a nuisance; the same
# picture in `train` and in `test` is a lie, because the test then measures memory. It says `ok`, `warn` or
# `stop`.

# %% language="bash"
# make doctor ON=local

# %% [markdown]
# ## 2. Search good settings
#
# How fast should it learn, and how many pictures at once? Nobody knows beforehand. The recipe names the
# ranges, and a **tuning job** tries some; each trial is a training job of its own. On SageMaker that is an
# automatic model tuning job; here the same search runs as processes.

# %% language="bash"
# if [ "$ON" = aws ]; then make bootstrap build push upload; fi   # bucket, roles, images, pictures: once
# set -o pipefail
# make tune OUT=$OUT/tuning SET="epochs=4" 2>&1 | tail -n 4

# %%
trials = json.loads((OUT / "tuning/tuning.json").read_text())["trials"]
print(f"{'trial':>5}  {'objective':>9}  settings")
for trial in sorted(trials, key=lambda trial: -(trial["objective"] or 0)):
    print(f"{trial['number']:>5}  {trial['objective'] or 0:>9.3f}  {trial['parameters']}")

# %% [markdown]
# `tuning/report.html` shows what mattered. The best trial's settings are now a recipe, `tuning/best.toml`.
#
# ## 3. Train, watched
#
# The training job takes the best settings and more epochs. All the while a **debugger** records losses,
# gradients and the machine, and rules look on: is the loss still falling, are gradients vanishing, is the
# processor waiting for pictures?

# %% language="bash"
# set -o pipefail
# make train RECIPE=$OUT/tuning/best.toml SET="epochs=24" 2>&1 | tail -n 14

# %% [markdown]
# ## 4. Read the report
#
# Everything a training leaves behind is in its output: on SageMaker in the bucket, here in
# `build/notebook/run`. For people there is `output/data/report.html`; the figures below come from the files
# beside it.

# %%
results = OUT / "output/data"
if ON == "local":
    history = json.loads((results / "metrics.json").read_text())["history"]
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(8, 2.6))
    epochs = [row["epoch"] for row in history]
    for split in ("train", "validation"):
        loss.plot(epochs, [row[f"{split}_loss"] for row in history], label=split)
        accuracy.plot(epochs, [row[f"{split}_top1_accuracy"] for row in history], label=split)
    loss.set(title="loss", xlabel="epoch", yscale="log")
    accuracy.set(title="top-1 accuracy", xlabel="epoch", ylim=(0, 1))
    accuracy.legend()
    plt.show()

# %% [markdown]
# What did the debugger's rules say? A rule that found something comes with advice.

# %%
verdicts = results / "debugging/verdicts.jsonl"
if ON == "local" and verdicts.is_file():
    last = {row["rule"]: row for row in map(json.loads, verdicts.read_text().splitlines())}
    quiet = [rule for rule, row in last.items() if row["status"] == "NoIssuesFound"]
    print(f"{len(quiet)} rules found nothing: {', '.join(quiet)}")
    for rule, row in last.items():
        if row["status"] == "IssuesFound":
            print(f"{rule}: {row['summary']} {row['advice']}")

# %% [markdown]
# The first rows say how often it was right; this says **why**. `training.explain` marks what in each picture
# spoke for the answer, then hides exactly that: if the answer does not change, the explanation was wrong.

# %% language="bash"
# if [ "$ON" = local ]; then
#   python -m training.explain $OUT/model.tar.gz $DATA/test --limit 8 --methods cam,occlusion \
#     --output $OUT/explain
# fi

# %% [markdown]
# ## 5. Serve, and ask
#
# On SageMaker this is an **endpoint**; here the very same server answers on a port of this machine. It does
# not start before it has answered a sample kept in the artifact just as the trainer did.

# %%
if ON == "aws":
    subprocess.run(["make", "deploy"], check=True)
else:
    server = subprocess.Popen(
        [sys.executable, "-m", "local", "serve", "--artifact", OUT / "model.tar.gz", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(240):
        try:
            print("GET /ping", urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status)
            break
        except OSError:  # nobody listens yet, or 503 while it loads
            time.sleep(0.5)


# %%
def ask(path: Path) -> str:
    """The likeliest label and its probability."""
    if ON == "aws":
        command = [sys.executable, "-m", "aws", "invoke", os.environ["RECIPE"], str(path), "--top", "1"]
        answer = subprocess.run(command, check=True, capture_output=True).stdout
    else:
        headers = {"Content-Type": "image/jpeg", "Accept": "application/json; top=1"}
        url = f"http://127.0.0.1:{port}/invocations"
        with urllib.request.urlopen(urllib.request.Request(url, path.read_bytes(), headers)) as reply:
            answer = reply.read()
    best = json.loads(answer)["predictions"][0]
    return f"{best['label']} {best['probability']:.0%}"


questions = [sorted((DATA / "test" / path.parent.name).iterdir())[1] for path in samples]
show(questions, [ask(path) for path in questions])

# %% [markdown]
# `Accept: image/png` asks the local server for a heat map instead: where in the picture the answer comes
# from. Open its address in a browser, and there is a page to drop pictures on.

# %%
if ON == "local":
    maps = []
    for path in questions:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            path.read_bytes(),
            {"Content-Type": "image/jpeg", "Accept": "image/png"},
        )
        maps.append(OUT / f"map-{path.stem}.png")
        with urllib.request.urlopen(request) as reply:
            maps[-1].write_bytes(reply.read())
    show(maps, [path.parent.name for path in questions])

# %% [markdown]
# ## 6. Score a whole folder
#
# An endpoint waits for questions; a **Batch Transform** job starts the server, sends it a folder, and is
# gone. The answers are scored against the folder names, and compared with what the trainer recorded for the
# same pictures: served predictions must be the measured ones.

# %% language="bash"
# set -o pipefail
# make transform 2>&1 | tail -n 3

# %%
scores = json.loads((OUT / "transform/scores.json").read_text())
right, compared = scores["top1_accuracy"], scores.get("comparison")
print(f"{right['correct']} of {right['count']} right, {right['value']:.1%}")
print(f"95 % interval: {right['low']:.1%} to {right['high']:.1%}")
if compared:
    print(f"same answer as in training: {compared['items_same_prediction']} of {compared['items_compared']}")

labels, matrix = scores["labels"], scores["confusion_matrix"]
figure, place = plt.subplots(figsize=(3.2, 3.2))
place.imshow(matrix, cmap="Greens")
place.set(xticks=range(len(labels)), yticks=range(len(labels)), xlabel="predicted", ylabel="is")
place.set_xticklabels(labels, rotation=45, ha="right")
place.set_yticklabels(labels)
for row, counts in enumerate(matrix):
    for column, count in enumerate(counts):
        place.text(column, row, count, ha="center", va="center", fontsize=8)
plt.show()

# %% [markdown]
# ## 7. Clean up
#
# On AWS this is the step that saves money: `make destroy` removes what the recipe made, and nothing else.
# Here the server is stopped; the model, the reports and the pictures stay in `build/notebook` to look at.

# %%
if ON == "aws":
    subprocess.run(["make", "destroy"], check=True)
else:
    server.terminate()
    print("the server ended with exit code", server.wait(timeout=60))

# %% [markdown]
# ## What would AWS be asked?
#
# Every verb shows its plan with `EXTRA=--dry-run`, without credentials and without sending anything. These
# are the requests of `make deploy`:

# %% language="bash"
# make deploy EXTRA=--dry-run 2>/dev/null | grep '"operation"'
