// The CUDA kernels on an emulated device, through the launches that a GPU gets, against the
// definition of the loss.

#include "../cpp/problems.h"
#include "emulated_gpu.h"
#include "pclc_cuda_launches.h"

namespace test {
namespace {

using pclc::device::emulated::gpu;

// A product more than the CPU's exponential rounds: x log2(e), and log2(e) itself.
constexpr Real kExpError = 2.25L;

template <class S>
struct OnDevice;
template <>
struct OnDevice<pclc::Float32> : pclc::device::Launches<pclc::device::Float32> {};
template <>
struct OnDevice<pclc::BFloat16> : pclc::device::Launches<pclc::device::BFloat16> {};
template <>
struct OnDevice<pclc::Float16> : pclc::device::Launches<pclc::device::Float16> {};
template <>
struct OnDevice<pclc::Float64> : pclc::device::Launches<pclc::device::Float64> {};

template <class S, typename T = typename S::Compute>
void forward(const Problem& p, const Results<T>& r) {
  std::vector<double> workspace(pclc::kCudaWorkspaceBytes / sizeof(double), NAN);
  OnDevice<S>::forward(
      p,
      {r.loss.template as<T>(), r.row_stats.template as<T>(), r.grad.template as<void>(),
       r.prob_gap.template as<T>(), r.logit_gap.template as<T>(),
       r.runner_up.template as<int64_t>(), r.correct.template as<bool>()},
      workspace.data(), {});
}

template <class S>
void backward(const Problem& p, const Buffer& row_stats, const pclc::GradOutput& upstream,
              bool has_unit_grad, const Buffer& grad) {
  OnDevice<S>::backward(p, row_stats.as<void>(), upstream, has_unit_grad, grad.as<void>(), {});
}

template <class S>
class Trial {
 public:
  using T = typename S::Compute;

  explicit Trial(Case<S>& input) : case_(input), p_(input.problem), results_(p_) {
    for (int64_t i = 0; i < p_.rows; ++i) total_ += case_.row_weight(i);
    if (p_.reduction != Reduction::kMean) total_ = 1;
    rounding_ = (static_cast<Real>(p_.rows) * std::numeric_limits<double>::epsilon() +
                 2 * std::numeric_limits<T>::epsilon()) /
                2;
  }

  void run(Random& random) {
    const Buffer before(case_.logits, Buffer::Copy{});
    forward<S>(p_, results_);
    check_forward();
    check_grad(results_.grad, nullptr, 0);
    check_same_from_other_ways();
    const int64_t stride = p_.reduction == Reduction::kNone ? 1 + random.below(2) : 0;
    std::vector<T> upstream(static_cast<size_t>(p_.rows * stride + 1));
    for (T& u : upstream) u = static_cast<T>(random.pick({0.0, 1.0, -0.3, 65536.0}));
    Buffer grad(results_.grad.size());
    backward<S>(p_, results_.row_stats, {upstream.data(), stride}, false, grad);
    check_grad(grad, upstream.data(), stride);
    expect(results_.each([](const Buffer* b) { return b->front_intact(); }) && grad.front_intact(),
           "written outside the outputs");
    expect(case_.logits.same_as(before), "the logits were written to");
    expect(gpu.counter == 0, "the counter of blocks is not 0 again");
  }

 private:
  bool expect(bool ok, const char* what, int64_t row = 0, int64_t k = 0, Real got = 0,
              const Bounded& expected = {}) {
    return check(ok,
                 "%s, row %ld of %ld, class %ld of %ld (got %.9Lg, expected %.9Lg +- %.2Lg): %s, "
                 "reduction %d, mode %d, y %ld, %s",
                 what, long(row), long(p_.rows), long(k), long(p_.classes), got, expected.value,
                 expected.error, Type<S>::kName, int(p_.reduction), int(p_.lc_mode),
                 row < p_.rows ? long(case_.label(row)) : -1L, gpu.started.back().c_str());
  }

