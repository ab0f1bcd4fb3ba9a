"""Export of a network to ONNX, checked against PyTorch before the folder gets its name."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nemo_mmseg.apis.inputs import build_pipeline
from nemo_mmseg.models.protocols.tris import TRISProtocol
from nemo_mmseg.utils.atomic_write import check_folder_path

from .check import Differences, compare
from .graphs import ExpressionGraph, ImageGraph, SplitSegmentor, exportable
from .picture_rules import picture_rules
from .text_files import full_length, write_tokenizer

FORMAT = 3  # of export.json; the runtime has the same number
# Names that are written into a folder, the last one when all others are there.
RUNTIME, TOKENIZER, RULES = 'runtime.py', 'tokenizer.json', 'export.json'
# All that an export can hold: graphs, their weights where these are large, and what Python keeps.
OURS = re.compile(
    r'(?:image|expressions|network)\.(?:onnx|onnx\.data|pt2)|runtime\.py|tokenizer\.json'
    r'|export\.json|__pycache__'
)
SAMPLE = ('the red one on the left', 'man', 'a dog behind the chair')
INSTALL = 'pip install "nemo-mmsegmentation[export]"'


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: Where it is.
        chunk_size: Expressions that a call takes; 1 where their number is fixed.
        fixed_because: Why the number of expressions is fixed; None where it is open.
        differences: Between onnxruntime and PyTorch.
    """

    folder: Path
    chunk_size: int
    fixed_because: str | None
    differences: Differences


def export_onnx(
    model: nn.Module,
    out_dir: str | os.PathLike,
    torch_export: bool = False,
    tolerance: float = 1e-3,
) -> Exported:
    """Write a network as ONNX graphs with tokenizer, rules and a runtime.

    ``image.onnx`` runs once for a picture, ``expressions.onnx`` for its expressions.

    Args:
        model: Network of ``init_model``, which is left on the CPU and in eval mode.
        out_dir: Folder to write. One that holds an earlier export and nothing else is replaced.
        torch_export: Whether each graph is also written for PyTorch alone, as ``*.pt2``.
        tolerance: Largest difference of logits between onnxruntime and PyTorch, as a share of the
            largest logit, or of 1 where that is larger.

    Returns:
        What was written, and how far it is from PyTorch.

    Raises:
        ImportError: The extra ``export`` is not installed.
        FileExistsError: There is another folder.
        ValueError: The network or its pipeline has a part that cannot be exported, or the graphs
            differ from the network.
    """
    check_export_packages()
    if not isinstance(model, SplitSegmentor):
        raise ValueError(
            f'{type(model).__name__} cannot be exported: its image part does not run without text'
        )
    out_dir = Path(out_dir)
    check_target(out_dir)
    model.cpu().eval().requires_grad_(False)
    pipeline = build_pipeline(model.cfg)
    picture = picture_rules(pipeline, model.data_preprocessor)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f'.{out_dir.name}.') as part:
        # Not the temporary folder itself, whose rights are the owner's alone.
        folder = Path(part) / 'export'
        folder.mkdir()
        text = write_tokenizer(model, folder / TOKENIZER)
        with exportable(model):
            size = tuple(picture['size'])
            fixed = write_graphs(model, size, text, folder, torch_export)
        rules = dict(
            format=FORMAT,
            chunk_size=1 if fixed else model.chunk_size,
            threshold=probability_threshold(model.protocol),
            picture=picture,
            text=text,
        )
        shutil.copyfile(Path(__file__).with_name(RUNTIME), folder / RUNTIME)
        (folder / RULES).write_text(json.dumps(rules, indent=1) + '\n', encoding='utf-8')
        differences = compare(model, pipeline, folder, SAMPLE)
        differences.check(tolerance)
        if out_dir.exists():
            check_target(out_dir)  # again: the export may have taken long
            shutil.rmtree(out_dir)
        folder.rename(out_dir)
    return Exported(out_dir, rules['chunk_size'], fixed, differences)


