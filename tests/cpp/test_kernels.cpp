// The CPU kernels through the contract in pclc.h, against the definition of the loss.

#include "problems.h"

namespace test {
namespace {

long cases_seen[3] = {};  // rows where all, none and some of the hinges were active

// Compilers can put MMX instructions into vectorised code for SSE2 and forget to end them; every
// later use of long double is then NaN.
bool x87_is_usable() {
  volatile Real two = 2;
  return two * two == 4;
}

// Runs one problem in every way there is and compares.
template <class S>
class Trial {
 public:
  using T = typename S::Compute;

  explicit Trial(Case<S>& input) : case_(input), p_(input.problem), results_(p_) {
    for (int64_t i = 0; i < p_.rows; ++i) total_ += case_.row_weight(i);
    if (p_.reduction != Reduction::kMean) total_ = 1;
    rounding_ = static_cast<Real>(p_.rows) * std::numeric_limits<double>::epsilon() / 2;
  }

  void run(Random& random) {
    const Buffer before(case_.logits, Buffer::Copy{});
    expect(results_.forward(p_, 1) == pclc::kNoBadTarget, "forward found a bad target");
    if (!expect(x87_is_usable(), "forward left MMX registers in use")) return;
    check_forward();
    check_same_from_other_ways();
    check_grad(results_.grad, nullptr, 0);
    const int64_t stride = p_.reduction == Reduction::kNone ? 1 + random.below(2) : 0;
    std::vector<T> upstream(static_cast<size_t>(p_.rows * stride + 1));
    for (T& u : upstream) u = static_cast<T>(random.pick({0.0, 1.0, -0.3, 65536.0}));
    Buffer grad(results_.grad.size());
    pclc::backward_cpu(p_, results_.row_stats.template as<void>(), {upstream.data(), stride},
                       grad.as<void>(), 1);
    if (!expect(x87_is_usable(), "backward left MMX registers in use")) return;
    check_grad(grad, upstream.data(), stride);
    expect(results_.each([](const Buffer* b) { return b->front_intact(); }) && grad.front_intact(),
           "written outside the outputs");
    expect(case_.logits.same_as(before), "the logits were written to");
  }

 private:
  bool expect(bool ok, const char* what, int64_t row = 0, int64_t k = 0, Real got = 0,
              const Bounded& expected = {}) {
    return check(ok,
                 "%s, row %ld of %ld, class %ld of %ld (got %.9Lg, expected %.9Lg +- %.2Lg): %s, "
                 "reduction %d, mode %d, y %ld",
                 what, long(row), long(p_.rows), long(k), long(p_.classes), got, expected.value,
                 expected.error, Type<S>::kName, int(p_.reduction), int(p_.lc_mode),
                 row < p_.rows ? long(case_.label(row)) : -1L);
  }

