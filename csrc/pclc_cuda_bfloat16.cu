// The CUDA kernels for bfloat16 logits.

#include "pclc_cuda_launch.cuh"

template struct pclc::device::Launches<pclc::device::BFloat16>;
