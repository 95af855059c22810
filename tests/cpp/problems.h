// Random problems for the kernels, in memory whose ends are watched, and what they write.

#pragma once

#include <array>

#include "definition.h"
#include "pclc.h"
#include "pclc_cpu_math.h"
#include "pclc_row.h"

namespace test {

using pclc::DType, pclc::LcMode, pclc::Problem, pclc::Reduction;

template <class S>
struct Type;
template <>
struct Type<pclc::Float32> {
  static constexpr DType kDType = DType::kFloat32;
  static constexpr Format kFormat{24, -126, 127};
  static constexpr const char* kName = "float32";
};
template <>
struct Type<pclc::BFloat16> {
  static constexpr DType kDType = DType::kBFloat16;
  static constexpr Format kFormat{8, -126, 127};
  static constexpr const char* kName = "bfloat16";
};
template <>
struct Type<pclc::Float16> {
  static constexpr DType kDType = DType::kFloat16;
  static constexpr Format kFormat{11, -14, 15};
  static constexpr const char* kName = "float16";
};
template <>
struct Type<pclc::Float64> {
  static constexpr DType kDType = DType::kFloat64;
  static constexpr Format kFormat{53, -1022, 1023};
  static constexpr const char* kName = "float64";
};

template <typename T>
constexpr Format kArithmetic =
    sizeof(T) == 4 ? Type<pclc::Float32>::kFormat : Type<pclc::Float64>::kFormat;

struct Shape {
  int64_t rows, classes;
  int64_t row_stride;
  int64_t lead;  // elements before the first row
  int64_t elements() const { return lead + (rows > 0 ? (rows - 1) * row_stride + classes : 0); }
};

inline Shape draw_shape(Random& random, int64_t rows, int64_t classes) {
  const int64_t stride = random.pick({classes, classes, classes + 1, classes + 7, int64_t(0)});
  return {rows, classes, stride, random.pick({0, 1, 3})};
}

// One input in memory of its own. The last row ends where its allocation ends; what lies between
// rows, and rows that are ignored, are NaN.
template <class S>
struct Case {
  using T = typename S::Compute;
  using Stored = typename S::Stored;

  Case(Random& random, const Shape& shape, LcMode mode, Reduction reduction, bool pc_mean)
      : logits(static_cast<size_t>(shape.elements()) * sizeof(Stored)),
        target(static_cast<size_t>(shape.rows) * sizeof(int64_t)),
        weight(static_cast<size_t>(shape.classes) * sizeof(T)),
        lead(shape.lead) {
    const int64_t classes = shape.classes;
    problem = {
        logits.as<Stored>() + shape.lead,
        target.as<int64_t>(),
        random.chance(0.5) ? weight.as<T>() : nullptr,
        Type<S>::kDType,
        shape.rows,
        classes,
        shape.row_stride,
        random.pick({int64_t(-100), int64_t(-100), int64_t(1), classes - 1, int64_t(1) << 40}),
        reduction,
        mode,
        pc_mean,
        {random.pick({0.995, 0.5, 0.1, 1.0, 1.5}), random.pick({1.0, 0.0, 2.5}),
         random.pick({0.05, 0.0, 1.0}), mode == LcMode::kSoft ? 0.0 : random.pick({0.0, 1.5}),
         random.pick({0.0, 1.0})}};
    for (int64_t k = 0; k < classes; ++k) {
      weight.as<T>()[k] = static_cast<T>(random.chance(0.1) ? 0 : random.uniform(0, 2));
    }
    std::fill_n(logits.as<uint8_t>(), static_cast<size_t>(shape.elements()) * sizeof(Stored), 0xff);
    const bool specials = random.chance(0.4);
    for (int64_t i = 0; i < shape.rows; ++i) {
      const bool ignored = random.chance(0.15);
      const int64_t y = random.below(std::max<int64_t>(classes, 1));
      target.as<int64_t>()[i] = ignored || classes == 0 ? problem.ignore_index : y;
      const bool shared = shape.row_stride == 0;  // one row of memory for all
      if (classes == 0 || (shared ? i > 0 : is_ignored(i))) continue;
      std::vector<Real> a = draw_row(random, classes, y, problem.coefficients.margin);
      if (specials && random.chance(0.5)) make_special(random, y, &a);
      for (int64_t k = 0; k < classes; ++k) row(i)[k] = S::store(static_cast<T>(a[k]));
    }
  }

