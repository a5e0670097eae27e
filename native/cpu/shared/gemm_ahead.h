// Memory that a product asks for ahead of its reading or writing it, in small shares on the way: what lies in
// rows far apart, or is read when something else has run out, the hardware's prefetcher does not foresee. A
// tile asks once a turn of its loop, which is a few steps.
// Included once a pass, inside it, after gemm_pack.h: no guard.

namespace isopolicy::ISA_PASS {

// Memory that will be read soon, asked for on the way: so many rows of so many lines every so many turns, of
// which `wait` are left until the next ones.
struct Soon {
  const char* at = nullptr;
  int64_t stride = 64;
  int rows = 0, lines = 1, every = 1, wait = 1;

  ISA_INLINE Soon after(int64_t turns) const {
    const int64_t times = turns < wait ? 0 : 1 + (turns - wait) / every;
    return {at + times * rows * stride, stride, rows, lines, every, int(wait + times * every - turns)};
  }
  ISA_INLINE void fetch() {
    if (--wait > 0) return;
    wait = every;
    for (int i = 0; i < rows; i++, at += stride)
      for (int line = 0; line < lines; line++) __builtin_prefetch(at + line * 64, 0, 2);
  }
};

// The same of rows of one or two lines that will be written: so many of those left at each turn.
struct SoonWritten {
  const char* at = nullptr;
  int64_t stride = 0;
  int left = 0, rows = 1, lines = 1;

  ISA_INLINE SoonWritten after(int64_t turns) const {
    const int done = int(lesser(left, turns * rows));
    return {at + done * stride, stride, left - done, rows, lines};
  }
  ISA_INLINE void fetch() { fetch(rows); }
  ISA_INLINE void fetch(int count) {
    for (int i = 0; i < count && left > 0; i++, left--, at += stride) {
      __builtin_prefetch(at, 1);
      if (lines > 1) __builtin_prefetch(at + 64, 1);
    }
  }
};

// Rows of lines that are asked for in even shares over some turns. With `gap` the second half of them lies so
// much further.
struct Ahead {
  const char* at = nullptr;
  int64_t stride = 64, rows = 0, lines = 1, perTurn = 1, every = 1, gap = 0;

  Ahead() = default;
  // Long rows far apart are asked for one by one: all at once they would hold each other up.
  Ahead(const char* at, int64_t stride, int64_t rows, int64_t lines, int64_t turns, int64_t gap = 0)
      : at(at),
        stride(stride),
        rows(rows),
        lines(lines),
        perTurn(turns > 0 && rows > turns ? quotientUp(rows, turns)
                : turns > 0               ? 1
                                          : rows),
        every(lines > 1 && rows > 0 && turns > rows ? turns / rows : 1),
        gap(gap) {}

  // No division where it can do without: it is asked once a tile.
  Soon share(int64_t done) const {
    const int64_t times = every == 1 ? done : quotientUp(done, every), first = times * perTurn;
    if (first >= rows) return {};
    const char* from = at + first * stride + (2 * first >= rows ? gap : 0);
    return {from, stride, int(perTurn), int(lines), int(every), int(times * every - done + 1)};
  }
};
// Lines that follow one another, or do so in two halves of which the second begins `half` behind the first.
inline Ahead linesAhead(const char* at, int64_t bytes, int64_t turns, int64_t half = 0) {
  return {at, 64, bytes / 64, 1, turns, half ? half - bytes / 2 : 0};
}
// Rows of an operand as it is stored.
template <class T>
inline Ahead rowsAhead(const T* at, int64_t ld, int64_t rows, int64_t length, int64_t turns) {
  const int64_t bytes = int64_t(sizeof(T));
  return {reinterpret_cast<const char*>(at), ld * bytes, rows, quotientUp(length * bytes, 64), turns};
}

}  // namespace isopolicy::ISA_PASS
