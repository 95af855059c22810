// What one launch is given, and what a thread makes of a row before and after its logits.

#pragma once

#include "pclc_cuda_vector.cuh"
#include "pclc_partial.h"
#include "pclc_row.h"

namespace pclc::device {

constexpr int64_t kFewRows = 1024;  // every block sums the weights of so many rows itself
constexpr int kParts = 128;         // blocks, and so partial sums, of prepare_weights
constexpr int kMaxBlocks = 4096;    // of a forward launch, and so partial losses

// What forward and backward share. Rows are taken in turns by the blocks of a launch.
template <typename T>
struct Call {
  const void* logits;     // [rows, classes], rows `row_stride` elements apart
  const int64_t* target;  // [rows]
  const T* weight;        // [classes], or null
  int64_t rows;
  int64_t row_stride;
  int64_t ignore_index;
  int32_t classes;
  Reduction reduction;
  Terms<T> terms;
  RowStats<T>* row_stats;  // [rows], or null
  void* grad;              // [rows, classes], contiguous, or null
};

template <typename T>
struct ForwardCall : Call<T> {
  T* loss;
  T* prob_gap;  // [rows], or null as the other statistics then are
  T* logit_gap;
  int64_t* runner_up;
  bool* correct;
  const double* parts;     // what prepare_weights has left, or null
  double* partial_losses;  // [kMaxBlocks]
  uint32_t* blocks_done;   // 0 before the launch and after it
};

template <typename T>
struct BackwardCall : Call<T> {
  const T* grad_output;  // one number, or one for each row
  int64_t grad_output_stride;
  bool has_unit_grad;  // grad holds the gradient for a grad_output of 1
};

enum class RowState { kAbsent, kIgnored, kBad, kGood };  // bad: a target that is no class

template <typename T>
struct Row {
  int64_t index;
  RowState state;
  int32_t label;  // the true class, -1 unless good
  T weight;       // of its class
  T true_logit;
};

template <typename T>
PCLC_DEVICE T class_weight(const Call<T>& c, int64_t y) {
  if (y == c.ignore_index) return 0;
  const bool is_class = 0 <= y && y < c.classes;
  return c.weight && is_class ? c.weight[y] : T(1);
}

template <class S, typename T = typename S::Compute>
PCLC_DEVICE const typename S::Stored* logits_of(const Call<T>& c, int64_t row) {
  return static_cast<const typename S::Stored*>(c.logits) + row * c.row_stride;
}

template <class S, typename T = typename S::Compute>
PCLC_DEVICE Row<T> row_at(const Call<T>& c, int64_t index) {
  Row<T> row{index, RowState::kAbsent, -1, 0, 0};
  if (index >= c.rows) return row;
  const int64_t y = c.target[index];
  row.weight = class_weight(c, y);
  row.state = y == c.ignore_index       ? RowState::kIgnored
              : 0 <= y && y < c.classes ? RowState::kGood
                                        : RowState::kBad;
  if (row.state == RowState::kGood) {
    row.label = static_cast<int32_t>(y);
    row.true_logit = S::load(logits_of<S>(c, index)[y]);
  }
  return row;
}

template <class S, typename T = typename S::Compute>
PCLC_DEVICE RowView<S> view_of(const Call<T>& c, const Row<T>& row) {
  using Stored = typename S::Stored;
  const int64_t offset = row.index * c.classes;
  Stored* grad = c.grad ? static_cast<Stored*>(c.grad) + offset : nullptr;
  const int32_t classes = row.state == RowState::kAbsent ? 0 : c.classes;
  return {logits_of<S>(c, row.index),  grad, offset, classes, row.label,
          row.state != RowState::kGood};
}

template <typename T>
PCLC_DEVICE RowProbs<T> probs_of(const Row<T>& row, const RowStats<T>& stats,
                                 const Terms<T>& terms) {
  const T odds = exp_of(-std::abs(row.true_logit - stats.top));
  RowProbs<T> probs = row_probs(row.true_logit, stats.top, stats.exp_sum, odds, terms);
  if (row.state == RowState::kBad) probs.defined = false;
  return probs;
}

// Sums over parts of a row: active and active_sum of RowStats.
template <typename T>
struct Hinges {
  T active = 0;
  T active_sum = 0;
};

template <typename T>
PCLC_DEVICE Hinges<T> add(const Hinges<T>& a, const Hinges<T>& b) {
  return {a.active + b.active, a.active_sum + b.active_sum};
}

// The gradient of a false class from its logit, as ElementGrad of the CPU kernels gives it, with
// what the row has instead of a formula: zeros where it is ignored, NaN where it is undefined.
template <class S, LcMode kMode, typename T = typename S::Compute>
struct Writer {
  T shift, prob, threshold, inactive, active, true_grad, top_extra;
  T soft_scale, soft_mean, all_step, true_logit, cap;
  int32_t label, runner_up;
  bool is_filled;    // with true_grad
  bool is_constant;  // the logits need not be read

