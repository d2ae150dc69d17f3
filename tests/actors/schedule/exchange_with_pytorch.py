"""Loads schedules that Troupe wrote with PyTorch's own loader, and writes PyTorch's for Troupe.

  exchange_with_pytorch.py FOLDER

FOLDER holds, for each schedule, NAME.csv (compute actions), NAME.comms.csv (with sends and receives)
and NAME.waits.csv (with waits too, which recent versions ask for), where NAME is
<schedule>_p<ranks>_m<microbatches>, and NAME.gathers.csv and NAME.gathers_waits.csv, the last two with
gathers and reductions of parameters. Written beside them: NAME.lowered.csv, PyTorch's own lowering of
NAME.csv, and NAME.pytorch.csv, the order of PyTorch's schedule of that name where it has one.
Exits 1 with what PyTorch refused or read differently.
"""
import csv
import glob
import os
import re
import sys
import types
import warnings

warnings.simplefilter("ignore")

import torch  # noqa: E402
from torch.distributed.pipelining import schedules  # noqa: E402

CLASSES = {
    "looped-bfs": "ScheduleLoopedBFS",
    "interleaved-1f1b": "ScheduleInterleaved1F1B",
    "interleaved-zb": "ScheduleInterleavedZeroBubble",
    "zb-v": "ScheduleZBVZeroBubble",
    "dualpipe-v": "ScheduleDualPipeV",
}


def rows_of(path):
    with open(path, newline="") as file:
        return [row for row in csv.reader(file)]


def stages_of(num_ranks, num_stages):
    """What a schedule asks of the stages of rank 0, without a process group."""
    return [
        types.SimpleNamespace(
            num_stages=num_stages,
            group_size=num_ranks,
            group_rank=0,
            group=None,
            stage_index=index,
            submod=torch.nn.Identity(),
        )
        for index in range(num_stages // num_ranks)
    ]


def text_of(order):
    return [[str(action) for action in order[rank] if action is not None] for rank in sorted(order)]


def exchange(base, name, num_ranks, num_microbatches):
    rows = rows_of(base + ".csv")
    num_stages = 1 + max(int(n) for n in re.findall(r"(\d+)F", ",".join(",".join(r) for r in rows)))
    assert len(rows) == num_ranks

    def runtime():
        return schedules._PipelineScheduleRuntime(
            stages_of(num_ranks, num_stages), num_microbatches
        )

    plain = runtime()
    plain._load_csv(base + ".csv", format="compute_only")
    assert text_of(plain.pipeline_order) == rows, "reads another list"
    plain._dump_csv(base + ".lowered.csv")

    has_waits = hasattr(schedules._ComputationType, "WAIT_SEND_F")
    gathers_path = base + (".gathers_waits.csv" if has_waits else ".gathers.csv")
    gathers = runtime()
    gathers._load_csv(gathers_path, format="compute_comms")
    assert text_of(gathers.pipeline_order_with_comms) == rows_of(gathers_path), "reads another list"
    sent_path = base + (".waits.csv" if has_waits else ".comms.csv")
    sent = runtime()
    sent._load_csv(sent_path, format="compute_comms")
    assert text_of(sent.pipeline_order_with_comms) == rows_of(sent_path), "reads another list"
    if not any("(" in cell for row in rows for cell in row):  # it cannot simulate pairs
        if hasattr(sent, "_simulate"):
            sent._simulate()

    if name in CLASSES and hasattr(schedules, CLASSES[name]):
        own = getattr(schedules, CLASSES[name])(stages_of(num_ranks, num_stages), num_microbatches)
        with open(base + ".pytorch.csv", "w", newline="") as file:
            csv.writer(file).writerows(own.pipeline_order[rank] for rank in range(num_ranks))


def main():
    done = 0
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*_p*_m*.csv"))):
        match = re.fullmatch(r"(.*/(.+)_p(\d+)_m(\d+))\.csv", path)
        if match is None:
            continue
        base, name, num_ranks, num_microbatches = match.groups()
        try:
            exchange(base, name, int(num_ranks), int(num_microbatches))
        except Exception as error:  # noqa: BLE001
            sys.exit(f"{os.path.basename(path)}: {type(error).__name__}: {error}")
        done += 1
    print(f"PyTorch {torch.__version__} took {done} schedules")
    sys.exit(0 if done else "no schedule found")


main()