def probability_threshold(protocol: nn.Module) -> float:
    """Return the probability above which a protocol takes a pixel; 0.5 if it has none."""
    if isinstance(protocol, TRISProtocol):  # its threshold is a share of the map's maximum
        return 0.5
    return float(getattr(protocol, 'threshold', 0.5))


def check_export_packages() -> None:
    """Say what to install where a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'the export needs {error.name} ({error}): {INSTALL}') from error


def check_target(folder: Path) -> None:
    """Refuse a folder with other things in it, before work is done.

    Raises:
        FileExistsError: It has a file that no export writes.
        NotADirectoryError: It cannot be a folder.
    """
    check_folder_path(folder)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = sorted(name for name in names if not OURS.fullmatch(name))
    if others or (names and RULES not in names):
        raise FileExistsError(
            f'{folder} holds other things than an export ({(others or names)[0]}): name a new one'
        )


def write_graphs(
    model: SplitSegmentor, size: tuple[int, int], text_rules: dict, folder: Path, torch_export: bool
) -> str | None:
    """Export a network, with the number of expressions left open where that works.

    Args:
        model: The network, on the CPU, in eval mode and :func:`exportable`.
        size: Height and width of its input.
        text_rules: What :func:`write_tokenizer` returned.
        folder: Where the files go.
        torch_export: See :func:`export_onnx`.

    Returns:
        Why the number of expressions is fixed at one, or None.
    """
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    tokens = full_length(model.tokenize(list(SAMPLE)), text_rules)
    graph = ImageGraph(model)
    with torch.no_grad():
        nested = model.encode_image(torch.zeros(1, 3, *size))
        maps = graph(image)
    names = [f'map_{i}' for i in range(len(maps))]
    write_graph(graph, (image,), ['image'], folder / 'image', torch_export, output=names)
    rest = ExpressionGraph(model, pytree.tree_structure(nested), size)
    names, path = [*names, 'ids', 'mask'], folder / 'expressions'
    try:
        write_graph(rest, (maps, *tokens), names, path, torch_export, open_rows=True)
    except ValueError as error:
        one = [tensor[:1] for tensor in tokens]
        write_graph(rest, (maps, *one), names, path, torch_export)
        return str(error)
    return None


def write_graph(
    graph: nn.Module,
    inputs: tuple[Tensor | tuple[Tensor, ...], ...],
    input_names: Sequence[str],
    path: Path,
    torch_export: bool,
    open_rows: bool = False,
    output: Sequence[str] | None = None,
) -> None:
    """Write one graph as ``path.onnx`` and, if wanted, ``path.pt2``.

    Args:
        graph: The module.
        inputs: What it is called with; the last two are ids and mask where ``open_rows``.
        input_names: Names of the inputs in the file.
        path: File without suffix.
        torch_export: Whether the ``.pt2`` is wanted.
        open_rows: Whether the first dimension of the last two inputs is left open.
        output: Names of the outputs; None: ``logits`` and, where it is there, ``no_target``.

    Raises:
        ValueError: PyTorch cannot make the graph.
    """
    shapes = None
    if open_rows:
        rows = {0: torch.export.Dim.DYNAMIC}
        fixed = pytree.tree_map(lambda tensor: {}, inputs[:-2])
        shapes = (*fixed, rows, rows)
    names = output or ['logits', 'no_target']
    try:
        # Not by torch.onnx, which, where this fails, tries ways that fix the rows in silence.
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
        made = torch.onnx.export(
            program,
            input_names=input_names,
            output_names=names[: len(program.graph_signature.user_outputs)],
            dynamo=True,
            verbose=False,
        )
    except (RuntimeError, ValueError) as error:  # PyTorch's are many, of these two
        raise ValueError(f'{path.name} cannot be exported: {_reason(error)}') from error
    made.save(path.with_suffix('.onnx'))
    if torch_export:
        torch.export.save(program, path.with_suffix('.pt2'))


def _reason(error: BaseException) -> str:
    """Return the first line of what an error goes back to; what wraps it is advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
