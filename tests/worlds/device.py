"""The device of the tests marked gpu: CUDA, or with TRITON_INTERPRET=1 the CPU, with the kernels in Triton's interpreter."""

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
