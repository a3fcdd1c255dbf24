"""Write which names MinkowskiEngine and TorchSparse have, read from checkouts of their sources.

Neither installs without a compiler, so nothing of them runs:
``python tests/compat/make_peer_names.py minkowski CHECKOUT`` and ``... torchsparse CHECKOUT``.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent / "fixtures"

# By the path of a module, the files that it takes names from; `*` stands for all of a folder.
FILES = {
    "minkowski": {
        "": "MinkowskiEngine/__init__.py",
        "MinkowskiFunctional": "MinkowskiEngine/MinkowskiFunctional.py",
        "modules.resnet_block": "MinkowskiEngine/modules/resnet_block.py",
        "modules.senet_block": "MinkowskiEngine/modules/senet_block.py",
        "utils": "MinkowskiEngine/utils/__init__.py",
    },
    "torchsparse": {
        "": "torchsparse/[ot]*.py",
        "backbones": "torchsparse/backbones/*.py",
        "backbones.modules": "torchsparse/backbones/modules/blocks.py",
        "nn": "torchsparse/nn/modules/*.py",
        "nn.functional": "torchsparse/nn/functional/**/*.py",
        "nn.utils": "torchsparse/nn/utils/*.py",
        "utils": "torchsparse/utils/utils.py",
        "utils.tensor_cache": "torchsparse/utils/tensor_cache.py",
        "utils.to_dense": "torchsparse/utils/to_dense.py",
        "utils.tune": "torchsparse/utils/tune.py",
        "utils.collate": "torchsparse/utils/collate.py",
        "utils.quantize": "torchsparse/utils/quantize.py",
    },
}

Names = dict[str, list[str]]


def defined(file: Path) -> Names:
    """Return the functions and classes of a file, and the parameters of each."""
    found = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = parameters(node)
        elif isinstance(node, ast.ClassDef):
            inits = [part for part in node.body if getattr(part, "name", "") == "__init__"]
            found[node.name] = parameters(inits[0]) if inits else []
    return found


def parameters(function: ast.AST) -> list[str]:
    """Return the names of a function's parameters."""
    assert isinstance(function, ast.FunctionDef)
    names = [entry.arg for entry in (*function.args.args, *function.args.kwonlyargs)]
    return [name.lstrip("_") for name in names if name != "self"]


def public(file: Path) -> list[str]:
    """Return the names of a file's ``__all__``; none where it has none."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = getattr(node, "targets", [])
        if targets and getattr(targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return []


def imported(file: Path) -> Iterator[str]:
    """Yield the names that a file imports from others of its library."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            yield from (entry.asname or entry.name for entry in node.names)


def names(library: str, checkout: Path) -> dict[str, Names]:
    """Return a library's public names by the paths of modules."""
    everything: Names = {}
    for file in sorted(checkout.rglob("*.py")):
        if file.is_relative_to(checkout / library) or "MinkowskiEngine" in file.parts:
            everything |= defined(file)
    found = {}
    for path, pattern in FILES[library].items():
        own: set[str] = set()
        for file in sorted(checkout.glob(pattern)):
            listed = public(file)
            taken = imported(file) if file.name == "__init__.py" and not listed else listed
            own |= set(taken) or {name for name in defined(file) if not name.startswith("_")}
        own.discard("*")
        found[path] = {name: everything.get(name, []) for name in sorted(own)}
    return found


def main() -> None:
    """Write one file."""
    library, checkout = sys.argv[1], Path(sys.argv[2])
    text = json.dumps(names(library, checkout), indent=1)
    (FIXTURES / f"{library}_names.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
