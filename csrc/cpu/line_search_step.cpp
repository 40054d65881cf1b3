#include "../core/line_search_step.hpp"

#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

// out = the place `step` of the way from x to x_adv.
template <typename T>
void write_along(T* out, const T* x, const T* x_adv, double step, int64_t dim) {
  const T t = static_cast<T>(step);
  if (t == T(1)) {
    memcpy(out, x_adv, dim * sizeof(T));
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) out[i] = along(x[i], x_adv[i], t);
}

}  // namespace

template <typename T, typename L>
void line_search_step(const LineSearchStepArgs<T, L>& args, Target target) {
  const Method method{args.tol, args.bisection, args.probes, args.max_iterations};
  parallel_rows(args.active, target.threads, [&](int64_t m) {
    const int64_t p = args.rows[m];
    Search& s = reinterpret_cast<Search*>(args.state)[p];
    Line* lines = reinterpret_cast<Line*>(args.lines) + p * args.ensemble;
    const T* x = args.x + p * args.dim;
    const auto far_end = [&](double line) {
      return args.candidates + (static_cast<int64_t>(line) * args.points + p) * args.dim;
    };
    bool nearer = false;
    if (args.logits == nullptr) {
      start_search(s, lines, args.ensemble, method);
      nearer = choose_next(s, lines, args.ensemble, method);
    } else if (s.line >= 0.0) {
      const double gap = gap_of(args.logits + m * args.classes, args.classes, args.label[p], args.rounding_tolerance);
      nearer = advance(s, gap, lines, args.ensemble, method);
    }
    if (nearer) write_along(args.closest + p * args.dim, x, far_end(s.best_line), s.best_step, args.dim);
    if (s.line >= 0.0) write_along(args.next + m * args.dim, x, far_end(s.line), s.step, args.dim);
  });
}

template void line_search_step(const LineSearchStepArgs<float, float>&, Target);
template void line_search_step(const LineSearchStepArgs<float, double>&, Target);
template void line_search_step(const LineSearchStepArgs<double, float>&, Target);
template void line_search_step(const LineSearchStepArgs<double, double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
