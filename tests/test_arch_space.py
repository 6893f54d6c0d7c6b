import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch.baselines import BASELINES
from arch.config import ArchitectureConfig
from arch.families import FAMILIES
from arch.genes import GENES
from arch.repair import nearest_valid
from arch.space import Space
from arch.spaces import SPACES, space_named

COUNTS = {  # combinations, valid, distinct
    "minimal": (8, 8, 8),
    "medium": (73_728, 55_296, 41_472),
    "full": (35_831_808, 30_523_392, 11_624_256),
}
HEADS = GENES.index("num_heads")

ONE = {
    "arch_type": ("transformer",),
    "num_layers": (2,),
    "hidden_dim": (64,),
    "num_heads": (4,),
    "ffn_multiplier": (4.0,),
    "normalization": ("layernorm",),
    "activation": ("gelu",),
    "position_encoding": ("absolute",),
    "attention_dropout": (0.0,),
    "residual_dropout": (0.0,),
    "quantization": ("fp16",),
    "pruning_ratio": (0.0,),
}


def space_of(**choices):
    return Space("test", tuple({**ONE, **choices}.values()))


# Heads that divide some widths only, heads of odd sizes, widths that are no
# multiple of 8, families with and without heads, unsorted choices.
ODD = space_of(
    arch_type=("mamba", "transformer", "rwkv"),
    hidden_dim=(60, 50, 96, 33),
    num_heads=(7, 5, 4, 50, 11, 3),
    normalization=("groupnorm", "rmsnorm"),
    position_encoding=("rope", "alibi"),
    activation=("gelu", "swiglu"),
)
# Genes of its own, derived ones too, and conditions.
OWN = Space(
    "own",
    (
        (4, 2),
        ("grouped_query_attention", "mamba", "flash_attention"),
        (64, 96, 36),
        (16, 12, 7),
        (1, 2, 4),
        (100, 256),
        ("alibi", "rope"),
        (False, True),
        ("fp16", "int4"),
    ),
    (
        "num_layers",
        "arch_type",
        "hidden_dim",
        "head_dim",
        "kv_group",
        "ffn_dim",
        "position_encoding",
        "tie_embeddings",
        "quantization",
    ),
    (
        {"quantization": ("int4",), "tie_embeddings": (True,)},
        {"arch_type": ("mamba",), "hidden_dim": (36, 64)},
    ),
)
SMALL = {"minimal": SPACES["minimal"], "odd": ODD}
ANY = {**SPACES, "odd": ODD, "own": OWN}
OF_GENES = [name for name, space in ANY.items() if space.genes == GENES]


def decoded(space, genome):
    try:
        return space.decode(genome)
    except ValueError:
        return None


@functools.cache
def everything(name):
    """All genomes of a space, and what each decodes to: None if nothing."""
    space = ANY[name]
    genomes = list(itertools.product(*map(range, map(len, space.choices))))
    return np.asarray(genomes, np.int32), [decoded(space, g) for g in genomes]


def compiled(function):
    return lambda genomes: np.asarray(jax.jit(jax.vmap(function))(jnp.asarray(genomes)))


def random_genomes(space, number, seed=0):
    counts = [len(values) for values in space.choices]
    genomes = np.random.default_rng(seed).integers(counts, size=(number, len(counts)))
    return genomes.astype(np.int32)


# ---- counts ----


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_named_spaces(name):
    space = space_named(name)
    assert (space.total, space.valid_count, space.distinct_count) == COUNTS[name]
    assert space.name == name


@pytest.mark.parametrize("name", ["minimal", "medium", "odd", "own"])
def test_counts_are_those_of_decoding_every_genome(name):
    _, configs = everything(name)
    space, valid = ANY[name], [config for config in configs if config is not None]
    assert space.total == len(configs)
    assert space.valid_count == len(valid)
    assert space.distinct_count == len(set(valid))


def test_the_valid_share_of_the_full_space():
    full = SPACES["full"]
    genomes = random_genomes(full, 40_000)
    share = np.mean([decoded(full, genome) is not None for genome in genomes])
    wanted = full.valid_count / full.total
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / 40_000)


