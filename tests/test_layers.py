"""Imports point one way."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("arch", "search", "jaxnas")
# What each package may import of the three.
ALLOWED = {"arch": {"arch"}, "search": {"search"}, "jaxnas": set(PACKAGES)}


def modules_of(package):
    """Dotted name -> file, of every module under the package."""
    files = sorted((ROOT / package).rglob("*.py"))
    parts = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {
        ".".join(names[:-1] if names[-1] == "__init__" else names): file
        for file, names in parts.items()
    }


def imports_of(source, module, is_package=False):
    """Every absolute name that a module's source imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                depth = node.level - is_package
                home = module.split(".")
                home = home[: len(home) - depth]
                base = ".".join([*home, base]).rstrip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def imports_in(package):
    return {
        name: imports_of(file.read_text(), name, file.name == "__init__.py")
        for name, file in modules_of(package).items()
    }


def test_the_parser_sees_each_form():
    source = """
import jaxnas.run as other
from . import config
from ..search import types
def late():
    from search.pareto.dominance import rank
"""
    assert imports_of(source, "arch.mixers.attention") == {
        "jaxnas.run",
        "arch.mixers.config",
        "arch.search.types",
        "search.pareto.dominance.rank",
    }
    assert imports_of("from . import a", "arch.cost", is_package=True) == {
        "arch.cost.a"
    }
    assert imports_of("from .ops import a", "arch.cost.totals") == {"arch.cost.ops.a"}


@pytest.mark.parametrize("package", PACKAGES)
def test_only_jaxnas_joins_the_other_two(package):
    wrong = [
        f"{module} imports {name}"
        for module, names in imports_in(package).items()
        for name in names
        if (top := name.split(".")[0]) in PACKAGES and top not in ALLOWED[package]
    ]
    assert not wrong


def dependencies_in(package):
    """Module -> modules of the same package that it imports."""
    modules = modules_of(package)

    def module_of(name):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {module_of(name) for name in names} - {"", module}
        for module, names in imports_in(package).items()
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cycles(package):
    # Raises CycleError, which names the modules.
    order = tuple(graphlib.TopologicalSorter(dependencies_in(package)).static_order())
    assert len(order) == len(modules_of(package))


# From the bottom up: a module imports from lower lines only.
LINES = (
    ("arch.families", "arch.checks"),
    ("arch.config",),
    ("arch.genes", "arch.repair"),
    ("arch.space_checks",),
    (
        "arch.traits",
        "arch.layout",
        "arch.space",
        "arch.baselines",
        "arch.published",
        "arch.open_models",
    ),
    ("arch.initial", "arch.layers"),
    (
        "arch.layers.norms",
        "arch.layers.activations",
        "arch.layers.positions",
        "arch.layers.dense",
        "arch.layers.heads",
    ),
    ("arch.layers.dropout", "arch.spaces", "arch.layers.sublayer"),
    ("arch.mixers.softmax", "arch.mixers.wkv", "arch.mixers.chunks"),
    ("arch.mixers.flash",),
    ("arch.layers.feedforward", "arch.layers.channel_mix", "arch.mixers.attention"),
    ("arch.mixers.linear_attention", "arch.mixers.mamba", "arch.mixers.rwkv"),
    ("arch.mixers",),
    ("arch.block",),
    ("arch.model",),
    ("arch.classifier", "arch.decoding"),
    ("arch.decoding.unrolled", "arch.decoding.sampling", "arch.padding"),
    ("arch.decoding.loop",),
    ("arch.decoding.generate",),
    ("arch",),
)


COSTS = ("arch.cost", "arch.scaling")


def test_each_part_of_arch_imports_from_those_below_it():
    height = {name: line for line, names in enumerate(LINES) for name in names}
    wrong = [
        f"{module} imports {other}"
        for module, others in dependencies_in("arch").items()
        if module in height
        for other in others
        if height.get(other, len(LINES)) >= height[module]
    ]
    assert not wrong


def test_every_module_of_arch_has_a_height():
    listed = {name for names in LINES for name in names}
    loose = set(modules_of("arch")) - listed
    assert {name for name in loose if not name.startswith(COSTS)} == set()


def test_costs_need_no_more_of_arch_than_the_config():
    for module, others in dependencies_in("arch").items():
        if module.startswith(COSTS):
            outside = {
                name
                for name in others
                if not name.startswith(("arch.cost", "arch.scaling"))
            }
            assert outside <= {"arch.config", "arch.families"}, module


# The folders of a package from the bottom up: each imports from earlier ones only.
# A module beside the folders counts as one of its own.
FOLDERS = {
    "jaxnas": (
        (
            "errors",
            "keys",
            "checks",
            "targets",
            "version",
            "wording",
            "hardware_profiles",
        ),
        ("storage",),
        ("source_name",),
        ("data", "compress", "runtime"),
        ("training", "hardware"),
        ("presets", "clock"),
        ("config", "spaces"),
        ("population",),
        ("evaluation",),
        ("results",),
        ("latency", "analytic", "export"),
        ("report", "benchmarks"),
        ("pipeline",),
        ("api",),
        ("automl", "serving"),
        ("commands",),
        ("run",),
    ),
    "search": (
        ("types", "hashing", "order", "draws"),
        ("pareto",),
        ("individuals", "walk", "simulate", "limits"),
        ("operators",),
        ("surrogate",),
        ("strategies",),
    ),
}


@pytest.mark.parametrize("package", FOLDERS)
def test_each_folder_imports_from_those_below_it(package):
    levels = enumerate(FOLDERS[package])
    height = {folder: level for level, folders in levels for folder in folders}

    def folder_of(module):
        return module.split(".")[1] if "." in module else None

    wrong = []
    for module, others in dependencies_in(package).items():
        if (own := folder_of(module)) is None:
            continue
        folders = {folder_of(other) for other in others} - {None, own}
        wrong += [
            f"{module} imports from {folder}"
            for folder in folders
            if height[folder] >= height[own]
        ]
    assert not wrong
