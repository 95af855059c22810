// How Python hands over a call: integers for addresses and sizes. Shared by the modules.

#pragma once

#include "pclc.h"

namespace pclc {

template <typename T>
T* address(uintptr_t value) {
  return reinterpret_cast<T*>(value);
}

inline Problem problem_of(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype,
                          int64_t rows, int64_t classes, int64_t row_stride, int64_t ignore_index,
                          int reduction, int lc_mode, bool pc_mean, uintptr_t coefficients) {
  return {address<const void>(logits),
          address<const int64_t>(target),
          address<const void>(weight),
          static_cast<DType>(dtype),
          rows,
          classes,
          row_stride,
          ignore_index,
          static_cast<Reduction>(reduction),
          static_cast<LcMode>(lc_mode),
          pc_mean,
          *address<const Coefficients>(coefficients)};
}

inline Outputs outputs_of(uintptr_t loss, uintptr_t row_stats, uintptr_t grad, uintptr_t prob_gap,
                          uintptr_t logit_gap, uintptr_t runner_up, uintptr_t correct) {
  return {address<void>(loss),     address<void>(row_stats), address<void>(grad),
          address<void>(prob_gap), address<void>(logit_gap), address<int64_t>(runner_up),
          address<bool>(correct)};
}

}  // namespace pclc