def test_the_distinct_models_of_the_full_space_by_hand():
    full = SPACES["full"]
    widths, heads = full.values("hidden_dim"), full.values("num_heads")
    pairs = [(w, n) for w, n in itertools.product(widths, heads) if w % n == 0]
    even = [(w, n) for w, n in pairs if w // n % 2 == 0]
    # Depth, residual dropout, quantisation and pruning are read by all.
    common = 6 * 4 * 3 * 4
    # Feed-forward size, norm and activation; absolute and ALiBi, then rotary.
    headed = 4 * 3 * 4 * (2 * len(pairs) + len(even))
    with_attention_dropout, without = 2 * 4 * headed, 2 * headed
    mamba, rwkv = 6 * 3, 6 * 4
    models = common * (with_attention_dropout + without + mamba + rwkv)
    assert full.distinct_count == models


def test_the_full_space_holds_every_family():
    assert SPACES["full"].families == FAMILIES
    assert SPACES["minimal"].families == ("transformer",)


def test_an_unknown_space_is_named():
    with pytest.raises(
        ValueError, match="'huge': choose minimal, medium, full, nano, modern"
    ):
        space_named("huge")


# ---- genomes and configs ----


@pytest.mark.parametrize("name", ANY)
def test_encode_gives_the_canonical_genome_of_decode(name):
    space = ANY[name]
    genomes = space.sample(jax.random.key(0), 200)
    canonical = compiled(space.canonical)(genomes)
    fields = {"vocab_size": 999}
    if "tie_embeddings" not in space.genes:
        fields["tie_embeddings"] = True
    for genome, representative in zip(genomes, canonical, strict=True):
        config = space.decode(genome, **fields)
        assert {name: getattr(config, name) for name in fields} == fields
        assert config.canonical() == config
        got = space.encode(config)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, representative)
        again = space.decode(got, **fields)
        assert again == config


def test_decode_reads_each_gene_from_its_choices():
    full = SPACES["full"]
    genome = [0, 5, 2, 3, 1, 1, 3, 1, 3, 2, 2, 3]
    assert full.decode(genome) == ArchitectureConfig(
        arch_type="transformer",
        num_layers=16,
        hidden_dim=384,
        num_heads=8,
        ffn_multiplier=2.5,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        attention_dropout=0.2,
        residual_dropout=0.1,
        quantization="int4",
        pruning_ratio=0.6,
    )


@pytest.mark.parametrize("name", ["medium", "odd", "own"])
def test_genomes_mean_one_model_if_their_canonical_genomes_are_equal(name):
    genomes, configs = everything(name)
    valid = [at for at, config in enumerate(configs) if config is not None]
    canonical = compiled(ANY[name].canonical)(genomes[valid])
    pairs = {(tuple(g), configs[at]) for g, at in zip(canonical, valid, strict=True)}
    assert len(pairs) == len({g for g, _ in pairs}) == len({c for _, c in pairs})


@pytest.mark.parametrize("gene", range(len(GENES)))
def test_decode_refuses_an_index_out_of_bounds(gene):
    full = SPACES["full"]
    size = len(full.choices[gene])
    for index in (-1, size):
        genome = [0] * len(GENES)
        genome[gene] = index
        message = f"gene {GENES[gene]}={index} is not in 0 to {size - 1}"
        with pytest.raises(ValueError, match=message):
            full.decode(genome)


def test_decode_refuses_another_length():
    with pytest.raises(ValueError, match=r"argument 2 is shorter"):
        SPACES["full"].decode([0] * 11)


