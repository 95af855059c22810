// The Python module of the CPU kernels: integers (addresses, sizes) in, exceptions out. Only this
// file and module_cuda.cpp see Python.

#include <pybind11/pybind11.h>

#include "arguments.h"

namespace {

// Returns the position of the first bad target, or -1.
int64_t forward_cpu(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                    int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                    int lc_mode, bool pc_mean, uintptr_t coefficients, uintptr_t loss,
                    uintptr_t row_stats, uintptr_t grad, uintptr_t prob_gap, uintptr_t logit_gap,
                    uintptr_t runner_up, uintptr_t correct, int threads) {
  const pclc::Problem problem =
      pclc::problem_of(logits, target, weight, dtype, rows, classes, row_stride, ignore_index,
                       reduction, lc_mode, pc_mean, coefficients);
  const pclc::Outputs outputs =
      pclc::outputs_of(loss, row_stats, grad, prob_gap, logit_gap, runner_up, correct);
  pybind11::gil_scoped_release release;
  return pclc::forward_cpu(problem, outputs, threads);
}

int64_t backward_cpu(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                     int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                     int lc_mode, bool pc_mean, uintptr_t coefficients, uintptr_t row_stats,
                     uintptr_t grad_output, int64_t grad_output_stride, uintptr_t grad,
                     int threads) {
  const pclc::Problem problem =
      pclc::problem_of(logits, target, weight, dtype, rows, classes, row_stride, ignore_index,
                       reduction, lc_mode, pc_mean, coefficients);
  const pclc::GradOutput upstream{pclc::address<const void>(grad_output), grad_output_stride};
  pybind11::gil_scoped_release release;
  return pclc::backward_cpu(problem, pclc::address<const void>(row_stats), upstream,
                            pclc::address<void>(grad), threads);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of pclc_fast; pclc_fast/backends/native.py is their only caller.";
  m.def("forward_cpu", &forward_cpu);
  m.def("backward_cpu", &backward_cpu);
}
