"""The command line as a user meets it: its errors, exit codes and reports, and nothing left running."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest

from api import completion
from fleet import BIN_DIR, DEMO_MODEL, Fleet, end_processes_of, run_switchyard
from models import (
    change_config, change_header, copy_golden, link_demo, replace_file, with_huge_header_length,
    with_truncated_weights,
)
from processes import pids_that_mention, wait_until

DONE, FAILED, USAGE, NOT_READY = 0, 1, 2, 3


def up(state_dir, *options, model=DEMO_MODEL):
    return run_switchyard(
        "up", "--model", model, "--state-dir", state_dir, "--port", 0, "--ready-seconds", 30,
        "--detach", *options,
    )


def assert_refused(done, state_dir, code, *words):
    """The exit code, each word in the message, and no process left."""
    left = end_processes_of(state_dir)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    for word in words:
        assert re.search(word, done.stderr, re.IGNORECASE), (word, done.stderr)
    assert not left, f"left running: {left}\n{done.stderr}"


@pytest.mark.parametrize(
    "words, message",
    [
        (["up"], "--model"),
        (["up", "--model", "/nonexistent/model"], "/nonexistent/model.*config.json"),
        (["up", "--model", DEMO_MODEL, "--shards", "0"], "shards"),
        (["up", "--model", DEMO_MODEL, "--shards", "many"], "shards"),
        (["up", "--model", DEMO_MODEL, "--no-such-option", "1"], "no-such-option"),
        (["up", "--model", DEMO_MODEL, "--port", "70000"], "port"),
        (["up", "--model", DEMO_MODEL, "--weights", "nonsense"], '--weights.*"nonsense" is none of auto, bf16, int8'),
        (["up", "--model", DEMO_MODEL, "stray"], "stray"),
        (["up", "--model"], "--model needs a value"),
        (["kill"], ""),
        (["inspect"], "directory"),
        (["inspect", DEMO_MODEL, "--weights", "int3"], "int3"),
        (["convert", DEMO_MODEL], "directory"),
        (["convert", DEMO_MODEL, "out"], "--weights"),
        (["manifest"], "directory"),
        (["chat", "--no-such-option"], "no-such-option"),
        (["no-such-command"], "no-such-command"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_wrong_usage_is_told(words, message, tmp_path):
    takes_state_dir = words[:1] in (["up"], ["kill"])
    done = run_switchyard(*words, *(["--state-dir", tmp_path / "state"] if takes_state_dir else []))
    expected = [FAILED, USAGE] if words == ["kill"] else [USAGE]
    assert done.returncode in expected, done
    assert re.search(message, done.stderr + done.stdout, re.DOTALL), done
    assert not pids_that_mention(tmp_path)


@pytest.mark.parametrize(
    "command",
    ["", "up", "down", "status", "kill", "chat", "inspect", "convert", "manifest", "bench"],
    ids=lambda name: name or "none",
)
def test_help_is_there(command):
    done = run_switchyard(*([command] if command else []), "--help")
    assert done.returncode == DONE and "switchyard" in done.stdout


def test_bench_measures_and_leaves_nothing_behind(tmp_path):
    done = run_switchyard(
        "bench", "--model", DEMO_MODEL, "--batch", "1,3", "--prefill-tokens", "40",
        "--generated-tokens", "8", "--rounds", "1", "--json", env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == DONE, done
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(case["case"], case["batch"]) for case in cases] == [
        ("decode", 1), ("decode", 3), ("prefill", 1),
    ]
    for case in cases:
        assert case["tokens_per_second"] > 0 and case["limit_tokens_per_second"] > 0
        seconds = case["seconds"]
        stages = sum(value for name, value in seconds.items() if name.startswith("stage/"))
        steps = seconds["step/decode"] + seconds["step/prefill"]
        assert 0.9 * steps < stages <= steps
    assert not list(tmp_path.iterdir())
    assert not pids_that_mention(tmp_path)


def test_without_arguments_it_explains_itself():
    done = run_switchyard()
    assert done.returncode == DONE and "switchyard up --model DIR" in done.stdout


def test_version_is_there():
    done = run_switchyard("--version")
    assert done.returncode == DONE and re.search(r"\d+\.\d+", done.stdout)


def test_nothing_runs(tmp_path):
    state = tmp_path / "state"
    assert run_switchyard("status", "--state-dir", state).returncode == NOT_READY
    assert run_switchyard("status", "--json", "--state-dir", state).returncode == NOT_READY
    assert run_switchyard("down", "--state-dir", state).returncode == DONE
    assert run_switchyard("kill", "router-0", "--state-dir", state).returncode == FAILED
    done = run_switchyard("chat", "--state-dir", state, input="hello\n")
    assert done.returncode == FAILED and "switchyard up" in done.stderr


def test_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up(tmp_path / "state", "--port", port)
        assert_refused(done, tmp_path / "state", FAILED, "gateway", str(port), "in use")


def test_state_dir_that_is_a_file(tmp_path):
    (tmp_path / "state").write_text("")
    done = run_switchyard("up", "--model", DEMO_MODEL, "--state-dir", tmp_path / "state", "--detach")
    assert_refused(done, tmp_path / "state", FAILED, "state dir")


def test_state_dir_of_another_version(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "version").write_text("99\n")
    assert_refused(up(tmp_path / "state"), tmp_path / "state", FAILED, "version", "99")


def test_bad_transport(tmp_path):
    done = up(tmp_path / "state", "--transport", "pigeon")
    assert_refused(done, tmp_path / "state", done.returncode or FAILED, "transport", "pigeon")


def rename_tensor(header):
    header["model.norm.other"] = header.pop("model.norm.weight")


def overlap_tensors(header):
    other = header["model.layers.0.input_layernorm.weight"]  # Of the same shape.
    header["model.norm.weight"]["data_offsets"] = other["data_offsets"]


def point_outside(header):
    size = header["model.norm.weight"]["shape"][0] * 2
    header["model.norm.weight"]["data_offsets"] = [2**40, 2**40 + size]


def name_as_fp8(header):
    """The bytes of a BF16 matrix as twice as many FP8 codes, without scales and against config.json."""
    tensor = header["model.layers.1.self_attn.o_proj.weight"]
    tensor["dtype"], tensor["shape"] = "F8_E4M3", [tensor["shape"][0], tensor["shape"][1] * 2]


def with_wrong_manifest(dir):
    """The manifest of other weights of the same names."""
    replace_file(dir, MANIFEST, b"")
    names = sorted(path.name for path in dir.iterdir() if path.name != MANIFEST)
    files = [
        {"name": name, "size": (dir / name).stat().st_size, "sha256": "0" * 64, "header_sha256": "0" * 64}
        for name in names
    ]
    manifest = {"version": 1, "weights": "auto", "source_digest": "", "files": files}
    (dir / MANIFEST).write_text(json.dumps(manifest))
    return dir


MANIFEST = "switchyard.manifest.json"
HOSTILE_MODELS = {
    "truncated-weights": (with_truncated_weights, ["safetensors"]),
    "huge-header-length": (with_huge_header_length, ["safetensors", "header"]),
    "empty-weights": (lambda dir: replace_file(dir, "model.safetensors", b""), ["safetensors"]),
    "garbage-weights": (lambda dir: replace_file(dir, "model.safetensors", b"x" * 4096), ["safetensors"]),
    "no-weights": (lambda dir: link_demo(dir, without=["model.safetensors"]), ["safetensors"]),
    "missing-tensor": (lambda dir: change_header(dir, rename_tensor), ["model.norm.weight"]),
    "overlapping-tensors": (lambda dir: change_header(dir, overlap_tensors), ["safetensors", "overlap|no tensor|gap"]),
    "tensor-outside": (lambda dir: change_header(dir, point_outside), ["safetensors|model.norm"]),
    "config-not-json": (lambda dir: replace_file(dir, "config.json", b"{nonsense"), ["config.json"]),
    "config-empty": (lambda dir: replace_file(dir, "config.json", b""), ["config.json"]),
    "config-wrong-type": (lambda dir: change_config(dir, hidden_size="big"), ["hidden_size"]),
    "config-huge": (lambda dir: change_config(dir, num_hidden_layers=2**31 - 1), ["num_hidden_layers|layer"]),
    "config-negative": (lambda dir: change_config(dir, n_routed_experts=-4), ["n_routed_experts"]),
    "other-architecture": (lambda dir: change_config(dir, model_type="llama"), ["model_type|llama|architecture"]),
    "unknown-quantisation": (
        lambda dir: change_config(dir, quantization_config={"quant_method": "awq"}),
        ["quant_method", "awq"],
    ),
    "undeclared-fp8": (lambda dir: change_header(dir, name_as_fp8), ["safetensors", "o_proj.weight", "F8_E4M3"]),
    "wrong-manifest": (with_wrong_manifest, ["config.json", "manifest"]),
    "no-tokenizer": (lambda dir: link_demo(dir, without=["tokenizer.json"]), ["tokenizer.json"]),
    "garbage-tokenizer": (lambda dir: replace_file(dir, "tokenizer.json", b"[]"), ["tokenizer"]),
    "weights-only": (copy_golden, ["tokenizer.json"]),
}


@pytest.mark.parametrize("name", HOSTILE_MODELS)
def test_hostile_model_is_refused_with_the_reason(name, tmp_path):
    make, words = HOSTILE_MODELS[name]
    done = up(tmp_path / "state", "--shards", 1, model=make(tmp_path / "model"))
    assert_refused(done, tmp_path / "state", FAILED, *words)
    # Not even what the file claims is in the message at length.
    assert len(done.stderr) < 4000


@pytest.mark.parametrize("name", ["truncated-weights", "huge-header-length", "config-not-json"])
def test_inspect_refuses_a_hostile_model(name, tmp_path):
    make, words = HOSTILE_MODELS[name]
    done = run_switchyard("inspect", make(tmp_path / "model"))
    assert done.returncode == FAILED
    assert re.search(words[0], done.stderr)


def test_convert_writes_what_can_be_inspected_and_checked(tmp_path):
    out = tmp_path / "int8"
    done = run_switchyard("convert", DEMO_MODEL, out, "--weights", "int8")
    assert done.returncode == DONE, done.stderr
    shown = run_switchyard("inspect", out, "--json")
    report = json.loads(shown.stdout)
    assert (report["stored"], report["manifest"]) == ("int8", True)
    asked = json.loads(run_switchyard("inspect", DEMO_MODEL, "--weights", "int8", "--json").stdout)
    assert report["router_bytes"] == asked["router_bytes"] and report["shard_bytes"] == asked["shard_bytes"]
    kept = [{role["role"]: (role["rounded"], role["kept"]) for role in each["roles"]} for each in (report, asked)]
    assert kept[0] == kept[1]
    assert kept[0]["embedding"] == ("int8", "int8") and kept[0]["attention kv_b"] == ("int8", "bf16")
    assert run_switchyard("manifest", out, "--check").returncode == DONE
    weights = next(out.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    damaged = run_switchyard("manifest", out, "--check")
    assert damaged.returncode == FAILED and weights.name in damaged.stderr
    again = run_switchyard("convert", DEMO_MODEL, out, "--weights", "int4")
    assert again.returncode == FAILED and "already" in again.stderr


def test_inspect_describes_the_demo_model():
    done = run_switchyard("inspect", DEMO_MODEL, "--shards", 4)
    assert done.returncode == DONE, done.stderr
    for word in ("deepseek_v3", "32 routed", "top 4", "vocabulary 4096", "each of 4 shards", "sha256:"):
        assert word in done.stdout, (word, done.stdout)


def test_a_fleet_from_up_to_down(tmp_path):
    state = tmp_path / "state"
    with Fleet(state, routers=2, options=["--served-name", "first", "--served-name", "second"]) as fleet:
        status = fleet.status()
        assert status["version"] == 1 and status["ready"] and status["epoch"] >= 1
        assert status["model"] == str(DEMO_MODEL.resolve())
        assert sorted(process["name"] for process in status["processes"]) == [
            "autoscaler", "expert-shard-0", "expert-shard-1", "gateway", "router-0", "router-1",
        ]
        assert set(status["metrics"]) == set(fleet.names())
        assert [model["id"] for model in fleet.api.get("/v1/models").json()["data"]] == ["first", "second"]
        for process in status["processes"]:
            assert process["state"] == "running" and process["restarts"] == 0
            assert fleet.admin(process["name"]).get("/live").status == 200
            assert fleet.admin(process["name"]).get("/ready").status == 200
        shown = run_switchyard("status", "--state-dir", state)
        assert shown.returncode == DONE
        assert fleet.api.url in shown.stdout and "expert-shard-1" in shown.stdout

        again = fleet.up()
        assert again.returncode == FAILED and "already" in again.stderr
        fleet.assert_all_alive()

        assert run_switchyard("kill", "nobody", "--state-dir", state).returncode == USAGE
        for name in ("expert-shard-0", "router-1", "gateway", "autoscaler"):
            killed = run_switchyard("kill", name, "--state-dir", state)
            assert killed.returncode == DONE, (name, killed.stderr)
            assert re.search(rf"{name} is back and the API is ready after \d", killed.stdout)
            assert re.search(r"open requests|requests open", killed.stdout)
        assert fleet.api.text("/v1/completions", completion("Once", max_tokens=4))

        pids = fleet.pids()
        fleet.stop()
        assert not set(pids) & set(fleet.pids())
    down = run_switchyard("status", "--json", "--state-dir", state)
    assert down.returncode == NOT_READY
    assert not json.loads(down.stdout)["ready"]
    assert run_switchyard("down", "--state-dir", state).returncode == DONE


def test_the_epoch_grows_over_restarts(tmp_path):
    state = tmp_path / "state"
    with Fleet(state, shards=1) as fleet:
        first = fleet.status()["epoch"]
    with Fleet(state, shards=2) as fleet:
        assert fleet.status()["epoch"] > first
        assert fleet.api.text("/v1/completions", completion("Once", max_tokens=4))


def test_chat_reads_lines_from_a_pipe(fleet):
    done = run_switchyard(
        "chat", "--state-dir", fleet.state_dir, "--max-tokens", 12, "--system", "Be brief.",
        input="Hello!\nAnd then?\n",
    )
    assert done.returncode == DONE, done.stderr
    assert done.stdout.count("> ") >= 3 and len(done.stdout.split()) > 3, done.stdout
    by_url = run_switchyard("chat", "--url", fleet.api.url, "--max-tokens", 4, input="Hello!\n")
    assert by_url.returncode == DONE, by_url.stderr


def test_foreground_up_ends_on_ctrl_c(tmp_path):
    state = tmp_path / "state"
    process = subprocess.Popen(
        [BIN_DIR / "switchyard", "up", "--model", DEMO_MODEL, "--state-dir", state, "--port", "0",
         "--shards", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        shown = ""
        while "Ctrl-C stops it" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        assert run_switchyard("status", "--state-dir", state).returncode == DONE
        process.send_signal(signal.SIGINT)
        output = shown + process.communicate(timeout=30)[0]
        assert process.returncode == DONE, output
        assert "ready: http://127.0.0.1:" in output and "stopping" in output
        wait_until(lambda: not pids_that_mention(state), 5, "no process is left")
    finally:
        process.kill()
        process.wait()
        end_processes_of(state)
