// The CPU kernels as their callers see them: two for each storage type, each type in a file of its
// own, which compile side by side.

#pragma once

#include "pclc.h"
#include "pclc_cpu_math.h"
#include "pclc_row.h"

namespace pclc {

// Everything that the rows of one call share.
template <typename T>
struct Call {
  const Problem& problem;
  Terms<T> terms;
  T inverse_denominator;  // of the reduction
};

#define PCLC_DECLARE_CPU_KERNELS(S)                                                              \
  void forward_##S(const Call<S::Compute>& call, const Outputs& out, int64_t begin, int64_t end, \
                   S::Compute* memory, S::Compute* row_loss);                                    \
  void backward_##S(const Call<S::Compute>& call, const RowStats<S::Compute>* row_stats,         \
                    const GradOutput& upstream, int64_t begin, int64_t end, void* grad);

PCLC_DECLARE_CPU_KERNELS(Float32)
PCLC_DECLARE_CPU_KERNELS(BFloat16)
PCLC_DECLARE_CPU_KERNELS(Float16)
PCLC_DECLARE_CPU_KERNELS(Float64)
#undef PCLC_DECLARE_CPU_KERNELS

}  // namespace pclc
