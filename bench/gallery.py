"""docs/gallery.md and its pictures, drawn again by `make gallery`: the same to the last pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import numerics as nx
from numerics.draw import Picture

HERE = Path(__file__).parents[1] / "docs"
INTRODUCTION = """# Gallery

Drawn by `make gallery` with the library's own kernels: what is on a picture is what `nx.quantize` gives,
bit for bit; the figures of the model's layers alone are made up. Each call returns a picture with
`save(path)`, its matplotlib `figure`, and `alt`, the sentence below it here; a notebook shows it by itself.
The colours are Okabe and Ito's, which people with any colour blindness tell apart. On the command line each
is `numerics plot`, as in `numerics plot format fp8_e4m3 e4m3.png`.
"""


def weights() -> NDArray[np.float32]:
    """Numbers spread as those of a layer are: many small ones and a few large, 64 x 512."""
    return np.random.default_rng(7).standard_t(5, (64, 512)).astype(np.float32)


def portrait() -> NDArray[np.float32]:
    """Grace Hopper (US Navy, public domain; it ships with matplotlib), 144 x 144 pixels in grey."""
    from matplotlib import cbook, image

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        colours = np.asarray(image.imread(file, format="jpg"), np.float32) / 255
    grey: NDArray[np.float32] = colours.mean(axis=2)[36:468:3, 40:472:3]
    return grey


def block() -> NDArray[np.float32]:
    """A block with one large value."""
    x = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    x[5] = 7.3
    return x


def report() -> Picture:
    """Eight layers of random weights, the same on every machine: the report is written out, not measured."""
    rng = np.random.default_rng(3)
    local = np.sort(rng.uniform(15, 27, 8)).round(1)
    lost = rng.uniform(0, 5, 8).round(1)
    layers = [
        {"name": f"encoder.{k}.mlp", "formats": "mxfp4 x mxfp8_e4m3", "local": a, "cumulative": a - b}
        for k, a, b in zip(rng.permutation(8), local.tolist(), lost.tolist(), strict=True)
    ]
    return nx.draw.model({"layers": layers, "output": 14.2})


EIGHT = ["half_even", "half_away", "half_up", "half_down", "toward_zero", "floor", "ceil", "to_odd"]
SEVEN = ["int2", "fp4", "mxfp4", "mx4", "nvfp4", "mx6", "fp8_e4m3"]
PICTURES: dict[str, tuple[str, str, Callable[[], Picture]]] = {
    "image": ("A picture in seven formats", f"nx.draw.image(pixels, {SEVEN})",
              lambda: nx.draw.image(portrait(), SEVEN)),
    "format_fp8_e4m3": ("A format", 'nx.draw.format("fp8_e4m3")', lambda: nx.draw.format("fp8_e4m3")),
    "format_mx6": ("A format of blocks", 'nx.draw.format("mx6")', lambda: nx.draw.format("mx6")),
    "rounding_fp4": ("Eight roundings, and where ties go", f'nx.draw.rounding("fp4", {EIGHT})',
                     lambda: nx.draw.rounding("fp4", EIGHT)),
    "tensor_int4": ("A tensor in int4", 'nx.draw.tensor(x, "int4", scheme=nx.per_channel(0))',
                    lambda: nx.draw.tensor(weights(), "int4", scheme=nx.per_channel(0))),
    "tensor_mxfp4": ("A tensor in mxfp4", 'nx.draw.tensor(x, "mxfp4")',
                     lambda: nx.draw.tensor(weights(), "mxfp4")),
    "block_mxfp4": ("A block, and what each scale rule would do", 'nx.draw.block(x, "mxfp4")',
                    lambda: nx.draw.block(block(), "mxfp4")),
    "block_mx6": ("A block with microexponents", 'nx.draw.block(x, "mx6")',
                  lambda: nx.draw.block(block(), "mx6")),
    "scales_nvfp4": ("What each scale rule loses", 'nx.draw.scales(x, "nvfp4")',
                     lambda: nx.draw.scales(weights(), "nvfp4")),
    "formats": ("Formats beside each other", "nx.draw.formats(x)", lambda: nx.draw.formats(weights())),
    "model": ("A model's layers, worst first", "nx.draw.model(nx.report(model))", report),
}  # fmt: skip
"""By the name of the file: the heading, the call that a reader would write, and what draws it."""


def page(alts: dict[str, str]) -> str:
    """The page: a heading, the call, the picture and its alt text for each."""
    parts = [INTRODUCTION]
    for name, (title, call, _) in PICTURES.items():
        parts.append(f"## {title}\n\n`{call}`\n\n![{alts[name]}](pictures/{name}.png)\n\n{alts[name]}\n")
    return "\n".join(parts)


def main() -> None:
    """Draws all, and writes the page."""
    alts = {}
    for name, (_, _, draw) in PICTURES.items():
        picture = draw()
        picture.save(HERE / "pictures" / f"{name}.png")
        alts[name] = picture.alt
        print(f"docs/pictures/{name}.png")
    (HERE / "gallery.md").write_text(page(alts), encoding="utf-8")


if __name__ == "__main__":
    main()
