// The logits that a thread holds in registers at one time, and what it makes of them.

#pragma once

#include "pclc_cuda_reduce.cuh"

namespace pclc::device {

// Vectors that a thread holds at a time of long rows.
template <class S>
constexpr int kBatchVectors = sizeof(typename S::Stored) == 2 ? 2 : 4;

// kCount classes of a short row, one for every kLanes-th: too few for vectors.
template <class S, int kLanes, int kElements>
class HeldScalars {
 public:
  using T = typename S::Compute;
  static constexpr int kCount = kElements;

  PCLC_DEVICE HeldScalars(const RowView<S>& view, int index, int) : index_(index) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int32_t k = class_of(i);
      const bool is_false = k < view.classes && k != view.label && !view.is_skipped;
      logits_[i] = is_false ? S::load(view.logits[k]) : kNegativeInfinity<T>;
    }
  }
  PCLC_DEVICE int32_t class_of(int i) const { return index_ + i * kLanes; }
  PCLC_DEVICE T logit(int i) const { return logits_[i]; }
  PCLC_DEVICE void forget_numbers() {}

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

// Vectors first, first + step, ... of a row, below `end`.
template <class S, int kVectors>
class HeldVectors {
 public:
  using T = typename S::Compute;
  static constexpr int kCount = kVectors * kWidth<S>;

  PCLC_DEVICE HeldVectors(const RowView<S>& view, int first, int step)
      : HeldVectors(view, first, step, INT32_MAX) {}
  PCLC_DEVICE HeldVectors(const RowView<S>& view, int first, int step, int end)
      : HeldVectors(first, step, view.lead) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (vector(i) < end) {
        words_[i] = view.load(vector(i));
      } else {
        view.fill(words_[i]);
      }
    }
  }
  // From where `keep` has put them: `kept` holds the vectors from `begin` on.
  PCLC_DEVICE HeldVectors(const RowView<S>& view, int first, int step, int begin, int end,
                          const Words* kept)
      : HeldVectors(first, step, view.lead) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (vector(i) < end) {
        words_[i] = kept[vector(i) - begin];
      } else {
        view.fill(words_[i]);
      }
    }
  }

  PCLC_DEVICE void keep(int begin, int end, Words* kept) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (vector(i) < end) kept[vector(i) - begin] = words_[i];
    }
  }

  PCLC_DEVICE int32_t class_of(int i) const {
    return vector(i / kWidth<S>) * kWidth<S> - lead_ + i % kWidth<S>;
  }
  PCLC_DEVICE T logit(int i) const { return S::get(words_[i / kWidth<S>], i % kWidth<S>); }
  // Numbers that are stored in less take more registers than their words.
  PCLC_DEVICE void forget_numbers() {
    if constexpr (sizeof(typename S::Stored) == 2) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) forget(words_[i]);
    }
  }

  template <LcMode kMode>
  PCLC_DEVICE void write(const RowView<S>& view, const Writer<S, kMode>& writer,
                         int end = INT32_MAX) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (vector(i) < end) writer.write(view, vector(i), words_[i]);
    }
  }

 private:
  PCLC_DEVICE HeldVectors(int first, int step, int32_t lead)
      : first_(first), step_(step), lead_(lead) {}
  PCLC_DEVICE int32_t vector(int i) const { return first_ + i * step_; }

  int32_t first_, step_, lead_;
  Words words_[kVectors];
};

// What the logits held add to the sums of the logit constraint.
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
PCLC_DEVICE Partial<T> reduce(Held& held, T true_logit, T cap) {
  Partial<T> part;
#pragma unroll
  for (int i = 0; i < Held::kCount; ++i) part.top = max_of(part.top, held.logit(i));
  held.forget_numbers();
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

// The active hinges of a mixed row.
template <class Held, typename T = typename Held::T>
PCLC_DEVICE Hinges<T> count(const Held& held, const RowStats<T>& stats, const RowProbs<T>& probs) {
  const T shift = shift_of(stats.top);
  const T threshold = probs.pc_case == PcCase::kMixed ? probs.excess : T(2);
  Hinges<T> hinges;
#pragma unroll
  for (int i = 0; i < Held::kCount; ++i) {
    const T f = exp_of(held.logit(i) - shift) * probs.top_prob;
    hinges.active += f > threshold ? T(1) : T(0);
    hinges.active_sum += f > threshold ? f : T(0);
  }
  return hinges;
}

}  // namespace pclc::device
