// Rows of few classes on a CPU: kLanes rows at once, a row a vector lane.
//
// However short a row is, the passes of pclc_cpu_passes.h take some 70 ns for it. Here a group of
// rows is transposed into [class][lane], and every step is a loop over lanes with nothing to reduce
// across them.

#pragma once

#include "pclc_cpu_row.h"

namespace pclc {

constexpr int64_t kFewClasses = 32;  // beyond, transposing costs more than it saves

// A group of rows. An ignored row, and a lane without a row, is a row of zeros.
template <class S, typename T = typename S::Compute>
struct LaneGroup {
  using Stored = typename S::Stored;

  const Stored* row[kLanes];  // null where there is nothing to read
  int64_t y[kLanes];
  T true_logit[kLanes];
  T a[kFewClasses][kLanes];  // logits, -inf at y
  T e[kFewClasses][kLanes];  // exp(a_k - a_j)
  T odds[kLanes];            // exp(-|a_y - a_j|)

  PCLC_INLINE void load(const Problem& p, int64_t begin, int64_t end) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t i = begin + lane;
      const bool exists = i < end && p.target[i] != p.ignore_index;
      row[lane] = exists ? static_cast<const Stored*>(p.logits) + i * p.row_stride : nullptr;
      y[lane] = exists ? p.target[i] : 0;
      for (int64_t k = 0; k < p.classes; ++k) a[k][lane] = exists ? S::load(row[lane][k]) : T(0);
      true_logit[lane] = a[y[lane]][lane];
      a[y[lane]][lane] = kNegativeInfinity<T>;
    }
  }

  PCLC_INLINE void exponentiate(int64_t classes, const T* top) {
    T shift[kLanes];
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      shift[lane] = shift_of(top[lane]);
      odds[lane] = exp_nonpositive(-std::abs(true_logit[lane] - top[lane]));
    }
    for (int64_t k = 0; k < classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        e[k][lane] = exp_nonpositive(a[k][lane] - shift[lane]);
      }
    }
  }

  // The sums of RowStats.
  template <LcMode kMode>
  PCLC_INLINE void add_up(int64_t classes, T cap, T* exp_sum, T* lc_sum, T* lc_count) const {
    for (int64_t k = 0; k < classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        exp_sum[lane] += e[k][lane];
        if constexpr (kMode != LcMode::kHard) {
          const LcTerms<T> lc = lc_terms<kMode>(a[k][lane], e[k][lane], true_logit[lane], cap);
          lc_sum[lane] += lc.sum;
          lc_count[lane] += lc.count;
        }
      }
    }
  }

  // As reduce_row: a NaN is passed over by the maximum and travels through the sum.
  PCLC_INLINE void reduce(int64_t classes, const Terms<T>& terms, RowStats<T>* stats) {
    // As wide as T, so that one mask serves both.
    using Index = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;
    T top[kLanes], exp_sum[kLanes] = {}, lc_sum[kLanes] = {}, lc_count[kLanes] = {};
    Index runner_up[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      top[lane] = kNegativeInfinity<T>;
      runner_up[lane] = y[lane] == 0;
    }
    for (int64_t k = 0; k < classes; ++k) {
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const bool above = a[k][lane] > top[lane];
        runner_up[lane] = above ? static_cast<Index>(k) : runner_up[lane];
        top[lane] = larger(top[lane], a[k][lane]);
      }
    }
    exponentiate(classes, top);
    switch (terms.lc_mode) {
      case LcMode::kHard:
        add_up<LcMode::kHard>(classes, terms.lc_cap, exp_sum, lc_sum, lc_count);
        break;
      case LcMode::kSoft:
        add_up<LcMode::kSoft>(classes, terms.lc_cap, exp_sum, lc_sum, lc_count);
        break;
      case LcMode::kAll:
        add_up<LcMode::kAll>(classes, terms.lc_cap, exp_sum, lc_sum, lc_count);
        break;
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      stats[lane] = {top[lane], exp_sum[lane], lc_sum[lane], lc_count[lane], 0, 0, runner_up[lane]};
    }
  }

  PCLC_INLINE void count_active(int64_t classes, int64_t lane, const RowProbs<T>& probs,
                                RowStats<T>* stats) const {
    for (int64_t k = 0; k < classes; ++k) {
      const T f = e[k][lane] * probs.top_prob;
      stats->active += f > probs.excess ? T(1) : T(0);
      stats->active_sum += f > probs.excess ? f : T(0);
    }
  }

  template <LcMode kMode>
  PCLC_INLINE void write_false(int64_t classes, int64_t lane, const ElementGrad<T>& element,
                               Stored* __restrict grad) const {
    for (int64_t k = 0; k < classes; ++k) {
      grad[k] = S::store(element.template at<kMode>(a[k][lane], e[k][lane]));
    }
  }

  PCLC_INLINE void write(int64_t classes, int64_t lane, const RowProbs<T>& probs,
                         const RowStats<T>& stats, const Terms<T>& terms, T scale,
                         Stored* __restrict grad) const {
    const RowGrad<T> g = row_grad(true_logit[lane], probs, stats, terms, scale);
    if (g.constant) {
      std::fill_n(grad, classes, S::store(g.true_grad));
      return;
    }
    const ElementGrad<T> element(probs, g, T(1), true_logit[lane], terms.lc_cap);
    switch (terms.lc_mode) {
      case LcMode::kHard: write_false<LcMode::kHard>(classes, lane, element, grad); break;
      case LcMode::kSoft: write_false<LcMode::kSoft>(classes, lane, element, grad); break;
      case LcMode::kAll: write_false<LcMode::kAll>(classes, lane, element, grad); break;
    }
    write_exceptions<S>(terms.lc_mode, y[lane], stats.runner_up, probs, g, grad);
  }
};

