// The search for the nearest boundary along the lines from one point to its candidates (T section 3.2).
//
// A point looks at one place of one line at a time. `advance` takes the gap seen there and decides the next place.
// First every line whose far end is not known gets a look, where the nearest crossing known so far lies if that is
// nearer than its end: either it has crossed by then or it cannot win. Then the line that promises the nearest crossing
// is refined, a step at a time, until one has closed in on its crossing; a line that has not crossed by that radius is
// dropped. With one line this is a line search.
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

enum Stage : int { kUnseen = 0, kOpen = 1, kClosed = 2 };

// What is known of the line from x to one candidate x'. Like Search a row of a float64 tensor, whole numbers included.
struct Line {
  double length;    // |x' - x| in the norm of interest; infinite where there is nothing to search
  double gap_end;   // the gap at x', NaN where unknown
  double a, gap_a;  // the latest place of the bracket; while unseen the farthest place known not to have crossed
  double b, gap_b;  // its opposite: one of a and b has crossed, the other has not
  double c, gap_c;  // the place before, for inverse quadratic interpolation
  double looks;     // looks inside the bracket
  double probe;     // equally spaced places looked at
  double stage;     // Stage
};
constexpr int kLineFields = sizeof(Line) / sizeof(double);

// One point's search.
struct Search {
  double gap_x;        // the gap at x
  double step;         // the place to look at next, in (0, 1]
  double line;         // on which line; -1 when there is nothing left to look at
  double radius;       // the distance of the nearest crossing closed in on; infinite when there is none
  double best_step;    // its place
  double best_line;    // its line, or -1
  double evaluations;  // images that the model saw
};
constexpr int kSearchFields = sizeof(Search) / sizeof(double);

struct Method {
  double tol;       // the widest bracket that ends a search
  bool bisection;   // halve, and nothing else
  int64_t probes;   // equally spaced places to look at first
  double patience;  // past so many looks in a bracket it is halved: whatever the gap does, the search ends
};

ROBUSTPERF_HD inline bool has_crossed(double gap) { return gap < 0.0; }

// The crossed and the other end of an open bracket.
ROBUSTPERF_HD inline double crossed_end(const Line& line) { return has_crossed(line.gap_a) ? line.a : line.b; }
ROBUSTPERF_HD inline double uncrossed_end(const Line& line) { return has_crossed(line.gap_a) ? line.b : line.a; }

// Where the secant of the bracket puts the crossing, as a distance from x.
ROBUSTPERF_HD inline double promise(const Line& line) {
  const double t = line.gap_a / (line.gap_a - line.gap_b);
  return line.length * (line.a + (finite(t) ? t : 0.5) * (line.b - line.a));
}

// The next place inside the bracket: the secant first, then Chandrupatla's choice (1997) between inverse quadratic
// interpolation and halving. Kept `tol` away from both ends, so that a root beside an end closes the bracket.
ROBUSTPERF_HD inline double inside(const Line& s, const Method& method) {
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

// The first crossing seen on a line: the bracket reaches from the farthest place before it.
ROBUSTPERF_HD inline void open_bracket(Line& line, double place, double gap) {
  // a becomes the end nearer to the root: Chandrupatla starts from there.
  if (magnitude(gap) < magnitude(line.gap_a)) {
    line.b = line.a, line.gap_b = line.gap_a;
    line.a = place, line.gap_a = gap;
  } else {
    line.b = place, line.gap_b = gap;
  }
  line.stage = kOpen;
}

// Before anything is looked at: lines whose far ends are known are open or closed already.
ROBUSTPERF_HD inline void begin(Search& s, Line* lines, int64_t count, const Method& method) {
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

// The next place to look at on an unseen line, whose first `end` is of interest: the next of the equally spaced places,
// or the end when they are done.
ROBUSTPERF_HD inline double look_ahead(const Line& line, double end, const Method& method) {
  const double place = (line.probe + 1.0) / static_cast<double>(method.probes + 1);
  return line.probe < static_cast<double>(method.probes) && place < end ? place : end;
}

// Decides where to look next. True when a crossing was closed in on, nearer than any before.
ROBUSTPERF_HD inline bool choose(Search& s, Line* lines, int64_t count, const Method& method) {
  bool nearer = false;
  while (true) {
    int64_t unseen = -1, open = -1;
    double bound = s.radius, nearest = HUGE_VAL;
    for (int64_t i = 0; i < count; ++i) {
      Line& line = lines[i];
      if (line.stage == kUnseen) {
        if (unseen < 0 || line.length < lines[unseen].length) unseen = i;
      } else if (line.stage == kOpen) {
        // What is nearer than the radius by less than the tolerance is not worth a look; a closed bracket needs none.
        const bool narrow = magnitude(line.b - line.a) <= method.tol;
        if (!narrow && uncrossed_end(line) >= s.radius / line.length - method.tol) {
          line.stage = kClosed;
          continue;
        }
        bound = smaller(bound, crossed_end(line) * line.length);
        const double distance = narrow ? -1.0 : promise(line);
        if (open < 0 || distance < nearest) open = i, nearest = distance;
      }
    }
    if (unseen >= 0) {
      Line& line = lines[unseen];
      const double end = smaller(1.0, bound / line.length - method.tol);
      const double place = look_ahead(line, end, method);
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
    const double within = s.radius / line.length - method.tol, place = inside(line, method);
    s.step = within < crossed_end(line) ? within : place;
    // A place equal to an end means that no number lies between the two.
    if (magnitude(line.b - line.a) > method.tol && s.step != line.a && s.step != line.b) return nearer;
    line.stage = kClosed;
    if (crossed_end(line) * line.length < s.radius) {
      s.best_step = crossed_end(line), s.best_line = s.line;
      s.radius = s.best_step * line.length;
      nearer = true;
    }
  }
}

// Takes the gap seen at s.step of s.line, and decides where to look next; as `choose`.
ROBUSTPERF_HD inline bool advance(Search& s, double gap, Line* lines, int64_t count, const Method& method) {
  s.evaluations += 1.0;
  Line& line = lines[static_cast<int64_t>(s.line)];
  if (line.stage == kOpen) {
    line.looks += 1.0;
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
  return choose(s, lines, count, method);
}

// x + t (x' - x) for t < 1, never outside the interval between the two. At t = 1 the place is x' itself, bit for bit.
template <typename T>
ROBUSTPERF_HD inline T along(T x, T x_adv, T t) {
  const T y = x + t * (x_adv - x);
  const T low = smaller(x, x_adv), high = larger(x, x_adv);
  return larger(low, smaller(y, high));
}

}  // namespace robustperf::ROBUSTPERF_ISA
