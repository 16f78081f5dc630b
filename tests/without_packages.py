"""A training machine in a process of its own: only its packages can be imported, and a tiny pair is made, scored and used.

    python -m tests.without_packages MODEL_FOLDER WORK_FOLDER

Started by `tests/test_without_inspect.py`. Allowed are the packages that such a machine has and what they require themselves; every
other installed package, Inspect first, is as if it were not installed. Before that only the standard library and plain texts are imported.
"""

import importlib.metadata
import json
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from tests.varied_texts import varied_text

MACHINE = ("torch", "transformers", "peft", "accelerate", "safetensors", "pyarrow", "pydantic", "typer", "rich", "numpy", "tokenizers")
"""What a training machine has (issue 19, item 2); jaxtyping is added, since the shapes in all signatures are written with it."""
OURS = frozenset({"nla", "tests"})


def required(names: Sequence[str]) -> set[str]:
    """Return the distributions that the named ones require, themselves included, without extras."""
    waiting, closed = list(names), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in closed:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        closed.add(name)
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements if "extra ==" not in line]
    return closed


class Machine(PathFinder):
    """The import system's own finder, for which packages outside the closure of `MACHINE` are not installed."""

    def __init__(self) -> None:
        allowed = required([*MACHINE, "jaxtyping"])
        owners = importlib.metadata.packages_distributions()
        self.names = {
            module
            for module, distributions in owners.items()
            if module not in OURS and not any(re.sub(r"[-_.]+", "-", name).lower() in allowed for name in distributions)
        }

    def find_spec(  # type: ignore[override]
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module, unless it belongs to a package that a training machine does not have."""
        return None if fullname.partition(".")[0] in self.names else PathFinder.find_spec(fullname, path, target)


TEXTS = [varied_text(i) for i in range(120)]
CONFIG = """
model = "{model}"
base_checkpoint = ""
av_template = "Say what [{{injection_char}}] holds"
ar_template = "{{explanation}} End."
marker = "@"
injection_scale = 5
heldout_vectors = 16
temperature = 1.0
max_tokens = 24
av_adapter = {{ rank = 2 }}
ar_adapter = {{ rank = 2 }}
av = {{ steps = 3, batch = 4, eval_every = 3 }}
samples = {{ n = 8, temperature = 1.0, max_tokens = 16 }}
ar = {{ steps = 3, batch = 4, eval_every = 3 }}
[rl]
group = 2
max_tokens = 16
train = {{ steps = 2, batch = 2, eval_every = 2 }}
[data]
layer = 1
passage_tokens = 60
positions_per_passage = 2
[[data.corpora]]
path = "texts.jsonl"
windows = 1
"""


def train(folder: Path, model: str) -> None:
    """Make data and train a pair through the command line, all stages."""
    from typer.testing import CliRunner

    from nla.cli import app

    (folder / "texts.jsonl").write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    (folder / "pair.toml").write_text(CONFIG.format(model=model))
    given = [str(folder / "pair.toml"), "--corpora", str(folder), "--work", str(folder / "work"), "--dtype", "float32", "--device", "cpu"]
    done = CliRunner().invoke(app, ["train", "all", *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def use(folder: Path, model: str) -> dict[str, object]:
    """Read vectors from token ids, explain and reconstruct them, and score the pair; return what came out."""
    import torch

    from nla.activations.capture import residual_stream
    from nla.models.loaded import load_model
    from nla.pair.reconstructor import load_reconstructor
    from nla.support import json_output
    from nla.training import evaluation
    from nla.training.data.documents import Corpus
    from nla.training.heldout import read_token_contexts
    from nla.verbalizers.av import ActivationVerbalizer, build
    from nla.verbalizers.base import Explanation

    base = load_model(model, dtype="float32", device="cpu")
    pair = str(folder / "work" / "pair")
    vectors = residual_stream(base, list(range(65, 90)), 1)
    av, ar = build(base, None, pair), load_reconstructor(pair, base)
    explanations = av.verbalize(vectors[:3], [(i,) for i in range(3)])

    class Tagged(ActivationVerbalizer):
        """A random AV closes no tag, so its whole reply is taken as the explanation."""

        def explanation(self, ids: list[int]) -> Explanation:
            return Explanation(str(self.model.tokenizer.decode(ids)) or "-")

    contexts = read_token_contexts(base, 1, Corpus(path=str(folder / "texts.jsonl")), 12)
    score = evaluation.score(Tagged(av.model, av.sidecar, 1.0, 16), ar, contexts)
    json_output.write_json(folder / "score.json", score)
    return {
        "vectors": list(vectors.shape),
        "finite": bool(torch.isfinite(vectors).all()),
        "explanations": len(explanations),
        "reconstructed": list(ar.reconstruct(["a river", "a town"]).shape),
        "measures": {measure.name: measure.estimate for measure in score.measures},
    }


def main() -> None:
    """Hide the packages, then train and use a pair; print what came out as JSON."""
    before = set(sys.modules)  # what other packages load at every start of Python
    machine = Machine()
    sys.meta_path[:] = [machine if finder is PathFinder else finder for finder in sys.meta_path]  # type: ignore[list-item]
    model, folder = sys.argv[1], Path(sys.argv[2])
    train(folder, model)
    result = use(folder, model)
    loaded = sorted(name for name in sys.modules.keys() - before if name.partition(".")[0] in machine.names)
    print(json.dumps(result | {"absent": sorted(machine.names), "loaded": loaded}))


if __name__ == "__main__":
    main()