def test_encode_refuses_what_no_genome_means():
    llama = BASELINES["llama-like"]
    minimal = SPACES["minimal"]
    with pytest.raises(ValueError, match=r"ffn_multiplier=2.5 is not in .*'minimal'"):
        minimal.encode(llama)
    with pytest.raises(ValueError, match=r"arch_type='mamba' .* transformer"):
        minimal.encode(BASELINES["mamba"])
    odd_size = dataclasses.replace(llama, ffn_dim=1000)
    with pytest.raises(ValueError, match="ffn_dim=1000 is not in space 'full'"):
        SPACES["full"].encode(odd_size)
    same_size = dataclasses.replace(llama, ffn_dim=1280)
    genome = SPACES["full"].encode(same_size)
    assert SPACES["full"].decode(genome) == llama


@pytest.mark.parametrize("name", SMALL)
def test_genome_at_counts_through_all_genomes(name):
    genomes, _ = everything(name)
    space = ANY[name]
    for index, genome in enumerate(genomes):
        np.testing.assert_array_equal(space.genome_at(index), genome)
        assert space.index_of(genome) == index


@pytest.mark.parametrize("name", SPACES)
def test_index_of_is_the_inverse_of_genome_at(name):
    space = SPACES[name]
    drawn = np.random.default_rng(0).integers(0, space.total, 200)
    for index in (0, 1, space.total - 1, *map(int, drawn)):
        assert space.index_of(space.genome_at(index)) == index
    last = [len(values) - 1 for values in space.choices]
    np.testing.assert_array_equal(space.genome_at(space.total - 1), last)
    for index in (-1, space.total):
        with pytest.raises(ValueError, match=f"index={index} is not in 0 to"):
            space.genome_at(index)
    with pytest.raises(ValueError, match="invalid entry"):
        space.index_of([len(values) for values in space.choices])


# ---- validity and repair ----


@pytest.mark.parametrize("name", ["minimal", "medium", "odd", "own"])
def test_valid_is_what_decodes(name):
    genomes, configs = everything(name)
    wanted = [config is not None for config in configs]
    assert compiled(ANY[name].valid)(genomes).tolist() == wanted


def test_valid_is_what_decodes_in_the_full_space():
    full = SPACES["full"]
    genomes = random_genomes(full, 5000, seed=1)
    wanted = [decoded(full, genome) is not None for genome in genomes]
    assert compiled(full.valid)(genomes).tolist() == wanted


def genomes_of(name):
    large = ANY[name].total > 200_000
    return random_genomes(ANY[name], 200_000) if large else everything(name)[0]


@pytest.mark.parametrize("name", ANY)
def test_repair_is_valid_and_leaves_the_valid_alone(name):
    space, genomes = ANY[name], genomes_of(name)
    repaired, valid = (compiled(f)(genomes) for f in (space.repair, space.valid))
    assert repaired.dtype == np.int32
    assert np.all(repaired >= 0)
    assert np.all(repaired < np.asarray(space.cardinality))
    assert np.all(compiled(space.valid)(repaired))
    np.testing.assert_array_equal(repaired[valid], genomes[valid])


@pytest.mark.parametrize("name", OF_GENES)
def test_repair_takes_the_nearest_number_of_heads_if_one_will_do(name):
    space, genomes = ANY[name], genomes_of(name)
    repaired, valid = (compiled(f)(genomes) for f in (space.repair, space.valid))
    choices, distances = range(len(space.values("num_heads"))), []
    for heads in choices:
        other = genomes.copy()
        other[:, HEADS] = heads
        steps = np.abs(heads - genomes[:, HEADS])
        distances.append(np.where(compiled(space.valid)(other), steps, 99))
    nearest = np.min(distances, axis=0)
    enough = nearest < 99
    changed = repaired != genomes
    assert not np.delete(changed, HEADS, axis=1)[enough].any()
    steps = np.abs(repaired - genomes)[:, HEADS]
    np.testing.assert_array_equal(steps[enough], nearest[enough])
    # Other genes change only where they must, and never the free ones.
    assert changed[~enough].any(axis=1).all()
    coupled = ("arch_type", "hidden_dim", "normalization", "position_encoding")
    free = [i for i, gene in enumerate(GENES) if gene not in (*coupled, "num_heads")]
    assert not changed[:, free].any()
    if name in SPACES:
        assert enough.all()
        assert enough[~valid].sum() == (~valid).sum()