// Forward for rows begin to begin + kLanes, or to end.
template <class S, typename T = typename S::Compute>
PCLC_INLINE void forward_lanes(const Problem& p, const Outputs& out, const Terms<T>& terms,
                               int64_t begin, int64_t end, T grad_loss, T* row_loss) {
  LaneGroup<S> group;
  RowStats<T> stats[kLanes];
  group.load(p, begin, end);
  group.reduce(p.classes, terms, stats);
  for (int64_t i = begin; i < std::min(begin + kLanes, end); ++i) {
    const int64_t lane = i - begin;
    if (!group.row[lane]) {
      row_loss[i] = skip_row<S, T>(p, out, i);
      continue;
    }
    const RowProbs<T> probs = row_probs(group.true_logit[lane], stats[lane].top,
                                        stats[lane].exp_sum, group.odds[lane], terms);
    if (probs.pc_case == PcCase::kMixed) {
      group.count_active(p.classes, lane, probs, &stats[lane]);
    }
    const T weight = class_weight<T>(p, group.y[lane]);
    save_row(p, out, i, probs, stats[lane]);
    if (out.grad) {
      group.write(p.classes, lane, probs, stats[lane], terms, grad_loss * weight,
                  grad_row<S>(p, out.grad, i));
    }
    row_loss[i] = pclc::row_loss(probs, stats[lane], terms) * weight;
  }
}

// Backward for the same rows.
template <class S, typename T = typename S::Compute>
PCLC_INLINE void backward_lanes(const Problem& p, const RowStats<T>* stats,
                                const GradOutput& grad_output, const Terms<T>& terms, int64_t begin,
                                int64_t end, T inverse_denominator, void* grad) {
  LaneGroup<S> group;
  group.load(p, begin, end);
  const int64_t count = std::min(kLanes, end - begin);
  T top[kLanes] = {};
  for (int64_t lane = 0; lane < count; ++lane) top[lane] = stats[begin + lane].top;
  group.exponentiate(p.classes, top);
  for (int64_t lane = 0; lane < count; ++lane) {
    const int64_t i = begin + lane;
    if (!group.row[lane]) {
      std::fill_n(grad_row<S>(p, grad, i), p.classes, typename S::Stored(0));
      continue;
    }
    const T grad_loss = static_cast<const T*>(grad_output.data)[i * grad_output.stride];
    const T scale = grad_loss * inverse_denominator * class_weight<T>(p, group.y[lane]);
    const RowProbs<T> probs =
        row_probs(group.true_logit[lane], stats[i].top, stats[i].exp_sum, group.odds[lane], terms);
    group.write(p.classes, lane, probs, stats[i], terms, scale, grad_row<S>(p, grad, i));
  }
}

}  // namespace pclc