  void check_forward() {
    const Format& format = kArithmetic<T>;
    const T* losses = results_.loss.template as<T>();
    Bounded sum;
    for (int64_t i = 0; i < p_.rows; ++i) {
      rows_.push_back(case_.is_ignored(i) ? ignored() : case_.defined(i, kExpError));
      const Definition& row = rows_.back();
      const Bounded loss = scaled(row.loss, case_.row_weight(i));
      sum.value += loss.value, sum.error += loss.error;
      if (p_.reduction == Reduction::kNone) {
        expect(within(losses[i], loss, format), "loss", i, 0, losses[i], loss);
      }
      const T prob_gap = results_.prob_gap.template as<T>()[i];
      const T logit_gap = results_.logit_gap.template as<T>()[i];
      expect(within(prob_gap, row.prob_gap, format), "prob_gap", i, 0, prob_gap, row.prob_gap);
      expect(within(logit_gap, row.logit_gap, format), "logit_gap", i, 0, logit_gap, row.logit_gap);
      expect(results_.runner_up.template as<int64_t>()[i] == row.runner_up, "runner_up", i);
      expect(results_.correct.template as<bool>()[i] == row.correct, "correct", i);
    }
    if (p_.reduction == Reduction::kNone) return;
    sum.error += std::fabs(sum.value) * rounding_;
    sum = scaled(sum, 1 / total_);  // NaN where nothing is averaged
    expect(within(losses[0], sum, format), "reduced loss", 0, 0, losses[0], sum);
  }

  Definition ignored() const {
    Definition d;
    d.grad.resize(static_cast<size_t>(p_.classes));
    d.prob_gap.value = d.logit_gap.value = NAN;
    return d;
  }

  void check_grad(const Buffer& grad, const T* upstream, int64_t stride) {
    const auto* entries = grad.template as<typename S::Stored>();
    for (int64_t i = 0; i < p_.rows; ++i) {
      const Real weight = total_ == 0 ? 0 : case_.row_weight(i) / total_;
      const Real scale = weight * (upstream ? static_cast<Real>(upstream[i * stride]) : 1);
      for (int64_t k = 0; k < p_.classes; ++k) {
        const Real got = S::load(entries[i * p_.classes + k]);
        Bounded expected = scaled(rows_[i].grad[k], scale);
        expected.error += std::fabs(expected.value) * rounding_;
        if (!expect(within(got, expected, Type<S>::kFormat), "gradient", i, k, got, expected)) {
          return;
        }
      }
    }
  }