def test_repair_changes_heads_before_all_else_however_many_there_are():
    # 35 steps to the only number of heads that divides the width.
    space = space_of(
        num_heads=(*range(97, 132), 4),
        position_encoding=("absolute", "alibi"),
        normalization=("layernorm", "rmsnorm"),
        hidden_dim=(64, 97),
    )
    genome = np.asarray(space.genome_at(0))
    wanted = genome.copy()
    wanted[HEADS] = 35
    np.testing.assert_array_equal(space.repair(genome), wanted)


def test_repair_keeps_the_family_if_it_can():
    # In a transformer of 33 or 50 channels 8 groups do not exist.
    space = space_of(
        arch_type=("transformer", "rwkv"),
        hidden_dim=(33, 34, 50, 35, 36, 37, 64),
        normalization=("groupnorm",),
        num_heads=(1,),
    )
    genome = space.genome_at(0)
    assert space.decode(space.repair(genome)).hidden_dim == 64
    assert space.decode(space.repair(genome)).arch_type == "transformer"


@pytest.mark.parametrize("name", ANY)
def test_canonical_is_valid_and_idempotent(name):
    space = ANY[name]
    genomes = space.sample(jax.random.key(1), 100)
    canonical = compiled(space.canonical)(genomes)
    np.testing.assert_array_equal(compiled(space.canonical)(canonical), canonical)
    for genome, representative in zip(genomes, canonical, strict=True):
        assert not representative[genome != representative].any()
        assert space.decode(representative) == space.decode(genome)


# ---- samples ----


def test_samples_are_uniform_over_the_valid():
    genomes, configs = everything("odd")
    valid = [at for at, config in enumerate(configs) if config is not None]
    number = 20 * len(valid)
    drawn = ODD.sample(jax.random.key(0), number)
    assert drawn.dtype == np.int32
    counts = np.bincount([ODD.index_of(g) for g in drawn], minlength=len(genomes))
    assert counts.sum() == counts[valid].sum() == number
    excess = ((counts[valid] - 20) ** 2 / 20).sum()
    freedom = len(valid) - 1
    assert abs(excess - freedom) < 5 * math.sqrt(2 * freedom)