  void check_forward() {
    const Format& format = kArithmetic<T>;
    const T* losses = results_.loss.template as<T>();
    Bounded sum;
    for (int64_t i = 0; i < p_.rows; ++i) {
      rows_.push_back(case_.is_ignored(i) ? ignored() : case_.defined(i));
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
      if (p_.classes < 3 || row.runner_up < 0) continue;
      ++cases_seen[row.active == p_.classes - 1 ? 0 : row.active == 0 ? 1 : 2];
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

  // Other numbers of threads, outputs that are not wanted, and backward: the same bits.
  void check_same_from_other_ways() {
    Results<T> threaded(p_), bare(p_);
    threaded.forward(p_, 2);
    expect(threaded.same_as(results_), "2 threads differ from 1");
    pclc::forward_cpu(
        p_, {bare.loss.template as<T>(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr}, 3);
    expect(bare.loss.same_as(results_.loss), "the loss alone differs");
    const T one = 1;
    for (int threads : {1, 2}) {
      Buffer grad(results_.grad.size());
      pclc::backward_cpu(p_, results_.row_stats.template as<void>(), {&one, 0},
                         grad.template as<void>(), threads);
      expect(grad.same_as(results_.grad), "backward differs from forward");
    }
  }

  Case<S>& case_;
  const Problem& p_;
  Results<T> results_;
  std::vector<Definition> rows_;
  Real total_ = 0;     // the mean's denominator
  Real rounding_ = 0;  // of sums over rows, which are in double
};

template <class S>
void test_against_definition(Random& random) {
  for (int64_t classes :
       {1, 2, 3, 4, 5, 10, 31, 32, 33, 63, 64, 65, 100, 1023, 1024, 1025, 2048, 5000}) {
    const int64_t most = classes <= 65 ? 35 : classes <= 100 ? 6 : 3;
    for (LcMode mode : {LcMode::kHard, LcMode::kSoft, LcMode::kAll}) {
      for (Reduction reduction : {Reduction::kNone, Reduction::kMean, Reduction::kSum}) {
        for (bool pc_mean : {false, true}) {
          const Shape shape = draw_shape(random, 1 + random.below(most), classes);
          Case<S> input(random, shape, mode, reduction, pc_mean);
          Trial<S>(input).run(random);
        }
      }
    }
  }
  for (int64_t classes : {0, 1, 10, 100}) {  // nothing, or nothing but ignored rows
    for (Reduction reduction : {Reduction::kNone, Reduction::kMean, Reduction::kSum}) {
      const Shape shape = draw_shape(random, classes == 0 ? 3 : 0, classes);
      Case<S> input(random, shape, LcMode::kHard, reduction, false);
      Trial<S>(input).run(random);
    }
  }
}

// Large enough that threads are used.
template <class S>
void test_threads(Random& random) {
  const Shape shapes[] = {{4000, 10, 10, 0}, {500, 100, 101, 1}, {20, 2049, 2049, 0}};
  for (const Shape& shape : shapes) {
    for (LcMode mode : {LcMode::kHard, LcMode::kSoft, LcMode::kAll}) {
      Case<S> input(random, shape, mode, random.pick({Reduction::kMean, Reduction::kNone}), false);
      Trial<S>(input).run(random);
    }
  }
}

// The first bad target is named and nothing is written.
template <class S>
void test_bad_targets(Random& random) {
  for (int64_t classes : {0, 1, 10, 100, 2049}) {
    for (int64_t bad : {int64_t(-1), classes, classes + 7, INT64_MIN, INT64_MAX}) {
      const Shape shape{19, classes, classes, 0};
      Case<S> input(random, shape, LcMode::kSoft, Reduction::kMean, false);
      if (bad == input.problem.ignore_index) continue;
      const int64_t first = random.below(shape.rows);
      input.target.template as<int64_t>()[first] = bad;
      input.target.template as<int64_t>()[shape.rows - 1] = bad;
      Results<typename S::Compute> results(input.problem);
      const int64_t found = results.forward(input.problem, 2);
      check(found == first, "bad target %ld at %ld is reported at %ld", long(bad), long(first),
            long(found));
      check(results.each([](const Buffer* b) { return b->untouched(); }),
            "forward wrote in spite of a bad target");
      const typename S::Compute one = 1;
      Buffer grad(results.grad.size());
      const int64_t found_backward = pclc::backward_cpu(
          input.problem, results.row_stats.template as<void>(), {&one, 0}, grad.as<void>(), 2);
      check(found_backward == first && grad.untouched(), "backward took a bad target");
    }
  }
}

template <class S>
void test_type(uint64_t seed) {
  Random random(seed);
  test_against_definition<S>(random);
  test_threads<S>(random);
  test_bad_targets<S>(random);
}

}  // namespace
}  // namespace test

int main() {
  test::test_type<pclc::Float32>(1);
  test::test_type<pclc::BFloat16>(2);
  test::test_type<pclc::Float16>(3);
  test::test_type<pclc::Float64>(4);
  for (long count : test::cases_seen) {
    test::check(count > 1000, "a case of Eq. 6 was tested %ld times", count);
  }
  return test::report();
}
