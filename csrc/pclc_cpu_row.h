// One row on a CPU, from its logits to its loss and gradient.
//
// Forward keeps the e_k of the rows in hand in a buffer of its thread. Backward has RowStats
// already and takes each block through all passes at once. Both exponentiate and write by the same
// code: the gradients are the same to the last bit.

#pragma once

#include <algorithm>

#include "pclc_cpu_passes.h"

namespace pclc {

template <typename T>
PCLC_INLINE T class_weight(const Problem& p, int64_t y) {
  return p.weight ? static_cast<const T*>(p.weight)[y] : T(1);
}

template <class S>
PCLC_INLINE typename S::Stored* grad_row(const Problem& p, void* grad, int64_t i) {
  return static_cast<typename S::Stored*>(grad) + i * p.classes;
}

// Writes what is wanted of a row besides its loss and gradient.
template <typename T>
PCLC_INLINE void save_row(const Problem& p, const Outputs& out, int64_t i, const RowProbs<T>& probs,
                          const RowStats<T>& stats) {
  if (out.row_stats) static_cast<RowStats<T>*>(out.row_stats)[i] = stats;
  if (!out.correct) return;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const bool valid = probs.defined && p.classes > 1;
  static_cast<T*>(out.prob_gap)[i] = valid ? probs.true_prob - probs.top_prob : nan;
  static_cast<T*>(out.logit_gap)[i] = valid ? probs.logit_gap : nan;
  out.runner_up[i] = valid ? stats.runner_up : -1;
  const bool tie_won = probs.logit_gap == 0 && p.target[i] < stats.runner_up;
  out.correct[i] = valid && (probs.logit_gap > 0 || tie_won);
}

// All of an ignored row, whose logits are not read. Returns its loss.
template <class S, typename T>
PCLC_INLINE T skip_row(const Problem& p, const Outputs& out, int64_t i) {
  save_row(p, out, i, RowProbs<T>{}, RowStats<T>{});
  if (out.grad) std::fill_n(grad_row<S>(p, out.grad, i), p.classes, typename S::Stored(0));
  return 0;
}

// The row arithmetic with the exponential of this file.
template <typename T>
PCLC_INLINE RowProbs<T> probs_of(T true_logit, const RowStats<T>& stats, const Terms<T>& terms) {
  const T odds = exp_nonpositive(-std::abs(true_logit - stats.top));
  return row_probs(true_logit, stats.top, stats.exp_sum, odds, terms);
}

// One row of forward, in three steps.
template <class S, typename T = typename S::Compute>
struct ForwardRow {
  using Stored = typename S::Stored;

  int64_t i;  // its place among the rows
  RowBuffer<T> buffer;
  const Stored* logits;  // null where the row is ignored
  int64_t y;
  T true_logit;
  FalseBlock<T> first;  // what load leaves for reduce
  RowStats<T> stats;

  PCLC_INLINE void load(const Problem& p, int64_t row, const RowBuffer<T>& memory) {
    i = row;
    buffer = memory;
    y = p.target[i];
    logits = nullptr;
    if (y == p.ignore_index) return;
    logits = static_cast<const Stored*>(p.logits) + i * p.row_stride;
    true_logit = S::load(logits[y]);
    first = false_block<S>(logits, block_at(0, p.classes), y, buffer.e);
  }

  PCLC_INLINE void reduce(const Problem& p, const Terms<T>& terms) {
    if (logits) stats = reduce_row<S>(p, logits, y, true_logit, first, terms, buffer);
  }

  // Writes what is wanted of the row; returns its loss, its class weight included. `grad_loss` is
  // the gradient of that loss.
  PCLC_INLINE T write(const Problem& p, const Outputs& out, const Terms<T>& terms, T grad_loss) {
    if (!logits) return skip_row<S, T>(p, out, i);
    const RowProbs<T> probs = probs_of(true_logit, stats, terms);
    if (probs.pc_case == PcCase::kMixed) count_active(buffer, p.classes, probs, &stats);
    save_row(p, out, i, probs, stats);
    const T weight = class_weight<T>(p, y);
    if (out.grad) {
      const RowGrad<T> g = row_grad(true_logit, probs, stats, terms, grad_loss * weight);
      write_grad(p, terms, probs, g, grad_row<S>(p, out.grad, i));
    }
    return row_loss(probs, stats, terms) * weight;
  }

