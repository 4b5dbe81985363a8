"""A router or a shard that is told to stop while it loads ends soon, in good order."""

import json
import math
import re
import signal
import struct
import subprocess

import pytest

from api import Api
from fleet import BIN_DIR, HEAL_SECONDS_MAX, STOP_SECONDS_MAX
from processes import wait_until

# Large, so that loading takes many times what a stop may take: 1.2 G weights each for routers and
# experts, and INT4 is slow to make. The files are holes: they take no room on the disk.
HIDDEN, DENSE_INNER, EXPERT_INNER, EXPERTS, SHARED, MOE_LAYERS, VOCAB = 4096, 4096, 4096, 8, 8, 3, 512
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": DENSE_INNER,
    "moe_intermediate_size": EXPERT_INNER, "num_hidden_layers": 2 + MOE_LAYERS,
    "first_k_dense_replace": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "n_shared_experts": SHARED, "n_routed_experts": EXPERTS, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "kv_lora_rank": 64, "q_lora_rank": 128, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64, "v_head_dim": 64, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "routed_scaling_factor": 1.0, "norm_topk_prob": True,
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "attention_bias": False,
    "hidden_act": "silu", "tie_word_embeddings": False, "rope_scaling": None,
}


def ffn_shapes(prefix, inner):
    return {
        f"{prefix}.gate_proj.weight": (inner, HIDDEN),
        f"{prefix}.up_proj.weight": (inner, HIDDEN),
        f"{prefix}.down_proj.weight": (HIDDEN, inner),
    }


def tensor_shapes():
    shapes = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    heads = CONFIG["num_attention_heads"]
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        shapes |= {
            f"{name}.input_layernorm.weight": (HIDDEN,),
            f"{name}.post_attention_layernorm.weight": (HIDDEN,),
            f"{name}.self_attn.q_a_proj.weight": (128, HIDDEN),
            f"{name}.self_attn.q_a_layernorm.weight": (128,),
            f"{name}.self_attn.q_b_proj.weight": (heads * 128, 128),
            f"{name}.self_attn.kv_a_proj_with_mqa.weight": (64 + 64, HIDDEN),
            f"{name}.self_attn.kv_a_layernorm.weight": (64,),
            f"{name}.self_attn.kv_b_proj.weight": (heads * 128, 64),
            f"{name}.self_attn.o_proj.weight": (HIDDEN, heads * 64),
        }
        if layer < CONFIG["first_k_dense_replace"]:
            shapes |= ffn_shapes(f"{name}.mlp", DENSE_INNER)
            continue
        shapes |= {
            f"{name}.mlp.gate.weight": (EXPERTS, HIDDEN),
            f"{name}.mlp.gate.e_score_correction_bias": (EXPERTS,),
        } | ffn_shapes(f"{name}.mlp.shared_experts", SHARED * EXPERT_INNER)
        for expert in range(EXPERTS):
            shapes |= ffn_shapes(f"{name}.mlp.experts.{expert}", EXPERT_INNER)
    return shapes


@pytest.fixture(scope="module")
def model(module_dir):
    """A checkpoint of zeros."""
    folder = module_dir / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header, end = {}, 0
    for name, shape in tensor_shapes().items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


class Service:
    """One process on its own, without a supervisor."""

    def __init__(self, program, folder, model, **config):
        self._address_path = folder / f"{program}.addresses"
        self._log_path = folder / f"{program}.log"
        config_path = folder / f"{program}.json"
        common = {
            "name": program, "admin_address": "127.0.0.1:0", "drain_seconds_max": 5,
            "address_file": str(self._address_path),
        }
        config_path.write_text(json.dumps({"common": common, "model_dir": str(model)} | config))
        self._command = [BIN_DIR / program, "--config", config_path]

    def __enter__(self):
        with self._log_path.open("w") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def __exit__(self, kind, error, trace):
        self.process.kill()
        self.process.wait()

    def addresses(self):
        wait_until(self._address_path.exists, HEAL_SECONDS_MAX, f"addresses; {self.log()}")
        return json.loads(self._address_path.read_text())["addresses"]

    def log(self):
        return self._log_path.read_text()

    def wait_loading(self, what):
        """Waits until /ready says that some of `what` has come."""
        admin = Api("http://" + self.addresses()["admin"])

        def loads():
            assert self.process.poll() is None, self.log()
            reply = admin.get("/ready")
            too_soon = reply.status != 503 or "epoch 0" in reply.text or "no placement" in reply.text
            assert not too_soon, f"it has loaded too soon to be stopped: {reply.text}"
            return re.search(f"loading {what}", reply.text)

        wait_until(loads, HEAL_SECONDS_MAX, f"it loads {what}; {self.log()}")

    def stop(self, number):
        """Its exit code and its log."""
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS_MAX)
        return code, self.log()


def faults_in(log):
    return re.findall(r"^\S+ [WE] switchyard.*$", log, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_router_gives_up_loading(number, model, tmp_path):
    options = {
        "grpc_address": "127.0.0.1:0", "autoscaler_address": "127.0.0.1:1", "weights": "int4",
    }
    with Service("switchyard-router", tmp_path, model, **options) as router:
        router.wait_loading("router weights gb=")
        assert "grpc" not in router.addresses()
        code, log = router.stop(number)
    assert code == 0, log
    assert f"stopping signal={int(number)}" in log and "stopped before it had started" in log
    assert "router started" not in log
    assert not faults_in(log), log


def test_a_shard_gives_up_loading_and_reports_no_fault(model, tmp_path):
    with Service(
        "switchyard-autoscaler", tmp_path, model, grpc_address="127.0.0.1:0", shards_wanted=1,
        replicas_wanted=1, state_file=str(tmp_path / "placement.json"),
    ) as autoscaler:
        options = {
            "shard": 0, "autoscaler_address": autoscaler.addresses()["grpc"], "weights": "int4",
        }
        with Service("switchyard-expert-shard", tmp_path, model, **options) as shard:
            shard.wait_loading(f"experts: [0-9]+ of {MOE_LAYERS * EXPERTS}")
            code, log = shard.stop(signal.SIGTERM)
        assert code == 0, log
        assert "loading given up" in log and "epoch active" not in log
        assert not re.search(r" E switchyard", log), log
        assert autoscaler.process.poll() is None
        assert "load: cancelled" not in autoscaler.log()
