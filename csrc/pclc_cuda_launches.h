// The launches of one call, for logits of each storage type: each is compiled in a file of its own.

#pragma once

#include "pclc_cuda.h"

namespace pclc::device {

struct Float32;
struct BFloat16;
struct Float16;
struct Float64;

// The arguments of forward_cuda and backward_cuda.
template <class S>
struct Launches {
  static void forward(const Problem& problem, const Outputs& outputs, void* workspace,
                      const CudaPlace& place);
  static void backward(const Problem& problem, const void* row_stats, const GradOutput& grad_output,
                       bool has_unit_grad, void* grad, const CudaPlace& place);
};

}  // namespace pclc::device
