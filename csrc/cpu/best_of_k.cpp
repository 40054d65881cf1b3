#include "../core/best_of_k.hpp"

#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "quads.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

// Up to so many classes, kLanes rows go side by side, one a lane; rows of more classes go one by one, along the lanes.
constexpr int64_t kNarrow = 40;
constexpr int kTops = 2;  // registers in flight
static_assert(kTops * kWidthOf<float> <= kNarrow, "a wide row fills them");

// The rows that a thread takes at a time.
constexpr int kBlock = 4 * kLanes;
constexpr int rows_at_a_time(int64_t classes) { return classes <= kNarrow ? kBlock : kLanes; }

// What the losses of a block need to know of its rows.
template <typename T>
struct Rows {
  T top[kBlock], powers[kBlock], smoothing[kBlock], at_target[kBlock];
};

// Contiguous rows as T: themselves, or widened into `scratch`.
template <typename T>
const T* as_numbers(const T* logits, int64_t, T*) {
  return logits;
}

template <typename T, typename L>
const T* as_numbers(const L* logits, int64_t count, T* scratch) {
  const int64_t whole = count / kWidthOf<T> * kWidthOf<T>;
  for (int64_t i = 0; i < whole; i += kWidthOf<T>) write(scratch + i, read(logits + i));
  for (int64_t i = whole; i < count; ++i) scratch[i] = number(logits[i]);
  return scratch;
}

// columns[class][row] from rows[row][class], four by four; the rows from `count` to kLanes repeat the last one.
template <typename T>
void columns_of(const T* rows, int count, int64_t classes, T* columns) {
  const auto row = [&](int l) { return rows + smaller(l, count - 1) * classes; };
  if (classes < 4) {
    for (int l = 0; l < kLanes; ++l)
      for (int64_t j = 0; j < classes; ++j) columns[j * kLanes + l] = row(l)[j];
    return;
  }
  for (int l = 0; l < kLanes; l += 4) {
    const T* from[4] = {row(l), row(l + 1), row(l + 2), row(l + 3)};
    for (int64_t j = 0;; j = smaller(j + 4, classes - 4)) {  // the last step may repeat some columns
      typename QuadOf<T>::Quad quads[4];
      for (int i = 0; i < 4; ++i) take(quads[i], from[i] + j);
      transpose<T>(quads);
      for (int i = 0; i < 4; ++i) put(columns + (j + i) * kLanes + l, quads[i]);
      if (j + 4 == classes) break;
    }
  }
}

// kLanes rows side by side: their columns.
template <typename T, typename L>
void turn(const L* logits, int count, int64_t classes, T* columns) {
  T scratch[kNarrow * kLanes];
  columns_of(as_numbers(logits, count * classes, scratch), count, classes, columns);
}

template <typename T, typename L>
void look_at_narrow(const L* logits, int count, int64_t classes, T share, Rows<T>& rows) {
  using V = typename Full<T>::Register;
  alignas(64) T columns[2][kNarrow * kLanes];
  turn(logits, smaller(kLanes, count), classes, columns[0]);
  for (int place = 0, turned = 0; place < count; place += kLanes, turned ^= 1) {
    // the next ones first: numbers just written one by one cannot be read at once as a register
    const int after = place + kLanes;
    if (after < count) turn(logits + after * classes, smaller(kLanes, count - after), classes, columns[turned ^ 1]);
    for (int lane = 0; lane < kLanes; lane += kWidthOf<T>) {
      const auto column = [&](int64_t j) { return read(columns[turned] + j * kLanes + lane); };
      V top = column(0), powers{}, smoothing{};
      for (int64_t j = 1; j < classes; ++j) top = top_of(top, column(j));
      for (int64_t j = 0; j < classes; ++j) powers += power_term(column(j), top);
      if (share != T(0))
        for (int64_t j = 0; j < classes; ++j) smoothing += smoothing_term(column(j), top, share);
      write(rows.top + place + lane, top);
      write(rows.powers + place + lane, powers);
      write(rows.smoothing + place + lane, smoothing);
    }
  }
}

