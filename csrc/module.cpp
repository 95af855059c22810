// The Python module: integers (addresses, sizes) in, exceptions out. The only file that sees
// Python.

#include <pybind11/pybind11.h>

#include "pclc.h"

namespace {

template <typename T>
T* address(uintptr_t value) {
  return reinterpret_cast<T*>(value);
}

pclc::Problem problem(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                      int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                      int lc_mode, bool pc_mean, uintptr_t coefficients) {
  return {address<const void>(logits),
          address<const int64_t>(target),
          address<const void>(weight),
          static_cast<pclc::DType>(dtype),
          rows,
          classes,
          row_stride,
          ignore_index,
          static_cast<pclc::Reduction>(reduction),
          static_cast<pclc::LcMode>(lc_mode),
          pc_mean,
          *address<const pclc::Coefficients>(coefficients)};
}

// Returns the position of the first bad target, or -1.
int64_t forward_cpu(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                    int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                    int lc_mode, bool pc_mean, uintptr_t coefficients, uintptr_t loss,
                    uintptr_t row_stats, uintptr_t grad, uintptr_t prob_gap, uintptr_t logit_gap,
                    uintptr_t runner_up, uintptr_t correct, int threads) {
  const pclc::Problem input = problem(logits, target, weight, dtype, rows, classes, row_stride,
                                      ignore_index, reduction, lc_mode, pc_mean, coefficients);
  const pclc::Outputs outputs{address<void>(loss),      address<void>(row_stats),
                              address<void>(grad),      address<void>(prob_gap),
                              address<void>(logit_gap), address<int64_t>(runner_up),
                              address<bool>(correct)};
  pybind11::gil_scoped_release release;
  return pclc::forward_cpu(input, outputs, threads);
}

int64_t backward_cpu(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                     int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                     int lc_mode, bool pc_mean, uintptr_t coefficients, uintptr_t row_stats,
                     uintptr_t grad_output, int64_t grad_output_stride, uintptr_t grad,
                     int threads) {
  const pclc::Problem input = problem(logits, target, weight, dtype, rows, classes, row_stride,
                                      ignore_index, reduction, lc_mode, pc_mean, coefficients);
  const pclc::GradOutput upstream{address<const void>(grad_output), grad_output_stride};
  pybind11::gil_scoped_release release;
  return pclc::backward_cpu(input, address<const void>(row_stats), upstream, address<void>(grad),
                            threads);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of pclc_fast; pclc_fast/backends/native.py is their only caller.";
  m.def("forward_cpu", &forward_cpu);
  m.def("backward_cpu", &backward_cpu);
}
