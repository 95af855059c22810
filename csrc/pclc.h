// The contract between the kernels and their callers: what goes in, what comes out.
//
// Kernels see addresses and sizes only. Notation as in pclc_fast/reference.py: a row of logits a[K]
// with true class y, f = softmax(a), j the false class with the largest logit.

#pragma once

#include <cstdint>

namespace pclc {

// In the order of the tables in pclc_fast/backends/__init__.py and pclc_fast/options.py.
enum class DType : int { kFloat32, kBFloat16, kFloat16, kFloat64 };
enum class Reduction : int { kNone, kMean, kSum };
enum class LcMode : int { kHard, kSoft, kAll };

// Read from a float64 tensor of this layout (COEFFICIENTS in pclc_fast/options.py).
struct Coefficients {
  double margin;
  double pc_weight;
  double lc_weight;
  double lc_cap;
  double ce_weight;
};

// One call's input. "T" is the type of the arithmetic: double for double logits, else float.
struct Problem {
  const void* logits;     // [N, K], rows `row_stride` elements apart
  const int64_t* target;  // [N]
  const void* weight;     // [K] of T, or null: every class weighs 1
  DType dtype;            // of the logits and of the gradient
  int64_t rows;           // N
  int64_t classes;        // K
  int64_t row_stride;
  int64_t ignore_index;
  Reduction reduction;
  LcMode lc_mode;
  bool pc_mean;
  Coefficients coefficients;
};

// What a forward call writes. Any of them but the loss may be null: it is then not wanted.
struct Outputs {
  void* loss;          // [N] of T where nothing is reduced, else []
  void* row_stats;     // [N] of RowStats<T>: what backward needs
  void* grad;          // [N, K], contiguous: the gradient for grad_output = 1
  void* prob_gap;      // [N] of T, and with it the other three statistics
  void* logit_gap;     // [N] of T
  int64_t* runner_up;  // [N]
  bool* correct;       // [N]
};

// The gradient of the loss: [N] of T with any stride, 0 where one number stands for all rows.
struct GradOutput {
  const void* data;
  int64_t stride;
};

constexpr int64_t kNoBadTarget = -1;

// Returns kNoBadTarget, or the position of the first target that is neither a class nor
// ignore_index, having written nothing.
int64_t forward_cpu(const Problem& problem, const Outputs& outputs, int threads);

// Writes grad [N, K], contiguous, of the logits' type. Returns as forward_cpu.
int64_t backward_cpu(const Problem& problem, const void* row_stats, const GradOutput& grad_output,
                     void* grad, int threads);

}  // namespace pclc
