// What one pass over a part of a row leaves, and how two parts become one: the parts of a thread,
// the lanes of a warp, the warps of a block and the blocks of a cluster are all merged by this.

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

// The same bits whichever comes first, so that lanes which exchange their parts agree. A NaN is
// never the largest logit; it travels through the sums.
template <LcMode kMode, class Exp, typename T>
PCLC_ROW Partial<T> merge(const Partial<T>& a, const Partial<T>& b, Exp exp) {
  const bool a_leads = a.top > b.top, tie = a.top == b.top;
  const T top = a_leads ? a.top : b.top;
  const T factor = tie ? T(1) : exp((a_leads ? b.top : a.top) - top);
  const T a_factor = a_leads ? T(1) : factor, b_factor = a_leads ? factor : T(1);
  Partial<T> merged;
  merged.top = top;
  merged.exp_sum = a.exp_sum * a_factor + b.exp_sum * b_factor;
  if constexpr (kMode == LcMode::kSoft) {
    merged.lc_sum = a.lc_sum * a_factor + b.lc_sum * b_factor;
    merged.lc_count = a.lc_count * a_factor + b.lc_count * b_factor;
  } else if constexpr (kMode == LcMode::kAll) {
    merged.lc_sum = a.lc_sum + b.lc_sum;
    merged.lc_count = a.lc_count + b.lc_count;
  }
  const int32_t lower = a.first < b.first ? a.first : b.first;
  merged.first = tie ? lower : a_leads ? a.first : b.first;
  return merged;
}

// The parts of all false classes as what the row arithmetic takes.
template <typename T>
PCLC_ROW RowStats<T> row_stats(const Partial<T>& whole, int32_t label) {
  const int32_t runner_up = whole.first == kNoClass ? (label == 0 ? 1 : 0) : whole.first;
  return {whole.top, whole.exp_sum, whole.lc_sum, whole.lc_count, 0, 0, runner_up};
}

}  // namespace pclc