  PCLC_DEVICE Writer(const Row<T>& row, const RowProbs<T>& p, const RowStats<T>& s,
                     const Terms<T>& terms, T scale)
      : shift(shift_of(s.top)),
        prob(p.top_prob),
        threshold(p.pc_case == PcCase::kMixed ? p.excess : T(2)),  // elsewhere none exceeds it
        true_logit(row.true_logit),
        cap(terms.lc_cap),
        label(row.label),
        runner_up(static_cast<int32_t>(s.runner_up)) {
    const RowGrad<T> g = row_grad(row.true_logit, p, s, terms, scale);
    const bool is_ignored = row.state == RowState::kIgnored;
    is_filled = is_ignored || g.constant;
    is_constant = is_filled || g.zero;
    inactive = g.zero ? T(0) : g.inactive;  // never -0
    active = g.zero ? T(0) : g.active;
    true_grad = is_ignored ? T(0) : g.true_grad;
    top_extra = g.top_extra;
    soft_scale = g.soft_scale;
    soft_mean = g.soft_mean;
    all_step = g.all_step;
  }

  // The gradient at class k, of which `a` is the logit.
  PCLC_DEVICE T at(int32_t k, T a) const {
    if (is_filled || k == label) return true_grad;
    const T grad = formula(a);
    return is_top(k) ? grad + top_extra : grad;
  }

  // Vector v of a row.
  PCLC_DEVICE void write(const RowView<S>& view, int32_t v, const Words& words) const {
    constexpr int kCount = kWidth<S>;
    const int32_t k = view.begin(v);
    if (k >= view.classes) return;
    T values[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = is_filled ? true_grad : formula(S::get(words, i));
    if (!is_filled && (view.holds(k, label) || view.holds(k, runner_up))) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (is_top(k + i)) values[i] += top_extra;
        if (k + i == label) values[i] = true_grad;
      }
    }
    view.store(v, values);
  }

 private:
  PCLC_DEVICE bool is_top(int32_t k) const { return kMode == LcMode::kHard && k == runner_up; }

  PCLC_DEVICE T formula(T a) const {
    const T e = exp_of(a - shift);
    const T pc = e * (e * prob > threshold ? active : inactive);
    if constexpr (kMode == LcMode::kSoft) {
      const T gap = true_logit - a;
      const T pull = gap > 0 ? gap - soft_mean - T(1) : -soft_mean;
      return pc + (e > 0 ? e * soft_scale * pull : T(0));
    } else if constexpr (kMode == LcMode::kAll) {
      return pc + (true_logit - a - cap > 0 && a > kNegativeInfinity<T> ? all_step : T(0));
    } else {
      return pc;
    }
  }
};

template <typename T>
PCLC_DEVICE T loss_of(const Row<T>& row, const RowProbs<T>& p, const RowStats<T>& s,
                      const Terms<T>& terms) {
  const bool counts = row.state == RowState::kGood || row.state == RowState::kBad;
  return counts ? row_loss(p, s, terms) * row.weight : T(0);
}

// Where rows are many, backward finds the sum of all weights in the unused halves of the first two
// rows' runner-up: it takes no launch of its own to sum them again.
PCLC_DEVICE int64_t half_of_total(int64_t row, double total) {
  const uint32_t half = row == 0 ? high_bits(total) : row == 1 ? low_bits(total) : 0;
  return static_cast<int64_t>(static_cast<uint64_t>(half) << 32);
}

template <typename T>
PCLC_DEVICE double saved_total(const RowStats<T>* stats) {
  return double_of(static_cast<uint32_t>(static_cast<uint64_t>(stats[1].runner_up) >> 32),
                   static_cast<uint32_t>(static_cast<uint64_t>(stats[0].runner_up) >> 32));
}

template <typename T>
PCLC_DEVICE RowStats<T> saved_row(const Call<T>& c, const Row<T>& row) {
  if (row.state == RowState::kAbsent) return {};
  RowStats<T> stats = c.row_stats[row.index];
  stats.runner_up &= INT32_MAX;
  return stats;
}

// Writes what is wanted of a row besides its gradient.
template <typename T>
PCLC_DEVICE void save_row(const ForwardCall<T>& c, const Row<T>& row, const RowProbs<T>& p,
                          const RowStats<T>& s, T loss, double total) {
  if (row.state == RowState::kAbsent) return;
  if (c.reduction == Reduction::kNone) c.loss[row.index] = loss;
  if (c.row_stats) {
    RowStats<T> saved = s;
    if (c.parts) saved.runner_up |= half_of_total(row.index, total);
    c.row_stats[row.index] = saved;
  }
  if (!c.correct) return;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const bool valid = row.state == RowState::kGood && p.defined && c.classes > 1;
  c.prob_gap[row.index] = valid ? p.true_prob - p.top_prob : nan;
  c.logit_gap[row.index] = valid ? p.logit_gap : nan;
  c.runner_up[row.index] = valid ? s.runner_up : -1;
  const bool tie_won = p.logit_gap == 0 && row.label < s.runner_up;
  c.correct[row.index] = valid && (p.logit_gap > 0 || tie_won);
}

}  // namespace pclc::device
