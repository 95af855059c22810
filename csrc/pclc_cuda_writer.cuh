// Exponentials of logits, and what the gradient is made of.

#pragma once

#include "pclc_cuda_call.cuh"

namespace pclc::device {

// e^(a - shift) for logits a up to the shift, with what it still has to be multiplied with. Here
// that is 1.
template <class S, bool kFused = sizeof(typename S::Stored) == 2>
class Powers {
 public:
  using T = typename S::Compute;
  PCLC_DEVICE explicit Powers(T top) : shift_(shift_of(top)) {}
  PCLC_DEVICE T of(T a) const { return exp_of(a - shift_); }
  PCLC_DEVICE T factor() const { return T(1); }
  // From multiples of what these powers are to those of others, of a larger logit.
  PCLC_DEVICE T towards(const Powers& other, T gap) const {
    (void)other;
    return exp_of(gap);
  }

 private:
  T shift_;
};

// One fused multiply-add and 2^x each: shift * log2(e) is rounded, and what that has lost, which is
// known exactly, is a factor that all powers have in common. Between numbers of 16 bits as large as
// 2^24 or more gaps are so wide that any base above 1 gives 1 at the shift, else 0.
template <class S>
class Powers<S, true> {
 public:
  PCLC_DEVICE explicit Powers(float top) {
    const float shift = shift_of(top);
    scale_ = std::abs(shift) < 0x1p24f ? kLog2E : 1.0f;
    offset_ = -(shift * scale_);
    lost_ = fused(shift, scale_, offset_);
  }
  PCLC_DEVICE float of(float a) const { return exp2_of(fused(a, scale_, offset_)); }
  PCLC_DEVICE float factor() const { return exp2_of(-lost_); }
  PCLC_DEVICE float towards(const Powers& other, float gap) const {
    return exp2_of(gap * kLog2E + (other.lost_ - lost_));
  }

 private:
  float scale_, offset_, lost_;
};

// Which hinges of a mixed row are active.
template <class S, typename T = typename S::Compute>
struct Threshold {
  Powers<S> powers;
  T prob;  // times a power: f_k
  T threshold;

  PCLC_DEVICE Threshold(const RowProbs<T>& p, const RowStats<T>& s)
      : powers(s.top), prob(p.top_prob * powers.factor()), threshold(hinge_threshold(p)) {}
};

// The gradient of a false class from its logit, as ElementGrad of the CPU kernels gives it, with
// what the row has instead of a formula: zeros where it is ignored, NaN where it is undefined.
template <class S, LcMode kMode, typename T = typename S::Compute>
struct Writer {
  Threshold<S> hinges;
  T inactive, active, true_grad, top_extra;
  T soft_scale, soft_mean, all_step, true_logit, cap, top;
  int32_t label, runner_up;
  bool is_mixed;
  bool is_filled;    // with true_grad
  bool is_constant;  // the logits need not be read

  PCLC_DEVICE Writer(const Row<T>& row, const RowProbs<T>& p, const RowStats<T>& s,
                     const Terms<T>& terms, T scale)
      : hinges(p, s),
        true_logit(row.true_logit),
        cap(terms.lc_cap),
        top(s.top),
        label(row.label),
        runner_up(static_cast<int32_t>(s.runner_up)),
        is_mixed(p.pc_case == PcCase::kMixed) {
    const RowGrad<T> g = row_grad(row.true_logit, p, s, terms, scale);
    const T factor = hinges.powers.factor();
    const bool is_ignored = row.state == RowState::kIgnored;
    is_filled = is_ignored || g.constant;
    is_constant = is_filled || g.zero;
    inactive = g.zero ? T(0) : g.inactive * factor;  // never -0
    active = g.zero ? T(0) : g.active * factor;
    true_grad = is_ignored ? T(0) : g.true_grad;
    top_extra = g.top_extra;
    soft_scale = g.soft_scale * factor;
    soft_mean = g.soft_mean;
    all_step = g.all_step;
  }

  // The gradient at class k, of which `a` is the logit.
  PCLC_DEVICE T at(int32_t k, T a) const {
    if (is_filled || k == label) return true_grad;
    const T grad = formula<true>(a);
    return kMode == LcMode::kHard && k == runner_up ? grad + top_extra : grad;
  }

  // Logits in words, which become gradients: right but at the true class and the runner-up.
  template <int kVectors>
  PCLC_DEVICE void convert(Words (&words)[kVectors]) const {
    if (is_constant) {
      const Words all = RowView<S>::filled(is_filled ? true_grad : T(0));
#pragma unroll
      for (int i = 0; i < kVectors; ++i) words[i] = all;
    } else if (is_mixed) {
      apply<true>(words);
    } else {
      apply<false>(words);
    }
  }

  // The two that `convert` leaves, where `holds` says of an element of the row, counted from its
  // first vector's begin, that this thread has written it.
  template <class Holds>
  PCLC_DEVICE void patch(const RowView<S>& view, const Holds& holds) const {
    if (is_filled) return;
    if (kMode == LcMode::kHard && holds(runner_up + view.lead)) {
      view.grad[runner_up] = S::store(formula<true>(top) + top_extra);
    }
    if (holds(label + view.lead)) view.grad[label] = S::store(true_grad);
  }

 private:
  template <bool kMixed, int kVectors>
  PCLC_DEVICE void apply(Words (&words)[kVectors]) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      T values[kWidth<S>];
#pragma unroll
      for (int e = 0; e < kWidth<S>; ++e) values[e] = formula<kMixed>(S::get(words[i], e));
      S::pack(values, words[i]);
    }
  }

  template <bool kMixed>
  PCLC_DEVICE T formula(T a) const {
    const T e = hinges.powers.of(a);
    const bool is_active = kMixed && e * hinges.prob > hinges.threshold;
    const T pc = e * (is_active ? active : inactive);
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

}  // namespace pclc::device
