// The row arithmetic of pclc_row.h for kLanes rows at once, a row a vector lane.
//
// Every step is one loop over lanes that compilers vectorise. They do not where a branch reads
// through a reference to what all lanes share, so the coefficients come by value.

#pragma once

#include "pclc_cpu_passes.h"

namespace pclc {

// An integer as wide as T, so that one mask serves both.
template <typename T>
using LaneInt = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;

// The numbers of kLanes rows: arrays of what the structs of pclc_row.h hold of one.
template <typename T>
struct alignas(64) RowLanes {
  T true_logit[kLanes];

  // RowStats
  T top[kLanes], exp_sum[kLanes], lc_sum[kLanes], lc_count[kLanes];
  T active[kLanes], active_sum[kLanes];
  LaneInt<T> runner_up[kLanes];

  // RowProbs, and hinge_threshold
  T true_prob[kLanes], false_mass[kLanes], top_prob[kLanes], excess[kLanes];
  T logit_gap[kLanes], odds[kLanes], threshold[kLanes];
  LaneInt<T> pc_case[kLanes], defined[kLanes];

  T loss[kLanes];   // before the class weight
  T scale[kLanes];  // grad_output * class weight / denominator

  // RowGrad, and top_grad
  T inactive_grad[kLanes], active_grad[kLanes];
  T soft_scale[kLanes], soft_mean[kLanes], all_step[kLanes];
  T true_grad[kLanes], top_grad[kLanes];

  PCLC_INLINE RowStats<T> stats(int64_t lane) const {
    return {top[lane],    exp_sum[lane],    lc_sum[lane],   lc_count[lane],
            active[lane], active_sum[lane], runner_up[lane]};
  }

  PCLC_INLINE void set_stats(int64_t lane, const RowStats<T>& s) {
    top[lane] = s.top;
    exp_sum[lane] = s.exp_sum;
    lc_sum[lane] = s.lc_sum;
    lc_count[lane] = s.lc_count;
    active[lane] = s.active;
    active_sum[lane] = s.active_sum;
    runner_up[lane] = static_cast<LaneInt<T>>(s.runner_up);
  }

  PCLC_INLINE RowProbs<T> probs(int64_t lane) const {
    return {true_prob[lane],
            false_mass[lane],
            top_prob[lane],
            excess[lane],
            logit_gap[lane],
            odds[lane],
            static_cast<PcCase>(pc_case[lane]),
            defined[lane] != 0};
  }

  // Returns whether the hinges of any row are mixed.
  PCLC_INLINE bool find_probs(Terms<T> terms) {
    LaneInt<T> any_mixed = 0;
#pragma omp simd reduction(| : any_mixed)
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      odds[lane] = exp_nonpositive(-std::abs(true_logit[lane] - top[lane]));
      const RowProbs<T> p =
          row_probs(true_logit[lane], top[lane], exp_sum[lane], odds[lane], terms);
      true_prob[lane] = p.true_prob;
      false_mass[lane] = p.false_mass;
      top_prob[lane] = p.top_prob;
      excess[lane] = p.excess;
      logit_gap[lane] = p.logit_gap;
      pc_case[lane] = static_cast<LaneInt<T>>(p.pc_case);
      defined[lane] = p.defined;
      threshold[lane] = hinge_threshold(p);
      any_mixed |= p.pc_case == PcCase::kMixed;
    }
    return any_mixed != 0;
  }

  PCLC_INLINE void set_none_active() {
    std::fill_n(active, kLanes, T(0));
    std::fill_n(active_sum, kLanes, T(0));
  }

  PCLC_INLINE void find_loss(Terms<T> terms) {
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      loss[lane] = pc_and_lc(probs(lane), stats(lane), terms);
    }
    if (terms.ce_weight == 0) return;  // logarithms are calls, which no loop over vectors has
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      loss[lane] += terms.ce_weight * cross_entropy(probs(lane), exp_sum[lane]);
    }
  }

  PCLC_INLINE void find_grad(Terms<T> terms) {
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const RowProbs<T> p = probs(lane);
      const RowGrad<T> g = row_grad(true_logit[lane], p, stats(lane), terms, scale[lane]);
      inactive_grad[lane] = g.inactive;
      active_grad[lane] = g.active;
      soft_scale[lane] = g.soft_scale;
      soft_mean[lane] = g.soft_mean;
      all_step[lane] = g.all_step;
      true_grad[lane] = g.true_grad;
      top_grad[lane] = pclc::top_grad(p, g);
    }
  }

  PCLC_INLINE ElementGrad<T> element_grad(int64_t lane, T cap) const {
    return {top_prob[lane],    threshold[lane],  inactive_grad[lane],
            active_grad[lane], soft_scale[lane], soft_mean[lane],
            all_step[lane],    true_logit[lane], cap};
  }
};

}  // namespace pclc
