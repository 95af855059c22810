// The CUDA kernels for float32 logits.

#include "pclc_cuda_launch.cuh"

template struct pclc::device::Launches<pclc::device::Float32>;
