"""One thread a process: the tensors are small, and the tests run side by side."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
