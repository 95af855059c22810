// The CUDA kernels for callers that know no CUDA: the arguments are those of pclc.h, on a device.
//
// Nothing waits for the device. A target that is no class makes its row NaN. What goes wrong on the
// host's side of a launch is a std::runtime_error that names the kernel and its shape.

#pragma once

#include <string>

#include "pclc.h"

namespace pclc {

constexpr int64_t kCudaWorkspaceBytes = (128 + 4096) * 8;
constexpr int64_t kCudaMostClasses = (int64_t(1) << 31) - (int64_t(1) << 16);

struct CudaPlace {
  int device;
  void* stream;
};

// `workspace`: kCudaWorkspaceBytes that belong to this call until it is done; not looked at where
// nothing is reduced.
void forward_cuda(const Problem& problem, const Outputs& outputs, void* workspace,
                  const CudaPlace& place);

// `has_unit_grad`: grad holds the gradient for a grad_output of 1 and stays as it is for that.
void backward_cuda(const Problem& problem, const void* row_stats, const GradOutput& grad_output,
                   bool has_unit_grad, void* grad, const CudaPlace& place);

// Why no kernel can run on this machine, or on this device of it; empty where it can.
std::string cuda_unavailable();
std::string cuda_unsupported(int device);

}  // namespace pclc