// The largest comes out the same in any order, so a row that the registers do not divide is read twice at its end.
template <typename T, typename L>
T largest(const L* row, int64_t classes) {
  using V = typename Full<T>::Register;
  constexpr int64_t kStep = kTops * kWidthOf<T>;
  V top[kTops];
  for (V& each : top) each = V{} - static_cast<T>(HUGE_VAL);
  for (int64_t i = 0;;) {
    for (int r = 0; r < kTops; ++r) top[r] = top_of(top[r], read(row + i + r * kWidthOf<T>));
    if (i + kStep == classes) break;
    i = smaller(i + kStep, classes - kStep);
  }
  return fold_all<T>(top, [](auto a, auto b) { return top_of(a, b); });
}

// The sum of term(z) along a row, in kLanes lanes; `blank` is a z that adds nothing. Meanwhile the row `ahead` is
// fetched.
template <typename T, typename L, typename Term>
T add_along(const L* row, const L* ahead, int64_t classes, T blank, Term&& term) {
  using V = typename Full<T>::Register;
  V sum[kRegistersOf<T>] = {};
  const int64_t whole = classes / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    __builtin_prefetch(ahead + i);
    for (int r = 0; r < kRegistersOf<T>; ++r) sum[r] += term(read(row + i + r * kWidthOf<T>));
  }
  if (whole < classes) {  // the last kLanes, without those that have been added
    const T added = static_cast<T>(whole + kLanes - classes);
    for (int r = 0; r < kRegistersOf<T>; ++r) {
      const V z = read(row + classes - kLanes + r * kWidthOf<T>);
      sum[r] += term(lane_numbers<V>() + static_cast<T>(r * kWidthOf<T>) < V{} + added ? V{} + blank : z);
    }
  }
  return fold_all<T>(sum, [](auto a, auto b) { return a + b; });
}

// `left`: how many rows there are from here on, in this block and behind it.
template <typename T, typename L>
void look_at_wide(const L* logits, int count, int64_t left, int64_t classes, T share, Rows<T>& rows) {
  using V = typename Full<T>::Register;
  T next = largest<T>(logits, classes);
  for (int l = 0; l < count; ++l) {
    const L* row = logits + l * classes;
    const L* ahead = l + 2 < left ? row + 2 * classes : row;
    const T top = next;
    // one row ahead: its last steps wait for one another, and meanwhile the powers go on
    if (l + 1 < count) next = largest<T>(row + classes, classes);
    const V tops = V{} + top;
    const T least = static_cast<T>(-HUGE_VAL);
    rows.top[l] = top;
    rows.powers[l] = add_along(row, ahead, classes, least, [=](V z) { return power_term(z, tops); });
    if (share != T(0))
      rows.smoothing[l] = add_along(row, row, classes, top, [=](V z) { return smoothing_term(z, tops, share); });
  }
}

// The losses of a block of rows, from number `first` on; the rows of all draws lie behind one another.
template <typename T, typename L>
void losses_of(const BestOfKArgs<T>& args, int64_t first, int count) {
  const L* logits = static_cast<const L*>(args.logits) + first * args.classes;
  const T smoothing = static_cast<T>(args.label_smoothing), share = static_cast<T>(args.label_smoothing / args.classes);
  Rows<T> rows;
  if (share == T(0)) memset(rows.smoothing, 0, sizeof rows.smoothing);
  if (args.classes <= kNarrow) {
    look_at_narrow(logits, count, args.classes, share, rows);
  } else {
    look_at_wide(logits, count, args.draws * args.rows - first, args.classes, share, rows);
  }
  for (int64_t l = 0, sample = first % args.rows; l < count; ++l, sample = sample + 1 == args.rows ? 0 : sample + 1) {
    const int64_t label = args.target[sample];
    const bool ignored = label == args.ignore_index;
    rows.at_target[l] = number(logits[l * args.classes + (ignored ? 0 : label)]);
    if (ignored) {  // what makes a loss of 0
      rows.powers[l] = T(1);
      rows.top[l] = rows.at_target[l] = rows.smoothing[l] = T(0);
    }
  }
#pragma omp simd
  for (int l = 0; l < count; ++l)
    args.losses[first + l] =
        cross_entropy(rows.powers[l], rows.top[l], rows.at_target[l], rows.smoothing[l], smoothing);
}

