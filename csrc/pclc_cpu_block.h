// Loops over a block of a row that compilers vectorise: loading, the maximum and where it is, sums.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "pclc_cpu_math.h"
#include "pclc_row.h"

namespace pclc {

constexpr int64_t kLanes = 16;    // blocks are padded to this: one AVX-512 vector of floats
constexpr int64_t kBlock = 1024;  // elements; also between two carries of a sum into double

// A part of a row: what the passes take at a time.
struct Block {
  int64_t begin;
  int64_t count;   // classes
  int64_t padded;  // a multiple of kLanes
};

PCLC_INLINE Block block_at(int64_t begin, int64_t classes) {
  const int64_t count = std::min(kBlock, classes - begin);
  return {begin, count, (count + kLanes - 1) & -kLanes};
}

// The one of two that is larger; `a` where b is NaN.
template <typename T>
PCLC_INLINE T larger(T a, T b) {
  return b > a ? b : a;
}

// The false logits of a block, as many as `padded`, for the passes over it. They are read where
// they are, if all of them are false, fill whole vectors and have the type of the arithmetic; else
// from the buffer, with -inf at y and in the padding, which then need no special case.
template <class S, typename T>
PCLC_INLINE const T* false_logits(const typename S::Stored* row, const Block& b, int64_t y,
                                  T* buffer) {
  const typename S::Stored* source = row + b.begin;
  const int64_t true_index = y - b.begin;
  const bool has_true = 0 <= true_index && true_index < b.count;
  if constexpr (std::is_same_v<typename S::Stored, T>) {
    if (!has_true && b.count == b.padded) return source;
  }
#pragma omp simd
  for (int64_t i = 0; i < b.count; ++i) buffer[i] = S::load(source[i]);
  for (int64_t i = b.count; i < b.padded; ++i) buffer[i] = kNegativeInfinity<T>;
  if (has_true) buffer[true_index] = kNegativeInfinity<T>;
  return buffer;
}

// The largest of n values, a multiple of kLanes. A NaN is passed over.
template <typename T>
PCLC_INLINE T largest(const T* values, int64_t n) {
  T lane[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lane[i] = kNegativeInfinity<T>;
  for (int64_t begin = 0; begin < n; begin += kLanes) {
#pragma omp simd
    for (int64_t i = 0; i < kLanes; ++i) lane[i] = larger(lane[i], values[begin + i]);
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) lane[i] = larger(lane[i], lane[i + half]);
  }
  return lane[0];
}

// The false logits of a block and the largest of them.
template <typename T>
struct FalseBlock {
  const T* logits;
  T top;
};

template <class S, typename T>
PCLC_INLINE FalseBlock<T> false_block(const typename S::Stored* row, const Block& b, int64_t y,
                                      T* buffer) {
  const T* logits = false_logits<S>(row, b, y, buffer);
  return {logits, largest(logits, b.padded)};
}

// A sum of which each lane has a share. The shares are added up in pairs: one after the other,
// every addition would wait for the one before.
template <typename T>
struct LaneSum {
  T lane[kLanes] = {};

  PCLC_INLINE T total() {
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
  }
};

// Asks for what is used after a block of a row: its next block, or the first one of the row `ahead`
// elements on. Into the second-level cache: the first cannot wait for as many lines at once as a
// block has.
template <typename Stored>
PCLC_INLINE void prefetch_next([[maybe_unused]] const Stored* row, [[maybe_unused]] int64_t begin,
                               [[maybe_unused]] int64_t classes, [[maybe_unused]] uint64_t ahead) {
#if defined(__GNUC__)
  constexpr int64_t kLine = 64 / sizeof(Stored);
  // Where there is no such row, the address is one of no memory, which no pointer may be, and a
  // single row can have any stride.
  const uint64_t offset = begin + kBlock < classes ? static_cast<uint64_t>(begin + kBlock) : ahead;
  const uintptr_t next = reinterpret_cast<uintptr_t>(row) + offset * sizeof(Stored);
  for (int64_t i = 0; i < std::min(kBlock, classes); i += kLine) {
    __builtin_prefetch(reinterpret_cast<const Stored*>(next) + i, 0, 2);
  }
#endif
}

// The lowest index with the value `top`, which is among the n. Never another index, even if someone
// writes into the logits meanwhile: the gradient is written there.
template <typename T>
PCLC_INLINE int64_t first_equal(const T* values, int64_t n, T top) {
  int32_t first = static_cast<int32_t>(n);
#pragma omp simd reduction(min : first)
  for (int32_t i = 0; i < static_cast<int32_t>(n); ++i) {
    first = std::min(first, values[i] == top ? i : static_cast<int32_t>(n));
  }
  return std::min(first, static_cast<int32_t>(n) - 1);
}

}  // namespace pclc
