// The CUDA kernels for float16 logits.

#include "pclc_cuda_launch.cuh"

template struct pclc::device::Launches<pclc::device::Float16>;
