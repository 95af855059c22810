// The loss of one row by its definition (Li et al., AAAI 2021, Eqs. 1, 2, 6 and 16), in long double
// and without any of the closed forms that the kernels use, with the error that arithmetic of unit
// roundoff `eps` may make of it.

#pragma once

#include <vector>

#include "check.h"
#include "pclc.h"

namespace test {

struct Bounded {
  Real value = 0;
  Real error = 0;
};

inline Bounded scaled(const Bounded& b, Real scale) {
  return {b.value * scale, b.error * std::fabs(scale)};
}

// Whether `got` is a number within the bounds, or the rounding of one.
inline bool within(Real got, const Bounded& expected, const Format& format) {
  if (std::isnan(expected.value)) return std::isnan(got);
  if (std::isinf(expected.value)) return got == expected.value;
  return std::fabs(got - expected.value) <= expected.error ||
         (round_to(expected.value - expected.error, format) <= got &&
          got <= round_to(expected.value + expected.error, format));
}

struct Definition {
  Bounded loss;
  std::vector<Bounded> grad;
  Bounded prob_gap, logit_gap;
  int64_t runner_up = -1;
  bool correct = false;
  int64_t active = 0;      // hinges above 0
  bool undefined = false;  // NaN or +inf in the row, or nothing but -inf
};

// The row's parts, so that the terms of the loss can be written one by one.
struct Row {
  const std::vector<Real>& a;
  const pclc::Problem& problem;
  int64_t y, j;            // the true class, the largest false one
  std::vector<Real> prob;  // f
  Real false_mass;         // sum of the false f_k
  Real eps;                // relative error of any f_k

