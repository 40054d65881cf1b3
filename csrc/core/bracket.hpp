// The search for the nearest boundary along the lines from one point to its candidates (T section 3.2).
//
// A point looks at one place of one line at a time. `advance` takes the gap seen there and decides the next place:
// further along the line, inside the bracket, or on the next candidate's line; one state serves line_search (one
// candidate) and closest_boundary (several, with pruning).
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

enum Stage : int { kWaiting = 0, kProbe = 1, kEnd = 2, kInside = 3, kDone = 4 };

// One row of the state tensor: float64 throughout, so that one tensor carries it (the integers are exact).
struct Search {
  double gap_x;           // the gap at x
  double a, gap_a;        // the latest place of the bracket
  double b, gap_b;        // its opposite: one of a and b has crossed, the other has not
  double c, gap_c;        // the place before, for inverse quadratic interpolation
  double step;            // the place to look at next, in (0, 1]
  double end;             // how much of this line is still of interest
  double looks;           // looks inside this bracket
  double probe;           // equally spaced places looked at on this line
  double position;        // in the order of the candidates
  double candidate;       // the line
  double stage;           // Stage
  double radius;          // the distance of the nearest crossing so far; infinite when there is none
  double best_step;       // its place
  double best_candidate;  // its line, or -1
  double evaluations;     // images that the model saw
};
constexpr int kSearchFields = sizeof(Search) / sizeof(double);

// What is known of a point's lines before they are searched; rows of A numbers.
struct Lines {
  const double* length;   // |x' - x| in the norm of interest; infinite where there is nothing to search
  const double* gap_end;  // the gap at x', NaN where unknown
  const int64_t* order;   // the candidates in the order to be searched
  int64_t count;          // A
};

struct Method {
  double tol;       // the widest bracket that ends a search
  bool bisection;   // halve, and nothing else
  int64_t probes;   // equally spaced places to look at first
  double patience;  // past so many looks in a bracket it is halved: whatever the gap does, the search ends
};

ROBUSTPERF_HD inline bool has_crossed(double gap) { return gap < 0.0; }

// The next place inside the bracket: the secant first, then Chandrupatla's choice (1997) between inverse quadratic
// interpolation and halving. Kept `tol` away from both ends, so that a root beside an end closes the bracket.
ROBUSTPERF_HD inline double inside(const Search& s, const Method& method) {
  const double width = magnitude(s.b - s.a);
  const double margin = 0.99 * method.tol / width;  // 0.99: so that the rounding of b - a cannot exceed tol
  double t = 0.5;
  if (!method.bisection && s.looks < method.patience && finite(s.gap_a) && finite(s.gap_b)) {
    if (s.looks == 0.0) {
      t = s.gap_a / (s.gap_a - s.gap_b);
    } else if (finite(s.gap_c)) {
      const double xi = (s.a - s.b) / (s.c - s.b);
      const double phi = (s.gap_a - s.gap_b) / (s.gap_c - s.gap_b);
      if (1.0 - ::sqrt(1.0 - xi) < phi && phi < ::sqrt(xi)) {
        t = s.gap_a / (s.gap_b - s.gap_a) * (s.gap_c / (s.gap_b - s.gap_c)) +
            (s.c - s.a) / (s.b - s.a) * (s.gap_a / (s.gap_c - s.gap_a)) * (s.gap_b / (s.gap_c - s.gap_b));
      }
    }
    t = margin < 0.5 && t == t ? larger(margin, smaller(t, 1.0 - margin)) : 0.5;
  }
  const double place = s.a + t * (s.b - s.a);
  return place == s.a || place == s.b ? s.a + 0.5 * (s.b - s.a) : place;
}

ROBUSTPERF_HD inline void open_bracket(Search& s, double crossed, double gap, const Method& method) {
  // a becomes the end nearer to the root: Chandrupatla starts from there.
  if (magnitude(gap) < magnitude(s.gap_a)) {
    s.b = s.a, s.gap_b = s.gap_a;
    s.a = crossed, s.gap_a = gap;
  } else {
    s.b = crossed, s.gap_b = gap;
  }
  s.stage = kInside;
  s.looks = 0.0;
  s.step = inside(s, method);
}

// The next of the equally spaced places, or the end of the line when they are done.
ROBUSTPERF_HD inline void look_ahead(Search& s, const Method& method) {
  s.probe += 1.0;
  const double place = s.probe / static_cast<double>(method.probes + 1);
  const bool ahead = s.probe <= static_cast<double>(method.probes) && place < s.end;
  s.stage = ahead ? kProbe : kEnd;
  s.step = ahead ? place : s.end;
}

// Moves to the next line that could hold a nearer crossing; kDone when there is none.
ROBUSTPERF_HD inline void next_line(Search& s, const Lines& lines, const Method& method) {
  while (true) {
    s.position += 1.0;
    if (s.position >= static_cast<double>(lines.count)) break;
    const int64_t candidate = lines.order[static_cast<int64_t>(s.position)];
    const double length = lines.length[candidate];
    if (!finite(length)) continue;
    s.candidate = static_cast<double>(candidate);
    // Beyond the best radius so far nothing on this line matters, nor does what is nearer by less than the tolerance:
    // one look there can drop the line.
    s.end = smaller(1.0, s.radius / length - method.tol);
    if (s.end <= 0.0) continue;
    s.a = 0.0, s.gap_a = s.gap_x;
    s.probe = 0.0;
    const double gap_end = lines.gap_end[candidate];
    if (method.probes == 0 && s.end == 1.0 && has_crossed(gap_end)) open_bracket(s, 1.0, gap_end, method);
    else look_ahead(s, method);
    return;
  }
  s.stage = kDone;
}

// Takes the gap seen at s.step. True when a crossing was closed in on, nearer than any before.
ROBUSTPERF_HD inline bool advance(Search& s, double gap, const Lines& lines, const Method& method) {
  s.evaluations += 1.0;
  const bool crossed = has_crossed(gap);
  if (s.stage != kInside) {
    if (crossed) {
      open_bracket(s, s.step, gap, method);
    } else {
      s.a = s.step, s.gap_a = gap;
      if (s.stage == kProbe) look_ahead(s, method);
      else next_line(s, lines, method);
      return false;
    }
  } else {
    s.looks += 1.0;
    if (crossed == has_crossed(s.gap_a)) {
      s.c = s.a, s.gap_c = s.gap_a;
    } else {
      s.c = s.b, s.gap_c = s.gap_b;
      s.b = s.a, s.gap_b = s.gap_a;
    }
    s.a = s.step, s.gap_a = gap;
    s.step = inside(s, method);
  }
  // A place equal to an end means that no number lies between the two.
  if (magnitude(s.b - s.a) > method.tol && s.step != s.a && s.step != s.b) return false;
  s.best_step = has_crossed(s.gap_a) ? s.a : s.b;
  s.best_candidate = s.candidate;
  s.radius = s.best_step * lines.length[static_cast<int64_t>(s.candidate)];
  next_line(s, lines, method);
  return true;
}

// x + t (x' - x) for t < 1, never outside the interval between the two. At t = 1 the place is x' itself, bit for bit.
template <typename T>
ROBUSTPERF_HD inline T along(T x, T x_adv, T t) {
  const T y = x + t * (x_adv - x);
  const T low = smaller(x, x_adv), high = larger(x, x_adv);
  return larger(low, smaller(y, high));
}

}  // namespace robustperf::ROBUSTPERF_ISA
