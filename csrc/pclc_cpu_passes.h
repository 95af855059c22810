// The passes over one row on a CPU, block by block; every step over a block is a plain loop that
// compilers vectorise, those that depend on the LC mode for each of its values.
//
//   reduce  the pass that brings a row from memory: the largest false logit, its place, the sums
//           that RowStats keeps, and e_k = exp(a_k - the largest logit up to k's block)
//   count   the active hinges, where they are mixed
//   write   e_k times the coefficients of RowGrad, brought to the largest logit of the whole row

#pragma once

#include <cstring>

#include "pclc.h"
#include "pclc_cpu_block.h"
#include "pclc_cpu_math.h"
#include "pclc_row.h"

namespace pclc {

// What one false class adds to the sums of the logit constraint (RowStats); nothing in mode hard.
template <typename T>
struct LcTerms {
  T sum, count;
};

template <LcMode kMode, typename T>
PCLC_INLINE LcTerms<T> lc_terms(T a, T e, T true_logit, T cap) {
  static_assert(kMode != LcMode::kHard);
  if constexpr (kMode == LcMode::kSoft) {
    const T gap = true_logit - a;
    const bool counts = gap > 0 && e > 0;
    return {counts ? e * gap : T(0), counts ? e : T(0)};
  } else {
    const T gap = true_logit - a - cap;
    const bool counts = gap > 0 && a > kNegativeInfinity<T>;
    return {counts ? gap : T(0), counts ? T(1) : T(0)};
  }
}

// Sums over the false classes so far, relative to the largest logit so far.
template <typename T>
struct Sums {
  T top = kNegativeInfinity<T>;
  double exp_sum = 0, lc_sum = 0, lc_count = 0;
};

template <typename T>
PCLC_INLINE void raise_top(LcMode mode, T top, Sums<T>* sums) {
  const double factor = static_cast<double>(exp_nonpositive(sums->top - top));
  sums->top = top;
  sums->exp_sum *= factor;
  if (mode == LcMode::kSoft) sums->lc_sum *= factor, sums->lc_count *= factor;
}

// Writes the e_k of n false logits, which may be where those are, and adds what the row needs of
// them.
template <LcMode kMode, typename T>
PCLC_INLINE void exp_block_for(const T* logits, T* e, int64_t n, T true_logit, T cap,
                               Sums<T>* sums) {
  const T shift = shift_of(sums->top);
  LaneSum<T> exp_sum, lc_sum, lc_count;
  for (int64_t begin = 0; begin < n; begin += kLanes) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) {
      const T a = logits[begin + i];
      const T e_k = exp_nonpositive(a - shift);
      e[begin + i] = e_k;
      exp_sum.lane[i] += e_k;
      if constexpr (kMode != LcMode::kHard) {
        const LcTerms<T> lc = lc_terms<kMode>(a, e_k, true_logit, cap);
        lc_sum.lane[i] += lc.sum;
        lc_count.lane[i] += lc.count;
      }
    }
  }
  sums->exp_sum += static_cast<double>(exp_sum.total());
  if constexpr (kMode != LcMode::kHard) {
    sums->lc_sum += static_cast<double>(lc_sum.total());
    sums->lc_count += static_cast<double>(lc_count.total());
  }
}

template <typename T>
PCLC_INLINE void exp_block(LcMode mode, const T* logits, T* e, int64_t n, T true_logit, T cap,
                           Sums<T>* sums) {
  switch (mode) {
    case LcMode::kHard: return exp_block_for<LcMode::kHard>(logits, e, n, true_logit, cap, sums);
    case LcMode::kSoft: return exp_block_for<LcMode::kSoft>(logits, e, n, true_logit, cap, sums);
    case LcMode::kAll: return exp_block_for<LcMode::kAll>(logits, e, n, true_logit, cap, sums);
  }
}

// Forward has several short rows in hand at a time: no more than kGroup, with no more elements.
constexpr int64_t kGroup = 8;
constexpr int64_t kGroupElements = 1024;

PCLC_INLINE int64_t rows_at_once(int64_t classes) {
  return std::clamp<int64_t>(kGroupElements / std::max<int64_t>(classes, 1), 1, kGroup);
}

// The memory of a row in hand.
template <typename T>
struct RowBuffer {
  T* e;     // a row, padded
  T* tops;  // for each block, the logit that its e_k are relative to

  static PCLC_INLINE RowBuffer at(T* memory, int64_t classes) {
    return {memory, memory + padded(classes)};
  }
  static PCLC_INLINE int64_t size(int64_t classes) {
    return padded(classes) + padded((classes + kBlock - 1) / kBlock);
  }
  static PCLC_INLINE int64_t padded(int64_t count) { return (count + kLanes - 1) & -kLanes; }
};

// The elements that a thread needs for the rows that it has in hand.
template <typename T>
PCLC_INLINE int64_t group_size(int64_t classes) {
  return RowBuffer<T>::size(classes) * rows_at_once(classes);
}

