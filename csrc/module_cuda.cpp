// The Python module of the CUDA kernels, as module.cpp is that of the CPU's. It brings its own
// CUDA runtime and asks for a driver when it is called: importing it needs neither.

#include <pybind11/pybind11.h>

#include "arguments.h"
#include "pclc_cuda.h"

namespace {

void forward_cuda(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                  int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                  int lc_mode, bool pc_mean, uintptr_t coefficients, uintptr_t loss,
                  uintptr_t row_stats, uintptr_t grad, uintptr_t prob_gap, uintptr_t logit_gap,
                  uintptr_t runner_up, uintptr_t correct, uintptr_t workspace, int device,
                  uintptr_t stream) {
  const pclc::Problem problem =
      pclc::problem_of(logits, target, weight, dtype, rows, classes, row_stride, ignore_index,
                       reduction, lc_mode, pc_mean, coefficients);
  const pclc::Outputs outputs =
      pclc::outputs_of(loss, row_stats, grad, prob_gap, logit_gap, runner_up, correct);
  pybind11::gil_scoped_release release;
  pclc::forward_cuda(problem, outputs, pclc::address<void>(workspace),
                     {device, pclc::address<void>(stream)});
}

void backward_cuda(uintptr_t logits, uintptr_t target, uintptr_t weight, int dtype, int64_t rows,
                   int64_t classes, int64_t row_stride, int64_t ignore_index, int reduction,
                   int lc_mode, bool pc_mean, uintptr_t coefficients, uintptr_t row_stats,
                   uintptr_t grad_output, int64_t grad_output_stride, bool has_unit_grad,
                   uintptr_t grad, int device, uintptr_t stream) {
  const pclc::Problem problem =
      pclc::problem_of(logits, target, weight, dtype, rows, classes, row_stride, ignore_index,
                       reduction, lc_mode, pc_mean, coefficients);
  const pclc::GradOutput upstream{pclc::address<const void>(grad_output), grad_output_stride};
  pybind11::gil_scoped_release release;
  pclc::backward_cuda(problem, pclc::address<const void>(row_stats), upstream, has_unit_grad,
                      pclc::address<void>(grad), {device, pclc::address<void>(stream)});
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of pclc_fast; pclc_fast/backends/cuda.py is their only caller.";
  m.def("forward_cuda", &forward_cuda);
  m.def("backward_cuda", &backward_cuda);
  m.def("unavailable", &pclc::cuda_unavailable);
  m.def("unsupported", &pclc::cuda_unsupported);
  m.attr("WORKSPACE_BYTES") = pclc::kCudaWorkspaceBytes;
  m.attr("MOST_CLASSES") = pclc::kCudaMostClasses;
}
