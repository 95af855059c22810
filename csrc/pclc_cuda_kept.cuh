// Where the vectors of a row are between its passes: in shared memory, or in global memory still.

#pragma once

#include "pclc_cuda_held.cuh"

namespace pclc::device {

// The vectors of a row that a team has: all, or a block's share of them. Thread number i of the
// team takes slots i, i + size, ... and nobody else touches them: no pass waits for other threads.
template <class S>
struct Share {
  using T = typename S::Compute;
  using Stored = typename S::Stored;

  RowView<S> view;
  int32_t begin;  // the first vector
  int32_t count;
  int32_t whole_begin, whole_end;    // slots whose vectors are of the row alone
  int32_t direct_begin, direct_end;  // and that can be read with what is beside the row

  template <class Team>
  PCLC_DEVICE Share(const Call<T>& c, const Row<T>& row, const Team& team)
      : view(view_of<S>(c, row)) {
    const int32_t vectors = view.vectors();
    const int32_t share = (vectors + team.blocks_of_row() - 1) / team.blocks_of_row();
    begin = team.rank() * share;
    count = begin + share < vectors ? share : vectors - begin;
    if (count < 0) count = 0;
    // The two at the ends of the row, where they are not in what all the logits span.
    const int32_t beyond = vectors * kWidth<S> - view.lead - view.classes;
    const bool spans_first = row.index * c.row_stride >= view.lead;
    const bool spans_last = (c.rows - 1 - row.index) * c.row_stride >= beyond;
    const int32_t inner = begin + count == vectors ? count - 1 : count;  // all but the last
    whole_begin = begin == 0 && view.lead > 0 ? 1 : 0;
    whole_end = beyond > 0 ? inner : count;
    direct_begin = spans_first ? 0 : whole_begin;
    direct_end = !view.aligned ? 0 : spans_last ? count : inner;
  }

  PCLC_DEVICE int32_t first_class(int32_t slot) const { return view.begin(begin + slot); }
  PCLC_DEVICE bool is_whole(int32_t slot) const { return whole_begin <= slot && slot < whole_end; }
  PCLC_DEVICE bool is_direct(int32_t slot) const {
    return direct_begin <= slot && slot < direct_end;
  }
  // The number of an element of the row among the team's; not below its count where another has it.
  PCLC_DEVICE uint32_t element(int32_t from_first_vector) const {
    return static_cast<uint32_t>(from_first_vector - begin * kWidth<S>);
  }
  PCLC_DEVICE uint32_t elements() const { return static_cast<uint32_t>(count * kWidth<S>); }
};

// A copy in shared memory, which is on its way there while the row before is still written.
template <class S, class Team, int kVectors>
class Kept {
 public:
  using T = typename S::Compute;
  using Stored = typename S::Stored;

  // Slots that no row needs are empty for ever.
  PCLC_DEVICE Kept(void* memory, const ForwardCall<T>& c, const Team& team)
      : words_(static_cast<Words*>(memory) + team.of_block() * c.slots),
        most_(c.most_count),
        team_(team) {
#pragma unroll 1
    for (int32_t i = team.index(); i < c.slots; i += team.size()) words_[i] = RowView<S>::nothing();
  }

  // Slots first, first + size, ...
  PCLC_DEVICE void fetch(const Share<S>& row, int32_t first) {
    if (row.view.is_skipped) return;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int32_t slot = first + i * team_.size();
      if (row.is_direct(slot)) copy_words(words_ + slot, row.view.logits + row.first_class(slot));
    }
    const int32_t last = first + (kVectors - 1) * team_.size();
    if (first < row.direct_begin || (row.direct_end < most_ && last >= row.direct_end)) {
      fetch_others(row, first);
    }
  }

  // Waits for the row. The true class, and what is beside the row, need no special case later.
  PCLC_DEVICE void receive(const Share<S>& row) {
    wait_for_copies();
    if (row.view.is_skipped) return;
    const uint32_t label = row.element(row.view.label + row.view.lead);
    if (label < row.elements() && is_mine(label)) hide(label);
    if (row.whole_begin > 0 && team_.index() == 0) {
#pragma unroll 1
      for (int32_t i = 0; i < row.view.lead; ++i) hide(i);
    }
    if (row.whole_end < row.count && team_.owner(row.whole_end) == team_.index()) {
#pragma unroll 1
      for (uint32_t i = row.element(row.view.lead + row.view.classes); i < row.elements(); ++i) {
        hide(i);
      }
    }
  }

