import dataclasses
import math

import pytest
from cost_configs import LLAMA_7B, SMALL, VARIANTS, of_family

from arch import cost
from arch.baselines import BASELINES
from arch.config import POSITION_ENCODINGS
from arch.families import FAMILIES

GROWTH = [
    {"num_layers": 4},
    {"hidden_dim": 128},
    {"num_heads": 8},
    {"ffn_multiplier": 3.5},
    {"vocab_size": 501},
    {"quantization": "fp16"},
    {"pruning_ratio": 0.1},
]


@pytest.mark.parametrize("device", cost.HARDWARE.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("changes", GROWTH, ids=str)
def test_latency_grows_with_every_size(changes, device):
    base = dataclasses.replace(SMALL, quantization="int8", pruning_ratio=0.6)
    grown = dataclasses.replace(base, **changes)
    small = cost.latency_ms(base, device)
    assert cost.latency_ms(grown, device) > small
    assert cost.latency_ms(base, device, batch=2) > small
    assert cost.latency_ms(base, device, tokens=129) > small


def test_weights_are_read_at_their_stored_width():
    device = dataclasses.replace(cost.HARDWARE["a100"], launch_seconds=0.0)
    read = {}
    for name in ("fp16", "int8", "int4"):
        config = dataclasses.replace(LLAMA_7B, quantization=name)
        read[name] = cost.latency_ms(config, device, tokens=1)
    assert read["fp16"] / read["int8"] == pytest.approx(16 / 8.5, rel=0.01)
    assert read["fp16"] / read["int4"] == pytest.approx(16 / 4.5, rel=0.01)


def moved_bytes(config, device, reading):
    rows = cost.latency_breakdown(config, device, reading)
    return sum(row.moved_bytes for row in rows)


@pytest.mark.parametrize("config", VARIANTS)
def test_roofline_limits(config):
    device = dataclasses.replace(cost.HARDWARE["rtx-4090"], launch_seconds=1e-6)
    compute = dataclasses.replace(device, bandwidth=math.inf)
    memory = dataclasses.replace(device, peak_flops=math.inf)
    for reading, milliseconds, flops in (
        (cost.forward(), cost.latency_ms, cost.forward_flops(config)),
        (cost.prefill(), cost.prefill_ms, cost.prefill_flops(config)),
        (cost.decode(), cost.decode_ms, cost.decode_flops(config)),
    ):
        ops = cost.list_ops(cost.sizes_of(config), reading)
        launches = 1e-6 * sum(op.count for op in ops)
        assert milliseconds(config, compute) == pytest.approx(
            1e3 * (flops / device.peak_flops + launches)
        )
        moved = moved_bytes(config, device, reading)
        assert milliseconds(config, memory) == pytest.approx(
            1e3 * (moved / device.bandwidth + launches)
        )
        assert moved > cost.size_bytes(config) * 0.4


@pytest.mark.parametrize("config", BASELINES.values(), ids=BASELINES)
def test_breakdown_adds_up(config):
    device = cost.HARDWARE["cpu-core"]
    rows = cost.latency_breakdown(config, device, cost.forward(2, 64))
    total = sum(row.milliseconds + row.launch_milliseconds for row in rows)
    assert total == pytest.approx(cost.latency_ms(config, device, 2, 64))
    assert sum(row.flops for row in rows) == cost.forward_flops(config, 2, 64)
    assert all(row.count > 0 and row.kind in cost.KINDS for row in rows)
    bound = {row.name: row.compute_bound for row in rows}
    assert bound["head"]
    assert not bound["embedding"]


RECURRENT = {"linear_transformer", "mamba", "rwkv"}
POSITIONED = {*FAMILIES} - {"mamba", "rwkv"}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_a_family_has_is_launched(family):
    names = {"absolute": "positions", "rope": "rotary_key"}
    for encoding in POSITION_ENCODINGS:
        config = of_family(family, position_encoding=encoding, activation="silu")
        rows = cost.latency_breakdown(config, cost.HARDWARE["a100"], cost.forward())
        launched = {row.name for row in rows}
        assert launched & {*names.values()} == (
            {names[encoding]} if family in POSITIONED and encoding in names else set()
        )
        assert "gate" not in launched
        assert ("activation" in launched) == (family in POSITIONED)


def test_an_embedding_reads_the_rows_of_its_tokens():
    device = cost.HARDWARE["cpu-core"]
    config = dataclasses.replace(SMALL, vocab_size=10**6, quantization="int8")
    rows = cost.latency_breakdown(config, device, cost.forward(2, 5))
    (embedding,) = [row for row in rows if row.name == "embedding"]
    # A row of 96 is 3 blocks; it is written as float32.
    assert embedding.moved_bytes == 2 * 5 * (3 * 34 + 96 * 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_attention_decodes_slower_the_more_it_has_read(family):
    device, config = cost.HARDWARE["cpu-core"], of_family(family)
    took = [cost.decode_ms(config, device, past=past) for past in (1, 100, 10_000)]
    if family in RECURRENT:
        assert took[0] == took[1] == took[2]
    else:
        assert took[0] < took[1] < took[2]


@pytest.mark.parametrize("family", sorted(RECURRENT))
def test_a_state_is_written_by_the_prompt_and_read_and_written_by_each_token(family):
    device, config = cost.HARDWARE["a100"], of_family(family)
    state = cost.state_bytes(config, 3, 1, device.value_bytes)
    training = cost.Workload(batch=3, tokens=130, logits=1)
    prompt = moved_bytes(config, device, cost.prefill(3, 130))
    assert prompt == moved_bytes(config, device, training) + state
    first, next_one = (moved_bytes(config, device, cost.decode(3, n)) for n in (0, 9))
    assert next_one == first + state


def test_the_sums_of_a_chunk_cross_the_memory_four_times():
    # Written, read to be added up, written as those before a chunk, read to mix.
    sizes = cost.sizes_of(of_family("linear_transformer"))
    for tokens, chunks in ((64, 0), (65, 2), (1024, 16)):
        ops = cost.list_ops(sizes, cost.forward(2, tokens))
        sums = sum(op.count * op.sums for op in ops)
        assert sums == 3 * 4 * chunks * cost.state_of(sizes, 2, tokens).sums


def test_a_token_more_in_the_cache_is_read_by_the_next():
    device = cost.HARDWARE["a100"]
    for family in ("flash_attention", "transformer", "grouped_query_attention"):
        config = of_family(family)
        less, more = (
            moved_bytes(config, device, cost.decode(2, past)) for past in (50, 51)
        )
        # Scores are written and read twice; layers x batch x heads of them.
        scores = 4 * 3 * 2 * 4 * device.value_bytes
        token = cost.state_bytes(config, 2, 1, device.value_bytes)
        assert more - less == token + scores


def test_flash_moves_no_scores():
    device = cost.HARDWARE["a100"]
    dense, flash = (
        moved_bytes(of_family(family), device, cost.forward(2, 256))
        for family in ("transformer", "flash_attention")
    )
    assert dense - flash == 4 * 3 * 2 * 4 * 256 * 256 * device.value_bytes


def test_device_kinds_have_profiles():
    assert cost.hardware_for("cpu").name == "cpu-core"
    assert cost.hardware_for("NVIDIA H100 80GB HBM3").name == "h100"
    assert set(cost.DEVICE_KINDS.values()) == set(cost.HARDWARE)
    # Tensor cores x FLOPs a cycle x boost clock.
    for name, units in {
        "rtx-4090": 512 * 128 * 2.52e9,
        "rtx-5090": 680 * 128 * 2.407e9,
        "a100": 432 * 512 * 1.41e9,
        "h100": 528 * 1024 * 1.83e9,
        "h200": 528 * 1024 * 1.83e9,
    }.items():
        assert cost.HARDWARE[name].peak_flops == pytest.approx(units, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [
        ("NVIDIA H100 PCIe", "h100"),
        ("NVIDIA H100 NVL", "h100"),
        ("NVIDIA GH200 480GB", "h100"),
        ("NVIDIA B200", "h100"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("NVIDIA A10G", "rtx-4090"),
        ("NVIDIA L4", "rtx-4090"),
        ("NVIDIA L40S", "rtx-4090"),
        ("Tesla T4", "rtx-4090"),
        ("Tesla V100-SXM2-16GB", "rtx-4090"),
        ("NVIDIA RTX A6000", "rtx-4090"),
        ("NVIDIA GeForce RTX 3060", "rtx-4090"),
        ("NVIDIA GeForce RTX 3090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4060", "rtx-4090"),
        ("NVIDIA GeForce RTX 4080", "rtx-4090"),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", "rtx-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-5090"),
    ],
)
def test_a_device_without_a_profile_has_the_nearest_ones_figures(kind, nearest):
    found = cost.hardware_for(kind)
    assert found.name == kind
    assert found.peak_flops == cost.HARDWARE[nearest].peak_flops
    assert f"estimated: that of {nearest}" in found.bandwidth_source


def test_the_compute_capability_counts_more_than_the_name():
    assert "rtx-5090" in cost.hardware_for("NVIDIA L4", (12, 1)).peak_source
    assert "h100" in cost.hardware_for("Thor", (10, 1)).peak_source


@pytest.mark.parametrize(
    "changes", [{"bandwidth": 0.0}, {"peak_flops": -1.0}, {"launch_seconds": -1e-6}]
)
def test_a_profile_without_ceilings_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(cost.HARDWARE["a100"], **changes)
