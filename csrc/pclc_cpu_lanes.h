// Rows of few classes on a CPU: kLanes rows at once, a row a vector lane.
//
// However short a row is, the passes of pclc_cpu_passes.h take 70 ns for it. Here a group of
// rows is transposed into [class][lane], and every step is a loop over lanes with nothing to reduce
// across them.

#pragma once

#include "pclc_cpu_row.h"
#include "pclc_cpu_row_lanes.h"
#include "pclc_cpu_transpose.h"

namespace pclc {

// As many as were found to be worth it: a group's arrays have to stay in the first cache.
template <typename T>
constexpr int64_t kFewClasses = 256 / sizeof(T);

// Rows of no class have no memory to read.
template <typename T>
PCLC_INLINE bool are_few(int64_t classes) {
  return 0 < classes && classes <= kFewClasses<T>;
}

// A group of rows. An ignored row, and a lane without a row, is a row of zeros.
template <class S, typename T = typename S::Compute>
struct LaneGroup {
  using Stored = typename S::Stored;

  const Problem& p;
  int64_t begin, count;  // rows
  bool used[kLanes];     // whether the row exists and is not ignored
  int64_t y[kLanes];     // 0 where it is not
  RowLanes<T> rows;
  alignas(64) T a[kFewClasses<T>][kLanes];  // logits, -inf at y
  alignas(64) T e[kFewClasses<T>][kLanes];  // exp(a_k - a_j)

  PCLC_INLINE LaneGroup(const Problem& p, int64_t begin, int64_t end)
      : p(p), begin(begin), count(std::min(kLanes, end - begin)) {
    bool all_used = true;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      used[lane] = lane < count && p.target[begin + lane] != p.ignore_index;
      y[lane] = used[lane] ? p.target[begin + lane] : 0;
      all_used &= used[lane];
    }
    const Stored* logits = static_cast<const Stored*>(p.logits) + begin * p.row_stride;
    const uint64_t next_group = kLanes * static_cast<uint64_t>(p.row_stride);
    for (int64_t lane = 0; lane < count; ++lane) {
      prefetch_next(logits + lane * p.row_stride, 0, p.classes, next_group);
    }
    int64_t stride = p.row_stride;
    Stored rows_used[kLanes][kFewClasses<T>];  // where some are not, which are not read
    if (!all_used) {
      std::memset(rows_used, 0, sizeof rows_used);
      for (int64_t lane = 0; lane < count; ++lane) {
        if (used[lane]) std::copy_n(logits + lane * stride, p.classes, rows_used[lane]);
      }
      logits = rows_used[0];
      stride = kFewClasses<T>;
    }
    load(logits, stride);
  }

  PCLC_INLINE void load(const Stored* logits, int64_t stride) {
    if constexpr (std::is_same_v<Stored, T>) {
      transpose(logits, stride, kLanes, p.classes, a[0], kLanes);
    } else {
      alignas(64) Stored stored[kFewClasses<T>][kLanes];
      transpose(logits, stride, kLanes, p.classes, stored[0], kLanes);
      for (int64_t k = 0; k < p.classes; ++k) {
#pragma omp simd
        for (int64_t lane = 0; lane < kLanes; ++lane) a[k][lane] = S::load(stored[k][lane]);
      }
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      rows.true_logit[lane] = S::load(logits[lane * stride + y[lane]]);
      a[y[lane]][lane] = kNegativeInfinity<T>;
    }
  }

  PCLC_INLINE T class_weight(int64_t lane) const {
    return used[lane] ? pclc::class_weight<T>(p, y[lane]) : T(0);
  }

  // As reduce_row: a NaN is passed over by the maximum and travels through the sum. This and what
  // follows has its sums in arrays of its own, which compilers keep in registers.
  PCLC_INLINE void reduce(const Terms<T>& terms) {
    find_top();
    exponentiate();
    switch (terms.lc_mode) {
      case LcMode::kHard: return add_up<LcMode::kHard>(terms.lc_cap);
      case LcMode::kSoft: return add_up<LcMode::kSoft>(terms.lc_cap);
      case LcMode::kAll: return add_up<LcMode::kAll>(terms.lc_cap);
    }
  }

