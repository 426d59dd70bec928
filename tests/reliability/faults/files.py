"""Checkpoints, models and caches that are damaged, and disks that take no more."""

from tests.reliability import hurts, places
from tests.reliability.faults.fault import TRAINER, Fault
from tests.reliability.hurts import at_call, at_step


_STOCK_AND_DAMAGE = {
    **dict.fromkeys(places.DAMAGES, "stuck"),
    **dict.fromkeys(("no optimizer.pt", "no scheduler.pt", "no rng_state.pth"), "different"),
    **dict.fromkeys(("a flipped bit in the weights", "a flipped bit in the optimizer"), "different"),
    **dict.fromkeys(("no record", "half a record"), None),
}
_DAMAGED = [
    Fault(
        "a damaged last checkpoint",
        name,
        "0",
        "is not whole.*set aside",
        around=places.damaged(name),
        begun=True,
        stock=stock,
        by_default=name == "a flipped bit in the optimizer",
    )
    for name, stock in _STOCK_AND_DAMAGE.items()
]

_LOST = "other files of the run"
_FILES = [
    Fault(
        _LOST,
        "a flipped bit in the trained teacher",
        "4",
        "got another model.safetensors",
        around=places.replaced("teacher/model.safetensors", places.flip, of="run"),
        begun=True,
    ),
    Fault(
        _LOST,
        "half a progress.json",
        "4",
        "progress.json, got a file that can't be read",
        around=places.replaced("progress.json", places.cut, of="run"),
        begun=True,
    ),
    Fault(
        _LOST,
        "the folder of the run removed in a training",
        "4",
        "",
        at_step("student", 6, hurts.lose_folder),
        stock="same",
    ),
]

_CACHE = "the cache of the teacher's answers"
_CACHED = [
    Fault(_CACHE, name, "0", "is damaged; it is set aside", around=places.of_cache(hurt), begun=True)
    for name, hurt in {
        "half a shard": lambda folder: places.cut(places.shard(folder)),
        "a flipped bit in a shard": lambda folder: places.flip(places.shard(folder)),
        "no shard": lambda folder: places.shard(folder).unlink(),
        "no manifest": lambda folder: (folder / "manifest.json").unlink(),
        "half a manifest": lambda folder: places.cut(folder / "manifest.json"),
    }.items()
]

_DISK = "the disk"
_CUT = "a file was cut short, as on a full disk or under a limit: .*MB are needed.*MB are free"
_FULL = "the disk is full.*MB are needed.*MB are free"
_DISKS = [
    Fault(
        _DISK,
        "too small for a checkpoint from the start",
        "4",
        _FULL,
        around=places.small_disk("300k"),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full before a save",
        "4",
        _FULL,
        at_step("student", 6, hurts.fill_disk(8_000)),
        around=places.small_disk(),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full in the weights file",
        "4",
        _FULL,
        at_call(TRAINER, "save_model", 2, hurts.fill_disk(40_000), what="student"),
        around=places.small_disk(),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full in the optimizer's file",
        "4",
        _CUT,
        at_call(TRAINER, "_save_optimizer_and_scheduler", 2, hurts.fill_disk(40_000), what="student"),
        around=places.small_disk(),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "full in the model folder",
        "4",
        _FULL,
        at_call("distilbert_kd.training", "save_model_folder", 2, hurts.fill_disk(40_000)),
        around=places.small_disk(),
        inside_stock=at_call(TRAINER, "save_model", 4, hurts.fill_disk(40_000)),
        stock="same",
    ),
    Fault(
        _DISK,
        "full before the results",
        "4",
        _FULL,
        at_call("distilbert_kd.run_records:RunRecords", "write_results", act=hurts.fill_disk(0)),
        around=places.small_disk(),
    ),
    Fault(
        _DISK,
        "a limit on the size of files, in the optimizer's file",
        "4",
        _CUT,
        at_call(TRAINER, "_save_optimizer_and_scheduler", 2, hurts.limit_files(40_000), what="student"),
        stock="stuck",
    ),
    Fault(
        _DISK,
        "turns read-only in a training",
        "4",
        "read-only",
        at_step("student", 6, hurts.make_unwritable),
        around=places.small_disk(later="rw"),
        stock="same",
    ),
    Fault(
        _DISK,
        "read-only from the start",
        "4",
        "read-only",
        around=places.read_only("disk"),
        result="nothing",
        stock="refused",
    ),
    Fault(
        _DISK,
        "a file in the place of the run's folder",
        "4",
        "a file is in the way",
        around=places.in_the_way("run"),
        result="nothing",
        stock="refused",
    ),
    Fault(
        _DISK,
        "no room for the teacher's answers",
        "4",
        f"teacher's logits.*{_FULL}",
        at_call("distilbert_kd.teacher_cache", "_write", act=hurts.fill_cache),
        around=places.small_cache,
    ),
    Fault(
        _DISK,
        "read-only folder for the teacher's answers",
        "4",
        "read-only.*teacher.cache_dir",
        around=places.read_only("cache"),
        result="nothing",
    ),
]

FILES = _DAMAGED + _FILES + _CACHED + _DISKS