// The one pass over a row, whose first block is loaded already. A NaN travels through the sum.
template <class S, typename T>
PCLC_INLINE RowStats<T> reduce_row(const Problem& p, const typename S::Stored* row, int64_t y,
                                   T true_logit, FalseBlock<T> falses, const Terms<T>& terms,
                                   const RowBuffer<T>& buffer) {
  const int64_t classes = p.classes;
  Sums<T> sums;
  int64_t runner_up = y == 0;  // where no false logit is finite
  for (int64_t begin = 0; begin < classes; begin += kBlock) {
    const Block block = block_at(begin, classes);
    T* e = buffer.e + begin;
    if (begin > 0) falses = false_block<S>(row, block, y, e);
    if (falses.top > sums.top) {
      raise_top(terms.lc_mode, falses.top, &sums);
      runner_up = begin + first_equal(falses.logits, block.padded, falses.top);
    }
    buffer.tops[begin / kBlock] = sums.top;
    prefetch_next(row, begin, classes, rows_at_once(classes) * static_cast<uint64_t>(p.row_stride));
    exp_block(terms.lc_mode, falses.logits, e, block.padded, true_logit, terms.lc_cap, &sums);
  }
  return {sums.top,
          static_cast<T>(sums.exp_sum),
          static_cast<T>(sums.lc_sum),
          static_cast<T>(sums.lc_count),
          0,
          0,
          runner_up};
}

// From e_k relative to the logit of its block to e_k relative to the largest one.
template <typename T>
PCLC_INLINE T block_factor(T block_top, T top) {
  return block_top == top ? T(1) : exp_nonpositive(block_top - top);
}

template <typename T>
PCLC_INLINE void count_active(const RowBuffer<T>& buffer, int64_t classes, const RowProbs<T>& probs,
                              RowStats<T>* stats) {
  double active = 0, active_sum = 0;
  for (int64_t begin = 0; begin < classes; begin += kBlock) {
    const Block block = block_at(begin, classes);
    const T* e = buffer.e + begin;
    const T prob = probs.top_prob * block_factor(buffer.tops[begin / kBlock], stats->top);
    LaneSum<T> block_active, block_sum;
    for (int64_t lanes = 0; lanes < block.padded; lanes += kLanes) {
#pragma omp simd
      for (int64_t i = 0; i < kLanes; ++i) {
        const T f = e[lanes + i] * prob;
        const T is_active = static_cast<T>(f > probs.excess);
        block_active.lane[i] += is_active;
        block_sum.lane[i] += is_active * f;
      }
    }
    active += static_cast<double>(block_active.total());
    active_sum += static_cast<double>(block_sum.total());
  }
  stats->active = static_cast<T>(active);
  stats->active_sum = static_cast<T>(active_sum);
}

// The coefficients of the gradient of a row's false classes.
template <typename T>
struct ElementGrad {
  T prob, threshold, inactive, active, soft_scale, soft_mean, all_step, true_logit, cap;

  // The gradient at a false class from its logit and its e_k.
  template <LcMode kMode>
  PCLC_INLINE T at(T a, T e) const {
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

// For e_k relative to a logit `factor` away from a_j.
template <typename T>
PCLC_INLINE ElementGrad<T> element_grad(const RowProbs<T>& p, const RowGrad<T>& g, T factor,
                                        T true_logit, T cap) {
  return {p.top_prob * factor,
          hinge_threshold(p),
          g.inactive * factor,
          g.active * factor,
          g.soft_scale * factor,
          g.soft_mean,
          g.all_step,
          true_logit,
          cap};
}

// The gradient of n false classes. `row` is where their logits are.
template <class S, LcMode kMode, typename T>
PCLC_INLINE void write_block_for(const typename S::Stored* __restrict row, const T* __restrict e,
                                 int64_t n, const ElementGrad<T>& element,
                                 typename S::Stored* __restrict grad) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    grad[i] = S::store(element.template at<kMode>(S::load(row[i]), e[i]));
  }
}

template <class S, typename T>
PCLC_INLINE void write_block(LcMode mode, const typename S::Stored* __restrict row,
                             const T* __restrict e, int64_t n, const ElementGrad<T>& element,
                             bool zero, typename S::Stored* __restrict grad) {
  if (zero) {
    std::memset(grad, 0, static_cast<size_t>(n) * sizeof(*grad));
    return;
  }
  if (mode == LcMode::kHard && element.active == element.inactive) {
    const T coefficient = element.inactive;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) grad[i] = S::store(e[i] * coefficient);
    return;
  }
  switch (mode) {
    case LcMode::kHard: return write_block_for<S, LcMode::kHard>(row, e, n, element, grad);
    case LcMode::kSoft: return write_block_for<S, LcMode::kSoft>(row, e, n, element, grad);
    case LcMode::kAll: return write_block_for<S, LcMode::kAll>(row, e, n, element, grad);
  }
}

// The entries that are no e_k times a coefficient: the true class, and j, whose e_j is 1, for the
// hard constraint.
template <class S, typename T>
PCLC_INLINE void write_exceptions(LcMode mode, int64_t y, int64_t runner_up,
                                  const RowProbs<T>& probs, const RowGrad<T>& g,
                                  typename S::Stored* grad) {
  grad[y] = S::store(g.true_grad);
  if (mode == LcMode::kHard) grad[runner_up] = S::store(top_grad(probs, g));
}

}  // namespace pclc