  int64_t classes() const { return static_cast<int64_t>(a.size()); }
  bool is_false(int64_t k) const { return k != y && a[k] > -HUGE_VALL; }  // and can be pressed on
};

// `exp_error`: of exp(x), in eps for each unit of x, the rounding of x included.
inline Row make_row(const std::vector<Real>& a, int64_t y, const pclc::Problem& problem, Real eps,
                    Real tiny, Real exp_error) {
  Row row{a, problem, y, y == 0 ? 1 : 0, std::vector<Real>(a.size()), 0, 0};
  for (int64_t k = 0; k < row.classes(); ++k) {
    if (k != y && a[k] > a[row.j]) row.j = k;
  }
  const Real top = std::max(a[y], a[row.j]);
  Real total = 0, spread = 0;
  for (int64_t k = 0; k < row.classes(); ++k) {
    total += row.prob[k] = std::exp(a[k] - top);
    if (row.prob[k] >= tiny) spread = std::max(spread, top - a[k]);
  }
  for (int64_t k = 0; k < row.classes(); ++k) {
    row.prob[k] /= total;
    if (k != y) row.false_mass += row.prob[k];
  }
  // a_k - a_j is rounded before it is exponentiated, and sums of one type may be up to 1024 terms
  // long, one after the other where nothing is vectorised.
  row.eps =
      eps * (4 + exp_error * spread + static_cast<Real>(std::min<size_t>(a.size(), 1024)) / 2);
  return row;
}

inline void add_cross_entropy(const Row& row, Definition* d) {
  const Real weight = row.problem.coefficients.ce_weight;
  if (weight == 0) return;
  Real others = 0;  // -log f_y = log(1 + sum exp(a_k - a_y)), or from a_j where that is larger
  const Real top = std::max(row.a[row.y], row.a[row.j]);
  for (int64_t k = 0; k < row.classes(); ++k) {
    if (k != row.y) others += std::exp(row.a[k] - top);
  }
  const Real own = std::exp(row.a[row.y] - top);
  const Real ce = own == 1 ? std::log1p(others) : std::log(others + own) - (row.a[row.y] - top);
  d->loss.value += weight * ce;
  d->loss.error += weight * ce * row.eps;
  if (row.a[row.y] == -HUGE_VALL) return;  // cannot move
  for (int64_t k = 0; k < row.classes(); ++k) {
    const Real gradient = k == row.y ? -row.false_mass : row.prob[k];
    d->grad[k].value += weight * gradient;
    d->grad[k].error += weight * std::fabs(gradient) * row.eps;
  }
}

// PC = sum of hinges h_k = max(0, f_k + xi - f_y); its gradient by dPC/df and the Jacobian of
// softmax, df_k/da_i = f_k ([k = i] - f_i). A hinge within `blur` of its kink may be taken for
// active or not: it then moves the loss by no more than `blur`.
inline void add_probabilistically_compact(const Row& row, Definition* d) {
  const Real weight = row.problem.coefficients.pc_weight /
                      (row.problem.pc_mean ? static_cast<Real>(row.classes() - 1) : 1);
  const Real margin = row.problem.coefficients.margin, true_prob = row.prob[row.y];
  // margin - f_y, from 1 - f_y where that is near 0 and long double would lose it as well.
  const Real below = true_prob > 0.5L ? row.false_mass - (1 - margin) : margin - true_prob;
  const Real offset = std::fabs(1 - margin) + row.false_mass;
  std::vector<Real> slope(row.a.size(), 0);  // dPC/df_k
  std::vector<bool> blurred(row.a.size(), false);
  Real blurred_count = 0, blurred_mass = 0;
  for (int64_t k = 0; k < row.classes(); ++k) {
    if (k == row.y) continue;
    const Real hinge = row.prob[k] + below;
    const Real blur = row.eps * (offset + row.prob[k]);
    if (std::fabs(hinge) < blur) {
      blurred[k] = true, blurred_count += 1, blurred_mass += row.prob[k];
      d->loss.error += weight * 2 * blur;
    }
    if (hinge <= 0) continue;
    ++d->active;
    slope[k] = 1, slope[row.y] -= 1;
    d->loss.value += weight * hinge;
    d->loss.error += weight * blur;
  }
  if (row.a[row.y] == -HUGE_VALL) return;
  // sum over k of dPC/df_k df_k/da_i, the true class apart: it is the only one with a slope below
  // 0.
  Real false_sum = 0;
  for (int64_t k = 0; k < row.classes(); ++k) {
    if (k != row.y) false_sum += slope[k] * row.prob[k];
  }
  for (int64_t k = 0; k < row.classes(); ++k) {
    const bool is_true = k == row.y;
    const Real own = is_true ? slope[k] * row.false_mass : slope[k];
    const Real of_true = is_true ? 0 : slope[row.y] * true_prob;
    const Real size = std::fabs(own) + false_sum - of_true;
    const Real jumps = (blurred[k] ? 1 : 0) + blurred_mass +
                       blurred_count * (is_true ? row.false_mass : true_prob);
    d->grad[k].value += weight * row.prob[k] * (own - false_sum - of_true);
    d->grad[k].error += weight * row.prob[k] * (row.eps * size + 1.01L * jumps);
  }
}

// A gap within rounding of the cap may be taken for above or below it.
inline void add_gap(const Row& row, int64_t k, Real weight, Definition* d) {
  const Real cap = row.problem.coefficients.lc_cap, gap = row.a[row.y] - row.a[k];
  const Real blur = 2 * row.eps * (std::fabs(gap) + cap);
  if (gap > cap - blur) d->loss.error += weight * blur;
  const Real jump = cap > 0 && std::fabs(gap - cap) < blur ? weight : 0;
  d->grad[k].error += jump + (gap > cap ? weight * row.eps : 0);
  d->grad[row.y].error += jump + (gap > cap ? weight * row.eps : 0);
  if (gap <= cap) return;
  d->loss.value += weight * (gap - cap);
  d->grad[row.y].value += weight;
  d->grad[k].value -= weight;
}

inline void add_soft_constraint(const Row& row, Real weight, Definition* d) {
  Real total = 0, mean = 0, pulled = 0;
  std::vector<Real> q(row.a.size(), 0), gap(row.a.size(), 0);
  for (int64_t k = 0; k < row.classes(); ++k) {
    if (row.is_false(k)) total += q[k] = std::exp(row.a[k] - row.a[row.j]);
  }
  for (int64_t k = 0; k < row.classes(); ++k) {
    if (!row.is_false(k)) continue;
    q[k] /= total;
    gap[k] = std::max<Real>(0, row.a[row.y] - row.a[k]);
    mean += q[k] * gap[k];
    pulled += gap[k] > 0 ? q[k] : 0;
  }
  d->loss.value += weight * mean;
  d->loss.error += weight * mean * row.eps;
  d->grad[row.y].value += weight * pulled;
  d->grad[row.y].error += weight * pulled * row.eps;
  for (int64_t k = 0; k < row.classes(); ++k) {
    d->grad[k].value += weight * q[k] * (gap[k] - mean - (gap[k] > 0 ? 1 : 0));
    d->grad[k].error += weight * q[k] * row.eps * (gap[k] + mean + 1);
  }
}

inline void add_logit_constraint(const Row& row, Definition* d) {
  const Real weight = row.problem.coefficients.lc_weight;
  if (weight == 0 || row.a[row.y] == -HUGE_VALL || row.a[row.j] == -HUGE_VALL) return;
  switch (row.problem.lc_mode) {
    case pclc::LcMode::kHard: return add_gap(row, row.j, weight, d);
    case pclc::LcMode::kSoft: return add_soft_constraint(row, weight, d);
    case pclc::LcMode::kAll:
      for (int64_t k = 0; k < row.classes(); ++k) {
        if (row.is_false(k)) add_gap(row, k, weight / static_cast<Real>(row.classes() - 1), d);
      }
  }
}

// Random logits with a_y where the cases of Eq. 6 meet: at random, or where f_y is between the
// margin and 1. Some rows are integers, which tie.
inline std::vector<Real> draw_row(Random& random, int64_t classes, int64_t y, double margin) {
  std::vector<Real> a(static_cast<size_t>(classes));
  const double width = random.pick({0.5, 1.0, 5.0, 30.0});
  const bool ties = random.chance(0.2);
  Real others = 0;
  for (int64_t k = 0; k < classes; ++k) {
    a[k] = ties ? std::round(2 * random.normal()) : width * random.normal();
    if (k != y) others += std::exp(a[k]);
  }
  if (ties || classes == 1) return a;
  const double mass = random.chance(0.5) ? std::max(0.0, 1 - margin) * random.uniform(0, 1) : 0;
  a[y] = std::log(others) + (mass > 0 ? std::log((1 - mass) / mass) : random.uniform(-8, 16));
  return a;
}

// `tiny` is the smallest normal number of the arithmetic: exponentials below it may be 0.
inline Definition define(const std::vector<Real>& a, int64_t y, const pclc::Problem& problem,
                         Real eps, Real tiny, Real exp_error = 1) {
  const Real nan = std::numeric_limits<Real>::quiet_NaN();
  Definition d;
  d.grad.resize(a.size());
  d.prob_gap.value = d.logit_gap.value = nan;
  bool usable = true, all_never = true;
  for (Real logit : a) {
    usable = usable && !std::isnan(logit) && logit < HUGE_VALL;
    all_never = all_never && logit == -HUGE_VALL;
  }
  if (!usable || all_never) {
    d.undefined = true;
    d.loss.value = nan;
    for (Bounded& entry : d.grad) entry.value = nan;
    return d;
  }
  if (a.size() == 1) return d;
  const Row row = make_row(a, y, problem, eps, tiny, exp_error);
  add_cross_entropy(row, &d);
  add_probabilistically_compact(row, &d);
  add_logit_constraint(row, &d);
  const Real underflow = 1e4L * static_cast<Real>(a.size()) * tiny;
  d.loss.error += underflow;
  for (Bounded& entry : d.grad) entry.error += underflow;
  d.prob_gap = {row.prob[y] - row.prob[row.j], row.eps};
  d.logit_gap = {a[y] - a[row.j], eps * std::fabs(a[y] - a[row.j])};
  if (std::isinf(d.logit_gap.value)) d.logit_gap.error = 0;
  d.runner_up = row.j;
  d.correct = a[y] > a[row.j] || (a[y] == a[row.j] && y < row.j);
  return d;
}

}  // namespace test