  Stored* row(int64_t i) { return logits.as<Stored>() + lead + i * problem.row_stride; }
  int64_t label(int64_t i) { return target.as<int64_t>()[i]; }
  bool is_ignored(int64_t i) { return label(i) == problem.ignore_index; }
  Real row_weight(int64_t i) {
    return is_ignored(i) ? 0 : problem.weight ? static_cast<Real>(weight.as<T>()[label(i)]) : 1;
  }
  Definition defined(int64_t i, Real exp_error = 1) {
    std::vector<Real> a;
    for (int64_t k = 0; k < problem.classes; ++k) a.push_back(S::load(row(i)[k]));
    const Real eps = std::numeric_limits<T>::epsilon() / 2;
    return define(a, label(i), problem, eps, std::numeric_limits<T>::min(), exp_error);
  }

  static void make_special(Random& random, int64_t y, std::vector<Real>* a) {
    const Real infinity = HUGE_VALL;
    const int64_t classes = static_cast<int64_t>(a->size());
    const int64_t places[] = {y, random.below(classes), classes - 1};
    Real& logit = (*a)[places[random.below(3)]];
    switch (random.below(8)) {
      case 0: logit = NAN; break;
      case 1: logit = infinity; break;
      case 2: (*a)[y] = -infinity; break;
      case 3: std::fill(a->begin(), a->end(), -infinity); break;
      case 4:  // all false
        for (int64_t k = 0; k < classes; ++k) (*a)[k] = k == y ? 1 : -infinity;
        break;
      case 5: logit *= 1000; break;
      default:
        for (Real& any : *a) any = random.chance(0.3) ? -infinity : any;
    }
  }

  Buffer logits, target, weight;
  int64_t lead;
  Problem problem;
};

// Everything that forward writes.
template <typename T>
struct Results {
  explicit Results(const Problem& p)
      : loss(count(p.reduction == Reduction::kNone ? p.rows : 1) * sizeof(T)),
        row_stats(count(p.rows) * sizeof(pclc::RowStats<T>)),
        grad(count(p.rows * p.classes) * element_size(p.dtype)),
        prob_gap(count(p.rows) * sizeof(T)),
        logit_gap(count(p.rows) * sizeof(T)),
        runner_up(count(p.rows) * sizeof(int64_t)),
        correct(count(p.rows) * sizeof(bool)) {}

  int64_t forward(const Problem& p, int threads) {
    return pclc::forward_cpu(p,
                             {loss.as<T>(), row_stats.as<T>(), grad.as<void>(), prob_gap.as<T>(),
                              logit_gap.as<T>(), runner_up.as<int64_t>(), correct.as<bool>()},
                             threads);
  }
  std::array<const Buffer*, 7> all() const {
    return {&loss, &row_stats, &grad, &prob_gap, &logit_gap, &runner_up, &correct};
  }
  template <typename Predicate>
  bool each(const Predicate& holds) const {
    const auto buffers = all();
    return std::all_of(buffers.begin(), buffers.end(), holds);
  }
  bool same_as(const Results& other) const {
    const auto mine = all(), others = other.all();
    return std::equal(mine.begin(), mine.end(), others.begin(),
                      [](const Buffer* a, const Buffer* b) { return a->same_as(*b); });
  }

  static size_t count(int64_t n) { return static_cast<size_t>(n); }
  static size_t element_size(DType dtype) {
    return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
  }

  Buffer loss, row_stats, grad, prob_gap, logit_gap, runner_up, correct;
};

}  // namespace test
