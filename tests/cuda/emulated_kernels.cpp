// The CUDA kernels and their launches, compiled for the emulated device.

#include "pclc_cuda_launch.cuh"

template struct pclc::device::Launches<pclc::device::Float32>;
template struct pclc::device::Launches<pclc::device::BFloat16>;
template struct pclc::device::Launches<pclc::device::Float16>;
template struct pclc::device::Launches<pclc::device::Float64>;
