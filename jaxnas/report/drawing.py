"""An architecture as a drawing: in SVG for a page, in characters for a terminal."""

import textwrap
from typing import NamedTuple

from arch import ArchitectureConfig
from arch.cost.ops import list_ops
from arch.cost.sizes import sizes_of
from arch.cost.totals import weight_bytes
from arch.cost.workload import forward
from arch.families import USES, has_embedding_norm, has_heads
from jaxnas.report.page.charts import color_of, picture
from jaxnas.report.page.tags import label, tag
from jaxnas.report.tables import millions

# Ops with weights -> their stage; any other is of the mixer.
_STAGES = {
    "embedding": "embedding",
    "head": "output head",
    "norm": "norm",
    "up": "feed-forward",
    "gate": "feed-forward",
    "down": "feed-forward",
    "channel_shift": "feed-forward",
    "receptance": "feed-forward",
}
_INSIDE = ("norm", "mixer", "feed-forward")  # of a block


class Stage(NamedTuple):
    """One box of a drawing; figures are of all its runs together.

    Attributes:
      name: what it is.
      words: what tells it apart.
      channels: that it writes at most.
      parameters: exported.
      bytes: stored.
      inside: whether it is part of the block that is repeated.
    """

    name: str
    words: str
    channels: int
    parameters: int
    bytes: int
    inside: bool


def stages_of(config: ArchitectureConfig) -> list[Stage]:
    """The stages of a model in the order they run; figures add up to the model's."""
    sizes = sizes_of(config)
    counts: dict[str, int] = {}
    stored: dict[str, int] = {}
    for op in list_ops(sizes, forward()):
        name = _STAGES.get(op.name, "mixer")
        own = sum(weight.rows * weight.row_length for weight in op.weights)
        counts[name] = counts.get(name, 0) + int(op.count * own)
        weight = int(op.count * weight_bytes(op.weights, sizes))
        stored[name] = stored.get(name, 0) + weight
    words = _words(config)
    widths = {"mixer": _mixer_width(config), "feed-forward": config.inner_channels}
    return [
        Stage(
            config.arch_type.replace("_", " ") if name == "mixer" else name,
            words[name],
            widths.get(name, config.hidden_dim),
            counts[name],
            stored[name],
            name in _INSIDE,
        )
        for name in ("embedding", *_INSIDE, "output head")
        if name in counts
    ]


def _mixer_width(config: ArchitectureConfig) -> int:
    mamba = config.arch_type == "mamba"
    return config.inner_dim or 2 * config.hidden_dim if mamba else config.hidden_dim


def _words(config: ArchitectureConfig) -> dict[str, str]:
    uses, tokens, width = USES[config.arch_type], config.vocab_size, config.hidden_dim
    mixer = []
    if has_heads(config.arch_type):
        mixer.append(f"{config.num_heads} heads of {config.head_dim}")
    if config.arch_type == "grouped_query_attention":
        mixer.append(f"{config.key_value_heads} of keys and values")
    if "position_encoding" in uses and config.position_encoding != "absolute":
        mixer.append(config.position_encoding)
    if config.arch_type == "mamba":
        mixer.append(f"{_mixer_width(config)} inner channels")
    norm = config.normalization if "normalization" in uses else "layernorm"
    embedded = ", of the embedding" if has_embedding_norm(config.arch_type) else ""
    positions = "position_encoding" in uses and config.position_encoding == "absolute"
    activation = config.activation if "activation" in uses else "squared relu"
    return {
        "embedding": f"{tokens:,} x {width}"
        + (", absolute positions" if positions else ""),
        "norm": f"{norm} of each part{embedded}, at the end",
        "mixer": ", ".join(mixer) or f"{width} channels",
        "feed-forward": f"{width} > {config.inner_channels} > {width}, {activation}",
        "output head": f"{width} x {tokens:,}"
        + (", the embedding's table" if config.tie_embeddings else ""),
    }


_ROW, _BOX, _WIDE = 46, 34, 470  # pixels
_LETTER = 5.4  # of a stage's words, at most