  // Threads and blocks in another order, outputs that are not wanted, the gradient in the place of
  // the logits, and backward: the same bits.
  void check_same_from_other_ways() {
    gpu.reversed = true;
    Results<T> again(p_);
    forward<S>(p_, again);
    expect(again.same_as(results_), "other orders of threads differ");
    gpu.reversed = false;

    std::vector<double> workspace(pclc::kCudaWorkspaceBytes / sizeof(double), NAN);
    if (results_.grad.template as<char>() == nullptr || is_aligned(results_.grad)) {
      Results<T> bare(p_);
      OnDevice<S>::forward(
          p_, {bare.loss.template as<T>(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
          workspace.data(), {});
      expect(bare.loss.same_as(results_.loss), "the loss alone differs");
    }
    if (p_.row_stride == p_.classes && case_.lead == 0) {
      const Buffer both(case_.logits, Buffer::Copy{});
      Problem in_place = p_;
      in_place.logits = both.as<void>();
      Results<T> rest(p_);
      OnDevice<S>::forward(in_place,
                           {rest.loss.template as<T>(), nullptr, both.as<void>(), nullptr, nullptr,
                            nullptr, nullptr},
                           workspace.data(), {});
      expect(both.same_as(results_.grad), "the gradient in the place of the logits differs");
    }
    const T one = 1;
    Buffer grad(results_.grad.size());
    backward<S>(p_, results_.row_stats, {&one, 0}, true, grad);
    if (p_.reduction == Reduction::kNone) {
      expect(grad.same_as(results_.grad), "backward differs from forward");
      return;
    }
    expect(grad.untouched(), "backward wrote a gradient that is there");
    for (bool reversed : {false, true}) {
      gpu.reversed = reversed;
      backward<S>(p_, results_.row_stats, {&one, 0}, false, grad);
      expect(grad.same_as(results_.grad), "backward differs from forward");
    }
    gpu.reversed = false;
  }

  static bool is_aligned(const Buffer& buffer) {
    return reinterpret_cast<uintptr_t>(buffer.as<char>()) % 16 == 0;
  }

  Case<S>& case_;
  const Problem& p_;
  Results<T> results_;
  std::vector<Definition> rows_;
  Real total_ = 0;     // the mean's denominator
  Real rounding_ = 0;  // of the scale, and of sums over rows, which are in double
};

constexpr LcMode kModes[] = {LcMode::kHard, LcMode::kSoft, LcMode::kAll};
constexpr Reduction kReductions[] = {Reduction::kNone, Reduction::kMean, Reduction::kSum};

// Shapes that meet the ends of the kernels, and one word on which kernel took them.
struct Sizes {
  const char* kernel;
  std::vector<int64_t> classes;
  int64_t most_rows;
};

template <class S>
void test_sizes(Random& random, const Sizes& sizes, int modes) {
  for (int64_t classes : sizes.classes) {
    for (int i = 0; i < modes; ++i) {
      const LcMode mode = modes < 3 ? random.pick(kModes) : kModes[i % 3];
      const Reduction reduction = modes < 9 ? random.pick(kReductions) : kReductions[i / 3 % 3];
      const Shape shape = draw_shape(random, 1 + random.below(sizes.most_rows), classes);
      Case<S> input(random, shape, mode, reduction, random.chance(0.5));
      gpu.started.clear();
      Trial<S>(input).run(random);
      check(gpu.started[0] == sizes.kernel, "%ld classes of %s went to %s", long(classes),
            Type<S>::kName, gpu.started[0].c_str());
    }
  }
}

// Enough rows that their weights are summed by a launch of its own.
template <class S>
void test_many_rows(Random& random) {
  for (int64_t rows : {1023, 1024, 1025, 3001}) {
    for (int64_t classes : {1, 5, 130}) {
      if (classes == 130 && rows != 1025) continue;
      const Shape shape{rows, classes, classes, 0};
      Case<S> input(random, shape, random.pick(kModes), Reduction::kMean, false);
      gpu.started.clear();
      Trial<S>(input).run(random);
      check((gpu.started[0] == std::string("prepare_weights")) == (rows > 1024),
            "%ld rows began with %s", long(rows), gpu.started[0].c_str());
    }
  }
}

// A target that is no class: NaN in its row, and the other rows as they are without it.
template <class S>
void test_bad_targets(Random& random) {
  using T = typename S::Compute;
  for (int64_t classes : {1, 10, 100, 300, 5000, 17000}) {
    for (int64_t bad :
         {int64_t(-1), classes, classes + 7, INT64_MIN, INT64_MAX, int64_t(1) << 32}) {
      const Shape shape{5, classes, classes, 0};
      Case<S> input(random, shape, random.pick(kModes), Reduction::kNone, false);
      if (bad == input.problem.ignore_index) continue;
      Results<T> good(input.problem), poisoned(input.problem);
      forward<S>(input.problem, good);
      input.target.template as<int64_t>()[2] = bad;
      forward<S>(input.problem, poisoned);
      Buffer grad(good.grad.size());
      const std::vector<T> ones(5, 1);
      backward<S>(input.problem, poisoned.row_stats, {ones.data(), 1}, false, grad);
      check(grad.same_as(poisoned.grad), "backward differs for target %ld of %ld", long(bad),
            long(classes));
      const auto* old = good.grad.template as<typename S::Stored>();
      const auto* entries = grad.template as<typename S::Stored>();
      bool all_nan = true;
      for (int64_t k = 0; k < classes; ++k) {
        all_nan = all_nan && std::isnan(S::load(entries[2 * classes + k]));
      }
      const size_t row = static_cast<size_t>(classes) * sizeof(*old);
      const T* losses = poisoned.loss.template as<T>();
      check(all_nan && std::isnan(losses[2]), "target %ld of %ld is no NaN", long(bad),
            long(classes));
      check(std::memcmp(old, entries, 2 * row) == 0 &&
                std::memcmp(old + 3 * classes, entries + 3 * classes, 2 * row) == 0 &&
                std::memcmp(losses, good.loss.template as<T>(), 2 * sizeof(T)) == 0,
            "target %ld of %ld has changed other rows", long(bad), long(classes));
    }
  }
}

template <class S>
void test_nothing(Random& random) {
  for (int64_t classes : {0, 1, 10, 300, 20000}) {  // nothing, or nothing but ignored rows
    for (Reduction reduction : kReductions) {
      const Shape shape = draw_shape(random, classes == 0 ? 3 : 0, classes);
      Case<S> input(random, shape, LcMode::kHard, reduction, false);
      gpu.started.clear();
      Trial<S>(input).run(random);
    }
  }
}

template <class S>
void test_registers(Random& random) {
  test_sizes<S>(random,
                {"forward_lanes", {1, 2, 3, 7, 8, 9, 10, 31, 32, 33, 64, 100, 127, 128}, 40}, 9);
  test_sizes<S>(random, {"forward_warp", {129, 200, 248, 249, 250, 251, 253, 256, 257, 1000}, 9},
                3);
  test_sizes<S>(random, {"forward_warp", {1017, 1018, 1021, 1022, 1024, 1025, 2033}, 5}, 2);
  const char* kernel = sizeof(typename S::Stored) == 2 ? "forward_warp" : "forward_block";
  test_sizes<S>(random, {kernel, {2049, 4080, 4096}, 4}, 1);
  test_sizes<S>(random, {"forward_block", {4097, 5000, 8185, 8193}, 4}, 1);
  test_sizes<S>(random, {"forward_block", {16383, 16384}, 2}, 1);
}

template <class S>
void test_shared(Random& random) {
  const char* kernel = sizeof(typename S::Stored) == 2 ? "forward_block" : "forward_cluster";
  test_sizes<S>(random, {kernel, {16385, 32761, 32768}, 2}, 1);
  test_sizes<S>(random, {"forward_cluster", {32769, 50257}, 3}, 1);
  gpu.clusters = 0;
  const int64_t most = 131072 / static_cast<int64_t>(sizeof(typename S::Stored));
  if (most > 32768) test_sizes<S>(random, {"forward_block", {32769}, 2}, 1);
  test_sizes<S>(random, {"forward_streamed", {most + 1}, 1}, 1);
  gpu.clusters = 2;
}

// Every size of a cluster, and rows that none holds.
template <class S>
void test_longest(Random& random) {
  test_sizes<S>(random, {"forward_cluster", {65536, 65537, 131073, 262144}, 1}, 1);
  test_sizes<S>(random, {"forward_streamed", {262145}, 1}, 1);
}

template <class S>
void test_type(uint64_t seed) {
  Random random(seed);
  test_nothing<S>(random);
  test_many_rows<S>(random);
  test_bad_targets<S>(random);
  if constexpr (sizeof(typename S::Compute) == 4) {
    test_registers<S>(random);
    test_shared<S>(random);
    if constexpr (sizeof(typename S::Stored) == 4) test_longest<S>(random);
  } else {
    test_sizes<S>(random, {"forward_streamed", {1, 2, 3, 10, 31, 127, 1000, 1025, 4099}, 7}, 3);
  }
}

}  // namespace
}  // namespace test

int main() {
  test::test_type<pclc::Float32>(1);
  test::test_type<pclc::BFloat16>(2);
  test::test_type<pclc::Float16>(3);
  test::test_type<pclc::Float64>(4);
  return test::report();
}