  PCLC_INLINE void find_top() {
    T top[kLanes];
    LaneInt<T> runner_up[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      top[lane] = kNegativeInfinity<T>;
      runner_up[lane] = y[lane] == 0 && p.classes > 1;  // a class, whatever the logits are
    }
    for (int64_t k = 0; k < p.classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const bool above = a[k][lane] > top[lane];
        runner_up[lane] = above ? static_cast<LaneInt<T>>(k) : runner_up[lane];
        top[lane] = larger(top[lane], a[k][lane]);
      }
    }
    std::copy_n(top, kLanes, rows.top);
    std::copy_n(runner_up, kLanes, rows.runner_up);
  }

  PCLC_INLINE void exponentiate() {
    T shift[kLanes];
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) shift[lane] = shift_of(rows.top[lane]);
    for (int64_t k = 0; k < p.classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        e[k][lane] = exp_nonpositive(a[k][lane] - shift[lane]);
      }
    }
  }

  // The sums of RowStats.
  template <LcMode kMode>
  PCLC_INLINE void add_up(T cap) {
    T exp_sum[kLanes] = {}, lc_sum[kLanes] = {}, lc_count[kLanes] = {};
    for (int64_t k = 0; k < p.classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        exp_sum[lane] += e[k][lane];
        if constexpr (kMode != LcMode::kHard) {
          const LcTerms<T> lc = lc_terms<kMode>(a[k][lane], e[k][lane], rows.true_logit[lane], cap);
          lc_sum[lane] += lc.sum;
          lc_count[lane] += lc.count;
        }
      }
    }
    std::copy_n(exp_sum, kLanes, rows.exp_sum);
    std::copy_n(lc_sum, kLanes, rows.lc_sum);
    std::copy_n(lc_count, kLanes, rows.lc_count);
  }

  PCLC_INLINE void count_active() {
    T active[kLanes] = {}, active_sum[kLanes] = {};
    for (int64_t k = 0; k < p.classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const T f = e[k][lane] * rows.top_prob[lane];
        const T is_active = static_cast<T>(f > rows.threshold[lane]);  // no branch: unpredictable
        active[lane] += is_active;
        active_sum[lane] += is_active * f;
      }
    }
    std::copy_n(active, kLanes, rows.active);
    std::copy_n(active_sum, kLanes, rows.active_sum);
  }

  PCLC_INLINE void write(const Terms<T>& terms, void* memory) const {
    alignas(64) Stored grad[kFewClasses<T>][kLanes];
    switch (terms.lc_mode) {
      case LcMode::kHard: write_false<LcMode::kHard>(terms.lc_cap, grad); break;
      case LcMode::kSoft: write_false<LcMode::kSoft>(terms.lc_cap, grad); break;
      case LcMode::kAll: write_false<LcMode::kAll>(terms.lc_cap, grad); break;
    }
    transpose(grad[0], kLanes, p.classes, count, grad_row<S>(p, memory, begin), p.classes);
    for (int64_t lane = 0; lane < count; ++lane) {
      Stored* row = grad_row<S>(p, memory, begin + lane);
      prefetch_next(row, 0, p.classes, kLanes * static_cast<uint64_t>(p.classes));
      if (!used[lane] || !rows.defined[lane]) {  // filled, so that all entries are the same NaN
        std::fill_n(row, p.classes, used[lane] ? S::store(rows.true_grad[lane]) : Stored(0));
        continue;
      }
      row[y[lane]] = S::store(rows.true_grad[lane]);
      if (terms.lc_mode == LcMode::kHard) {
        row[rows.runner_up[lane]] = S::store(rows.top_grad[lane]);
      }
    }
  }

  template <LcMode kMode>
  PCLC_INLINE void write_false(T cap, Stored (*grad)[kLanes]) const {
    for (int64_t k = 0; k < p.classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const ElementGrad<T> element = rows.element_grad(lane, cap);
        grad[k][lane] = S::store(element.template at<kMode>(a[k][lane], e[k][lane]));
      }
    }
  }
};

// Forward for rows begin to begin + kLanes, or to end.
template <class S, typename T = typename S::Compute>
PCLC_INLINE void forward_lanes(const Problem& p, const Outputs& out, const Terms<T>& terms,
                               int64_t begin, int64_t end, T grad_loss, T* row_loss) {
  LaneGroup<S> group(p, begin, end);
  RowLanes<T>& rows = group.rows;
  group.reduce(terms);
  const bool any_mixed = rows.find_probs(terms);
  rows.set_none_active();
  if (any_mixed) group.count_active();
  rows.find_loss(terms);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const T weight = group.class_weight(lane);
    rows.scale[lane] = grad_loss * weight;
    if (lane >= group.count) continue;
    const int64_t i = begin + lane;
    const bool used = group.used[lane];
    row_loss[i] = used ? rows.loss[lane] * weight : T(0);
    save_row(p, out, i, used ? rows.probs(lane) : RowProbs<T>{},
             used ? rows.stats(lane) : RowStats<T>{});
  }
  if (!out.grad) return;
  rows.find_grad(terms);
  group.write(terms, out.grad);
}

// Backward for the same rows.
template <class S, typename T = typename S::Compute>
PCLC_INLINE void backward_lanes(const Problem& p, const RowStats<T>* stats,
                                const GradOutput& grad_output, const Terms<T>& terms, int64_t begin,
                                int64_t end, T inverse_denominator, void* grad) {
  LaneGroup<S> group(p, begin, end);
  RowLanes<T>& rows = group.rows;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const int64_t i = begin + std::min(lane, group.count - 1);  // any, for a lane without a row
    rows.set_stats(lane, stats[i]);
    const T grad_loss = static_cast<const T*>(grad_output.data)[i * grad_output.stride];
    rows.scale[lane] = grad_loss * inverse_denominator * group.class_weight(lane);
  }
  group.exponentiate();
  rows.find_probs(terms);
  rows.find_grad(terms);
  group.write(terms, grad);
}

}  // namespace pclc
