"""What the plug-in does to vLLM; these import vLLM, which takes seconds."""

from types import SimpleNamespace

import pytest

from propulsion.errors import ConfigError
from serving import plugin, vllm_compat
from serving.config import serve_config
from serving.engine import adapter_request, engine_options
from serving.server import vllm_arguments
from serving.worker.targets import find_layers

pytestmark = pytest.mark.slow


def test_every_vllm_name_in_use_is_where_it_is_expected():
    names = list(vllm_compat._HOMES)
    assert names
    assert all(getattr(vllm_compat, name) is not None for name in names)


def test_engines_that_do_not_ask_keep_vllms_own_manager(monkeypatch):
    from vllm.v1.worker import lora_model_runner_mixin as mixin

    monkeypatch.setattr(mixin, "LRUCacheWorkerLoRAManager", lambda *args: "vllm's own")
    monkeypatch.setattr(plugin, "_make_worker_adapters", lambda *args: "ours")
    plugin.register()
    plugin.register()
    asks = SimpleNamespace(additional_config={"propulsion": {"enabled": True}})
    for_ours = mixin.LRUCacheWorkerLoRAManager(asks, "cpu", {})
    assert for_ours == "ours"
    for silent in ({}, {"other": 1}, {"propulsion": {"enabled": False}}):
        config = SimpleNamespace(additional_config=silent)
        assert mixin.LRUCacheWorkerLoRAManager(config, "cpu", {}) == "vllm's own"


def test_an_unsupported_vllm_is_left_alone_and_refused_when_asked_for(monkeypatch, tmp_path):
    from vllm.v1.worker import lora_model_runner_mixin as mixin

    untouched = object()
    monkeypatch.setattr(mixin, "LRUCacheWorkerLoRAManager", untouched)
    monkeypatch.setattr(vllm_compat, "installed_version", lambda: "0.99.0")
    plugin.register()
    assert mixin.LRUCacheWorkerLoRAManager is untouched
    with pytest.raises(ConfigError, match=r"0\.99\.0 is not supported"):
        engine_options(tmp_path)


def test_engine_options_switch_the_plug_in_on_and_keep_the_callers_options(tmp_path):
    options = engine_options(
        tmp_path, max_adapters=3, seed=7, additional_config={"mine": 1}, max_cpu_adapters=5
    )
    assert options["additional_config"]["mine"] == 1
    assert options["additional_config"]["propulsion"]["enabled"]
    assert (options["max_loras"], options["max_cpu_loras"], options["seed"]) == (3, 5, 7)
    with pytest.raises(ConfigError, match="max_cpu_adapters"):
        engine_options(tmp_path, max_adapters=3, max_cpu_adapters=2)


@pytest.mark.parametrize(
    ("given", "served"), [(("--kv-cache-memory-bytes", "12345678"), 12345678), ((), 1 << 30)]
)
def test_on_cpu_the_cache_has_a_default_size_where_the_user_gives_none(
    monkeypatch, tmp_path, given, served
):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr(vllm_compat.current_platform, "is_cpu", lambda: True)
    config = serve_config(base=tmp_path, store=tmp_path, vllm_args=given)
    assert vllm_arguments(config).kv_cache_memory_bytes == served


def test_a_version_keeps_its_id_and_shares_it_with_no_other(tmp_path):
    first = SimpleNamespace(reference="x@v1", path=tmp_path / "x" / "v1")
    second = SimpleNamespace(reference="x@v2", path=tmp_path / "x" / "v2")
    one, two = adapter_request(first), adapter_request(second)
    assert one.lora_int_id == adapter_request(first).lora_int_id
    assert one.lora_int_id != two.lora_int_id


def test_a_tensor_parallel_rank_takes_its_own_heads_and_shares_replicated_ones():
    import torch

    qkv = _bare(
        vllm_compat.QKVParallelLinear,
        num_heads=2,
        num_kv_heads=1,
        head_size=32,
        v_head_size=32,
        total_num_heads=8,
        total_num_kv_heads=2,
        num_kv_head_replicas=2,
        tp_rank=3,
    )
    gate_up = _bare(
        vllm_compat.ColumnParallelLinear,
        gather_output=False,
        output_size=192,
        output_sizes=[96, 96],
        output_partition_sizes=[24, 24],
        tp_rank=3,
    )
    model = torch.nn.Module()
    model.packed_modules_mapping = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    model.qkv_proj, model.gate_up_proj = qkv, gate_up
    layers = find_layers(model, {})
    parts = {name: part for layer in layers for name, part in layer.outputs.items()}
    shown = {name: (p.offset, p.size, p.columns.start, p.source_size) for name, p in parts.items()}
    assert shown == {
        "q_proj": (0, 64, 192, 256),
        "k_proj": (64, 32, 32, 64),
        "v_proj": (96, 32, 32, 64),
        "gate_proj": (0, 24, 72, 96),
        "up_proj": (24, 24, 72, 96),
    }


def _bare(kind: type, **attributes: object):
    """A layer with the attributes we read and none of the weights, which need a process group."""
    import torch

    layer = kind.__new__(kind)
    torch.nn.Module.__init__(layer)
    for name, value in {"skip_bias_add": False, "bias": None, **attributes}.items():
        setattr(layer, name, value)
    return layer
