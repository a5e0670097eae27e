// Packing for the tiles of gemm_tile.h that take a vector of columns at a time: rows of A as [step][Rows] of
// each tile, columns of B as [step][Columns] of each panel. Included once a pass, inside it, after
// gemm_pack.h: no guard.

namespace isopolicy::ISA_PASS {

#if ISA_LEVEL >= 2
// A tile's words of a step, of so many that are left, as a whole vector: those past its rows go where the
// next steps' will be written, so that only the last steps must not have them. Masks, and loops over what may
// be missing, take several times as long as what they spare.
template <int Rows>
ISA_INLINE void putStep(float* to, int64_t step, int64_t left, Vec words) {
  if (left * Rows >= kLanes)
    store(to + step * Rows, words);
  else
    storePartial(to + step * Rows, words, Rows);
}

// As many steps as there are whole blocks of sixteen, of a whole tile whose rows lie along k. Returns them.
template <int Depth, int Rows, class T>
ISA_INLINE int64_t packRowsAlong(const Source<T>& x, float* to) {
  const int64_t whole = x.length / (16 * Depth) * 16;
  for (int64_t step = 0; step < whole; step += 16) {
    Vec rows[16], words[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) {
      const T* from = x.at + r * x.ld + step * Depth;
      if constexpr (Depth == 2)
        rows[r] = r < Rows ? load(reinterpret_cast<const float*>(from)) : zero();
      else
        rows[r] = r < Rows ? load(from) : zero();
    }
    transpose16(rows, words);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) putStep<Rows>(to, step + i, 16 - i, words[i]);
  }
  return whole;
}

// The lanes of a step of a row that lies across k, from `at` on.
template <int Depth, class T>
ISA_INLINE Vec wordsAcross(const T* at, int64_t ld) {
  if constexpr (Depth == 1) {
    return load(at);
  } else {
    const auto words = [](const T* p) __attribute__((always_inline)) {
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    };
    return {_mm512_castsi512_ps(_mm512_or_si512(words(at), _mm512_slli_epi32(words(at + ld), 16)))};
  }
}

// All whole steps of tiles side by side whose rows lie across k, step by step: long reads. A tile is
// tileWords behind the one before.
template <int Depth, int Rows, class T>
ISA_INLINE void packRowsAcross(const Source<T>& x, int64_t tiles, float* to, int64_t tileWords) {
  const int64_t whole = x.length / Depth;
  for (int64_t step = 0; step < whole; step++) {
    const T* at = x.at + step * Depth * x.ld;
    for (int d = 0; d < Depth; d++)
      for (int64_t lane = 0; lane < tiles * Rows; lane += 64 / int64_t(sizeof(T)))
        fetchRow(x, step * Depth + d, lane);
    for (int64_t t = 0; t < tiles; t++)
      putStep<Rows>(to + t * tileWords, step, whole - step, wordsAcross<Depth>(at + t * Rows, x.ld));
  }
}
#endif

// Tiles of Rows rows, of which the last may have fewer. An element lies there Copies times.
template <int Depth, int Rows, int Copies, class T>
static void packVectorRows(const Source<T>& x, int64_t steps, float* to) {
  [[maybe_unused]] int64_t across = 0;  // tiles whose whole vectors exist
#if ISA_LEVEL >= 2
  if (!x.alongK && x.lanes >= kLanes) across = (x.lanes - kLanes) / Rows + 1;
  if (across > 0) packRowsAcross<Depth, Rows>(x, across, to, steps * Rows);
#endif
  for (int64_t lane = 0; lane < x.lanes; lane += Rows) {
    const int rows = int(lesser(Rows, x.lanes - lane));
    float* tile = to + lane * steps * Copies;
    Source<T> left = {x.at + (x.alongK ? lane * x.ld : lane), x.ld, x.alongK, rows, x.length};
    int64_t done = 0;
#if ISA_LEVEL >= 2
    if (x.alongK && rows == Rows) done = packRowsAlong<Depth, Rows>(left, tile);
    if (lane < across * Rows) done = x.length / Depth;
#endif
    left.at += done * Depth * (x.alongK ? 1 : x.ld);
    left.length -= done * Depth;
    eachStep<Depth>(left, steps - done, kLanes, [&](int64_t step, int64_t, Vec words) {
      float* at = tile + (done + step) * rows * Copies;
#if ISA_LEVEL == 0
      for (int r = 0; r < rows; r++) putQuad(at + r * Copies, quadOf(words.a[r]));
#else
      storePartial(at, words, rows);
#endif
    });
  }
}

#if ISA_LEVEL >= 2
// All whole steps of whole panels side by side whose columns lie across k, step by step.
template <int Depth, int Columns, class T>
ISA_INLINE void packColumnsAcross(const Source<T>& x, int64_t panels, float* to, int64_t panelWords) {
  for (int64_t step = 0; step < x.length / Depth; step++) {
    const T* at = x.at + step * Depth * x.ld;
    for (int64_t p = 0; p < panels; p++) {
      float* words = to + p * panelWords + step * Columns;
      const T* from = at + p * Columns;
      for (int d = 0; d < Depth; d++)
        for (int64_t lane = 0; lane < Columns; lane += 64 / int64_t(sizeof(T)))
          fetchRow(x, step * Depth + d, p * Columns + lane);
      if constexpr (Depth == 1) {
        for (int i = 0; i < Columns; i += kLanes) store(words + i, load(from + i));
      } else {
#if ISA_LEVEL >= 3
        static_assert(Columns == 32);
        Vec left, right;
        pairsOf(_mm512_loadu_si512(from), _mm512_loadu_si512(from + x.ld), left, right);
        store(words, left);
        store(words + kLanes, right);
#endif
      }
    }
  }
}
#endif

// A panel lies step by step: [step][Columns]; panels are `panelWords` apart.
template <int Depth, int Columns, class T>
static void packVectorColumns(const Source<T>& x, int64_t steps, float* to, int64_t panelWords) {
  const auto put = [&](int64_t step, int64_t lane, Vec words) __attribute__((always_inline)) {
    store(to + lane / Columns * panelWords + step * Columns + lane % Columns, words);
  };
#if ISA_LEVEL >= 2
  const int64_t panels = x.lanes / Columns;
  if (!x.alongK && panels > 0) {
    packColumnsAcross<Depth, Columns>(x, panels, to, panelWords);
    const int64_t done = x.length / Depth, lanes = panels * Columns;
    // The last panel, where it is not whole, and the last step, where it lacks an element.
    const Source<T> panel = {x.at + lanes, x.ld, false, x.lanes - lanes, x.length};
    const Source<T> step = {x.at + done * Depth * x.ld, x.ld, false, lanes, x.length - done * Depth};
    if (panel.lanes > 0)
      eachStep<Depth>(panel, steps, Columns,
                      [&](int64_t step, int64_t lane, Vec words) { put(step, lanes + lane, words); });
    if (steps > done)
      eachStep<Depth>(step, steps - done, lanes,
                      [&](int64_t step, int64_t lane, Vec words) { put(done + step, lane, words); });
    return;
  }
#endif
  eachStep<Depth>(x, steps, roundUp(x.lanes, Columns), put);
}

}  // namespace isopolicy::ISA_PASS
