// Transposing rows of a few classes, tile by tile.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "pclc_cpu_math.h"

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define PCLC_SHUFFLES 1
#endif
#endif

namespace pclc {

constexpr int64_t kTile = 4;  // rows and columns: as many floats as the smallest vectors hold

// to[column][row] = from[row][column], one by one. Both are given by the distance of their rows.
template <typename E>
PCLC_INLINE void transpose_elements(const E* from, int64_t from_stride, int64_t rows,
                                    int64_t columns, E* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      to[column * to_stride + row] = from[row * from_stride + column];
    }
  }
}

// The same for a tile.
template <typename E>
PCLC_INLINE void transpose_tile(const E* from, int64_t from_stride, E* to, int64_t to_stride) {
#if defined(PCLC_SHUFFLES)
  typedef E Vector __attribute__((vector_size(kTile * sizeof(E))));
  Vector row[kTile];
  for (int64_t i = 0; i < kTile; ++i) std::memcpy(&row[i], from + i * from_stride, sizeof(Vector));
  const Vector low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
  const Vector low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
  const Vector high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
  const Vector high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
  const Vector column[kTile] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                                __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                                __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                                __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int64_t i = 0; i < kTile; ++i) std::memcpy(to + i * to_stride, &column[i], sizeof(Vector));
#else
  transpose_elements(from, from_stride, kTile, kTile, to, to_stride);
#endif
}

// The same tile by tile. Where a side is no multiple of a tile's, the last tiles overlap.
template <typename E>
PCLC_INLINE void transpose(const E* from, int64_t from_stride, int64_t rows, int64_t columns, E* to,
                           int64_t to_stride) {
  if (rows < kTile || columns < kTile) {
    return transpose_elements(from, from_stride, rows, columns, to, to_stride);
  }
  for (int64_t column = 0; column < columns; column += kTile) {
    const int64_t c = std::min(column, columns - kTile);
    for (int64_t row = 0; row < rows; row += kTile) {
      const int64_t r = std::min(row, rows - kTile);
      transpose_tile(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
}

}  // namespace pclc