def drawing_svg(config: ArchitectureConfig) -> str:
    """The stages from tokens to logits; a box is as wide as its channels, or words."""
    stages = stages_of(config)
    most = max(stage.channels for stage in stages)
    parts, y = [], 8
    inside = [place for place, stage in enumerate(stages) if stage.inside]
    top, bottom = 2 + _ROW * inside[0], 2 + _ROW * (inside[-1] + 1) - 2
    parts.append(
        tag("rect", class_="block", x=6, y=top, width=_WIDE - 12, height=bottom - top,
            rx=10)
    )  # fmt: skip
    parts.append(
        label(_WIDE - 14, top + 16, f"\u00d7 {config.num_layers}", class_="times")
    )
    for place, stage in enumerate(stages):
        y = 8 + _ROW * place
        width = max(210 + 190 * stage.channels / most, 24 + _LETTER * len(stage.words))
        kind = color_of(config.arch_type) if place == inside[1] else "plain"
        x = (_WIDE - width) / 2
        middle = _WIDE / 2
        if place:
            line = f"M{middle} {y - _ROW + _BOX}V{y}"
            parts.append(tag("path", class_="flow", d=line))
        parts += [
            tag("rect", class_=f"box {kind}", x=x, y=y, width=width, height=_BOX, rx=6),
            label(middle, y + 14, f"{stage.name}  {share(stage)}", class_="name mid"),
            label(middle, y + 27, stage.words, class_="words mid"),
        ]
    height = 8 + _ROW * len(stages)
    title = f"{config.arch_type} of {config.num_layers} blocks"
    return picture(title, *parts, width=_WIDE, height=height, class_="drawing")


def share(stage: Stage) -> str:
    """A stage's parameters in words."""
    count = stage.parameters
    if not count:
        return "tied"
    return millions(count) if count >= 1e5 else f"{count:,}"


def drawing_file(config: ArchitectureConfig) -> str:
    """`drawing_svg` as a file of its own, with the colours in it."""
    style = (
        "text{font:12px sans-serif;fill:#1b1f24}.words{font-size:10px;fill:#57606a}"
        ".mid{text-anchor:middle}.times{text-anchor:end;font-weight:bold}"
        ".block{fill:#f6f8fa;stroke:#8c959f;stroke-dasharray:4 3}"
        ".box{fill:#fff;stroke:#57606a}.box.plain{fill:#fff}.flow{stroke:#57606a}"
        ".f0,.f1,.f2,.f3,.f4,.f5{fill:#dbe9ff}"
    )
    svg = drawing_svg(config)
    end = svg.index(">") + 1
    opening = svg[:end].replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{opening}<style>{style}</style>{svg[end:]}\n"


_FIGURES = 29  # columns of a box's edges and of what stands beside it


def drawing_text(
    config: ArchitectureConfig, plain: bool = False, columns: int = 85
) -> str:
    """The stages as boxes of characters, with their figures beside them.

    Args:
      config: of the model.
      plain: whether ASCII is all that the terminal can show.
      columns: to fit into, if they are 50 or more.
    """
    stages = stages_of(config)
    lines = [f"{stage.name}: {stage.words}" for stage in stages]
    width = min(56, max(21, columns - _FIGURES), max(map(len, lines)))
    if plain:
        top = bottom = f"+{'-' * (width + 2)}+"
        side, flow, open_, close = "|", "|", "+", "+"
    else:
        top, bottom = f"┌{'─' * (width + 2)}┐", f"└{'─' * (width + 2)}┘"
        side, flow, open_, close = "│", "│", "╭", "╰"
    rows: list[str] = []
    inside = [place for place, stage in enumerate(stages) if stage.inside]
    for place, (stage, line) in enumerate(zip(stages, lines, strict=True)):
        edge = f"{side} " if stage.inside else "  "
        if place == inside[0]:
            rows.append(f"{open_} x {config.num_layers}")
        figures = f"  {share(stage):>8}  {stage.bytes / 2**20:7.2f} MiB"
        rows.append(edge + top)
        for said in textwrap.wrap(line, width):
            rows.append(f"{edge}{side} {said:<{width}} {side}{figures}")
            figures = ""
        rows.append(edge + bottom)
        if place == inside[-1]:
            rows.append(close)
        elif place < len(stages) - 1 and not stage.inside:
            rows.append(f"  {' ' * (width // 2)}{flow}")
    return "\n".join(rows)