template <typename T>
void worst_of_each_sample(const BestOfKArgs<T>& args, int64_t begin, int64_t end) {
  T* best = args.loss;
  int64_t* index = args.index;
  for (int64_t draw = 0; draw < args.draws; ++draw) {
    const T* loss = args.losses + draw * args.rows;
    const int64_t number = args.first + draw;
#pragma omp simd
    for (int64_t b = begin; b < end; ++b) {
      const bool take = worse(loss[b], best[b]);
      best[b] = take ? loss[b] : best[b];
      index[b] = take ? number : index[b];
    }
  }
}

// The same order of additions for a draw and for the best so far, whatever the chunks that draws come in.
template <typename T>
double total(const T* loss, int64_t rows) {
  Doubles sum[kRegisters] = {};
  const int64_t whole = rows / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int r = 0; r < kRegisters; ++r) sum[r] += load(loss + i + r * kWidth);
  double rest = 0.0;
  for (int64_t i = whole; i < rows; ++i) rest += loss[i];
  return add_up(sum) + rest;
}

template <typename T>
void worst_of_the_batch(const BestOfKArgs<T>& args, int threads) {
  parallel_rows(args.draws, threads,
                [&](int64_t draw) { args.totals[draw] = total(args.losses + draw * args.rows, args.rows); });
  double best = total(args.loss, args.rows);
  int64_t winner = -1;
  for (int64_t draw = 0; draw < args.draws; ++draw)
    if (worse(args.totals[draw], best)) best = args.totals[winner = draw];
  if (winner < 0) return;
  memcpy(args.loss, args.losses + winner * args.rows, args.rows * sizeof(T));
  for (int64_t b = 0; b < args.rows; ++b) args.index[b] = args.target[b] == args.ignore_index ? 0 : args.first + winner;
}

}  // namespace

template <typename T, typename L>
void Kernels::best_of_k(const BestOfKArgs<T>& args, int threads) {
  const int64_t rows = args.draws * args.rows;
  const int step = rows_at_a_time(args.classes);
  parallel_rows((rows + step - 1) / step, threads, [&](int64_t block) {
    losses_of<T, L>(args, block * step, static_cast<int>(smaller<int64_t>(step, rows - block * step)));
  });
  for (int64_t b = 0; b < args.rows; ++b) {
    const bool ignored = args.target[b] == args.ignore_index;
    if (ignored || args.fresh) {
      args.loss[b] = ignored ? T(0) : static_cast<T>(NAN);
      args.index[b] = 0;
    }
  }
  constexpr int64_t kColumns = 1 << 12;
  const int team = args.rows > kColumns ? threads : 1;  // a comparison a row is not worth waking a thread for
  if (args.whole_batch) {
    worst_of_the_batch(args, team);
    return;
  }
  parallel_rows((args.rows + kColumns - 1) / kColumns, team, [&](int64_t part) {
    worst_of_each_sample(args, part * kColumns, smaller(args.rows, (part + 1) * kColumns));
  });
}

template void Kernels::best_of_k<float, float>(const BestOfKArgs<float>&, int);
template void Kernels::best_of_k<float, BFloat16>(const BestOfKArgs<float>&, int);
template void Kernels::best_of_k<float, Float16>(const BestOfKArgs<float>&, int);
template void Kernels::best_of_k<double, double>(const BestOfKArgs<double>&, int);

}  // namespace robustperf::ROBUSTPERF_ISA
