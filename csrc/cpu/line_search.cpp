#include "../core/bracket.hpp"
#include "../core/gap.hpp"
#include "kernels.hpp"
#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_ISA {

template <typename L>
void Kernels::logit_gap(const GapArgs& args) {
  const L* logits = static_cast<const L*>(args.logits);
  for (int64_t row = 0; row < args.rows; ++row)
    args.gap[row] = gap_of(logits + row * args.classes, args.classes, args.label[row], args.allowance);
}

template <typename T>
static void write_along(T* out, const T* x, const T* x_adv, double step, int64_t dim) {
  const T t = static_cast<T>(step);
  if (t == T(1)) {
    memcpy(out, x_adv, dim * sizeof(T));
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) out[i] = along(x[i], x_adv[i], t);
}

template <typename T, typename L>
void Kernels::line_search_step(const LineSearchArgs<T>& args, int threads) {
  const Method method{args.tol, args.bisection, args.probes, args.patience};
  parallel_rows(args.active, threads, [&](int64_t m) {
    const int64_t p = args.rows[m];
    Search& s = reinterpret_cast<Search*>(args.state)[p];
    Line* lines = reinterpret_cast<Line*>(args.lines) + p * args.ensemble;
    const T* x = args.x + p * args.dim;
    const auto far_end = [&](double line) {
      return args.candidates + (static_cast<int64_t>(line) * args.points + p) * args.dim;
    };
    bool nearer = false;
    if (args.logits == nullptr) {
      begin(s, lines, args.ensemble, method);
      nearer = choose(s, lines, args.ensemble, method);
    } else if (s.line >= 0.0) {
      const L* logits = static_cast<const L*>(args.logits) + m * args.classes;
      const double gap = gap_of(logits, args.classes, args.label[p], args.allowance);
      nearer = advance(s, gap, lines, args.ensemble, method);
    }
    if (nearer) write_along(args.closest + p * args.dim, x, far_end(s.best_line), s.best_step, args.dim);
    if (s.line >= 0.0) write_along(args.next + m * args.dim, x, far_end(s.line), s.step, args.dim);
  });
}

template void Kernels::logit_gap<float>(const GapArgs&);
template void Kernels::logit_gap<double>(const GapArgs&);
template void Kernels::line_search_step<float, float>(const LineSearchArgs<float>&, int);
template void Kernels::line_search_step<float, double>(const LineSearchArgs<float>&, int);
template void Kernels::line_search_step<double, float>(const LineSearchArgs<double>&, int);
template void Kernels::line_search_step<double, double>(const LineSearchArgs<double>&, int);

}  // namespace robustperf::ROBUSTPERF_ISA
