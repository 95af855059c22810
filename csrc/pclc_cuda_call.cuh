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
  int32_t most_count;      // vectors of a row, or of a block's share of it
  int32_t slots;           // room for them in shared memory
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

template <typename T>
PCLC_DEVICE int64_t target_of(const Call<T>& c, int64_t index) {
  return index < c.rows ? c.target[index] : 0;
}

template <class S, typename T = typename S::Compute>
PCLC_DEVICE Row<T> row_at(const Call<T>& c, int64_t index, int64_t y) {
  Row<T> row{index, RowState::kAbsent, -1, 0, 0};
  if (index >= c.rows) return row;
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
PCLC_DEVICE Row<T> row_at(const Call<T>& c, int64_t index) {
  return row_at<S>(c, index, target_of(c, index));
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
