"""The backend on an NVIDIA device through CuPy: accel/cuda compiled there by NVRTC, one element a thread.

It is taken only where it is asked for by name: its arithmetic is checked on a CPU and it compiles for sm_80 and sm_90,
but it has not run on a device yet (accel/notes/cuda.md). Loading this package does not load CuPy.
"""

from accel.backends.cuda.device import Device, refusal
from accel.backends.cuda.masks import CudaMasks
from accel.backends.cuda.power import CudaPower
from accel.backends.cuda.ring_matrices import CudaRingMatrices
from accel.backends.cuda.x25519 import CudaX25519

__all__ = ["CudaMasks", "CudaPower", "CudaRingMatrices", "CudaX25519", "Device", "refusal"]
