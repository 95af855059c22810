// What one pass over a part of a row leaves, and how two parts become one: the lanes of a warp, the
// warps of a block and the blocks of a cluster all merge by this, with the largest logit first.

#pragma once

#include <cstdint>

#include "pclc_row.h"

namespace pclc {

constexpr int32_t kNoClass = INT32_MAX;

// Sums over some false classes, relative to the largest of their logits (RowStats). Empty, or of
// nothing but -inf: as it is constructed, which changes nothing that it is merged with.
template <typename T>
struct Partial {
  T top = kNegativeInfinity<T>;
  T exp_sum = 0;
  T lc_sum = 0;
  T lc_count = 0;
  int32_t first = kNoClass;  // the lowest class with the largest logit
};

// A part relative to `top`, which is no less than its own. A NaN is never the largest logit; it
// travels through the sums.
template <LcMode kMode, class Exp, typename T>
PCLC_ROW Partial<T> relative_to(T top, Partial<T> part, Exp exp) {
  const bool leads = part.top == top;
  const T factor = leads ? T(1) : exp(part.top - top);
  part.top = top;
  part.exp_sum *= factor;
  if constexpr (kMode == LcMode::kSoft) part.lc_sum *= factor, part.lc_count *= factor;
  if (!leads) part.first = kNoClass;
  return part;
}

// Of two parts that are relative to the same logit. The same bits whichever comes first, so that
// lanes which exchange their parts agree.
template <LcMode kMode, typename T>
PCLC_ROW Partial<T> add(Partial<T> a, const Partial<T>& b) {
  a.exp_sum += b.exp_sum;
  if constexpr (kMode != LcMode::kHard) a.lc_sum += b.lc_sum, a.lc_count += b.lc_count;
  a.first = a.first < b.first ? a.first : b.first;
  return a;
}

// The parts of all false classes as what the row arithmetic takes.
template <typename T>
PCLC_ROW RowStats<T> row_stats(const Partial<T>& whole, int32_t label) {
  const int32_t runner_up = whole.first == kNoClass ? (label == 0 ? 1 : 0) : whole.first;
  return {whole.top, whole.exp_sum, whole.lc_sum, whole.lc_count, 0, 0, runner_up};
}

}  // namespace pclc
