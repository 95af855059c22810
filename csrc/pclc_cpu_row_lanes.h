// The row arithmetic of pclc_row.h for kLanes rows at once, a row a vector lane.
//
// Every step is one loop over lanes that compilers vectorise. They do not where a branch reads
// memory that is the same for all lanes, so each begins with the coefficients in a local copy.

#pragma once

#include "pclc_cpu_passes.h"

namespace pclc {

// An index as wide as T, so that one mask serves both.
template <typename T>
using LaneIndex = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;

// The numbers of kLanes rows: arrays of what the structs of pclc_row.h hold of one.
template <typename T>
struct RowLanes {
  alignas(64) T true_logit[kLanes];

  // RowStats
  T top[kLanes], exp_sum[kLanes], lc_sum[kLanes], lc_count[kLanes];
  T active[kLanes], active_sum[kLanes];
  LaneIndex<T> runner_up[kLanes];

  // RowProbs
  T true_prob[kLanes], false_mass[kLanes], top_prob[kLanes], excess[kLanes];
  T logit_gap[kLanes], odds[kLanes];
  LaneIndex<T> pc_case[kLanes], defined[kLanes];

  T loss[kLanes];   // before the class weight
  T scale[kLanes];  // grad_output * class weight / denominator

  // RowGrad as ElementGrad takes it, and what stands at the true class and at j
  T threshold[kLanes], inactive_grad[kLanes], active_grad[kLanes];
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
    runner_up[lane] = static_cast<LaneIndex<T>>(s.runner_up);
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
  PCLC_INLINE bool find_probs(const Terms<T>& shared_terms) {
    const Terms<T> terms = shared_terms;
    LaneIndex<T> any_mixed = 0;
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
      pc_case[lane] = static_cast<LaneIndex<T>>(p.pc_case);
      defined[lane] = p.defined;
      threshold[lane] = hinge_threshold(p);
      any_mixed |= p.pc_case == PcCase::kMixed;
    }
    return any_mixed != 0;
  }

  PCLC_INLINE void find_loss(const Terms<T>& shared_terms) {
    const Terms<T> terms = shared_terms;
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      loss[lane] = pc_lc_loss(probs(lane), stats(lane), terms);
    }
    if (terms.ce_weight == 0) return;  // logarithms are calls, which no loop over vectors has
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      loss[lane] += terms.ce_weight * cross_entropy(probs(lane), exp_sum[lane]);
    }
  }

  PCLC_INLINE void find_grad(const Terms<T>& shared_terms) {
    const Terms<T> terms = shared_terms;
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const RowGrad<T> g = row_grad(true_logit[lane], probs(lane), stats(lane), terms, scale[lane]);
      inactive_grad[lane] = g.inactive;
      active_grad[lane] = g.active;
      soft_scale[lane] = g.soft_scale;
      soft_mean[lane] = g.soft_mean;
      all_step[lane] = g.all_step;
      true_grad[lane] = g.true_grad;
      top_grad[lane] = (top_prob[lane] > threshold[lane] ? g.active : g.inactive) + g.top_extra;
    }
  }

  PCLC_INLINE ElementGrad<T> element_grad(int64_t lane, T cap) const {
    return {top_prob[lane],    threshold[lane],  inactive_grad[lane],
            active_grad[lane], soft_scale[lane], soft_mean[lane],
            all_step[lane],    true_logit[lane], cap};
  }
};

}  // namespace pclc