  PCLC_DEVICE HeldVectors<S, kVectors> read(const Share<S>&, int32_t first) const {
    HeldVectors<S, kVectors> held;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) held.words[i] = words_[first + i * team_.size()];
    return held;
  }
  PCLC_DEVICE Words read_one(const Share<S>&, int32_t slot) const { return words_[slot]; }

  // The gradient of the slots that have been read.
  PCLC_DEVICE void store(const Share<S>& row, int32_t first, const HeldVectors<S, kVectors>& held) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int32_t slot = first + i * team_.size();
      if (row.is_whole(slot)) store_words(row.view.grad + row.first_class(slot), held.words[i]);
    }
    const int32_t last = first + (kVectors - 1) * team_.size();
    if (first < row.whole_begin || (row.whole_end < row.count && last >= row.whole_end)) {
      store_others(row, first, held);
    }
  }

 private:
  PCLC_DEVICE void fetch_others(const Share<S>& row, int32_t first) {
#pragma unroll 1
    for (int i = 0; i < kVectors; ++i) {
      const int32_t slot = first + i * team_.size();
      if (row.is_direct(slot) || slot >= most_) continue;
      words_[slot] =
          slot < row.count ? row.view.load_singly(row.first_class(slot)) : RowView<S>::nothing();
    }
  }

  // By way of the slots, whose elements have addresses.
  PCLC_DEVICE void store_others(const Share<S>& row, int32_t first,
                                const HeldVectors<S, kVectors>& held) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int32_t slot = first + i * team_.size();
      if (!row.is_whole(slot) && slot < row.count) words_[slot] = held.words[i];
    }
#pragma unroll 1
    for (int i = 0; i < kVectors * kWidth<S>; ++i) {
      const int32_t slot = first + i / kWidth<S> * team_.size();
      const int32_t k = row.first_class(slot) + i % kWidth<S>;
      if (row.is_whole(slot) || slot >= row.count || k < 0 || k >= row.view.classes) continue;
      row.view.grad[k] = elements()[slot * kWidth<S> + i % kWidth<S>];
    }
  }

  PCLC_DEVICE bool is_mine(uint32_t element) const {
    return team_.owner(element / kWidth<S>) == team_.index();
  }
  PCLC_DEVICE Stored* elements() const { return reinterpret_cast<Stored*>(words_); }
  PCLC_DEVICE void hide(uint32_t element) { elements()[element] = S::store(kNegativeInfinity<T>); }

  Words* words_;
  int32_t most_;  // slots that a row may need
  const Team& team_;
};

// Read again for every pass.
template <class S, class Team, int kVectors>
class Streamed {
 public:
  using T = typename S::Compute;

  PCLC_DEVICE Streamed(void*, const ForwardCall<T>&, const Team& team) : team_(team) {}
  PCLC_DEVICE void fetch(const Share<S>&, int32_t) {}
  PCLC_DEVICE void receive(const Share<S>&) {}

  PCLC_DEVICE HeldVectors<S, kVectors> read(const Share<S>& row, int32_t first) const {
    HeldVectors<S, kVectors> held;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int32_t slot = first + i * team_.size();
      held.words[i] = slot < row.count && !row.view.is_skipped ? row.view.load_false(slot)
                                                               : RowView<S>::nothing();
    }
    return held;
  }
  PCLC_DEVICE Words read_one(const Share<S>& row, int32_t slot) const {
    return row.view.load_false(slot);
  }
  PCLC_DEVICE void store(const Share<S>& row, int32_t first, const HeldVectors<S, kVectors>& held) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int32_t slot = first + i * team_.size();
      if (slot < row.count) row.view.store(slot, held.words[i]);
    }
  }

 private:
  const Team& team_;
};

}  // namespace pclc::device
