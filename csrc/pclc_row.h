// The mathematics of one row, shared by every kernel.
//
// A kernel makes one pass over the false classes and keeps RowStats: the largest false logit and
// sums of exponentials relative to it. The true logit enters as a scalar at the end. All that
// follows, the loss and the coefficients of the gradient, is arithmetic on scalars and stands here.

#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "pclc.h"

#if defined(__CUDACC__)
#define PCLC_ROW __host__ __device__ inline
#elif defined(__GNUC__)
#define PCLC_ROW inline __attribute__((always_inline))  // compiled for each clone of a CPU kernel
#else
#define PCLC_ROW inline
#endif

namespace pclc {

template <typename T>
constexpr T kNegativeInfinity = -std::numeric_limits<T>::infinity();

// What exponentials are relative to: the largest logit, or 0 where that is -inf.
template <typename T>
PCLC_ROW T shift_of(T top) {
  return top == kNegativeInfinity<T> ? T(0) : top;
}

// The coefficients as the row arithmetic uses them.
template <typename T>
struct Terms {
  T one_minus_margin;  // 1 - xi, rounded once, so that f_y - xi = (1 - xi) - (1 - f_y) keeps its
                       // digits
  T pc_weight;         // divided by K - 1 where pc_mean
  T lc_weight;
  T lc_cap;
  T ce_weight;
  T false_classes;  // K - 1
  LcMode lc_mode;   // the cheapest where lc_weight is 0
};

template <typename T>
PCLC_ROW Terms<T> make_terms(const Coefficients& c, LcMode lc_mode, bool pc_mean, int64_t classes) {
  const double false_classes = static_cast<double>(classes > 1 ? classes - 1 : 1);
  return {static_cast<T>(1.0 - c.margin),
          static_cast<T>(pc_mean ? c.pc_weight / false_classes : c.pc_weight),
          static_cast<T>(c.lc_weight),
          static_cast<T>(c.lc_cap),
          static_cast<T>(c.ce_weight),
          static_cast<T>(classes - 1),
          c.lc_weight == 0 ? LcMode::kHard : lc_mode};
}

// What one pass over the false classes leaves, with e_k = exp(a_k - a_j), and g_k = a_y - a_k. A
// false logit of -inf has e_k = 0 and no part in the logit constraint.
template <typename T>
struct RowStats {
  T top;         // a_j, -inf where no false logit is finite
  T exp_sum;     // sum of e_k: at least 1, or 0 where no false logit is finite, NaN in a bad row
  T lc_sum;      // soft: sum of e_k max(0, g_k);  all: sum of max(0, g_k - cap)
  T lc_count;    // soft: sum of e_k [g_k > 0];    all: number of g_k > cap
  T active;      // number of active hinges, where they are mixed
  T active_sum;  // sum of f_k over those
  int64_t runner_up;  // j
};

// Eq. 6 has three cases, one for a row: every hinge active, none, or some of them.
enum class PcCase { kAll, kNone, kMixed };

// The scalars that loss and gradient share.
template <typename T>
struct RowProbs {
  T true_prob;   // f_y
  T false_mass;  // 1 - f_y, never a subtraction
  T top_prob;    // f_j: also the factor from e_k to f_k
  T excess;      // f_y - xi
  T logit_gap;   // a_y - a_j
  T odds;        // exp(-|logit_gap|)
  PcCase pc_case;
  bool defined;  // false: NaN or +inf in the row, or all of it -inf
};

// What the f_k of an active hinge exceeds, where they are mixed; elsewhere more than any f_k.
template <typename T>
PCLC_ROW T hinge_threshold(const RowProbs<T>& p) {
  return p.pc_case == PcCase::kMixed ? p.excess : T(2);
}

template <typename T>
PCLC_ROW RowProbs<T> row_probs(T true_logit, T top, T exp_sum, T odds, const Terms<T>& terms) {
  RowProbs<T> p;
  p.logit_gap = true_logit - top;
  p.odds = odds;
  // Relative to the larger of a_y and a_j. No branch: which one it is cannot be predicted.
  const T true_exp = p.logit_gap > 0 ? T(1) : odds;
  const T top_exp = p.logit_gap > 0 ? odds : T(1);
  const T false_exp = top_exp * exp_sum;
  const T inverse = 1 / (true_exp + false_exp);
  p.true_prob = true_exp * inverse;
  p.top_prob = top_exp * inverse;
  p.false_mass = false_exp * inverse;
  p.excess = terms.one_minus_margin - p.false_mass;
  p.pc_case = p.excess < 0 ? PcCase::kAll : p.top_prob <= p.excess ? PcCase::kNone : PcCase::kMixed;
  p.defined = exp_sum == exp_sum && true_logit == true_logit &&
              true_logit < std::numeric_limits<T>::infinity() &&
              !(true_logit == kNegativeInfinity<T> && top == kNegativeInfinity<T>);
  return p;
}

// Cross-entropy of one row (Eq. 2).
template <typename T>
PCLC_ROW T cross_entropy(const RowProbs<T>& p, T exp_sum) {
  return p.logit_gap > 0 ? std::log1p(p.odds * exp_sum) : std::log(exp_sum + p.odds) - p.logit_gap;
}

// PC and LC of one row (Eqs. 6 and 16, before its class weight). A term whose coefficient is 0 is
// skipped: 0 * inf is no number.
template <typename T>
PCLC_ROW T pc_and_lc(const RowProbs<T>& p, const RowStats<T>& s, const Terms<T>& terms) {
  if (!p.defined) return std::numeric_limits<T>::quiet_NaN();
  if (terms.false_classes == 0) return 0;
  T loss = 0;
  if (p.pc_case == PcCase::kAll) {
    loss += terms.pc_weight * (p.false_mass - terms.false_classes * p.excess);
  } else if (p.pc_case == PcCase::kMixed) {
    loss += terms.pc_weight * (s.active_sum - s.active * p.excess);
  }
  if (terms.lc_weight == 0 || s.top == kNegativeInfinity<T>) return loss;
  if (terms.lc_mode == LcMode::kHard) {
    const T excess_gap = p.logit_gap - terms.lc_cap;
    loss += terms.lc_weight * (excess_gap > 0 ? excess_gap : T(0));
  } else {
    const T divisor = terms.lc_mode == LcMode::kSoft ? s.exp_sum : terms.false_classes;
    loss += terms.lc_weight * (s.lc_sum / divisor);
  }
  return loss;
}

// The loss of one row, before its class weight.
template <typename T>
PCLC_ROW T row_loss(const RowProbs<T>& p, const RowStats<T>& s, const Terms<T>& terms) {
  const T loss = pc_and_lc(p, s, terms);
  return terms.ce_weight == 0 ? loss : loss + terms.ce_weight * cross_entropy(p, s.exp_sum);
}

// The gradient of one row as numbers to multiply e_k with:
//   false k: e_k * (hinge of k active ? active : inactive) + the logit constraint
//   true y:  true_grad
template <typename T>
struct RowGrad {
  T inactive;
  T active;  // differs from `inactive` in the mixed case only
  T true_grad;
  T top_extra;    // hard: added at j
  T soft_scale;   // soft: e_k * soft_scale * (g_k - soft_mean - [g_k > 0])
  T soft_mean;    // soft: D
  T all_step;     // all: added where g_k > cap
  bool zero;      // all false entries but j's are 0: nothing is active and nothing pulls
  bool constant;  // nothing depends on the logits: the whole row is 0, or NaN
};

// `scale` is grad_output * class weight / denominator.
template <typename T>
PCLC_ROW RowGrad<T> row_grad(T true_logit, const RowProbs<T>& p, const RowStats<T>& s,
                             const Terms<T>& terms, T scale) {
  RowGrad<T> g{};
  if (!p.defined) {
    g.true_grad = std::numeric_limits<T>::quiet_NaN();
    g.constant = true;
    return g;
  }
  // A true logit of -inf cannot move: CE is +inf and f_y is 0 whatever the others do.
  g.constant = terms.false_classes == 0 || true_logit == kNegativeInfinity<T>;
  if (g.constant) return g;

  T per_prob = terms.ce_weight;  // factor of f_k at an inactive false class
  T at_true = -terms.ce_weight * p.false_mass;
  T hinge = 0;
  if (p.pc_case == PcCase::kAll) {
    const T classes_prob = (terms.false_classes + 1) * p.true_prob;
    per_prob += terms.pc_weight * classes_prob;
    at_true -= terms.pc_weight * classes_prob * p.false_mass;
  } else if (p.pc_case == PcCase::kMixed) {
    per_prob += terms.pc_weight * (s.active * p.true_prob - s.active_sum);
    at_true -= terms.pc_weight * p.true_prob * (s.active * p.false_mass + s.active_sum);
    hinge = terms.pc_weight;
  }
  g.inactive = scale * per_prob * p.top_prob;
  g.active = scale * (per_prob + hinge) * p.top_prob;

  if (terms.lc_weight != 0 && s.top != kNegativeInfinity<T>) {
    if (terms.lc_mode == LcMode::kHard) {
      const T pull = p.logit_gap > terms.lc_cap ? terms.lc_weight : T(0);
      at_true += pull;
      g.top_extra = -scale * pull;
    } else if (terms.lc_mode == LcMode::kSoft) {
      at_true += terms.lc_weight * (s.lc_count / s.exp_sum);
      g.soft_scale = scale * terms.lc_weight / s.exp_sum;
      g.soft_mean = s.lc_sum / s.exp_sum;
    } else if (terms.lc_mode == LcMode::kAll) {
      at_true += terms.lc_weight * (s.lc_count / terms.false_classes);
      g.all_step = -scale * terms.lc_weight / terms.false_classes;
    }
  }
  g.true_grad = scale * at_true;
  g.zero = g.inactive == 0 && g.active == 0 && terms.lc_mode == LcMode::kHard;
  return g;
}

// The gradient at j, whose e_j is 1, for the hard constraint.
template <typename T>
PCLC_ROW T top_grad(const RowProbs<T>& p, const RowGrad<T>& g) {
  return (p.top_prob > hinge_threshold(p) ? g.active : g.inactive) + g.top_extra;
}

}  // namespace pclc