def test_a_key_gives_its_sample_and_another_key_another():
    full = SPACES["full"]
    first, again, other = (full.sample(jax.random.key(i), 20) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


# ---- the nearest genome ----


@pytest.mark.parametrize("name", ["gpt2-like", "llama-like", "ultra-small", "mamba"])
def test_a_config_of_the_space_is_its_own_nearest(name):
    full, config = SPACES["full"], BASELINES[name]
    genome = full.nearest(config)
    assert full.valid(genome)
    assert full.decode(genome) == config


def test_the_nearest_of_configs_outside():
    minimal = SPACES["minimal"]
    near = minimal.decode(minimal.nearest(BASELINES["llama-like"]))
    assert (near.num_layers, near.hidden_dim, near.num_heads) == (6, 512, 8)
    full = SPACES["full"]
    seven_billion = dataclasses.replace(
        BASELINES["llama-like"],
        num_layers=32,
        hidden_dim=4096,
        num_heads=32,
        ffn_dim=11008,  # 2.6875 times the width
        ffn_multiplier=4.0,
        pruning_ratio=0.35,
    )
    assert full.decode(full.nearest(seven_billion)) == dataclasses.replace(
        BASELINES["llama-like"],
        num_layers=16,
        hidden_dim=1024,
        num_heads=16,
        ffn_multiplier=2.5,
        pruning_ratio=0.4,
    )


@pytest.mark.parametrize("name", ANY)
def test_the_nearest_is_always_valid(name):
    space = ANY[name]
    for config in BASELINES.values():
        genome = space.nearest(config)
        assert genome.dtype == np.int32
        assert space.valid(genome)
        space.decode(genome)


# ---- genes of one's own ----


def test_derived_genes_split_what_they_are_of():
    genome = [0, 0, 0, 0, 1, 1, 0, 0, 0]
    config = OWN.decode(genome)
    assert (config.num_heads, config.kv_heads, config.ffn_dim) == (4, None, None)
    assert (config.key_value_heads, config.feedforward_dim) == (2, 256)
    assert (config.normalization, config.activation) == ("rmsnorm", "swiglu")
    assert OWN.decode([0, 2, *genome[2:]]).key_value_heads == 4


def test_conditions_leave_out_what_has_all_of_their_values():
    _, configs = everything("own")
    found = [config for config in configs if config is not None]
    assert not any(one.quantization == "int4" and one.tie_embeddings for one in found)
    assert {one.hidden_dim for one in found if one.arch_type == "mamba"} == {96}
    assert {one.hidden_dim for one in found if one.arch_type != "mamba"} == {64, 96, 36}
    assert {(one.quantization, one.tie_embeddings) for one in found} == {
        ("fp16", False),
        ("fp16", True),
        ("int4", False),
    }


def test_the_nearest_cell_is_the_first_of_the_nearest():
    rng = np.random.default_rng(0)
    for shape in ((5,), (3, 4), (2, 3, 4), (3, 1, 2, 3)):
        table = rng.random(shape) < 0.3
        table.flat[rng.integers(table.size)] = True
        found, valid = nearest_valid(table), np.argwhere(table)
        for cell in np.ndindex(shape):
            steps = np.abs(valid - np.asarray(cell))
            distance = np.ravel_multi_index(tuple(steps.T), shape)
            np.testing.assert_array_equal(found[cell], valid[distance.argmin()])


@pytest.mark.parametrize(
    ("genes", "conditions", "message"),
    [
        ({"colour": (1,)}, (), "unknown gene 'colour': choose of arch_type, "),
        ({"vocab_size": (100,)}, (), "unknown gene 'vocab_size'"),
        ({"head_dim": (8,), "num_heads": (8,)}, (), "both head_dim and num_heads"),
        ({"head_dim": (8, 0)}, (), "head_dim=0 is not allowed: needs an int"),
        ({}, ({},), "a condition names no gene"),
        ({}, ({"activation": ("gelu",)},), "names 'activation', which is no gene"),
        ({}, ({"hidden_dim": (65,)},), "hidden_dim=65, which is none of its choices"),
        ({}, ({"hidden_dim": (64,)},), "holds no valid config"),
    ],
)
def test_spaces_of_ones_own_that_are_none(genes, conditions, message):
    every = {"num_layers": (2,), "hidden_dim": (64,), **genes}
    with pytest.raises(ValueError, match=message):
        Space("test", tuple(every.values()), tuple(every), conditions)


def test_a_space_needs_a_width():
    with pytest.raises(ValueError, match="'test' lacks the gene hidden_dim"):
        Space("test", ((2,),), ("num_layers",))


# ---- spaces that are none ----


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"num_layers": ()}, "gene num_layers of space 'test' needs distinct choices"),
        ({"pruning_ratio": (0.1, 0.1)}, "gene pruning_ratio .* distinct choices"),
        ({"num_heads": (3, 5)}, "'test' holds no valid config"),
        ({"arch_type": ("transformer", "rnn")}, "'test': arch_type='rnn'"),
        ({"quantization": ("fp16", "int3")}, "'test': quantization='int3'"),
        ({"num_layers": (2, 0)}, "'test': num_layers=0"),
        ({"num_heads": (4, 2.0)}, r"'test': num_heads=2\.0"),
        ({"residual_dropout": (0.0, 1.0)}, r"'test': residual_dropout=1\.0"),
        (
            {"hidden_dim": (64, 512), "ffn_multiplier": (1.0, 0.01)},
            r"'test': ffn_multiplier=0\.01",
        ),
    ],
)
def test_a_bad_space_is_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        space_of(**choices)


def test_a_space_needs_all_genes():
    with pytest.raises(ValueError, match="has 12 genes, got 11 in 'short': arch_type"):
        Space("short", tuple(ONE.values())[:-1])
