"""A rank of the peer in recovery_bench.py: an MLP on digits under DistributedDataParallel over Gloo, a
checkpoint an epoch, as PyTorch's own elastic examples do. Writes "time step" for each step of rank 0.
  torchrun --nproc_per_node 4 ... recovery_torch_worker.py DIGITS.csv FOLDER STEPS"""
import os
import pathlib
import sys
import time

import numpy
import torch
import torch.distributed

table = numpy.loadtxt(sys.argv[1], delimiter=",", skiprows=1, dtype=numpy.float32)
folder, steps = pathlib.Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
(folder / f"pid.{rank}").write_text(str(os.getpid()))
x, y = torch.tensor(table[:, :-1]), torch.tensor(table[:, -1]).long()
torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128),
                            torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
step, saved = 0, folder / "checkpoint.pt"
if saved.exists():
    state = torch.load(saved)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]
model = torch.nn.parallel.DistributedDataParallel(model)
log = open(folder / "steps", "a", buffering=1)
per_epoch = len(x) // 64
while step < steps:
    at = (step % per_epoch) * 64 + rank * (64 // size)
    loss = torch.nn.functional.cross_entropy(model(x[at:at + 64 // size]), y[at:at + 64 // size])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if rank == 0:
        log.write(f"{time.time():.6f} {step}\n")
        if step % per_epoch == 0:
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, folder / "checkpoint.new")
            os.replace(folder / "checkpoint.new", saved)
