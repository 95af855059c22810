// The logits that a thread holds in registers at one time, and what it makes of them.

#pragma once

#include "pclc_cuda_reduce.cuh"

namespace pclc::device {

// kCount classes of a short row, one for every kLanes-th: too few for vectors.
template <class S, int kLanes, int kElements>
class HeldScalars {
 public:
  using T = typename S::Compute;
  using Storage = S;
  static constexpr int kCount = kElements;

  PCLC_DEVICE HeldScalars(const RowView<S>& view, int index) : index_(index) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int32_t k = class_of(i);
      const bool is_false = k < view.classes && k != view.label && !view.is_skipped;
      logits_[i] = is_false ? S::load(view.logits[k]) : kNegativeInfinity<T>;
    }
  }
  PCLC_DEVICE int32_t class_of(int i) const { return index_ + i * kLanes; }
  PCLC_DEVICE T logit(int i) const { return logits_[i]; }

  template <LcMode kMode>
  PCLC_DEVICE void write(const RowView<S>& view, const Writer<S, kMode>& writer) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int32_t k = class_of(i);
      if (k < view.classes) view.grad[k] = S::store(writer.at(k, logits_[i]));
    }
  }

 private:
  int32_t index_;
  T logits_[kCount];
};

// kVectors vectors.
template <class S, int kVectors>
struct HeldVectors {
  using T = typename S::Compute;
  using Storage = S;
  static constexpr int kCount = kVectors * kWidth<S>;

  Words words[kVectors];

  PCLC_DEVICE T logit(int i) const { return S::get(words[i / kWidth<S>], i % kWidth<S>); }
};

// What a logit adds to the sums of the logit constraint.
template <LcMode kMode, typename T>
PCLC_DEVICE void add_constraint(T a, T e, T true_logit, T cap, Partial<T>* part) {
  if constexpr (kMode == LcMode::kSoft) {
    const T gap = true_logit - a;
    const bool counts = gap > 0 && e > 0;
    part->lc_sum += counts ? e * gap : T(0);
    part->lc_count += counts ? e : T(0);
  } else if constexpr (kMode == LcMode::kAll) {
    const T gap = true_logit - a - cap;
    const bool counts = gap > 0 && a > kNegativeInfinity<T>;
    part->lc_sum += counts ? gap : T(0);
    part->lc_count += counts ? T(1) : T(0);
  }
}

template <LcMode kMode, class Held, typename T = typename Held::T>
PCLC_DEVICE Partial<T> reduce(const Held& held, T true_logit, T cap) {
  Partial<T> part;
#pragma unroll
  for (int i = 0; i < Held::kCount; ++i) part.top = max_of(part.top, held.logit(i));
  const T shift = shift_of(part.top);
#pragma unroll
  for (int i = Held::kCount - 1; i >= 0; --i) {
    const T a = held.logit(i);
    const T e = exp_of(a - shift);
    part.exp_sum += e;
    add_constraint<kMode>(a, e, true_logit, cap, &part);
    if (a == part.top) part.first = held.class_of(i);
  }
  if (part.top == kNegativeInfinity<T>) part.first = kNoClass;
  return part;
}

// The sums of a thread over vectors that it meets one after the other: relative to the largest
// logit so far, which soon is the last.
template <class S, LcMode kMode>
class Running {
 public:
  using T = typename S::Compute;

  PCLC_DEVICE Running() : powers_(kNegativeInfinity<T>) {}

  // Vectors number first, first + step, ...
  template <int kVectors>
  PCLC_DEVICE void add(const HeldVectors<S, kVectors>& held, int32_t first, int32_t step,
                       T true_logit, T cap) {
    typename S::Best best[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) best[i] = S::best(held.words[i]);
    auto of_all = best[0];
#pragma unroll
    for (int i = 1; i < kVectors; ++i) of_all = S::better(of_all, best[i]);
    const T top = S::largest(of_all);
    if (top > part_.top) {
      rise(top);
#pragma unroll
      for (int i = kVectors - 1; i >= 0; --i) {
        if (S::largest(best[i]) == top) part_.first = first + i * step;
      }
    }
#pragma unroll
    for (int i = 0; i < held.kCount; ++i) {
      const T a = held.logit(i);
      const T e = powers_.of(a);
      part_.exp_sum += e;
      add_constraint<kMode>(a, e, true_logit, cap, &part_);
    }
  }

  // The vector that has the largest logit first; kNoClass without any.
  PCLC_DEVICE int32_t vector() const { return part_.first; }
  // All sums, where that vector is `words` and begins at class `begin`.
  PCLC_DEVICE Partial<T> sums(const Words& words, int32_t begin) const {
    Partial<T> part = part_;
    scale(powers_.factor(), part);
    if (part.first == kNoClass) return part;
#pragma unroll
    for (int i = kWidth<S> - 1; i >= 0; --i) {
      if (S::get(words, i) == part.top) part.first = begin + i;
    }
    return part;
  }

 private:
  PCLC_DEVICE void rise(T top) {
    const Powers<S> higher(top);
    scale(powers_.towards(higher, part_.top - top), part_);
    powers_ = higher;
    part_.top = top;
  }
  static PCLC_DEVICE void scale(T factor, Partial<T>& part) {
    part.exp_sum *= factor;
    if constexpr (kMode == LcMode::kSoft) part.lc_sum *= factor, part.lc_count *= factor;
  }

  Partial<T> part_;
  Powers<S> powers_;
};

// The active hinges of a mixed row.
template <class Held, typename T = typename Held::T>
PCLC_DEVICE Hinges<T> count(const Held& held, const Threshold<typename Held::Storage>& threshold) {
  Hinges<T> hinges;
#pragma unroll
  for (int i = 0; i < Held::kCount; ++i) {
    const T f = threshold.powers.of(held.logit(i)) * threshold.prob;
    hinges.active += f > threshold.threshold ? T(1) : T(0);
    hinges.active_sum += f > threshold.threshold ? f : T(0);
  }
  return hinges;
}

}  // namespace pclc::device