  PCLC_INLINE void write_grad(const Problem& p, const Terms<T>& terms, const RowProbs<T>& probs,
                              const RowGrad<T>& g, Stored* grad) const {
    if (g.constant) {
      std::fill_n(grad, p.classes, S::store(g.true_grad));
      return;
    }
    for (int64_t begin = 0; begin < p.classes; begin += kBlock) {
      const T factor = block_factor(buffer.tops[begin / kBlock], stats.top);
      const ElementGrad<T> element = element_grad(probs, g, factor, true_logit, terms.lc_cap);
      prefetch_next(grad, begin, p.classes, p.classes * rows_at_once(p.classes));
      write_block<S>(terms.lc_mode, logits + begin, buffer.e + begin,
                     block_at(begin, p.classes).count, element, g.zero, grad + begin);
    }
    write_exceptions<S>(terms.lc_mode, y, stats.runner_up, probs, g, grad);
  }
};

// Rows begin to end of forward, no more than kGroup. Short rows take each step together: a step of
// one waits for the step before, and the others fill that time.
template <class S, typename T = typename S::Compute>
PCLC_INLINE void forward_group(const Problem& p, const Outputs& out, const Terms<T>& terms,
                               int64_t begin, int64_t end, T grad_loss, T* memory, T* row_loss) {
  ForwardRow<S> rows[kGroup];
  const int64_t count = end - begin, size = RowBuffer<T>::size(p.classes);
  for (int64_t r = 0; r < count; ++r) {
    rows[r].load(p, begin + r, RowBuffer<T>::at(memory + r * size, p.classes));
  }
  for (int64_t r = 0; r < count; ++r) rows[r].reduce(p, terms);
  for (int64_t r = 0; r < count; ++r) {
    row_loss[begin + r] = rows[r].write(p, out, terms, grad_loss);
  }
}

// One row of backward, from what forward saved. The buffer holds a block.
template <class S, typename T = typename S::Compute>
PCLC_INLINE void backward_row(const Problem& p, const RowStats<T>& stats, const Terms<T>& terms,
                              int64_t i, T grad_loss, T* buffer, typename S::Stored* grad) {
  using Stored = typename S::Stored;
  const int64_t y = p.target[i];
  if (y == p.ignore_index) {
    std::fill_n(grad, p.classes, Stored(0));
    return;
  }
  const Stored* row = static_cast<const Stored*>(p.logits) + i * p.row_stride;
  const T true_logit = S::load(row[y]);
  const RowProbs<T> probs = probs_of(true_logit, stats, terms);
  const RowGrad<T> g = row_grad(true_logit, probs, stats, terms, grad_loss * class_weight<T>(p, y));
  if (g.constant) {
    std::fill_n(grad, p.classes, S::store(g.true_grad));
    return;
  }
  T top = kNegativeInfinity<T>;
  for (int64_t begin = 0; begin < p.classes; begin += kBlock) {
    const Block block = block_at(begin, p.classes);
    const FalseBlock<T> falses = false_block<S>(row, block, y, buffer);
    top = larger(top, falses.top);
    const T shift = shift_of(top);
    prefetch_next(row, begin, p.classes, p.row_stride);
    prefetch_next(grad, begin, p.classes, p.classes);
#pragma omp simd
    for (int64_t k = 0; k < block.padded; ++k) {
      buffer[k] = exp_nonpositive(falses.logits[k] - shift);
    }
    const T factor = block_factor(top, stats.top);
    const ElementGrad<T> element = element_grad(probs, g, factor, true_logit, terms.lc_cap);
    write_block<S>(terms.lc_mode, row + begin, buffer, block.count, element, g.zero, grad + begin);
  }
  write_exceptions<S>(terms.lc_mode, y, stats.runner_up, probs, g, grad);
}

}  // namespace pclc
