"""The peer of `analyze`: the same work with torch and scipy, `python -m benchmarks.peer_analyze --model FOLDER ...`.

Forward pass, in-context block Jacobians of the last tokens, one Schur form a matrix (scipy's gees, whose eigenvalues
are kept), eigenvectors for the condition numbers, singular values and vectors, every measure of `jaxdyn.measures` but
the Kreiss constant, in both metrics, running products, the averaged Jacobian; then one file of arrays. What torch can
batch is batched, in the sizes that were fastest. It leaves out what `analyze` adds beyond: Kreiss constant, nulls,
stretching rates, decoded directions, provenance, resuming.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks import peer_torch

REMOVED = (1, 4, 16)
ROWS, PROMPTS = 16, 16
"""Rows of a Jacobian, and prompts of the forward pass, at once: the fastest of 4 to all on two cores."""


def load(folder: Path) -> Any:
    """Load the model in float32 with the attention that takes held keys and values."""
    return peer_torch.use_held_attention(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


@torch.no_grad()
def analyze(model: Any, ids: np.ndarray, lengths: np.ndarray, out: Path) -> dict[str, np.ndarray]:
    """Analyse the last token of padded prompts (B, T) and write the arrays, (layer, sample, ...), to an npz file."""
    seen, final = _capture(model, torch.as_tensor(ids, dtype=torch.long), torch.as_tensor(lengths))
    outputs = [*(one.x for one in seen[1:]), final]
    product = torch.eye(final.shape[-1], dtype=torch.float64)
    layers, means = [], []
    for index, (contexts, output) in enumerate(zip(seen, outputs, strict=True)):
        block = peer_torch.in_context(model.model, index, contexts)
        jacobians = peer_torch.jacobians(block, contexts.x, rows=ROWS)
        ratio = contexts.x.norm(dim=-1) / output.norm(dim=-1)
        found = portrait(jacobians, ratio)
        product = jacobians.double() @ product  # float64 holds the range of singular values of a few layers
        found |= {f"product_{name}": value for name, value in ranks(torch.linalg.svdvals(product)).items()}
        layers.append(found)
        means.append(jacobians.mean(dim=0))
    whole = {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}
    mean = portrait(torch.stack(means), torch.ones(len(means)))
    whole |= {f"mean_{name}": value for name, value in mean.items()}
    arrays = {name: value.numpy() for name, value in whole.items()}
    np.savez(out, **arrays)  # pyright: ignore[reportArgumentType]
    return arrays


def _capture(model: Any, ids: Tensor, lengths: Tensor) -> tuple[list[peer_torch.Contexts], Tensor]:
    """Run the forward pass a few prompts at a time."""
    parts = [peer_torch.capture(model, *pair) for pair in zip(ids.split(PROMPTS), lengths.split(PROMPTS), strict=True)]
    layers = zip(*(seen for seen, _ in parts), strict=True)
    return [peer_torch.joined(layer) for layer in layers], torch.cat([final for _, final in parts])


def portrait(matrices: Tensor, ratio: Tensor) -> dict[str, Tensor]:
    """Decompose matrices (S, n, n) once and measure them in the raw metric and, scaled, in the relative one."""
    n = matrices.shape[-1]
    schur, vectors, eigenvalues = real_schur(matrices)
    backward = torch.linalg.matrix_norm(matrices @ vectors - vectors @ schur)
    right = torch.linalg.eig(matrices).eigenvectors
    condition = right.norm(dim=-2) * torch.linalg.inv(right).norm(dim=-1)
    mean = matrices.diagonal(dim1=-2, dim2=-1).mean(-1)
    left, _, right_h = torch.linalg.svd(matrices - mean[:, None, None] * torch.eye(n))
    top = math.ceil(n / 10)
    overlap = left[..., :top].transpose(-1, -2) @ right_h[..., :top, :].transpose(-1, -2)
    shared = {
        "self_alignment": overlap.square().sum((-2, -1)) / top,
        "complex_undecided": undecided(eigenvalues, condition, backward),
        "eigenvector_condition": 1 / torch.quantile(1 / condition, 0.5, dim=-1),
        "eigenvector_condition_q90": 1 / torch.quantile(1 / condition, 0.1, dim=-1),
        "eigenvector_condition_max": condition.amax(-1),
        "residual": backward / (n * torch.finfo(matrices.dtype).eps * torch.linalg.matrix_norm(matrices)),
        "orthogonality": torch.linalg.matrix_norm(vectors.mT @ vectors - torch.eye(n)),
    }
    singular = torch.linalg.svdvals(matrices)
    abscissa = torch.linalg.eigvalsh((matrices + matrices.mT) / 2)[..., -1]
    raw = measures(matrices, schur, eigenvalues, singular, abscissa)
    each = ratio[:, None]
    scaled = measures(
        each[..., None] * matrices, each[..., None] * schur, each * eigenvalues, each * singular, ratio * abscissa
    )
    arrays = {"eigenvalues": eigenvalues, "singular_values": singular}
    return arrays | shared | raw | {f"relative_{name}": value for name, value in scaled.items()}


def measures(
    matrix: Tensor, schur: Tensor, eigenvalues: Tensor, singular: Tensor, abscissa: Tensor
) -> dict[str, Tensor]:
    """Return the measures that the metric can change."""
    n = matrix.shape[-1]
    below, above = schur.diagonal(-1, -2, -1), schur.diagonal(1, -2, -1)
    inside = torch.where(below != 0, (above + below).square() - above.square(), 0).sum(-1)
    henrici = (schur.triu(1).square().sum((-2, -1)) + inside).clamp(min=0).sqrt()
    size, skew = torch.linalg.matrix_norm(matrix), torch.linalg.matrix_norm(matrix - matrix.mT)
    centred = eigenvalues - eigenvalues.real.mean(-1, keepdim=True)
    deviator = matrix - matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(n)
    return {
        "henrici": henrici,
        "henrici_normalized": henrici / size,
        "complex_fraction": (eigenvalues.imag != 0).float().mean(-1),
        "mean_rotation_angle": centred.angle().abs().mean(-1),
        "imaginary_energy": centred.imag.square().sum(-1) / centred.abs().square().sum(-1),
        "antisymmetric_share": (skew / 2 / torch.linalg.matrix_norm(deviator)).square(),
        "symmetry_gap": skew / size,
        "spectral_radius": eigenvalues.abs().amax(-1),
        "spectral_norm": singular[..., 0],
        "numerical_abscissa": abscissa,
        **{name: value for name, value in ranks(singular).items() if name in RANKS},
    }


RANKS = ("effective_rank", "participation_ratio", "stable_rank")


def ranks(singular: Tensor) -> dict[str, Tensor]:
    """Return the rank measures of singular values in descending order."""

    def entropy_rank(values: Tensor, power: int) -> Tensor:
        shares = values**power / (values**power).sum(-1, keepdim=True)
        return torch.special.entr(shares).sum(-1).exp()

    square = singular.square()
    return {
        "effective_rank": entropy_rank(singular, 2),
        "participation_ratio": square.sum(-1).square() / square.square().sum(-1),
        "stable_rank": square.sum(-1) / square[..., 0],
        "roy_vetterli_rank": entropy_rank(singular, 1),
        "threshold_count": (singular > 0.1 * singular[..., :1]).sum(-1),
        **{f"effective_rank_without_{removed}": entropy_rank(singular[..., removed:], 2) for removed in REMOVED},
    }


def undecided(eigenvalues: Tensor, condition: Tensor, backward: Tensor) -> Tensor:
    """Return the share of eigenvalues that rounding cannot tell real from complex."""
    real = eigenvalues.imag == 0
    far = torch.where(real, eigenvalues.real, torch.inf)
    gaps = (far[:, :, None] - far[:, None, :]).abs().nan_to_num(torch.inf)
    gaps.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    distance = torch.where(real, gaps.amin(-1) / 2, eigenvalues.imag.abs())
    return (distance <= condition * backward[:, None]).float().mean(-1)


def real_schur(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return T, Q and the eigenvalues of each matrix: LAPACK's gees, one matrix after another (scipy has no batch)."""
    arrays = matrices.numpy()
    (gees,) = get_lapack_funcs(("gees",), (arrays[0],))
    work = int(gees(lambda *_: None, arrays[0], lwork=-1)[-2][0])
    found = [gees(lambda *_: None, one, lwork=work) for one in arrays]
    T, Q = (torch.as_tensor(np.stack([one[position] for one in found])) for position in (0, 4))
    return T, Q, torch.complex(*(torch.as_tensor(np.stack([one[position] for one in found])) for position in (2, 3)))


def main() -> None:
    """Analyse the first prompts of a .json list of strings."""
    parser = argparse.ArgumentParser(description="Spectra of a Llama's blocks with torch and scipy.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="a .json list of strings")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("peer.npz"))
    options = parser.parse_args()
    from benchmarks.bench_analyze import prompts
    from jaxdyn.models import load as load_ours

    found = prompts(load_ours(options.model), options.texts, options.samples)
    arrays = analyze(load(options.model), found.token_ids, found.lengths, options.out)
    print("layer  henrici_normalized  effective_rank")
    for layer, (henrici, rank) in enumerate(zip(arrays["henrici_normalized"], arrays["effective_rank"], strict=True)):
        print(f"{layer:5d}  {henrici.mean():18.4f}  {rank.mean():14.2f}")


if __name__ == "__main__":
    main()
