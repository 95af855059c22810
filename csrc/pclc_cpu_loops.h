// The CPU kernels of one storage type: loops over rows, compiled for each instruction set.

#pragma once

#include "pclc_cpu_kernels.h"
#include "pclc_cpu_lanes.h"
#include "pclc_cpu_row.h"

// One clone for each instruction set worth having, chosen when the module is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(PCLC_NO_CLONES)
#define PCLC_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PCLC_CLONES
#endif

namespace pclc {

template <class S, typename T = typename S::Compute>
PCLC_INLINE void forward_rows(const Call<T>& call, const Outputs& out, int64_t begin, int64_t end,
                              T* memory, T* row_loss) {
  const Problem& p = call.problem;
  if (are_few<T>(p.classes)) {
    for (int64_t i = begin; i < end; i += kLanes) {
      forward_lanes<S>(p, out, call.terms, i, end, call.inverse_denominator, row_loss);
    }
    return;
  }
  const int64_t group = rows_at_once(p.classes);
  for (int64_t i = begin; i < end; i += group) {
    forward_group<S>(p, out, call.terms, i, std::min(i + group, end), call.inverse_denominator,
                     memory, row_loss);
  }
}

template <class S, typename T = typename S::Compute>
PCLC_INLINE void backward_rows(const Call<T>& call, const RowStats<T>* stats,
                               const GradOutput& grad_output, int64_t begin, int64_t end,
                               void* grad) {
  const Problem& p = call.problem;
  if (are_few<T>(p.classes)) {
    for (int64_t i = begin; i < end; i += kLanes) {
      backward_lanes<S>(p, stats, grad_output, call.terms, i, end, call.inverse_denominator, grad);
    }
    return;
  }
  alignas(64) T buffer[kBlock];
  for (int64_t i = begin; i < end; ++i) {
    const T grad_loss = static_cast<const T*>(grad_output.data)[i * grad_output.stride];
    backward_row<S>(p, stats[i], call.terms, i, grad_loss * call.inverse_denominator, buffer,
                    grad_row<S>(p, grad, i));
  }
}

// Only a function that is no template can be cloned: two for each storage type. They hold no OpenMP
// region, which GCC would outline before it clones.
#define PCLC_DEFINE_CPU_KERNELS(S)                                                                 \
  PCLC_CLONES void forward_##S(const Call<S::Compute>& call, const Outputs& out, int64_t begin,    \
                               int64_t end, S::Compute* memory, S::Compute* row_loss) {            \
    forward_rows<S>(call, out, begin, end, memory, row_loss);                                      \
  }                                                                                                \
  PCLC_CLONES void backward_##S(const Call<S::Compute>& call,                                      \
                                const RowStats<S::Compute>* row_stats, const GradOutput& upstream, \
                                int64_t begin, int64_t end, void* grad) {                          \
    backward_rows<S>(call, row_stats, upstream, begin, end, grad);                                 \
  }

}  // namespace pclc
