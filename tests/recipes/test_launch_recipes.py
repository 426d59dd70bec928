"""The files in recipes/accelerate and recipes/launch say what they are for, and do it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType


FOLDER = Path(__file__).parents[2] / "recipes"
CONFIGS = sorted((FOLDER / "accelerate").glob("*.yaml"))
SCRIPTS = sorted((FOLDER / "launch").iterdir())

named = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def test_all_are_there():
    """A deleted file would leave the tests below with nothing to check."""
    assert {path.stem for path in CONFIGS} == {
        *("cpu", "gpu", "multi_gpu", "multi_node", "fsdp2", "deepspeed_zero2", "deepspeed_zero3")
    }
    assert {path.name for path in SCRIPTS} == {"multi_gpu.sh", "multi_node.sh", "slurm.sbatch"}


@named
def test_loads(path):
    """Accelerate refuses a file with a key that it doesn't know, and a type that it no longer has."""
    config = load_config_from_file(str(path))
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert config.num_processes == values["num_processes"]
    assert config.mixed_precision == "no", "precision is the recipe's"


@named
def test_keys_reach_the_launcher(path):
    """A misspelled key of FSDP or DeepSpeed, and a value that loses to a default, are taken without a word."""
    known = {action.dest for action in launch_command_parser()._actions}
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = [key for part in ("fsdp_config", "deepspeed_config") for key in values.get(part, {})]
    assert [key for key in keys if key not in known] == []
    args = vars(resolved(str(path)))
    for part in ("compute_environment", "distributed_type", "fsdp_config", "deepspeed_config"):
        values.pop(part, None)  # not arguments; tested above and below
    assert {key: args.get(key, "not an argument") for key in values} == values


@named
def test_header(path):
    """A file that doesn't say what was run would be taken for one that was."""
    header = path.read_text(encoding="utf-8").split("\ncompute_environment")[0]
    assert f"accelerate launch --config_file recipes/accelerate/{path.name}" in header
    assert re.search(r"^# Run here: (yes|no|in part)", header, re.MULTILINE)


@pytest.mark.parametrize("path", [*CONFIGS, *SCRIPTS], ids=lambda path: path.name)
def test_named_files_exist(path):
    """A header that names a file which was moved sends the reader nowhere, and its claim can't be checked."""
    text = path.read_text(encoding="utf-8")
    named_in_it = re.findall(r"\b(?:tests|recipes)/[\w./-]+\.(?:py|yaml|sh|sbatch)", text)
    assert named_in_it
    assert [name for name in named_in_it if not (FOLDER.parent / name).is_file()] == []


def resolved(config: str, *options: str):
    parser = launch_command_parser()
    return _validate_launch_command(
        parser.parse_args(["--config_file", config, *options, "-m", "distilbert_kd", "run", "recipe.yaml"])
    )[0]


@pytest.mark.parametrize(
    ("name", "launcher", "num_processes"),
    [
        ("cpu", "multi_gpu", 2),
        ("gpu", None, 1),
        ("multi_gpu", "multi_gpu", 2),
        ("multi_node", "multi_gpu", 16),
        ("fsdp2", "use_fsdp", 2),
        ("deepspeed_zero2", "use_deepspeed", 2),
        ("deepspeed_zero3", "use_deepspeed", 2),
    ],
)
def test_starts_what_it_says(name, launcher, num_processes):
    """A type of launch that accelerate reads and then leaves out runs one process, and says nothing."""
    args = resolved(str(FOLDER / "accelerate" / f"{name}.yaml"))
    switches = ("multi_gpu", "use_fsdp", "use_deepspeed", "tpu", "cpu")
    assert [switch for switch in switches if getattr(args, switch)] == ([launcher] if launcher else [])
    assert args.num_processes == num_processes
    assert args.module


def test_multi_cpu_still_starts_one_process(tmp_path):
    """When accelerate mends this, cpu.yaml can say what it means: MULTI_CPU."""
    path = tmp_path / "multi_cpu.yaml"
    values = yaml.safe_load((FOLDER / "accelerate" / "cpu.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**values, "distributed_type": "MULTI_CPU", "use_cpu": True}), encoding="utf-8")
    assert load_config_from_file(str(path)).distributed_type == DistributedType.MULTI_CPU
    args = resolved(str(path))
    assert not (args.multi_gpu or args.use_fsdp or args.use_deepspeed), "the launcher of several processes"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path):
    """A word that is split, or a variable that is never set, shows on the cluster, hours later."""
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK) or path.suffix == ".sbatch"
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("name", "expected"), [
    ("multi_gpu", "--standalone --nproc-per-node gpu --max-restarts 3 --shutdown-timeout 120"),
    (
        "multi_node",
        "--nnodes 2 --nproc-per-node gpu --rdzv-backend c10d --rdzv-endpoint node0:29400 --rdzv-id distilbert_kd "
        "--max-restarts 3 --shutdown-timeout 120",
    ),
])  # fmt: skip
def test_torchrun_scripts(tmp_path, name, expected):
    """A script that drops an override, or splits one at its blanks, runs another experiment."""
    stand_in(tmp_path, "torchrun", 'printf "%s\\n" "$*" && printf "[%s]" "${@: -2}"')
    done = subprocess.run(
        [FOLDER / "launch" / f"{name}.sh", "recipe.yaml", "distillation.alpha={start: 0.9, end: 0.1}"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "NUM_NODES": "2", "HEAD_HOST": "node0"},
        capture_output=True,
        text=True,
        check=True,
    )
    command, arguments = done.stdout.split("\n")
    assert command.startswith(f"{expected} -m distilbert_kd run recipe.yaml")
    assert arguments == "[recipe.yaml][distillation.alpha={start: 0.9, end: 0.1}]"


def test_torchrun_options_exist():
    """An option that torchrun renamed ends every launch at once."""
    from torch.distributed.run import get_args_parser

    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    for path in SCRIPTS:
        text = re.sub(r"^#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if "torchrun" in text:
            assert set(re.findall(r"(?<=\s)--[a-z-]+", text)) <= known


@pytest.mark.parametrize(
    ("code", "num_restarts", "is_requeued"),
    [
        *((75, None, True), (143, None, True), (75, 49, True), (75, 50, False), (143, 50, False)),
        *((0, None, False), (2, None, False), (137, None, False)),
    ],
)
def test_slurm_requeues_what_was_interrupted(tmp_path, code, num_restarts, is_requeued):
    """A preempted run that isn't queued again is lost for the night; one with a wrong recipe would run for ever."""
    stand_in(tmp_path, "scontrol", f'[ "$1" = show ] && echo node7 && exit; echo "$*" > {tmp_path}/requeued')
    stand_in(
        tmp_path,
        "srun",
        'while [ "${1#--}" != "$1" ]; do shift; done; SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NTASKS=4 exec "$@"',
    )
    stand_in(
        tmp_path,
        "python",
        f'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $SRUN_CPUS_PER_TASK $*"; exit {code}',
    )
    done = subprocess.run(
        ["bash", FOLDER / "launch" / "slurm.sbatch", "recipe.yaml", "seed=1"],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "42",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_CPUS_PER_TASK": "8",
            **({} if num_restarts is None else {"SLURM_RESTART_COUNT": str(num_restarts)}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "3 1 4 node7:29400 8 -m distilbert_kd run recipe.yaml seed=1"
    assert done.returncode == code
    requeued = tmp_path / "requeued"
    assert (requeued.read_text("utf-8").strip() if requeued.exists() else None) == (
        "requeue 42" if is_requeued else None
    )
