// line_search_step: the search for the nearest boundary along the lines from a point to its candidates (T section 3.2).
//
// A search evaluates one place of one line at a time. `advance` takes the gap there and chooses the next place. First
// it evaluates every line whose far end is unknown, at the far end or, if that is nearer, where the nearest known
// crossing lies: a line that has not crossed by then cannot be the nearest. Then it refines, step by step, the line
// with the nearest secant estimate of its crossing, until a bracket is narrow enough; a line that has not crossed
// within that radius is dropped. With one line this is a line search.
#pragma once

#include "logit_gap.hpp"

namespace robustperf {

// T: of the points, L: of the logits.
template <typename T, typename L>
struct LineSearchStepArgs {
  const L* logits;       // [active, classes], float or double; null at the start
  const int64_t* rows;   // [active], the point of each row
  const int64_t* label;  // [points]
  const T* x;            // [points, dim]
  const T* candidates;   // [ensemble, points, dim]
  double* lines;         // [points, ensemble, kLineFields]
  double* state;         // [points, kSearchFields]
  T* next;               // [active, dim], the place that each active point evaluates next
  T* closest;            // [points, dim], the nearest verified point so far
  int64_t active, points, ensemble, dim, classes;
  double rounding_tolerance;  // relative to the largest |logit|
  double tol;
  bool bisection;
  int64_t probes;
  double max_iterations;
};

ROBUSTPERF_DECLARE_OP(template <typename T, typename L>
                      void line_search_step(const LineSearchStepArgs<T, L>& args, Target target))

namespace ROBUSTPERF_TARGET {

enum Stage : int { kUnseen = 0, kOpen = 1, kClosed = 2 };

// What is known of the line from x to one candidate x'. Lines and searches are rows of float64 tensors, integers too.
struct Line {
  double length;      // |x' - x| in the norm of interest; infinite where there is nothing to search
  double gap_end;     // the gap at x', NaN where unknown
  double a, gap_a;    // the latest place of the bracket; while unseen the farthest place known not to have crossed
  double b, gap_b;    // its opposite: one of a and b has crossed, the other has not
  double c, gap_c;    // the place before, for inverse quadratic interpolation
  double iterations;  // evaluations inside the bracket
  double probe;       // equally spaced places evaluated
  double stage;       // Stage
};
constexpr int kLineFields = sizeof(Line) / sizeof(double);

// One point's search.
struct Search {
  double gap_x;        // the gap at x
  double step;         // the place to evaluate next, in (0, 1]
  double line;         // on which line; -1 when the search has ended
  double radius;       // the distance of the nearest crossing found; infinite when there is none
  double best_step;    // its place
  double best_line;    // its line, or -1
  double evaluations;  // images that the model evaluated
};
constexpr int kSearchFields = sizeof(Search) / sizeof(double);

struct Method {
  double tol;             // the widest bracket that ends a search
  bool bisection;         // halve, and nothing else
  int64_t probes;         // equally spaced places to evaluate first
  double max_iterations;  // in a bracket; then it is halved, so that the search ends whatever the gap does
};

ROBUSTPERF_HD inline bool has_crossed(double gap) { return gap < 0.0; }

// The crossed and the other end of an open bracket.
ROBUSTPERF_HD inline double crossed_end(const Line& line) { return has_crossed(line.gap_a) ? line.a : line.b; }
ROBUSTPERF_HD inline double uncrossed_end(const Line& line) { return has_crossed(line.gap_a) ? line.b : line.a; }

// The distance from x at which the secant of the bracket crosses zero.
ROBUSTPERF_HD inline double secant_estimate(const Line& line) {
  const double t = line.gap_a / (line.gap_a - line.gap_b);
  return line.length * (line.a + (finite(t) ? t : 0.5) * (line.b - line.a));
}

// The next place inside the bracket: the secant's first, then Chandrupatla's choice (1997) between inverse quadratic
// interpolation and bisection. It stays `tol` away from both ends, so that a root near an end closes the bracket.
ROBUSTPERF_HD inline double next_in_bracket(const Line& s, const Method& method) {
  const double width = abs_of(s.b - s.a);
  const double margin = 0.99 * method.tol / width;  // 0.99: the rounding of b - a must not exceed tol
  double t = 0.5;
  if (!method.bisection && s.iterations < method.max_iterations && finite(s.gap_a) && finite(s.gap_b)) {
    if (s.iterations == 0.0) {
      t = s.gap_a / (s.gap_a - s.gap_b);
    } else if (finite(s.gap_c)) {
      const double xi = (s.a - s.b) / (s.c - s.b);
      const double phi = (s.gap_a - s.gap_b) / (s.gap_c - s.gap_b);
      if (1.0 - ::sqrt(1.0 - xi) < phi && phi < ::sqrt(xi)) {
        t = s.gap_a / (s.gap_b - s.gap_a) * (s.gap_c / (s.gap_b - s.gap_c)) +
            (s.c - s.a) / (s.b - s.a) * (s.gap_a / (s.gap_c - s.gap_a)) * (s.gap_b / (s.gap_c - s.gap_b));
      }
    }
    t = margin < 0.5 && t == t ? max_of(margin, min_of(t, 1.0 - margin)) : 0.5;
  }
  const double place = s.a + t * (s.b - s.a);
  return place == s.a || place == s.b ? s.a + 0.5 * (s.b - s.a) : place;
}

// The first crossing found on a line: the bracket extends from the farthest place before it.
ROBUSTPERF_HD inline void open_bracket(Line& line, double place, double gap) {
  // a becomes the end nearer to the root: Chandrupatla starts from there.
  if (abs_of(gap) < abs_of(line.gap_a)) {
    line.b = line.a, line.gap_b = line.gap_a;
    line.a = place, line.gap_a = gap;
  } else {
    line.b = place, line.gap_b = gap;
  }
  line.stage = kOpen;
}

// Before any evaluation: lines whose far ends are known are open or closed already.
ROBUSTPERF_HD inline void start_search(Search& s, Line* lines, int64_t count, const Method& method) {
  for (int64_t i = 0; i < count; ++i) {
    Line& line = lines[i];
    line.a = 0.0, line.gap_a = s.gap_x;
    if (!finite(line.length))
      line.stage = kClosed;
    else if (method.probes > 0 || line.gap_end != line.gap_end)
      line.stage = kUnseen;
    else if (has_crossed(line.gap_end))
      open_bracket(line, 1.0, line.gap_end);
    else
      line.stage = kClosed;
  }
}

// The place to evaluate next on an unseen line that matters up to `end`: the next of the equally spaced places, or the
// end after them.
ROBUSTPERF_HD inline double next_probe(const Line& line, double end, const Method& method) {
  const double place = (line.probe + 1.0) / static_cast<double>(method.probes + 1);
  return line.probe < static_cast<double>(method.probes) && place < end ? place : end;
}

// Chooses the place to evaluate next. True when it has found a crossing nearer than any before.
ROBUSTPERF_HD inline bool choose_next(Search& s, Line* lines, int64_t count, const Method& method) {
  bool nearer = false;
  while (true) {
    int64_t unseen = -1, open = -1;
    double bound = s.radius, nearest = HUGE_VAL;
    for (int64_t i = 0; i < count; ++i) {
      Line& line = lines[i];
      if (line.stage == kUnseen) {
        if (unseen < 0 || line.length < lines[unseen].length) unseen = i;
      } else if (line.stage == kOpen) {
        // A crossing nearer than the radius by less than the tolerance is not worth an evaluation.
        const bool narrow = abs_of(line.b - line.a) <= method.tol;
        if (!narrow && uncrossed_end(line) >= s.radius / line.length - method.tol) {
          line.stage = kClosed;
          continue;
        }
        bound = min_of(bound, crossed_end(line) * line.length);
        const double distance = narrow ? -1.0 : secant_estimate(line);
        if (open < 0 || distance < nearest) open = i, nearest = distance;
      }
    }
    if (unseen >= 0) {
      Line& line = lines[unseen];
      const double end = min_of(1.0, bound / line.length - method.tol);
      const double place = next_probe(line, end, method);
      if (end <= line.a) {
        line.stage = kClosed;
      } else if (place == 1.0 && line.gap_end == line.gap_end) {  // known already
        if (has_crossed(line.gap_end))
          open_bracket(line, 1.0, line.gap_end);
        else
          line.stage = kClosed;
      } else {
        s.line = static_cast<double>(unseen), s.step = place;
        return nearer;
      }
      continue;
    }
    s.line = static_cast<double>(open);
    if (open < 0) return nearer;
    Line& line = lines[open];
    const double within = s.radius / line.length - method.tol, place = next_in_bracket(line, method);
    s.step = within < crossed_end(line) ? within : place;
    // A place equal to an end means that there is no number between the two.
    if (abs_of(line.b - line.a) > method.tol && s.step != line.a && s.step != line.b) return nearer;
    line.stage = kClosed;
    if (crossed_end(line) * line.length < s.radius) {
      s.best_step = crossed_end(line), s.best_line = s.line;
      s.radius = s.best_step * line.length;
      nearer = true;
    }
  }
}

// Takes the gap at s.step of s.line and chooses the next place, as `choose_next` does.
ROBUSTPERF_HD inline bool advance(Search& s, double gap, Line* lines, int64_t count, const Method& method) {
  s.evaluations += 1.0;
  Line& line = lines[static_cast<int64_t>(s.line)];
  if (line.stage == kOpen) {
    line.iterations += 1.0;
    if (has_crossed(gap) == has_crossed(line.gap_a)) {
      line.c = line.a, line.gap_c = line.gap_a;
    } else {
      line.c = line.b, line.gap_c = line.gap_b;
      line.b = line.a, line.gap_b = line.gap_a;
    }
    line.a = s.step, line.gap_a = gap;
  } else if (has_crossed(gap)) {
    open_bracket(line, s.step, gap);
  } else {
    const bool probe = s.step == (line.probe + 1.0) / static_cast<double>(method.probes + 1);
    line.a = s.step, line.gap_a = gap;
    if (probe && s.step < 1.0)
      line.probe += 1.0;
    else
      line.stage = kClosed;
  }
  return choose_next(s, lines, count, method);
}

// x + t (x' - x) for t < 1, never outside the interval between the two. At t = 1 the place is x' itself, bit for bit.
template <typename T>
ROBUSTPERF_HD inline T along(T x, T x_adv, T t) {
  const T y = x + t * (x_adv - x);
  const T low = min_of(x, x_adv), high = max_of(x, x_adv);
  return max_of(low, min_of(y, high));
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
